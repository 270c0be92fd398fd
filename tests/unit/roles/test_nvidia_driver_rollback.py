# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that keeps and restores what was installed of the driver, on a dpkg of ours. With a real apt: tests/hosts."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "roles" / "nvidia_driver"
OLD = {
    "libnvidia-compute-580": "580.178.04-1ubuntu1",
    "nvidia-dkms-580-open": "580.178.04-1ubuntu1",
    "nvidia-utils-580": "580.178.04-1ubuntu1",
}
NEW = {
    "libnvidia-compute": "595.91.07-1ubuntu1",
    "nvidia-dkms-open": "595.91.07-1ubuntu1",
    "nvidia-utils": "595.91.07-1ubuntu1",
}


class Machine:
    """What dpkg and apt-mark tell, and the files of the role."""

    def __init__(self, folder: Path, program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.program, self.folder = program, folder
        self.packages = {"bash": "5.2-1"}
        self.residues: dict[str, str] = {}
        self.held: set[str] = set()
        self.owned: set[str] = set()
        self.ran: list[list[str]] = []
        self.file = folder / "etc" / "gpumesh.sources"
        self.asked = {"files": [str(self.file)], "to": "previous", "root": str(folder), "kernels": []}
        memory = folder / "memory"
        for name, place in {
            "MEMORY": memory,
            "HISTORY": memory / "history.json",
            "HOLDS": memory / "holds.json",
            "SNAPSHOT": memory / "before.json",
            "TRIAL": memory / "trial",
            "SCRATCH": folder / "scratch",
            "DKMS": folder / "dkms",
            "SOURCES": folder / "src",
            "MODULES": folder / "modules",
            "UNITS": folder / "units",
        }.items():
            monkeypatch.setattr(program, name, place)
        monkeypatch.setattr(program.subprocess, "run", self.run)

    def run(self, command: tuple[str, ...], **_options: Any) -> subprocess.CompletedProcess[str]:
        """The programs of the machine."""
        words = list(command)
        self.ran.append(words)
        status, said = 0, ""
        if words[:2] == ["dpkg-query", "-W"]:
            rows = {name: f"{version}\tinstalled" for name, version in self.packages.items()}
            rows |= {name: f"1\t{state}" for name, state in self.residues.items()}
            said = "".join(f"{name}\t{row}\n" for name, row in rows.items())
        elif words[:2] == ["dpkg-query", "-S"]:
            status = 0 if words[2] in self.owned else 1
        elif words[:2] == ["apt-mark", "showhold"]:
            said = "\n".join(sorted(self.held))
        elif words[:2] == ["apt-mark", "showmanual"]:
            said = "\n".join(sorted(self.packages))
        return subprocess.CompletedProcess(words, status, said, "")

    def has(self, *sets: dict[str, str]) -> None:
        """Only these packages, and those of every machine."""
        self.packages = {"bash": "5.2-1"}
        for one in sets:
            self.packages |= one

    def change(self, *sets: dict[str, str]) -> None:
        """A run of the role that installs these."""
        self.program.note(self.asked)
        self.has(*sets)
        self.program.settle(self.asked)

    @property
    def history(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.folder / "memory" / "history.json").read_text(encoding="utf-8")
        )
        return found

    def drivers(self) -> list[str]:
        return [state["driver"] for state in self.history["states"]]

    def target(self, to: str = "previous") -> tuple[str | None, str]:
        """The driver that it would go back to, or why it goes nowhere."""
        asked = self.asked | {"to": to}
        state, why = self.program.target(self.program.load(), asked, self.program.look(asked, "found"))
        return (None if state is None else state["driver"]), why


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with no driver."""
    found = importlib.util.spec_from_file_location("nvidia_driver_rollback", ROLE / "files" / "rollback.py")
    assert found is not None
    assert found.loader is not None
    program = importlib.util.module_from_spec(found)
    found.loader.exec_module(program)
    return Machine(tmp_path, program, monkeypatch)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("libnvidia-compute-580", True),
        ("nvidia-driver-pinning-595", True),
        ("linux-modules-nvidia-580-server-open-6.8.0-90-generic", True),
        ("firmware-nvidia-gsp", True),
        ("libcuda1", True),
        ("cuda-toolkit-13-0", True),
        ("libcublas-13-0", True),
        ("cudnn9-cuda-13", True),
        ("nvidia-container-toolkit", False),
        ("libnvidia-container1", False),
        ("libnvme1", False),
        ("linux-headers-6.8.0-90-generic", False),
        ("nvtop", False),
        ("dkms", False),
    ],
)
def test_what_belongs_to_the_driver(machine: Machine, name: str, ours: bool) -> None:
    assert bool(machine.program.FAMILY.match(name)) is ours


def test_the_first_change_keeps_both_what_was_and_what_is(machine: Machine) -> None:
    machine.change(OLD)
    assert machine.drivers() == ["", "580.178.04"]
    assert machine.target() == ("", "")


def test_a_run_that_changes_nothing_keeps_nothing(machine: Machine) -> None:
    machine.change(OLD)
    before = machine.history
    assert machine.program.settle(machine.asked) == {"changed": False}
    assert machine.history == before


def test_what_an_interrupted_change_left_is_not_gone_back_to(machine: Machine) -> None:
    machine.change(OLD)
    machine.program.note(machine.asked)
    machine.has({"libnvidia-compute": NEW["libnvidia-compute"]})
    assert machine.target() == ("580.178.04", "")
    machine.program.note(machine.asked)
    machine.has(NEW)
    machine.program.settle(machine.asked)
    assert machine.drivers() == ["", "580.178.04", "595.91.07"]
    assert machine.target() == ("580.178.04", "")


def test_what_somebody_installed_by_hand_is_kept_before_the_role_replaces_it(machine: Machine) -> None:
    machine.change(OLD)
    machine.has({"libnvidia-compute-570": "570.211.01-1"})
    machine.change(NEW)
    assert machine.drivers() == ["", "580.178.04", "570.211.01", "595.91.07"]


def test_going_back_twice_goes_back_once(machine: Machine) -> None:
    machine.change(OLD)
    machine.change(NEW)
    assert machine.target() == ("580.178.04", "")
    machine.has(OLD)
    machine.program.finish(machine.program.load(), machine.asked)
    driver, why = machine.target()
    assert driver is None
    assert why.startswith("this machine went back to 580.178.04 on ")
    assert why.endswith("'none' goes further")
    # A run of the role that declares what it went back to is no change either.
    machine.program.settle(machine.asked)
    assert machine.target()[0] is None
    machine.change(NEW)
    assert machine.target() == ("580.178.04", "")


def test_after_none_the_previous_is_the_driver(machine: Machine) -> None:
    machine.change(OLD)
    assert machine.target("none") == ("", "")
    machine.has()
    machine.program.finish(machine.program.load(), machine.asked | {"to": "none"})
    assert machine.target("previous") == ("580.178.04", "")


def test_an_interrupted_way_back_goes_on_to_where_it_went(machine: Machine) -> None:
    machine.change(OLD)
    machine.change(NEW)
    machine.program.prepare(machine.asked)
    assert machine.history["going"]["target"]["driver"] == "580.178.04"
    machine.has({"libnvidia-compute-580": OLD["libnvidia-compute-580"]})
    assert machine.target() == ("580.178.04", "")


def test_a_machine_without_notes_says_what_else_can_be_done(machine: Machine) -> None:
    machine.has(OLD)
    with pytest.raises(machine.program.Failed, match="no other driver than the present one is recorded"):
        machine.target()


def test_a_machine_that_never_had_a_driver_has_nothing_to_go_back_from(machine: Machine) -> None:
    assert machine.target() == (None, "this machine has no driver, and none is recorded")
    assert machine.program.plan(machine.asked)["needed"] is False


def test_a_purge_leaves_no_notes(machine: Machine) -> None:
    machine.change(OLD)
    machine.has()
    machine.program.finish(machine.program.load(), machine.asked | {"to": "absent"})
    assert not (machine.folder / "memory").exists()


def test_what_came_with_the_driver_is_noted_and_nothing_of_before(machine: Machine) -> None:
    machine.packages["make"] = "4.3"
    machine.program.note(machine.asked)
    machine.packages |= OLD | {"dkms": "3.2.2"}
    machine.program.settle(machine.asked)
    assert machine.history["came"] == sorted([*OLD, "dkms"])


def test_what_comes_with_the_way_back_is_noted_as_well(machine: Machine) -> None:
    machine.change(OLD)
    machine.has()
    machine.program.finish(machine.program.load(), machine.asked | {"to": "none"})
    assert machine.history["came"] == []
    machine.program.prepare(machine.asked)
    machine.has(OLD, {"dkms": "3.2.2"})
    machine.program.finish(machine.program.load(), machine.asked)
    assert machine.history["came"] == sorted([*OLD, "dkms"])


def test_only_so_many_states_are_kept_and_always_the_first(machine: Machine) -> None:
    for number in range(15):
        machine.change({"libnvidia-compute": f"595.{number + 10}.01-1"})
    assert len(machine.drivers()) == machine.program.KEPT
    assert (machine.drivers()[0], machine.drivers()[-1]) == ("", "595.24.01")


def test_only_root_reads_the_notes(machine: Machine) -> None:
    machine.change(OLD)
    assert (machine.folder / "memory" / "history.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["absent", "file", "link"])
def test_a_file_is_put_back_as_it_was(machine: Machine, kind: str) -> None:
    machine.file.parent.mkdir()
    if kind == "file":
        machine.file.write_bytes(b"\x99key\n")
        machine.file.chmod(0o640)
    if kind == "link":
        machine.file.symlink_to("/somewhere")
    was = machine.program.kept(str(machine.file))
    assert not machine.program.put(str(machine.file), was)
    machine.file.unlink(missing_ok=True)
    machine.file.write_text("other", encoding="utf-8")
    assert machine.program.put(str(machine.file), was)
    assert machine.program.kept(str(machine.file)) == was


def test_the_exchange_names_every_version_and_removes_the_other_names(machine: Machine) -> None:
    assert machine.program.orders({"packages": NEW}, {"packages": OLD}) == (
        [f"{name}={version}" for name, version in OLD.items()],
        list(NEW),
    )
    assert machine.program.orders({"packages": OLD}, {"packages": OLD}) == ([], [])


def test_a_simulation_sees_no_holds_of_the_driver_and_nothing_half_way(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, half = "Status: hold ok installed", "Status: hold reinstreq half-installed"
    free = "Status: install ok installed"
    entries = {"libnvidia-compute": held, "nvidia-utils": half, "linux-image": held, "bash": half}
    status = machine.folder / "status"
    status.write_text(
        "\n\n".join(f"Package: {name}\n{line}" for name, line in entries.items()), encoding="utf-8"
    )
    monkeypatch.setattr(
        machine.program, "Path", lambda *parts: status if parts == ("/var/lib/dpkg/status",) else Path(*parts)
    )
    option = machine.program.without_holds()
    seen = {"libnvidia-compute": free, "linux-image": held, "bash": half}
    assert Path(option.split("=", 2)[2]).read_text(encoding="utf-8") == "\n\n".join(
        f"Package: {name}\n{line}" for name, line in seen.items()
    )


def test_dkms_trees_of_other_versions_go_and_those_of_packages_stay(machine: Machine) -> None:
    for version in ("580.178.04", "595.91.07"):
        (machine.folder / "src" / f"nvidia-{version}").mkdir(parents=True)
        (machine.folder / "src" / f"nvidia-{version}" / "dkms.conf").touch()
        (machine.folder / "dkms" / "nvidia" / version / "6.8.0").mkdir(parents=True)
    assert machine.program.clean({"580.178.04"}) == ["nvidia/595.91.07"]
    assert [path.name for path in (machine.folder / "src").iterdir()] == ["nvidia-580.178.04"]
    assert [path.name for path in (machine.folder / "dkms" / "nvidia").iterdir()] == ["580.178.04"]
    assert machine.program.clean(set()) == ["nvidia/580.178.04"]
    assert not (machine.folder / "dkms" / "nvidia").exists()
    assert not list((machine.folder / "src").iterdir())


def test_a_module_that_no_package_has_goes_with_the_last_driver(machine: Machine) -> None:
    folder = machine.folder / "modules" / "6.8.0" / "updates" / "dkms"
    folder.mkdir(parents=True)
    for name in ("nvidia.ko", "nvidia-uvm.ko.zst", "zfs.ko"):
        (folder / name).touch()
    machine.owned = {str(folder / "nvidia-uvm.ko.zst")}
    assert machine.program.clean({"580.178.04"}) == []
    assert machine.program.clean(set()) == [str(folder / "nvidia.ko")]
    assert sorted(path.name for path in folder.iterdir()) == ["nvidia-uvm.ko.zst", "zfs.ko"]
    assert ["depmod", "6.8.0"] in machine.ran


def test_a_link_to_a_unit_that_is_gone_goes_with_the_last_driver(machine: Machine) -> None:
    folder = machine.folder / "units" / "multi-user.target.wants"
    folder.mkdir(parents=True)
    (folder / "nvidia-persistenced.service").symlink_to("/gone")
    (folder / "ssh.service").symlink_to("/gone")
    (folder / "nvidia-cdi-refresh.service").symlink_to(machine.folder)
    assert machine.program.leftovers(machine.asked) == {"left": [str(folder / "nvidia-persistenced.service")]}
    machine.program.clean({"580.178.04"})
    assert len(list(folder.iterdir())) == 3
    machine.program.clean(set())
    assert sorted(path.name for path in folder.iterdir()) == ["nvidia-cdi-refresh.service", "ssh.service"]


def test_leftovers_are_named(machine: Machine) -> None:
    assert machine.program.leftovers(machine.asked) == {"left": []}
    machine.has({"libcuda1": "550.163.01-2"})
    machine.residues = {"nvidia-driver-pinning-580": "config-files"}
    machine.file.parent.mkdir()
    machine.file.touch()
    assert machine.program.leftovers(machine.asked) == {
        "left": [
            "the package libcuda1 550.163.01-2",
            "the configuration of nvidia-driver-pinning-580",
            str(machine.file),
        ]
    }


def test_what_another_layer_holds_meanwhile_is_no_change_of_the_driver(machine: Machine) -> None:
    machine.change(OLD)
    machine.held |= {"nvidia-container-toolkit", "libnvidia-container1", "docker.io"}
    assert machine.program.settle(machine.asked) == {"changed": False}
    machine.held |= {"nvidia-utils-580"}
    assert machine.program.settle(machine.asked) == {"changed": True}


def test_holds_go_back_and_those_of_others_stay(machine: Machine) -> None:
    machine.has(OLD)
    machine.held = {"libnvidia-compute", "bash", "linux-image-generic"}
    (machine.folder / "memory").mkdir()
    (machine.folder / "memory" / "holds.json").write_text('["linux-image-generic"]', encoding="utf-8")
    wanted = {"packages": OLD, "holds": ["nvidia-utils-580"], "manual": list(OLD), "files": {}}
    machine.program.mark({"came": []}, {"packages": NEW}, wanted)
    assert ["apt-mark", "unhold", "libnvidia-compute", "linux-image-generic"] in machine.ran
    assert ["apt-mark", "hold", "nvidia-utils-580"] in machine.ran


def test_the_playbook_knows_every_role_that_can_be_taken_back() -> None:
    play = yaml.safe_load((ROOT / "playbooks" / "rollback.yml").read_text(encoding="utf-8"))[0]
    roles = {path.parent.parent.name for path in ROOT.glob("roles/*/tasks/rollback.yml")}
    assert set(play["vars"]["__rollback_layers"]) == roles
    assert {f"{role}_rollback_to" for role in roles} <= set(play["vars"])
