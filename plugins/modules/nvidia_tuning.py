#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_tuning
short_description: Apply the declared settings of GPUs and CPUs, and read them back
description:
  - Has C(gpumesh-gpu-tuning.service) apply the settings where one differs, and reads them back. The role
    P(gpumesh.fleet.nvidia_driver#role) installs the unit, its program and the declaration.
  - Fails, with all problems, where something is not as declared.
author: [gpumesh.fleet contributors (@gpumesh)]
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
  program:
    description: The program that compares the settings.
    type: path
    default: /usr/local/sbin/gpumesh-gpu-tuning
  state:
    description:
      - V(applied) applies what differs.
      - V(compared) only compares, and does not fail.
    type: str
    choices: [applied, compared]
    default: applied
  restart:
    description: Whether to run the unit even where nothing differs, since it or its declaration was changed.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Apply the settings
  gpumesh.fleet.nvidia_tuning:
"""

RETURN = r"""
ok:
  description: Whether all is as declared, or only waits for a reboot.
  returned: always
  type: bool
pending:
  description: What waits for a reboot, in sentences.
  returned: always
  type: list
  elements: str
problems:
  description: What is not as declared, in sentences. In check mode, what would be set, too.
  returned: always
  type: list
  elements: str
  sample:
    - "GPU 00000000:01:00.0 (rtx5090): power limit is 575 W and should be 450 W: run gpumesh-gpu-tuning to set it again."
simulated:
  description: Whether the GPUs are simulated.
  returned: always
  type: bool
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import tuning


def main() -> None:
    """Compare, apply, and compare again."""
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "path", "default": "/usr/local/sbin/gpumesh-gpu-tuning"},
            "state": {"type": "str", "choices": ["applied", "compared"], "default": "applied"},
            "restart": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    program = Path(module.params["program"])
    report = tuning.compare(program)
    if module.params["state"] == "compared":
        module.exit_json(changed=False, **asdict(report))
    apply = module.params["restart"] or not report.ok
    if module.check_mode:
        module.exit_json(changed=apply, **asdict(report))
    if apply:
        tuning.apply()
        report = tuning.compare(program)
    failure = tuning.unit_failure()
    if failure or not report.ok:
        module.fail_json(msg="\n".join(failure or report.problems), changed=apply, **asdict(report))
    module.exit_json(changed=apply, **asdict(report))


if __name__ == "__main__":
    main()
