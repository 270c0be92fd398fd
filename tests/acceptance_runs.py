# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of gpu-acceptance for tests: made by hand, and any that hypothesis can think of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Check, Group
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.record import Entry, Run, State
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import (
    Figure,
    Label,
    Result,
    Verdict,
)
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[1]
BEGIN = 1_764_240_000.0
"""2025-11-27T10:40:00Z."""

GPU = {
    "index": 0,
    "model": "rtx5090",
    "name": "NVIDIA GeForce RTX 5090",
    "pci_address": "0000:01:00.0",
    "uuid": "GPU-1",
    "serial": "1650123000001",
    "vbios": "98.02.2e.00.01",
    "memory_mib": 32607,
    "power_limit_w": 600.0,
}
MACHINE: dict[str, Any] = {
    "name": "demo-box",
    "hostname": "demo-box",
    "system": "Debian GNU/Linux 13 (trixie)",
    "kernel": "6.12.0-1-amd64",
    "virtualisation": "none",
    "bare_metal": True,
    "cpu": "AMD EPYC 9354",
    "cores": 64,
    "memory_gib": 251.5,
    "board": "ASRockRack GENOAD8X",
    "driver": "580.178.04",
    "flavour": "open",
    "cuda": "13.0",
    "gpus": [GPU, {**GPU, "index": 1, "uuid": "GPU-2", "serial": "1650123000002"}],
}


def check(name: str = "matmul", run: Any = None, **more: Any) -> Check:
    """A check that a test makes up."""
    values = {
        "title": name.replace("_", " "),
        "group": Group.COMPUTE,
        "about": f"proves {name}",
        "expects": "what a test expects",
        "fails": "nothing",
    }
    return Check(name=name, run=run or (lambda context: Result(Verdict.PASS, "good")), **{**values, **more})


def entry(name: str = "matmul", verdict: Verdict = Verdict.PASS, says: str = "", **more: Any) -> Entry:
    """A check of a run and what came of it."""
    result = Result(
        verdict,
        says or f"{name} was found so",
        more.pop("advice", ""),
        tuple(more.pop("figures", ())),
        more.pop("applies", True),
        more.pop("data", {}),
    )
    values = {"title": name, "group": "compute", "about": "", "expects": "", "begin": BEGIN, "seconds": 1.5}
    return Entry(name=name, result=result, **{**values, **more})


def run(*entries: Entry, **more: Any) -> Run:
    """A run that has come to its end, on hardware unless said otherwise."""
    values = {
        "id": "20251127T104000Z-quick",
        "suite": "quick",
        "device": "cuda",
        "label": Label.HARDWARE,
        "state": State.COMPLETE,
        "begin": BEGIN,
        "end": BEGIN + 252,
        "machine": MACHINE,
        "versions": {"gpumesh": "0.1.0", "python": "3.13.5"},
    }
    return Run(entries=entries, **{**values, **more})


def problems(document: Any) -> list[str]:
    """What the published schema has against a document."""
    schema = json.loads((ROOT / "docs" / "acceptance.schema.json").read_text())
    found = Draft202012Validator(schema).iter_errors(document)
    return [f"{problem.json_path}: {problem.message}" for problem in found]


_text = st.text(max_size=30)
_number = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(width=32) | _text

figures = st.builds(
    Figure,
    name=st.text(min_size=1, max_size=12),
    value=_number,
    unit=st.sampled_from(["", "GB/s", "°C"]),
    gpu=st.none() | st.integers(0, 7),
    expected=_text,
    source=_text,
    verdict=st.none() | st.sampled_from(Verdict),
    better=st.sampled_from(["", "higher", "lower"]),
)


@st.composite
def entries(draw: st.DrawFn, label: Label = Label.HARDWARE) -> Entry:
    """Any check of a run that the runner could have made."""
    verdict = draw(st.sampled_from(Verdict))
    skip = verdict is Verdict.SKIP
    applies = not skip or draw(st.booleans())
    waived = draw(_text.map(str.strip)) if skip and applies else ""
    return entry(
        draw(st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)),
        verdict,
        draw(st.text(min_size=1, max_size=40)),
        advice=draw(_text),
        figures=draw(st.lists(figures, max_size=3)),
        applies=applies,
        waived=waived,
        label=label,
        begin=draw(st.none() | st.just(BEGIN)),
    )


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Any run."""
    device, label = draw(
        st.sampled_from(
            [
                ("cuda", Label.HARDWARE),
                ("cpu", Label.CPU),
                ("cuda", Label.SIMULATED),
                ("cpu", Label.SIMULATED),
            ]
        )
    )
    state = draw(st.sampled_from(State))
    return run(
        *draw(st.lists(entries(label), max_size=8, unique_by=lambda one: one.name)),
        device=device,
        label=label,
        state=state,
        end=None if state is State.RUNNING else BEGIN + draw(st.integers(0, 100_000)),
    )
