# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a simulated machine is: figures that follow from its cards, their clocks, their links, and what is broken. SIMULATED.

They are what real cards of the kind are known to reach where that is known, and plausible where it is not.
"""

from __future__ import annotations

import hashlib

from .gpu import Gpu

_GB_S = {1: 3.94, 2: 7.88, 3: 15.75, 4: 31.5, 5: 63.0}
"""Of sixteen lanes, one way, by generation."""
_SHARE_OF_LINK = 0.87
_SHARE_OF_HOST = 0.93
"""What all at once get of what each gets alone: they share the memory of the host."""
_BUS_GB_S = {"NV12": 235.0}
"""All-reduce over NVLink."""
_BUS_OF_HOST_GB_S = 35.0
"""All-reduce through the host's memory, four RTX 5090 with sixteen lanes each (NVIDIA/nccl, issue 1639)."""
_SLOW_BUS_GB_S = 6.2
_SLOW = 0.84
_IMAGES_PER_TFLOPS = 4.75
"""ResNet-50, training, batch 32: images in a second for each TFLOPS that the matrix units reach."""


def spread(gpu: Gpu, salt: str, share: float = 0.004) -> float:
    """No two cards are quite the same: a factor near 1, the same for the same card."""
    digest = hashlib.sha256(f"{gpu.profile.seed} {gpu.address} {salt}".encode()).digest()
    return 1 + share * (digest[0] / 127.5 - 1)


def tflops(gpu: Gpu, precision: str) -> float | None:
    """Matrix multiplication at the present clock; None: the chip has no such units."""
    best = gpu.card.rates.get(precision)
    if best is None:
        return None
    clock = gpu.read().sm_mhz / gpu.card.max_clocks[0]
    return best * clock * spread(gpu, precision) * (_SLOW if gpu.broken("slow") else 1)


def memory_gb_s(gpu: Gpu) -> float:
    """A copy within its memory, read and written bytes together."""
    return gpu.card.memory_gb_s * spread(gpu, "memory")


def link_gb_s(gpu: Gpu, direction: str, *, together: bool = False) -> float:
    """From or to the host's memory."""
    share = _SHARE_OF_LINK * (_SHARE_OF_HOST if together else 1)
    return _GB_S[gpu.link_gen] * gpu.link_width / 16 * share * spread(gpu, direction)


def bus_gb_s(gpus: list[Gpu]) -> float:
    """All-reduce among them, as bus bandwidth."""
    if gpus[0].profile.broken("slow-all-reduce"):
        return _SLOW_BUS_GB_S
    fast = _BUS_GB_S.get(gpus[0].card.peers)
    if fast:
        return fast
    slowest = min(_GB_S[gpu.link_gen] * gpu.link_width / 16 for gpu in gpus)
    return min(_BUS_OF_HOST_GB_S, _BUS_OF_HOST_GB_S * slowest / _GB_S[5])


def images_per_s(gpu: Gpu) -> float:
    """ResNet-50 on this card alone, in the precision that it is fastest in of those that training takes."""
    reached = max(tflops(gpu, precision) or 0 for precision in ("bf16", "fp16"))
    return reached * _IMAGES_PER_TFLOPS
