#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: zerotier_network
short_description: One ZeroTier network
description:
  - Creates, changes or deletes one network, at a controller of one's own or at ZeroTier Central.
  - What is not given is left as it is. A list that is given is the whole list, and an empty one means none.
  - A controller takes nearly any value, makes something else of it and says that all is well; so every value is checked here first.
  - For a fleet, C(mesh) in the fleet file and the playbook C(gpumesh.fleet.mesh) see to the network, and to its members.
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
  state:
    description:
      - V(present) changes the network where it differs. A controller of one's own also creates it;
        ZeroTier Central chooses the ids of its networks, so create one there first.
      - V(absent) deletes it, and with it the membership of every node at once.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the network, as members see it.
    type: str
  private:
    description:
      - Whether members must be authorised. A network that is created is private unless this says otherwise.
      - Who joined while it was V(false) was authorised by that, and stays so when it becomes V(true) again.
    type: bool
  routes:
    description: All routes that members are given.
    type: list
    elements: dict
    suboptions:
      target:
        description: Network in CIDR notation.
        type: str
        required: true
      via:
        description: Address of the member that leads there. Not given for what is in the ZeroTier network itself.
        type: str
  pools:
    description: All ranges from which members are given an address, if O(v4_auto) or O(v6_auto) is on and a route covers it.
    type: list
    elements: dict
    suboptions:
      start:
        description: First address.
        type: str
        required: true
      end:
        description: Last address.
        type: str
        required: true
  v4_auto:
    description: Whether members are given an IPv4 address from O(pools).
    type: bool
  v6_auto:
    description: Whether members are given an IPv6 address from O(pools).
    type: bool
  rfc4193:
    description: Whether members have the IPv6 address that is computed from the ids of network and node, as RFC 4193 allows.
    type: bool
  sixplane:
    description: Whether members have the IPv6 subnet that is computed from their id, which ZeroTier calls 6PLANE.
    type: bool
  mtu:
    description: Size of the largest packet in bytes, from 1280 to 10000.
    type: int
  multicast_limit:
    description: How many members one multicast reaches at most. With V(0) IPv4 no longer works, since it needs ARP.
    type: int
  broadcast:
    description: Whether Ethernet broadcasts are carried.
    type: bool
  dns:
    description: What members that allow it ask for names. Given and empty means none.
    type: dict
    suboptions:
      domain:
        description: Domain to ask these servers for.
        type: str
        default: ''
      servers:
        description: Addresses of up to four servers.
        type: list
        elements: str
        default: []
  rules:
    description:
      - All rules of the network's traffic, in their order, as the JSON of the controller has them.
      - A rule of a type, or with a field, that a controller would drop in silence is refused.
      - Without rules nothing passes; V([{"type":"ACTION_ACCEPT"}]) is what a new network has.
    type: list
    elements: dict
seealso:
  - module: gpumesh.fleet.zerotier_member
"""

EXAMPLES = r"""
- name: A private network at the controller on cinnabar, with computed addresses
  gpumesh.fleet.zerotier_network:
    network: db4344343b14b903
    name: minerals
    rfc4193: true
    v4_auto: true
    routes: [{target: 10.147.17.0/24}]
    pools: [{start: 10.147.17.100, end: 10.147.17.199}]
  delegate_to: cinnabar
  become: true

- name: Only IPv4, ARP and IPv6
  gpumesh.fleet.zerotier_network:
    network: db4344343b14b903
    rules:
      - {type: MATCH_ETHERTYPE, etherType: 2048, not: true}
      - {type: MATCH_ETHERTYPE, etherType: 2054, not: true}
      - {type: MATCH_ETHERTYPE, etherType: 34525, not: true}
      - {type: ACTION_DROP}
      - {type: ACTION_ACCEPT}
  delegate_to: cinnabar
  become: true

- name: The name of a network at ZeroTier Central
  gpumesh.fleet.zerotier_network:
    plane: central_v1
    network: 8056c2e21c000001
    name: minerals
    token: "{{ lookup('ansible.builtin.env', 'ZEROTIER_TOKEN') }}"
  delegate_to: localhost
"""

RETURN = r"""
network:
  description: The network as it is now; in check mode as it was. None if there is none.
  returned: success
  type: dict
  sample:
    id: db4344343b14b903
    name: minerals
    private: true
    routes: [{target: 10.147.17.0/24, via: null}]
    pools: [{start: 10.147.17.100, end: 10.147.17.199}]
    v4_auto: true
    v6_auto: false
    rfc4193: true
    sixplane: false
    mtu: 2800
    multicast_limit: 32
    broadcast: true
    dns: {domain: "", servers: []}
    rules: [{type: ACTION_ACCEPT}]
    revision: 3
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
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import (
        Dns,
        NetworkWish,
        Pool,
        Route,
    )
except ImportError as problem:
    MISSING: ImportError | None = problem
else:
    MISSING = None

PLAIN = {
    "name": "str",
    "private": "bool",
    "v4_auto": "bool",
    "v6_auto": "bool",
    "rfc4193": "bool",
    "sixplane": "bool",
    "mtu": "int",
    "multicast_limit": "int",
    "broadcast": "bool",
}
ROUTE = {"target": {"type": "str", "required": True}, "via": {"type": "str"}}
POOL = {"start": {"type": "str", "required": True}, "end": {"type": "str", "required": True}}
DNS = {
    "domain": {"type": "str", "default": ""},
    "servers": {"type": "list", "elements": "str", "default": []},
}


def wish_of(params: dict[str, Any]) -> NetworkWish:
    """What the network shall be; what is not given stays None, which leaves it alone."""
    routes, pools, dns = params["routes"], params["pools"], params["dns"]
    return NetworkWish(
        **{name: params[name] for name in PLAIN},
        routes=None if routes is None else [Route(route["target"], route["via"]) for route in routes],
        pools=None if pools is None else [Pool(pool["start"], pool["end"]) for pool in pools],
        dns=None if dns is None else Dns(dns["domain"], tuple(dns["servers"])),
        rules=params["rules"],
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
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "routes": {"type": "list", "elements": "dict", "options": ROUTE},
            "pools": {"type": "list", "elements": "dict", "options": POOL},
            "dns": {"type": "dict", "options": DNS},
            "rules": {"type": "list", "elements": "dict"},
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
        wish = wish_of(params) if params["state"] == "present" else None
        token = one.token_for(params["plane"], params["token"], params["token_file"])
        plane = open_plane(params["plane"], params["network"], token, params["endpoint"], SystemClock())
        outcome = one.network(plane, wish, check=module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error), failure=error.as_failure())
    module.exit_json(
        changed=outcome.changed,
        network=outcome.now,
        simulated=plane.simulated,
        diff={"before": outcome.before, "after": outcome.after},
    )


if __name__ == "__main__":
    main()
