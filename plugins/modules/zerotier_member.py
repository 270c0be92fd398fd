#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: zerotier_member
short_description: One member of a ZeroTier network
description:
  - Authorises, names, changes, deauthorises or deletes one member, at a controller of one's own or at ZeroTier Central.
  - A node may be made a member before it exists, as long as its id is known. It is then in the network as soon as it starts and joins.
  - What is not given is left as it is. A list that is given is the whole list, and an empty one means none, save for O(addresses).
  - A controller takes nearly any value, makes something else of it and says that all is well; so every value is checked here first.
  - All fields are written in one request, because a controller that is sent two for the same member at once loses one of them.
    So do not run two tasks for one member at a time; for a member that several hosts run this for, use C(run_once).
  - For a fleet, M(gpumesh.fleet.mesh) does this for every machine in one task.
author: [gpumesh.fleet contributors (@gpumesh)]
extends_documentation_fragment:
  - gpumesh.fleet.attributes
  - gpumesh.fleet.zerotier
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  action_group:
    description: Use C(group/gpumesh.fleet.all) or C(group/gpumesh.fleet.zerotier) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - gpumesh.fleet.all
      - gpumesh.fleet.zerotier
options:
  node_id:
    description:
      - Id of the node, 10 hexadecimal digits. The node tells its own with C(zerotier-cli info).
      - Quote it, for YAML may take one without letters for a number.
    type: str
    required: true
  state:
    description:
      - V(present) creates the member if need be, and changes it where it differs.
      - V(absent) deauthorises it, which the other members are told at once, and deletes it.
        A node that has not left the network comes back by itself within about a minute, as a member that may do nothing and of
        which nobody said anything. Such a member counts as absent.
    type: str
    choices: [present, absent]
    default: present
  authorized:
    description: Whether it may take part in the network. A member that is created is not authorised unless this says so.
    type: bool
  name:
    description: Name of the member.
    type: str
  addresses:
    description:
      - Its managed addresses, without prefix length. Those that are computed from its id are none of them.
      - They must be among those it has. Where one is missing, they take the place of what it has in that address family;
        in the other family it keeps what it has, because the control plane gives addresses from the network's pools by itself.
      - So an empty list changes nothing, unless O(no_auto_assign) is on for the member, where the list is the whole truth.
      - An address that no route of the network covers is stored, and never given to the node.
    type: list
    elements: str
  tags:
    description: All of its tags, which the network's rules can ask for, as a dictionary of numbers, id to value.
    type: dict
  active_bridge:
    description: Whether it may bridge other devices into the network.
    type: bool
  no_auto_assign:
    description: Whether it is exempt from automatic addresses, the computed ones included.
    type: bool
seealso:
  - module: gpumesh.fleet.zerotier_network
  - module: gpumesh.fleet.zerotier_identity
  - module: gpumesh.fleet.mesh
"""

EXAMPLES = r"""
- name: A laptop may join
  gpumesh.fleet.zerotier_member:
    network: db4344343b14b903
    node_id: "8046d53400"
    name: stibnite
    authorized: true
  delegate_to: cinnabar
  become: true
  run_once: true

- name: A fixed address, at ZeroTier Central
  gpumesh.fleet.zerotier_member:
    plane: central_v1
    network: 8056c2e21c000001
    node_id: "abcdef0123"
    authorized: true
    addresses: [10.147.17.33]
    token: "{{ lookup('ansible.builtin.env', 'ZEROTIER_TOKEN') }}"
  delegate_to: localhost

- name: Shut out, but remembered
  gpumesh.fleet.zerotier_member:
    network: db4344343b14b903
    node_id: "8046d53400"
    authorized: false
  delegate_to: cinnabar
  become: true

- name: Shut out and forgotten
  gpumesh.fleet.zerotier_member:
    network: db4344343b14b903
    node_id: "8046d53400"
    state: absent
  delegate_to: cinnabar
  become: true
"""

RETURN = r"""
member:
  description: The member as it is now; in check mode as it was. None if the control plane has no record of it.
  returned: success
  type: dict
  sample:
    node_id: 8046d53400
    name: stibnite
    authorized: true
    online: true
    addresses: [10.147.17.33]
    version: 1.14.2
    last_seen: "2026-11-20T11:59:00.000Z"
    latency_ms: 12.0
    physical_address: 192.0.2.8
    active_bridge: false
    no_auto_assign: false
    tags: [[1000, 1]]
    identity: "8046d53400:0:e48bbf69..."
simulated:
  description: Whether a sandbox answered, by its own word.
  returned: success
  type: bool
  sample: false
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
      description: The kind of failure, such as V(AuthError) or V(Unreachable).
      type: str
      returned: always
    message:
      description: What happened.
      type: str
      returned: always
    machine:
      description: The machine it happened to, if it was one.
      type: str
      returned: always
    hint:
      description: What to do next.
      type: str
      returned: always
    code:
      description: The HTTP status, if it was one.
      type: str
      returned: always
    details:
      description: What the control plane said beyond that.
      type: raw
      returned: always
    request_id:
      description: Always None, for these APIs have none.
      type: str
      returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

try:
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import one, open_plane
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import (
        MemberWish,
        tags_from,
    )
except ImportError as problem:
    MISSING: ImportError | None = problem
else:
    MISSING = None

PLAIN = {"name": "str", "authorized": "bool", "active_bridge": "bool", "no_auto_assign": "bool"}


def wish_of(params: dict[str, Any]) -> MemberWish:
    """What the member shall be; what is not given stays None, which leaves it alone."""
    return MemberWish(
        node_id=params["node_id"],
        addresses=params["addresses"],
        tags=None if params["tags"] is None else tags_from(params["tags"]),
        **{name: params[name] for name in PLAIN},
    )


def main() -> None:
    """Compare, and change what differs."""
    module = AnsibleModule(
        argument_spec={
            "plane": {
                "type": "str",
                "choices": ["central_v1", "central_v2", "controller"],
                "default": "controller",
            },
            "network": {"type": "str", "required": True},
            "token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["ZEROTIER_TOKEN"])},
            "token_file": {"type": "path", "no_log": False},
            "endpoint": {"type": "str"},
            "node_id": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "addresses": {"type": "list", "elements": "str"},
            "tags": {"type": "dict"},
            **{name: {"type": kind} for name, kind in PLAIN.items()},
        },
        required_if=[
            ("plane", "central_v1", ("token", "token_file"), True),
            ("plane", "central_v2", ("token", "token_file"), True),
        ],
        supports_check_mode=True,
    )
    if MISSING is not None:
        module.fail_json(msg=missing_required_lib(MISSING.name or "requests"))
    params = module.params
    try:
        wish, absent = wish_of(params), params["state"] == "absent"
        token = one.token_for(params["plane"], params["token"], params["token_file"])
        plane = open_plane(params["plane"], params["network"], token, params["endpoint"], SystemClock())
        outcome = one.member(plane, wish, absent=absent, check=module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error), failure=error.as_failure())
    module.exit_json(
        changed=outcome.changed,
        member=outcome.now,
        simulated=plane.simulated,
        diff={"before": outcome.before, "after": outcome.after},
    )


if __name__ == "__main__":
    main()
