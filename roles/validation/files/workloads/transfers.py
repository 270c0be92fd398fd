# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast does data get to every GPU and back: each GPU alone, then all of them together?

The host's memory is pinned, and of the NUMA node that the GPU hangs on, where the machine says which that is. Part link keeps the
link of every GPU busy in both directions, so that the sensors can read what it is like under load. On the CPU a copy within main
memory stands in for the link.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import cards
import team
import workload

_TO, _FROM, _TOGETHER = "host to device", "device to host", " together"


class _Pair:
    """A block on the host, one on the card, and a second one on the host to compare with."""

    def __init__(self, card: cards.Card) -> None:
        torch = card.torch
        self.card = card
        self.bytes = (256 if card.cuda else 16) << 20
        count = self.bytes // 8
        random = torch.Generator().manual_seed(card.index)
        content = torch.empty(count, dtype=torch.int64).random_(generator=random)
        self.host = content.pin_memory() if card.cuda else content
        self.back = torch.zeros(count, dtype=torch.int64, pin_memory=card.cuda)
        self.there = torch.zeros(count, dtype=torch.int64, device=card.device)

    def to_device(self) -> None:
        self.there.copy_(self.host, non_blocking=True)

    def to_host(self) -> None:
        self.back.copy_(self.there, non_blocking=True)

    def wrong(self) -> int:
        """Bytes that are not what they were, after both ways."""
        torch = self.card.torch
        self.back.zero_()
        self.to_device()
        self.to_host()
        self.card.wait()
        return int((self.host.view(torch.uint8) != self.back.view(torch.uint8)).sum().item())


def _rate(pair: _Pair, name: str, work: Callable[[], None], seconds: float) -> None:
    with workload.phase(name, pair.card.index):
        rounds = pair.card.measure(work, seconds, 1)
    workload.figure(
        name,
        pair.bytes / rounds.median / 1e9,
        "GB/s",
        gpu=pair.card.index,
        **rounds.more,
        bytes=pair.bytes,
    )


def _rates(pair: _Pair, workers: int, seconds: float, barrier: Any) -> None:
    card = pair.card
    steps = 2 * workers + 2
    ways = ((_TO, pair.to_device), (_FROM, pair.to_host))
    for work in (pair.to_device, pair.to_host, pair.to_device, pair.to_host):
        work()
    card.wait()
    for number, (name, work) in enumerate(ways):
        for turn in range(workers):
            barrier.wait()
            if turn == card.index:
                workload.progress((number * workers + turn) / steps, f"{name}, {card.who} alone")
                _rate(pair, name, work, seconds)
    for number, (name, work) in enumerate(ways):
        barrier.wait()
        workload.progress((2 * workers + number) / steps, f"{name}, all together")
        _rate(pair, name + _TOGETHER, work, 2 * seconds)
    barrier.wait()
    workload.figure("wrong", pair.wrong(), gpu=card.index)


def _keep_busy(pair: _Pair, seconds: float) -> None:
    torch = pair.card.torch
    ways = (
        [torch.cuda.Stream(pair.card.device), torch.cuda.Stream(pair.card.device)] if pair.card.cuda else []
    )
    other = torch.zeros_like(pair.there)

    def both() -> None:
        if not ways:
            pair.to_device()
            pair.back.copy_(other)
            return
        with torch.cuda.stream(ways[0]):
            pair.to_device()
        with torch.cuda.stream(ways[1]):
            pair.back.copy_(other, non_blocking=True)
        pair.card.wait()

    both()
    with workload.phase("link", pair.card.index):
        rounds = pair.card.measure(both, seconds, 1)
    workload.figure("moved", 2 * pair.bytes * rounds.more["repeats"] / 1e9, "GB", gpu=pair.card.index)


def _work(torch: ModuleType, options: Any, barrier: Any, index: int) -> None:
    addresses = [address for address in options.addresses.split(",") if address]
    near = team.local_cpus(addresses[index]) if index < len(addresses) else set()
    if near:
        # Memory is pinned where the process runs: on the other processor's side it would be measured as well.
        os.sched_setaffinity(0, near)
    card = cards.Card(torch, options.device, index)
    pair = _Pair(card)
    small = options.size == "small"
    if options.part == "link":
        _keep_busy(pair, 6.0 if card.cuda else 0.5)
    else:
        _rates(pair, options.workers, (1.0 if small else 3.0) if card.cuda else 0.3, barrier)
    workload.progress(1, f"{card.who} is done")


def main() -> None:
    parser = workload.parser(__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("link", "rates"), required=True)
    parser.add_argument(
        "--addresses", default="", help="PCI addresses of the GPUs in their order, with commas between"
    )
    options = parser.parse_args()
    torch = cards.torch_for(options.device)
    workload.begin("transfers", options, **cards.versions(torch))
    barrier = team.barrier(options.workers)
    team.run(options.workers, options.device, lambda index: _work(torch, options, barrier, index))
    workload.end()


if __name__ == "__main__":
    main()
