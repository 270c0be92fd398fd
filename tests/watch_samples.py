# SPDX-License-Identifier: GPL-3.0-or-later
"""Days of a mesh that never was, as its samplers would have written them: the same for the same seed.

The machines stand at three places. Round trips have a floor by distance, a slow daily swell, jitter, and rare spikes; a
pair may go through a relay for some hours. Single samples are lost here and there; pairs, uplinks and whole machines
drop out, and a machine that is down takes no samples itself.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

START = 1794873600.0  # 2026-11-17T00:00:00Z
PLACES = ("home", "fsn1", "us-central1")
MILLISECONDS = {("fsn1", "fsn1"): 0.6, ("fsn1", "home"): 14.0, ("fsn1", "us-central1"): 108.0,
                ("home", "home"): 0.9, ("home", "us-central1"): 121.0, ("us-central1", "us-central1"): 0.4}  # fmt: skip
NAMES = (
    "agate", "beryl", "cinnabar", "demo-box", "electrum", "fluorite", "galena", "hematite", "ilmenite", "jasper",
    "kyanite", "lazurite", "malachite", "nephrite", "onyx", "pyrite", "quartz", "rutile", "scheelite", "topaz",
)  # fmt: skip


@dataclass(frozen=True)
class Weather:
    """What goes wrong: stretches of time, by whom they meet."""

    down: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    cut_off: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    apart: dict[frozenset[str], list[tuple[float, float]]] = field(default_factory=dict)
    relayed: dict[frozenset[str], list[tuple[float, float]]] = field(default_factory=dict)


def _in(stretches: Sequence[tuple[float, float]], time: float) -> bool:
    return any(start <= time < end for start, end in stretches)


def weather(names: Sequence[str], seconds: float, dice: random.Random) -> Weather:
    """A few bad hours."""

    def stretch(shortest: float, longest: float) -> tuple[float, float]:
        begin = dice.uniform(0.02, 0.93) * seconds
        return begin, begin + math.exp(dice.uniform(math.log(shortest), math.log(longest)))

    made = Weather()
    for _ in range(max(1, len(names) // 5)):
        made.down.setdefault(dice.choice(names), []).append(stretch(900, 4 * 3600))
        made.cut_off.setdefault(dice.choice(names), []).append(stretch(120, 3600))
    for _ in range(max(1, len(names) // 2)):
        pair = frozenset(dice.sample(list(names), 2))
        made.apart.setdefault(pair, []).append(stretch(100, 2400))
        made.relayed.setdefault(frozenset(dice.sample(list(names), 2)), []).append(stretch(3600, 20 * 3600))
    return made


def logs(
    names: Sequence[str], days: float, *, interval: float = 30.0, seed: int = 1, simulated: bool = False
) -> dict[str, list[str]]:
    """The lines of each machine's file."""
    dice = random.Random(seed)
    place = {name: PLACES[number % len(PLACES)] for number, name in enumerate(names)}
    floor = {
        frozenset(pair): MILLISECONDS[place[pair[0]], place[pair[1]]] * dice.uniform(0.9, 1.25)
        for pair in ((one, two) if (place[one], place[two]) in MILLISECONDS else (two, one) for one in names for two in names if one < two)
    }  # fmt: skip
    bad = weather(names, days * 86400, dice)
    written: dict[str, list[str]] = {}
    for name in names:
        peers = [one for one in names if one != name]
        offset = dice.uniform(0, interval)
        uptime = dice.uniform(1e4, 1e6)
        boot = f"boot-{name}-1"
        begin = {
            "event": "begin", "watch": "week", "host": name, "interval": interval, "simulated": simulated,
            "until": START + days * 86400, "peers": dict.fromkeys(peers, "fd00::1"),
        }  # fmt: skip
        lines = [json.dumps({**begin, "t": START + offset, "m": uptime, "boot": boot})]
        was_down = False
        for number in range(int(days * 86400 / interval)):
            since = number * interval + offset
            if _in(bad.down.get(name, ()), since):
                was_down = True
                continue
            if was_down:
                boot, uptime, was_down = f"boot-{name}-2", 40.0 - since, False
                lines.append(json.dumps({**begin, "t": START + since, "m": uptime + since, "boot": boot}))
            rtt = {}
            for peer in peers:
                pair = frozenset((name, peer))
                out = (
                    _in(bad.down.get(peer, ()), since)
                    or _in(bad.cut_off.get(name, ()), since)
                    or _in(bad.cut_off.get(peer, ()), since)
                    or _in(bad.apart.get(pair, ()), since)
                )
                if out or dice.random() < 0.0008:
                    rtt[peer] = None
                    continue
                swell = 1 + 0.06 * max(0.0, math.sin((since / 86400 - 0.3) * 2 * math.pi))
                relay = 38.0 if _in(bad.relayed.get(pair, ()), since) else 0.0
                jitter = dice.lognormvariate(-1.6, 0.9) + (
                    dice.uniform(20, 150) if dice.random() < 0.002 else 0
                )
                rtt[peer] = round(floor[pair] * swell + relay + jitter, 3)
            lines.append(
                json.dumps({"t": round(START + since, 3), "m": round(uptime + since, 3), "rtt": rtt})
            )
        lines.append(
            json.dumps(
                {"event": "end", "why": "finished", "t": START + days * 86400, "m": uptime + days * 86400}
            )
        )
        written[name] = lines
    return written
