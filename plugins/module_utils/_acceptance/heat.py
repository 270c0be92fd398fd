# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sensors read of the GPUs while a run worked: how hot they were, and what slowed them down.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .._fleet.gpu import health_devices
from . import health_checks as common
from . import kernel_log, telemetry
from .check import Context, Sample
from .verdicts import Figure, Verdict

FILE = "samples.jsonl"
_AIR = "see fans, dust and the air around the card; a lower power limit shows whether that is all"


def read(context: Context) -> list[Sample]:
    """What was kept since the run began; none where nothing was."""
    try:
        with (context.folder / FILE).open(encoding="utf-8", errors="replace") as file:
            return [sample for sample in telemetry.read(file) if sample.at >= context.began]
    except OSError:
        return []


def judge(
    context: Context,
    before: common.Device,
    after: common.Device,
    readings: Sequence[Sample],
    counters: Mapping[str, tuple[str, str]],
) -> Iterator[common.Finding]:
    """What is to be said of one card.

    Args:
        before: what it was when the run began.
        after: what it is now.
        readings: of all cards.
        counters: those of the driver that count how long a card was slowed down, with the reason and by whom.
    """
    own = [sample for sample in readings if sample.gpu == before.get("index")]
    name = common.title(before)
    slowed = [sample for sample in own if health_devices.slowed(sample.reasons)]
    if slowed:
        reasons = list(dict.fromkeys(reason for sample in slowed for reason in sample.reasons))
        yield common.Finding(
            Verdict.FAIL,
            f"{name} was slowed down in {len(slowed)} of {len(own)} readings, first at {kernel_log.clock(slowed[0].at)}: "
            f"{' and '.join(health_devices.slowed(reasons))}",
            health_devices.cooling_step(reasons),
        )
    elif counted := [(counter, spent) for counter in counters if (spent := _grown(before, after, counter))]:
        # Between two readings, or with none.
        told = " and ".join(f"for {spent / 1e6:.1f} s {counters[counter][1]}" for counter, spent in counted)
        yield common.Finding(
            Verdict.FAIL,
            f"{name} was slowed down {told} since the run began",
            health_devices.cooling_step([counters[counter][0] for counter, _spent in counted]),
        )
    elif untold := [sample for sample in own if telemetry.UNTOLD in sample.reasons]:
        yield common.Finding(
            Verdict.UNKNOWN,
            f"{name} did not tell in {len(untold)} of {len(own)} readings whether it was slowed down",
            "see `nvidia-smi -q -d PERFORMANCE`",
        )
    margins = [sample.margin_c for sample in own if sample.margin_c is not None]
    if margins and min(margins) < context.profile.stop_margin_c:
        least = min(margins)
        reached = least <= 0
        said = (
            "reached its own temperature limit"
            if reached
            else f"came within {least:g} degrees of its own temperature limit"
        )
        yield common.Finding(Verdict.FAIL if reached else Verdict.WARN, f"{name} {said}", _AIR)
    if not own:
        yield common.Finding(
            Verdict.UNKNOWN,
            f"no reading of {name} was kept in this run, so that heat at work is not judged",
            "run the suite quick, which works and keeps readings",
        )
    elif not margins:
        yield common.Finding(
            Verdict.UNKNOWN,
            f"{name} does not tell how far it is from its own temperature limit",
            "see `nvidia-smi -q -d TEMPERATURE`",
        )


def _grown(before: common.Device, after: common.Device, counter: str) -> int:
    old, now = (int((device.get("throttle_us") or {}).get(counter) or 0) for device in (before, after))
    return max(0, now - old)


def figures(context: Context, device: common.Device, readings: Sequence[Sample]) -> Iterator[Figure]:
    """The extremes of one card."""
    gpu = common.index_of(device)
    own = [sample for sample in readings if sample.gpu == gpu]
    least = context.profile.stop_margin_c
    if margins := [sample.margin_c for sample in own if sample.margin_c is not None]:
        margin = min(margins)
        verdict = Verdict.FAIL if margin <= 0 else Verdict.WARN if margin < least else Verdict.PASS
        source = "the card's own limit; the profile's margin"
        yield Figure("smallest margin", margin, "°C", gpu, f">= {least:g}", source, verdict, "higher")
    for name, values, unit in (
        ("highest temperature", [sample.temperature_c for sample in own], "°C"),
        ("highest power", [sample.power_w for sample in own], "W"),
    ):
        if there := [value for value in values if value is not None]:
            yield Figure(name, max(there), unit, gpu)
