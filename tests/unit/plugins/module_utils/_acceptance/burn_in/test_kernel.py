# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cards the lines of the kernel's log are about, and what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in import kernel, outcome
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.plan import Plan
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.records import tally
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

ADDRESS = "0000:01:00.0"
XID_74 = "50.0 box kernel: NVRM: Xid (PCI:0000:01:00): 74, pid=1, NVLink: fatal error detected on link 2"


@pytest.mark.parametrize(
    ("pci_id", "nvlink"), [("2b85", False), ("2330", True), ("20b7", True), ("ffff", True)]
)
def test_of_a_card_that_is_not_known_it_is_not_said_that_it_has_no_nvlink(
    tmp_path: Path, pci_id: str, nvlink: bool
) -> None:
    [place] = kernel.places({"devices": [{"pci_address": ADDRESS, "pci_id": pci_id}]}, tmp_path)
    assert place.nvlink is nvlink


@pytest.mark.parametrize(
    ("model", "verdict"),
    [("rtx5090", Verdict.WARN), ("h100", Verdict.FAIL), ("NVIDIA H900", Verdict.FAIL), ("", Verdict.FAIL)],
)
def test_an_error_of_nvlink_is_judged_by_the_model_that_a_lost_card_had(
    tmp_path: Path, model: str, verdict: Verdict
) -> None:
    records: list[dict[str, Any]] = [
        {
            "event": "begin",
            "t": 0,
            "cursor": "1",
            "gpus": [{"uuid": "GPU-1", "address": ADDRESS, "model": model}],
        },
        {"event": "kernel", "t": 50, "line": XID_74},
    ]
    run = outcome.run_of(
        Plan("x-burn-in", 100, 0.0),
        tally(records),
        Profile(root=str(tmp_path)),
        gpus=(0,),
        machine={},
        versions={},
        facts={},
        going=False,
    )
    [found] = [entry.result for entry in run.entries if entry.name == "kernel_errors"]
    assert found.verdict is verdict
    assert ("this model has no NVLink" in {figure.source for figure in found.figures}) == (model == "rtx5090")
