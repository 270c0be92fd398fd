# SPDX-License-Identifier: GPL-3.0-or-later
"""What a watch found, as lines of text for people.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from ..text_table import aligned
from . import durations
from .watch import Pair
from .watch_incidents import Incident
from .watch_log import Log
from .watch_report import SIMULATED, Report

SHOWN = 30
"""A screen shows the worst so many pairs and incidents; the files have them all."""


def lines(found: Report, shown: int | None = SHOWN) -> list[str]:
    """The tables: pairs, incidents, samplers.

    Args:
        shown: how many rows a table may have; None for all.
    """
    if found.first is None or found.last is None:
        return [f"Mesh watch {found.name}: no machine has taken a sample yet."]
    samples, lost = sum(pair.samples for pair in found.pairs), sum(pair.lost for pair in found.pairs)
    span = f"{moment(found.first)} to {moment(found.last)} ({durations.words(found.last - found.first)})"
    size = f"{_count(samples, 'sample')} of {_count(len(found.pairs), 'pair')} between {len(found.names)} machines"
    trouble = f"{_count(found.dropouts, 'drop-out')} in {_count(len(found.incidents), 'incident')}"
    result = [f"Mesh watch {found.name}, {span}.", f"{size}, {share(lost, samples)} lost, {trouble}."]
    if found.simulated:
        result.append(SIMULATED)
    result += [
        "",
        f"Round trips in ms, the worst pair first. A drop-out is {found.least} lost samples in a row or more.",
        *_cut(_pairs(found), shown, "pairs", right=(*range(2, 10), 12)),
    ]
    if found.incidents:
        result += [
            "",
            "What happened, the longest first:",
            *_cut(_incidents(found.incidents), shown, "incidents", right=(1, 2)),
        ]
    return [*result, "", "Samplers:", *aligned(_samplers(found), right=(1, 6, 7))]


def moment(time: float) -> str:
    """A time of day as people read it, in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def milliseconds(value: float | None) -> str:
    """A round trip in three digits, where it has so many."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def share(part: int, whole: int) -> str:
    """Per cent; never 0 for what is not nothing, nor 100 for what is not all."""
    if not part or not whole:
        return "0 %"
    if part == whole:
        return "100 %"
    per_cent = 100.0 * part / whole
    return "<0.01 %" if per_cent < 0.01 else f"{min(per_cent, 99.99):.2f} %"


def _worst_first(pair: Pair) -> tuple[float, float, float, str, str]:
    longest = pair.longest.seconds if pair.longest else 0.0
    return (-len(pair.dropouts), -longest, -pair.loss, pair.source, pair.target)


def _pairs(found: Report) -> list[list[str]]:
    rows = [
        ["from", "to", "samples", "lost", "min", "median", "p95", "p99", "max", "drop-outs", "longest", "began", "gaps"]
    ]  # fmt: skip
    for pair in sorted(found.pairs, key=_worst_first):
        longest = pair.longest
        rows.append(
            [
                pair.source,
                pair.target,
                str(pair.samples),
                share(pair.lost, pair.samples),
                *(milliseconds(value) for value in (pair.least, pair.median, pair.p95, pair.p99, pair.most)),
                str(len(pair.dropouts)),
                _length(longest.seconds, longest.over) if longest else "-",
                moment(longest.start) if longest else "-",
                str(pair.gaps),
            ]
        )
    return rows


def _incidents(found: Sequence[Incident]) -> list[list[str]]:
    rows = [["began", "lasted", "pairs", "what"]]
    for one in sorted(found, key=lambda incident: (-incident.seconds, incident.start, incident.machines)):
        rows.append([moment(one.start), _length(one.seconds, one.over), str(one.pairs), one.says])
    return rows


def _samplers(found: Report) -> list[list[str]]:
    rows = [["machine", "ticks", "first", "last", "state", "every", "gaps", "without", "notes"]]
    for name, log in found.logs.items():
        rows.append(
            [
                f"{name} (SIMULATED)" if log.simulated else name,
                str(log.ticks),
                "-" if log.first is None else moment(log.first),
                "-" if log.last is None else moment(log.last),
                _state(found, log),
                durations.words(log.interval),
                str(len(log.gaps)),
                durations.words(sum(gap.seconds for gap in log.gaps)) if log.gaps else "-",
                "; ".join(_notes(log)),
            ]
        )
    return rows


def _state(found: Report, log: Log) -> str:
    if found.silent(log.source):
        return "silent"
    return "running" if log.fell_silent else log.end or ""


def _notes(log: Log) -> list[str]:
    notes = [
        f"clock set {'back' if jump.seconds < 0 else 'forward'} by {durations.words(abs(jump.seconds))} at {moment(jump.time)}"
        for jump in log.jumps[:2]
    ]
    if more := len(log.jumps) - len(notes):
        notes.append(f"{_count(more, 'clock jump')} more")
    if log.broken:
        notes.append(f"{_count(log.broken, 'unreadable line')} skipped")
    if log.end == "full":
        notes.append("ended early, its file had reached the limit")
    return notes


def _cut(rows: list[list[str]], shown: int | None, what: str, right: Collection[int]) -> list[str]:
    kept = rows if shown is None else rows[: shown + 1]
    more = len(rows) - len(kept)
    return [*aligned(kept, right=right), *([f"  and {more} {what} more, in the files."] if more else [])]


def _length(seconds: float, over: bool) -> str:
    return f"{'' if over else '>='}{durations.words(seconds)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
