# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check cannot be made without: whether it is there, and if not, exactly what is missing.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from .check import Check, Context, Need
from .record import CPU
from .verdicts import Result, does_not_apply, skipped

_FRAMEWORKS = (Need.PYTORCH, Need.TENSORFLOW, Need.JAX, Need.VLLM)
_DOCKER_S = 30.0


def unmet(
    check: Check,
    context: Context,
    missing: Callable[[str], tuple[str, str]],
    is_root: Callable[[], bool] = lambda: os.geteuid() == 0,
) -> Result | None:
    """The result of a check that cannot be made; None: it can.

    Args:
        check: the check.
        context: the machine.
        missing: why no Python has a framework, and what to do.
        is_root: whether this program may do everything.
    """
    for need in Need:
        if need in check.needs and (result := _unmet(need, context, missing, is_root)):
            return result
    return None


def _unmet(
    need: Need,
    context: Context,
    missing: Callable[[str], tuple[str, str]],
    is_root: Callable[[], bool],
) -> Result | None:
    if need is Need.GPU:
        return _gpu(context)
    if need is Need.DRIVER:
        return _driver(context)
    if need is Need.SEVERAL:
        return _several(context)
    if need in _FRAMEWORKS:
        return None if context.interpreter(need) else skipped(*missing(need))
    if need is Need.DOCKER:
        ran = context.run(["docker", "version", "--format", "{{.Server.Version}}"], _DOCKER_S)
        return (
            skipped(f"Docker does not answer: {ran.says}", "install it with role docker")
            if ran.status
            else None
        )
    return None if is_root() else skipped("only root may look at this", "run this as root")


def _counts(context: Context) -> tuple[int, int]:
    """GPUs on the bus, and those that the driver answers for."""
    counts = context.facts.get("counts") or {}
    return int(counts.get("pci") or 0), int(counts.get("driver") or 0)


def _gpu(context: Context) -> Result | None:
    if context.device == CPU:
        return skipped("it needs a GPU, and the run is on the CPU", "run it without --device cpu")
    if not any(_counts(context)):
        return skipped("no NVIDIA GPU is on the PCI bus", "see whether the card is in and has power")
    return None


def _driver(context: Context) -> Result | None:
    if _counts(context)[1]:
        return None
    says = (context.facts.get("driver") or {}).get("smi") or "no answer"
    return skipped(
        f"no driver answers for a GPU: {str(says).rstrip('.')}",
        "install the driver with role nvidia_driver, or see what its gate says",
    )


def _several(context: Context) -> Result | None:
    if context.workers > 1:
        return None
    there = max(*_counts(context), sum(context.profile.gpus.values()))
    if there == 1:
        return does_not_apply("there is a single GPU")
    if there == 0:
        return skipped("it needs two GPUs, and there is none", "see whether the cards are in and have power")
    return skipped(
        f"it needs two GPUs, and the driver answers for {context.workers} of {there}",
        "see the checks gpus_present and gpus_seen",
    )
