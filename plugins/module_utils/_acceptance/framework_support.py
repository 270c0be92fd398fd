# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a framework can be looked at on a machine: is it installed, and can its published wheels work on these GPUs at all.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from .._fleet.gpu import stack_frameworks
from .._fleet.gpu.stack_request import Request, Wishes, read_gpus
from .check import Context, WorkloadRun
from .interpreters import TITLES
from .record import CPU
from .verdicts import Result, does_not_apply, skipped

ANY_DRIVER = "9999.0.0"
"""Newer than each: what is unsupported with it has no kernels for the GPU."""


def broken(run: WorkloadRun) -> str:
    """Why a workload did not come to its end; empty: it did."""
    return run.error or ("it ended without a word" if run.crashed else "")


def resolved(facts: Mapping[str, Any], framework: str, driver: str = "") -> Mapping[str, Any] | None:
    """The resolver's answer for a framework on the machine's GPUs; None: it does not know them, or there is no driver.

    Args:
        driver: another than the machine's.
    """
    driver = driver or str((facts.get("driver") or {}).get("loaded") or "")
    ids = [str(device["pci_id"]) for device in facts.get("devices") or [] if device.get("pci_id")]
    groups, strangers = read_gpus(ids)
    if not groups or strangers or not driver:
        return None
    request = Request(groups, "", date.today(), wishes=Wishes(frameworks={framework: ""}))
    return stack_frameworks.frameworks(request, driver)[framework]


def unsupported(facts: Mapping[str, Any], framework: str) -> str:
    """Why no published wheel of a framework has kernels for a GPU of the machine, and what works instead; empty: one has."""
    answer = resolved(facts, framework, ANY_DRIVER)
    if answer is None or answer["supported"]:
        return ""
    says = str(answer["says"]).removesuffix(".").removesuffix(" on this driver")
    return f"{says}; what works instead: {answer['instead']}"


def how_to_install(facts: Mapping[str, Any], framework: str) -> str:
    """What works on the machine's GPUs, as an advice."""
    answer = resolved(facts, framework)
    if answer is None:
        return "install a build that has kernels for this GPU"
    if answer["supported"]:
        return f"install {answer['package']} from {answer['wheel_index_url']} (role ai_frameworks does)"
    if why := unsupported(facts, framework):
        return f"take {why.partition('; what works instead: ')[2]}"
    return "take a newer driver (role nvidia_driver)"


def unavailable(context: Context, framework: str) -> Result | None:
    """Why a framework cannot be looked at; None: it can."""
    title = TITLES[framework]
    if context.device != CPU and not context.workers:
        return skipped("the driver answers for no GPU", "see the checks gpus_present and driver_versions")
    if context.interpreter(framework):
        return None
    on_gpu = context.device != CPU
    if on_gpu and (why := unsupported(context.facts, framework)):
        return does_not_apply(why)
    answer = resolved(context.facts, framework) if on_gpu else None
    if answer is not None and not answer["supported"]:
        driver = context.facts["driver"]["loaded"]
        return skipped(
            f"{title} is not installed, and no published wheel of it works with driver {driver}",
            "take a newer driver (role nvidia_driver)",
        )
    return skipped(
        f"{title} is not installed",
        f"install it with role ai_frameworks, or name its Python in `interpreters.{framework}` of the profile",
    )
