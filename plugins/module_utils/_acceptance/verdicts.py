# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check found: a verdict, one sentence, what to do, and the figures with what was expected of each.

Pure. Nothing that was not looked at is ever green: a check that could not be made is `Verdict.SKIP` with its reason, and one
whose readings allow no judgement is `Verdict.UNKNOWN`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What a check, or a whole run, came to."""

    PASS = "PASS"  # noqa: S105
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"
    UNKNOWN = "UNKNOWN"


_GRAVITY = (Verdict.SKIP, Verdict.PASS, Verdict.WARN, Verdict.UNKNOWN, Verdict.FAIL)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest; SKIP where there is none."""
    return max(verdicts, key=_GRAVITY.index, default=Verdict.SKIP)


class Label(StrEnum):
    """What a result was obtained on. Only `HARDWARE` says anything about hardware."""

    HARDWARE = ""
    CPU = "CPU"
    SIMULATED = "SIMULATED"


@dataclass(frozen=True, slots=True)
class Figure:
    """One value that was measured or read, with what was expected of it.

    Attributes:
        name: what it is, such as ``bf16`` or ``host to device``; the same in every run, so that runs can be compared.
        value: None where the reading is missing.
        unit: such as ``TFLOPS``, ``GB/s``, ``°C``; empty for counts and words.
        gpu: the index of the GPU in nvidia-smi; None for what is of the machine or of several GPUs.
        expected: in words, such as ``>= 226.8`` or ``open``; empty where nothing is expected.
        source: where the expectation comes from, such as ``declared`` or ``catalog: 87.0 x SM clock in GHz``.
        verdict: that of this figure alone; None where it is shown and not judged.
        better: ``higher``, ``lower`` or empty, for whoever compares two runs.
    """

    name: str
    value: float | int | str | bool | None
    unit: str = ""
    gpu: int | None = None
    expected: str = ""
    source: str = ""
    verdict: Verdict | None = None
    better: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found.

    Attributes:
        says: one sentence without a full stop: what was found, on which GPU.
        advice: what to do next, one sentence without a full stop; there is one wherever the verdict is WARN, FAIL or UNKNOWN.
        figures: in the order in which they are shown.
        applies: false where the machine has nothing that this check could look at (no ECC on the card, a single GPU). It is
            then no gap: the run's coverage does not count it.
        data: curves for the report, plain JSON; the check's own file says what is in it.
    """

    verdict: Verdict
    says: str
    advice: str = ""
    figures: tuple[Figure, ...] = ()
    applies: bool = True
    data: Mapping[str, Any] = field(default_factory=dict)


def passed(says: str, *figures: Figure, **data: Any) -> Result:
    """Looked at and found good."""
    return Result(Verdict.PASS, says, figures=figures, data=data)


def warned(says: str, advice: str, *figures: Figure, **data: Any) -> Result:
    """It works, and somebody should look at it."""
    return Result(Verdict.WARN, says, advice, figures, data=data)


def failed(says: str, advice: str, *figures: Figure, **data: Any) -> Result:
    """A defect, or not what was declared."""
    return Result(Verdict.FAIL, says, advice, figures, data=data)


def unknown(says: str, advice: str, *figures: Figure, **data: Any) -> Result:
    """Looked at, and the readings allow no judgement."""
    return Result(Verdict.UNKNOWN, says, advice, figures, data=data)


def skipped(why: str, advice: str = "") -> Result:
    """Not made for want of something: a gap in what the run proves. `advice` says how to close it."""
    return Result(Verdict.SKIP, why, advice)


def does_not_apply(why: str) -> Result:
    """There is nothing on this machine that it could look at."""
    return Result(Verdict.SKIP, why, applies=False)
