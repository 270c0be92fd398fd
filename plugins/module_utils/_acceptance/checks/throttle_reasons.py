# SPDX-License-Identifier: GPL-3.0-or-later
"""No clock is held down by heat, by the hardware or by the power supply.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..._fleet.gpu import health_devices
from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict

HISTORY = {
    "hw_therm_slowdown": ("hw_thermal", "by the hardware, for heat"),
    "hw_power_brake": ("power_brake", "by the power supply"),
}
"""Counters of time that a healthy card has at zero, with the reason that they count."""


def run(context: Context) -> Result:
    """Look at the reasons now, and at how long there were such since the driver was loaded."""
    there = common.cards(context)
    found = common.from_engine(common.engine(context).get("throttle"))
    capped = sum(1 for device in there if "sw_power_cap" in (device.get("throttle") or []))
    for device in there:
        now = device.get("throttle") or []
        if not health_devices.slowed(now):
            found += _history(device)
        if untold := sorted(
            name for name in health_devices.SLOWED if f"throttle.{name}" in (device.get("missing") or {})
        ):
            found.append(
                common.Finding(
                    Verdict.UNKNOWN,
                    f"{common.title(device)} does not tell whether it is slowed down ({', '.join(untold)})",
                    "see `nvidia-smi -q -d PERFORMANCE`",
                )
            )
    return common.conclude(
        found,
        f"{common.plural(len(there), 'GPU')}: no clock is held down by heat or hardware",
        [
            Figure(
                "reasons for slower clocks",
                ", ".join(device.get("throttle") or []) or "none",
                gpu=common.index_of(device),
                expected="no heat, no hardware, no power brake",
                verdict=Verdict.FAIL if health_devices.slowed(device.get("throttle") or []) else Verdict.PASS,
            )
            for device in there
        ],
        unseen=common.silent(context),
        notes=[f"held to the power limit, which is no fault: {capped} of {len(there)}"] if capped else [],
    )


def _history(device: common.Device) -> Iterator[common.Finding]:
    for counter, (reason, whom) in HISTORY.items():
        if spent := (device.get("throttle_us") or {}).get(counter):
            yield common.Finding(
                Verdict.WARN,
                f"{common.title(device)} is not slowed down now, and was for {spent / 1e6:.1f} s {whom} since the driver was loaded",
                f"{health_devices.cooling_step([reason])}; a burn-in shows whether it comes again",
            )


CHECK = Check(
    name="throttle_reasons",
    title="Throttling at rest",
    group=Group.HEALTH,
    about="Reads why each GPU's clocks are lower than they could be, now and since the driver was loaded.",
    expects="No heat, no hardware slowdown and no power brake now (FAIL), nor earlier (WARN, from branch 580 on). The power limit at work "
    "is no fault, and an RTX 5090 says so even at rest.",
    fails="Heat: fans, dust, the air around the card. Power brake or hardware slowdown without heat: the power supply and its cables.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
