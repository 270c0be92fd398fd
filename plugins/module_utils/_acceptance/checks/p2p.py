# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPU reaches the memory of which, whether that suits the model, and whether data arrives unharmed.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._fleet.gpu import catalog
from .. import compute
from ..check import FULL, Check, Context, Group, Need, WorkloadRun
from ..verdicts import Figure, Result, Verdict, failed, passed, unknown, warned, worst

_SECONDS = 240.0
_NO_ACCESS = (
    "see `nvidia-smi topo -p2p r`; an IOMMU, PCIe access control (ACS), or cards under different processors keep GPUs apart; on "
    "NVLink see the fabric manager and the check kernel_log"
)
_STRANGE = (
    "NVIDIA's driver does not allow that on this model: a modified driver is in use; keep that in mind when a result looks odd, or "
    "install the driver with role nvidia_driver"
)

Pair = tuple[int, int]


def _run(ctx: Context) -> Result:
    done = compute.run(ctx, "peers", seconds=_SECONDS)
    return compute.trouble(done, "copies from GPU to GPU") or judge(ctx, done)


def _pairs(done: WorkloadRun, name: str) -> dict[Pair, Any]:
    return {(int(line["from"]), int(line["to"])): line["value"] for line in done.values(name)}


def _expected(device: Mapping[str, Any]) -> tuple[str, bool]:
    """What the catalog says of a card's peer access, and whether it hangs on NVLink for certain."""
    card = catalog.by_pci_id(str(device.get("pci_id") or ""))
    model = catalog.model_of(card) if card else None
    if card is None or model is None:
        return "", False
    return model.p2p, model.p2p == "yes" and card.form == "SXM"


def judge(ctx: Context, done: WorkloadRun) -> Result:
    """Data first; then access, by what the catalog says of the models."""
    access, copies, wrong = _pairs(done, "access"), _pairs(done, "copy"), _pairs(done, "wrong")
    known = compute.devices(ctx)
    pairs = [(start, to) for start in range(ctx.workers) for to in range(ctx.workers) if start != to]
    said: dict[Verdict, list[str]] = {Verdict.FAIL: [], Verdict.WARN: []}
    advice = _NO_ACCESS
    figures: list[Figure] = []
    missing: list[str] = []
    for start, to in pairs:
        name = f"GPU {start} to GPU {to}"
        rate, count = compute.number(copies.get((start, to))), compute.number(wrong.get((start, to)))
        reaches = access.get((start, to))
        if rate is None or count is None or not isinstance(reaches, bool):
            missing.append(name)
            continue
        wanted = {_expected(known.get(gpu, {})) for gpu in (start, to)}
        rule = next(iter(wanted)) if len(wanted) == 1 else ("topology", False)
        verdict = _of_access(rule, reaches)
        if verdict in said:
            said[verdict].append(f"{name}: {'access' if reaches else 'no access'}")
            advice = _STRANGE if reaches else _NO_ACCESS
        expects = {"yes": "True", "no": "False", "topology": "as the topology allows"}.get(rule[0], "")
        figures.append(
            Figure(f"access, {name}", reaches, "", None, expects, "catalog" if expects else "", verdict)
        )
        figures.append(Figure(f"copy, {name}", float(f"{rate:.4g}"), "GB/s", better="higher"))
        if count:
            figures.append(
                Figure(
                    f"wrong words, {name}", int(count), "", None, "0", "what was sent", Verdict.FAIL, "lower"
                )
            )
    data = {"access": _matrix(access, ctx.workers), "copy": _matrix(copies, ctx.workers)}
    if harmed := [
        f"GPU {start} to GPU {to}: {count} wrong words" for (start, to), count in wrong.items() if count
    ]:
        return failed(
            f"data does not arrive unharmed, {compute.listed(harmed)}",
            "switch the IOMMU and PCIe access control (ACS) off, or peer access with NCCL_P2P_DISABLE=1; without peer access see the "
            "checks pcie_errors and memory_pattern",
            *figures,
            **data,
        )
    if missing:
        return unknown(
            f"not everything was told of {compute.listed(missing)}",
            "see the workload's log in the folder of this run",
            *figures,
            **data,
        )
    found = worst(one for one, problems in said.items() if problems)
    if found is Verdict.FAIL:
        return failed(
            f"cards that NVLink joins do not reach each other, {compute.listed(said[found])}",
            advice,
            *figures,
            **data,
        )
    if found is Verdict.WARN:
        return warned(
            f"not as it should be on these cards, {compute.listed(said[found])}", advice, *figures, **data
        )
    return passed(_fine(access, copies), *figures, **data)


def _of_access(rule: tuple[str, bool], reaches: bool) -> Verdict | None:
    expected, certain = rule
    if expected == "yes":
        return Verdict.PASS if reaches else Verdict.FAIL if certain else Verdict.WARN
    if expected == "no":
        return Verdict.WARN if reaches else Verdict.PASS
    # As the topology allows, or of a model that we do not know: both are well, and neither was expected.
    return None


def _fine(access: Mapping[Pair, Any], copies: Mapping[Pair, Any]) -> str:
    there = sum(value is True for value in access.values())
    slowest = min(float(rate) for rate in copies.values())
    if not there:
        return f"no GPU reaches another's memory; copies go through the host at {slowest:.3g} GB/s or more, and arrive unharmed"
    return f"{there} of {len(access)} pairs reach each other's memory; copies run at {slowest:.3g} GB/s or more, and arrive unharmed"


def _matrix(values: Mapping[Pair, Any], gpus: int) -> list[list[Any]]:
    return [[values.get((start, to)) for to in range(gpus)] for start in range(gpus)]


CHECK = Check(
    name="p2p",
    title="GPU to GPU",
    group=Group.INTERCONNECT,
    about="Which GPU reaches the memory of which, and how fast and correctly data goes from each GPU to each other.",
    expects="Data that arrives unharmed; access as the catalog says of the model: not on GeForce with NVIDIA's driver.",
    fails="Wrong data: an IOMMU or PCIe access control that peer access goes wrong with. No access on cards that have it: the same two, "
    "the topology, or the fabric manager. Access on GeForce: a modified driver.",
    run=_run,
    suites=(FULL,),
    needs=(Need.GPU, Need.SEVERAL, Need.PYTORCH),
    seconds=20,
)
