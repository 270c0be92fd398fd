# SPDX-License-Identifier: GPL-3.0-or-later
"""No error of memory that could not be corrected.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict, does_not_apply, skipped


def run(context: Context) -> Result:
    """Read the counters since the driver was loaded, and those of the card's life."""
    there = common.cards(context)
    able = [device for device in there if not common.has_none(device, "ecc.current")]
    if not able:
        return does_not_apply("the GPUs have no ECC, so that nothing counts errors of their memory")
    counting = [device for device in able if common.of(device, "ecc", "current") is not False]
    if not counting:
        return _all_off(context, able)
    found = common.from_engine(common.engine(context).get("ecc_errors"))
    for device in counting:
        found += _of(device)
    off = [device for device in able if device not in counting]
    return common.conclude(
        found,
        f"{common.plural(len(counting), 'GPU')}: no error of memory that could not be corrected",
        [figure for device in counting for figure in _figures(device)],
        unseen=common.silent(context),
        notes=[f"ECC is off on {common.named(off)}, so that nothing counts errors there"] if off else [],
    )


def _all_off(context: Context, able: list[common.Device]) -> Result:
    wanted = common.expected(context)
    if all(wanted.tuned("ecc", device) is not None for device in able):
        return does_not_apply("ECC is off as declared, so that nothing counts errors of memory")
    return skipped(
        "ECC is off, so that nothing counts errors of memory",
        "switch it on (`nvidia-smi -e 1`, then reboot), or declare `tuning.ecc: off`",
    )


def _of(device: common.Device) -> Iterator[common.Finding]:
    name = common.title(device)
    now = common.of(device, "ecc", "volatile", "uncorrectable")
    ever = common.of(device, "ecc", "aggregate", "uncorrectable")
    if now is None:
        why = common.missing(device, "ecc.volatile.uncorrectable")
        yield common.Finding(
            Verdict.UNKNOWN,
            f"{name} does not tell its errors of memory ({why})",
            "see `nvidia-smi -q -d ECC`",
        )
    if common.of(device, "ecc", "sram_threshold_exceeded"):
        yield common.Finding(
            Verdict.FAIL,
            f"{name} has had more errors of the chip's own memory than it may have (SRAM threshold exceeded)",
            "have the card replaced",
        )
    if ever and not now:
        yield common.Finding(
            Verdict.WARN,
            f"{name} has had {common.plural(ever, 'error')} in its life that could not be corrected, none since the driver was loaded",
            "let `memory_pattern` and a burn-in look at it before it is trusted",
        )


def _figures(device: common.Device) -> Iterator[Figure]:
    gpu = common.index_of(device)
    for name, span, kind, bad in (
        ("not corrected since driver start", "volatile", "uncorrectable", Verdict.FAIL),
        ("not corrected ever", "aggregate", "uncorrectable", Verdict.WARN),
        ("corrected since driver start", "volatile", "correctable", None),
        ("corrected ever", "aggregate", "correctable", None),
    ):
        count = common.of(device, "ecc", span, kind)
        verdict = None if bad is None else Verdict.SKIP if count is None else bad if count else Verdict.PASS
        yield Figure(
            name, count, gpu=gpu, expected="0" if bad is not None else "", verdict=verdict, better="lower"
        )


CHECK = Check(
    name="ecc_errors",
    title="ECC errors",
    group=Group.HEALTH,
    about="Reads how many errors of memory each GPU has had, since its driver was loaded and in its life.",
    expects="None that could not be corrected since the driver was loaded (FAIL), none in the card's life (WARN), and no threshold "
    "exceeded (FAIL). Corrected ones are shown and not judged. Does not apply to cards without ECC, such as GeForce; SKIP where "
    "it is off and nobody has declared that.",
    fails="Stop what runs on the card, reset it or reboot; an error that comes back means a new card.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
