# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of the driver before and after each change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import history, kept_files

from tests.unit.plugins.module_utils._host.driver.driver_machine import NEW, OLD, Machine


def change(machine: Machine, *sets: dict[str, str]) -> None:
    """A run of the role that installs these."""
    history.note(machine.files)
    machine.has(*sets)
    history.settle(machine.files)


def drivers() -> list[str]:
    return [state["driver"] for state in history.load()["states"]]


def test_the_first_change_keeps_both_what_was_and_what_is(machine: Machine) -> None:
    change(machine, OLD)
    assert drivers() == ["", "580.178.04"]


def test_a_run_that_changes_nothing_keeps_nothing(machine: Machine) -> None:
    change(machine, OLD)
    before = history.load()
    assert history.settle(machine.files) is False
    assert history.load() == before


def test_check_mode_tells_what_would_be_kept_and_keeps_nothing(machine: Machine) -> None:
    assert history.note(machine.files, carry_out=False) is True
    assert history.settle(machine.files, carry_out=False) is True
    assert not (machine.folder / "memory").exists()


def test_what_an_interrupted_change_left_is_not_kept(machine: Machine) -> None:
    change(machine, OLD)
    history.note(machine.files)
    machine.has({"libnvidia-compute": NEW["libnvidia-compute"]})
    assert history.note(machine.files) is False
    machine.has(NEW)
    history.settle(machine.files)
    assert drivers() == ["", "580.178.04", "595.91.07"]


def test_what_somebody_installed_by_hand_is_kept_before_the_role_replaces_it(machine: Machine) -> None:
    change(machine, OLD)
    machine.has({"libnvidia-compute-570": "570.211.01-1"})
    change(machine, NEW)
    assert drivers() == ["", "580.178.04", "570.211.01", "595.91.07"]


def test_what_came_with_the_driver_is_noted_and_nothing_of_before(machine: Machine) -> None:
    machine.packages["make"] = "4.3"
    history.note(machine.files)
    machine.packages |= OLD | {"dkms": "3.2.2"}
    history.settle(machine.files)
    assert history.load()["came"] == sorted([*OLD, "dkms"])


def test_only_so_many_states_are_kept_and_always_the_first(machine: Machine) -> None:
    for number in range(15):
        change(machine, {"libnvidia-compute": f"595.{number + 10}.01-1"})
    assert len(drivers()) == history.KEPT
    assert (drivers()[0], drivers()[-1]) == ("", "595.24.01")


def test_only_root_reads_the_notes(machine: Machine) -> None:
    change(machine, OLD)
    assert (machine.folder / "memory" / "history.json").stat().st_mode & 0o777 == 0o600


def test_what_another_layer_holds_meanwhile_is_no_change_of_the_driver(machine: Machine) -> None:
    change(machine, OLD)
    machine.held |= {"nvidia-container-toolkit", "libnvidia-container1", "docker.io"}
    assert history.settle(machine.files) is False
    machine.held |= {"nvidia-utils-580"}
    assert history.settle(machine.files) is True


def test_the_notes_of_earlier_versions_are_read(machine: Machine) -> None:
    """Machines have them; 'states', 'came', 'open' and 'going' are what they are called there."""
    change(machine, OLD)
    found: dict[str, Any] = json.loads((machine.folder / "memory" / "history.json").read_text())
    assert set(found) == {"format", "states", "came", "open", "going"}
    assert set(found["states"][0]) == {"at", "by", "driver", "packages", "manual", "holds", "files"}
    assert found["format"] == 1


def test_a_note_is_written_in_one_step_and_only_root_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "folder" / "note.json"
    kept_files.write_note(file, {"number": 1})
    # What a killed run has left.
    (tmp_path / "folder" / "note.new").write_text("{", encoding="utf-8")
    (tmp_path / "folder" / "note.new").chmod(0o644)
    kept_files.write_note(file, {"number": 2})
    assert kept_files.read_note(file) == {"number": 2}
    assert file.stat().st_mode & 0o777 == 0o600

    def full(self: Path, text: str, **_options: Any) -> None:
        with self.open("w", encoding="utf-8") as opened:
            opened.write(text[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        kept_files.write_note(file, {"number": 3})
    assert kept_files.read_note(file) == {"number": 2}


@pytest.mark.parametrize("text", [b"", b'{"a": [1,', b"\x00\x00", b"\xff"])
def test_a_note_that_was_cut_off_is_none(tmp_path: Path, text: bytes) -> None:
    assert kept_files.read_note(tmp_path / "note.json") is None
    (tmp_path / "note.json").write_bytes(text)
    assert kept_files.read_note(tmp_path / "note.json") is None


@pytest.mark.parametrize("kind", ["absent", "file", "link"])
def test_a_file_is_put_back_as_it_was(machine: Machine, kind: str) -> None:
    if kind == "file":
        machine.file.write_bytes(b"\x99key\n")
        machine.file.chmod(0o640)
    if kind == "link":
        machine.file.symlink_to("/somewhere")
    was = kept_files.kept(str(machine.file))
    assert not kept_files.put(str(machine.file), was)
    machine.file.unlink(missing_ok=True)
    machine.file.write_text("other", encoding="utf-8")
    assert kept_files.put(str(machine.file), was)
    assert kept_files.kept(str(machine.file)) == was
