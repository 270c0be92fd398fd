# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the Python that has a framework, without loading the framework.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .check import JAX, PYTORCH, TENSORFLOW, VLLM

MODULES = {PYTORCH: "torch", TENSORFLOW: "tensorflow", JAX: "jax", VLLM: "vllm"}
TITLES = {PYTORCH: "PyTorch", TENSORFLOW: "TensorFlow", JAX: "JAX", VLLM: "vLLM"}
ENVIRONMENTS = Path("/opt/gpumesh/frameworks")
"""Where role ai_frameworks puts them."""

_SECONDS = 60
_LOOK = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


class Interpreters:
    """The Python of each framework. Each is looked for once.

    Args:
        declared: by framework, as in the profile.
        environments: where role ai_frameworks puts them.
        system: those that are asked whether they have a framework.
    """

    def __init__(
        self,
        declared: Mapping[str, str],
        *,
        environments: Path = ENVIRONMENTS,
        system: tuple[str, ...] = ("/usr/bin/python3", sys.executable),
    ) -> None:
        self._declared = declared
        self._environments = environments
        self._system = tuple(dict.fromkeys(system))
        self._found: dict[str, str | None] = {}

    def find(self, framework: str) -> str | None:
        """Its absolute path; None: nobody has the framework."""
        if framework not in self._found:
            self._found[framework] = self._look(framework)
        return self._found[framework]

    def missing(self, framework: str) -> tuple[str, str]:
        """Why there is none, and what to do."""
        title = TITLES.get(framework, framework)
        if framework in self._declared:
            path = self._declared[framework]
            return (
                f"the Python that the profile names for {title}, {path}, is not there or has no {title}",
                f"install {title} there, or name another in `interpreters` of the profile",
            )
        looked = ", ".join((f"{self._environments}/{framework}/bin/python", *self._system))
        return (
            f"{title} is not installed (looked for in {looked})",
            f"install it with role ai_frameworks, or name its Python in `interpreters.{framework}` of the profile",
        )

    def _look(self, framework: str) -> str | None:
        module = MODULES.get(framework)
        if module is None:
            return None
        if framework in self._declared:
            candidates: tuple[str, ...] = (self._declared[framework],)
        else:
            candidates = (str(self._environments / framework / "bin" / "python"), *self._system)
        return next((one for one in candidates if one and has(one, module)), None)


def has(interpreter: str, module: str) -> bool:
    """Whether a Python finds a module."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        ran = subprocess.run(  # noqa: S603
            [interpreter, "-c", _LOOK, module],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            # Where nobody put a folder named torch to be found.
            cwd="/",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ran.returncode == 0
