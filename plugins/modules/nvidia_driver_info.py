#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver_info
short_description: Tell what an installation of the NVIDIA driver would have to do, and what stands in its way
description:
  - Compares the packages and kernel modules of a machine with those that it is to have. Reads only.
  - For the GPUs themselves and the driver that runs, see M(gpumesh.fleet.gpu_info).
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer on the machine, which is a Debian or an Ubuntu
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
  idempotent:
    support: full
options:
  packages:
    description: All packages of the layer.
    type: list
    elements: str
    default: []
  version:
    description: The branch that the driver's packages are to be of, such as V(580), or one driver such as V(580.178.04).
    type: str
    default: ""
  loose:
    description: Those of O(packages) whose version is their own.
    type: list
    elements: str
    default: []
  build:
    description: Whether DKMS builds the modules, or they come built.
    type: str
    choices: [dkms, prebuilt]
    default: dkms
  modules:
    description: The module of each kernel, by kernel, as M(gpumesh.fleet.gpu_info) tells it; null for none.
    type: dict
    default: {}
  source:
    description: The file with the repository of the driver.
    type: path
    required: true
  keyring:
    description: The file with its key.
    type: path
    required: true
seealso:
  - module: gpumesh.fleet.gpu_info
  - module: gpumesh.fleet.nvidia_packages
"""

EXAMPLES = r"""
- name: See what there is to do
  gpumesh.fleet.nvidia_driver_info:
    packages: [nvidia-dkms-580-open, libnvidia-compute-580]
    version: "580"
    modules: {6.8.0-90-generic: {version: 580.178.04}}
    source: /etc/apt/sources.list.d/gpumesh-nvidia-driver.sources
    keyring: /etc/apt/keyrings/gpumesh-nvidia-driver.asc
"""

RETURN = r"""
machine:
  description: What was found.
  returned: always
  type: dict
  contains:
    missing:
      description: Packages that are not there, or in another version.
      type: list
      elements: str
    stale:
      description: Packages that another branch or source has left, or that came in beside the driver.
      type: list
      elements: str
    unbuilt:
      description: Kernels without a module of this driver.
      type: list
      elements: str
    broken:
      description: Packages that dpkg has left half-way.
      type: list
      elements: str
    foreign:
      description: Those of them that are none of the driver's.
      type: list
      elements: str
    keys:
      description: What C(gpg) tells of O(keyring), with colons; empty where there is none.
      type: str
    repository:
      description: Whether O(source) is there.
      type: bool
    package_lists:
      description: Whether apt has lists of packages.
      type: bool
    python_apt:
      description: Whether there is what the modules for apt need.
      type: bool
    groups:
      description: The groups of the machine, from name to number.
      type: dict
    offers:
      description: The archives that apt is told of, each with C(uri), C(suite), C(component), C(signed_by) and C(entry).
      type: list
      elements: dict
    runfile:
      description: Whether the driver comes from NVIDIA's C(.run) file.
      type: bool
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import survey
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver.programs import Failed


def main() -> None:
    """Look and compare."""
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "packages": names,
            "version": {"type": "str", "default": ""},
            "loose": names,
            "build": {"type": "str", "choices": ["dkms", "prebuilt"], "default": "dkms"},
            "modules": {"type": "dict", "default": {}},
            "source": {"type": "path", "required": True},
            "keyring": {"type": "path", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    wanted = survey.Wanted(
        packages=tuple(params["packages"]),
        wanted=params["version"],
        loose=frozenset(params["loose"]),
        prebuilt=params["build"] == "prebuilt",
        modules={
            kernel: str((found or {}).get("version", "")) for kernel, found in params["modules"].items()
        },
    )
    try:
        found = survey.look(Path(params["source"]), Path(params["keyring"]))
    except Failed as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=False, machine={**found, **survey.compare(wanted)})


if __name__ == "__main__":
    main()
