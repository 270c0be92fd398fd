# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run was made on, as a page lists it; what is free in the schema is taken as it comes. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..record import Run
from . import chart_time, words
from .reading import number


def gpu_names(run: Run) -> str:
    """``4 × NVIDIA GeForce RTX 5090``."""
    found: dict[str, int] = {}
    for gpu in gpus(run):
        name = str(gpu.get("name") or gpu.get("model") or "GPU of an unknown model")
        found[name] = found.get(name, 0) + 1
    return ", ".join(f"{count} × {name}" for name, count in found.items()) or "no NVIDIA GPU"


def gpus(run: Run) -> list[Mapping[str, Any]]:
    """The GPUs of the machine."""
    told = run.machine.get("gpus")
    return [gpu for gpu in told if isinstance(gpu, Mapping)] if isinstance(told, list) else []


def gpu_rows(run: Run) -> list[dict[str, str]]:
    """A row a GPU for the table."""
    found = []
    for gpu in gpus(run):
        memory, power = number(gpu.get("memory_mib")), number(gpu.get("power_limit_w"))
        found.append(
            {
                "index": words.value(gpu.get("index")) if gpu.get("index") is not None else words.NOTHING,
                "name": str(gpu.get("name") or gpu.get("model") or words.NOTHING),
                "pci": str(gpu.get("pci_address") or words.NOTHING),
                "serial": str(gpu.get("serial") or words.NOTHING),
                "uuid": str(gpu.get("uuid") or words.NOTHING),
                "vbios": str(gpu.get("vbios") or words.NOTHING),
                "memory": words.value(int(memory), "MiB") if memory else words.NOTHING,
                "power": words.value(power, "W") if power else words.NOTHING,
            }
        )
    return found


def machine(run: Run) -> list[tuple[str, str]]:
    """What the machine is, in pairs of a name and a value; what is not known is not listed."""
    told = run.machine
    bare, virtual = told.get("bare_metal"), told.get("virtualisation") or "unknown"
    kind = "bare metal" if bare is True else f"virtual ({virtual})" if bare is False else "not known"
    driver = " ".join(
        str(part)
        for part in (told.get("driver"), f"({told['flavour']} modules)" if told.get("flavour") else "")
        if part
    )
    pairs = [
        ("Machine", told.get("name")),
        ("Host name", told.get("hostname") if told.get("hostname") != told.get("name") else ""),
        ("System", told.get("system")),
        ("Kernel", told.get("kernel")),
        ("Kind", kind),
        ("Board", told.get("board")),
        ("Processor", told.get("cpu")),
        ("Cores", words.value(told.get("cores")) if number(told.get("cores")) else ""),
        (
            "Memory",
            words.value(number(told.get("memory_gib")), "GiB") if number(told.get("memory_gib")) else "",
        ),
        ("NVIDIA driver", driver),
        ("CUDA of the driver", told.get("cuda")),
    ]
    return [(name, str(value)) for name, value in pairs if value]


def burn_in(run: Run) -> dict[str, Any] | None:
    """What a burn-in adds."""
    told = run.burn_in
    if told is None:
        return None
    hours, done = number(told.get("hours")), number(told.get("done_s"))
    return {
        "asked": words.NOTHING
        if not hours
        else words.value(hours, "h")
        if hours >= 1
        else words.long(hours * 3600),
        "done": words.long(done) if done else words.NOTHING,
        "interval": words.long(number(told.get("interval_s")) or 0),
        "stopped": words.sentence(str(told.get("stopped") or "")),
        "gaps": [
            (
                words.when(gap.begin, exactly=True),
                words.when(gap.end, exactly=True),
                words.long(gap.end - gap.begin),
                words.sentence(gap.why),
            )
            for gap in chart_time.gaps(run)
        ],
    }
