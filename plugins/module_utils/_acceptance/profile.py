# SPDX-License-Identifier: GPL-3.0-or-later
"""What is declared of a machine, and what its owner wants of it. Role validation writes it to /etc/gpumesh/acceptance.json.

Pure. Without a profile nothing is declared: what is compared with a declaration is then UNKNOWN, not green.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Targets:
    """What the owner wants. A missed target is a WARN, never a defect by itself; the report tells the two apart.

    Attributes:
        scaling_efficiency: share, of data-parallel training on all GPUs.
        utilization: share of the time in which each GPU computes while it trains.
        tokens_per_s: of one stream of LLM inference.
    """

    scaling_efficiency: float = 0.80
    utilization: float = 0.90
    tokens_per_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Profile:
    """What is declared.

    Attributes:
        machine: its name in the report.
        gpus: how many of each model, by the catalog's names; empty: nothing is declared.
        bare_metal: whether the whole machine is ours; None: nobody said, and ``systemd-detect-virt`` is asked.
        expected: what gpu_checks takes: branch, flavour, version, tuning, width and so on; empty: nothing is declared.
        interpreters: the Python of each framework; what is not named is looked for.
        targets: what the owner wants.
        limits: thresholds that replace those of the catalog, by their name in `limits`.
        waived: checks that are not to be made, each with the reason, which the report shows.
        stop_margin_c: a burn-in stops a run where a GPU comes closer than this to where it slows itself down.
        model_path: a local model for LLM inference; empty: one with random weights is made.
        root: where ``sys`` and ``proc`` are looked for; another than ``/`` is for simulated GPUs.
        kernel_log: a file that is read instead of the journal; empty: the journal.
        nvidia_smi: the program that asks the driver.
    """

    machine: str = ""
    gpus: Mapping[str, int] = field(default_factory=dict)
    bare_metal: bool | None = None
    expected: Mapping[str, object] = field(default_factory=dict)
    interpreters: Mapping[str, str] = field(default_factory=dict)
    targets: Targets = Targets()
    limits: Mapping[str, float] = field(default_factory=dict)
    waived: Mapping[str, str] = field(default_factory=dict)
    stop_margin_c: float = 2.0
    model_path: str = ""
    root: str = "/"
    kernel_log: str = ""
    nvidia_smi: str = "nvidia-smi"
