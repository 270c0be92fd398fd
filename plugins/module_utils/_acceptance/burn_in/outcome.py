# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of a burn-in, as the same document that a suite makes.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..._fleet.gpu import catalog
from ..document import moment
from ..kernel_log import Place
from ..profile import Profile
from ..profile_file import as_data
from ..record import BURN_IN, Run, State, label_of
from . import guard, kernel
from .criteria import judge
from .ledger import ASKED, FINISHED
from .plan import Plan, clock
from .records import Tally
from .seen import Seen


def run_of(
    plan: Plan,
    tally: Tally,
    profile: Profile,
    *,
    gpus: tuple[int, ...],
    machine: Mapping[str, Any],
    versions: Mapping[str, str],
    facts: Mapping[str, Any],
    going: bool,
) -> Run:
    """The run as it is now.

    Args:
        gpus: those that were to burn.
        facts: those of the machine's GPUs.
        going: a process is at it.
    """
    ledger = tally.ledger
    stopped = ledger.stopped
    label = label_of(device=plan.device, simulated=bool(facts.get("simulated")) or tally.simulated)
    # Numbers are those of the beginning, whatever has become of a card meanwhile.
    numbered = dict(enumerate(tally.cards)) or guard.numbered(facts.get("devices") or ())
    indexes = {card.address: index for index, card in numbered.items()}
    models = {index: card.model for index, card in numbered.items()}
    there = kernel.places(facts, Path(profile.root))
    seen_now = {place.address for place in there}
    lost = {card.address: card for card in numbered.values() if card.address not in seen_now}
    cards = (
        *there,
        *(
            Place(address, nvlink=kernel.has_nvlink(catalog.find(lost[address].model)))
            for address in sorted(lost)
        ),
    )
    seen = Seen(plan, tally, gpus, going, profile.limits, cards, indexes, models)
    return Run(
        id=plan.id,
        suite=BURN_IN,
        device=plan.device,
        label=label,
        state=state_of(tally, going),
        begin=plan.begin,
        end=None if going else ledger.end,
        machine=machine,
        versions={**versions, **tally.versions},
        profile=as_data(profile),
        entries=judge(seen, label),
        burn_in={
            "hours": plan.seconds / 3600,
            "begin": moment(ledger.begin if ledger.begin is not None else plan.begin),
            "end": None if going or ledger.end is None else moment(ledger.end),
            "done_s": round(ledger.burned_s, 3),
            "interval_s": plan.interval_s,
            "gaps": [
                {"begin": moment(gap.begin), "end": moment(gap.end), "why": gap.why} for gap in ledger.gaps
            ],
            "stopped": ""
            if stopped is None or stopped.get("kind") == FINISHED
            else str(stopped.get("says", "")),
        },
    )


def state_of(tally: Tally, going: bool) -> State:
    """How far it is. One that somebody stopped is interrupted; one that stopped itself has come to its end."""
    if going:
        return State.RUNNING
    stopped = tally.ledger.stopped
    return State.INTERRUPTED if stopped is None or stopped.get("kind") == ASKED else State.COMPLETE


def progress(plan: Plan, tally: Tally) -> str:
    """How it goes, in one line."""
    ledger = tally.ledger
    share = min(1.0, ledger.burned_s / plan.seconds)
    parts = [f"{clock(ledger.burned_s)} of {clock(plan.seconds)} burned ({share:.1%})"]
    rates = tally.latest.get("tick", {}).get("rates") or {}
    for index in sorted({*tally.last_samples, *(int(key) for key in rates)}):
        sample = tally.last_samples.get(index)
        words = [] if sample is None else _sensors(sample.temperature_c, sample.margin_c, sample.power_w)
        rate = rates.get(str(index))
        if isinstance(rate, int | float):
            words.append(f"{rate:.3g} TFLOPS")
        parts.append(f"GPU {index} {' '.join(words)}".rstrip())
    wrong = sum(gpu.mismatches for gpu in tally.gpus.values())
    if wrong:
        parts.append(f"{wrong} WRONG VALUES")
    gaps = [gap for gap in ledger.gaps if gap.seconds >= 1]
    if len(gaps) > 1:
        parts.append(f"{len(gaps)} gaps")
    if ledger.stopped is not None and ledger.stopped.get("kind") != FINISHED:
        parts.append(f"ended: {ledger.stopped.get('says')}")
    return ", ".join(parts)


def _sensors(temperature: float | None, margin: float | None, power: float | None) -> list[str]:
    words = []
    if temperature is not None:
        words.append(f"{temperature:g} °C" + (f" ({margin:g} left)" if margin is not None else ""))
    if power is not None:
        words.append(f"{power:.0f} W")
    return words
