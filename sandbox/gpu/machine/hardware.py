# SPDX-License-Identifier: GPL-3.0-or-later
"""What a simulated machine is made of: its cards, where they are plugged in, and what is broken. SIMULATED."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

MARK = "SIMULATED"
PER_DEVICE = (
    "lost",
    "lost-values",
    "unseen",
    "unplugged",
    "x8",
    "ecc",
    "remap-failure",
    "throttled",
    "power-brake",
    "persistence-off",
    "memory",
    "slow",
    "weak-link",
    "wrong",
    "hot",
    "xid",
)
"""Faults of one card."""
OF_THE_MACHINE = ("mismatch", "nouveau", "slow-all-reduce", "no-kernels")
"""Faults of the machine: another module is loaded than the library is made for; the free driver takes the cards; the GPUs exchange
data slowly; the frameworks' kernels are for other chips."""
KINDS = PER_DEVICE + OF_THE_MACHINE
AT_WORK = ("slow", "weak-link", "wrong", "hot", "slow-all-reduce", "no-kernels")
"""Faults that nothing shows of as long as nothing computes."""
LOGGED = ("xid",)
"""Faults that nothing but the kernel's log tells of."""


@dataclass(frozen=True, slots=True)
class Card:
    """One kind of card.

    Attributes:
        pci_id: the device part of its PCI id, lower case.
        subsystem_id: ``vendor:device``.
        flavours: kernel modules that drive it: ``open``, ``closed``.
        driver_floor: the first driver that knows it.
        driver_last: the last branch that knows it; 0: none is the last yet.
        power: the lowest, the default and the highest limit in W.
        temperatures: highest in operation, slow down, shut down, in °C.
        relative: the driver tells them as distances to the card's own limit (T.Limit), not in °C.
        memory_limit_c: of the sensor of its memory; 0: it has none.
        ecc: ``none``: not there; ``off``: may be switched on; ``on``.
        sram_split: uncorrectable errors of SRAM are told as parity and SEC-DED.
        pages: bad memory is retired by page (up to Turing).
        rows: banks whose rows can be remapped (Ampere and later); 0: none.
        peers: what ``topo -p2p r`` says of two of them.
        audio: the PCI id of its sound function; "": it has none.
        cap_at_idle: says that a power cap holds it back even when idle, as real ones of this kind do.
        rates: what matrix multiplication reaches at the highest clock, in TFLOPS, by precision; without one, the chip has not got it.
        memory_gb_s: what a copy within its memory reaches.
    """

    pci_id: str
    subsystem_id: str
    name: str
    brand: str
    architecture: str
    compute_capability: str
    memory_mib: int
    power: tuple[float, float, float]
    temperatures: tuple[int, int, int]
    max_clocks: tuple[int, int, int]
    idle_clocks: tuple[int, int, int]
    idle_w: float
    idle_c: int
    vbios: str
    gpu_part: str
    flavours: tuple[str, ...] = ("open", "closed")
    driver_floor: str = "450"
    driver_last: int = 0
    relative: bool = False
    memory_limit_c: int = 0
    reserved_mib: int = 480
    bar1_mib: int = 32768
    link_gen: int = 4
    idle_link_gen: int = 1
    link_width: int = 16
    idle_state: str = "P8"
    ecc: str = "on"
    sram_split: bool = True
    pages: bool = False
    rows: int = 0
    mig: bool = False
    fan: bool = False
    average_power: bool = True
    cap_at_idle: bool = False
    passthrough: bool = False
    peers: str = "OK"
    audio: str = ""
    pci_class: str = "030200"
    multiprocessors: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    memory_gb_s: float = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """A card in its place."""

    address: str
    card: str
    numa_node: int = 0
    link_width: int = 0
    """Lanes the place gives; 0: as many as the card wants."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something broken. ``device`` counts the slots from 0; -1: not one of them. ``until`` may be ``boot``."""

    kind: str
    device: int = -1
    until: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """One simulated machine."""

    name: str
    slots: tuple[Slot, ...] = ()
    cards: dict[str, Card] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    kernel: str = ""
    distribution: str = ""
    secure_boot: bool | None = None
    mok_enrolled: bool = False
    cpus: int = 4
    seed: int = 1
    simulated: str = MARK

    def card(self, slot: Slot) -> Card:
        return self.cards[slot.card]

    def broken(self, kind: str, device: int = -1) -> bool:
        """Whether this is broken, at this device (-1: anywhere)."""
        return any(fault.kind == kind and device in (-1, fault.device) for fault in self.faults)

    def with_faults(self, faults: tuple[Fault, ...]) -> Profile:
        return replace(self, faults=faults)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Profile:
        plain = dict(data)
        plain["slots"] = tuple(Slot(**slot) for slot in data.get("slots", ()))
        plain["cards"] = {name: _card(card) for name, card in data.get("cards", {}).items()}
        plain["faults"] = tuple(Fault(**fault) for fault in data.get("faults", ()))
        return cls(**plain)


def _card(data: dict[str, Any]) -> Card:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
    }
    return Card(**values)
