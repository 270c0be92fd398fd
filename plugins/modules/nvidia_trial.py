#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_trial
short_description: Build the NVIDIA kernel module on trial, for every kernel, before the driver is installed
description:
  - Takes the source of the module out of its package without installing it, and has DKMS build it for every kernel in a folder
    of its own. M(gpumesh.fleet.nvidia_packages) installs what was built.
  - Fails where the module does not compile for one of the kernels, and tells the compiler's errors. Nothing of the trial is left
    then but DKMS, a compiler and the headers, which it installs where they are missing.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer on the machine, which is a Debian or an Ubuntu
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Nothing can be built in check mode, so a build that would fail is not predicted.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  package:
    description: The package of the module's source as apt takes it, with its version.
    type: str
    required: true
  headers:
    description: Packages with the headers of the kernels.
    type: list
    elements: str
    default: []
  kernels:
    description: The kernels to build it for, as C(uname -r) tells them.
    type: list
    elements: str
    required: true
seealso:
  - module: gpumesh.fleet.nvidia_packages
"""

EXAMPLES = r"""
- name: See whether the module compiles
  gpumesh.fleet.nvidia_trial:
    package: nvidia-dkms-580-open=580.178.04-1ubuntu1
    headers: [linux-headers-6.8.0-90-generic]
    kernels: [6.8.0-90-generic]
"""

RETURN = r"""
built:
  description: The version of the module that was built for each kernel; empty where all of it was built before.
  returned: success
  type: dict
  sample: {6.8.0-90-generic: 580.178.04}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import trial
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver.programs import Failed


def main() -> None:
    """Build it unless just this was built already."""
    module = AnsibleModule(
        argument_spec={
            "package": {"type": "str", "required": True},
            "headers": {"type": "list", "elements": "str", "default": []},
            "kernels": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    trying = trial.Trial(params["package"], tuple(params["headers"]), tuple(params["kernels"]))
    done = trial.is_done(trying)
    if done or module.check_mode:
        module.exit_json(changed=not done, built={})
    try:
        built = trial.build(trying)
    except (Failed, OSError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=True, built=built)


if __name__ == "__main__":
    main()
