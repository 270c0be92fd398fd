#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_instance
short_description: One instance in Google Compute Engine
description:
  - Creates, starts, stops or deletes one instance, found by its name in the zones given.
  - The rules for GPUs, the request that is sent and the firewall rule for SSH are those of a fleet's machines. A GPU that does not
    fit the machine type is refused before anything is asked of Google.
  - Only an instance that carries the labels of this collection and of O(fleet) is ever touched.
  - For a fleet, declare the machines in a fleet file and use M(gpumesh.fleet.fleet), which plans and prices all of them.
  - Runs where the Compute Engine API can be reached, as a rule on the control machine.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer
  - google-auth >= 2.23
  - requests >= 2.31
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
    description: Use C(group/gpumesh.fleet.all) or C(group/gpumesh.fleet.gcp) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - gpumesh.fleet.all
      - gpumesh.fleet.gcp
options:
  name:
    description: Name of the instance.
    type: str
    required: true
  state:
    description:
      - V(present) creates the instance and starts it where it does not exist, and leaves alone whether it runs where it does.
      - V(started) and V(stopped) also see to that. Disks of a stopped instance still cost money.
      - V(absent) deletes it, with its boot disk.
    type: str
    choices: [present, absent, started, stopped]
    default: present
  zone:
    description: Where it is, such as V(us-central1-c).
    type: str
    required: true
  fallback_zones:
    description: Where else it may be, in order. Tried when O(zone) has none left.
    type: list
    elements: str
    default: []
  type:
    description:
      - Machine type, such as V(n1-standard-8).
      - Needed to create it. One that differs from the instance's is an error, for this module does not change it.
    type: str
  gpu:
    description:
      - Its GPUs. Only N1 types take them; the types of the families A2, A3, A4, G2 and G4 come with theirs, which need not be named.
      - GPUs that differ from the instance's are an error.
    type: dict
    suboptions:
      model:
        description: Short name of the model, such as V(t4).
        type: str
        required: true
      count:
        description: How many.
        type: int
        default: 1
  image:
    description:
      - What to create it from, V(debian-12), V(debian-13) or V(ubuntu-24.04), a golden image as V(golden:gpu-box@1.2.0) or
        V(golden:gpu-box@latest), the name of an image of the project, or C(projects/<project>/global/images/<image>).
      - Of no effect on an instance that exists.
    type: str
    default: debian-13
  disk_gb:
    description: Size of a new boot disk in GB.
    type: int
    default: 20
  disk_type:
    description: Type of a new boot disk, such as V(pd-ssd). Chosen by the machine type if not given.
    type: str
  spot:
    description: Create it as spot capacity, which is much cheaper, and which Google may take back at any time.
    type: bool
    default: false
  max_run:
    description: Let Google end a new instance after it has run so long, such as V(8h), even if nobody is there to ask for it.
    type: str
  when_ended:
    description: What Google does to a new instance when O(max_run) is over or spot capacity is taken back.
    type: str
    choices: [stop, delete]
    default: stop
  network:
    description: VPC network of the project for a new instance.
    type: str
    default: default
  subnetwork:
    description: Subnetwork for a new instance; needed in a network of custom mode.
    type: str
  service_account:
    description: E-mail address of a service account a new instance acts as. None if not given.
    type: str
  user:
    description: Administrator account of a new instance, with sudo.
    type: str
    default: admin
  ssh_keys:
    description:
      - Public SSH keys that may log in as O(user), one line each, such as V(ssh-ed25519 AAAA... someone).
      - Needed to create it. Of no effect on an instance that exists.
    type: list
    elements: str
    default: []
  ssh_sources:
    description:
      - Networks that may reach the SSH port of a new instance. All if not given.
      - They are let in by a firewall rule on a tag of the instance, and a second one keeps out all others, whatever else the
        network allows. The rules are shared by all instances of the same O(fleet).
    type: list
    elements: str
  labels:
    description:
      - All labels of the instance. Without this option they are left alone.
      - Labels whose keys begin with C(gpumesh-) are the collection's own and always left alone.
    type: dict
  user_data:
    description: Cloud-config of its first boot, merged under the collection's own. Of no effect on an instance that exists.
    type: str
  fleet:
    description: Name of the fleet the instance is labelled with. An inventory of that fleet shows it as undeclared.
    type: str
    default: standalone
  wait_timeout:
    description: Seconds to wait for each operation.
    type: int
    default: 300
  project:
    description: Id of the project. Taken from the environment variable E(GCP_PROJECT) or E(GOOGLE_CLOUD_PROJECT) if not given.
    type: str
  credentials_file:
    description:
      - Key file of a service account. Taken from the environment variable E(GOOGLE_APPLICATION_CREDENTIALS) if not given.
      - Otherwise the application default credentials are used, as C(gcloud auth application-default login) leaves them.
    type: path
  endpoint:
    description: Base URL of the API, for a proxy or the sandbox. Taken from the environment variable E(GCP_ENDPOINT) if not given.
    type: str
seealso:
  - module: gpumesh.fleet.fleet
"""

EXAMPLES = r"""
- name: A machine with one T4
  gpumesh.fleet.gcp_instance:
    project: my-project
    name: scheelite
    type: n1-standard-8
    gpu: {model: t4}
    zone: us-central1-c
    fallback_zones: [us-central1-a, us-central1-b]
    image: ubuntu-24.04
    max_run: 8h
    ssh_keys: ["{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"]
    ssh_sources: [198.51.100.0/24]
  delegate_to: localhost
  register: scheelite

- name: Its address, its host keys and what it costs
  ansible.builtin.debug:
    msg: "{{ scheelite.instance.public_ip }}, {{ scheelite.instance.host_keys }}, {{ scheelite.instance.price.hourly }} USD per hour"

- name: Not at night
  gpumesh.fleet.gcp_instance:
    project: my-project
    name: scheelite
    zone: us-central1-c
    state: stopped
  delegate_to: localhost

- name: No more of it
  gpumesh.fleet.gcp_instance:
    project: my-project
    name: scheelite
    zone: us-central1-c
    fallback_zones: [us-central1-a, us-central1-b]
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
instance:
  description: The instance as it is now; in check mode as it was. None if there is none.
  returned: success
  type: dict
  sample:
    id: "4711"
    name: scheelite
    state: running
    cloud_state: RUNNING
    zone: us-central1-c
    type: n1-standard-8
    gpu_model: t4
    gpu_count: 1
    public_ip: 203.0.113.7
    host_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI...]
    labels: {gpumesh-fleet: standalone, gpumesh-machine: scheelite}
    price: {hourly: "0.73000", currency: USD, source: "SkyPilot catalog v8 for GCP, ...", monthly_cap: null}
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
      description: The kind of failure, such as V(OutOfStock) or V(QuotaExceeded).
      type: str
      returned: always
    message:
      description: What happened.
      type: str
      returned: always
    machine:
      description: The instance it happened to.
      type: str
      returned: always
    hint:
      description: What to do next.
      type: str
      returned: always
    code:
      description: The error code of Compute Engine, such as V(ZONE_RESOURCE_POOL_EXHAUSTED).
      type: str
      returned: always
    details:
      description: What Compute Engine said beyond that.
      type: raw
      returned: always
    request_id:
      description: What Google's support needs to find the request.
      type: str
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

try:
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.firstboot import FirstBoot
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_one import (
        Wish,
        converge,
        open_provider,
    )
except ImportError as problem:
    MISSING: ImportError | None = problem
else:
    MISSING = None

MACHINE = {
    "type": {"type": "str"},
    "gpu": {
        "type": "dict",
        "options": {
            "model": {"type": "str", "required": True},
            "count": {"type": "int", "default": 1},
        },
    },
    "image": {"type": "str", "default": "debian-13"},
    "disk_gb": {"type": "int", "default": 20},
    "disk_type": {"type": "str"},
    "spot": {"type": "bool", "default": False},
    "max_run": {"type": "str"},
    "when_ended": {"type": "str", "choices": ["stop", "delete"], "default": "stop"},
    "network": {"type": "str", "default": "default"},
    "subnetwork": {"type": "str"},
    "service_account": {"type": "str"},
}
SETTINGS = {
    "project": {"type": "str", "fallback": (env_fallback, ["GCP_PROJECT", "GOOGLE_CLOUD_PROJECT"])},
    "credentials_file": {"type": "path", "fallback": (env_fallback, ["GOOGLE_APPLICATION_CREDENTIALS"])},
    "endpoint": {"type": "str", "fallback": (env_fallback, ["GCP_ENDPOINT"])},
}


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
            "zone": {"type": "str", "required": True},
            "fallback_zones": {"type": "list", "elements": "str", "default": []},
            "user": {"type": "str", "default": "admin"},
            "ssh_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "ssh_sources": {"type": "list", "elements": "str"},
            "labels": {"type": "dict"},
            "user_data": {"type": "str", "no_log": True},
            "fleet": {"type": "str", "default": "standalone"},
            "wait_timeout": {"type": "int", "default": 300},
            **MACHINE,
            **SETTINGS,
        },
        supports_check_mode=True,
    )
    if MISSING is not None:
        module.fail_json(msg=missing_required_lib(MISSING.name or "pydantic"))
    params = module.params
    labels = params["labels"]
    wish = Wish(
        name=params["name"],
        fleet=params["fleet"],
        state=params["state"],
        zones=(params["zone"], *params["fallback_zones"]),
        machine={key: params[key] for key in MACHINE},
        labels=None if labels is None else {str(key): str(value) for key, value in labels.items()},
        boot=FirstBoot(params["user"], tuple(params["ssh_keys"]), user_data=params["user_data"]),
        timeout=params["wait_timeout"],
    )
    clock = SystemClock()
    try:
        provider = open_provider(wish, {key: params[key] for key in SETTINGS}, clock, params["ssh_sources"])
        outcome = converge(provider, wish, clock, check=module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error), failure=error.as_failure())
    for note in outcome.notes:
        module.warn(note)
    module.exit_json(
        changed=outcome.changed,
        instance=outcome.instance.to_json() if outcome.instance else None,
        diff={"before": outcome.before, "after": outcome.after},
    )


if __name__ == "__main__":
    main()
