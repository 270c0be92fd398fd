# SPDX-License-Identifier: GPL-3.0-or-later
"""A run's folder as a page needs it. Whatever stands in it came from a machine that is not ours to trust.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._fleet.errors import FleetError
from .. import document
from ..check import Sample
from ..record import Run

DOCUMENT, SAMPLES = "run.json", "samples.jsonl"

# Control characters, half of a surrogate pair, and what turns the direction of writing around: none of them is text, and each
# breaks a page or makes it show something else than it says.
_NO_TEXT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
_LONGEST = 4000
_NUMBERS = (
    "temperature_c",
    "margin_c",
    "memory_temperature_c",
    "power_w",
    "sm_mhz",
    "memory_mhz",
    "utilization_percent",
    "memory_used_mib",
)


class ReportError(FleetError):
    """A report cannot be made of what is there."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A run, and what the sensors read meanwhile.

    Attributes:
        digest: SHA-256 of run.json as it lies there.
        unread: lines of samples.jsonl that are none; the last one of a run that was killed is often cut.
    """

    run: Run
    samples: tuple[Sample, ...]
    digest: str
    unread: int = 0


def read(folder: Path) -> Reading:
    """The run in a folder.

    Raises:
        ReportError: there is none, or it cannot be read.
    """
    path = folder / DOCUMENT
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ReportError(
            f"{path} cannot be read ({exc.strerror or exc})",
            hint="Name the folder of a run; `gpu-acceptance run` prints it at its end",
        ) from exc
    run = parse(content, str(path))
    samples, unread = _samples(folder / SAMPLES)
    return Reading(run, samples, hashlib.sha256(content).hexdigest(), unread)


def parse(content: bytes | str, name: str) -> Run:
    """The run in a document's text.

    Raises:
        ReportError: it is none.
    """
    try:
        return run_of(json.loads(content), name)
    except (ValueError, RecursionError) as exc:
        raise ReportError(
            f"{name} is no JSON", hint="Run the suite again, or take the file from the machine again"
        ) from exc


def run_of(loaded: Any, name: str) -> Run:
    """The run in a document.

    Raises:
        ReportError: it is none.
    """
    try:
        return document.from_document(cleaned(loaded))
    except document.DocumentError as exc:
        raise ReportError(
            f"{name} is not usable: {exc}", hint="Make the report with the gpu-acceptance that made the run"
        ) from exc


def cleaned(value: Any) -> Any:
    """The same JSON without what is no text, and with no number that is none."""
    if isinstance(value, str):
        text = _NO_TEXT.sub("\ufffd", value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(cleaned(str(key))): cleaned(one) for key, one in value.items()}
    if isinstance(value, list):
        return [cleaned(one) for one in value]
    return value


def number(value: Any) -> float | None:
    """It, where it is a number that can be drawn."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _samples(path: Path) -> tuple[tuple[Sample, ...], int]:
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            found = list(_lines(lines))
    except OSError:
        return (), 0
    good = [sample for sample in found if sample]
    return tuple(sorted(good, key=lambda sample: (sample.at, sample.gpu))), len(found) - len(good)


def _lines(lines: Iterable[str]) -> Iterator[Sample | None]:
    for line in lines:
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            yield None
            continue
        yield _sample(told)


def _sample(told: Any) -> Sample | None:
    if not isinstance(told, Mapping):
        return None
    at, gpu = number(told.get("at")), told.get("gpu")
    if at is None or isinstance(gpu, bool) or not isinstance(gpu, int) or not 0 <= gpu < 1024:
        return None
    reasons = told.get("reasons")
    words = tuple(str(cleaned(str(one))) for one in reasons) if isinstance(reasons, list) else ()
    return Sample(at=at, gpu=gpu, reasons=words, **{name: number(told.get(name)) for name in _NUMBERS})  # type: ignore[arg-type]
