# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU models there are. Data: adding a model is adding one entry.

What a figure is worth stands beside it. A figure that nothing is said of was read in NVIDIA's own files: the lists of supported
chips in the READMEs of open-gpu-kernel-modules, the driver and CUDA documentation, DCGM's table of boards. ``captured`` ones were
reported by a real card; ``community`` ones come from a single source that is not the vendor; ``unverified`` ones were read nowhere.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OPEN = "open"
CLOSED = "closed"

VENDOR = "vendor"
CAPTURED = "captured"
COMMUNITY = "community"
UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the models of one generation share.

    Attributes:
        flavours: the kernel modules that drive it: the open ones, the closed ones, or either.
        driver_last: the last driver branch that knows it; empty: it is still supported.
        cuda_max: the last CUDA toolkit that makes code for it; empty: the newest does.
        pytorch_floor: the oldest official wheel that has its kernels; empty: all known ones have.
    """

    name: str
    flavours: tuple[str, ...]
    bf16: bool
    tf32: bool
    driver_last: str = ""
    cuda_max: str = ""
    pytorch_floor: str = ""
    unverified: tuple[str, ...] = ()


ARCHITECTURES: dict[str, Architecture] = {
    one.name: one
    for one in (
        Architecture("Pascal", (CLOSED,), False, False, "580", "12.9", unverified=("tf32",)),
        Architecture("Volta", (CLOSED,), False, False, "580", "12.9", unverified=("tf32",)),
        Architecture("Turing", (OPEN, CLOSED), False, False, unverified=("tf32",)),
        Architecture("Ampere", (OPEN, CLOSED), True, True),
        Architecture("Ada", (OPEN, CLOSED), True, True),
        Architecture("Hopper", (OPEN, CLOSED), True, True, "", "", "2.0+cu118", ("pytorch_floor",)),
        Architecture("Blackwell", (OPEN,), True, True, "", "", "2.7.0+cu128"),
    )
}


@dataclass(frozen=True, slots=True)
class Power:
    """A card's power limit in watts: the range it can be set to, and where it starts. None: only the card itself can say."""

    minimum: int | None = None
    default: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Peak:
    """Peak rates without sparsity: fp16 or bf16 with fp32 accumulation and TF32 in TFLOPS, memory in TB/s. None: not known."""

    tensor_tflops: float | None = None
    tf32_tflops: float | None = None
    memory_tb_s: float | None = None


@dataclass(frozen=True, slots=True)
class GpuCard:
    """One PCI id of a model.

    Attributes:
        pci_id: the device id, lower case; the vendor is always 10de.
        driver_floor: the first driver that lists this id; empty: the model's.
        note: what a reader should know about its figures.
    """

    pci_id: str
    name: str
    form: str
    memory_mib: int | None
    power: Power
    driver_floor: str = ""
    unverified: tuple[str, ...] = ()
    community: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One model.

    Attributes:
        name: our short name, as in a fleet file and in the group ``gpu_<name>``.
        full_name: the vendor's.
        memory_gb: nominal memory in GB, as sold.
        memory_mib: total memory the driver reports in MiB, where a capture of a real card shows it; None: not known.
        aliases: other names in use, lower case; the clouds' own names among them.
        compute_capability: as CUDA counts it.
        driver_floor: the first driver that knows every card of the model; empty: every driver that is still about.
        cuda_min: the first CUDA toolkit that makes code for it.
        p2p: whether cards reach each other's memory: yes, no, or as the topology allows.
        ecc: yes, no, or toggle (off as sold).
        cards: the PCI ids it is sold under.
        host_architecture: that of the machines it is built into, where that is not x86_64.
    """

    name: str
    full_name: str
    memory_gb: int
    memory_mib: int | None = None
    aliases: tuple[str, ...] = ()
    architecture: str = ""
    compute_capability: str = ""
    cuda_min: str = ""
    driver_floor: str = ""
    nvlink: str = "no"
    p2p: str = "no"
    ecc: str = "no"
    mig: bool = False
    peak: Peak = Peak()
    cards: tuple[GpuCard, ...] = ()
    host_architecture: str = "x86_64"
    driver_floor_why: str = ""
    flavours_only: tuple[str, ...] = ()
    captured: tuple[str, ...] = ()
    community: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()

    @property
    def generation(self) -> Architecture:
        """What it shares with the others of its architecture."""
        return ARCHITECTURES[self.architecture]

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability as numbers."""
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)

    @property
    def flavours(self) -> tuple[str, ...]:
        """The kernel modules that drive it."""
        return self.flavours_only or self.generation.flavours

    @property
    def all_unverified(self) -> tuple[str, ...]:
        """The fields that were read nowhere, those of its generation and of its cards included."""
        of_cards = [field for card in self.cards for field in card.unverified]
        return tuple(sorted({*self.unverified, *self.generation.unverified, *of_cards}))

    @property
    def all_community(self) -> tuple[str, ...]:
        """The fields that rest on a single source that is not the vendor."""
        return tuple(sorted({*self.community, *(field for card in self.cards for field in card.community)}))

    def known(self, field: str) -> str:
        """How a figure is known: vendor, captured, community or unverified."""
        if field in self.all_unverified:
            return UNVERIFIED
        if field in self.all_community:
            return COMMUNITY
        return CAPTURED if field in self.captured else VENDOR


def _w(minimum: int | None = None, default: int | None = None, maximum: int | None = None) -> Power:
    return Power(minimum, default, maximum)


_POWER = ("power",)
_SPARSE = ("compute_capability", "cuda_min", "driver_floor", "power", "p2p", "ecc", "mig")
_BOARD = "The highest is 575 or 600 W, as the board and its VBIOS have it."

# One entry a model, as a table: a line for what it is, one for each card, one for what the figures are worth.
# fmt: off
MODELS: tuple[GpuModel, ...] = (
    GpuModel(
        "p4", "NVIDIA Tesla P4", 8, None, ("nvidia-tesla-p4",), "Pascal", "6.1", "8.0", p2p="topology", ecc="yes",
        peak=Peak(None, None, 0.19),
        cards=(GpuCard("1bb3", "Tesla P4", "PCIe", None, _w(None, 50, None), unverified=_POWER, note="Sold with 50 or 75 W."),),
        unverified=("cuda_min", "ecc", "peak")),
    GpuModel(
        "p100", "NVIDIA Tesla P100", 16, None, ("nvidia-tesla-p100",), "Pascal", "6.0", "8.0", nvlink="SXM", p2p="yes", ecc="yes",
        peak=Peak(21.2, None, 0.73),
        cards=(
            GpuCard("15f7", "Tesla P100 PCIe 12 GB", "PCIe", None, _w(None, 250, None), unverified=_POWER),
            GpuCard("15f8", "Tesla P100 PCIe 16 GB", "PCIe", None, _w(None, 250, None), unverified=_POWER),
            GpuCard("15f9", "Tesla P100 SXM2 16 GB", "SXM", None, _w(None, 300, None), unverified=_POWER)),
        unverified=("cuda_min", "peak")),
    GpuModel(
        "v100", "NVIDIA Tesla V100", 16, None, ("nvidia-tesla-v100",), "Volta", "7.0", "9.0", nvlink="SXM", p2p="yes", ecc="yes",
        peak=Peak(125.0, None, 0.90),
        cards=(
            GpuCard("1db1", "Tesla V100 SXM2 16 GB", "SXM", None, _w(None, 300, None), unverified=_POWER),
            GpuCard("1db4", "Tesla V100 PCIe 16 GB", "PCIe", None, _w(None, 250, None), unverified=_POWER),
            GpuCard("1db5", "Tesla V100 SXM2 32 GB", "SXM", None, _w(None, 300, None), unverified=_POWER),
            GpuCard("1db6", "Tesla V100 PCIe 32 GB", "PCIe", None, _w(None, 250, None), unverified=_POWER),
            GpuCard("1df6", "Tesla V100S PCIe 32 GB", "PCIe", None, _w(None, 250, None), unverified=_POWER)),
        unverified=("cuda_min", "peak")),
    GpuModel(
        "t4", "NVIDIA T4", 16, 15360, ("nvidia-tesla-t4",), "Turing", "7.5", "10.0", p2p="topology", ecc="yes",
        peak=Peak(65.0, None, 0.32),
        cards=(GpuCard("1eb8", "Tesla T4", "PCIe", 15360, _w(60, 70, 70)),),
        captured=("memory", "power"), unverified=("cuda_min", "peak")),
    GpuModel(
        "a10", "NVIDIA A10", 24, None, (), "Ampere", "8.6", "11.1", p2p="topology", ecc="yes",
        cards=(GpuCard("2236", "NVIDIA A10", "PCIe", None, _w()),), unverified=_SPARSE),
    GpuModel(
        "a10g", "NVIDIA A10G", 24, None, (), "Ampere", "8.6", "11.1", p2p="topology", ecc="yes",
        cards=(GpuCard("2237", "NVIDIA A10G", "PCIe", None, _w()),), unverified=_SPARSE),
    GpuModel(
        "a30", "NVIDIA A30", 24, None, (), "Ampere", "8.0", "11.0", nvlink="pair", p2p="yes", ecc="yes", mig=True,
        cards=(GpuCard("20b7", "NVIDIA A30", "PCIe", None, _w()),), unverified=(*_SPARSE, "nvlink")),
    GpuModel(
        "a40", "NVIDIA A40", 48, None, (), "Ampere", "8.6", "11.1", nvlink="pair", p2p="topology", ecc="yes",
        cards=(GpuCard("2235", "NVIDIA A40", "PCIe", None, _w()),), unverified=(*_SPARSE, "nvlink")),
    GpuModel(
        "a100", "NVIDIA A100 40GB", 40, 40960, ("nvidia-tesla-a100", "a100-40", "a100-40gb"), "Ampere", "8.0", "11.0", "450",
        nvlink="SXM and bridge", p2p="yes", ecc="yes", mig=True, peak=Peak(312.0, 156.0, 1.56),
        cards=(
            GpuCard("20b0", "NVIDIA A100-SXM4-40GB", "SXM", 40960, _w(100, 400, 400)),
            GpuCard("20f1", "NVIDIA A100-PCIE-40GB", "PCIe", None, _w(None, 250, None), note="PCIe boards are sold with 250 or 300 W.")),
        captured=("memory", "power"), unverified=("driver_floor",)),
    GpuModel(
        "a100-80gb", "NVIDIA A100 80GB", 80, 81920, ("nvidia-a100-80gb", "a100-80"), "Ampere", "8.0", "11.0", "450",
        nvlink="SXM and bridge", p2p="yes", ecc="yes", mig=True, peak=Peak(312.0, 156.0, 2.0),
        cards=(
            GpuCard("20b2", "NVIDIA A100-SXM4-80GB", "SXM", 81920, _w(100, 400, 400)),
            GpuCard("20b5", "NVIDIA A100 80GB PCIe", "PCIe", None, _w(None, 300, None), note="PCIe boards are sold with 250 or 300 W.")),
        captured=("memory", "power"), unverified=("driver_floor",)),
    GpuModel(
        "rtx3090", "NVIDIA GeForce RTX 3090", 24, 24576, ("3090",), "Ampere", "8.6", "11.1", "455",
        nvlink="pair", peak=Peak(71.0, 35.6, 0.936),
        cards=(GpuCard("2204", "NVIDIA GeForce RTX 3090", "PCIe", 24576, _w(100, 350, 375)),),
        captured=("memory", "power"), unverified=("cuda_min", "driver_floor", "peak")),
    GpuModel(
        "rtx3090ti", "NVIDIA GeForce RTX 3090 Ti", 24, None, ("3090ti",), "Ampere", "8.6", "11.1", "455", nvlink="pair",
        cards=(GpuCard("2203", "NVIDIA GeForce RTX 3090 Ti", "PCIe", None, _w()),),
        unverified=("cuda_min", "driver_floor", "nvlink")),
    GpuModel(
        "l4", "NVIDIA L4", 24, None, ("nvidia-l4",), "Ada", "8.9", "11.8", "525.47.22", p2p="topology", ecc="yes",
        peak=Peak(121.0, 60.0, 0.30),
        cards=(GpuCard("27b8", "NVIDIA L4", "PCIe", None, _w(None, 72, 72), unverified=_POWER),),
        unverified=("cuda_min", "peak")),
    GpuModel(
        "l40", "NVIDIA L40", 48, None, (), "Ada", "8.9", "11.8", "525", p2p="topology", ecc="yes",
        cards=(GpuCard("26b5", "NVIDIA L40", "PCIe", None, _w()),), unverified=("cuda_min", "driver_floor", "p2p", "ecc")),
    GpuModel(
        "l40s", "NVIDIA L40S", 48, 46068, (), "Ada", "8.9", "11.8", "535.43.09", p2p="topology", ecc="yes",
        peak=Peak(362.0, 183.0, 0.86),
        cards=(GpuCard("26b9", "NVIDIA L40S", "PCIe", 46068, _w(100, 350, 350)),), captured=("memory", "power")),
    GpuModel(
        "rtx4000-sff-ada", "NVIDIA RTX 4000 SFF Ada Generation", 20, None, (), "Ada", "8.9", "11.8", "525",
        p2p="topology", ecc="yes",
        cards=(GpuCard("27b0", "NVIDIA RTX 4000 SFF Ada Generation", "PCIe", None, _w(None, 70, None)),),
        unverified=("driver_floor",)),
    GpuModel(
        "rtx6000-ada", "NVIDIA RTX 6000 Ada Generation", 48, None, (), "Ada", "8.9", "11.8", "525", p2p="topology", ecc="toggle",
        cards=(GpuCard("26b1", "NVIDIA RTX 6000 Ada Generation", "PCIe", None, _w()),),
        unverified=("driver_floor", "p2p", "ecc")),
    GpuModel(
        "rtx4090", "NVIDIA GeForce RTX 4090", 24, 24564, ("4090",), "Ada", "8.9", "11.8", "525.47.06", ecc="toggle",
        peak=Peak(165.0, 82.6, 1.008),
        cards=(GpuCard("2684", "NVIDIA GeForce RTX 4090", "PCIe", 24564, _w(None, 450, None), unverified=_POWER),),
        captured=("memory",), unverified=("cuda_min", "peak")),
    GpuModel(
        "rtx4090d", "NVIDIA GeForce RTX 4090 D", 24, None, ("4090d",), "Ada", "8.9", "11.8", "525", ecc="toggle",
        cards=(GpuCard("2685", "NVIDIA GeForce RTX 4090 D", "PCIe", None, _w()),),
        unverified=("cuda_min", "driver_floor", "ecc")),
    GpuModel(
        "h100", "NVIDIA H100 80GB", 80, 81559, ("nvidia-h100-80gb", "h100-80gb", "nvidia-h100-mega-80gb"), "Hopper", "9.0",
        "11.8", "525", nvlink="yes", p2p="yes", ecc="yes", mig=True, peak=Peak(989.0, 494.5, 3.35),
        cards=(
            GpuCard("2330", "NVIDIA H100 80GB HBM3", "SXM", 81559, _w(200, 700, 700)),
            GpuCard("2331", "NVIDIA H100 PCIe", "PCIe", None, _w(None, 350, None), "520.56.06"),
            GpuCard("2321", "NVIDIA H100 NVL", "PCIe", None, _w(None, 400, None), note="94 GB.")),
        captured=("memory", "power")),
    GpuModel(
        "gh200", "NVIDIA GH200", 96, None, (), "Hopper", "9.0", "11.8", "525", nvlink="yes", p2p="yes", ecc="yes", mig=True,
        cards=(GpuCard("2342", "NVIDIA GH200", "module", None, _w()),), host_architecture="arm64", flavours_only=(OPEN,),
        unverified=("driver_floor", "cuda_min", "memory")),
    GpuModel(
        "h200", "NVIDIA H200 141GB", 141, None, ("nvidia-h200-141gb", "h200-141gb"), "Hopper", "9.0", "11.8", "565.57.01",
        nvlink="yes", p2p="yes", ecc="yes", mig=True, peak=Peak(989.0, 494.5, 4.8),
        cards=(
            GpuCard("2335", "NVIDIA H200", "SXM", None, _w(None, 700, 700), "550.40.65"),
            GpuCard("233b", "NVIDIA H200 NVL", "PCIe", None, _w(None, 600, None), "565.57.01")),
        unverified=("cuda_min",)),
    GpuModel(
        "b200", "NVIDIA B200", 180, 183359, ("nvidia-b200",), "Blackwell", "10.0", "12.8", "570.133.20",
        nvlink="yes", p2p="yes", ecc="yes", mig=True, peak=Peak(2250.0, 1125.0, 8.0),
        cards=(GpuCard("2901", "NVIDIA B200", "SXM", 183359, _w(200, 1000, 1000)),),
        driver_floor_why="570.86.15 lists the chip; HGX boards need 570.133.20", captured=("memory", "power")),
    GpuModel(
        "gb200", "NVIDIA GB200", 186, None, (), "Blackwell", "10.0", "12.8", "570.133.20", nvlink="yes", p2p="yes", ecc="yes",
        mig=True, cards=(GpuCard("2941", "NVIDIA GB200", "module", None, _w()),), host_architecture="arm64",
        unverified=("driver_floor", "memory")),
    GpuModel(
        "b300", "NVIDIA B300", 270, None, (), "Blackwell", "10.3", "12.9", "580.82.07", nvlink="yes", p2p="yes", ecc="yes", mig=True,
        cards=(GpuCard("3182", "NVIDIA B300", "SXM", None, _w()),),
        unverified=("compute_capability", "cuda_min", "memory")),
    GpuModel(
        "gb300", "NVIDIA GB300", 270, None, (), "Blackwell", "10.3", "12.9", "580.82.07", nvlink="yes", p2p="yes", ecc="yes",
        mig=True, cards=(GpuCard("31c2", "NVIDIA GB300", "module", None, _w()),), host_architecture="arm64",
        unverified=("compute_capability", "cuda_min", "driver_floor", "memory")),
    GpuModel(
        "rtx5080", "NVIDIA GeForce RTX 5080", 16, None, ("5080",), "Blackwell", "12.0", "12.8", "570.86.16",
        cards=(GpuCard("2c02", "NVIDIA GeForce RTX 5080", "PCIe", None, _w()),),
        unverified=("driver_floor", "p2p", "ecc", "mig")),
    GpuModel(
        "rtx5090", "NVIDIA GeForce RTX 5090", 32, 32607, ("5090",), "Blackwell", "12.0", "12.8", "570.86.16",
        peak=Peak(209.5, 104.8, 1.792),
        cards=(GpuCard("2b85", "NVIDIA GeForce RTX 5090", "PCIe", 32607, _w(400, 575, 600), community=_POWER, note=_BOARD),),
        captured=("memory",), unverified=("peak",)),
    GpuModel(
        "rtx5090d", "NVIDIA GeForce RTX 5090 D", 32, None, ("5090d",), "Blackwell", "12.0", "12.8", "570.86.16",
        cards=(GpuCard("2b87", "NVIDIA GeForce RTX 5090 D", "PCIe", None, _w()),),
        unverified=("driver_floor", "p2p", "ecc", "mig")),
    GpuModel(
        "rtx5090d-v2", "NVIDIA GeForce RTX 5090 D v2", 24, None, ("5090dv2",), "Blackwell", "12.0", "12.8", "580",
        cards=(GpuCard("2b8c", "NVIDIA GeForce RTX 5090 D v2", "PCIe", None, _w()),),
        unverified=("driver_floor", "memory", "p2p", "ecc", "mig")),
    GpuModel(
        "rtx6000d", "NVIDIA RTX 6000D", 84, None, (), "Blackwell", "12.0", "12.8", "580",
        p2p="topology", ecc="yes", cards=(GpuCard("2bb9", "NVIDIA RTX 6000D", "PCIe", None, _w(None, None, 600)),),
        captured=("power",), unverified=("driver_floor", "memory", "p2p", "ecc", "mig")),
    GpuModel(
        "rtx-pro-6000", "NVIDIA RTX PRO 6000 Blackwell", 96, 97887, ("nvidia-rtx-pro-6000", "rtx6000-pro"),
        "Blackwell", "12.0", "12.8", "575.57.08", p2p="topology", ecc="yes", mig=True, peak=Peak(504.0, 252.0, 1.79),
        cards=(
            GpuCard("2bb5", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "PCIe", 97887, _w(None, 600, 600), "575.57.08"),
            GpuCard("2bb1", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "PCIe", None, _w(None, 600, 600), "570.123.07",
                    unverified=("mig",)),
            GpuCard("2bb4", "NVIDIA RTX PRO 6000 Blackwell Max-Q", "PCIe", None, _w(None, 300, 300), "570.123.07",
                    unverified=("mig", "power"))),
        captured=("memory",), community=("p2p",), unverified=("peak",)),
)
# fmt: on


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_NAME: dict[str, GpuModel] = {
    _plain(name): model for model in MODELS for name in (model.name, model.full_name, *model.aliases)
}
_BY_PCI_ID: dict[str, tuple[GpuCard, GpuModel]] = {
    card.pci_id: (card, model) for model in MODELS for card in model.cards
}


def find(name: str) -> GpuModel | None:
    """The model of any name it goes by; case, spaces and dashes do not matter (``RTX 5090``)."""
    return _BY_NAME.get(_plain(name))


def names() -> tuple[str, ...]:
    """Our short names, in the order of the catalog."""
    return tuple(model.name for model in MODELS)


def plain_pci_id(text: str) -> str:
    """The device id in any way it is written: ``2b85``, ``0x2B85``, ``10de:2b85``."""
    return text.strip().lower().removeprefix("10de:").removeprefix("0x")


def by_pci_id(pci_id: str) -> GpuCard | None:
    """The card of a PCI device id."""
    found = _BY_PCI_ID.get(plain_pci_id(pci_id))
    return found[0] if found else None


def model_of(card: GpuCard) -> GpuModel:
    """The model that a card of the catalog belongs to."""
    return _BY_PCI_ID[card.pci_id][1]
