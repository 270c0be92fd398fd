# SPDX-License-Identifier: GPL-3.0-or-later
"""CUDA toolkits, and the wheels of PyTorch, TensorFlow, JAX and vLLM: what there is, and which chips their kernels are for.

Wheels bring a CUDA runtime of their own: a toolkit on the machine is needed only to compile. The lists of architectures are those
of the projects' own build scripts. This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .branches import numbers

# The driver that each toolkit comes with. Within a major version a toolkit's programs run on older drivers as well.
TOOLKITS: dict[str, str] = {
    "11.8": "520.61.05",
    "12.0": "525.60.13",
    "12.1": "530.30.02",
    "12.2": "535.54.03",
    "12.3": "545.23.06",
    "12.4": "550.54.14",
    "12.5": "555.42.02",
    "12.6": "560.28.03",
    "12.8": "570.86.10",
    "12.9": "575.51.03",
    "13.0": "580.65.06",
    "13.1": "590.44.01",
    "13.2": "595.45.04",
    "13.3": "610.43.02",
    "13.4": "615.71.09",
}
UNVERIFIED_TOOLKITS = ("11.8", "13.4")

# The oldest driver for every toolkit of a major version: NVIDIA's minor version compatibility.
MAJOR_FLOOR: dict[int, str] = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}

# cuDNN for CUDA 13 and everything after 9.10.2 has no kernels for chips before this.
CUDNN_CAPABILITY = (7, 5)

_OLD = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0")
_CU128_VOLTA = ("7.0", "7.5", "8.0", "8.6", "9.0", "10.0", "12.0")
_CU128 = ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")

# There is no 8.9 anywhere: Ada runs the code of 8.6.
# TensorFlow 2.18 and later; the list is not in its documentation, the missing 12.0 is in its issues.
_TENSORFLOW = ("6.0", "7.0", "8.0", "8.9", "9.0")


@dataclass(frozen=True, slots=True)
class Torch:
    """One minor release of PyTorch.

    Attributes:
        indexes: the wheel indexes it is in, with the chips that have kernels there; the one on PyPI last.
        unverified: why it is not chosen unasked; empty: it is sound.
    """

    version: str
    indexes: dict[str, tuple[str, ...]]
    default: str
    unverified: str = ""


TORCH: dict[str, Torch] = {
    one.version: one
    for one in (
        Torch("2.1", {"cu118": _OLD, "cu121": _OLD}, "cu121"),
        Torch("2.2", {"cu118": _OLD, "cu121": _OLD}, "cu121"),
        Torch("2.3", {"cu118": _OLD, "cu121": _OLD}, "cu121"),
        Torch("2.4", {"cu118": _OLD, "cu121": _OLD, "cu124": _OLD}, "cu121"),
        Torch("2.5", {"cu118": _OLD, "cu121": _OLD, "cu124": _OLD}, "cu124"),
        Torch("2.6", {"cu118": _OLD, "cu124": _OLD, "cu126": _OLD}, "cu124"),
        Torch("2.7", {"cu118": _OLD, "cu126": _OLD, "cu128": _CU128_VOLTA}, "cu126"),
        Torch("2.8", {"cu126": _OLD, "cu128": _CU128_VOLTA, "cu129": _CU128}, "cu128"),
        Torch("2.9", {"cu126": _OLD, "cu128": _CU128_VOLTA, "cu130": _CU128}, "cu128"),
        Torch("2.10", {"cu126": _OLD, "cu128": _CU128_VOLTA, "cu130": _CU128}, "cu128"),
        Torch("2.11", {"cu126": _OLD, "cu128": _CU128, "cu130": _CU128}, "cu130"),
        Torch("2.12", {"cu126": _OLD, "cu130": _CU128, "cu132": _CU128}, "cu130"),
        Torch("2.13", {"cu126": _OLD, "cu130": _CU128, "cu132": _CU128}, "cu130"),
        Torch(
            "2.14",
            {"cu126": _OLD, "cu130": _CU128, "cu132": _CU128},
            "cu132",
            "That PyTorch 2.14 was released: its build scripts were seen, and no release.",
        ),
    )
}
TORCH_URL = "https://download.pytorch.org/whl/{index}"


@dataclass(frozen=True, slots=True)
class Tensorflow:
    """One minor release of TensorFlow, with what it was built with."""

    version: str
    cuda: str
    cudnn: str
    architectures: tuple[str, ...]


TENSORFLOW: dict[str, Tensorflow] = {
    one.version: one
    for one in (
        Tensorflow("2.14", "11.8", "8.7", _TENSORFLOW),
        Tensorflow("2.15", "12.2", "8.9", _TENSORFLOW),
        Tensorflow("2.16", "12.3", "8.9", _TENSORFLOW),
        Tensorflow("2.17", "12.3", "8.9", _TENSORFLOW),
        Tensorflow("2.18", "12.5", "9.3", _TENSORFLOW),
        Tensorflow("2.19", "12.5", "9.3", _TENSORFLOW),
        Tensorflow("2.20", "12.5", "9.3", _TENSORFLOW),
        Tensorflow("2.21", "12.5", "9.3", _TENSORFLOW),
    )
}
TENSORFLOW_INSTEAD = (
    "NVIDIA's TensorFlow container (nvcr.io/nvidia/tensorflow), or a wheel built for the chip by oneself"
)

# vLLM pins its PyTorch exactly.
VLLM: dict[str, tuple[str, str]] = {
    "0.10.0": ("2.7.1", "cu128"),
    "0.16.0": ("2.9.1", "cu128"),
    "0.17.1": ("2.10.0", "cu128"),
    "0.20.0": ("2.11.0", "cu130"),
    "0.27.1": ("2.13.0", "cu130"),
    "0.29.0": ("2.13.0", "cu130"),
}
VLLM_CAPABILITY = (7, 0)

# JAX is chosen by extra: jax[cuda13] or jax[cuda12], with the first chip each has kernels for.
JAX: dict[str, tuple[int, int]] = {"cuda13": (7, 5), "cuda12": (5, 2)}


def index_major(index: str) -> int:
    """The major CUDA version of a wheel index or extra: cu130 and cuda13 are 13."""
    return int(index.removeprefix("cuda").removeprefix("cu")[:2])


def toolkit_floor(toolkit: str) -> str:
    """The oldest driver that programs of a toolkit run on."""
    return MAJOR_FLOOR[numbers(toolkit)[0]]


@cache
def runs(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Whether a chip runs any of these: code runs on later chips of its own major version, and on no others."""
    return any(
        major == capability[0] and minor <= capability[1]
        for major, minor in (map(int, one.split(".")) for one in architectures)
    )


def minor_release(version: str) -> str:
    """The minor release of a version: 2.7.1 is of 2.7."""
    return ".".join(version.split(".")[:2])
