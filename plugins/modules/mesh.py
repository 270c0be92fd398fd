#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh
short_description: Show who is in a fleet's mesh, and make it exactly those the fleet file declares
description:
  - Reads the fleet file, asks the control plane of its ZeroTier network once for all members, and compares the two.
  - A machine that is enabled is admitted and named after itself, as soon as its node is known. Which node a machine is, the
    fleet file says (C(node_id)), or O(nodes) does. The name a member has at the control plane never lets anybody in.
  - A machine that is disabled and to be C(absent), or is in O(retire), loses its membership. So do members that bear the name
    of a machine which is another node now, because it was built anew.
  - A machine that is disabled and to be C(stopped) keeps its membership.
  - A member that is authorised and not declared is deauthorised, which needs an approval. One that only asks to join is shown
    as V(knocking) and left alone.
  - The network itself is made private, and given the addresses that C(mesh.addressing) names. On a controller of your own it is
    created if it does not exist. Nothing else of it is touched; see M(gpumesh.fleet.zerotier_network).
  - Runs on the control machine. A controller on a machine of the fleet is asked through SSH, with the host key that the fleet's
    known_hosts has for it, as the fleet's administrator account; sudo must not ask for a password. The private keys are those
    that lie beside the public ones in C(defaults.ssh_keys), and whatever your ssh_config and your agent offer.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer
  - pydantic >= 2
  - requests
  - what M(gpumesh.fleet.fleet) needs for the cloud that a controller of your own is in
extends_documentation_fragment:
  - gpumesh.fleet.attributes
  - gpumesh.fleet.attributes.actiongroup_all
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - The diff is the table, as text, and is given with O(state=applied) only. It is the same in check mode and without it.
      - With O(state=planned) it is in RV(table).
  idempotent:
    support: full
options:
  fleet_file:
    description: The fleet file. It must have a C(mesh) block.
    type: path
    required: true
  state:
    description:
      - V(planned) only compares, and changes nothing. A controller of your own that does not exist yet is taken for one that knows
        nobody, so that what would be done can be seen before there is anything.
      - V(applied) makes the members those that are declared. In check mode it does the same as V(planned), and
        RV(ignore:changed) tells whether anything would be changed.
    type: str
    choices: [planned, applied]
    default: planned
  nodes:
    description:
      - By machine, the ZeroTier node id it has. Learn it over a connection whose host key was verified, as the role
        P(gpumesh.fleet.zerotier#role) does.
      - A machine without an entry, or with an empty one, and without C(node_id) in the fleet file is not admitted by this run.
        A member of its name is left as it is.
    type: dict
    default: {}
  retire:
    description:
      - Machines to take out of the mesh, whatever the fleet file says, even if they are not declared any more.
      - V(all) means every machine but the external ones.
    type: list
    elements: str
    default: []
  only:
    description:
      - Limit the changes to these machines. Members that are not declared are then left alone.
      - The network itself belongs to the fleet as a whole and is brought in line all the same.
    type: list
    elements: str
  keep_predecessors:
    description:
      - Leave in what bears the name of a machine and is another node than O(nodes) says. Both are then members.
      - For a machine that changes from one identity to another; once it has, a run without this removes the former one.
    type: bool
    default: false
  approve:
    description:
      - Consent to deauthorise members that are not declared.
      - Without it, and without O(approved_digest), such a run fails with the kind V(ApprovalRequired), and nothing is touched.
    type: bool
    default: false
  approved_digest:
    description:
      - Consent to exactly what was shown, by the RV(digest) it had.
      - Where it has become something else since, the module fails with the kind V(ApprovalRequired).
    type: str
  credentials:
    description:
      - Settings that take the place of those in the fleet file, by provider, and C(token) and C(endpoint) of the control plane
        under C(mesh).
      - Nothing of it is ever shown.
    type: dict
seealso:
  - module: gpumesh.fleet.zerotier_network
  - module: gpumesh.fleet.zerotier_member
  - plugin: gpumesh.fleet.fleet
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Who is in the mesh, and who should be?
  gpumesh.fleet.mesh:
    fleet_file: fleet.yml
  register: mesh

- name: Show it
  ansible.builtin.debug:
    msg: "{{ mesh.table }}"

- name: Admit the machines whose nodes were learnt in this play, and shut nobody out
  gpumesh.fleet.mesh:
    fleet_file: fleet.yml
    state: applied
    only: [galena, scheelite]
    nodes:
      galena: 1d7196c3a9
      scheelite: 8046d53400

- name: Make it exactly those that are declared, as it was shown
  gpumesh.fleet.mesh:
    fleet_file: fleet.yml
    state: applied
    approved_digest: "{{ mesh.digest }}"

- name: Take a machine out that was removed from the fleet file
  gpumesh.fleet.mesh:
    fleet_file: fleet.yml
    state: applied
    only: [galena]
    retire: [galena]
"""

RETURN = r"""
fleet:
  description: Name of the fleet.
  returned: when planned or applied
  type: str
  sample: minerals
controller:
  description: The kind of its control plane, V(central_v1), V(central_v2) or V(controller).
  returned: when planned or applied
  type: str
  sample: controller
network:
  description: The network as it is afterwards, as M(gpumesh.fleet.zerotier_network) returns it. None if it does not exist.
  returned: when planned or applied
  type: dict
  sample: {id: db4344343b14b903, name: minerals, private: true, rfc4193: true}
network_changes:
  description: What differs of the network itself.
  returned: when planned or applied
  type: list
  elements: dict
  sample: [{field: private, before: false, after: true}]
plan:
  description: Every machine and every member, with what is to be done with it.
  returned: when planned or applied
  type: list
  elements: dict
  contains:
    action:
      description:
        - V(admit), V(rename), V(remove) (deauthorise and delete), V(deauthorize) (authorised and not declared),
          V(knocking) (asks to join and is left alone), or V(keep).
      type: str
      returned: always
    machine:
      description: The machine. Of a member that is not declared, the name it has.
      type: str
      returned: always
    declared:
      description: Whether it is a machine of the fleet file.
      type: bool
      returned: always
    node_id:
      description: Its node. None for a machine whose node is not known.
      type: str
      returned: always
    why:
      description: The reason.
      type: str
      returned: always
    before:
      description: What differs, as it is.
      type: dict
      returned: always
    after:
      description: What differs, as it would be.
      type: dict
      returned: always
    failure:
      description: What has to be settled before the machine can be as declared.
      type: dict
      returned: always
table:
  description: The same in lines of text.
  returned: when planned or applied
  type: list
  elements: str
digest:
  description: Names what would be done. Give it back as O(approved_digest) to approve of this and nothing else.
  returned: when planned or applied
  type: str
  sample: 3f6c2a9b01d4e7f8
needs_approval:
  description: A member that is authorised and not declared would be deauthorised.
  returned: when planned or applied
  type: bool
results:
  description: What came of the network, where it differed, and of each change, in the order of the plan. In check mode, what would be done.
  returned: when planned or applied
  type: list
  elements: dict
  contains:
    action:
      description: What was done; V(network) for the network itself.
      type: str
      returned: always
    machine:
      description: The machine. Of a member that is not declared, the name it has.
      type: str
      returned: always
    node_id:
      description: Its node.
      type: str
      returned: always
    status:
      description: >-
        V(ok), V(failed), V(skipped) because the control plane could not be asked any further, or V(would).
      type: str
      returned: always
    failure:
      description: What went wrong.
      type: dict
      returned: always
members:
  description: Every member as it is afterwards.
  returned: when planned or applied
  type: list
  elements: dict
  contains:
    node_id:
      description: The node.
      type: str
      returned: always
    name:
      description: What the control plane calls it.
      type: str
      returned: always
    machine:
      description: The machine of the fleet file it is. None for one that is not declared.
      type: str
      returned: always
    declared:
      description: Whether it is a machine of the fleet file.
      type: bool
      returned: always
    authorized:
      description: It may take part.
      type: bool
      returned: always
    online:
      description: None where the control plane does not tell.
      type: bool
      returned: always
    address:
      description: Its address in the mesh, in the form C(mesh.addressing) names.
      type: str
      returned: always
    addresses:
      description: The addresses its control plane has assigned to it.
      type: list
      elements: str
      returned: always
    version:
      description: Of zerotier-one there.
      type: str
      returned: always
    last_seen:
      description: When it was last heard of, as RFC 3339 time.
      type: str
      returned: always
    latency_ms:
      description: Round trip to it in milliseconds, where the control plane measures it.
      type: float
      returned: always
    physical_address:
      description: Where it was last heard from.
      type: str
      returned: always
failures:
  description: All that went wrong or has to be settled. What kept the control plane from being asked any further is told once.
  returned: when planned or applied
  type: list
  elements: dict
simulated:
  description: The control plane says of itself that it is a sandbox.
  returned: when planned or applied
  type: bool
failure:
  description: What kept the module from doing anything.
  returned: failure
  type: dict
  contains:
    text:
      description: The failure in one sentence or more, for people.
      type: str
      returned: always
    kind:
      description: The kind of failure, such as V(ApprovalRequired), V(SpecError), V(AuthError) or V(Unreachable).
      type: str
      returned: always
    message:
      description: What happened.
      type: str
      returned: always
    machine:
      description: The machine it happened to.
      type: str
      returned: always
    hint:
      description: What to do next.
      type: str
      returned: always
    code:
      description: The error code of the control plane.
      type: str
      returned: always
    details:
      description: What the control plane said beyond code and message.
      type: raw
      returned: always
    request_id:
      description: What the control plane's support needs to find the request.
      type: str
      returned: always
"""

import os
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ..module_utils._fleet.errors import FleetError

PYDANTIC_PROBLEM: str | None = None
try:
    from ..module_utils._fleet import membership, provision
    from ..module_utils._fleet.clock import SystemClock
    from ..module_utils._fleet.mesh import connect
    from ..module_utils._fleet.providers import KINDS
except ImportError:
    PYDANTIC_PROBLEM = traceback.format_exc()

ARGUMENTS: dict[str, dict[str, Any]] = {
    "fleet_file": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["planned", "applied"], "default": "planned"},
    "nodes": {"type": "dict", "default": {}},
    "retire": {"type": "list", "elements": "str", "default": []},
    "only": {"type": "list", "elements": "str"},
    "keep_predecessors": {"type": "bool", "default": False},
    "approve": {"type": "bool", "default": False},
    "approved_digest": {"type": "str"},
    "credentials": {"type": "dict", "no_log": True},
}

SHORTEST_SECRET = 8
"""Shorter values are not blanked out in output: they would blank out half of it."""


def request_of(params: dict[str, Any], *, carry_out: bool) -> membership.Request:
    """The options as the engine takes them."""
    return membership.Request(
        fleet_file=params["fleet_file"],
        carry_out=carry_out,
        approve=params["approve"],
        approved_digest=params["approved_digest"],
        nodes={name: str(node_id or "") for name, node_id in params["nodes"].items()},
        only=params["only"],
        retire=params["retire"],
        keep_predecessors=params["keep_predecessors"],
        credentials=params["credentials"] or {},
    )


def run(module: AnsibleModule) -> None:
    """Do what is asked, and leave with the result."""
    request = request_of(
        module.params, carry_out=module.params["state"] == "applied" and not module.check_mode
    )
    found = provision.secrets(request.fleet_file, KINDS, os.environ)
    module.no_log_values.update(secret for secret in found if len(secret) >= SHORTEST_SECRET)
    report = membership.run(request, KINDS, os.environ, SystemClock(), connect)
    result = report.to_json()
    if module.params["state"] == "planned":
        result["changed"] = False
    elif module._diff and report.roster.differs:
        result["diff"] = {"prepared": "\n".join([*report.table, ""])}
    for warning in report.roster.warnings:
        module.warn(warning)
    if report.errors and request.carry_out:
        module.fail_json(msg="\n".join(str(error) for error in report.errors), **result)
    for error in report.errors:
        module.warn(str(error))
    module.exit_json(**result)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    if PYDANTIC_PROBLEM:
        module.fail_json(msg=missing_required_lib("pydantic"), exception=PYDANTIC_PROBLEM)
    try:
        run(module)
    except FleetError as error:
        module.fail_json(msg=str(error), failure=error.as_failure())


if __name__ == "__main__":
    main()
