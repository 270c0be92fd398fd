# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a machine goes back to, what that takes, and why it cannot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import (
    apt_trial,
    dkms,
    history,
    kept_files,
    rollback,
    trial,
    way_back,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver.programs import Failed

from tests.unit.plugins.module_utils._host.driver.driver_machine import (
    KERNEL,
    NEW,
    OLD,
    TOOLS,
    Machine,
    full_disk,
)
from tests.unit.plugins.module_utils._host.driver.test_history import change


def wish(machine: Machine, to: str = "previous") -> way_back.Wish:
    return way_back.Wish(to, machine.files, (KERNEL,), machine.folder / "root")


def target(machine: Machine, to: str = "previous") -> tuple[str | None, str]:
    """The driver that it would go back to, or why it goes nowhere."""
    found, why = way_back.target(history.load(), wish(machine, to), history.look(machine.files, "found"))
    return (None if found is None else found["driver"]), why


def go(machine: Machine, to: str = "previous") -> str:
    """The way back, as the module goes it."""
    return rollback.go(way_back.plan(wish(machine, to)), wish(machine, to))


def driver(machine: Machine) -> dict[str, str]:
    """What is installed of it."""
    return {name: version for name, version in machine.packages.items() if name != "bash"}


# -- where to ----------------------------------------------------------------------------------------------------------


def test_from_the_first_driver_it_goes_back_to_none(machine: Machine) -> None:
    change(machine, OLD)
    assert target(machine) == ("", "")


def test_what_an_interrupted_change_left_is_not_gone_back_to(machine: Machine) -> None:
    change(machine, OLD)
    history.note(machine.files)
    machine.has({"libnvidia-compute": NEW["libnvidia-compute"]})
    assert target(machine) == ("580.178.04", "")
    history.note(machine.files)
    machine.has(NEW)
    history.settle(machine.files)
    assert target(machine) == ("580.178.04", "")


def test_going_back_twice_goes_back_once(machine: Machine) -> None:
    change(machine, OLD)
    change(machine, NEW)
    assert target(machine) == ("580.178.04", "")
    go(machine)
    assert driver(machine) == OLD | TOOLS
    found, why = target(machine)
    assert found is None
    assert why.startswith("this machine went back to 580.178.04 on ")
    assert why.endswith("'none' goes further")
    # A run of the role that declares what it went back to is no change either.
    history.settle(machine.files)
    assert target(machine)[0] is None
    change(machine, NEW)
    assert target(machine) == ("580.178.04", "")


def test_after_none_the_previous_is_the_driver(machine: Machine) -> None:
    change(machine, OLD)
    assert target(machine, "none") == ("", "")
    go(machine, "none")
    assert driver(machine) == {}
    assert target(machine, "previous") == ("580.178.04", "")


def test_a_machine_without_notes_says_what_else_can_be_done(machine: Machine) -> None:
    machine.has(OLD)
    with pytest.raises(Failed, match="no other driver than the present one is recorded"):
        target(machine)


def test_a_machine_that_never_had_a_driver_has_nothing_to_go_back_from(machine: Machine) -> None:
    assert target(machine) == (None, "this machine has no driver, and none is recorded")
    assert way_back.plan(wish(machine)).needed is False


# -- what it takes -----------------------------------------------------------------------------------------------------


def test_the_exchange_names_every_version_and_removes_the_other_names(machine: Machine) -> None:
    change(machine, OLD)
    change(machine, NEW)
    plan = way_back.plan(wish(machine))
    assert plan.exchange.news == [f"{name}={version}" for name, version in OLD.items()]
    assert plan.exchange.gone == list(NEW)
    assert plan.exchange.module == "nvidia-dkms-580-open=580.178.04-1ubuntu1"
    assert plan.steps[0] == "install libnvidia-compute-580 580.178.04-1ubuntu1"
    assert "remove libnvidia-compute 595.91.07-1ubuntu1" in plan.steps
    assert driver(machine) == NEW
    assert not (machine.folder / "scratch").exists()
    assert not way_back.exchange({"came": []}, {"packages": OLD}, {"packages": OLD})


def test_what_came_with_the_driver_goes_with_the_last_one(machine: Machine) -> None:
    change(machine, OLD, {"dkms": "1-1"})
    # What apt would remove with the driver, where its marks say that nobody asked for it.
    machine.meanwhile = lambda words: (
        (0, "Remv nvidia-utils-580\nRemv dkms\n") if "--auto-remove" in words else None
    )
    plan = way_back.plan(wish(machine, "none"))
    assert plan.exchange.extra == ["dkms"]
    assert "remove dkms, which came with the driver" in plan.steps
    go(machine, "none")
    assert driver(machine) == {}
    assert history.load()["came"] == []


def test_a_version_that_is_no_longer_offered_is_refused(machine: Machine) -> None:
    change(machine, OLD)
    change(machine, NEW)
    machine.archive["libnvidia-compute-580"] = ["580.200.01-1"]
    with pytest.raises(Failed) as failed:
        way_back.plan(wish(machine))
    assert str(failed.value).startswith(
        "580.178.04 can no longer be had: no repository offers libnvidia-compute-580=580.178.04-1ubuntu1; of "
        "libnvidia-compute-580 there is 580.200.01-1. Nothing was changed."
    )
    assert driver(machine) == NEW
    assert not (machine.folder / "scratch").exists()


def test_what_would_remove_something_else_is_refused(machine: Machine) -> None:
    change(machine, OLD)
    machine.packages["nvtop"] = "1-1"
    machine.dependents = {"nvidia-utils-580": "nvtop"}
    with pytest.raises(
        Failed, match=r"^apt would also remove nvtop, which need what would go; nothing was changed"
    ):
        way_back.plan(wish(machine, "none"))


def test_a_simulation_sees_no_holds_of_the_driver_and_nothing_half_way(machine: Machine) -> None:
    held, half = "Status: hold ok installed", "Status: hold reinstreq half-installed"
    free = "Status: install ok installed"
    entries = {"libnvidia-compute": held, "nvidia-utils": half, "linux-image": held, "bash": half}
    (machine.folder / "status").write_text(
        "\n\n".join(f"Package: {name}\n{line}" for name, line in entries.items()), encoding="utf-8"
    )
    with apt_trial.scratch():
        option = apt_trial.without_holds()
        seen = {"libnvidia-compute": free, "linux-image": held, "bash": half}
        assert Path(option.split("=", 2)[2]).read_text(encoding="utf-8") == "\n\n".join(
            f"Package: {name}\n{line}" for name, line in seen.items()
        )


def test_the_repositories_of_then_are_tried_in_a_copy(machine: Machine) -> None:
    keyring = f"{machine.folder}/etc/apt/keyrings/gpumesh.asc"
    machine.file.write_text(f"Signed-By: {keyring}\n", encoding="utf-8")
    change(machine, OLD)
    machine.file.write_text("URIs: of-now\n", encoding="utf-8")
    change(machine, NEW)
    seen: list[str] = []
    copy = machine.folder / "scratch" / "etc" / "sources.list.d" / machine.file.name

    def look(words: list[str]) -> None:
        if words[0] == "apt-get" and words[-1] == "update":
            seen.append(copy.read_text(encoding="utf-8"))

    machine.meanwhile = look
    way_back.plan(wish(machine))
    assert seen == [f"Signed-By: {machine.folder}/scratch/etc/keyrings/gpumesh.asc\n"]
    assert machine.file.read_text(encoding="utf-8") == "URIs: of-now\n"


# -- the way -----------------------------------------------------------------------------------------------------------


def test_packages_files_holds_and_modules_are_as_they_were(machine: Machine) -> None:
    machine.file.write_text("URIs: of-then\n", encoding="utf-8")
    machine.held = {"bash"}
    history.note(machine.files)
    machine.has(OLD)
    machine.held = {"bash", *OLD}
    history.settle(machine.files)
    history.note(machine.files)
    machine.has(NEW)
    machine.held = {"bash", *NEW}
    machine.file.write_text("URIs: of-now\n", encoding="utf-8")
    machine.source("595.91.07")
    history.settle(machine.files)
    (machine.folder / "run" / "before.json").touch()
    assert go(machine) == ""
    assert driver(machine) == OLD | TOOLS
    assert machine.held == {"bash", *OLD}
    assert machine.file.read_text(encoding="utf-8") == "URIs: of-then\n"
    assert machine.built == {("nvidia", "580.178.04", KERNEL)}
    # Built on trial before the exchange, and never by dpkg.
    assert machine.builds_held_back == [False, True]
    assert not (machine.folder / "memory" / "trial").exists()
    # The note of an installation that was interrupted would put the other driver back.
    assert not (machine.folder / "run" / "before.json").exists()


def test_a_module_that_does_not_compile_leaves_the_driver_as_it_is(machine: Machine) -> None:
    change(machine, OLD)
    machine.file.write_text("URIs: of-now\n", encoding="utf-8")
    change(machine, NEW)
    machine.broken_kernels = {KERNEL}
    with pytest.raises(Failed, match=rf"does not build for the kernel {KERNEL}") as failed:
        go(machine)
    assert "nv.c:1:2: error: no such thing" in str(failed.value)
    assert str(failed.value).endswith("\nThe driver was left as it is")
    assert driver(machine) == NEW | TOOLS
    assert machine.file.read_text(encoding="utf-8") == "URIs: of-now\n"
    assert history.load()["going"] is None


def test_a_trial_on_a_full_disk_leaves_the_driver_as_it_is(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(machine, OLD)
    machine.file.write_text("URIs: of-now\n", encoding="utf-8")
    change(machine, NEW)
    monkeypatch.setattr(trial, "write_note", full_disk)
    with pytest.raises(Failed, match=r"No space left on device\nThe driver was left as it is$"):
        go(machine)
    assert driver(machine) == NEW | TOOLS
    assert machine.file.read_text(encoding="utf-8") == "URIs: of-now\n"
    assert history.load()["going"] is None


def test_an_exchange_on_a_full_disk_says_that_it_goes_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(machine, OLD)
    change(machine, NEW)
    with monkeypatch.context() as patched:
        patched.setattr(dkms, "install", full_disk)
        with pytest.raises(Failed, match=r"No space left on device; run it again, it goes on from there$"):
            go(machine)
    go(machine)
    assert {name: driver(machine)[name] for name in OLD} == OLD


def test_files_that_cannot_be_written_leave_everything_as_it_is(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.file.write_text("URIs: of-then\n", encoding="utf-8")
    change(machine, OLD)
    machine.file.write_text("URIs: of-now\n", encoding="utf-8")
    change(machine, NEW)
    plan, put = way_back.plan(wish(machine)), rollback.put

    def no_room(path: str, was: kept_files.Kept) -> bool:
        monkeypatch.setattr(rollback, "put", put)
        Path(path).unlink()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rollback, "put", no_room)
    with pytest.raises(OSError, match="No space left"):
        rollback.go(plan, wish(machine))
    assert machine.file.read_text(encoding="utf-8") == "URIs: of-now\n"
    assert history.load()["going"] is None


def test_packages_that_cannot_be_fetched_leave_everything_as_it_is(machine: Machine) -> None:
    machine.file.write_text("URIs: of-then\n", encoding="utf-8")
    change(machine, OLD)
    machine.file.write_text("URIs: of-now\n", encoding="utf-8")
    change(machine, NEW)
    machine.meanwhile = lambda words: (100, "E: Failed to fetch\n") if "--download-only" in words else None
    with pytest.raises(Failed, match="the packages cannot be fetched: E: Failed to fetch"):
        go(machine)
    assert driver(machine) == NEW
    assert machine.file.read_text(encoding="utf-8") == "URIs: of-now\n"
    assert history.load()["going"] is None


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 45))
def test_a_run_that_is_killed_anywhere_goes_on_when_it_is_run_again(
    machine: Machine, at: int, after: bool
) -> None:
    change(machine, OLD)
    machine.held = set(OLD)
    history.settle(machine.files)
    change(machine, NEW)
    machine.kill_at(at, after=after)
    with machine.killed():
        go(machine)
    # The last is one that has run to its end.
    assert machine.died is (at <= 43)
    plan = way_back.plan(wish(machine))
    if plan.needed:
        rollback.go(plan, wish(machine))
    assert {name: driver(machine)[name] for name in OLD} == OLD
    assert not set(NEW) & set(machine.packages)
    assert machine.held == set(OLD)
    assert machine.built == {("nvidia", "580.178.04", KERNEL)}
    assert not (machine.folder / "etc" / "dkms").exists()
    assert history.load()["going"] is None
    assert history.load()["states"][-1]["driver"] == "580.178.04"


def test_an_exchange_that_fails_says_that_it_goes_on(machine: Machine) -> None:
    change(machine, OLD)
    change(machine, NEW)

    def fail(words: list[str]) -> tuple[int, str] | None:
        exchanges = words[0] == "apt-get" and "install" in words and "libnvidia-compute-" in words
        return (
            (100, "dpkg: error processing a.deb\n")
            if exchanges and "--simulate" not in words and "--download-only" not in words
            else None
        )

    machine.meanwhile = fail
    with pytest.raises(
        Failed,
        match=r"apt does not exchange the packages: dpkg: error .*; run it again, it goes on from there$",
    ):
        go(machine)
    assert history.load()["going"]["target"]["driver"] == "580.178.04"
    machine.meanwhile = lambda _words: None
    go(machine)
    assert {name: driver(machine)[name] for name in OLD} == OLD


def test_what_dpkg_has_left_half_way_is_ended_first(machine: Machine) -> None:
    change(machine, OLD)
    machine.packages.pop("nvidia-utils-580")
    machine.residues["nvidia-utils-580"] = "half-installed"
    go(machine, "none")
    assert machine.residues == {}
    assert driver(machine) == {}
    assert machine.did("dpkg", "-a") or ["dpkg", "--configure", "-a"] in machine.ran


def test_an_interrupted_way_back_goes_on_to_where_it_went(machine: Machine) -> None:
    change(machine, OLD)
    change(machine, NEW)
    machine.meanwhile = lambda words: machine.kill_at(0, after=True) if "--download-only" in words else None
    with machine.killed():
        go(machine)
    assert history.load()["going"]["target"]["driver"] == "580.178.04"
    machine.has({"libnvidia-compute-580": OLD["libnvidia-compute-580"]})
    assert target(machine) == ("580.178.04", "")


def test_a_purge_leaves_no_notes(machine: Machine) -> None:
    change(machine, OLD)
    go(machine, "absent")
    assert not (machine.folder / "memory").exists()
    assert way_back.leftovers(wish(machine, "absent")) == []


def test_what_comes_with_the_way_back_is_noted_as_well(machine: Machine) -> None:
    change(machine, OLD)
    go(machine, "none")
    assert history.load()["came"] == []
    # The trial brings DKMS.
    go(machine)
    assert history.load()["came"] == sorted([*OLD, *TOOLS])


def test_holds_of_others_stay(machine: Machine) -> None:
    change(machine, OLD)
    machine.held = {"nvidia-utils-580"}
    history.settle(machine.files)
    change(machine, NEW)
    machine.held = {"libnvidia-compute", "bash", "linux-image-generic"}
    (machine.folder / "memory" / "holds.json").write_text('["linux-image-generic"]', encoding="utf-8")
    go(machine)
    assert machine.held == {"bash", "nvidia-utils-580"}
    assert not (machine.folder / "memory" / "holds.json").exists()


def test_a_note_of_holds_that_was_kept_when_it_was_cut_off_holds_nothing(machine: Machine) -> None:
    (machine.folder / "memory").mkdir()
    (machine.folder / "memory" / "holds.json").write_text('["libnvidia', encoding="utf-8")
    change(machine, OLD)
    change(machine, NEW)
    go(machine)
    assert {name: driver(machine)[name] for name in OLD} == OLD


def test_the_initial_file_systems_are_made_anew_by_the_program_that_is_run(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = way_back.Wish("none", ("/etc/modprobe.d/gpumesh-no-such.conf",), (KERNEL,), machine.folder)
    history.note(back.files)
    machine.has(OLD)
    history.settle(back.files)
    monkeypatch.setattr(rollback, "put", lambda path, _was: path.startswith("/etc/modprobe.d/"))
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/usr/sbin/{name}" if path else None)
    rollback.go(way_back.plan(back), back)
    assert ["update-initramfs", "-u", "-k", "all"] in machine.ran


# -- what is left ------------------------------------------------------------------------------------------------------


def test_leftovers_are_named(machine: Machine) -> None:
    assert way_back.leftovers(wish(machine)) == []
    machine.has({"libcuda1": "550.163.01-2"})
    machine.residues = {"nvidia-driver-pinning-580": "config-files"}
    machine.file.touch()
    assert way_back.leftovers(wish(machine)) == [
        "the package libcuda1 550.163.01-2",
        "the configuration of nvidia-driver-pinning-580",
        str(machine.file),
    ]


def test_dkms_trees_of_other_versions_go_and_those_of_packages_stay(machine: Machine) -> None:
    for version in ("580.178.04", "595.91.07"):
        machine.source(version)
        (machine.folder / "dkms" / "nvidia" / version / "6.8.0").mkdir(parents=True)
    assert dkms.clean({"580.178.04"}) == ["nvidia/595.91.07"]
    assert [path.name for path in (machine.folder / "src").iterdir()] == ["nvidia-580.178.04"]
    assert [path.name for path in (machine.folder / "dkms" / "nvidia").iterdir()] == ["580.178.04"]
    assert dkms.clean(set()) == ["nvidia/580.178.04"]
    assert not (machine.folder / "dkms" / "nvidia").exists()
    assert not list((machine.folder / "src").iterdir())


def test_a_module_that_no_package_has_goes_with_the_last_driver(machine: Machine) -> None:
    folder = machine.folder / "modules" / "6.8.0" / "updates" / "dkms"
    folder.mkdir(parents=True)
    for name in ("nvidia.ko", "nvidia-uvm.ko.zst", "zfs.ko"):
        (folder / name).touch()
    machine.owned = {str(folder / "nvidia-uvm.ko.zst")}
    assert dkms.clean({"580.178.04"}) == []
    assert dkms.clean(set()) == [str(folder / "nvidia.ko")]
    assert sorted(path.name for path in folder.iterdir()) == ["nvidia-uvm.ko.zst", "zfs.ko"]
    assert ["depmod", "6.8.0"] in machine.ran


def test_a_link_to_a_unit_that_is_gone_goes_with_the_last_driver(machine: Machine) -> None:
    folder = machine.folder / "units" / "multi-user.target.wants"
    folder.mkdir(parents=True)
    (folder / "nvidia-persistenced.service").symlink_to("/gone")
    (folder / "ssh.service").symlink_to("/gone")
    (folder / "nvidia-cdi-refresh.service").symlink_to(machine.folder)
    change(machine, OLD)
    change(machine, NEW)
    go(machine)
    assert way_back.leftovers(wish(machine))[-1] == str(folder / "nvidia-persistenced.service")
    assert len(list(folder.iterdir())) == 3
    go(machine, "none")
    assert sorted(path.name for path in folder.iterdir()) == ["nvidia-cdi-refresh.service", "ssh.service"]
