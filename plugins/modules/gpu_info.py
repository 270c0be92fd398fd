#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Find out which NVIDIA GPUs a machine has, and what state they and their driver are in
description:
  - Finds the GPUs on the PCI bus, which works before any driver is installed, and asks the driver of each. The two lists
    are put side by side, so that a card that the driver has lost is shown.
  - Reads C(nvidia-smi -q -x) of the driver branches 470 to 610 and later. Where a value is missing, RV(gpu.devices[].missing)
    has the reason, for a reading that a branch does not have, one that a card does not have and one of a lost card differ.
  - Also compares what must agree, which is the loaded kernel module, the one on disk that each kernel would load, the
    driver's library, and the packages.
  - Changes nothing and needs no root, but without it the processes of others may be missing.
  - On a machine with simulated GPUs RV(gpu.simulated) is true.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer on the machine
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
    support: full
options:
  root:
    description:
      - Folder where C(sys) and C(proc) are looked for.
      - Another one than V(/) is for simulated GPUs.
    type: path
    default: /
  system:
    description:
      - Folder where C(boot), C(lib/modules) and C(usr/lib) are looked for.
      - Another one than V(/) is for an image that is mounted there.
    type: path
    default: /
  driver:
    description:
      - Whether to ask C(nvidia-smi), C(modinfo), C(dpkg-query), C(dkms) and C(systemctl) as well.
      - If it is V(false), everything that only they know is null or empty. RV(gpu.devices[].state) and
        RV(gpu.devices[].seen_by_driver) are null where the kernel's driver has a card.
    type: bool
    default: true
  apt:
    description:
      - Whether to find out what the next C(apt-get upgrade) and C(apt-get dist-upgrade) would do to the GPU stack and to the
        kernels, and whether packages are broken now.
      - Takes a few seconds, and goes by the package lists that are on the machine.
    type: bool
    default: false
  nvidia_smi:
    description: The program that asks the driver; a name that is looked for in the C(PATH), or a path.
    type: str
    default: nvidia-smi
  timeout:
    description:
      - Seconds to wait for C(nvidia-smi), and for C(apt-get).
      - A card that has left the bus can make C(nvidia-smi) hang.
    type: int
    default: 60
seealso:
  - plugin: gpumesh.fleet.gpu_checks
    plugin_type: filter
    description: What is wrong with these facts, and what to do.
"""

EXAMPLES = r"""
- name: Look at the GPUs before any driver is there
  gpumesh.fleet.gpu_info:
    driver: false

- name: Look at everything, and at what apt would do next
  gpumesh.fleet.gpu_info:
    apt: true
  register: found

- name: Refuse a machine on which something is wrong
  ansible.builtin.assert:
    that: problems == []
    fail_msg: "{{ problems }}"
  vars:
    expected:
      gpus: [{model: rtx5090, count: 4}]
      driver: {branch: "580", flavour: open}
    problems: "{{ found.gpu | gpumesh.fleet.gpu_checks(expected) | rejectattr('ok') | map(attribute='says') }}"
"""

RETURN = r"""
ansible_facts:
  description: RV(gpu), so that later tasks find it as C(ansible_facts.gpu).
  returned: always
  type: dict
  contains:
    gpu:
      description: The same as RV(gpu).
      returned: always
      type: dict
gpu:
  description: The GPUs and their driver.
  returned: always
  type: dict
  contains:
    simulated:
      description: Whether the GPUs are simulated. Then nothing here was measured.
      type: bool
      returned: always
      sample: false
    counts:
      description: How many GPUs there are.
      type: dict
      returned: always
      contains:
        pci:
          description: GPUs on the PCI bus.
          type: int
          returned: always
          sample: 4
        driver:
          description: GPUs that the driver lists; null if it was not asked, or did not answer.
          type: int
          returned: always
          sample: 4
    devices:
      description: Every GPU that is on the bus or that the driver lists, in the order of their addresses.
      type: list
      elements: dict
      returned: always
      contains:
        pci_address:
          description: Its PCI address, as in sysfs.
          type: str
          returned: always
          sample: "0000:01:00.0"
        pci_id:
          description: Its PCI device id, without the vendor's V(10de).
          type: str
          returned: always
          sample: 2b85
        subsystem_id:
          description: Vendor and id of the board.
          type: str
          returned: always
          sample: "10de:2057"
        class:
          description: Its PCI class; V(0300) is a GPU with a plug for displays, V(0302) one without.
          type: str
          returned: always
          sample: "0300"
        slot:
          description: The slot of the board that it is in; null where the firmware does not tell.
          type: str
          returned: always
          sample: "2"
        port:
          description:
            - The port of the board that it is behind, with the highest PCIe generation and the most lanes that it can, and
              its own C(aer); null where there is none, as in most virtual machines.
          type: dict
          returned: always
          sample:
            address: "0000:00:01.1"
            gen_max: 5
            width_max: 16
            aer: {correctable: 0, nonfatal: 0, fatal: 0, kinds: {}}
        aer:
          description:
            - Errors of its link that the kernel has counted since the machine has started; null where nobody counts them,
              as in most virtual machines. C(kinds) has those that there were, such as V(correctable.BadTLP).
          type: dict
          returned: always
          sample: {correctable: 3, nonfatal: 0, fatal: 0, kinds: {correctable.BadTLP: 3}}
        numa_node:
          description: The NUMA node it is at; null where the firmware does not tell.
          type: int
          returned: always
          sample: 0
        model:
          description: Our name of the model; null for one that is not in our catalog.
          type: str
          returned: always
          sample: rtx5090
        name:
          description: The vendor's name.
          type: str
          returned: always
          sample: NVIDIA GeForce RTX 5090
        kernel_driver:
          description: The kernel's driver that has it, such as V(nvidia), V(nouveau) or V(vfio-pci); null for none.
          type: str
          returned: always
          sample: nvidia
        seen_by_driver:
          description: Whether C(nvidia-smi) lists it; null if that was not asked.
          type: bool
          returned: always
          sample: true
        state:
          description:
            - V(ok) if the driver answers for it.
            - V(lost) if the driver says that it is gone.
            - V(unseen) if NVIDIA's driver has it, and C(nvidia-smi) does not list it.
            - V(no_driver) if NVIDIA's driver does not have it.
          type: str
          returned: always
          sample: ok
        index:
          description: Its number in C(nvidia-smi).
          type: int
          returned: always
          sample: 0
        uuid:
          description: The driver's identity of the card.
          type: str
          returned: always
          sample: GPU-00000000-0000-4000-8000-000000000001
        serial:
          description: The board's serial number.
          type: str
          returned: always
          sample: "0"
        minor:
          description: The number in its device file, C(/dev/nvidia0).
          type: int
          returned: always
          sample: 0
        architecture:
          description: Its architecture in the driver's words.
          type: str
          returned: always
          sample: Blackwell
        vbios:
          description: Version of its firmware.
          type: str
          returned: always
          sample: 98.02.2E.00.01
        gsp_firmware:
          description: Version of the firmware that the driver gave it.
          type: str
          returned: always
          sample: 580.178.04
        memory_mib:
          description: Its memory in MiB.
          type: int
          returned: always
          sample: 32607
        memory_used_mib:
          description: How much of it is in use, in MiB.
          type: int
          returned: always
          sample: 2
        bar1_mib:
          description: How much of its memory the processor can address, in MiB.
          type: int
          returned: always
          sample: 32768
        persistence:
          description: Whether the driver keeps its state while nobody uses the card.
          type: bool
          returned: always
          sample: true
        compute_mode:
          description: Who may use it, in the driver's words.
          type: str
          returned: always
          sample: Default
        performance_state:
          description: From V(P0), the fastest, to V(P15).
          type: str
          returned: always
          sample: P8
        utilization_percent:
          description: For how much of the last second it was busy.
          type: int
          returned: always
          sample: 0
        recovery_action:
          description: What the driver asks for to heal it; V(None) if nothing. From branch 570 on.
          type: str
          returned: always
          sample: None
        mig:
          description: Whether it is partitioned.
          type: dict
          returned: always
          contains:
            current:
              description: Whether it is now.
              type: bool
              returned: always
            pending:
              description: Whether it will be after the next reset.
              type: bool
              returned: always
            devices:
              description: The partitions, each with C(index), C(gpu_instance), C(compute_instance) and C(memory_mib).
              type: list
              elements: dict
              returned: always
        power:
          description:
            - Power in W. What it draws is C(draw_w), what holds now is C(limit_w), what was asked for is C(requested_w).
            - The card's own range is C(min_w) to C(max_w), and its own choice C(default_w).
          type: dict
          returned: always
          sample: {draw_w: 24.1, limit_w: 450.0, requested_w: 450.0, default_w: 575.0, min_w: 400.0, max_w: 600.0}
        link:
          description:
            - The PCIe link now (C(gen_now), C(width_now)), the most that both ends can (C(gen_max), C(width_max)), and the most
              that the card can (C(gen_device_max)).
            - A link of a card that has nothing to do falls to generation 1 to save power. C(replay_counter) counts
              packets that were sent again, C(replay_rollover_counter) how often that was tried in vain.
          type: dict
          returned: always
          sample: {gen_now: 1, gen_max: 5, gen_device_max: 5, width_now: 16, width_max: 16, replay_counter: 0, replay_rollover_counter: 0}
        temperatures:
          description:
            - Degrees Celsius, of the chip (C(gpu_c)) and its memory (C(memory_c)).
            - The thresholds C(max_operating_c), C(slowdown_c) and C(shutdown_c) are the card's own. Where its driver tells
              them only as a distance, C(scale) is V(relative), and they are computed from the temperature now.
            - In both cases C(margin_c) is how far it is from C(max_operating_c), or, where that is not known, from
              C(slowdown_c).
          type: dict
          returned: always
          sample: {gpu_c: 25, memory_c: null, margin_c: 65, max_operating_c: 90, slowdown_c: 92, shutdown_c: 95, scale: relative}
        clocks:
          description: Clocks now in MHz.
          type: dict
          returned: always
          sample: {graphics_mhz: 180, sm_mhz: 180, memory_mhz: 405}
        max_clocks:
          description: The highest clocks in MHz.
          type: dict
          returned: always
          sample: {graphics_mhz: 3090, sm_mhz: 3090, memory_mhz: 14001}
        throttle:
          description:
            - What holds the clocks down now. V(sw_power_cap) is the power limit at work.
            - One of V(idle), V(app_clocks), V(sw_power_cap), V(hw_slowdown), V(sync_boost), V(sw_thermal), V(hw_thermal),
              V(power_brake), V(display).
          type: list
          elements: str
          returned: always
          sample: [idle]
        throttle_us:
          description: Microseconds that the clocks were held down by reason since the driver was loaded. From branch 580 on.
          type: dict
          returned: always
          sample: {sw_power_cap: 0}
        ecc:
          description:
            - Whether errors of memory are corrected now (C(current)), and after the next reboot (C(pending)).
            - Errors since the driver was loaded (C(volatile)) and ever (C(aggregate)). Each has C(correctable) and
              C(uncorrectable), which are sums, and the counters they are of.
            - Whether so many errors of SRAM were uncorrectable that the card is to be replaced (C(sram_threshold_exceeded)).
          type: dict
          returned: always
          sample: {current: true, pending: true, volatile: {correctable: 0, uncorrectable: 0}, aggregate: {correctable: 1, uncorrectable: 0}}
        remapped_rows:
          description: Rows of memory that were replaced by spare ones; C(pending) needs a reset, C(failure) a new card.
          type: dict
          returned: always
          sample: {correctable: 0, uncorrectable: 0, pending: false, failure: false}
        retired_pages:
          description: Pages of memory that are no longer used; the same on older cards.
          type: dict
          returned: always
          sample: {single_bit: 0, double_bit: 0, pending: false}
        processes:
          description: Who uses it, each with C(pid), C(type), C(name) and C(memory_mib).
          type: list
          elements: dict
          returned: always
          sample: []
        missing:
          description:
            - Why a value above is null, by its name with dots, such as C(power.draw_w).
            - V(absent) if this branch of the driver has no such reading, or nobody was asked. V(not_available) if this card
              has none. V(deprecated) if this branch no longer tells. V(lost) if the card is gone. V(unknown) for anything else.
          type: dict
          returned: always
          sample: {ecc.current: not_available}
    driver:
      description: The driver.
      type: dict
      returned: always
      contains:
        loaded:
          description: Version of the kernel module that is loaded.
          type: str
          returned: always
          sample: 580.178.04
        flavour:
          description: Whether the loaded module is V(open) or V(closed).
          type: str
          returned: always
          sample: open
        library:
          description: Version of the driver's library that programs load, by its file's name.
          type: str
          returned: always
          sample: 580.178.04
        libraries:
          description: All versions of it, and of CUDA's driver library, that are installed.
          type: dict
          returned: always
          sample: {libcuda: [580.178.04], libnvidia-ml: [580.178.04]}
        cuda:
          description: The newest CUDA that the driver can run.
          type: str
          returned: always
          sample: "13.0"
        smi:
          description: V(ok), or what is wrong with the answer of C(nvidia-smi).
          type: str
          returned: always
          sample: ok
        smi_notes:
          description: Warnings that it printed besides.
          type: list
          elements: str
          returned: always
          sample: []
        running_kernel:
          description: The kernel that runs.
          type: str
          returned: always
          sample: 6.8.0-90-generic
        next_kernel:
          description: The newest kernel with an image in C(/boot), which the next boot takes unless told otherwise.
          type: str
          returned: always
          sample: 6.8.0-90-generic
        kernels:
          description: All kernels with an image in C(/boot), the newest at the end.
          type: list
          elements: str
          returned: always
          sample: [6.8.0-90-generic]
        on_disk:
          description: By kernel, the module that it would load, with C(version), C(flavour) and C(path); null for none.
          type: dict
          returned: always
          sample: {6.8.0-90-generic: {version: 580.178.04, flavour: open, path: /lib/modules/6.8.0-90-generic/updates/dkms/nvidia.ko.zst}}
        persistence_daemon:
          description: Whether nvidia-persistenced runs (C(active)), whether it will after a boot (C(enabled)), and systemd's word for that.
          type: dict
          returned: always
          sample: {active: true, enabled: true, state: enabled}
        nouveau_loaded:
          description: Whether the kernel's own driver is loaded, beside which NVIDIA's cannot work.
          type: bool
          returned: always
          sample: false
    packages:
      description:
        - Installed packages of the GPU stack and of the kernels. Each has C(version), C(held), C(ok), which is false for one that is
          half installed, C(source) and C(source_version).
      type: dict
      returned: always
      sample: {nvidia-utils-580: {version: 580.178.04-0ubuntu1, held: true, ok: true, source: nvidia-graphics-drivers-580, source_version: 580.178.04-0ubuntu1}}
    dkms:
      description: What DKMS has of NVIDIA's modules.
      type: list
      elements: dict
      returned: always
      sample: [{module: nvidia, version: 580.178.04, kernel: 6.8.0-90-generic, state: installed}]
    apt:
      description:
        - What apt would do next. C(checked) is false unless O(apt=true).
        - C(broken) has the packages and errors that stand in the way of any apt run now.
        - C(would_change) has C(name), C(from), C(to) and C(kind) (V(gpu) or V(kernel)) of packages.
        - C(would_remove) has names.
      type: dict
      returned: always
      sample: {checked: true, broken: [], would_change: [], would_remove: []}
    secure_boot:
      description: Whether the firmware checks signatures; null where that cannot be told, as in a container.
      type: bool
      returned: always
      sample: false
    cpu_governors:
      description: The governors that the processors' clocks are under.
      type: list
      elements: str
      returned: always
      sample: [performance]
    topology:
      description: What is between two GPUs, by index, in the words of C(nvidia-smi topo -m).
      type: list
      elements: dict
      returned: always
      sample: [{from: 0, to: 1, link: PHB}]
    p2p:
      description: Whether two GPUs can read each other's memory, by index; V(OK), or the reason in the words of C(nvidia-smi topo -p2p r).
      type: list
      elements: dict
      returned: always
      sample: [{from: 0, to: 1, read: CNS}]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import gpu


def main() -> None:
    """Look, and tell."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "system": {"type": "path", "default": "/"},
            "driver": {"type": "bool", "default": True},
            "apt": {"type": "bool", "default": False},
            "nvidia_smi": {"type": "str", "default": "nvidia-smi"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    params = module.params
    found = gpu.look(
        root=Path(params["root"]),
        system=Path(params["system"]),
        driver=params["driver"],
        apt=params["apt"],
        nvidia_smi=params["nvidia_smi"],
        seconds=params["timeout"],
    )
    module.exit_json(changed=False, gpu=found, ansible_facts={"gpu": found})


if __name__ == "__main__":
    main()
