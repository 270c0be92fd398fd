#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_kernel_module
short_description: Load the NVIDIA kernel module that is on the disk, or say that only a reboot can
description:
  - Loads the module that is on the disk for the running kernel, in the place of another version or flavour, and of nouveau.
  - Nothing that computes is stopped. Where the present module is in use, it stays, and RV(reboot) is true.
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
  root:
    description: The folder that C(/proc) and C(/sys) are in.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Load the module
  gpumesh.fleet.nvidia_kernel_module:
  register: load

- name: Reboot where that is needed
  ansible.builtin.reboot:
    msg: "{{ load.says }}"
  when: load.reboot
"""

RETURN = r"""
reboot:
  description: Whether only a reboot can bring the module on the disk.
  returned: always
  type: bool
says:
  description: Why, or what went wrong; empty where there is nothing to say. Without a full stop.
  returned: always
  type: str
  sample: the open module 580.178.04 is loaded and in use, and 595.91.07 is on the disk
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import kernel_module


def main() -> None:
    """Compare what is loaded with what is on the disk, and exchange it."""
    module = AnsibleModule(argument_spec={"root": {"type": "path", "default": "/"}}, supports_check_mode=True)
    machine = kernel_module.Machine(Path(module.params["root"]))
    module.exit_json(**asdict(kernel_module.load(machine, carry_out=not module.check_mode)))


if __name__ == "__main__":
    main()
