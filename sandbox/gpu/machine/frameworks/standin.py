# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stand-in of a framework does when it is imported. SIMULATED."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType

from ..gpu import Gpu, visible
from ..hardware import MARK
from ..places import Machine
from . import burning, compute, steps
from .stage import Stage

ANSWERS: dict[str, Callable[[Stage], None]] = {
    "torch_step": steps.step,
    "tensorflow_step": steps.step,
    "jax_step": steps.step,
    "llm": steps.llm,
    "serve": steps.serve,
    "burn": burning.burn,
    **compute.ANSWERS,
}
"""By the name of the workload's file."""
_PACKAGES = ("torch", "torchvision", "tensorflow", "jax", "jaxlib", "vllm")


def imported(framework: str, version: str, cuda: str, architectures: Sequence[str]) -> list[Gpu]:
    """Answer in the place of the workload that imports it, and end; in any other program say what this is.

    Returns:
        The simulated GPUs that the program sees.
    """
    lines = _workload()
    machine = Machine()
    gpus = [gpu for gpu in visible(machine) if not gpu.lost and not gpu.mute] if machine.state() else []
    if lines is None:
        print(
            f"{MARK}: {framework} {version} is a stand-in of the gpumesh.fleet sandbox, and computes nothing",
            file=sys.stderr,
        )
        return gpus
    _play(lines, machine, gpus, framework, cuda, architectures)
    sys.exit(0)


def _workload() -> ModuleType | None:
    """The lines of the workload that is being run; None: it is another program."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not file or Path(file).stem not in ANSWERS or not Path(file).with_name("workload.py").exists():
        return None
    return sys.modules.get("workload")


def _play(
    lines: ModuleType,
    machine: Machine,
    gpus: list[Gpu],
    framework: str,
    cuda: str,
    architectures: Sequence[str],
) -> None:
    stage = Stage(framework, {**installed(), "cuda": cuda}, architectures, machine, gpus, lines)
    options = stage.options()
    if options.device != "cuda":
        lines.fail(
            f"{framework} is a stand-in of the gpumesh.fleet sandbox ({MARK}), which knows nothing but simulated GPUs"
        )
    if not gpus:
        lines.fail(f"{framework} finds no GPU ({MARK})")
    stage.gpus = gpus[: options.workers]
    ANSWERS[Path(str(sys.modules["__main__"].__file__)).stem](stage)


def installed() -> dict[str, str]:
    """The versions of the stand-ins that are installed beside it."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
