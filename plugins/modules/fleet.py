#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet
short_description: Plan a whole fleet with its cost, and carry the plan out
description:
  - Reads the fleet file, asks every cloud in it at the same time what there is, and makes one plan of all that differs.
    Each change has its cost.
  - Carries the plan out with many machines at once, and reports what came of each.
  - Keeps the fleet's own known_hosts file, so that no connection is ever made to a machine whose SSH host key is not
    known. The keys come from the clouds' own channels, or were planted in the machine at its birth.
  - There is no state file. What a fleet owns in a cloud carries the labels C(gpumesh-fleet) and C(gpumesh-machine). A run
    may be stopped at any point; the next one goes on from what exists.
  - Who may reach the machines is declared, too. Firewalls are compared with C(ssh_sources) and C(ssh_port) in every plan and
    brought in line by every apply, before machines are created. This needs no approval, is shown in the plan, and is part
    of its digest.
  - Once no machine of the fleet exists in a cloud and none is wanted there, the firewalls and the registered SSH keys that
    the fleet has made are removed. Those of others are left alone.
  - Labels that others have set on a machine are left alone. A type, image, zone or GPU that differs from what is declared
    is shown as drift and not changed.
  - Runs on the control machine, where the clouds can be reached.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer
  - pydantic >= 2
  - hcloud >= 2.10, < 3, for machines in Hetzner Cloud
  - google-auth and requests, for machines in Google Cloud
extends_documentation_fragment:
  - gpumesh.fleet.attributes
  - gpumesh.fleet.attributes.actiongroup_all
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - The diff is the plan, as text, and is given with O(state=applied) only. It is the same in check mode and without it.
      - With O(state=planned) the plan is in RV(table).
  idempotent:
    support: full
options:
  fleet_file:
    description: The fleet file.
    type: path
    required: true
  state:
    description:
      - V(planned) only makes the plan, and changes nothing.
      - V(applied) carries it out. In check mode it does the same as V(planned), and RV(ignore:changed) tells whether anything
        would be changed, the known_hosts file included.
    type: str
    choices: [planned, applied]
    default: planned
  approve:
    description:
      - Consent to whatever the plan creates, starts, stops and deletes.
      - Firewalls need no consent.
      - Without it, and without O(approved_digest), a plan that does any of this fails with the kind V(ApprovalRequired),
        and nothing is touched.
    type: bool
    default: false
  approved_digest:
    description:
      - Consent to one plan, by the RV(digest) it had when it was shown.
      - Where the plan has become another one since, the module fails with the kind V(ApprovalRequired).
    type: str
  only:
    description:
      - Limit the changes to these machines. The totals are still those of the whole fleet.
      - Firewalls belong to the fleet as a whole and are brought in line all the same.
    type: list
    elements: str
  retire:
    description:
      - Delete these machines, whatever the fleet file says, even if they are not declared.
      - V(all) means every machine of the fleet, declared or not.
    type: list
    elements: str
    default: []
  prune:
    description: Delete instances that carry the fleet's label and are not declared. Otherwise they are only shown.
    type: bool
    default: false
  wait_timeout:
    description: Seconds to wait for any one operation of a cloud.
    type: int
    default: 600
  host_key_timeout:
    description:
      - Seconds to wait until a machine that was just started has published its SSH host keys.
      - Concerns clouds that have a channel for them (Google).
    type: int
    default: 120
  known_hosts:
    description: The known_hosts file to keep. The default is the one named in the fleet file.
    type: path
  host_keys:
    description:
      - Public SSH host keys by machine, learnt over a connection that was verified.
      - With this option the module only records these keys, in the fleet's known_hosts and where the cloud vouches for them. It
        makes no plan, and returns RV(ignore:changed) and RV(failures) only.
      - Each machine is tried, whatever becomes of the others; the module fails if one of them fails.
    type: dict
  host_key_phase:
    description:
      - V(announce) makes the keys good besides the present ones. Do this before a machine is given its new key.
      - V(commit) makes them the only good ones. Do this once the machine was met under its new key.
    type: str
    choices: [announce, commit]
    default: commit
  mesh_identities:
    description:
      - By machine, the text of the C(identity.secret) of the ZeroTier node it is to be from its first boot on.
      - Only machines that this run creates are given theirs, through user data, so it is good for the first contact only; the role
        P(gpumesh.fleet.zerotier#role) replaces it. Make it with M(gpumesh.fleet.zerotier_identity), and admit its node with
        M(gpumesh.fleet.mesh) beforehand.
    type: dict
  mesh_repository:
    description: Where such a machine gets ZeroTier's package from at its first boot. Required with O(mesh_identities).
    type: dict
    suboptions:
      url:
        description: The folder that has a repository for each release, such as V(https://download.zerotier.com/debian).
        type: str
        required: true
      key:
        description: The public key that signs them, ASCII-armoured. Compare its fingerprint before you trust it.
        type: str
        required: true
      version:
        description: The version of C(zerotier-one), such as V(1.14.2). Without it, the newest.
        type: str
  credentials:
    description:
      - Settings by provider that take the place of those in the fleet file, such as C(token) and C(endpoint).
      - Nothing of it is ever shown.
    type: dict
seealso:
  - module: gpumesh.fleet.hetzner_server
  - module: gpumesh.fleet.gcp_instance
  - plugin: gpumesh.fleet.fleet
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: What would change, and what would it cost?
  gpumesh.fleet.fleet:
    fleet_file: fleet.yml
  register: plan

- name: Show it
  ansible.builtin.debug:
    msg: "{{ plan.table }}"

- name: Carry out exactly what was shown
  gpumesh.fleet.fleet:
    fleet_file: fleet.yml
    state: applied
    approved_digest: "{{ plan.digest }}"

- name: Create a machine that is in the mesh before anybody has connected to it
  gpumesh.fleet.fleet:
    fleet_file: fleet.yml
    state: applied
    only: [galena]
    approved_digest: "{{ plan.digest }}"
    mesh_identities:
      galena: "{{ lookup('ansible.builtin.file', 'galena.identity.secret') }}"
    mesh_repository:
      url: https://download.zerotier.com/debian
      key: "{{ lookup('ansible.builtin.file', 'zerotier.asc') }}"

- name: Delete two machines, though they are enabled
  gpumesh.fleet.fleet:
    fleet_file: fleet.yml
    state: applied
    only: [galena, scheelite]
    retire: [galena, scheelite]
    approve: true
"""

RETURN = r"""
fleet:
  description: Name of the fleet.
  returned: when planned or applied
  type: str
  sample: minerals
plan:
  description: Every machine, with what is to be done with it.
  returned: when planned or applied
  type: list
  elements: dict
  contains:
    action:
      description: V(create), V(start), V(stop), V(delete), V(change), V(keep), V(drift), or V(unknown) where its cloud could not tell.
      type: str
      returned: always
    machine:
      description: Its name.
      type: str
      returned: always
    provider:
      description: Where it is, or is wanted.
      type: str
      returned: always
    zone:
      description: Zone or location it is in, or wanted in first.
      type: str
      returned: always
    zones:
      description: Of a machine to be created, every zone it may end up in, in order.
      type: list
      elements: str
      returned: always
    instance_id:
      description: The cloud's id of what exists.
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
    price_before:
      description: What it costs now. None if nothing; its C(hourly) is None if unknown.
      type: dict
      returned: always
    price_after:
      description: What it would cost then.
      type: dict
      returned: always
    buys:
      description: It makes something run that costs money.
      type: bool
      returned: always
    destroys:
      description: It deletes or stops something.
      type: bool
      returned: always
    failure:
      description: What has to be settled before the machine can be as declared.
      type: dict
      returned: always
costs:
  description:
    - What the whole fleet costs, in US dollars, as decimal strings, each C(hourly_usd) and C(monthly_usd) with the number
      of C(unknown) prices, which are not in the sum. A machine whose cloud could not be asked has an unknown price.
    - C(at_most) is the cost with every new machine in the dearest zone it may end up in. The budget is compared with it.
    - A plan that creates or starts something is refused also where the budget cannot be checked, because no price is known for
      what it buys, or because a cloud with other machines of the fleet could not be asked. A plan that buys nothing is never
      refused for the budget. Of machines that exist and stay, those without a known price are only warned of.
  returned: when planned or applied
  type: dict
  sample:
    before: {hourly_usd: "0", monthly_usd: "0", unknown: 0}
    after: {hourly_usd: "0.0115", monthly_usd: "7.19", unknown: 0}
    difference: {hourly_usd: "0.0115", monthly_usd: "7.19", unknown: 0}
    at_most: {hourly_usd: "0.0115", monthly_usd: "7.19", unknown: 0}
    budget_hourly_usd: 6.0
    usd_per_eur: "1.2"
digest:
  description: Names the plan. Give it back as O(approved_digest) to approve of this plan and no other.
  returned: when planned or applied
  type: str
  sample: 3f6c2a9b01d4e7f8
needs_approval:
  description: The plan creates, starts, stops or deletes a machine.
  returned: when planned or applied
  type: bool
refusal:
  description: >-
    Why O(state=applied) would refuse the plan, whoever approves. That is the budget, a file named in the fleet file that cannot
    be used, or a known_hosts file that cannot be kept. None if it would not.
  returned: when planned or applied
  type: str
access:
  description: What differs of firewalls and registered SSH keys, and what came of it. In check mode, what would be done.
  returned: when planned or applied
  type: list
  elements: dict
  contains:
    provider:
      description: Where.
      type: str
      returned: always
    action:
      description: V(create), V(change) or V(delete).
      type: str
      returned: always
    what:
      description: The object.
      type: str
      returned: always
      sample: firewall gpumesh-minerals
    before:
      description: What differs, as it is.
      type: dict
      returned: always
      sample: {SSH from: 0.0.0.0/0}
    after:
      description: What differs, as it would be.
      type: dict
      returned: always
      sample: {SSH from: 198.51.100.0/24}
    status:
      description: >-
        V(ok), V(failed), V(would), V(skipped) where machines that were to go are still there, or V(left) where the cloud
        holds it to be in use still and the next run removes it.
      type: str
      returned: always
    failure:
      description: What went wrong in this cloud.
      type: dict
      returned: always
results:
  description: What came of each change, in the order of the plan. In check mode, what would be done.
  returned: when planned or applied
  type: list
  elements: dict
  contains:
    machine:
      description: Its name.
      type: str
      returned: always
    provider:
      description: Where.
      type: str
      returned: always
    action:
      description: What was done; V(keep) for a machine that was only waited for.
      type: str
      returned: always
    status:
      description: V(ok), V(failed), V(skipped) after an earlier step for this machine failed, or V(would).
      type: str
      returned: always
    zone:
      description: Zone or location it is in.
      type: str
      returned: always
    instance_id:
      description: The cloud's id of it.
      type: str
      returned: always
    instance:
      description: The machine as it was last seen.
      type: dict
      returned: always
    seconds:
      description: How long it took.
      type: float
      returned: always
    failure:
      description: What went wrong.
      type: dict
      returned: always
machines:
  description: Every machine by name as it is afterwards, with C(state), addresses, C(price), C(host_key_alias) and C(host_key_planted).
  returned: when planned or applied
  type: dict
table:
  description: The plan in lines of text, with its cost.
  returned: when planned or applied
  type: list
  elements: str
simulated:
  description: Providers that say of themselves that they are a sandbox and no real cloud.
  returned: when planned or applied
  type: list
  elements: str
failures:
  description:
    - All that went wrong or has to be settled, by machine.
    - With O(host_keys), why a key was not recorded; empty if all were.
  returned: when planned or applied, and with O(host_keys)
  type: list
  elements: dict
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
      description: The kind of failure, such as V(ApprovalRequired), V(BudgetExceeded), V(SpecError) or V(AuthError).
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
      description: The error code of the cloud.
      type: str
      returned: always
    details:
      description: What the cloud said beyond code and message.
      type: raw
      returned: always
    request_id:
      description: What the cloud's support needs to find the request.
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
    from ..module_utils._fleet import key_change, provision
    from ..module_utils._fleet.clock import SystemClock
    from ..module_utils._fleet.mesh import identity
    from ..module_utils._fleet.mesh_birth import Repository
    from ..module_utils._fleet.providers import KINDS
except ImportError:
    PYDANTIC_PROBLEM = traceback.format_exc()

ARGUMENTS: dict[str, dict[str, Any]] = {
    "fleet_file": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["planned", "applied"], "default": "planned"},
    "approve": {"type": "bool", "default": False},
    "approved_digest": {"type": "str"},
    "only": {"type": "list", "elements": "str"},
    "retire": {"type": "list", "elements": "str", "default": []},
    "prune": {"type": "bool", "default": False},
    "wait_timeout": {"type": "int", "default": 600},
    "host_key_timeout": {"type": "int", "default": 120, "no_log": False},
    "known_hosts": {"type": "path"},
    "host_keys": {"type": "dict", "no_log": False},
    "host_key_phase": {
        "type": "str",
        "choices": ["announce", "commit"],
        "default": "commit",
        "no_log": False,
    },
    "mesh_identities": {"type": "dict", "no_log": True},
    "mesh_repository": {
        "type": "dict",
        "options": {
            "url": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
            "version": {"type": "str"},
        },
    },
    "credentials": {"type": "dict", "no_log": True},
}
"""What a host key is, is public; ``no_log: false`` says so to those who go by the name."""

SHORTEST_SECRET = 8
"""Shorter values are not blanked out in output: they would blank out half of it."""


def request_of(params: dict[str, Any], *, carry_out: bool) -> provision.Request:
    """The options as the engine takes them."""
    return provision.Request(
        fleet_file=params["fleet_file"],
        carry_out=carry_out,
        approve=params["approve"],
        approved_digest=params["approved_digest"],
        only=params["only"],
        retire=params["retire"],
        prune=params["prune"],
        wait_timeout=params["wait_timeout"],
        key_timeout=params["host_key_timeout"],
        known_hosts=params["known_hosts"],
        credentials=params["credentials"] or {},
        identities={
            machine: identity.parse(str(text)) for machine, text in (params["mesh_identities"] or {}).items()
        },
        repository=Repository(**params["mesh_repository"]) if params["mesh_repository"] else None,
    )


def run(module: AnsibleModule) -> None:
    """Do what is asked, and leave with the result."""
    params, clock = module.params, SystemClock()
    request = request_of(params, carry_out=params["state"] == "applied" and not module.check_mode)
    found = provision.secrets(request.fleet_file, KINDS, os.environ)
    module.no_log_values.update(secret for secret in found if len(secret) >= SHORTEST_SECRET)
    if params["host_keys"] is not None:
        changed, failed = key_change.record_host_keys(
            request,
            KINDS,
            os.environ,
            clock,
            host_keys=params["host_keys"],
            announce=params["host_key_phase"] == "announce",
            write=not module.check_mode,
        )
        failures = [failed[name].as_failure() for name in sorted(failed)]
        if failures:
            text = "\n".join(failure["text"] for failure in failures)
            module.fail_json(msg=text, changed=changed, failures=failures)
        module.exit_json(changed=changed, failures=failures)
    report = provision.run(request, KINDS, os.environ, clock)
    result = report.to_json()
    if params["state"] == "planned":
        result["changed"] = False
    elif module._diff and report.plan.differs:
        result["diff"] = {"prepared": "\n".join([*report.table, ""])}
    for warning in report.warnings:
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
