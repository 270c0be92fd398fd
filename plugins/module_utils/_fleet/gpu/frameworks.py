# SPDX-License-Identifier: GPL-3.0-or-later
"""From what to install for a framework to the environment it lives in: requirements, indexes, variables, launchers, lock.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import wheels
from .frameworks_cpu import INDEX as CPU
from .stack_frameworks import PYPI
from .stack_request import FRAMEWORKS, JAX, PYTORCH, TENSORFLOW, VLLM

TITLES = {PYTORCH: "PyTorch", TENSORFLOW: "TensorFlow", JAX: "JAX", VLLM: "vLLM"}

# The resolver names JAX's extra and leaves its version open; an environment needs one.
JAX_VERSION = "0.10.2"

# Beside the framework itself. A wish for others gets a lock of its own.
COMPANIONS: dict[str, tuple[str, ...]] = {
    PYTORCH: ("numpy", "torchvision"),
    TENSORFLOW: (),
    JAX: (),
    VLLM: (),
}

# Command on PATH -> program of the environment.
LAUNCHERS: dict[str, dict[str, str]] = {
    PYTORCH: {"python-pytorch": "python", "torchrun": "torchrun"},
    TENSORFLOW: {"python-tensorflow": "python"},
    JAX: {"python-jax": "python"},
    VLLM: {"python-vllm": "python", "vllm": "vllm"},
}

# GiB that a new environment takes, with what its wheels take in the cache; measured for the CPU, else rounded up from the
# sizes of the wheels.
DISK_GIB: dict[str, tuple[float, float]] = {
    PYTORCH: (1.5, 9.0),
    TENSORFLOW: (2.5, 7.0),
    JAX: (0.8, 6.0),
    VLLM: (5.0, 14.0),
}

# Triton compiles small C programs when a model is loaded, against Python's headers.
_COMPILER = ("gcc", "libc6-dev", "python3-dev")


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment.

    Attributes:
        name: version and index, the first part of its key.
        requirements: what its lock is made from.
        index_urls: indexes that are asked before the default one.
        lock: the name of its lock, without the suffix.
        variables: set in this environment and nowhere else; `{site}` stands for its site-packages.
        disk_gib: what it takes, about.
        packages: packages of the distribution that it needs to run.
    """

    framework: str
    title: str
    version: str
    index: str
    name: str
    requirements: tuple[str, ...]
    index_urls: tuple[str, ...]
    lock: str
    variables: dict[str, str]
    launchers: dict[str, str]
    disk_gib: float
    packages: tuple[str, ...]
    note: str
    unverified: str


def environment(
    name: str,
    answer: Mapping[str, Any],
    *,
    index_url: str = "",
    companions: Sequence[str] | None = None,
    jupyter: bool = False,
    libcuda: str = "",
) -> Environment:
    """The environment of a framework that can be had.

    Args:
        name: the framework.
        answer: what to install, as `stack_frameworks.frameworks` or `frameworks_cpu.answers` has it.
        index_url: an index to ask first, instead of the framework's own; `{index}` stands for the name of the wheel index.
        companions: what else to install; None: the usual.
        jupyter: whether it is to be a Jupyter kernel.
        libcuda: folder of the driver's CUDA library.
    """
    index, version = answer["index"], answer["version"] or JAX_VERSION
    usual = sorted(COMPANIONS[name])
    with_them = sorted({*(usual if companions is None else companions), *(("ipykernel",) if jupyter else ())})
    requirements = (_package(name, version, answer), *with_them)
    lock = f"{name}-{version}-{index}"
    if with_them != usual:
        lock += f"-{_digest(' '.join(with_them))[:8]}"
    return Environment(
        framework=name,
        title=TITLES[name],
        version=version,
        index=index,
        name=f"{version}-{index}",
        requirements=requirements,
        index_urls=_index_urls(name, version, answer, index_url),
        lock=lock,
        variables=_variables(name, index, libcuda),
        launchers=LAUNCHERS[name],
        disk_gib=DISK_GIB[name][index != CPU],
        packages=_COMPILER if name == VLLM or (name == PYTORCH and index != CPU) else (),
        note=answer["note"],
        unverified=answer["unverified"],
    )


def _package(name: str, version: str, answer: Mapping[str, Any]) -> str:
    if name == JAX and not answer["version"]:
        return f"{answer['package']}=={version}"
    if _on_pypi(name, version, answer["index"]):
        return f"torch=={version}"
    return str(answer["package"])


def _on_pypi(name: str, version: str, index: str) -> bool:
    """Whether it is the build of PyTorch that is on PyPI, where no version names its CUDA."""
    known = wheels.TORCH.get(wheels.minor_release(version)) if name == PYTORCH else None
    return known is not None and known.default == index


def _index_urls(name: str, version: str, answer: Mapping[str, Any], index_url: str) -> tuple[str, ...]:
    if index_url:
        return (index_url.replace("{index}", answer["index"]),)
    if answer["wheel_index_url"] == PYPI or _on_pypi(name, version, answer["index"]):
        return ()
    return (answer["wheel_index_url"],)


def _variables(name: str, index: str, libcuda: str) -> dict[str, str]:
    if index == CPU:
        return {"VLLM_NO_USAGE_STATS": "1"} if name == VLLM else {}
    triton = {"TRITON_LIBCUDA_PATH": libcuda} if libcuda else {}
    return {
        PYTORCH: triton,
        # By default either takes nearly all memory of every GPU at once, and nothing else could run beside it.
        JAX: {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        TENSORFLOW: {
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            # Otherwise XLA looks for libdevice in the CUDA toolkit of the machine, which has none.
            "XLA_FLAGS": "--xla_gpu_cuda_data_dir={site}/nvidia/cuda_nvcc",
        },
        VLLM: {**triton, "CC": "/usr/bin/gcc", "VLLM_NO_USAGE_STATS": "1"},
    }[name]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def key(name: str, lock: str) -> str:
    """The name of an environment's folder: version, index, and the lock's digest."""
    return f"{name}-{_digest(lock)[:12]}"


def plain(one: Environment) -> dict[str, Any]:
    """The same in JSON's types."""
    return {field: list(value) if isinstance(value, tuple) else value for field, value in asdict(one).items()}


def unsupported(answers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """The frameworks that cannot be had, each with the reason and what to take instead."""
    return [
        {
            "framework": name,
            "title": TITLES[name],
            "says": answers[name]["says"],
            "instead": answers[name]["instead"],
        }
        for name in FRAMEWORKS
        if name in answers and not answers[name]["supported"]
    ]
