# SPDX-License-Identifier: GPL-3.0-or-later
"""All of a watch, put together from the logs of its machines, and as data for other programs.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from . import watch
from .watch import Dropout, Pair
from .watch_incidents import Incident, incidents
from .watch_log import Log

SIMULATED = "SIMULATED: measured in a sandbox, where all machines share one computer; it says nothing about a real network."

_SILENT = 2.5
"""A machine whose last sample is older than this many intervals, by the newest of all, has fallen silent."""


@dataclass(frozen=True, slots=True)
class Report:
    """All of a watch.

    Attributes:
        name: of the watch.
        least: lost samples in a row that counted as a drop-out.
        logs: by machine.
        pairs: each direction one, in the order of their names.
        incidents: in the order they began.
        first, last: times of the first and the last sample of all; None without any.
        simulated: a machine that measured stands in a sandbox.
    """

    name: str
    least: int
    logs: Mapping[str, Log]
    pairs: tuple[Pair, ...]
    incidents: tuple[Incident, ...]
    first: float | None
    last: float | None
    simulated: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Every machine that measured or was measured."""
        return tuple(sorted({*self.logs, *(pair.target for pair in self.pairs)}))

    @property
    def dropouts(self) -> int:
        """How many there were."""
        return sum(len(pair.dropouts) for pair in self.pairs)

    def silent(self, name: str) -> bool:
        """Whether a machine's samples end before those of the others, unasked."""
        log = self.logs[name]
        if log.last is None or self.last is None:
            return True
        return log.fell_silent and self.last - log.last > _SILENT * log.interval


def report(name: str, logs: Iterable[Log], least: int = watch.LEAST_LOST) -> Report:
    """What the logs of some machines say together.

    Args:
        name: of the watch.
        logs: one a machine.
        least: lost samples in a row that make a drop-out.

    Raises:
        ValueError: less than one lost sample is no drop-out.
    """
    by_name = {log.source: log for log in sorted(logs, key=lambda one: one.source)}
    pairs = tuple(
        watch.pair(log.source, target, series, least)
        for log in by_name.values()
        for target, series in sorted(log.series.items())
    )
    return Report(
        name=name,
        least=least,
        logs=by_name,
        pairs=pairs,
        incidents=incidents({(pair.source, pair.target): pair.dropouts for pair in pairs}, by_name),
        first=min((log.first for log in by_name.values() if log.first is not None), default=None),
        last=max((log.last for log in by_name.values() if log.last is not None), default=None),
        simulated=any(log.simulated for log in by_name.values()),
    )


def iso(time: float | None) -> str | None:
    """A time of day as RFC 3339 has it, to the second."""
    return None if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_json(found: Report) -> dict[str, Any]:
    """All of it as plain data."""
    return {
        "watch": found.name,
        "simulated": found.simulated,
        **({"note": SIMULATED} if found.simulated else {}),
        "first_sample": iso(found.first),
        "last_sample": iso(found.last),
        "dropout_least_lost": found.least,
        "samplers": [_sampler(found, log) for log in found.logs.values()],
        "pairs": [_pair(pair) for pair in found.pairs],
        "incidents": [_incident(number, one) for number, one in enumerate(found.incidents, 1)],
    }


def dropouts_csv(found: Report) -> str:
    """Every drop-out, one a line, in the order of the incidents they belong to."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["incident", "what", "from", "to", "start", "end", "seconds", "lost_samples", "over", "simulated"]
    )
    for number, incident in enumerate(found.incidents, 1):
        for one in incident.dropouts:
            writer.writerow(
                [
                    number,
                    incident.says,
                    one.source,
                    one.target,
                    iso(one.start),
                    iso(one.end),
                    f"{one.seconds:.0f}",
                    one.lost,
                    "yes" if one.over else "no",
                    "SIMULATED" if found.simulated else "no",
                ]
            )
    return text.getvalue()


def _sampler(found: Report, log: Log) -> dict[str, Any]:
    return {
        "machine": log.source,
        "simulated": log.simulated,
        "interval_seconds": log.interval,
        "until": iso(log.until),
        "ticks": log.ticks,
        "first_sample": iso(log.first),
        "last_sample": iso(log.last),
        "end": log.end,
        "silent": found.silent(log.source),
        "gaps": [
            {"start": iso(gap.start), "end": iso(gap.end), "seconds": round(gap.seconds, 1)}
            for gap in log.gaps
        ],
        "clock_jumps": [{"time": iso(jump.time), "seconds": round(jump.seconds, 1)} for jump in log.jumps],
        "unreadable_lines": log.broken,
    }


def _pair(pair: Pair) -> dict[str, Any]:
    longest = pair.longest
    return {
        "from": pair.source,
        "to": pair.target,
        "samples": pair.samples,
        "lost": pair.lost,
        "loss_percent": round(pair.loss, 4),
        "min_ms": pair.least,
        "median_ms": pair.median,
        "p95_ms": pair.p95,
        "p99_ms": pair.p99,
        "max_ms": pair.most,
        "dropouts": len(pair.dropouts),
        "longest_dropout_seconds": round(longest.seconds, 1) if longest else None,
        "longest_dropout_start": iso(longest.start) if longest else None,
        "gaps": pair.gaps,
    }


def _incident(number: int, one: Incident) -> dict[str, Any]:
    return {
        "incident": number,
        "kind": str(one.kind),
        "what": one.says,
        "machines": list(one.machines),
        "start": iso(one.start),
        "end": iso(one.end),
        "seconds": round(one.seconds, 1),
        "over": one.over,
        "dropouts": [_dropout(dropout) for dropout in one.dropouts],
    }


def _dropout(one: Dropout) -> dict[str, Any]:
    return {
        "from": one.source,
        "to": one.target,
        "start": iso(one.start),
        "end": iso(one.end),
        "seconds": round(one.seconds, 1),
        "lost": one.lost,
        "over": one.over,
    }
