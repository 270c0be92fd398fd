# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated machines: which cards they have, and what is broken in them. SIMULATED.

Figures of the cards are those of real readings where such are public (RTX 5090, T4, A100, H100); L4 and V100 are
nominal values, not confirmed by a reading. Temperatures and clocks at rest are of that kind, too.
"""

from __future__ import annotations

from dataclasses import replace

from .machine.hardware import Card, Fault, Profile, Slot

CARDS: dict[str, Card] = {
    card.pci_id: card
    for card in (
        Card(
            pci_id="2b85",
            subsystem_id="1043:8a2f",
            name="NVIDIA GeForce RTX 5090",
            brand="GeForce",
            architecture="Blackwell",
            compute_capability="12.0",
            memory_mib=32607,
            reserved_mib=489,
            power=(400, 575, 575),
            temperatures=(90, 92, 95),
            relative=True,
            max_clocks=(3090, 14001, 3090),
            idle_clocks=(180, 405, 600),
            idle_w=24,
            idle_c=25,
            vbios="98.02.2E.00.03",
            gpu_part="2B85-300-A1",
            flavours=("open",),
            driver_floor="570.86.16",
            link_gen=5,
            ecc="none",
            fan=True,
            cap_at_idle=True,
            peers="CNS",
            audio="22e8",
            pci_class="030000",
            multiprocessors=170,
            # bf16: 94 % of 87.0 TFLOPS for each GHz; the others as others have measured them on real ones.
            rates={"bf16": 252.7, "fp16": 252.7, "tf32": 126.0, "fp32": 83.0, "fp8": 774.0},
            memory_gb_s=1640,
        ),
        Card(
            pci_id="1eb8",
            subsystem_id="10de:12a2",
            name="Tesla T4",
            brand="NVIDIA",
            architecture="Turing",
            compute_capability="7.5",
            memory_mib=15360,
            reserved_mib=448,
            bar1_mib=256,
            power=(60, 70, 70),
            temperatures=(85, 93, 96),
            max_clocks=(1590, 5001, 1470),
            idle_clocks=(300, 405, 540),
            idle_w=10,
            idle_c=33,
            vbios="90.04.96.00.02",
            gpu_part="1EB8-895-A1",
            link_gen=3,
            sram_split=False,
            pages=True,
            average_power=False,
            passthrough=True,
            multiprocessors=40,
            rates={"fp16": 60.4, "fp32": 7.6},
            memory_gb_s=285,
        ),
        Card(
            pci_id="27b8",
            subsystem_id="10de:16ca",
            name="NVIDIA L4",
            brand="NVIDIA",
            architecture="Ada Lovelace",
            compute_capability="8.9",
            memory_mib=23034,
            power=(40, 72, 72),
            temperatures=(83, 90, 92),
            relative=True,
            max_clocks=(2040, 6251, 1770),
            idle_clocks=(210, 405, 765),
            idle_w=12,
            idle_c=36,
            vbios="95.04.29.00.06",
            gpu_part="27B8-895-A1",
            driver_floor="525.47.22",
            rows=64,
            passthrough=True,
            peers="CNS",
            multiprocessors=58,
            rates={"bf16": 112.0, "fp16": 112.0, "tf32": 55.5, "fp32": 27.8},
            memory_gb_s=276,
        ),
        Card(
            pci_id="20b0",
            subsystem_id="10de:144e",
            name="NVIDIA A100-SXM4-40GB",
            brand="NVIDIA",
            architecture="Ampere",
            compute_capability="8.0",
            memory_mib=40960,
            bar1_mib=65536,
            power=(100, 400, 400),
            temperatures=(85, 89, 92),
            memory_limit_c=95,
            max_clocks=(1410, 1215, 1290),
            idle_clocks=(210, 1215, 585),
            idle_w=49.7,
            idle_c=33,
            vbios="92.00.45.00.03",
            gpu_part="20B0-884-A1",
            idle_state="P0",
            idle_link_gen=4,
            rows=640,
            mig=True,
            average_power=False,
            passthrough=True,
            peers="NV12",
            multiprocessors=108,
            rates={"bf16": 284.0, "fp16": 284.0, "tf32": 142.0, "fp32": 18.6},
            memory_gb_s=1420,
        ),
        Card(
            pci_id="2330",
            subsystem_id="10de:16c1",
            name="NVIDIA H100 80GB HBM3",
            brand="NVIDIA",
            architecture="Hopper",
            compute_capability="9.0",
            memory_mib=81559,
            bar1_mib=131072,
            power=(200, 700, 700),
            temperatures=(87, 89, 95),
            relative=True,
            memory_limit_c=95,
            max_clocks=(1980, 2619, 1545),
            idle_clocks=(345, 2619, 765),
            idle_w=68.6,
            idle_c=29,
            vbios="96.00.99.00.01",
            gpu_part="2330-885-A1",
            driver_floor="525.60.13",
            idle_state="P0",
            link_gen=5,
            idle_link_gen=5,
            rows=2560,
            mig=True,
            passthrough=True,
            peers="NV12",
            multiprocessors=132,
            rates={"bf16": 893.0, "fp16": 893.0, "tf32": 446.0, "fp32": 60.0, "fp8": 1780.0},
            memory_gb_s=3050,
        ),
        Card(
            pci_id="1db1",
            subsystem_id="10de:1212",
            name="Tesla V100-SXM2-16GB",
            brand="NVIDIA",
            architecture="Volta",
            compute_capability="7.0",
            memory_mib=16384,
            reserved_mib=232,
            bar1_mib=16384,
            power=(150, 300, 300),
            temperatures=(83, 87, 90),
            memory_limit_c=85,
            max_clocks=(1530, 877, 1372),
            idle_clocks=(135, 877, 555),
            idle_w=40,
            idle_c=34,
            vbios="88.00.4F.00.09",
            gpu_part="1DB1-893-A1",
            flavours=("closed",),
            driver_floor="384",
            driver_last=580,
            link_gen=3,
            idle_link_gen=3,
            idle_state="P0",
            sram_split=False,
            pages=True,
            average_power=False,
            multiprocessors=80,
            rates={"fp16": 113.5, "fp32": 14.4},
            memory_gb_s=830,
        ),
    )
}
_BUSES = ("01", "21", "41", "61", "81", "a1", "c1", "e1")


def _machine(name: str, cards: list[str], *faults: Fault, virtual: bool = False, width: int = 0) -> Profile:
    """A machine with these cards. A virtual one has them where a cloud puts them."""
    slots = tuple(
        Slot(
            address=f"0000:00:{30 - number:02x}.0" if virtual else f"0000:{_BUSES[number]}:00.0",
            card=card,
            numa_node=0 if virtual else number * 2 // max(2, len(cards)),
            link_width=width,
        )
        for number, card in enumerate(cards)
    )
    if virtual:
        slots = tuple(sorted(slots, key=lambda slot: slot.address))
    return Profile(name=name, slots=slots, cards={card: CARDS[card] for card in cards}, faults=faults)


_RIG = ["2b85"] * 4
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        _machine("none", []),
        _machine("4x-rtx5090", _RIG),
        _machine("t4", ["1eb8"], virtual=True, width=8),
        _machine("l4", ["27b8"], virtual=True, width=8),
        _machine("a100", ["20b0"], virtual=True),
        _machine("h100", ["2330"], virtual=True),
        _machine("mixed", ["2b85", "1db1"]),
        _machine("4x-rtx5090-lost", _RIG, Fault("lost", 3)),
        _machine("4x-rtx5090-unseen", _RIG, Fault("unseen", 3)),
        _machine("4x-rtx5090-mismatch", _RIG, Fault("mismatch")),
        _machine("4x-rtx5090-x8", _RIG, Fault("x8", 1)),
        _machine("4x-rtx5090-throttled", _RIG, Fault("throttled", 2)),
        _machine("4x-rtx5090-persistence-off", _RIG, Fault("persistence-off", 0)),
        _machine("4x-rtx5090-memory", _RIG, Fault("memory", 1)),
        _machine("4x-rtx5090-slow", _RIG, Fault("slow", 2)),
        _machine("4x-rtx5090-weak-link", _RIG, Fault("weak-link", 1)),
        _machine("4x-rtx5090-wrong", _RIG, Fault("wrong", 3)),
        _machine("4x-rtx5090-hot", _RIG, Fault("hot", 1)),
        _machine("4x-rtx5090-slow-all-reduce", _RIG, Fault("slow-all-reduce")),
        _machine("4x-rtx5090-no-kernels", _RIG, Fault("no-kernels")),
        _machine("a100-ecc", ["20b0"], Fault("ecc", 0), virtual=True),
        _machine("t4-nouveau", ["1eb8"], Fault("nouveau"), virtual=True, width=8),
    )
}


def find(
    name: str, *, distribution: str, kernel: str, secure_boot: bool | None = None, seed: int = 1
) -> Profile:
    """A profile as a machine of its own. Raises: ValueError with what there is."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}: known are {', '.join(PROFILES)}")
    return replace(
        PROFILES[name], distribution=distribution, kernel=kernel, secure_boot=secure_boot, seed=seed
    )


def in_cloud(pci_id: str, count: int, *, distribution: str, kernel: str) -> Profile:
    """A machine of a cloud with that many cards of one kind."""
    made = _machine(f"{count}x-{pci_id}", [pci_id] * count, virtual=True)
    return replace(made, distribution=distribution, kernel=kernel)
