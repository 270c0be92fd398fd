# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast all GPUs together add up what each of them has, and whether the sum is right.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import compute
from ..check import FULL, QUICK, Check, Context, Group, Need, WorkloadRun
from ..limits import Band, Limits, grade, link_gb_s
from ..verdicts import Figure, Result, Verdict, failed, passed, unknown, warned

LEAST_BYTES = 256_000_000
"""Below, an all-reduce measures how long it takes to begin."""
_MIB = 1 << 20
_SECONDS = 240.0
_SLOW = (
    "see pcie_under_load and host_device_bandwidth first; then that the host's memory is in all its channels, that the cards are spread "
    "over the processors (`nvidia-smi topo -m`), and that a container has shared memory enough (`--ipc=host`)"
)
_NVLINK = (
    "see `nvidia-smi nvlink -s`, the fabric manager and the check kernel_log; a link that is down needs a reset or service; what "
    "clouds ask for is at messages of up to 16 GB, and the suite full has larger ones than quick"
)


def _run(ctx: Context) -> Result:
    done = compute.run(ctx, "collectives", seconds=_SECONDS)
    return compute.trouble(done, "adding up over all GPUs") or judge(ctx, done)


def band(ctx: Context, done: WorkloadRun, phase: str = "all_reduce") -> Band | None:
    """Below what it is too slow: by the model where NVLink joins them, else by the slowest link."""
    links = [_link(ctx, done, phase, gpu) for gpu in range(ctx.workers)]
    slowest = min((link for link in links if link is not None), default=None)
    models, forms = set(compute.models(ctx).values()), compute.forms(ctx)
    model = next(iter(models)) if len(models) == 1 else ""
    form = next(iter(forms)) if len(forms) == 1 else ""
    whole = slowest if None not in links else None
    return Limits(ctx.profile.limits).all_reduce_band(model, form, ctx.workers, whole)


def _link(ctx: Context, done: WorkloadRun, phase: str, gpu: int) -> float | None:
    samples = done.during(phase, gpu)
    generation = compute.generation(ctx, samples, gpu)
    width = min((one.link_width for one in samples if one.link_width is not None), default=None)
    link: Mapping[str, Any] = compute.devices(ctx).get(gpu, {}).get("link") or {}
    return link_gb_s(generation, width or link.get("width_now"))


def judge(ctx: Context, done: WorkloadRun) -> Result:
    """The sum first; then the rate at sizes at which it does not depend on the size any more."""
    lines = [line for line in done.values("all_reduce") if compute.number(line["value"]) is not None]
    wrong = {int(line["gpu"]): line["value"] for line in done.values("wrong")}
    backend = next((str(line["value"]) for line in done.values("backend")), "")
    transport = next((line["value"] for line in done.values("transport")), None)
    large = [line for line in lines if int(line["bytes"]) >= LEAST_BYTES]
    best = max(large, key=lambda line: float(line["value"]), default=None)
    limit = band(ctx, done) if ctx.device != compute.CPU else None
    figures = [_figure(ctx, line, limit, line is best) for line in lines]
    if transport:
        figures.append(Figure("transport", str(transport), source="as NCCL tells it"))
    data = {
        "curve": [{"bytes": int(line["bytes"]), "busbw": float(line["value"])} for line in lines],
        "bands": {"pass": limit.warn, "fail": limit.fail} if limit else {},
        "backend": backend,
        "transport": transport,
    }
    if bad := [
        f"{compute.who(ctx, gpu)} has {count} wrong elements" for gpu, count in wrong.items() if count
    ]:
        return failed(
            f"the sum is wrong, {compute.listed(bad)}",
            "run the checks kernels, memory_pattern and p2p, and this one with NCCL_P2P_DISABLE=1; a card that is wrong alone must be "
            "replaced, peer access that is wrong needs the IOMMU and PCIe access control (ACS) off",
            *figures,
            **data,
        )
    missing = [compute.who(ctx, gpu) for gpu in range(ctx.workers) if gpu not in wrong]
    if missing or not lines:
        what = f"no sum was told of {', '.join(missing)}" if missing else "no rate was told"
        return unknown(what, "see the workload's log in the folder of this run", *figures, **data)
    if ctx.device == compute.CPU:
        return passed(
            f"{ctx.workers} processes add up correctly over {backend}; rates of a CPU are not judged",
            *figures,
            **data,
        )
    if best is None or limit is None:
        what = (
            "no size of 256 MB or more was measured"
            if best is None
            else "nothing is known to judge the rate by"
        )
        return unknown(
            f"the sums are right, and {what}",
            "set limits.all_reduce_warn_gb_s and limits.all_reduce_fail_gb_s in the profile",
            *figures,
            **data,
        )
    return _of_rate(ctx, float(best["value"]), limit, figures, data)


def _of_rate(
    ctx: Context, rate: float, limit: Band, figures: list[Figure], data: Mapping[str, Any]
) -> Result:
    verdict = grade(rate, limit.warn, limit.fail)
    over = f" over {data['transport']}" if data["transport"] else ""
    says = f"{ctx.workers} GPUs add up correctly at {rate:.3g} GB/s{over}"
    if verdict is Verdict.PASS:
        return passed(says, *figures, **data)
    advice = _NVLINK if "SXM" in compute.forms(ctx) else _SLOW
    low = limit.fail if verdict is Verdict.FAIL else limit.warn
    make = failed if verdict is Verdict.FAIL else warned
    return make(f"{says}, less than {low:.3g}", advice, *figures, **data)


def _figure(ctx: Context, line: Mapping[str, Any], limit: Band | None, is_best: bool) -> Figure:
    size = int(line["bytes"])
    name = f"{size // _MIB} MiB" if size >= _MIB else f"{size // 1024} KiB"
    if limit is None or not is_best:
        return compute.figure(ctx, name, line)
    expected = f">= {limit.warn:.3g}"
    verdict = grade(float(line["value"]), limit.warn, limit.fail)
    return compute.figure(ctx, name, line, expected=expected, source=limit.source, verdict=verdict)


CHECK = Check(
    name="all_reduce",
    title="All-reduce",
    group=Group.INTERCONNECT,
    about="All GPUs add up what each of them has, as data-parallel training does in every step: the bus bandwidth by size, and whether "
    "the sum is exact.",
    expects="Exact sums; at 256 MB and more 20 GB/s on PCIe 5.0 x16 without NVLink (scaled to the slowest link), on NVLink what clouds "
    "ask for.",
    fails="Slow: one narrow link, all memory on one processor, empty memory channels, a container with little shared memory. Wrong sums: "
    "peer access through an IOMMU, or a card.",
    run=_run,
    suites=(QUICK, FULL),
    needs=(Need.SEVERAL, Need.PYTORCH),
    seconds=20,
)
