#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_runtime_gate
short_description: Prove that containers see every GPU of a machine
description:
  - Looks at the packages of the NVIDIA Container Toolkit, at the daemons that are to know its runtime, and at the CDI
    specification. Then runs a container by every route that the machine is to offer, and looks for the GPUs in it, before and
    after C(systemctl daemon-reload).
  - That can take GPUs from a container to which the runtime gave them when it was started. So systemd is not told to read its
    files again while somebody else's container of Docker has GPUs by the runtime, or by C(--gpus). The checks that need it are
    then left out of RV(checks), and a warning says why; see RV(unproved).
  - The containers run an image that is made of the machine's own shell and C library, so no registry is needed, and whatever of
    a GPU is seen in them was put there by the runtime.
  - What it makes for that, it removes. Of anybody else's containers it stops and removes none.
  - A check that fails does not make the module fail; see RV(checks).
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer on the machine
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - What is installed and configured is never changed, so containers are run in check mode, too, and systemd reads its files
        again.
  diff_mode:
    support: none
    details: What is installed and configured is never changed.
  idempotent:
    support: full
options:
  version:
    description: Version that the packages are to have.
    type: str
    required: true
  packages:
    description: Names of the packages.
    type: list
    elements: str
    required: true
  gpu:
    description: What M(gpumesh.fleet.gpu_info) has returned as C(gpu).
    type: dict
    required: true
  gpus:
    description: GPUs that are to be there, each with C(model), and C(count) where it is more than one.
    type: list
    elements: dict
    default: []
  docker:
    description: Whether containers of Docker are to see the GPUs.
    type: bool
    default: true
  docker_cdi:
    description: Whether Docker itself reads the CDI specification, which it does from 25.0 on.
    type: bool
    default: true
  podman:
    description: Whether containers of Podman are to see the GPUs.
    type: bool
    default: false
  containerd:
    description: Whether containerd, where it is there, is to know the runtime.
    type: bool
    default: false
  default_runtime:
    description: Whether Docker is to run every container with the runtime.
    type: bool
    default: false
  image:
    description:
      - Image that the containers run; it needs C(/bin/sh) and a C library that C(nvidia-smi) can use.
      - Empty means one that is made of the machine's own shell and C library.
    type: str
    default: ''
  deferred:
    description: Run no container, because the driver only comes up at a boot that is still to come.
    type: bool
    default: false
seealso:
  - module: gpumesh.fleet.gpu_info
"""

EXAMPLES = r"""
- name: Look at the GPUs
  gpumesh.fleet.gpu_info:
  register: found

- name: Look for them in containers
  gpumesh.fleet.gpu_runtime_gate:
    version: 1.20.0-1
    packages: [nvidia-container-toolkit]
    gpu: "{{ found.gpu }}"
    gpus: [{model: rtx5090, count: 4}]
  become: true
  register: gate

- name: Stop at what was not proved
  ansible.builtin.assert:
    that: failures == []
    fail_msg: "{{ failures }}"
  vars:
    failures: "{{ gate.checks | rejectattr('ok') | map(attribute='says') }}"
"""

RETURN = r"""
checks:
  description: All that was looked at.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: What was looked at.
      type: str
      returned: always
      sample: Docker with CDI, after a daemon-reload
    ok:
      description: Whether it is as it is to be.
      type: bool
      returned: always
      sample: true
    says:
      description: Where it is not, what is wrong and what to do about it.
      type: str
      returned: always
      sample: "CDI in Docker: it is off in the running daemon; restart it ('systemctl restart docker')"
unproved:
  description: What was not looked at, because the look could have taken GPUs from somebody else's containers. It is no failure.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: What was not looked at.
      type: str
      returned: always
      sample: Docker with CDI, after a daemon-reload
    says:
      description: Why, and what to do about it.
      type: str
      returned: always
      sample: "Docker with CDI, after a daemon-reload: not proved, because training has GPUs now and could lose them"
versions:
  description: Versions of C(toolkit), C(docker) and C(podman), as far as they are there.
  returned: always
  type: dict
  sample: {toolkit: 1.20.0-1, docker: 26.1.5}
gpus:
  description: How many GPUs and MIG devices the driver lists; 0 with O(deferred=true).
  returned: always
  type: int
  sample: 4
simulated:
  description: Whether the GPUs are simulated.
  returned: always
  type: bool
  sample: false
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import gpu_programs
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_runtime_gate import Gate, Wanted


def main() -> None:
    """Look, and tell."""
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "required": True},
            "gpu": {"type": "dict", "required": True},
            "gpus": {"type": "list", "elements": "dict", "default": []},
            "docker": {"type": "bool", "default": True},
            "docker_cdi": {"type": "bool", "default": True},
            "podman": {"type": "bool", "default": False},
            "containerd": {"type": "bool", "default": False},
            "default_runtime": {"type": "bool", "default": False},
            "image": {"type": "str", "default": ""},
            "deferred": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    # Otherwise Podman's warning stands where its error is looked for.
    os.environ["PODMAN_IGNORE_CGROUPSV1_WARNING"] = "1"
    gate = Gate(Wanted(**module.params), gpu_programs.run, Path(module.tmpdir))
    evidence = gate.evidence()
    for entry in gate.unproved:
        module.warn(entry["says"])
    module.exit_json(changed=False, **evidence)


if __name__ == "__main__":
    main()
