#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: framework_lock
short_description: Resolve a framework's requirements to a lock with hashes
description:
  - Asks package indexes, from the machine that will install from them, and returns a lock for every Python from 3.11 to 3.13 on
    Linux. P(gpumesh.fleet.framework_environment#module) installs from it.
  - Changes nothing on the machine but the cache of C(uv).
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer on the machine
  - C(uv)
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is ever changed.
  diff_mode:
    support: none
    details: Nothing is ever changed.
  idempotent:
    support: partial
    details: An index that has got newer packages in between gives another lock. Keep the first.
options:
  framework:
    description: Its name, for messages.
    type: str
    required: true
  requirements:
    description: What to resolve.
    type: list
    elements: str
    required: true
  root:
    description: Folder of the environments, with the cache.
    type: path
    default: /opt/gpumesh/frameworks
  uv:
    description: The program C(uv). By default the one in the environment V(uv) below O(root).
    type: path
  index_url:
    description: The package index.
    type: str
    default: https://pypi.org/simple
  extra_index_urls:
    description: Indexes that are asked before O(index_url). Of a package that one of them has, nothing is taken from elsewhere.
    type: list
    elements: str
    default: []
  wheels:
    description: A folder on the machine, or the address of a page, with further wheels.
    type: str
    default: ""
  offline:
    description: Whether to take wheels from O(wheels) only.
    type: bool
    default: false
seealso:
  - module: gpumesh.fleet.framework_environment
"""

EXAMPLES = r"""
- name: Lock PyTorch for CUDA 12.6
  gpumesh.fleet.framework_lock:
    framework: pytorch
    requirements: [torch==2.13.0+cu126, torchvision]
    extra_index_urls: [https://download.pytorch.org/whl/cu126]
  register: made
"""

RETURN = r"""
lock:
  description: The lock.
  returned: always
  type: str
  sample: "jax==0.10.2 \\\n    --hash=sha256:724d73c4678d8b06f6a6ab4db1b8a2fea8cd4f1e2c2564f99601634ec7b8d1c6\n"
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import framework_build as build
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import (
    framework_environments as environments,
)


def main() -> None:
    """Ask, and return."""
    module = AnsibleModule(
        argument_spec={
            "framework": {"type": "str", "required": True},
            "requirements": {"type": "list", "elements": "str", "required": True},
            "root": {"type": "path", "default": "/opt/gpumesh/frameworks"},
            "uv": {"type": "path"},
            "index_url": {"type": "str", "default": "https://pypi.org/simple"},
            "extra_index_urls": {"type": "list", "elements": "str", "default": []},
            "wheels": {"type": "str", "default": ""},
            "offline": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    place = environments.Place(Path(params["root"]), params["framework"])
    uv = Path(params["uv"] or place.root / "uv" / "bin" / "uv")
    sources = build.Sources(
        params["index_url"], tuple(params["extra_index_urls"]), params["wheels"], params["offline"]
    )
    try:
        lock = build.make_lock(place, uv, params["requirements"], sources)
    except (environments.EnvironmentsError, OSError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=False, lock=lock)


if __name__ == "__main__":
    main()
