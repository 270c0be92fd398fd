# SPDX-License-Identifier: GPL-3.0-or-later
"""What a burn-in was asked to do. Written once, when it begins; whoever goes on with it reads it. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = 1

PLAN = "burn_in.json"
RECORDS = "burn_in.jsonl"
SAMPLES = "samples.jsonl"
UNFINISHED = "unfinished"
"""A file that is in the run's folder until the burn-in has ended for good; the unit starts only where it is."""
STOP = "stop"
"""A file by which somebody asks a burn-in to end before its time."""

LEAST_INTERVAL_S = 1.0
MOST_INTERVAL_S = 30.0
"""Nobody is to burn for longer without a look at how hot it is, and what is taken for blind or hung has to be several looks."""
MOST_HOURS = 24.0 * 90


class PlanError(ValueError):
    """What was asked cannot be done; the text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked.

    Attributes:
        id: the run's.
        seconds: so long all GPUs are to burn.
        begin: when it was asked for, in seconds since the epoch.
        memory: the share of each GPU's memory that is filled.
        stop_margin_c: it stops where a GPU is nearer than this to where it slows itself down.
        stop_temperature_c: it stops where a GPU is hotter than this; None: the margin alone counts.
        profile: the file of the profile; empty: the machine's own.
    """

    id: str
    seconds: float
    begin: float
    device: str = "cuda"
    interval_s: float = 5.0
    memory: float = 0.9
    stop_margin_c: float = 2.0
    stop_temperature_c: float | None = None
    profile: str = ""

    def checked(self) -> Plan:
        """Itself.

        Raises:
            PlanError: something in it is out of range.
        """
        if not 0 < self.seconds <= MOST_HOURS * 3600:
            raise PlanError(f"a burn-in lasts more than 0 and at most {MOST_HOURS:g} hours")
        if not LEAST_INTERVAL_S <= self.interval_s <= MOST_INTERVAL_S:
            raise PlanError(
                f"the interval is {LEAST_INTERVAL_S:g} to {MOST_INTERVAL_S:g} seconds, and it is {self.interval_s:g}"
            )
        if not 0.05 <= self.memory <= 0.95:
            raise PlanError(f"the share of memory is 0.05 to 0.95, and it is {self.memory:g}")
        if self.stop_temperature_c is not None and not 20 <= self.stop_temperature_c <= 120:
            raise PlanError(f"it stops at 20 to 120 °C, and {self.stop_temperature_c:g} was asked for")
        if not 0 <= self.stop_margin_c <= 50:
            raise PlanError(f"the margin is 0 to 50 degrees, and it is {self.stop_margin_c:g}")
        return self

    def as_json(self) -> dict[str, Any]:
        """As it is written."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """As it was written.

        Raises:
            PlanError: it is no plan, or one of a later version.
        """
        if data.get("schema") != SCHEMA:
            raise PlanError(
                f"the plan has the schema {data.get('schema')!r}, and this version reads {SCHEMA}"
            )
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        try:
            return cls(**known).checked()
        except TypeError as problem:
            raise PlanError(f"the plan is not whole: {problem}") from problem


def clock(seconds: float) -> str:
    """A length of time as people read it: 24 h 0 min, 12 min 5 s."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, seconds_ = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds_} s" if minutes else f"{seconds_} s"
