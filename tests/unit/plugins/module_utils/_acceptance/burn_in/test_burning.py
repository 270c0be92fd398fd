# SPDX-License-Identifier: GPL-3.0-or-later
"""What a burn-in refuses to begin with, and what does not end it. The GPUs are SIMULATED."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import files
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in import burning as module
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in import cli, guard
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.burning import Burning
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.plan import RECORDS, Plan
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError

from tests.acceptance_bench import SimulatedMachine

PLAN = Plan("x-burn-in", 100, 0.0)


def burning(
    folder: Path, machine: SimulatedMachine | None = None, *, plan: Plan = PLAN, attended: bool = True
) -> Burning:
    profile = Profile(
        root=str(machine.sandbox.root) if machine else "/", interpreters={"pytorch": sys.executable}
    )
    return Burning(folder, plan, profile, quiet=False, attended=attended)


def began(folder: Path, machine: SimulatedMachine, ago_s: float = 10) -> str:
    """It began with the GPUs that there are, and was heard of last so long ago; the UUID of the first."""
    cards = guard.cards(machine.look()["devices"])
    record = {"event": "begin", "t": time.time() - ago_s, "gpus": [card.as_json() for card in cards]}
    (folder / RECORDS).write_text(json.dumps(record) + "\n")
    return str(cards[0].uuid)


@pytest.fixture
def h100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedMachine:
    return SimulatedMachine(tmp_path, monkeypatch, "h100")


@pytest.mark.parametrize("again", [False, True])
def test_a_gpu_that_is_cut_into_parts_is_refused_also_by_whoever_goes_on(
    h100: SimulatedMachine, tmp_path: Path, again: bool
) -> None:
    assert h100.sandbox.smi("-mig", "1")[0] == 0
    if again:
        began(tmp_path, h100)
    found = burning(tmp_path, h100)
    with pytest.raises(FleetError) as refused:
        found.commands()
    assert "GPU 0 is cut into parts (MIG)" in refused.value.what
    assert "nvidia-smi -i 0 -mig 0" in str(refused.value)


@pytest.mark.parametrize("words", [[], ["--detach"]])
@pytest.mark.parametrize(
    ("mig", "python", "refusal"),
    [("1", sys.executable, "GPU 0 is cut into parts"), ("0", "/nowhere/python3", "so nothing can burn")],
)
def test_what_cannot_burn_leaves_no_folder_behind_with_which_systemd_would_try_for_ever(
    h100: SimulatedMachine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    mig: str,
    python: str,
    refusal: str,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(files, "_SYSTEM_STATE", tmp_path / "state")
    monkeypatch.setenv("GPUMESH_ACCEPTANCE_LOCK", str(tmp_path / "lock"))
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\nexit 0\n")
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"root": str(h100.sandbox.root), "interpreters": {"pytorch": python}}))
    assert h100.sandbox.smi("-mig", mig)[0] == 0
    with pytest.raises(FleetError, match=refusal):
        cli.main(["--profile", str(profile), *words])
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("attended", "ago_s", "up_s"), [(True, 4000, 4000), (False, 30, 4000), (False, 4000, 30)]
)
def test_gpus_that_do_not_answer_yet_are_waited_for(
    h100: SimulatedMachine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attended: bool,
    ago_s: float,
    up_s: float,
) -> None:
    monkeypatch.setattr(module, "uptime", lambda: up_s)
    began(tmp_path, h100, ago_s)
    assert h100.sandbox.rmmod("nvidia_uvm", "nvidia")[0] == 0
    found = burning(tmp_path, h100, attended=attended)
    with pytest.raises(FleetError, match="the driver answers for no GPU"):
        found.commands()


@pytest.mark.parametrize("clock_s", [4000, -4000])
def test_gpus_that_never_answer_again_are_burned_no_longer(
    h100: SimulatedMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock_s: float
) -> None:
    monkeypatch.setattr(module, "uptime", lambda: 4000.0)
    uuid = began(tmp_path, h100, clock_s)
    assert h100.sandbox.rmmod("nvidia_uvm", "nvidia")[0] == 0
    found = burning(tmp_path, h100, attended=False)
    assert found.commands() == {}
    assert found.go() == "worker"
    says = f"GPU 0 ({uuid}) burned before, and the driver does not answer for it any more"
    assert (found.tally.ledger.stopped or {}).get("says") == says
    assert [record["gpu"] for record in found.tally.workers] == [0]


class Gone(io.StringIO):
    """A terminal that is gone."""

    def flush(self) -> None:
        raise OSError(errno.EIO, "Input/output error")


def test_a_terminal_that_is_gone_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = burning(tmp_path, plan=Plan("x-burn-in", 100, 0.0, device="cpu"))
    found.tally.add({"event": "tick", "from": 0, "t": 5})
    terminal = Gone()
    monkeypatch.setattr(sys, "stdout", terminal)
    found.tick(found.tally)
    assert "of 1 min 40 s burned" in terminal.getvalue()
