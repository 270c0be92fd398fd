#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_openings
short_description: Keep the openings of a host's UFW firewall as declared
description:
  - Brings all UFW openings of one owner to what is declared, in one step. Ways in are opened before others are closed.
  - Each owner touches only its own rules, which it knows by their comment. Rules typed by hand stay, unless
    O(exclusive) says otherwise.
  - Refuses to shut out the connection in use.
author: [gpumesh.fleet contributors (@gpumesh)]
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  owner:
    description: Whose openings these are; it becomes part of each rule's comment.
    type: str
    required: true
  openings:
    description: The ways in.
    type: list
    elements: dict
    required: true
    suboptions:
      port:
        description: A port or a range such as V(6000:6010). Without it, every port is open to the source or interface.
        type: str
        default: ''
      protocol:
        description: The protocol of the port.
        type: str
        choices: [tcp, udp, any]
        default: tcp
      source:
        description: Address or network that may connect. Without it, everybody may.
        type: str
        default: ''
      interface:
        description: Network interface the connection comes in by, C(zt+) for all that begin so.
        type: str
        default: ''
      limit:
        description: Refuse an address that makes six connections within 30 seconds.
        type: bool
        default: false
      comment:
        description: What it is for.
        type: str
        default: ''
  enable:
    description: Make the firewall active now and at boot, and deny what comes in and is not opened.
    type: bool
    default: false
  exclusive:
    description: Remove rules that were typed by hand, too.
    type: bool
    default: false
  connection:
    description: The connection in use. The module fails, and changes nothing, where it would shut this out.
    type: dict
    suboptions:
      address:
        description: Where it comes from.
        type: str
        required: true
      port:
        description: The port it came in by.
        type: int
        required: true
  undo_after:
    description:
      - Start a timer that puts the firewall back as it was, so many seconds after a change. Whoever made the change
        stops it after proving that the machine can still be reached; the unit is C(gpumesh-undo-firewall.timer).
      - Where nothing differs but the timer of an earlier change still runs, that change was never proved. The timer is
        then started anew, and the task counts as changed, so that its handlers carry out the proof.
      - V(0) starts none.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Deny everything but SSH and a web server
  gpumesh.fleet.firewall_openings:
    owner: base
    enable: true
    openings:
      - {port: 22, comment: SSH}
      - {port: 443, source: 203.0.113.0/24, comment: web}
"""

RETURN = r"""
commands:
  description: The commands that were run, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: ["ufw allow 22/tcp comment 'gpumesh base: SSH'"]
"""

import re
import shlex
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import firewall, undo

CONFIGURATION = [
    Path("/etc/ufw/ufw.conf"),
    Path("/etc/default/ufw"),
    Path("/etc/ufw/user.rules"),
    Path("/etc/ufw/user6.rules"),
]
POLICIES = {"DROP": "deny", "REJECT": "reject", "ACCEPT": "allow"}

OPENING = {
    "port": {"type": "str", "default": ""},
    "protocol": {"type": "str", "choices": ["tcp", "udp", "any"], "default": "tcp"},
    "source": {"type": "str", "default": ""},
    "interface": {"type": "str", "default": ""},
    "limit": {"type": "bool", "default": False},
    "comment": {"type": "str", "default": ""},
}
CONNECTION = {"address": {"type": "str", "required": True}, "port": {"type": "int", "required": True}}


def setting(path: Path, key: str) -> str:
    """The value of a line KEY=value, without quotes."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.search(rf'^{key}="?(\w+)"?\s*$', text, re.MULTILINE)
    return found[1] if found else ""


def state(module: AnsibleModule) -> firewall.State:
    """What ufw is set to."""
    if shutil.which("ufw") is None:
        return firewall.State()
    _rc, shown, _err = module.run_command(
        ["ufw", "show", "added"], check_rc=True, environ_update={"LC_ALL": "C"}
    )
    return firewall.State(
        installed=True,
        enabled=setting(CONFIGURATION[0], "ENABLED").lower() == "yes",
        incoming=POLICIES.get(setting(CONFIGURATION[1], "DEFAULT_INPUT_POLICY"), ""),
        rules=tuple(firewall.parse(shown)),
    )


def main() -> None:
    """Compare, and change what differs."""
    module = AnsibleModule(
        argument_spec={
            "owner": {"type": "str", "required": True},
            "openings": {"type": "list", "elements": "dict", "required": True, "options": OPENING},
            "enable": {"type": "bool", "default": False},
            "exclusive": {"type": "bool", "default": False},
            "connection": {"type": "dict", "options": CONNECTION},
            "undo_after": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        unproved = undo.postpone(
            "firewall", 0 if module.check_mode else params["undo_after"], module.run_command
        )
        present = state(module)
        connection = params["connection"]
        plan = firewall.plan(
            present,
            params["owner"],
            [firewall.opening(**item) for item in params["openings"]],
            enable=params["enable"],
            exclusive=params["exclusive"],
            connection=(connection["address"], connection["port"]) if connection else None,
        )
        if plan.commands and not module.check_mode:
            if not present.installed:
                raise firewall.FirewallError(
                    "ufw is not installed on this machine: install the package ufw first"
                )
            if params["undo_after"]:
                way_back = ["ufw", "reload"] if present.enabled else ["ufw", "--force", "disable"]
                undo.arm("firewall", params["undo_after"], CONFIGURATION, way_back, module.run_command)
            for command in plan.commands:
                module.run_command(list(command), check_rc=True, environ_update={"LC_ALL": "C"})
    except (firewall.FirewallError, undo.UndoError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(
        changed=bool(plan.commands) or unproved,
        commands=[shlex.join(command) for command in plan.commands],
        diff={"before": "\n".join(plan.before) + "\n", "after": "\n".join(plan.after) + "\n"},
    )


if __name__ == "__main__":
    main()
