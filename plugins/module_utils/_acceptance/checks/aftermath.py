# SPDX-License-Identifier: GPL-3.0-or-later
"""What the run has done to the GPUs: everything that is there now and was not when it began.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..._fleet.gpu import health_devices
from .. import health_checks as common
from .. import heat, kernel_log
from ..check import FULL, QUICK, CannotLook, Check, Context, Group, Need, Sample
from ..limits import Limits
from ..verdicts import Figure, Result, Verdict, skipped
from .pcie_errors import LINK
from .throttle_reasons import HISTORY

_COUNTERS: tuple[tuple[str, tuple[str, ...], Verdict, str], ...] = (
    ("error of memory that could not be corrected", ("ecc", "volatile", "uncorrectable"), Verdict.FAIL, "memory"),
    ("row of memory replaced", ("remapped_rows", "uncorrectable"), Verdict.FAIL, "memory"),
    ("page of memory retired", ("retired_pages", "double_bit"), Verdict.FAIL, "memory"),
    ("fatal error of its link", ("aer", "fatal"), Verdict.FAIL, "link"),
    ("error of its link that could not be corrected", ("aer", "nonfatal"), Verdict.FAIL, "link"),
    ("fatal error at its slot's port", ("port", "aer", "fatal"), Verdict.FAIL, "link"),
    ("error at its slot's port that could not be corrected", ("port", "aer", "nonfatal"), Verdict.FAIL, "link"),
    ("packet given up", ("link", "replay_rollover_counter"), Verdict.FAIL, "link"),
)  # fmt: skip
_CORRECTED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("replays", ("link", "replay_counter")),
    ("corrected errors", ("aer", "correctable")),
    ("corrected errors at the port", ("port", "aer", "correctable")),
)
_STEPS = {
    "memory": "reset the card (`nvidia-smi -r -i INDEX`) or reboot, and run this again; if they come back, have it replaced",
    "link": LINK,
}


def run(context: Context) -> Result:
    """Look once more, and compare."""
    before = {str(device["pci_address"]): device for device in common.cards(context)}
    after = {str(device.get("pci_address")): device for device in common.devices(context.look())}
    spent = context.now() - context.began
    minutes = max(1.0, spent / 60)
    most, source = Limits(context.profile.limits).get("pcie_replays_per_minute")
    readings = heat.read(context)
    found: list[common.Finding] = []
    figures: list[Figure] = []
    for address, device in before.items():
        now = after.get(address) or {}
        if now.get("state") != "ok":
            found.append(_gone(device))
            continue
        found += [*_counters(device, now), *_links(device, now, most, minutes), *_states(device, now)]
        figures += _figures(device, now, most * minutes, source)
        found += heat.judge(context, device, now, readings, HISTORY)
        figures += heat.figures(context, device, readings)
    logged, log_notes, problem = _log(context)
    judged, notes = common.from_log(context, logged)
    found += judged
    figures += common.log_figures(context, logged)
    if problem:
        unread = f"what the kernel has said since the run began cannot be read: {problem.why}"
        if not found:
            return skipped(unread, problem.advice)
        found.append(common.Finding(Verdict.UNKNOWN, unread, problem.advice))
    took = f"{minutes:.0f} min" if spent >= 60 else f"{spent:.0f} s"
    good = "no new Xid, no new error of a link or of memory, no throttling"
    return common.conclude(
        found,
        f"{common.plural(len(before), 'GPU')}, {took}: {good}",
        figures,
        notes=[*notes, *log_notes, *_idle(readings)],
        unseen=common.silent(context),
        log=[asdict(one) for one in logged],
    )


def _idle(readings: Sequence[Sample]) -> list[str]:
    """A run in which nothing worked says little: that is told."""
    if not readings or any(sample.utilization_percent for sample in readings):
        return []
    return ["no GPU had anything to do in this run"]


def _gone(device: common.Device) -> common.Finding:
    return common.Finding(
        Verdict.FAIL,
        f"{common.title(device)} answered when the run began, and does not any more",
        "see the checks gpus_seen and kernel_log of a new run; switch the machine off and on, then reseat the card and its power cable",
    )


def _new(before: Mapping[str, Any], after: Mapping[str, Any], path: tuple[str, ...]) -> int | None:
    """By how much a counter has grown; None: it cannot be told. One that was set back has begun anew."""
    old, now = (common.number(common.of(device, *path)) for device in (before, after))
    if old is None or now is None:
        return None
    return int(now - old if now >= old else now)


def _counters(before: common.Device, after: common.Device) -> Iterator[common.Finding]:
    for noun, path, verdict, kind in _COUNTERS:
        if count := _new(before, after, path):
            yield common.Finding(
                verdict,
                f"{common.title(before)}: {count} x {noun} since the run began",
                common.step(_STEPS[kind], before),
            )


def _links(
    before: common.Device, after: common.Device, most: float, minutes: float
) -> Iterator[common.Finding]:
    counts = {name: _new(before, after, path) or 0 for name, path in _CORRECTED}
    if max(counts.values()) > most * minutes:
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        yield common.Finding(
            Verdict.WARN,
            f"{common.title(before)}: {told} in {minutes:.0f} min, more than {most:g} a minute",
            LINK,
        )


def _states(before: common.Device, after: common.Device) -> Iterator[common.Finding]:
    """What was not so at the beginning."""
    name = common.title(before)
    action = after.get("recovery_action")
    if action and str(action).lower() != "none" and action != before.get("recovery_action"):
        yield common.Finding(
            Verdict.FAIL,
            f"{name}: the driver asks for an action since the run began: {action}",
            common.step(health_devices.recovery_step(str(action)), before),
        )
    for path, what in (
        (("remapped_rows", "pending"), "a row of memory waits for repair"),
        (("remapped_rows", "failure"), "there are no spare rows of memory left"),
        (("retired_pages", "pending"), "a page of memory waits to be retired"),
    ):
        if common.of(after, *path) and not common.of(before, *path):
            yield common.Finding(
                Verdict.FAIL, f"{name}: {what} since the run began", common.step(_STEPS["memory"], before)
            )


def _log(context: Context) -> tuple[list[kernel_log.Finding], list[str], CannotLook | None]:
    """What the kernel has said since the run began; why that cannot be read."""
    try:
        lines = context.kernel_log()
    except CannotLook as problem:
        return [], [], problem
    if not lines:
        return (
            [],
            [],
            CannotLook("the kernel's log of this boot is empty", "run this as root, and not in a container"),
        )
    since = [line for line in lines if (kernel_log.time_of(line) or 0) >= context.began]
    most, _source = Limits(context.profile.limits).get("pcie_corrected")
    found = kernel_log.findings(since, common.places(context), most_corrected=int(most))
    return found, [f"{common.plural(len(since), 'new line')} in the kernel's log"], None


def _figures(before: common.Device, after: common.Device, most: float, source: str) -> Iterator[Figure]:
    gpu = common.index_of(before)
    for name, path in _CORRECTED:
        count = _new(before, after, path)
        if count is not None:
            verdict = Verdict.WARN if count > most else Verdict.PASS
            yield Figure(f"new {name}", count, "", gpu, f"<= {most:.0f}", source, verdict, "lower")
    for noun, path, bad, _kind in _COUNTERS:
        count = _new(before, after, path)
        if count is not None:
            yield Figure(f"new: {noun}", count, "", gpu, "0", "", bad if count else Verdict.PASS, "lower")


CHECK = Check(
    name="aftermath",
    title="What the run left behind",
    group=Group.AFTERMATH,
    about="Compares the GPUs with what they were when the run began: Xids and errors of links in the kernel's log, counters of errors, "
    "and what the sensors read while the run worked.",
    expects="Nothing new: no Xid, no error of memory or of a link that could not be corrected, at most 8 replays a minute (DCGM's limit; "
    "WARN), no slowdown by heat, hardware or power supply, and the margin of the profile (`stop_margin_c`) to each card's own "
    "limit (at the limit FAIL, closer than the margin WARN). A kernel's log that cannot be read is SKIP, and UNKNOWN beside a "
    "warning; UNKNOWN is also where no reading of the sensors was kept, or where they do not tell of slowdowns.",
    fails="The card stands rest and not work. Heat: fans, dust, air, a lower power limit. Xid 79 or power brake: power supply and cable. "
    "Replays and AER: riser and slot. Memory: reset, run again, replace.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.DRIVER),
    seconds=3,
)
