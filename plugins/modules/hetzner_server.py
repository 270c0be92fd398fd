#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: hetzner_server
short_description: One server in Hetzner Cloud
description:
  - Creates, starts, stops or deletes one server, found by its name, which is unique in a project.
  - For a fleet, declare the machines in a fleet file and use M(gpumesh.fleet.fleet), which plans and prices all of them.
  - Plants no SSH host key, since nothing would replace it afterwards. To know the key before the first connection, give one in
    O(user_data), or use M(gpumesh.fleet.fleet).
  - Runs where the Hetzner Cloud API can be reached, as a rule on the control machine.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer
  - hcloud >= 2.10, < 3
  - pydantic >= 2
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  action_group:
    description: Use C(group/gpumesh.fleet.all) or C(group/gpumesh.fleet.hetzner) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - gpumesh.fleet.all
      - gpumesh.fleet.hetzner
options:
  name:
    description: Name of the server.
    type: str
    required: true
  state:
    description:
      - V(present) creates the server and starts it where it does not exist, and leaves alone whether it runs where it does.
      - V(started) and V(stopped) also see to that.
      - A server that is stopped costs as much as one that runs; only V(absent) ends the cost.
      - V(absent) deletes it, with the addresses that were made for it.
    type: str
    choices: [present, absent, started, stopped]
    default: present
  type:
    description:
      - Server type, such as V(cx23).
      - Needed to create it. One that differs from the server's is an error, for this module does not change it.
    type: str
  location:
    description:
      - Where to place it, such as V(fsn1).
      - Needed to create it. One that differs from the server's is an error, for a server cannot move.
    type: str
  image:
    description:
      - Name or number of the image to create it from, or a golden image as V(golden:NAME@VERSION) or V(golden:NAME@latest).
      - Of no effect on a server that exists.
    type: str
    default: debian-13
  ssh_keys:
    description:
      - Public SSH keys that may log in, one line each, such as V(ssh-ed25519 AAAA... someone).
      - They are registered in the project under a name made of their fingerprint, unless they are there already.
      - Needed to create it, since Hetzner would send a root password by mail otherwise. Of no effect on a server that exists.
    type: list
    elements: str
    default: []
  labels:
    description:
      - All labels of the server. Without this option they are left alone.
      - Labels whose keys begin with C(gpumesh-) are the collection's own and always left alone.
    type: dict
  user_data:
    description: Cloud-init user data of its first boot, up to 32 KiB. Of no effect on a server that exists.
    type: str
  ipv4:
    description: Give a new server a public IPv4 address, which costs extra. It always has IPv6.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait for each operation.
    type: int
    default: 300
  token:
    description: API token of the project, with read and write permission. Taken from the environment variable E(HCLOUD_TOKEN) if not given.
    type: str
  endpoint:
    description: Base URL of the API, for a proxy or the sandbox. Taken from the environment variable E(HCLOUD_ENDPOINT) if not given.
    type: str
seealso:
  - module: gpumesh.fleet.fleet
"""

EXAMPLES = r"""
- name: A small server
  gpumesh.fleet.hetzner_server:
    name: build-1
    type: cx23
    location: nbg1
    image: ubuntu-24.04
    ssh_keys: ["{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"]
    labels: {purpose: build}
    token: "{{ lookup('ansible.builtin.env', 'HCLOUD_TOKEN') }}"
  delegate_to: localhost
  register: build

- name: Its address and what it costs
  ansible.builtin.debug:
    msg: "{{ build.server.public_ip }} at {{ build.server.price.hourly }} {{ build.server.price.currency }} per hour"

- name: No more of it
  gpumesh.fleet.hetzner_server:
    name: build-1
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
server:
  description: The server as it is now; in check mode as it was. None if there is none.
  returned: success
  type: dict
  sample:
    id: "42"
    name: build-1
    state: running
    cloud_state: running
    zone: nbg1
    type: cx23
    image: ubuntu-24.04
    public_ip: 192.0.2.7
    public_ipv6: 2001:db8:7::1
    labels: {purpose: build}
    price: {hourly: "0.0096", currency: EUR, source: "Hetzner API, live, 2026-11-20", monthly_cap: "5.99"}
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
  contains:
    text:
      description: The failure in one sentence or more, for people.
      type: str
      returned: always
    kind:
      description: The kind of failure, such as V(OutOfStock) or V(AuthError).
      type: str
      returned: always
    message:
      description: What happened.
      type: str
      returned: always
    machine:
      description: The server it happened to.
      type: str
      returned: always
    hint:
      description: What to do next.
      type: str
      returned: always
    code:
      description: The error code of the Hetzner Cloud API.
      type: str
      returned: always
    details:
      description: What the API said beyond that.
      type: raw
      returned: always
    request_id:
      description: What Hetzner's support needs to find the request.
      type: str
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

try:
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner import open_api
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_one import (
        Wish,
        converge,
    )
except ImportError as problem:
    MISSING: ImportError | None = problem
else:
    MISSING = None


def main() -> None:
    """Compare, and change what differs."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["present", "absent", "started", "stopped"],
                "default": "present",
            },
            "type": {"type": "str"},
            "location": {"type": "str"},
            "image": {"type": "str", "default": "debian-13"},
            "ssh_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "labels": {"type": "dict"},
            "user_data": {"type": "str", "no_log": True},
            "ipv4": {"type": "bool", "default": True},
            "wait_timeout": {"type": "int", "default": 300},
            "token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["HCLOUD_TOKEN"])},
            "endpoint": {"type": "str", "fallback": (env_fallback, ["HCLOUD_ENDPOINT"])},
        },
        supports_check_mode=True,
    )
    if MISSING is not None:
        module.fail_json(msg=missing_required_lib(MISSING.name or "pydantic"))
    params = module.params
    labels = params["labels"]
    wish = Wish(
        name=params["name"],
        state=params["state"],
        type=params["type"],
        location=params["location"],
        image=params["image"],
        labels=None if labels is None else {str(key): str(value) for key, value in labels.items()},
        public_keys=tuple(params["ssh_keys"]),
        user_data=params["user_data"],
        ipv4=params["ipv4"],
        timeout=params["wait_timeout"],
    )
    clock = SystemClock()
    try:
        outcome = converge(
            open_api(params["token"], params["endpoint"], clock), clock, wish, check=module.check_mode
        )
    except FleetError as error:
        module.fail_json(msg=str(error), failure=error.as_failure())
    module.exit_json(
        changed=outcome.changed,
        server=outcome.server.to_json() if outcome.server else None,
        diff={"before": outcome.before, "after": outcome.after},
    )


if __name__ == "__main__":
    main()
