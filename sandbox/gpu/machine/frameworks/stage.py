# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer is given: the simulated GPUs, the options of the workload, and its own way to print lines. SIMULATED."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType

from .. import clients, performance
from ..gpu import Gpu
from ..places import Machine, read_json

PACE_VARIABLE = "GPUMESH_SIMULATED_PACE"
"""How many seconds what takes a while takes here. A file of the name ``pace`` beside the machine's profile says it, too."""
PACE = 2.4
"""A little more than the time between two readings of the sensors: what is judged by them must last so long."""
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"


class Stage:
    """Where a workload's answer is played.

    Attributes:
        framework: the package that was imported.
        versions: of the packages, as the workload's ``begin`` line tells them.
        gpus: those that it works on.
        seen: all that it could.
    """

    def __init__(
        self,
        framework: str,
        versions: Mapping[str, str],
        architectures: Sequence[str],
        machine: Machine,
        gpus: Sequence[Gpu],
        lines: ModuleType,
    ) -> None:
        self.framework = framework
        self.versions = dict(versions)
        self.machine = machine
        self.gpus = list(gpus)
        self.seen = list(gpus)
        self._architectures = architectures
        self._lines = lines
        self._steps, self._done = 1, 0
        said = read_json(machine.settings / "pace", PACE)
        self._pace = float(os.environ.get(PACE_VARIABLE) or said)

    def options(self, **more: object) -> argparse.Namespace:
        """Those that all workloads take, and the named ones with what they are unless they are given."""
        parser = argparse.ArgumentParser(allow_abbrev=False)
        parser.add_argument("--device", default="cuda")
        parser.add_argument("--workers", type=int, default=1)
        parser.add_argument("--size", default="full")
        for name, value in more.items():
            if isinstance(value, bool):
                parser.add_argument(f"--{name.replace('_', '-')}", action="store_true")
            else:
                kind = type(value) if value is not None else str
                parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=value)
        found, _others = parser.parse_known_args(sys.argv[1:])
        return found

    # What it prints

    def begin(self, workload: str, gpus: Sequence[Gpu] | None = None, **versions: str) -> None:
        used = self.gpus if gpus is None else gpus
        self._lines.say(
            "begin",
            workload=workload,
            device="cuda",
            gpus=[gpu.index for gpu in used],
            simulated=True,
            versions=versions or self.versions,
        )

    def figure(
        self,
        name: str,
        value: float | int | str | bool | None,
        unit: str = "",
        *,
        gpu: Gpu | None = None,
        **more: object,
    ) -> None:
        self._lines.figure(name, value, unit, gpu=None if gpu is None else gpu.index, **more)

    def fail(self, says: str, *, gpu: Gpu | None = None) -> None:
        """Say why it cannot go on, and end."""
        self._lines.fail(says, gpu=None if gpu is None else gpu.index)

    def refuse(self, gpu: Gpu) -> None:
        """End as a program ends whose first operation has no kernel for the chip."""
        self.fail(f"GPU {gpu.index}: {NO_KERNEL}", gpu=gpu)

    def progress(self, done: float, says: str) -> None:
        self._lines.progress(done, says)

    def steps(self, count: int) -> None:
        """How many phases there will be, for the progress."""
        self._steps, self._done = max(1, count), 0

    @contextmanager
    def phase(
        self,
        name: str,
        gpu: Gpu | None = None,
        *,
        percent: int = 100,
        seconds: float | None = None,
        gpus: Sequence[Gpu] | None = None,
    ) -> Iterator[None]:
        """Work for a while: on one GPU, on those, or on all. What is asked of the GPUs within is asked at work."""
        working = [gpu] if gpu is not None else self.gpus if gpus is None else gpus
        where = f" on GPU {gpu.index}" if gpu is not None else ""
        self._lines.progress(self._done / self._steps, f"{name}{where}")
        start = time.time()
        with clients.working(self.machine, {one.address: percent for one in working}):
            self.rest(PACE if seconds is None else seconds)
            yield
        self._over(name, gpu, start)
        self._done += 1

    @contextmanager
    def all_at_once(
        self, name: str, gpus: Sequence[Gpu], *, percent: int = 100, seconds: float | None = None
    ) -> Iterator[None]:
        """Work on several, in a phase of each."""
        self._lines.progress(self._done / self._steps, name)
        start = time.time()
        with clients.working(self.machine, {one.address: percent for one in gpus}):
            self.rest(PACE if seconds is None else seconds)
            yield
        for gpu in gpus:
            self._over(name, gpu, start)
        self._done += 1

    def _over(self, name: str, gpu: Gpu | None, start: float) -> None:
        self._lines.say(
            "phase", name=name, gpu=None if gpu is None else gpu.index, begin=start, end=time.time()
        )

    def rest(self, seconds: float) -> None:
        """Let time pass, at the pace that was set."""
        time.sleep(seconds * self._pace / PACE)

    def end(self) -> None:
        self._lines.progress(1.0, "done")
        self._lines.end()

    # What the GPUs make of it

    @property
    def architectures(self) -> str:
        """What the package was built for, as PyTorch tells it."""
        return " ".join(f"sm_{one.replace('.', '')}" for one in self._architectures)

    def runs(self, gpu: Gpu) -> bool:
        """Whether the package has kernels for the chip: code runs on later chips of its own major version, and on no others."""
        if gpu.profile.broken("no-kernels"):
            return False
        major, minor = map(int, gpu.card.compute_capability.split("."))
        versions = (tuple(map(int, one.split("."))) for one in self._architectures)
        return any(major == first and minor >= second for first, second in versions)

    def noise(self, gpu: Gpu, salt: str, share: float = 0.004) -> float:
        """A factor near 1, the same for the same card."""
        return performance.spread(gpu, salt, share)
