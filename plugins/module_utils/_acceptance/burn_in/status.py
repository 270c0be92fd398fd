# SPDX-License-Identifier: GPL-3.0-or-later
"""How a burn-in goes, for people and for playbooks.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from .. import store
from . import outcome, runs
from .plan import clock

_STEP_S = 1.0


def show(base: Path, named: str, *, wait_s: float, as_json: bool) -> int:
    """Print how it goes; where it is waited for, when it has ended or the time is over."""
    folder = runs.find(base, named, open_only=False)
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline and _may_go_on(folder):
        time.sleep(min(_STEP_S, wait_s))
    found = look(folder)
    if as_json:
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(f"{found['id']}: {found['says']}\n")
    return 0


def _may_go_on(folder: Path) -> bool:
    """Between a crash and the next start by systemd nobody is at it, and yet it is not over."""
    return not runs.is_over(folder) and (runs.is_going(folder) or runs.is_detached(folder))


def look(folder: Path) -> dict[str, Any]:
    """How it goes, as data."""
    plan, tally = runs.read(folder), runs.recorded(folder)
    going, over = runs.is_going(folder), runs.is_over(folder)
    verdict: dict[str, Any] | None = None
    label = ""
    try:
        _unused, document = store.read(folder / store.RUN)
        verdict, label = dict(document["verdict"]), str(document["label"])
    except store.StoreError:
        # It has not come so far yet.
        pass
    said = outcome.progress(plan, tally)
    if over and verdict is not None:
        said = f"{said}, {verdict['checks']}: {verdict['says']}"
    elif not over and not going:
        said = f"{said}, nobody is at it"
    return {
        "id": plan.id,
        "folder": str(folder),
        "going": going,
        "over": over,
        "detached": runs.is_detached(folder),
        "burned_s": round(tally.ledger.burned_s, 3),
        "asked_s": plan.seconds,
        "burned": clock(tally.ledger.burned_s),
        "asked": clock(plan.seconds),
        "left_s": round(tally.ledger.left_s(plan.seconds), 3),
        "gaps": len(tally.ledger.gaps),
        "label": label,
        "verdict": verdict,
        "says": said,
    }
