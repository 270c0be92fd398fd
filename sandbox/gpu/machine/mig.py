# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards cut into instances (MIG), and ``nvidia-smi mig``, which cuts them. SIMULATED.

An instance is gone after a reboot; that the card may be cut at all is not.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from .gpu import Gpu
from .setting import INVALID, UNPRIVILEGED, Refused, change

NOT_FOUND = 6
_IDS = {1: 19, 2: 14, 3: 9, 4: 5, 7: 0}
_MEMORY = {1: 1, 2: 2, 3: 4, 4: 4, 7: 8}
"""Eighths of the memory that go with so many of the seven parts of a chip."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A size of instance."""

    parts: int
    memory_gb: int

    @property
    def name(self) -> str:
        return f"{self.parts}g.{self.memory_gb}gb"

    @property
    def number(self) -> int:
        return _IDS[self.parts]


def cuts(gpu: Gpu) -> list[Cut]:
    """The sizes a card may be cut into."""
    eighth = gpu.card.memory_mib // 1000 // 8
    return [Cut(parts, eighth * memory) for parts, memory in _MEMORY.items()]


def instances(gpu: Gpu) -> list[Cut]:
    """Those it is cut into now."""
    known = {cut.name: cut for cut in cuts(gpu)}
    return [known[name] for name in gpu.settings.get("instances", []) if gpu.mig]


def instance_uuid(gpu: Gpu, place: int) -> str:
    return f"MIG-{uuid.uuid5(uuid.NAMESPACE_OID, f'{gpu.uuid} {place} {instances(gpu)[place].name}')}"


def command(gpus: list[Gpu], words: list[str]) -> tuple[int, str]:
    """What ``nvidia-smi mig`` does, and its exit status. Raises: Refused."""
    given = dict(zip(words, [*words[1:], ""], strict=True))
    enabled = [gpu for gpu in gpus if gpu.mig]
    if not enabled:
        return NOT_FOUND, "No MIG-enabled devices found."
    if {"-lgip", "--list-gpu-instance-profiles"} & given.keys():
        lines = [f"  {gpu.index}  MIG {cut.name}  {cut.number}" for gpu in enabled for cut in cuts(gpu)]
        return 0, "\n".join(lines)
    if {"-lgi", "--list-gpu-instances", "-lci", "--list-compute-instances"} & given.keys():
        lines = [
            f"  {gpu.index}  MIG {cut.name}  {cut.number}  {n}"
            for gpu in enabled
            for n, cut in enumerate(instances(gpu))
        ]
        return (0, "\n".join(lines)) if lines else (NOT_FOUND, "No GPU instances found: Not Found")
    if not enabled[0].machine.may_change():
        raise Refused(UNPRIVILEGED, "Unable to change instances: Insufficient Permissions")
    wanted = given.get("-cgi") or given.get("--create-gpu-instance")
    if wanted:
        return 0, "\n".join(line for gpu in enabled for line in _create(gpu, wanted.split(",")))
    if {"-dci", "--destroy-compute-instance", "-dgi", "--destroy-gpu-instance"} & given.keys():
        return _destroy(enabled, compute_only=not {"-dgi", "--destroy-gpu-instance"} & given.keys())
    raise Refused(INVALID, 'Invalid combination of input arguments. Please run "nvidia-smi mig -h" for help.')


def _create(gpu: Gpu, wanted: list[str]) -> list[str]:
    known = {name: cut for cut in cuts(gpu) for name in (cut.name, str(cut.number))}
    for name in wanted:
        if name not in known:
            raise Refused(INVALID, f"Unable to parse GPU instance profile {name!r} for GPU {gpu.index}")
    chosen = [known[name] for name in wanted]
    there = instances(gpu)
    all_of_them = [*there, *chosen]
    if sum(cut.parts for cut in all_of_them) > 7 or sum(_MEMORY[cut.parts] for cut in all_of_them) > 8:
        raise Refused(
            19,
            f"Unable to create a GPU instance on GPU {gpu.index} using profile {chosen[-1].number}: "
            "Insufficient Resources",
        )
    change(gpu, instances=[cut.name for cut in all_of_them])
    lines = []
    for number, cut in enumerate(chosen, len(there)):
        where = f"on GPU {gpu.index:2d}"
        lines += [
            f"Successfully created GPU instance ID {number:2d} {where} using profile MIG {cut.name} (ID {cut.number:2d})",
            f"Successfully created compute instance ID  0 {where} GPU instance ID {number:2d} using profile MIG {cut.name}",
        ]
    return lines


def _destroy(gpus: list[Gpu], *, compute_only: bool) -> tuple[int, str]:
    what = "compute" if compute_only else "GPU"
    lines = [
        f"Successfully destroyed {what} instance ID {number:2d} from GPU {gpu.index:2d}"
        for gpu in gpus
        for number, _ in enumerate(instances(gpu))
    ]
    if not lines:
        return NOT_FOUND, f"No {what} instances found: Not Found"
    # A GPU instance keeps its one compute instance here: who takes the one away goes on to take the other.
    if not compute_only:
        for gpu in gpus:
            change(gpu, instances=None)
    return 0, "\n".join(lines)
