# SPDX-License-Identifier: GPL-3.0-or-later
"""A run as the JSON document that docs/acceptance.schema.json describes, to and from.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from . import judgement
from .record import Entry, Run, State
from .verdicts import Figure, Label, Result, Verdict

SCHEMA = 1
"""A reader refuses documents of another number."""


class DocumentError(ValueError):
    """It is no document of a run. The text says why, one sentence without a full stop."""


def moment(seconds: float) -> str:
    """Seconds since the epoch as the documents write them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(text: str) -> float:
    """The reverse of `moment`."""
    return datetime.fromisoformat(text).timestamp()


def to_document(run: Run) -> dict[str, Any]:
    """The document of a run; verdict and coverage are worked out."""
    judged = judgement.judge(run.entries, run.label)
    return {
        "schema": SCHEMA,
        "id": run.id,
        "suite": run.suite,
        "device": run.device,
        "label": str(run.label),
        "state": str(run.state),
        "begin": moment(run.begin),
        "end": None if run.end is None else moment(run.end),
        "verdict": {
            "checks": str(judged.checks),
            "hardware": None if judged.hardware is None else str(judged.hardware),
            "says": judged.says,
        },
        "coverage": asdict(judgement.coverage(run.entries)),
        "machine": plain(run.machine),
        "versions": plain(run.versions),
        "profile": plain(run.profile),
        "checks": [_entry(entry) for entry in run.entries],
        "burn_in": None if run.burn_in is None else plain(run.burn_in),
    }


def plain(value: Any) -> Any:
    """Plain JSON of anything: what JSON cannot write becomes null (no number) or its text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, (bytes, bytearray)):
        return [plain(one) for one in value]
    return str(value)


def _entry(entry: Entry) -> dict[str, Any]:
    result = entry.result
    return {
        "name": entry.name,
        "title": entry.title,
        "group": entry.group,
        "about": entry.about,
        "expects": entry.expects,
        "verdict": str(result.verdict),
        "label": str(entry.label),
        "says": result.says,
        "advice": result.advice,
        "applies": result.applies,
        "waived": entry.waived,
        "figures": [_figure(figure) for figure in result.figures],
        "data": plain(result.data),
        "begin": None if entry.begin is None else moment(entry.begin),
        "seconds": round(entry.seconds, 3),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "value": plain(figure.value),
        "unit": figure.unit,
        "gpu": figure.gpu,
        "expected": figure.expected,
        "source": figure.source,
        "verdict": None if figure.verdict is None else str(figure.verdict),
        "better": figure.better,
    }


def from_document(document: Any) -> Run:
    """The run that a document tells of.

    Raises:
        DocumentError: it is none, or one of another schema.
    """
    if not isinstance(document, Mapping) or "schema" not in document:
        raise DocumentError("it is not the document of a run of gpu-acceptance")
    if document["schema"] != SCHEMA:
        raise DocumentError(f"it has schema {document['schema']!r}, and this gpu-acceptance reads {SCHEMA}")
    try:
        return _run(document)
    except KeyError as problem:
        raise DocumentError(f"the key {problem.args[0]} is missing") from problem
    except (TypeError, ValueError, AttributeError) as problem:
        raise DocumentError(f"it cannot be read: {problem}") from problem


def _run(document: Mapping[str, Any]) -> Run:
    return Run(
        id=str(document["id"]),
        suite=str(document["suite"]),
        device=str(document["device"]),
        label=Label(document["label"]),
        state=State(document["state"]),
        begin=seconds_of(document["begin"]),
        end=None if document["end"] is None else seconds_of(document["end"]),
        machine=dict(document["machine"]),
        versions=dict(document["versions"]),
        profile=dict(document["profile"]),
        entries=tuple(_entry_of(one) for one in document["checks"]),
        burn_in=None if document["burn_in"] is None else dict(document["burn_in"]),
    )


def _entry_of(one: Mapping[str, Any]) -> Entry:
    return Entry(
        name=str(one["name"]),
        title=str(one["title"]),
        group=str(one["group"]),
        about=str(one["about"]),
        expects=str(one["expects"]),
        result=Result(
            Verdict(one["verdict"]),
            str(one["says"]),
            str(one["advice"]),
            tuple(_figure_of(figure) for figure in one["figures"]),
            bool(one["applies"]),
            dict(one["data"]),
        ),
        label=Label(one["label"]),
        waived=str(one["waived"]),
        begin=None if one["begin"] is None else seconds_of(one["begin"]),
        seconds=float(one["seconds"]),
    )


def _figure_of(one: Mapping[str, Any]) -> Figure:
    return Figure(
        name=str(one["name"]),
        value=one["value"],
        unit=str(one["unit"]),
        gpu=None if one["gpu"] is None else int(one["gpu"]),
        expected=str(one["expected"]),
        source=str(one["source"]),
        verdict=None if one["verdict"] is None else Verdict(one["verdict"]),
        better=str(one["better"]),
    )
