# SPDX-License-Identifier: GPL-3.0-or-later
"""What a burn-in is judged by. Pure: everything is read from what was recorded.

A burn-in that did not last as long as it was asked to may have failed, but it never passes: `hours_burned` is UNKNOWN then.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..check import Group
from ..record import CPU, Entry
from ..verdicts import Label, Result, skipped
from . import judge_health, judge_work
from .seen import OFF_CPU, Seen

_ON_CPU = "it needs a GPU, and the run is on the CPU"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One of them; the attributes are those of a check.

    Attributes:
        needs_gpu: on the CPU there is nothing to look at.
    """

    name: str
    title: str
    group: Group
    about: str
    expects: str
    fails: str
    judge: Callable[[Seen], Result]
    needs_gpu: bool = False


def judge(seen: Seen, label: Label) -> tuple[Entry, ...]:
    """All criteria with their results."""
    found = []
    for one in CRITERIA:
        on_cpu = one.needs_gpu and seen.plan.device == CPU
        result = skipped(_ON_CPU, OFF_CPU) if on_cpu else one.judge(seen)
        found.append(
            Entry(
                one.name,
                one.title,
                str(one.group),
                one.about,
                one.expects,
                result,
                label,
                begin=seen.tally.ledger.begin,
                seconds=seen.tally.ledger.wall_s,
            )
        )
    return tuple(found)


CRITERIA: tuple[Criterion, ...] = (
    Criterion(
        "hours_burned",
        "Hours burned",
        Group.COMPUTE,
        "Proves that all GPUs were busy at the same time for as long as was asked.",
        "All the hours that were asked for; time in which the machine was down or nobody looked does not count.",
        "The burn-in was interrupted or stopped. Go on with it, or look at the check that says why it stopped.",
        judge_work.hours,
    ),
    Criterion(
        "workers_alive",
        "Workers alive",
        Group.COMPUTE,
        "Proves that the load of no GPU ended by itself.",
        "One worker a GPU, alive from the first second to the last; none is started again. Each fills the memory that was asked for.",
        "A worker that dies usually lost its GPU (see the kernel's log), or was killed because the machine ran out of memory.",
        judge_work.workers,
    ),
    Criterion(
        "numbers",
        "Right numbers",
        Group.COMPUTE,
        "Proves that the GPUs compute the same under heat and load as when they were cold, and that their memory keeps it.",
        "No value of random data that differs in a single bit from a product that was checked on the CPU.",
        "A single wrong value means a defective chip or defective memory, or one that is clocked too high.",
        judge_work.numbers,
    ),
    Criterion(
        "siblings",
        "Siblings alike",
        Group.COMPUTE,
        "Proves that no GPU is slower or hotter than the others of its model in this machine.",
        "Rates within 5 % of the median of their model, and temperatures close to each other.",
        "A slower one has less power, a worse link or a worse cooling; a hotter one sits behind the others.",
        judge_work.siblings,
    ),
    Criterion(
        "margin",
        "Temperature margin",
        Group.HEALTH,
        "Proves that the cooling is enough for all cards at full load at once.",
        "Every GPU stays further from where it slows itself down than declared; the limit is the card's own.",
        "The cooling is not enough: dust, a failed fan, cards too close to each other, a hot room.",
        judge_health.margin,
        needs_gpu=True,
    ),
    Criterion(
        "throttling",
        "No slowdown",
        Group.HEALTH,
        "Proves that no GPU had to be slowed down, by heat or by the hardware.",
        "None of the reasons hardware slowdown, thermal slowdown and power brake in any reading, and no time that the driver counts for "
        "them; a power limit that holds is fine.",
        "Heat where the margin is small as well; otherwise power: supply, cables, the card's connector.",
        judge_health.throttling,
        needs_gpu=True,
    ),
    Criterion(
        "kernel_errors",
        "Kernel's log",
        Group.HEALTH,
        "Proves that neither the driver nor the PCIe bus reported an error meanwhile.",
        "No Xid, no AER line, no GPU that fell off the bus in the kernel's log since it began.",
        "What an Xid means and what to do is told with it.",
        judge_health.kernel_errors,
    ),
    Criterion(
        "error_counters",
        "Error counters",
        Group.HEALTH,
        "Proves that no counter of errors of the GPUs grew.",
        "No growth of ECC errors, remapped rows, retired pages and PCIe replays.",
        "Replays point to slot, riser or cable; memory errors to the card.",
        judge_health.errors,
        needs_gpu=True,
    ),
    Criterion(
        "responsive",
        "Machine responsive",
        Group.HEALTH,
        "Proves that the machine could still be worked with.",
        "A sleeping program wakes in time, and a small write reaches the disk in time, all along.",
        "Memory or processors are short beside the GPUs' work, or the disk is about to fail.",
        judge_health.responsive,
    ),
    Criterion(
        "readings",
        "Driver answers",
        Group.HEALTH,
        "Proves that temperatures were watched all along.",
        "nvidia-smi answers at every interval.",
        "A driver that does not answer under load has lost a card, or is about to.",
        judge_health.readings,
        needs_gpu=True,
    ),
)
"""All of them, in the order of the report."""
