#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_history
short_description: Keep what is installed of the NVIDIA driver, for a way back
description:
  - Keeps packages, marks, holds and files of the driver before each change and after it was proved, in
    C(/var/lib/gpumesh/nvidia_driver/history.json). M(gpumesh.fleet.nvidia_rollback) goes back to them.
  - The first state and the newest nine are kept.
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
    support: full
options:
  state:
    description:
      - V(noted) belongs before the first change. What an interrupted change has left is not kept.
      - V(settled) belongs after the proof. What came with the driver meanwhile is noted, to go with it again.
    type: str
    choices: [noted, settled]
    required: true
  files:
    description: All files that the layer writes.
    type: list
    elements: path
    required: true
seealso:
  - module: gpumesh.fleet.nvidia_rollback
"""

EXAMPLES = r"""
- name: Keep what there is before the first change
  gpumesh.fleet.nvidia_history:
    state: noted
    files: [/etc/modprobe.d/gpumesh-nvidia-driver.conf]
"""

RETURN = r""" # """

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import history
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver.programs import Failed


def main() -> None:
    """Write it down."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["noted", "settled"], "required": True},
            "files": {"type": "list", "elements": "path", "required": True},
        },
        supports_check_mode=True,
    )
    write = history.note if module.params["state"] == "noted" else history.settle
    try:
        changed = write(module.params["files"], carry_out=not module.check_mode)
    except (Failed, OSError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
