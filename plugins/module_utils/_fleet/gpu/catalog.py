# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU models there are. Data: adding a model is adding one entry.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One model.

    Attributes:
        name: our short name, as in a fleet file and in the group ``gpu_<name>``.
        full_name: the vendor's.
        memory_gb: nominal memory in GB, as sold.
        memory_mib: total memory the driver reports in MiB, where a capture of a real card shows it; None: not known.
        aliases: other names in use, lower case; the clouds' own names among them.
    """

    name: str
    full_name: str
    memory_gb: int
    memory_mib: int | None = None
    aliases: tuple[str, ...] = ()


MODELS: tuple[GpuModel, ...] = (
    GpuModel("p4", "NVIDIA Tesla P4", 8, None, ("nvidia-tesla-p4",)),
    GpuModel("p100", "NVIDIA Tesla P100", 16, None, ("nvidia-tesla-p100",)),
    GpuModel("v100", "NVIDIA Tesla V100", 16, None, ("nvidia-tesla-v100",)),
    GpuModel("t4", "NVIDIA T4", 16, 15360, ("nvidia-tesla-t4",)),
    GpuModel("a10", "NVIDIA A10", 24),
    GpuModel("a10g", "NVIDIA A10G", 24),
    GpuModel("a30", "NVIDIA A30", 24),
    GpuModel("a40", "NVIDIA A40", 48),
    GpuModel("a100", "NVIDIA A100 40GB", 40, 40960, ("nvidia-tesla-a100", "a100-40", "a100-40gb")),
    GpuModel("a100-80gb", "NVIDIA A100 80GB", 80, 81920, ("nvidia-a100-80gb", "a100-80")),
    GpuModel("rtx3090", "NVIDIA GeForce RTX 3090", 24, 24576, ("3090",)),
    GpuModel("l4", "NVIDIA L4", 24, None, ("nvidia-l4",)),
    GpuModel("l40", "NVIDIA L40", 48),
    GpuModel("l40s", "NVIDIA L40S", 48, 46068),
    GpuModel("rtx4000-sff-ada", "NVIDIA RTX 4000 SFF Ada Generation", 20),
    GpuModel("rtx4090", "NVIDIA GeForce RTX 4090", 24, 24564, ("4090",)),
    GpuModel(
        "h100", "NVIDIA H100 80GB", 80, 81559, ("nvidia-h100-80gb", "h100-80gb", "nvidia-h100-mega-80gb")
    ),
    GpuModel("h200", "NVIDIA H200 141GB", 141, None, ("nvidia-h200-141gb", "h200-141gb")),
    GpuModel("b200", "NVIDIA B200", 180, 183359, ("nvidia-b200",)),
    GpuModel("rtx5080", "NVIDIA GeForce RTX 5080", 16, None, ("5080",)),
    GpuModel("rtx5090", "NVIDIA GeForce RTX 5090", 32, 32607, ("5090",)),
    GpuModel(
        "rtx-pro-6000",
        "NVIDIA RTX PRO 6000 Blackwell",
        96,
        97887,
        ("nvidia-rtx-pro-6000", "rtx6000-pro"),
    ),
)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_NAME: dict[str, GpuModel] = {
    _plain(name): model for model in MODELS for name in (model.name, model.full_name, *model.aliases)
}


def find(name: str) -> GpuModel | None:
    """The model of any name it goes by; case, spaces and dashes do not matter (``RTX 5090``)."""
    return _BY_NAME.get(_plain(name))


def names() -> tuple[str, ...]:
    """Our short names, in the order of the catalog."""
    return tuple(model.name for model in MODELS)
