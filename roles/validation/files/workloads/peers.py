# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPU reaches the memory of which, and how fast and correctly does data go from one to the other?

Without peer access, CUDA takes the copy through the host's memory: slower, and right all the same.
"""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

import cards
import team
import workload

_BYTES = 256 << 20
_LEAST = 5


def _copy(torch: ModuleType, source: Any, target: Any, seconds: float) -> cards.Rounds:
    def wait() -> None:
        for one in (source, target):
            torch.cuda.synchronize(one.device)

    for _round in range(2):
        target.copy_(source)
    wait()
    rounds: list[float] = []
    end = time.monotonic() + seconds
    while len(rounds) < _LEAST or time.monotonic() < end:
        # Two cards have two clocks; the host's is good enough for a copy of milliseconds.
        start = time.perf_counter()
        target.copy_(source, non_blocking=True)
        wait()
        rounds.append(time.perf_counter() - start)
    return cards.Rounds(rounds)


def _pair(torch: ModuleType, start: int, to: int, seconds: float) -> None:
    access = bool(torch.cuda.can_device_access_peer(start, to))
    ends: dict[str, Any] = {"from": start, "to": to}
    workload.figure("access", access, **ends)
    random = torch.Generator(f"cuda:{start}").manual_seed(start * 64 + to)
    source = torch.empty(_BYTES // 8, dtype=torch.int64, device=f"cuda:{start}").random_(generator=random)
    target = torch.zeros(_BYTES // 8, dtype=torch.int64, device=f"cuda:{to}")
    rounds = _copy(torch, source, target, seconds)
    workload.figure(
        "copy",
        _BYTES / rounds.median / 1e9,
        "GB/s",
        **ends,
        **rounds.more,
        bytes=_BYTES,
    )
    wrong = int((source.cpu() != target.cpu()).sum().item())
    workload.figure("wrong", wrong, **ends)


def _work(torch: ModuleType, workers: int, seconds: float) -> None:
    cards.Card(torch, "cuda", workers - 1)
    pairs = [(start, to) for start in range(workers) for to in range(workers) if start != to]
    with workload.phase("copy"):
        for done, (start, to) in enumerate(pairs):
            workload.progress(done / len(pairs), f"from GPU {start} to GPU {to}")
            try:
                _pair(torch, start, to, seconds)
            except RuntimeError as problem:
                workload.fail(f"GPU {start} to GPU {to}: {team.explain(problem)}", gpu=start)


def main() -> None:
    options = workload.parser(__doc__.splitlines()[0]).parse_args()
    torch = cards.torch_for(options.device)
    workload.begin("peers", options, **cards.versions(torch))
    if options.device == "cpu":
        workload.fail("there are no peers on a CPU")
    seconds = 0.2 if options.size == "small" else 0.5
    team.run(1, options.device, lambda _unused: _work(torch, options.workers, seconds))
    workload.end()


if __name__ == "__main__":
    main()
