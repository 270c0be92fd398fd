# SPDX-License-Identifier: GPL-3.0-or-later
"""What all workloads share: their options, and the lines by which they tell what they do.

A workload is a program that a framework's own interpreter runs, with nothing but the standard library and that framework. It
prints one JSON object a line on standard output, and nothing else there:

    {"event": "begin", "workload": "matmul", "device": "cuda", "gpus": [0, 1], "simulated": false, "versions": {"torch": "2.13.0"}}
    {"event": "progress", "done": 0.4, "says": "bf16 on GPU 1"}
    {"event": "phase", "name": "bf16", "gpu": 1, "begin": 1764240000.1, "end": 1764240003.4}
    {"event": "figure", "name": "bf16", "gpu": 1, "value": 254.1, "unit": "TFLOPS"}
    {"event": "end"}

or, where it cannot go on, {"event": "error", "says": "...", "gpu": 1}, and then exit status 1. An end without ``end`` or ``error``
is a crash. ``missing`` in an error says that the framework, or a part of it, is not there to be tried:
{"event": "error", "missing": "torchvision", "says": "..."}. A figure may carry more keys (``spread``, ``bytes``); the suite keeps them.

Times are seconds since the epoch. GPUs are numbered as nvidia-smi does: workloads set CUDA_DEVICE_ORDER before any framework is loaded.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

# Before any framework is loaded: by default CUDA puts the fastest first.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

# Libraries print where they like; our lines keep the way out that was there first.
_LINES = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def parser(what: str) -> argparse.ArgumentParser:
    """The options that every workload takes."""
    options = argparse.ArgumentParser(description=what)
    options.add_argument("--device", choices=("cuda", "cpu"), required=True)
    options.add_argument("--workers", type=int, default=1, help="GPUs to use; on the CPU: processes")
    options.add_argument(
        "--size",
        choices=("small", "full"),
        default="full",
        help="small is for the suite quick and for the CPU",
    )
    return options


def say(event: str, **values: Any) -> None:
    """Print one line."""
    _LINES.write(json.dumps({"event": event, **values}) + "\n")


def speak_into(descriptor: int) -> None:
    """From now on lines go there: for a process of a team, whose first process passes them on."""
    global _LINES
    _LINES = os.fdopen(descriptor, "w", buffering=1)


def begin(workload: str, options: argparse.Namespace, **versions: str) -> None:
    """The first line."""
    say(
        "begin",
        workload=workload,
        device=options.device,
        gpus=list(range(options.workers)),
        simulated=False,
        versions=versions,
    )


def figure(
    name: str, value: float | int | str | bool | None, unit: str = "", *, gpu: int | None = None, **more: Any
) -> None:
    """One value."""
    say("figure", name=name, value=value, unit=unit, gpu=gpu, **more)


def progress(done: float, says: str) -> None:
    """How far it is, from 0 to 1."""
    say("progress", done=round(done, 4), says=says)


@contextmanager
def phase(name: str, gpu: int | None = None) -> Iterator[None]:
    """The time that belongs to a figure: what the sensors read in it belongs to it, too."""
    start = time.time()
    yield
    say("phase", name=name, gpu=gpu, begin=start, end=time.time())


def fail(says: str, *, gpu: int | None = None, missing: str = "") -> NoReturn:
    """Say why it cannot go on, and end."""
    say("error", says=says, gpu=gpu, **({"missing": missing} if missing else {}))
    sys.exit(1)


def framework(name: str) -> ModuleType:
    """Load a framework. Where it is not installed, or does not load, the workload ends and says so."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        fail(f"{sys.executable} has no {problem.name}", missing=problem.name or name)
    except Exception as problem:
        # Not only ImportError: a torchvision that was built for another torch ends in a RuntimeError.
        fail(f"{name} does not load under {sys.executable}: {problem}", missing=name)


def end() -> None:
    """The last line."""
    say("end")
