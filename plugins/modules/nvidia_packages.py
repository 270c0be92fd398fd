#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_packages
short_description: Pin, install or hold the packages of the NVIDIA driver
description:
  - Installs the driver in one version for all of its packages and in one transaction of apt, in which DKMS builds nothing. The
    modules are built after that, or are those that M(gpumesh.fleet.nvidia_trial) has built already.
  - Refuses to install what would remove packages that are none of the driver's.
  - Where pinning or installing fails, the machine is put back as M(gpumesh.fleet.nvidia_snapshot) has noted it.
  - It can be ended at any time. Where dpkg has left packages of the driver half-way, the next run removes them first.
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
      - V(present) installs O(packages) and O(further), and removes what other branches and sources have left.
      - V(pinned) installs O(pin) and removes all other pins of the vendor. It has to be in force before apt looks for the driver.
      - V(held) keeps apt from moving any installed package whose name is in O(patterns), and lets go what it has held before
        and is no more to be held. What somebody else holds stays held.
    type: str
    choices: [present, pinned, held]
    default: present
  packages:
    description: The driver's own packages, all to be of one version. Required if O(state=present).
    type: list
    elements: str
  module:
    description: The one among O(packages) that brings the kernel module.
    type: str
    default: ""
  further:
    description: Packages beside them, in any version, such as the CUDA toolkit.
    type: list
    elements: str
    default: []
  version:
    description: A branch such as V(580), or one driver such as V(580.178.04). Required if O(state=present).
    type: str
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
  kernels:
    description: The kernels that DKMS is to have a module for, as C(uname -r) tells them.
    type: list
    elements: str
    default: []
  pin:
    description: The vendor's packages that pin the branch. Required if O(state=pinned).
    type: list
    elements: str
  patterns:
    description: Regular expressions of the names of the layer's packages. Required if O(state=held).
    type: list
    elements: str
  kernel_held:
    description: Whether V(held) holds what would bring another kernel as well.
    type: bool
    default: false
seealso:
  - module: gpumesh.fleet.nvidia_snapshot
  - module: gpumesh.fleet.nvidia_trial
  - module: gpumesh.fleet.nvidia_rollback
"""

EXAMPLES = r"""
- name: Install the driver
  gpumesh.fleet.nvidia_packages:
    packages: [nvidia-dkms-580-open, libnvidia-compute-580, nvidia-utils-580]
    module: nvidia-dkms-580-open
    version: "580"
    kernels: [6.8.0-90-generic]
    patterns: ["^(lib)?nvidia-(?!container)"]
"""

RETURN = r"""
orders:
  description: What is ordered from apt, the module's package first. A minus sign in the end means its removal.
  returned: if O(state=present)
  type: list
  elements: str
  sample: [nvidia-dkms-580-open=580.178.04-1ubuntu1]
installs:
  description: The packages that were installed or changed their version, or would in check mode.
  returned: if O(state=present)
  type: list
  elements: str
removes:
  description: The packages that were removed, or would be in check mode.
  returned: if O(state=present)
  type: list
  elements: str
holds:
  description: The packages that are held now and were not before.
  returned: if O(state=held)
  type: list
  elements: str
lets_go:
  description: The packages that were held and are not now.
  returned: if O(state=held)
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import installation, snapshot
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver.programs import Failed


def order(params: dict[str, Any]) -> installation.Order:
    """The options as the library takes them."""
    return installation.Order(
        packages=tuple(params["packages"]),
        module=params["module"],
        further=tuple(params["further"]),
        wanted=params["version"],
        loose=frozenset(params["loose"]),
        prebuilt=params["build"] == "prebuilt",
        kernels=tuple(params["kernels"]),
        patterns=tuple(params["patterns"] or ()),
    )


def carried_out(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """What the state asks for."""
    if params["state"] == "pinned":
        return {"changed": installation.pin(params["pin"], carry_out=not check)}
    if params["state"] == "held":
        holding = installation.hold(params["patterns"], params["kernel_held"], carry_out=not check)
        return {"changed": bool(holding), "holds": holding.add, "lets_go": holding.drop}
    install = installation.foresee if check else installation.install
    transaction, changed = install(order(params))
    return {
        "changed": changed,
        "orders": transaction.orders,
        "installs": transaction.installs,
        "removes": transaction.removes,
    }


def main() -> None:
    """Do it, and put the machine back where that fails half-way."""
    required = {"type": "list", "elements": "str"}
    names = {**required, "default": []}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "pinned", "held"], "default": "present"},
            "packages": required,
            "module": {"type": "str", "default": ""},
            "further": names,
            "version": {"type": "str"},
            "loose": names,
            "build": {"type": "str", "choices": ["dkms", "prebuilt"], "default": "dkms"},
            "kernels": names,
            "pin": required,
            "patterns": required,
            "kernel_held": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
        required_if=[
            ("state", "present", ("packages", "version")),
            ("state", "pinned", ("pin",)),
            ("state", "held", ("patterns",)),
        ],
    )
    try:
        result = carried_out(module.params, module.check_mode)
    except (Failed, OSError) as problem:
        if module.check_mode or module.params["state"] == "held":
            module.fail_json(msg=str(problem))
        module.fail_json(msg=f"{problem}\n{snapshot.put_back()}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
