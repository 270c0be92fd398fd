# SPDX-License-Identifier: GPL-3.0-or-later
"""Burn one GPU: fill its memory with products of random matrices, again and again, and see that all of them are the same bit by bit.

A right product is worked out once at the start, and a part of it on the CPU in double precision. Then every round multiplies the
same two matrices into every place of the memory, moves all of them on by a place a few times at full bandwidth, and compares them
with the right one. A chip that computes wrongly and memory that forgets are both seen, and counted.

Unlike the other workloads it is started once a GPU, and runs until it reads the line ``stop`` on its standard input, is sent
SIGTERM, or ``--seconds`` are over. An input that ends without that line means that whoever started it is gone; then it goes, too.

  {"event": "figure", "name": "memory", "gpu": 1, "value": 28.1, "unit": "GiB", "share": 0.9}
  {"event": "figure", "name": "reference", "gpu": 1, "value": true, "unit": "", "difference": 0.003, "allowed": 0.02}
  {"event": "progress", "done": 0, "says": "burning"}                    the first round begins
  {"event": "figure", "name": "rate", "gpu": 1, "value": 231.4, "unit": "TFLOPS", "precision": "bf16", "traffic": 1480.2,
   "checked": 123456789, "mismatches": 0, "rounds": 12}                  every few seconds; traffic in GB/s, counts since the start
  {"event": "figure", "name": "mismatch", "gpu": 1, "value": 17, "unit": "", "precision": "bf16"}    at once
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

# Before any framework is loaded. The same product twice is the same bit by bit only if the libraries are told to see to it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")

import workload

COPIES = 4
"""So often everything is copied in a round; the multiplications alone leave the memory half idle."""
BATCH = 16
"""Products that are handed over at once; between them it may be told to stop."""
SPARED = 512 * 1024**2
"""Bytes that are left to the libraries."""
ROWS = 64
"""Of a product, worked out on the CPU as well."""
CPU_BYTES = {"small": 8 * 1024**2, "full": 64 * 1024**2}


@dataclass
class Kind:
    """Matrices of one precision.

    Attributes:
        bits: the integers of the same size, by which two products are compared bit by bit.
        allowed: how far the product may be from the one of the CPU, as a share of its greatest value.
    """

    name: str
    dtype: Any
    bits: Any
    n: int
    allowed: float
    a: Any = None
    b: Any = None
    right: Any = None
    spare: Any = None

    @property
    def bytes(self) -> int:
        """Of one product."""
        return self.n * self.n * int(self.dtype.itemsize)

    def prepare(self, torch: Any, device: str) -> None:
        """Random matrices, and their product."""
        self.a = torch.randn(self.n, self.n, device=device, dtype=self.dtype)
        self.b = torch.randn(self.n, self.n, device=device, dtype=self.dtype)
        self.right = torch.mm(self.a, self.b)
        self.spare = torch.empty_like(self.right)

    def difference(self) -> float:
        """How far the first rows are from what the CPU makes of them in double precision."""
        expected = self.a[:ROWS].cpu().double() @ self.b.cpu().double()
        found = self.right[:ROWS].cpu().double()
        return float((found - expected).abs().max() / expected.abs().max())


class Period:
    """What was done since it was last told."""

    def __init__(self) -> None:
        self.flop = self.seconds = self.copied = self.copying = 0.0

    @property
    def rate(self) -> float | None:
        """TFLOPS."""
        return self.flop / self.seconds / 1e12 if self.seconds else None

    @property
    def traffic(self) -> float | None:
        """GB/s, reading and writing counted."""
        return self.copied / self.copying / 1e9 if self.copying else None


class Burn:
    """One GPU, or one process on the CPU.

    Args:
        torch: the framework.
        stop: set when it is to end.
        every: seconds from one line of figures to the next.
    """

    def __init__(self, torch: Any, options: Any, stop: threading.Event) -> None:
        self._torch = torch
        self._stop = stop
        self._gpu: int = options.gpu
        self._cuda = options.device == "cuda"
        self._device = f"cuda:{options.gpu}" if self._cuda else "cpu"
        self._every: float = options.every
        self._kinds = self._precisions(options.size)
        self._main = self._kinds[0]
        self._arena: Any = None
        self._period = Period()
        self._told = time.monotonic()
        self.checked = self.mismatches = self.rounds = 0

    def _precisions(self, size: str) -> list[Kind]:
        torch = self._torch
        if not self._cuda:
            return [Kind("fp32", torch.float32, torch.int32, 256, 1e-4)]
        n = 2048 if size == "small" else 8192
        if torch.cuda.get_device_capability(self._device) >= (8, 0):
            half = Kind("bf16", torch.bfloat16, torch.int16, n, 2e-2)
        else:
            half = Kind("fp16", torch.float16, torch.int16, n, 5e-3)
        return [half, Kind("fp32", torch.float32, torch.int32, n, 1e-4)]

    def prepare(self, memory: float, size: str) -> None:
        """Take the memory, and make sure that what everything is compared with is right."""
        self._torch.manual_seed(self._gpu + 1)
        for kind in self._kinds:
            kind.prepare(self._torch, self._device)
        self._arena, held, share = self._take(memory, size)
        workload.figure("memory", round(held / 2**30, 2), "GiB", gpu=self._gpu, share=share)
        for kind in self._kinds:
            found = kind.difference()
            right = found <= kind.allowed
            workload.figure(
                "reference",
                right,
                gpu=self._gpu,
                precision=kind.name,
                difference=float(f"{found:.3g}"),
                allowed=kind.allowed,
            )
            if not right:
                workload.fail(
                    f"a product in {kind.name} on GPU {self._gpu} is {found:.2g} of its greatest value away from the CPU's "
                    f"(allowed: {kind.allowed:g})",
                    gpu=self._gpu,
                )

    def _take(self, memory: float, size: str) -> tuple[Any, int, float | None]:
        """As much of the memory as was asked for, or as there is."""
        torch = self._torch
        if not self._cuda:
            return torch.empty(CPU_BYTES[size], dtype=torch.uint8), CPU_BYTES[size], None
        torch.cuda.synchronize(self._device)
        free, total = torch.cuda.mem_get_info(self._device)
        held = torch.cuda.memory_reserved(self._device)
        room = min(int(total * memory) - held, free - SPARED)
        least = 2 * max(kind.bytes for kind in self._kinds)
        while room >= least:
            try:
                arena = torch.empty(room, dtype=torch.uint8, device=self._device)
            except torch.cuda.OutOfMemoryError:
                room -= total // 50
                continue
            return arena, room + held, round((room + held) / total, 3)
        return workload.fail(
            f"GPU {self._gpu} has {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, too little to burn it; something else uses it",
            gpu=self._gpu,
        )

    def places(self, kind: Kind) -> list[Any]:
        """The memory as products of one precision."""
        count = self._arena.numel() // kind.bytes
        return [
            self._arena[place * kind.bytes : (place + 1) * kind.bytes].view(kind.dtype).view(kind.n, kind.n)
            for place in range(count)
        ]

    def run(self, seconds: float | None) -> None:
        """Burn until told to stop."""
        deadline = time.monotonic() + seconds if seconds else None
        while not self._stop.is_set() and (deadline is None or time.monotonic() < deadline):
            # Three rounds of four are on the tensor cores, which draw the most.
            kind = self._kinds[-1] if self.rounds % 4 == 3 else self._main
            places = self.places(kind)
            self._multiply(kind, places)
            self._copy(kind, places)
            self._compare(kind, places)
            self.rounds += 1
        self._tell(force=True)

    def _multiply(self, kind: Kind, places: list[Any]) -> None:
        for start in range(0, len(places), BATCH):
            if self._stop.is_set():
                return
            batch = places[start : start + BATCH]
            began = time.perf_counter()
            for place in batch:
                self._torch.mm(kind.a, kind.b, out=place)
            self._wait()
            if kind is self._main:
                self._period.seconds += time.perf_counter() - began
                self._period.flop += 2.0 * kind.n**3 * len(batch)
            self._tell()

    def _copy(self, kind: Kind, places: list[Any]) -> None:
        """Move every product to the place before it. A wrong one moves along, and is found when all are compared."""
        for _round in range(COPIES):
            if self._stop.is_set():
                return
            began = time.perf_counter()
            kind.spare.copy_(places[0])
            for place, following in zip(places, [*places[1:], kind.spare], strict=True):
                place.copy_(following)
            self._wait()
            self._period.copying += time.perf_counter() - began
            self._period.copied += 2.0 * kind.bytes * (len(places) + 1)
            self._tell()

    def _compare(self, kind: Kind, places: list[Any]) -> None:
        """All of them, unless it is to stop: then some were not written in this round."""
        if self._stop.is_set():
            return
        wrong = self.count(kind, places)
        self.checked += kind.n * kind.n * len(places)
        if wrong:
            self.mismatches += wrong
            workload.figure("mismatch", wrong, gpu=self._gpu, precision=kind.name)
        self._tell()

    def count(self, kind: Kind, places: list[Any]) -> int:
        """How many values differ from the right ones."""
        right = kind.right.view(kind.bits)
        wrong = self._torch.zeros((), dtype=self._torch.int64, device=self._device)
        for place in places:
            wrong += (place.view(kind.bits) != right).sum()
        return int(wrong.item())

    def _wait(self) -> None:
        if self._cuda:
            self._torch.cuda.synchronize(self._device)

    def _tell(self, force: bool = False) -> None:
        if not force and time.monotonic() - self._told < self._every:
            return
        rate, traffic = self._period.rate, self._period.traffic
        workload.figure(
            "rate",
            None if rate is None else round(rate, 4),
            "TFLOPS",
            gpu=self._gpu,
            precision=self._main.name,
            traffic=None if traffic is None else round(traffic, 2),
            checked=self.checked,
            mismatches=self.mismatches,
            rounds=self.rounds,
        )
        self._period, self._told = Period(), time.monotonic()


def watch(stop: threading.Event) -> None:
    """Read the standard input until it says stop. Where it ends before, nobody is there any more who could say it."""
    heard = b""
    while b"stop\n" not in heard:
        chunk = os.read(0, 1024)
        if not chunk:
            os._exit(1)
        heard = heard[-8:] + chunk
    stop.set()


def main() -> None:
    """Burn."""
    parser = workload.parser(__doc__ or "")
    parser.add_argument("--gpu", type=int, default=0, help="the one to burn, as nvidia-smi numbers them")
    parser.add_argument("--memory", type=float, default=0.9, help="share of its memory to fill")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two lines of figures")
    parser.add_argument("--seconds", type=float, default=0.0, help="end after so long; 0: when told")
    options = parser.parse_args()
    # Where memory runs short, the kernel is to end a worker, not what writes down that it did.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")
    stop = threading.Event()
    torch = workload.framework("torch")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_unused: stop.set())
    workload.say(
        "begin",
        workload="burn",
        device=options.device,
        gpus=[options.gpu],
        simulated=False,
        versions={"torch": str(torch.__version__), "cuda": torch.version.cuda or "none"},
    )
    if not options.seconds:
        threading.Thread(target=watch, args=(stop,), daemon=True).start()
    if options.device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // max(1, options.workers)))
    elif options.gpu >= torch.cuda.device_count():
        workload.fail(
            f"PyTorch sees {torch.cuda.device_count()} GPUs, and GPU {options.gpu} was to burn",
            gpu=options.gpu,
        )
    else:
        torch.cuda.set_device(options.gpu)
        torch.backends.cuda.matmul.allow_tf32 = False
    try:
        burn = Burn(torch, options, stop)
        burn.prepare(options.memory, options.size)
        workload.progress(0.0, "burning")
        burn.run(options.seconds or None)
    except RuntimeError as problem:
        # What CUDA says of a GPU that has died, or of kernels that were not built for it.
        said = str(problem).strip().splitlines()
        workload.fail(said[0] if said else "PyTorch gave up without a word", gpu=options.gpu)
    workload.end()


if __name__ == "__main__":
    main()
    # A thread may still wait for the standard input.
    sys.stdout.flush()
    os._exit(0)
