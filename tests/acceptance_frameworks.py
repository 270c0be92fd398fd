# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain facts of a machine and plain answers of workloads, for the tests of frameworks and of containers."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import WorkloadRun

from tests.acceptance_bench import ROOT, recorded

WORKLOADS = ROOT / "roles" / "validation" / "files" / "workloads"
RECORDINGS = ROOT / "tests" / "fixtures" / "acceptance" / "workloads"
PYTHONS = {
    "pytorch": "/p/bin/python",
    "tensorflow": "/t/bin/python",
    "jax": "/j/bin/python",
    "vllm": "/v/bin/python",
}

_IDS = {
    "rtx5090": ("2b85", 32607),
    "t4": ("1eb8", 15360),
    "p100": ("15f8", 16384),
    "rtx4090": ("2684", 24564),
}


def uuid(index: int) -> str:
    """That of a GPU."""
    return f"GPU-00000000-0000-4000-8000-{index:012d}"


def facts(model: str = "rtx5090", count: int = 4, driver: str = "595.91.07") -> dict[str, Any]:
    """Those of the module gpu_info, as far as the checks here read them."""
    pci_id, memory = _IDS[model]
    return {
        "simulated": False,
        "counts": {"pci": count, "driver": count},
        "driver": {"loaded": driver, "smi": "ok"},
        "devices": [
            {
                "index": index,
                "model": model,
                "pci_id": pci_id,
                "uuid": uuid(index),
                "memory_mib": memory,
                "state": "ok",
            }
            for index in range(count)
        ],
    }


def recording(name: str) -> WorkloadRun:
    """What a workload printed on a real CPU."""
    return recorded(RECORDINGS / f"{name}-cpu.jsonl")


def figure(name: str, value: Any, gpu: int | None = None, unit: str = "", **more: Any) -> dict[str, Any]:
    """One line of a workload."""
    return {"name": name, "value": value, "unit": unit, "gpu": gpu, **more}


def steps(count: int = 4, **changed: dict[str, Any]) -> list[dict[str, Any]]:
    """What a framework prints on a sound machine.

    Args:
        changed: by ``wrong_2``, ``off_1``, ``devices`` or ``steps``: what that figure has instead.
    """

    def of(key: str, name: str, value: Any, gpu: int | None = None) -> dict[str, Any]:
        return figure(name, value, gpu) | changed.get(key, {})

    return [
        of("devices", "devices", count),
        *(of(f"wrong_{gpu}", "wrong elements", 0, gpu) for gpu in range(count)),
        *(of(f"off_{gpu}", "step difference", 1e-7, gpu) for gpu in range(count)),
        of("steps", "steps", 3),
    ]


def run_of(figures: list[dict[str, Any]], **more: Any) -> WorkloadRun:
    """A workload that came to its end."""
    return WorkloadRun(begin={"versions": {"torch": "2.13.0+cu130"}}, figures=figures, **more)
