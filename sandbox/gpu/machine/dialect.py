# SPDX-License-Identifier: GPL-3.0-or-later
"""How the branches of the driver differ in what they print, as far as it is not about one GPU. SIMULATED."""

from __future__ import annotations

import time
from typing import TypeAlias

from .hardware import MARK
from .places import version_key

Node: TypeAlias = "tuple[str, str | list[Node]]"
NA = "N/A"
DEPRECATED = "Requested functionality has been deprecated"
LOST = "GPU is lost"
_CUDA = {
    470: "11.4",
    510: "11.6",
    515: "11.7",
    525: "12.0",
    535: "12.2",
    550: "12.4",
    560: "12.6",
    565: "12.7",
    570: "12.8",
    575: "12.9",
    580: "13.0",
    590: "13.1",
    595: "13.2",
    610: "13.3",
    615: "13.4",
}


def branch_of(version: str) -> int:
    return (version_key(version) or (0,))[0]


def cuda_of(version: str) -> str:
    """The newest CUDA that a driver runs."""
    branch = branch_of(version)
    return next((cuda for known, cuda in sorted(_CUDA.items(), reverse=True) if known <= branch), "11.0")


def dtd(branch: int) -> str:
    return f"nvsmi_device_v{11 if branch < 525 else 12 if branch < 580 else 13}.dtd"


def log(version: str, attached: int, now: float) -> list[Node]:
    """All of it."""
    branch = branch_of(version)
    head: list[Node] = [
        ("simulated", MARK),
        ("timestamp", time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(now))),
        ("driver_version", version),
        ("cuda_version", cuda_of(version)),
    ]
    if branch >= 610:
        # The banner's new names. How the XML spells them has not been seen: a guess beside the old names.
        head += [("kmd_version", version), ("cuda_umd_version", cuda_of(version))]
    head.append(("attached_gpus", str(attached)))
    return head
