# SPDX-License-Identifier: GPL-3.0-or-later
"""What the workloads of the frameworks share: their options, and the order of things where one process has all devices."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import children
import reference
import workload


def options(what: str) -> argparse.Namespace:
    """Read the options of the command line."""
    parser = workload.parser(what)
    parser.add_argument("--share", type=float, default=0.5, help="of each GPU's memory that may be used")
    parser.add_argument("--seconds", type=float, default=0, help="repeat the step for so long")
    parser.add_argument("--wait", action="store_true", help="read a line of stdin before the step")
    given = parser.parse_args()
    if given.wait:
        children.die_with_parent(os.getppid())
    return given


def tiles(device: str) -> int:
    """How often the factors are laid out: enough to give every part of a GPU something to do."""
    return 32 if device == "cuda" else 1


def said(problem: Exception) -> str:
    """What is wrong, without the advice for developers that frameworks append."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[0] if lines else type(problem).__name__


def hold(given: argparse.Namespace) -> None:
    """Where several frameworks are to compute at the same time, wait for the others."""
    if given.wait:
        workload.progress(0.6, "waits for the others")
        sys.stdin.readline()


def each(count: int, alone: Callable[[int], dict[str, Any]]) -> bool:
    """Have each device compute alone, and print how many elements are wrong; whether all could compute."""
    usable = True
    for index in range(count):
        try:
            with workload.phase("kernel", index):
                found = alone(index)
        except Exception as problem:
            usable, found = False, {"value": None, "says": said(problem)}
        workload.figure("wrong elements", found.pop("value"), gpu=index, **found)
    if usable:
        workload.progress(0.5, "every device computed alone")
    return usable


def all_together(
    count: int, prepare: Callable[[], Callable[[], list[float]]], given: argparse.Namespace
) -> None:
    """Have all devices learn the same function, and print how far each is from the right weights.

    Args:
        prepare: gives what learns from zero and returns how far each device's copy is from the right weights.
    """
    worst, steps, why = [0.0] * count, 0, ""
    try:
        learn = prepare()
        # The first time is for the compilers.
        learn()
    except Exception as problem:
        why = said(problem)
    hold(given)
    try:
        with workload.phase("step"):
            until = time.monotonic() + given.seconds
            while not why:
                worst = [max(pair) for pair in zip(worst, learn(), strict=True)]
                steps += reference.STEPS
                if time.monotonic() >= until:
                    break
    except Exception as problem:
        why = said(problem)
    for index, value in enumerate(worst):
        if why:
            workload.figure("step difference", None, gpu=index, says=why)
        else:
            workload.figure("step difference", value, gpu=index)
    workload.figure("steps", steps)
