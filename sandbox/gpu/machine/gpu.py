# SPDX-License-Identifier: GPL-3.0-or-later
"""One GPU as its driver sees it: what it is set to, and what its sensors read. SIMULATED.

The readings move a little with time and much with work, and are the same for the same seed, time and work.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from typing import Any

from . import clients, driver, tree
from .hardware import Card, Profile
from .places import Machine

IDLE, CLOCKS_SET, POWER_CAP, HW_SLOWDOWN = (
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
)
HW_THERMAL, POWER_BRAKE, SW_THERMAL = "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown"
REASONS = (
    (IDLE, 0x1),
    (CLOCKS_SET, 0x2),
    (POWER_CAP, 0x4),
    (HW_SLOWDOWN, 0x8),
    (HW_THERMAL, 0x40),
    (POWER_BRAKE, 0x80),
    ("sync_boost", 0x10),
    (SW_THERMAL, 0x20),
    ("display_clocks_setting", 0x100),
)
"""Why clocks are lower than they could be, in the order in which they are told, and their bits."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the sensors say at one moment."""

    power_w: float
    average_w: float
    gpu_c: int
    memory_c: int
    sm_mhz: int
    memory_mhz: int
    video_mhz: int
    utilisation: int
    memory_utilisation: int
    used_mib: int
    state: str
    link_gen: int
    fan: int
    reasons: frozenset[str]

    @property
    def bits(self) -> int:
        return sum(bit for name, bit in REASONS if name in self.reasons)


class Gpu:
    """One GPU of a machine whose driver is loaded.

    Attributes:
        minor: its number among the driver's devices, which is its index too.
        number: its place in the machine, broken ones counted.
        settings: what it is set to until the driver is unloaded.
    """

    def __init__(
        self, machine: Machine, profile: Profile, minor: int, address: str, settings: dict[str, Any]
    ) -> None:
        self.machine = machine
        self.profile = profile
        self.minor = minor
        self.index = minor
        self.address = address
        self.settings = settings
        self.number: int = settings["number"]
        self.card: Card = profile.card(profile.slots[self.number])
        self.uuid = driver.gpu_uuid(profile, self.number)
        self.serial = f"SIMULATED-{profile.seed:04d}-{self.number:02d}"

    def broken(self, kind: str) -> bool:
        return self.profile.broken(kind, self.number)

    @property
    def bus_id(self) -> str:
        """As the driver writes it: a domain of eight digits, upper case."""
        return f"0000{self.address}".upper()

    @property
    def lost(self) -> bool:
        return self.broken("lost")

    @property
    def mute(self) -> bool:
        """Whether it is listed, and every question is answered with its being lost."""
        return self.broken("lost-values")

    @property
    def holder(self) -> int:
        """The process that holds it open all the time; 0: none does."""
        return driver.daemon_pid(self.machine)

    @property
    def persistence(self) -> bool:
        """Whether the driver keeps it when nobody uses it: that is what the daemon is for."""
        if self.broken("persistence-off"):
            return False
        said = self.settings.get("persistence")
        return bool(said["on"]) if said and said["holder"] == self.holder else bool(self.holder)

    def kept(self, name: str) -> Any:
        """What was set, unless the driver has let go of the card since: nobody held it open, for a moment or still."""
        held = (self.persistence or self.load) and self.settings.get("holder", 0) in (0, self.holder)
        return self.settings.get("set", {}).get(name) if held else None

    @property
    def power_limit(self) -> float:
        return float(self.kept("power_limit") or self.card.power[1])

    @property
    def compute_mode(self) -> str:
        return str(self.kept("compute_mode") or "Default")

    @property
    def ecc(self) -> bool | None:
        value = self.settings.get("ecc")
        return value if value is None else bool(value)

    @property
    def ecc_pending(self) -> bool | None:
        return self._pending("ecc", self.ecc)

    @property
    def mig(self) -> bool | None:
        value = self.settings.get("mig")
        return value if value is None else bool(value)

    @property
    def mig_pending(self) -> bool | None:
        return self._pending("mig", self.mig)

    def _pending(self, name: str, now: bool | None) -> bool | None:
        return now if now is None else bool(self.machine.inforom().get(self.address, {}).get(name, now))

    @property
    def memory_mib(self) -> int:
        """What the driver reports. ECC takes its share where the memory has no room of its own for it."""
        return self.card.memory_mib - (2048 if self.broken("memory") else 0)

    @property
    def link_width(self) -> int:
        return tree.link_width(self.profile, self.number)

    @property
    def link_gen(self) -> int:
        """What the link comes to at work."""
        return self.card.link_gen - (1 if self.broken("weak-link") else 0)

    @property
    def load(self) -> int:
        """How much it has to do, in percent."""
        return min(100, int(self.settings.get("load", 0)) + clients.load(self.machine, self.address))

    @property
    def locked(self) -> tuple[int, int] | None:
        """Clocks it is held between."""
        found = self.kept("gpu_clocks")
        return (int(found[0]), int(found[1])) if found else None

    @property
    def application_clocks(self) -> tuple[int, int]:
        """Memory and graphics clocks asked for."""
        found = self.kept("application_clocks")
        return (int(found[0]), int(found[1])) if found else (self.card.max_clocks[1], self.card.max_clocks[0])

    def read(self) -> Reading:
        card, work = self.card, self.load / 100
        now = self.machine.now()
        idle_w, wanted = (
            card.idle_w,
            card.idle_w + (card.power[2] - card.idle_w) * work * (1 + 0.01 * self._wave(now, 7, 1)),
        )
        power = min(wanted, self.power_limit * (1 - 0.004 * abs(self._wave(now, 3, 2))))
        power += idle_w * 0.03 * self._wave(now, 11, 3) if not work else 0
        share = (power - idle_w) / (card.power[1] - idle_w)
        warm = (
            card.idle_c + (card.temperatures[0] - 12 - card.idle_c) * max(0.0, share) + self._wave(now, 60, 4)
        )
        if self.broken("hot") and work:
            warm = card.temperatures[1] - 1
        reasons = set()
        if not work:
            reasons.add(IDLE)
        if wanted > self.power_limit or (card.cap_at_idle and not work):
            reasons.add(POWER_CAP)
        # Power goes down much faster than clocks do.
        clock = (
            card.max_clocks[0] * (min(1.0, self.power_limit / wanted) ** 0.4) if work else card.idle_clocks[0]
        )
        if work and self.kept("application_clocks"):
            clock = min(clock, self.application_clocks[1])
        if self.locked:
            clock = min(max(clock, self.locked[0]), self.locked[1])
            if work:
                reasons.add(CLOCKS_SET)
        if self.broken("throttled"):
            reasons -= {IDLE}
            reasons |= {HW_SLOWDOWN, HW_THERMAL, SW_THERMAL}
            warm, clock = card.temperatures[1] + 1 + abs(self._wave(now, 20, 5)), clock * 0.5
        if self.broken("power-brake"):
            reasons |= {HW_SLOWDOWN, POWER_BRAKE}
            clock *= 0.5
        busy = 0 if not work else min(100, max(1, round(self.load + 2 * self._wave(now, 5, 6))))
        return Reading(
            power_w=round(power, 2),
            average_w=round(power * (1 + 0.004 * self._wave(now, 13, 7)), 2),
            gpu_c=round(warm),
            memory_c=round(warm) + 8,
            sm_mhz=round(clock / 15) * 15,
            memory_mhz=card.max_clocks[1] if work else card.idle_clocks[1],
            video_mhz=card.max_clocks[2] if work else card.idle_clocks[2],
            utilisation=busy,
            memory_utilisation=busy // 2,
            used_mib=round((self.memory_mib - card.reserved_mib) * 0.8 * work) if work else 2,
            state="P0" if work and card.idle_state == "P0" else ("P1" if work else card.idle_state),
            link_gen=self.link_gen if work else card.idle_link_gen,
            fan=round(30 + 60 * max(0.0, share)) if card.fan else 0,
            reasons=frozenset(reasons),
        )

    def _wave(self, now: float, period: float, salt: int) -> float:
        """Between -1 and 1, slow enough to be a temperature, and this card's own."""
        digest = hashlib.sha256(f"{self.profile.seed} {self.address} {salt}".encode()).digest()
        phase = digest[0] / 256
        return 0.7 * math.sin(2 * math.pi * (now / (period * 9) + phase)) + 0.3 * math.sin(
            2 * math.pi * (now / period + phase)
        )


def visible(machine: Machine) -> list[Gpu]:
    """The GPUs whose device nodes are here and may be opened: in a container, those it was given."""
    state, profile = machine.state(), machine.running()
    addresses = sorted(state.get("gpus", {}))
    gpus = [
        Gpu(machine, profile, minor, address, state["gpus"][address])
        for minor, address in enumerate(addresses)
        if not driver.hidden(profile, state["gpus"][address]["number"])
        and may_open(machine, f"nvidia{minor}")
    ]
    for index, gpu in enumerate(gpus):
        gpu.index = index
    return gpus


def may_open(machine: Machine, node: str) -> bool:
    try:
        os.close(os.open(machine.devices / node, os.O_RDWR))
    except OSError:
        return False
    return True
