#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_rollback
short_description: Go back to the NVIDIA driver of before, or to none
description:
  - Exchanges the packages in one transaction, and puts back the files, holds and marks that M(gpumesh.fleet.nvidia_history) has
    kept. Without a driver nothing is left of it, in DKMS, below C(/usr/src) and C(/lib/modules) neither.
  - All that can fail is tried before the first change. That the old versions can still be had, that apt finds a way that removes
    nothing else, that everything can be fetched, and that a module of another version compiles for every kernel.
  - It can be ended at any time. The next run with the same O(to) goes on from there.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer on the machine, which is a Debian or an Ubuntu
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Check mode asks the repositories for their lists, in a folder of its own.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  to:
    description:
      - V(previous) is the last driver that differs from the present one, which may be none.
      - V(none) is no driver; the history stays.
      - V(absent) is no driver and no history.
    type: str
    choices: [previous, none, absent]
    default: previous
  files:
    description: All files that the layer writes.
    type: list
    elements: path
    required: true
  unit:
    description: The one among O(files) that applies settings of GPUs at every boot.
    type: path
  kernels:
    description: The kernels that DKMS is to have a module for, as C(uname -r) tells them.
    type: list
    elements: str
    default: []
  root:
    description: The folder that C(/proc) is in.
    type: path
    default: /
seealso:
  - module: gpumesh.fleet.nvidia_history
"""

EXAMPLES = r"""
- name: Go back to the driver of before
  gpumesh.fleet.nvidia_rollback:
    files: [/etc/modprobe.d/gpumesh-nvidia-driver.conf]
    kernels: [6.8.0-90-generic]
"""

RETURN = r"""
needed:
  description: Whether there was anything to do, or is in check mode.
  returned: success
  type: bool
steps:
  description: What was done, or would be in check mode, in words.
  returned: success
  type: list
  elements: str
  sample: [install libnvidia-compute-580 580.178.04-1ubuntu1, remove libnvidia-compute 595.91.07-1ubuntu1]
says:
  description: Why there was nothing to do; empty where that needs no words. Without a full stop.
  returned: success
  type: str
driver:
  description: The driver that the machine has then; empty for none.
  returned: success
  type: str
  sample: 580.178.04
held:
  description: The packages of the driver that are held then.
  returned: success
  type: list
  elements: str
tuned:
  description: Whether there was something to do and O(unit) is there then.
  returned: success
  type: bool
stays:
  description: Why a module stays loaded until the machine is rebooted; empty where none does, and in check mode. Without a full stop.
  returned: success
  type: str
left:
  description: What is still there of a driver on a machine that is to have none; empty where it is to have one.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import rollback, way_back
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver.programs import Failed


def main() -> None:
    """Find out what it takes, and do it."""
    module = AnsibleModule(
        argument_spec={
            "to": {"type": "str", "choices": ["previous", "none", "absent"], "default": "previous"},
            "files": {"type": "list", "elements": "path", "required": True},
            "unit": {"type": "path"},
            "kernels": {"type": "list", "elements": "str", "default": []},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    params = module.params
    wish = way_back.Wish(params["to"], tuple(params["files"]), tuple(params["kernels"]), Path(params["root"]))
    stays, begun = "", False
    try:
        plan = way_back.plan(wish)
        if plan.needed and not module.check_mode:
            begun = True
            stays = rollback.go(plan, wish)
    except (Failed, OSError) as problem:
        module.fail_json(msg=f"{problem}.", changed=begun)
    module.exit_json(
        changed=plan.needed,
        needed=plan.needed,
        steps=plan.steps,
        says=plan.says,
        driver=plan.state["driver"],
        held=plan.held,
        tuned=plan.needed and plan.state["files"].get(params["unit"]) is not None,
        stays=stays,
        left=[] if plan.state["driver"] else way_back.leftovers(wish),
    )


if __name__ == "__main__":
    main()
