# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs of one machine as a process group of PyTorch: NCCL, and gloo on the CPU."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import cards
import team
import workload

_PATIENCE = datetime.timedelta(seconds=120)
_ROUND_S = 0.1
_ROUNDS = 7
_MOST_CALLS = 200


@contextmanager
def prepared(torch: ModuleType) -> Iterator[tuple[str, str]]:
    """Where the group meets, and the beginning of the names of the files that NCCL tells in how it goes; empty: it does not."""
    if not torch.distributed.is_available():
        workload.fail(
            f"PyTorch {torch.__version__} is built without torch.distributed", missing="torch.distributed"
        )
    # All are on this machine. Left to themselves both pick an interface by its name, and may find one that leads nowhere.
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with team.meeting_place() as meet:
        log = ""
        if "NCCL_DEBUG" not in os.environ:
            log = str(Path(urlsplit(meet).path).with_name("nccl"))
            os.environ.update(NCCL_DEBUG="INFO", NCCL_DEBUG_FILE=f"{log}.%p")
        yield meet, log


class Rate:
    """How fast an all-reduce was, by its slowest process."""

    def __init__(self, size: int, workers: int, seconds: list[float]) -> None:
        rounds = cards.Rounds(seconds)
        self.bus_gb_s = size * 2 * (workers - 1) / workers / rounds.median / 1e9
        self.more: dict[str, Any] = {
            "algorithm_gb_s": size / rounds.median / 1e9,
            "seconds": rounds.median,
            **rounds.more,
        }


class Group:
    """All processes, one for each GPU."""

    def __init__(self, card: cards.Card, workers: int, meet: str) -> None:
        self._distributed = card.torch.distributed
        self._torch = card.torch
        self._device = card.device
        self.workers = workers
        self.backend = "nccl" if card.cuda else "gloo"
        if card.cuda and not self._distributed.is_nccl_available():
            workload.fail(f"PyTorch {card.torch.__version__} is built without NCCL", missing="nccl")
        self._distributed.init_process_group(
            self.backend, init_method=meet, rank=card.index, world_size=workers, timeout=_PATIENCE
        )
        version = card.torch.cuda.nccl.version() if card.cuda else ""
        self.version = ".".join(map(str, version)) if isinstance(version, tuple) else str(version)

    def alone(self, index: int) -> Any:
        """A group of this process alone; all of them make theirs at the same time."""
        made = [self._distributed.new_group([one]) for one in range(self.workers)]
        return made[index]

    def add_up(self, tensor: Any) -> None:
        """The sum over all processes, in place."""
        self._distributed.all_reduce(tensor)

    def slowest(self, value: float) -> float:
        """The largest that any process has."""
        tensor = self._torch.tensor([value], dtype=self._torch.float64, device=self._device)
        self._distributed.all_reduce(tensor, op=self._distributed.ReduceOp.MAX)
        return float(tensor.item())

    def mean(self, value: float) -> float:
        """The mean over all processes."""
        tensor = self._torch.tensor([value], dtype=self._torch.float64, device=self._device)
        self.add_up(tensor)
        return float(tensor.item()) / self.workers

    def all_of(self, value: int) -> list[int]:
        """That of each process, in their order."""
        mine = self._torch.tensor([value], dtype=self._torch.int64, device=self._device)
        every = [self._torch.zeros_like(mine) for _round in range(self.workers)]
        self._distributed.all_gather(every, mine)
        return [int(one.item()) for one in every]

    def bus_bandwidth(self, card: cards.Card, tensor: Any) -> Rate:
        """Of adding up a tensor; what it holds is lost."""

        def work() -> None:
            self.add_up(tensor)

        work()
        first = self.slowest(card.seconds(work, 2) / 2)
        calls = max(1, min(_MOST_CALLS, int(_ROUND_S / max(first, 1e-6))))
        card.seconds(work, calls)
        rounds = [self.slowest(card.seconds(work, calls) / calls) for _round in range(_ROUNDS)]
        return Rate(tensor.numel() * tensor.element_size(), self.workers, rounds)

    def leave(self, barrier: Any) -> None:
        """Wait until all are done. The process ends next, and the group with it.

        Taking it down in order (destroy_process_group) hung every few runs with gloo in PyTorch 2.6: one process had gone, the other
        waited for it for ever.
        """
        barrier.wait()
