# SPDX-License-Identifier: GPL-3.0-or-later
"""No memory waits for repair, and there is spare memory left to repair it with.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict, does_not_apply

_SOME_PAGES, _MOST_PAGES = 15, 60
"""DCGM's limits of retired pages: the second is NVIDIA's ground to replace a card."""
_KEYS = ("remapped_rows.pending", "retired_pages.pending")


def run(context: Context) -> Result:
    """Read both ways of repair: rows (Ampere and later), pages (before)."""
    there = common.cards(context)
    able = [device for device in there if not all(common.has_none(device, key) for key in _KEYS)]
    found = common.from_engine(common.engine(context).get("memory_repair"))
    notes = []
    for device in able:
        found += _of(device)
        if rows := _replaced(device):
            notes.append(f"{common.title(device)} has {rows}")
    if not able:
        return does_not_apply("the GPUs have no spare memory by which bad memory could be replaced")
    return common.conclude(
        found,
        f"{common.plural(len(able), 'GPU')}: no memory waits for repair",
        [figure for device in able for figure in _figures(device)],
        unseen=common.silent(context),
        notes=notes,
    )


def _pages(device: common.Device) -> int:
    return sum(int(common.of(device, "retired_pages", kind) or 0) for kind in ("single_bit", "double_bit"))


def _of(device: common.Device) -> Iterator[common.Finding]:
    name, pages = common.title(device), _pages(device)
    if pages > _SOME_PAGES:
        worn = pages >= _MOST_PAGES
        yield common.Finding(
            Verdict.FAIL if worn else Verdict.WARN,
            f"{name} has {pages} retired pages of memory, of {_MOST_PAGES} that it may have",
            "have the card replaced"
            if worn
            else "look again in some weeks; where they grow, have the card replaced",
        )
    if all(common.of(device, *key.split(".")) is None for key in _KEYS):
        yield common.Finding(
            Verdict.UNKNOWN,
            f"{name} does not tell whether memory waits for repair ({common.missing(device, _KEYS[0])})",
            "see `nvidia-smi -q -d ROW_REMAPPER,PAGE_RETIREMENT`",
        )


def _replaced(device: common.Device) -> str:
    """Repairs that were made: history, and no fault."""
    rows = sum(
        int(common.of(device, "remapped_rows", kind) or 0) for kind in ("correctable", "uncorrectable")
    )
    parts = [common.plural(rows, "replaced row")] if rows else []
    parts += [common.plural(pages, "retired page")] if (pages := _pages(device)) else []
    return " and ".join(parts)


def _figures(device: common.Device) -> Iterator[Figure]:
    gpu = common.index_of(device)
    for name, group, key, bad in (
        ("row waits for repair", "remapped_rows", "pending", Verdict.FAIL),
        ("no spare rows left", "remapped_rows", "failure", Verdict.FAIL),
        ("page waits for repair", "retired_pages", "pending", Verdict.FAIL),
        ("rows replaced after errors not corrected", "remapped_rows", "uncorrectable", None),
        ("rows replaced after corrected errors", "remapped_rows", "correctable", None),
        ("pages retired after errors not corrected", "retired_pages", "double_bit", None),
        ("pages retired after corrected errors", "retired_pages", "single_bit", None),
    ):
        value = common.of(device, group, key)
        if value is None:
            continue
        verdict = None if bad is None else bad if value else Verdict.PASS
        shown = value if bad is None else "yes" if value else "no"
        yield Figure(
            name, shown, gpu=gpu, expected="no" if bad is not None else "", verdict=verdict, better="lower"
        )


CHECK = Check(
    name="memory_rows",
    title="Memory repair",
    group=Group.HEALTH,
    about="Looks whether memory of a GPU waits to be replaced by spare memory, and whether there is any left.",
    expects="Nothing that waits, spare rows left (FAIL), and at most 15 retired pages (WARN, from 60 on FAIL; DCGM's limits). Repairs "
    "that were made are shown. Does not apply to cards without such repair, such as GeForce.",
    fails="Reset the card or reboot, which makes the repair; a card without spare memory is to be replaced.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
