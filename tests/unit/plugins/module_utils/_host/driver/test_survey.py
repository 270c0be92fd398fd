# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to do on a machine, and what stands in its way."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import survey
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver.programs import Failed

from tests.unit.plugins.module_utils._host.driver.driver_machine import KERNEL, NEW, OLD, Machine

WANTED = survey.Wanted(
    packages=(*OLD, "nvtop"),
    wanted="580",
    loose=frozenset({"nvidia-settings"}),
    prebuilt=False,
    modules={KERNEL: "580.178.04"},
)
NOTHING = {"missing": [], "stale": [], "unbuilt": [], "broken": [], "foreign": []}


def test_where_everything_is_as_wanted_nothing_is_to_be_done(machine: Machine) -> None:
    machine.has(
        OLD, {"nvtop": "3.1.0-1", "nvidia-settings": "550.1.1-1", "nvidia-container-toolkit": "1.20.0-1"}
    )
    assert survey.compare(WANTED) == NOTHING


def test_what_is_missing_or_of_another_version(machine: Machine) -> None:
    machine.has(OLD)
    machine.packages["nvidia-utils-580"] = "575.1.1-1"
    assert survey.compare(WANTED) == NOTHING | {"missing": ["nvidia-utils-580", "nvtop"]}


def test_what_another_branch_or_source_has_left(machine: Machine) -> None:
    pin, built = "nvidia-driver-pinning-595", "linux-modules-nvidia-580-open-6.8.0"
    machine.has(OLD, NEW, {"nvtop": "1-1", pin: "595-1", built: "6.8.0-90.91"})
    assert survey.compare(WANTED)["stale"] == [*NEW, pin, built]
    assert survey.compare(replace(WANTED, prebuilt=True))["stale"] == [*NEW, pin]


@pytest.mark.parametrize(
    ("modules", "unbuilt"),
    [({"6.8": ""}, ["6.8"]), ({"6.8": "595.91.07"}, ["6.8"]), ({"6.8": "580.1.1"}, [])],
)
def test_kernels_without_a_module_of_this_driver(
    machine: Machine, modules: dict[str, str], unbuilt: list[str]
) -> None:
    assert survey.compare(replace(WANTED, modules=modules))["unbuilt"] == unbuilt


def test_of_what_is_half_way_only_the_drivers_is_ours_to_mend(machine: Machine) -> None:
    machine.residues = {"nvidia-utils-580": "unpacked", "bash": "half-configured", "old": "config-files"}
    found = survey.compare(WANTED)
    assert (found["broken"], found["foreign"]) == (["bash", "nvidia-utils-580"], ["bash"])


def test_how_the_machine_is(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    uninstaller, key = machine.folder / "nvidia-uninstall", machine.folder / "key.asc"
    monkeypatch.setattr(survey, "_UNINSTALLER", uninstaller)
    line = "http://deb.debian.org/debian|trixie|main|/usr/share/keyrings/debian-archive-keyring.gpg|/etc/apt/sources.list:1"
    machine.meanwhile = lambda words: {"gpg": (0, "pub:\n"), "apt-get": (0, f"{line}\n{line}\n")}.get(
        words[0]
    )
    found = survey.look(machine.file, key)
    assert (found["keys"], found["repository"], found["package_lists"], found["runfile"]) == (
        "",
        False,
        False,
        False,
    )
    assert found["offers"] == [
        {
            "uri": "http://deb.debian.org/debian",
            "suite": "trixie",
            "component": "main",
            "signed_by": "/usr/share/keyrings/debian-archive-keyring.gpg",
            "entry": "/etc/apt/sources.list:1",
        }
    ]
    assert found["groups"]["root"] == 0
    for path in (machine.file, key, uninstaller, Path(machine.folder, "lists", "archive_InRelease")):
        path.touch()
    found = survey.look(machine.file, key)
    assert (found["keys"], found["repository"], found["package_lists"], found["runfile"]) == (
        "pub:\n",
        True,
        True,
        True,
    )
    machine.owned = {str(uninstaller)}
    assert survey.look(machine.file, key)["runfile"] is False


@pytest.mark.parametrize(
    ("status", "said"),
    [(124, "apt-get did not end within 60 seconds"), (126, "apt-get cannot be executed")],
)
def test_apt_that_does_not_answer_is_no_machine_without_archives(
    machine: Machine, status: int, said: str
) -> None:
    machine.meanwhile = lambda words: (status, said) if words[0] == "apt-get" else None
    with pytest.raises(Failed, match=f"^{said}$"):
        survey.look(machine.file, machine.folder / "key.asc")
    machine.meanwhile = lambda words: (127, "apt-get is not installed") if words[0] == "apt-get" else None
    assert survey.look(machine.file, machine.folder / "key.asc")["offers"] == []


def test_warnings_of_apt_are_no_archives(machine: Machine) -> None:
    line = "http://deb.debian.org/debian|trixie|main||/etc/apt/sources.list:1\n"

    def warn(words: list[str]) -> tuple[int, str] | None:
        warning = "W: Target Packages is configured multiple times\n" * (machine.stderr == subprocess.STDOUT)
        return (0, warning + line) if words[0] == "apt-get" else None

    machine.meanwhile = warn
    assert [one["uri"] for one in survey.look(machine.file, machine.file)["offers"]] == [
        "http://deb.debian.org/debian"
    ]
