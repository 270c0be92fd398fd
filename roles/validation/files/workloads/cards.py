# SPDX-License-Identifier: GPL-3.0-or-later
"""A GPU, or a CPU in its place, under PyTorch: how long something takes on it, and whether what comes out is right."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import team
import workload

_ROUND_S = 0.02
"""A round has as many calls as take at least so long: a shorter one measures how well it is launched."""
_MOST_ROUNDS = 2000


class Card:
    """One of them, taken into use by this process."""

    def __init__(self, torch: ModuleType, device: str, index: int) -> None:
        self.torch = torch
        self.index = index
        self.who = team.name_of(device, index)
        self.cuda = device == "cuda"
        if not self.cuda:
            # So many processes share the CPUs that each has one: more threads than CPUs make all of them slow.
            torch.set_num_threads(1)
            self.device = torch.device("cpu")
            return
        seen = torch.cuda.device_count()
        if index >= seen:
            built = torch.version.cuda or "no CUDA"
            workload.fail(
                f"{self.who}: PyTorch {torch.__version__} (built for {built}) sees {seen} GPUs", gpu=index
            )
        self.device = torch.device("cuda", index)
        torch.cuda.set_device(self.device)

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability; (0, 0) for a CPU."""
        return tuple(self.torch.cuda.get_device_capability(self.device)) if self.cuda else (0, 0)

    def describe(self) -> None:
        """The figure ``device``."""
        if not self.cuda:
            workload.figure("device", "CPU", gpu=self.index)
            return
        properties = self.torch.cuda.get_device_properties(self.device)
        workload.figure(
            "device",
            properties.name,
            gpu=self.index,
            capability=f"{properties.major}.{properties.minor}",
            sms=properties.multi_processor_count,
            memory_mib=properties.total_memory >> 20,
        )

    def wait(self) -> None:
        """Until everything that was asked of it is done."""
        if self.cuda:
            self.torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any], calls: int) -> float:
        """How long so many calls take, on the card's own clock."""
        if not self.cuda:
            start = time.perf_counter()
            for _round in range(calls):
                work()
            return time.perf_counter() - start
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _round in range(2))
        begin.record()
        for _round in range(calls):
            work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000

    def warm_up(self, work: Callable[[], Any], seconds: float) -> int:
        """Call it for so long, and twice at least; how many calls make a round of `measure`."""
        work()
        self.wait()
        one = self.seconds(work, 1)
        left = seconds - one
        while left > 0:
            took = self.seconds(work, max(1, int(_ROUND_S / max(one, 1e-7))))
            left -= max(took, _ROUND_S)
            self.wait()
        return max(1, int(_ROUND_S / max(self.seconds(work, 1), 1e-7)))

    def measure(self, work: Callable[[], Any], seconds: float, calls: int, least: int = 5) -> Rounds:
        """Seconds a call, over rounds that go on for so long."""
        rounds: list[float] = []
        end = time.monotonic() + seconds
        while len(rounds) < least or (time.monotonic() < end and len(rounds) < _MOST_ROUNDS):
            rounds.append(self.seconds(work, calls) / calls)
        return Rounds(rounds)


class Rounds:
    """Seconds a call, of each round."""

    def __init__(self, seconds: list[float]) -> None:
        self.median = statistics.median(seconds)
        ordered = sorted(seconds)
        tenth = (len(ordered) - 1) // 10
        self.more: dict[str, Any] = {
            "spread": round((ordered[-1 - tenth] - ordered[tenth]) / self.median, 4),
            "repeats": len(ordered),
        }


def torch_for(device: str) -> ModuleType:
    """PyTorch; for the first process, which must not touch a GPU."""
    torch = workload.framework("torch")
    if device == "cuda" and torch.version.cuda is None:
        workload.fail(
            f"PyTorch {torch.__version__} is built without CUDA", missing="a PyTorch that is built with CUDA"
        )
    return torch


def versions(torch: ModuleType) -> dict[str, str]:
    """For the ``begin`` line."""
    return {"torch": str(torch.__version__), "cuda": torch.version.cuda or "none"}


def error_of(found: Any, exact: Any) -> float:
    """The largest difference, as a share of the largest value; infinite where it is not even a number."""
    difference: float = (found.double().cpu() - exact.double()).abs().max().item()
    largest: float = exact.double().abs().max().item()
    if math.isnan(difference):
        return float("inf")
    return difference / largest if largest else difference
