# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checks a run is to make. What is left out stays in sight: it is a gap in what the run proves.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .check import Check

LEFT_OUT = "left out with"
"""How the reason of such a check begins."""


class SelectionError(ValueError):
    """A name that no check has. One sentence without a full stop."""


@dataclass(frozen=True, slots=True)
class Selected:
    """A check of a run; `left_out` is the reason for which it is not to be made."""

    check: Check
    left_out: str = ""


def select(
    checks: Sequence[Check], suite: str, *, only: Collection[str] = (), skip: Collection[str] = ()
) -> tuple[Selected, ...]:
    """The checks of a run, in their order.

    Args:
        checks: all there are.
        suite: the one to make.
        only: names; the other checks of the suite are left out. A check of another suite may be among them.
        skip: names that are left out.

    Raises:
        SelectionError: no check has one of these names.
    """
    known = [check.name for check in checks]
    for name in (*only, *skip):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise SelectionError(f"there is no check {name}" + (f"; {near[0]} perhaps" if near else ""))
    found: list[Selected] = []
    for check in checks:
        if suite not in check.suites and check.name not in only:
            continue
        if check.name in skip:
            found.append(Selected(check, f"{LEFT_OUT} --skip"))
        elif only and check.name not in only:
            found.append(Selected(check, f"{LEFT_OUT} --only"))
        else:
            found.append(Selected(check))
    return tuple(found)
