# SPDX-License-Identifier: GPL-3.0-or-later
"""The little of a framework that can be asked without a computation: which GPUs it sees, and what it was built for. SIMULATED."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ..gpu import Gpu


def dress(
    names: dict[str, Any], framework: str, cuda: str, architectures: Sequence[str], gpus: Sequence[Gpu]
) -> None:
    """Put it into the module's own names. A framework that is not known here has nothing to be asked."""
    if framework == "torch":
        names["version"] = SimpleNamespace(cuda=cuda)
        names["cuda"] = SimpleNamespace(
            is_available=lambda: bool(gpus),
            device_count=lambda: len(gpus),
            get_device_name=lambda index=0: gpus[index].card.name,
            get_device_capability=lambda index=0: tuple(
                map(int, gpus[index].card.compute_capability.split("."))
            ),
            get_arch_list=lambda: [f"sm_{one.replace('.', '')}" for one in architectures],
        )
    elif framework == "tensorflow":
        found = [SimpleNamespace(name=f"/physical_device:GPU:{gpu.index}", device_type="GPU") for gpu in gpus]
        names["config"] = SimpleNamespace(
            list_physical_devices=lambda kind="GPU": found if kind == "GPU" else []
        )
    elif framework == "jax":
        names["devices"] = lambda kind="gpu": [
            SimpleNamespace(id=gpu.index, platform="gpu", device_kind=gpu.card.name) for gpu in gpus
        ]
