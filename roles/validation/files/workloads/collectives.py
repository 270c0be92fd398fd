# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast do all GPUs together add up what each of them has (all-reduce), and is the sum right?

The bus bandwidth is what each link must carry: bytes x 2 (n - 1) / n / seconds, as nccl-tests count it, so that it can be compared
with a link, and between machines of different size.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import cards
import groups
import team
import workload

_MIB = 1 << 20
_SIZES = {
    ("cuda", "small"): (_MIB, 4 * _MIB, 16 * _MIB, 64 * _MIB, 256 * _MIB),
    ("cuda", "full"): (_MIB, 4 * _MIB, 16 * _MIB, 64 * _MIB, 256 * _MIB, 1024 * _MIB),
    ("cpu", "small"): (1 << 16, _MIB, 16 * _MIB),
    ("cpu", "full"): (1 << 16, _MIB, 16 * _MIB, 64 * _MIB),
}
_LARGEST = 4096 * _MIB
"""In full, where there is room: what is asked of GPUs with NVLink is at such sizes and above."""
_SPARE = 1024 * _MIB
_VIA = re.compile(r" via (P2P|SHM|NET|NVLS|COLLNET)|\b(NVLS) multicast support is available")


def _sizes(card: cards.Card, group: groups.Group, device: str, size: str) -> tuple[int, ...]:
    """Of the messages. All processes come to the same, or those with more room would wait for the others for ever."""
    sizes = _SIZES[device, size]
    if device != "cuda" or size != "full":
        return sizes
    card.torch.cuda.empty_cache()
    free, _unused = card.torch.cuda.mem_get_info(card.device)
    # What the smaller ones took is kept by PyTorch.
    room = min(group.all_of(free)) >= sum(sizes) + _LARGEST + _SPARE
    return (*sizes, _LARGEST) if room else sizes


def _check(card: cards.Card, group: groups.Group, count: int) -> tuple[int, int]:
    """Elements that are wrong in a sum of whole numbers that float32 holds exactly; and how many there are."""
    torch = card.torch
    pattern = (torch.arange(count, device=card.device, dtype=torch.int32) % 1009).float()
    mine = pattern * (card.index + 1)
    group.add_up(mine)
    exact = pattern * (group.workers * (group.workers + 1) // 2)
    return int((mine != exact).sum().item()), count


def _measure(card: cards.Card, group: groups.Group, size: int) -> None:
    torch = card.torch
    # Whole numbers: they may overflow, and are never slower for what they hold.
    data = torch.empty(size // 4, dtype=torch.int32, device=card.device).random_()
    rate = group.bus_bandwidth(card, data)
    if card.index == 0:
        workload.figure("all_reduce", rate.bus_gb_s, "GB/s", bytes=size, **rate.more)


def _transport(log: str) -> str | None:
    """The ways that NCCL told it takes."""
    found: set[str] = set()
    for path in Path(log).parent.glob(f"{Path(log).name}*"):
        for match in _VIA.finditer(path.read_text(encoding="utf-8", errors="replace")):
            found.add(match[1] or match[2])
    return "+".join(sorted(found)) or None


def _work(torch: ModuleType, options: Any, meet: str, log: str, barrier: Any, index: int) -> None:
    card = cards.Card(torch, options.device, index)
    group = groups.Group(card, options.workers, meet)
    if index == 0:
        workload.figure("backend", group.backend, version=group.version)
    wrong, elements = _check(card, group, _SIZES[options.device, options.size][-2] // 4)
    workload.figure("wrong", wrong, gpu=index, elements=elements)
    sizes = _sizes(card, group, options.device, options.size)
    with workload.phase("all_reduce") if index == 0 else nullcontext():
        for done, size in enumerate(sizes):
            workload.progress(done / len(sizes), f"{size / _MIB:g} MiB over {options.workers}")
            _measure(card, group, size)
    if index == 0:
        workload.figure("transport", _transport(log) if card.cuda and log else None)
    group.leave(barrier)
    workload.progress(1, f"{card.who} is done")


def main() -> None:
    options = workload.parser(__doc__.splitlines()[0]).parse_args()
    torch = cards.torch_for(options.device)
    workload.begin("collectives", options, **cards.versions(torch))
    barrier = team.barrier(options.workers)
    with groups.prepared(torch) as (meet, log):
        team.run(
            options.workers, options.device, lambda index: _work(torch, options, meet, log, barrier, index)
        )
    workload.end()


if __name__ == "__main__":
    main()
