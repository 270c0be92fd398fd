#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_snapshot
short_description: Note how a machine is before its NVIDIA driver is installed, and put it back
description:
  - Notes the packages, the holds, the persistence daemon and some files before the first change, so that an installation
    that fails can be undone. The note is in C(/run) and is gone with the next boot.
  - For a way back after an installation that went well, see M(gpumesh.fleet.nvidia_rollback).
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer on the machine, which is a Debian or an Ubuntu
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: partial
    details: V(present) notes anew how the machine is. What it writes is the same as long as the machine is.
options:
  state:
    description:
      - V(present) notes how the machine is. What a run that was killed while it installed has noted stays, as that is the
        state to go back to.
      - V(restored) puts the machine back as noted, and forgets the note.
      - V(absent) forgets the note and what M(gpumesh.fleet.nvidia_trial) has built, and lets dpkg build modules again where a
        run that was killed has left it otherwise.
    type: str
    choices: [present, restored, absent]
    default: present
  files:
    description: The files to note with V(present).
    type: list
    elements: path
    default: []
seealso:
  - module: gpumesh.fleet.nvidia_packages
"""

EXAMPLES = r"""
- name: Note how the machine is
  gpumesh.fleet.nvidia_snapshot:
    files: [/etc/apt/sources.list.d/gpumesh-nvidia-driver.sources]
"""

RETURN = r"""
says:
  description: That the machine was put back, and what could not be, or that there is no note, in one sentence.
  returned: if O(state=restored)
  type: str
  sample: The machine was put back as it was.
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import snapshot
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver.programs import Failed


def carried_out(params: dict[str, Any], carry_out: bool) -> dict[str, Any]:
    """What the state asks for."""
    if params["state"] == "restored":
        there = snapshot.exists()
        return {"changed": there, "says": snapshot.put_back() if carry_out else ""}
    if params["state"] == "absent":
        return {"changed": snapshot.forget(carry_out)}
    return {"changed": snapshot.take(params["files"], carry_out)}


def main() -> None:
    """Take it, go back to it, or forget it."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "restored", "absent"], "default": "present"},
            "files": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        result = carried_out(module.params, not module.check_mode)
    except (Failed, OSError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
