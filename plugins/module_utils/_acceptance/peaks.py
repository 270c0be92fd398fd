# SPDX-License-Identifier: GPL-3.0-or-later
"""What a GPU could reach at the clock it was running at.

Pure. A card's nominal peak holds at its nominal clock. GeForce cards boost far above it: measured by the nominal figure, a good
RTX 5090 reaches 121 %, and a faulty one may look well. A card that its power limit holds down is the other way round. So the peak
is made of operations per clock, multiprocessors, and the SM clock that was read meanwhile.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._fleet.gpu import catalog

_UNVERIFIED = "operations per clock unverified, they agree with the nominal peak"


@dataclass(frozen=True, slots=True)
class PerClock:
    """Operations of one multiprocessor in one clock. None: it has no such unit.

    Attributes:
        tensor: fp16 (where there is, bf16) multiplied, fp32 accumulated, without sparsity.
        fp32: of the ordinary units.
        halved: GeForce cards have half the tensor rate where the sum is fp32; not in fp8, for which PyTorch lets the hardware sum
            up less exactly (an RTX 5090 was measured at 774 TFLOPS by others, 153 % of the half).
        tf32: whether there is TF32, at half the rate of fp16.
        fp8: whether there is fp8, at twice the rate of fp16.
    """

    tensor: int | None
    fp32: int
    halved: bool = False
    tf32: bool = False
    fp8: bool = False


_PER_CLOCK: dict[tuple[int, int], PerClock] = {
    (6, 0): PerClock(256, 128),
    (6, 1): PerClock(None, 256),
    (7, 0): PerClock(1024, 128),
    (7, 5): PerClock(1024, 128, halved=True),
    (8, 0): PerClock(2048, 128, tf32=True),
    (8, 6): PerClock(1024, 256, halved=True, tf32=True),
    (8, 9): PerClock(1024, 256, halved=True, tf32=True, fp8=True),
    (9, 0): PerClock(4096, 256, tf32=True, fp8=True),
    (10, 0): PerClock(8192, 256, tf32=True, fp8=True),
    (12, 0): PerClock(1024, 256, halved=True, tf32=True, fp8=True),
}

MULTIPROCESSORS = {
    "p100": 56,
    "v100": 80,
    "t4": 40,
    "a100": 108,
    "a100-80gb": 108,
    "rtx3090": 82,
    "l4": 58,
    "l40s": 142,
    "rtx4090": 128,
    "h100": 132,
    "h200": 132,
    "b200": 148,
    "rtx5090": 170,
    "rtx-pro-6000": 188,
}
"""Where the workload did not count them; of the cards in another form, see `CARDS`."""


@dataclass(frozen=True, slots=True)
class Own:
    """What a card has that is not its model's. None: it has its model's.

    Attributes:
        unverified: nobody has confirmed it.
    """

    memory_tb_s: float | None = None
    tensor_tflops: float | None = None
    tf32_tflops: float | None = None
    multiprocessors: int | None = None
    unverified: bool = False


CARDS = {
    "2331": Own(memory_tb_s=2.0, tensor_tflops=756.0, tf32_tflops=378.0, multiprocessors=114),
    "2321": Own(memory_tb_s=3.9, unverified=True),
    "15f7": Own(memory_tb_s=0.549, unverified=True),
}
"""By PCI device id: H100 PCIe, H100 NVL, P100 PCIe 12 GB."""
_AS_ITS_MODEL = Own()


@dataclass(frozen=True, slots=True)
class Peak:
    """What is possible.

    Attributes:
        clock_true: whether it is that of the clock that was read; otherwise that of the nominal clock.
    """

    tflops: float
    source: str
    clock_true: bool


def tflops_per_ghz(model: catalog.GpuModel, precision: str, multiprocessors: int | None) -> float | None:
    """The peak of a model for each GHz of its SM clock: 87.0 for bf16 on an RTX 5090. None: not known."""
    per_clock = _PER_CLOCK.get(model.capability)
    count = multiprocessors or MULTIPROCESSORS.get(model.name)
    if per_clock is None or not count:
        return None
    operations: float | None = per_clock.fp32
    if precision != "fp32":
        tensor = per_clock.tensor
        if tensor is not None and precision != "fp8" and per_clock.halved and "GeForce" in model.full_name:
            tensor //= 2
        has = {
            "fp16": True,
            "bf16": model.generation.bf16,
            "tf32": per_clock.tf32,
            "fp8": per_clock.fp8,
        }.get(precision, False)
        factor = {"tf32": 0.5, "fp8": 2.0}.get(precision, 1.0)
        operations = tensor * factor if tensor is not None and has else None
    return None if operations is None else operations * count / 1000


def matmul(
    model_name: str,
    precision: str,
    sm_mhz: float | None,
    multiprocessors: int | None = None,
    *,
    pci_id: str = "",
) -> Peak | None:
    """What a GPU could reach in a precision.

    Args:
        model_name: the catalog's short name.
        precision: fp32, tf32, fp16, bf16 or fp8.
        sm_mhz: its mean SM clock while it was measured; None: it was not read.
        multiprocessors: as the card itself says; None: the model's.
        pci_id: of the card; empty: any of the model.
    """
    model = catalog.find(model_name) if model_name else None
    if model is None:
        return None
    own = CARDS.get(pci_id.lower(), _AS_ITS_MODEL)
    rate = tflops_per_ghz(model, precision, multiprocessors or own.multiprocessors)
    if rate is not None and sm_mhz:
        source = f"{rate:.1f} TFLOPS for each GHz of its SM clock, {sm_mhz / 1000:.2f} GHz meanwhile"
        return Peak(rate * sm_mhz / 1000, f"{source} ({_UNVERIFIED})", True)
    tensor = own.tensor_tflops or model.peak.tensor_tflops
    nominal = {
        "fp16": tensor,
        "bf16": tensor if model.generation.bf16 else None,
        "tf32": own.tf32_tflops or model.peak.tf32_tflops,
    }.get(precision)
    if nominal is None:
        return None
    worth = "unverified, " if model.known("peak") == catalog.UNVERIFIED else ""
    return Peak(
        nominal,
        f"nominal peak of the catalog ({worth}at the nominal clock; the real one is not known)",
        False,
    )


def memory_gb_s(model_name: str, pci_id: str = "") -> tuple[float, str] | None:
    """The nominal memory bandwidth, and where it comes from; None: not known.

    Args:
        model_name: the catalog's short name.
        pci_id: of the card; empty: any of the model.
    """
    model = catalog.find(model_name) if model_name else None
    own = CARDS.get(pci_id.lower(), _AS_ITS_MODEL)
    card = catalog.by_pci_id(pci_id.lower()) if pci_id else None
    if model and card and own.memory_tb_s is not None:
        worth = ", unverified" if own.unverified else ""
        return own.memory_tb_s * 1000, f"nominal bandwidth of the {card.name}{worth}"
    if model is None or model.peak.memory_tb_s is None:
        return None
    worth = ", unverified" if model.known("peak") == catalog.UNVERIFIED else ""
    return model.peak.memory_tb_s * 1000, f"nominal bandwidth of the catalog{worth}"
