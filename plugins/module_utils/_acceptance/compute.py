# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks that measure have in common: how a workload is run, what its failure means, and how GPUs are named.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .._fleet.gpu import catalog
from .check import FULL, PYTORCH, CannotLook, Context, Sample, WorkloadRun
from .limits import NOT_JUDGED
from .verdicts import Figure, Result, Verdict, failed, unknown, worst

CPU = "cpu"

REINSTALL = (
    "install a PyTorch that was built for this card: role ai_frameworks picks it by the card; an RTX 50 needs 2.7.0 with CUDA 12.8, "
    "or newer"
)
_OF_A_GPU = re.compile(
    r"cuda|cudnn|cublas|nccl|ended by sig|uncorrectable|launch failure|sees \d+ gpu", re.IGNORECASE
)
_OF_OURS = re.compile(r"\b(Attribute|Type|Name|Key|Index|Value|Assertion|JSONDecode)Error: ")


def run(ctx: Context, workload: str, *arguments: str, seconds: float) -> WorkloadRun:
    """Run a workload of PyTorch: small in all suites but full, and on the CPU.

    Raises:
        CannotLook: there is no GPU that it could use, or one is cut into parts.
    """
    if ctx.workers < 1:
        raise CannotLook(
            "no driver answers for a GPU",
            "install the driver with role nvidia_driver, or see what its gate says",
        )
    if ctx.device != CPU:
        _whole(ctx)
    full = ctx.suite == FULL and ctx.device != CPU
    # Four processes that load a framework from a cold disk take their time.
    return ctx.workload(
        workload,
        PYTORCH,
        "--size",
        "full" if full else "small",
        *arguments,
        seconds=seconds * (3 if full else 1),
    )


def _whole(ctx: Context) -> None:
    """CUDA shows a process one part of such a GPU, and numbers what it shows anew: what is measured would be of another one."""
    cut = [
        index for index, device in sorted(devices(ctx).items()) if (device.get("mig") or {}).get("current")
    ]
    if not cut:
        return
    named = ", ".join(f"GPU {index}" for index in cut)
    listing = ",".join(map(str, cut))
    raise CannotLook(
        f"{named} {'is' if len(cut) == 1 else 'are'} cut into parts (MIG), and a part is not measured here",
        f"make the card whole: `nvidia-smi -i {listing} -mig 0`, or waive this check with that reason",
    )


def trouble(done: WorkloadRun, what: str) -> Result | None:
    """The result of a workload that did not come to its end; None: it did."""
    says = done.error
    if not says and not done.crashed:
        return None
    if "no kernel image" in says:
        return failed(f"{says}: the GPU is there, and this PyTorch has no kernels for it", REINSTALL)
    if "out of memory" in says:
        return unknown(
            f"{what} could not be measured: {says}",
            "end what else uses the GPUs' memory (`nvidia-smi` lists it) and run it again",
        )
    if "did not end within" in says:
        return failed(
            f"{what} hung: {says}",
            "look for Xid lines in the kernel's log (check kernel_log); a GPU that hangs again after a reboot has a defect",
        )
    if "SIGKILL" in says:
        # Nothing that a card does ends a process so; the kernel does that to who uses most of the host's memory.
        return unknown(
            f"{what} could not be measured: {says}",
            "see `journalctl -k | grep -i 'out of memory'`; give the host more memory or end what uses it, then run it again",
        )
    if _OF_OURS.search(says) or not (done.crashed or _OF_A_GPU.search(says)):
        return unknown(
            f"{what} could not be measured: {says or 'the workload ended without a word'}",
            "see the workload's log in the folder of this run; report it if it is a defect of gpumesh.fleet",
        )
    return failed(
        f"{what} broke off: {says or 'the workload ended without a word'}",
        "see the workload's log in the folder of this run and the kernel's log (check kernel_log); run it again with that GPU alone "
        "(CUDA_VISIBLE_DEVICES), and have a card that fails alone replaced",
    )


def devices(ctx: Context) -> dict[int, Mapping[str, Any]]:
    """What is known of each GPU that the driver answers for, by its index."""
    return {
        int(device["index"]): device
        for device in ctx.facts.get("devices") or []
        if device.get("index") is not None
    }


def models(ctx: Context) -> dict[int, str]:
    """The catalog's name of each GPU's model; empty: it knows none."""
    return {index: str(device.get("model") or "") for index, device in devices(ctx).items()}


def pci_ids(ctx: Context) -> dict[int, str]:
    """The PCI device id of each GPU; empty: not known."""
    return {index: str(device.get("pci_id") or "") for index, device in devices(ctx).items()}


def forms(ctx: Context) -> set[str]:
    """In which forms the GPUs are: SXM, PCIe."""
    cards = (catalog.by_pci_id(str(device.get("pci_id") or "")) for device in devices(ctx).values())
    return {card.form if card else "" for card in cards}


def addresses(ctx: Context) -> str:
    """The PCI addresses in the order of the GPUs, for a workload."""
    known = devices(ctx)
    return ",".join(
        str(known[index].get("pci_address") or "") if index in known else "" for index in range(ctx.workers)
    )


def who(ctx: Context, gpu: int) -> str:
    """How one is named in a sentence."""
    return f"process {gpu}" if ctx.device == CPU else f"GPU {gpu}"


def figure(
    ctx: Context,
    name: str,
    line: Mapping[str, Any],
    *,
    expected: str = "",
    source: str = "",
    verdict: Verdict | None = None,
    better: str = "higher",
) -> Figure:
    """A figure of a workload, with what was expected. A rate of a CPU is shown and never judged."""
    value, gpu = line["value"], line.get("gpu")
    if isinstance(value, float):
        value = float(f"{value:.4g}")
    unit = str(line.get("unit") or "")
    if ctx.device != CPU:
        return Figure(name, value, unit, gpu, expected, source, verdict, better)
    title = name if gpu is None else f"{name}, process {gpu}"
    return Figure(title, value, unit, None, "", NOT_JUDGED, None, better)


def number(value: Any) -> float | None:
    """A figure's value, where it is a number and no NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return float(value)


def rates(lines: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """The values of a figure by GPU; those that are no numbers are left out."""
    return {
        int(line["gpu"]): value
        for line in lines
        if line.get("gpu") is not None and (value := number(line["value"])) is not None
    }


def mean(values: Iterable[float | int | None]) -> float | None:
    """Of those that were read; None: none was."""
    read = [float(value) for value in values if value is not None]
    return sum(read) / len(read) if read else None


UNDER_LOAD = "link generation under load"
"""The figure of the check pcie_under_load."""


def generation(ctx: Context, samples: Iterable[Sample], gpu: int) -> int | None:
    """That of a GPU's link when it is busy: a reading between two transfers may be of a link that saves power.

    It is what pcie_under_load found, which says whether that is enough; where it found nothing, the most that the link can have.
    """
    found = ctx.results.get("pcie_under_load")
    told = [
        one.value
        for one in (found.figures if found else ())
        if one.name == UNDER_LOAD and one.gpu == gpu and isinstance(one.value, int)
    ]
    link: Mapping[str, Any] = devices(ctx).get(gpu, {}).get("link") or {}
    expected: Iterable[int | None] = told or [link.get("gen_max")]
    read = [*expected, *(sample.link_gen for sample in samples)]
    return max((one for one in read if one is not None), default=None)


def sm_mhz(samples: Iterable[Sample]) -> float | None:
    """The mean SM clock."""
    return mean(sample.sm_mhz for sample in samples)


def verdict_of(figures: Iterable[Figure]) -> Verdict:
    """The gravest of those that were judged; UNKNOWN: none was."""
    judged = [one.verdict for one in figures if one.verdict is not None]
    return worst(judged) if judged else Verdict.UNKNOWN


def listed(problems: list[str], most: int = 4) -> str:
    """Several problems in one sentence."""
    more = len(problems) - most
    return "; ".join(problems[:most]) + (f"; and {more} more" if more > 0 else "")
