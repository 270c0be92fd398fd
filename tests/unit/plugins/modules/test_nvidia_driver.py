# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of the driver: what they answer, in check mode and where something fails. What they do: tests of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import (
    dkms,
    history,
    snapshot,
    way_back,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import trial as trial_library
from ansible_collections.gpumesh.fleet.plugins.modules import (
    nvidia_driver_info,
    nvidia_history,
    nvidia_kernel_module,
    nvidia_packages,
    nvidia_rollback,
    nvidia_snapshot,
    nvidia_trial,
)

from tests.module_runner import run_module
from tests.unit.plugins.module_utils._host.driver.driver_machine import KERNEL, OLD, TOOLS, Machine, full_disk

MODULE = "nvidia-dkms-580-open"
ORDER: dict[str, Any] = {
    "packages": list(OLD),
    "module": MODULE,
    "version": "580",
    "kernels": [KERNEL],
    "patterns": ["^(lib)?nvidia-"],
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with no driver."""
    return Machine(tmp_path, monkeypatch)


def test_check_mode_tells_what_would_be_installed(machine: Machine) -> None:
    planned = run_module(nvidia_packages.main, check=True, **ORDER)
    assert machine.packages == {"bash": "5.2-1"}
    done = run_module(nvidia_packages.main, **ORDER)
    assert machine.packages == {"bash": "5.2-1"} | OLD
    assert (planned["changed"], done["changed"]) == (True, True)
    assert planned["orders"] == done["orders"]
    assert planned["orders"][0] == f"{MODULE}={OLD[MODULE]}"
    assert planned["installs"] == done["installs"]
    assert run_module(nvidia_packages.main, **ORDER)["changed"] is False


def test_an_installation_that_fails_puts_the_machine_back_and_says_so(machine: Machine) -> None:
    run_module(nvidia_snapshot.main, files=list(machine.files))
    machine.broken_kernels = {KERNEL}
    failed = run_module(nvidia_packages.main, **ORDER)
    assert failed["failed"] is True
    assert failed["msg"].startswith(
        f"DKMS does not install nvidia 580.178.04 for the kernel {KERNEL}; its log says:\n"
    )
    assert failed["msg"].endswith("\nThe machine was put back as it was.")
    assert machine.packages == {"bash": "5.2-1"}


def test_a_prediction_that_fails_puts_nothing_back(machine: Machine) -> None:
    run_module(nvidia_snapshot.main, files=list(machine.files))
    machine.has({"blender": "4"})
    failed = run_module(nvidia_packages.main, check=True, **ORDER | {"version": "590"})
    assert (
        failed["msg"]
        == "nvidia-dkms-580-open: 590 is wanted, and there is 580.178.04-1ubuntu1, 580.178.04-1ubuntu1"
    )
    assert machine.packages == {"bash": "5.2-1", "blender": "4"}


def test_pins_and_holds(machine: Machine) -> None:
    machine.archive["nvidia-driver-pinning-580"] = ["580.1-1"]
    pin = {"state": "pinned", "pin": ["nvidia-driver-pinning-580"]}
    held = {"state": "held", "patterns": ["^nvidia-"]}
    for check in (True, False):
        assert run_module(nvidia_packages.main, check=check, **pin)["changed"] is True
    assert run_module(nvidia_packages.main, **pin)["changed"] is False
    for check in (True, False):
        holding = run_module(nvidia_packages.main, check=check, **held)
        assert (holding["changed"], holding["holds"]) == (True, ["nvidia-driver-pinning-580"])
    assert run_module(nvidia_packages.main, **held)["changed"] is False
    machine.meanwhile = lambda words: (1, "E: no") if words[:2] == ["apt-mark", "unhold"] else None
    none = run_module(nvidia_packages.main, state="held", patterns=[])
    assert none["msg"] == "apt-mark unhold fails: E: no"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"state": "pinned"}, "pin"),
        ({"state": "held"}, "patterns"),
        ({"version": "580"}, "packages"),
        ({"packages": list(OLD)}, "version"),
    ],
)
def test_what_a_state_needs_has_to_be_given(machine: Machine, given: dict[str, Any], missing: str) -> None:
    machine.has(OLD)
    refused = run_module(nvidia_packages.main, **given)
    assert refused["failed"] is True
    assert refused["msg"].endswith(f"all of the following are missing: {missing}")


def test_an_empty_list_is_given(machine: Machine) -> None:
    pinned = run_module(nvidia_packages.main, state="pinned", pin=[])
    held = run_module(nvidia_packages.main, state="held", patterns=[])
    present = run_module(nvidia_packages.main, packages=[], further=["nvtop"], version="580")
    assert (pinned["changed"], held["changed"], present["installs"]) == (False, False, ["nvtop"])


def test_check_mode_tells_of_modules_that_would_be_built(machine: Machine) -> None:
    run_module(nvidia_packages.main, **ORDER)
    more = ORDER | {"kernels": [KERNEL, "6.8.0-94-generic"]}
    assert run_module(nvidia_packages.main, check=True, **more)["changed"] is True
    assert run_module(nvidia_packages.main, **more)["changed"] is True
    assert run_module(nvidia_packages.main, check=True, **more)["changed"] is False


def test_a_full_disk_fails_in_words_and_the_machine_is_put_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = list(machine.files)
    run_module(nvidia_snapshot.main, files=files)
    trial: dict[str, Any] = {"package": f"{MODULE}={OLD[MODULE]}", "kernels": [KERNEL]}
    said = "[Errno 28] No space left on device"
    with monkeypatch.context() as patched:
        patched.setattr(dkms, "install", full_disk)
        failed = run_module(nvidia_packages.main, **ORDER)
    assert failed["msg"].startswith(f"{said}\nThe machine was put back")
    assert machine.packages == {"bash": "5.2-1"}
    with monkeypatch.context() as patched:
        for library in (snapshot, trial_library, history):
            patched.setattr(library, "write_note", full_disk)
        assert run_module(nvidia_trial.main, **trial)["msg"] == said
        assert run_module(nvidia_snapshot.main, files=files)["msg"] == said
        assert run_module(nvidia_history.main, state="noted", files=files)["msg"] == said
    machine.has(OLD)
    with monkeypatch.context() as patched:
        patched.setattr(way_back, "plan", full_disk)
        failed = run_module(nvidia_rollback.main, to="none", files=files)
    assert (failed["msg"], failed["changed"]) == (f"{said}.", False)


def test_a_trial_is_made_once_and_fails_with_the_compilers_words(machine: Machine) -> None:
    trial: dict[str, Any] = {
        "package": f"{MODULE}={OLD[MODULE]}",
        "headers": [f"linux-headers-{KERNEL}"],
        "kernels": [KERNEL],
    }
    assert run_module(nvidia_trial.main, check=True, **trial)["changed"] is True
    assert machine.packages == {"bash": "5.2-1"}
    machine.broken_kernels = {KERNEL}
    failed = run_module(nvidia_trial.main, **trial)
    assert failed["failed"] is True
    assert failed["msg"].endswith("Its make.log says:\nnv.c:1:2: error: no such thing")
    machine.broken_kernels = set()
    # The compiler and headers came with the first.
    built = run_module(nvidia_trial.main, **trial)
    assert (built["changed"], built["built"]) == (True, {KERNEL: "580.178.04"})
    again = run_module(nvidia_trial.main, check=True, **trial)
    assert (again["changed"], again["built"]) == (False, {})
    assert machine.packages == {"bash": "5.2-1"} | TOOLS


def test_a_snapshot_is_taken_gone_back_to_and_forgotten(machine: Machine) -> None:
    files = list(machine.files)
    assert run_module(nvidia_snapshot.main, check=True, files=files)["changed"] is True
    assert run_module(nvidia_snapshot.main, state="absent")["changed"] is False
    assert run_module(nvidia_snapshot.main, files=files)["changed"] is True
    machine.has(OLD)
    assert run_module(nvidia_snapshot.main, check=True, state="restored")["changed"] is True
    assert set(OLD) < set(machine.packages)
    restored = run_module(nvidia_snapshot.main, state="restored")
    assert (restored["changed"], restored["says"]) == (True, "The machine was put back as it was.")
    assert machine.packages == {"bash": "5.2-1"}
    assert run_module(nvidia_snapshot.main, state="restored")["changed"] is False


def test_the_history_and_the_way_back(machine: Machine) -> None:
    files = list(machine.files)
    unit = {"unit": str(machine.file), "root": str(machine.folder / "root")}
    machine.file.touch()
    assert run_module(nvidia_history.main, check=True, state="noted", files=files)["changed"] is True
    assert run_module(nvidia_history.main, state="noted", files=files)["changed"] is True
    machine.has(OLD)
    assert run_module(nvidia_history.main, state="settled", files=files)["changed"] is True
    assert run_module(nvidia_history.main, state="settled", files=files)["changed"] is False
    planned = run_module(nvidia_rollback.main, check=True, files=files, **unit)
    assert (planned["changed"], planned["needed"], planned["driver"]) == (True, True, "")
    # It was there before the first driver.
    assert planned["tuned"] is True
    assert planned["left"][0] == "the package libnvidia-compute-580 580.178.04-1ubuntu1"
    assert set(OLD) < set(machine.packages)
    machine.file.unlink()
    done = run_module(nvidia_rollback.main, files=files, **unit)
    assert (done["changed"], done["steps"][:3]) == (True, planned["steps"][:3])
    assert (done["stays"], done["left"]) == ("", files)
    assert machine.packages == {"bash": "5.2-1"}
    again = run_module(nvidia_rollback.main, files=files, **unit)
    assert (again["changed"], again["tuned"]) == (False, False)
    assert again["says"].startswith("this machine went back to no driver on ")


def test_a_way_back_that_cannot_be_had_is_told_and_changes_nothing(machine: Machine) -> None:
    machine.has(OLD)
    failed = run_module(nvidia_rollback.main, files=list(machine.files))
    assert failed["failed"] is True
    assert failed["changed"] is False
    assert failed["msg"].startswith("no other driver than the present one is recorded on this machine")
    assert failed["msg"].endswith("installs the one you name.")


def test_a_way_back_that_fails_half_way_says_that_it_goes_on(machine: Machine) -> None:
    machine.has(OLD)
    run_module(nvidia_history.main, state="settled", files=list(machine.files))
    machine.meanwhile = lambda words: (
        (100, "E: Sub-process died") if words[0] == "apt-get" and "--simulate" not in words else None
    )
    failed = run_module(nvidia_rollback.main, to="none", files=list(machine.files))
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert failed["msg"] == (
        "apt does not remove the packages: E: Sub-process died; run it again, it goes on from there."
    )


def test_a_kernel_without_a_module_needs_a_reboot(machine: Machine) -> None:
    for check in (True, False):
        found = run_module(nvidia_kernel_module.main, check=check, root=str(machine.folder))
        assert (found["changed"], found["reboot"]) == (False, True)
        assert "has no module on the disk" in found["says"]


def test_what_there_is_to_do(machine: Machine) -> None:
    found = run_module(
        nvidia_driver_info.main,
        source=str(machine.file),
        keyring=str(machine.folder / "key"),
        packages=list(OLD),
        version="580",
        modules={KERNEL: None, "6.8.0-94-generic": {"version": "580.178.04", "flavour": "open"}},
    )
    assert found["changed"] is False
    assert found["machine"]["missing"] == list(OLD)
    assert found["machine"]["unbuilt"] == [KERNEL]
    assert found["machine"]["keys"] == ""
    machine.meanwhile = lambda words: (
        (124, "apt-get did not end within 60 seconds") if words[0] == "apt-get" else None
    )
    failed = run_module(nvidia_driver_info.main, source=str(machine.file), keyring=str(machine.folder))
    assert failed["msg"] == "apt-get did not end within 60 seconds"
