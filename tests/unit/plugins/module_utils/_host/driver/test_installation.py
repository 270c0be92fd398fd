# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver's packages are of one version, come in one transaction, and a failure leaves the machine as it was."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import (
    dkms,
    installation,
    paths,
    snapshot,
    trial,
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

ORDER = installation.Order(
    packages=tuple(sorted(OLD)),
    module="nvidia-dkms-580-open",
    further=("nvtop",),
    wanted="580",
    loose=frozenset(),
    prebuilt=False,
    kernels=(KERNEL,),
    patterns=("^(lib)?nvidia-(?!container)", "^nvtop$"),
)
TRIAL = trial.Trial(
    f"nvidia-dkms-580-open={OLD['nvidia-dkms-580-open']}", (f"linux-headers-{KERNEL}",), (KERNEL,)
)


# -- what is ordered ---------------------------------------------------------------------------------------------------


def test_every_package_is_ordered_in_one_version_and_the_module_first(machine: Machine) -> None:
    transaction = installation.plan(ORDER)
    assert transaction.orders[0] == "nvidia-dkms-580-open=580.178.04-1ubuntu1"
    assert sorted(transaction.orders) == sorted(
        [*(f"{name}={version}" for name, version in OLD.items()), "nvtop"]
    )
    assert set(transaction.installs) == {*OLD, "nvtop"}
    assert machine.packages == {"bash": "5.2-1"}


def test_a_package_that_got_lost_comes_back_in_the_version_of_the_others(machine: Machine) -> None:
    machine.has(OLD)
    del machine.packages["nvidia-utils-580"]
    for name in OLD:
        machine.archive[name] = ["580.200.01-1", *machine.archive[name]]
    assert "nvidia-utils-580=580.178.04-1ubuntu1" in installation.plan(ORDER).orders
    machine.has()
    assert "nvidia-utils-580=580.200.01-1" in installation.plan(ORDER).orders


def test_a_full_version_is_taken_before_what_the_preferences_choose(machine: Machine) -> None:
    for name in OLD:
        machine.archive[name] = ["580.200.01-1", *machine.archive[name]]
    orders = installation.plan(replace(ORDER, wanted="580.178.04")).orders
    assert orders[0] == "nvidia-dkms-580-open=580.178.04-1ubuntu1"


def test_a_version_that_is_not_offered_and_a_package_that_nobody_has_are_told(machine: Machine) -> None:
    with pytest.raises(Failed, match=r"580.9 is wanted, and there is 580.178.04-1ubuntu1"):
        installation.plan(replace(ORDER, wanted="580.9"))
    with pytest.raises(
        Failed, match="no repository of this machine offers cudnn; look at 'apt-cache policy cudnn'"
    ):
        installation.plan(replace(ORDER, further=("cudnn",)))


def test_another_branch_goes_away_and_what_would_go_with_it_is_not_touched(machine: Machine) -> None:
    machine.has(NEW)
    assert set(installation.plan(ORDER).removes) == set(NEW)
    machine.packages["blender"] = "4"
    machine.dependents = {"nvidia-utils": "blender"}
    with pytest.raises(
        Failed, match=r"^apt would remove blender for the driver; remove it yourself if that is meant$"
    ):
        installation.plan(ORDER)


def test_modules_that_came_built_go_where_dkms_builds_them(machine: Machine) -> None:
    machine.packages["linux-modules-nvidia-580-open-6.8.0"] = "6.8.0-90.91"
    assert installation.plan(ORDER).removes == ["linux-modules-nvidia-580-open-6.8.0"]
    assert installation.plan(replace(ORDER, prebuilt=True)).removes == []


# -- installing --------------------------------------------------------------------------------------------------------


def test_no_module_is_built_by_dpkg_and_every_kernel_gets_one(machine: Machine) -> None:
    transaction, changed = installation.install(ORDER)
    assert changed is True
    assert set(transaction.installs) == {*OLD, "nvtop"}
    assert machine.builds_held_back == [True]
    assert machine.built == {("nvidia", "580.178.04", KERNEL)}
    # Left behind, it would keep every later kernel without a module; and the folder is none of ours.
    assert not (machine.folder / "etc" / "dkms").exists()
    assert installation.install(ORDER)[1] is False
    # A kernel that came later gets its module, with no package to install.
    another = replace(ORDER, kernels=(KERNEL, "6.8.0-94-generic"))
    assert installation.install(another)[1] is True
    assert {kernel for _name, _version, kernel in machine.built} == {KERNEL, "6.8.0-94-generic"}


def test_a_prediction_counts_modules_and_what_is_half_way(machine: Machine) -> None:
    assert installation.foresee(ORDER)[1] is True
    installation.install(ORDER)
    assert installation.foresee(ORDER)[1] is False
    another = replace(ORDER, kernels=(KERNEL, "6.8.0-94-generic"))
    assert installation.foresee(another)[1] is True
    assert installation.foresee(replace(another, prebuilt=True))[1] is False
    # A module of another driver is none.
    machine.built = {("nvidia", "570.211.01", KERNEL)}
    assert installation.foresee(ORDER)[1] is True
    installation.install(ORDER)
    machine.residues = {"libnvidia-cfg1-580": "half-installed"}
    assert installation.foresee(ORDER)[1] is True
    assert installation.install(ORDER)[1] is True
    assert installation.foresee(ORDER)[1] is False


def test_what_the_administrator_has_said_of_builds_stays(machine: Machine) -> None:
    paths.NO_BUILD.parent.mkdir()
    paths.NO_BUILD.write_text("Not on this machine.\n")
    installation.install(ORDER)
    assert paths.NO_BUILD.read_text() == "Not on this machine.\n"


def test_what_a_run_of_an_earlier_version_has_left_goes(machine: Machine) -> None:
    paths.NO_BUILD.parent.mkdir()
    paths.NO_BUILD.write_text(
        "The role nvidia_driver of gpumesh.fleet is installing; it builds the modules itself.\n"
    )
    installation.install(ORDER)
    assert not paths.NO_BUILD.exists()


def test_what_was_asked_for_by_nobody_stays_so(machine: Machine) -> None:
    machine.has(OLD)
    machine.automatic = {"libnvidia-compute-580"}
    del machine.packages["nvidia-utils-580"]
    installation.install(ORDER)
    assert machine.automatic == {"libnvidia-compute-580"}
    assert ["apt-mark", "auto", "libnvidia-compute-580"] in machine.ran


def test_what_the_trial_has_built_is_installed(machine: Machine) -> None:
    trial.build(TRIAL)
    machine.broken_kernels.clear()
    installation.install(ORDER)
    assert (machine.folder / "dkms" / "nvidia" / "580.178.04" / KERNEL / "x86_64" / "module").is_dir()


def test_a_module_that_dkms_does_not_install_is_told_from_its_log(machine: Machine) -> None:
    machine.broken_kernels = {KERNEL}
    with pytest.raises(Failed, match=r"DKMS does not install nvidia 580.178.04 for the kernel") as failed:
        installation.install(ORDER)
    assert str(failed.value).endswith("its log says:\nnv.c:1:2: error: no such thing")


# -- the trial ---------------------------------------------------------------------------------------------------------


def test_a_trial_builds_for_every_kernel_and_installs_nothing_of_the_driver(machine: Machine) -> None:
    assert trial.build(TRIAL) == {KERNEL: "580.178.04"}
    assert machine.packages == {"bash": "5.2-1"} | TOOLS
    assert trial.is_done(TRIAL)
    assert not trial.is_done(replace(TRIAL, kernels=(KERNEL, "6.8.0-94-generic")))
    (paths.TRIAL / "built.json").write_text('{"wish": {"or', encoding="utf-8")
    assert not trial.is_done(TRIAL)


def test_a_trial_that_fails_leaves_nothing_to_be_installed(machine: Machine) -> None:
    machine.broken_kernels = {KERNEL}
    with pytest.raises(Failed) as failed:
        trial.build(TRIAL)
    assert str(failed.value) == (
        f"the module of nvidia 580.178.04 does not build for the kernel {KERNEL}, so the driver was not installed; another "
        "branch (nvidia_driver_branch) or kernel may do. Its make.log says:\nnv.c:1:2: error: no such thing"
    )
    assert not paths.TRIAL.exists()
    assert not trial.is_done(TRIAL)


def test_a_trial_on_a_full_disk_leaves_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "write_note", full_disk)
    with pytest.raises(OSError, match="No space left"):
        trial.build(TRIAL)
    assert not paths.TRIAL.exists()


def test_a_trial_without_headers_or_kernels_says_so(machine: Machine) -> None:
    with pytest.raises(
        Failed, match="no repository of this machine offers linux-headers-9, so no module can be built"
    ):
        trial.build(replace(TRIAL, headers=("linux-headers-9",)))
    with pytest.raises(Failed, match="no kernel is installed on this machine"):
        trial.build(replace(TRIAL, kernels=()))


# -- pin and holds -----------------------------------------------------------------------------------------------------


def test_the_pin_of_another_branch_is_purged(machine: Machine) -> None:
    machine.archive["nvidia-driver-pinning-580"] = ["580.1-1"]
    machine.packages["nvidia-driver-pinning-595"] = "595.1-1"
    assert installation.pin(["nvidia-driver-pinning-580"], carry_out=False) is True
    assert "nvidia-driver-pinning-580" not in machine.packages
    assert installation.pin(["nvidia-driver-pinning-580"], carry_out=True) is True
    assert [name for name in machine.packages if "pinning" in name] == ["nvidia-driver-pinning-580"]
    assert ["dpkg", "--purge", "nvidia-driver-pinning-595"] in machine.ran
    assert installation.pin(["nvidia-driver-pinning-580"], carry_out=True) is False


def test_every_package_of_the_driver_is_held_and_what_others_hold_stays(machine: Machine) -> None:
    machine.has(OLD)
    machine.held = {"bash", "nvidia-utils-580"}
    assert installation.hold(ORDER.patterns, kernel=False, carry_out=False).add
    assert machine.held == {"bash", "nvidia-utils-580"}
    assert installation.hold(ORDER.patterns, kernel=False, carry_out=True)
    assert machine.held == {"bash", *OLD}
    assert not installation.hold(ORDER.patterns, kernel=False, carry_out=True)
    assert installation.ours() == ["libnvidia-compute-580", "nvidia-dkms-580-open"]
    let_go = installation.hold(["^none$"], kernel=False, carry_out=True)
    assert let_go.drop == ["libnvidia-compute-580", "nvidia-dkms-580-open"]
    assert machine.held == {"bash", "nvidia-utils-580"}
    assert installation.ours() == []


def test_a_note_of_holds_that_was_cut_off_holds_nothing(machine: Machine) -> None:
    machine.has(OLD)
    installation.hold(ORDER.patterns, kernel=False, carry_out=True)
    paths.HOLDS.write_text('["libnvidia-com', encoding="utf-8")
    assert installation.ours() == []
    assert not installation.hold(["^none$"], kernel=False, carry_out=True)


def test_what_would_bring_another_kernel_is_held_where_that_is_asked_for(machine: Machine) -> None:
    rows = (
        "linux-image-generic\tinstalled\tlinux-image-6.8.0-90-generic, linux-firmware\n"
        "linux-image-6.8.0-90-generic\tinstalled\tkmod\n"
        "linux-libc-dev\tinstalled\t\n"
        "linux-headers-generic\tconfig-files\tlinux-headers-6.8.0-90-generic\n"
    )
    machine.meanwhile = lambda words: (0, rows) if words[-1] == "linux-*" else None
    assert installation.hold([], kernel=True, carry_out=True).add == ["linux-image-generic"]


# -- back to how it was ------------------------------------------------------------------------------------------------


def test_a_failed_installation_is_undone(machine: Machine) -> None:
    machine.has(NEW)
    machine.held = {"bash", *NEW}
    machine.source("595.91.07")
    dkms.install([KERNEL])
    machine.file.write_text("URIs: of-then\n")
    before = dict(machine.packages), set(machine.held), set(machine.built)
    assert snapshot.take(machine.files, carry_out=True) is True
    machine.file.write_text("URIs: of-now\n")
    machine.broken_kernels = {KERNEL}
    with pytest.raises(Failed):
        installation.install(ORDER)
    machine.broken_kernels = set()
    assert snapshot.put_back() == "The machine was put back as it was."
    assert (machine.packages, machine.held, machine.built) == before
    assert machine.file.read_text() == "URIs: of-then\n"
    assert not snapshot.exists()


def test_what_dpkg_has_left_half_way_goes_before_apt_is_asked(machine: Machine) -> None:
    snapshot.take(machine.files, carry_out=True)
    machine.has(OLD)
    machine.residues["nvidia-compute-utils-580"] = "half-installed"
    assert snapshot.put_back() == "The machine was put back as it was."
    changes = [words for words in machine.ran if words[0] in ("dpkg", "apt-get")]
    assert changes[0][:3] == ["dpkg", "--purge", "--force-remove-reinstreq"]
    assert changes[1][0] == "apt-get"


def test_what_could_not_be_put_back_is_told(machine: Machine) -> None:
    machine.has({"libcuda1": "550.163.01-2"})
    snapshot.take(machine.files, carry_out=True)
    machine.has(OLD)
    assert snapshot.put_back() == "The machine was put back as it was, but not as before are libcuda1."


def test_without_a_note_nothing_is_put_back_and_nothing_deleted(machine: Machine) -> None:
    trial.build(TRIAL)
    machine.has(OLD)
    sentence = "There is no note of how the machine was, so nothing was put back."
    assert snapshot.put_back() == sentence
    paths.SNAPSHOT.write_text('{"format": 2, "packages": {"ba', encoding="utf-8")
    assert snapshot.put_back() == sentence
    assert trial.is_done(TRIAL)
    assert machine.packages == {"bash": "5.2-1"} | OLD


def test_a_machine_that_has_no_room_to_be_put_back_says_so(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot.take(machine.files, carry_out=True)
    machine.has(OLD)
    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "put", full_disk)
        assert snapshot.put_back() == (
            "The machine was put back as it was, but [Errno 28] No space left on device."
        )
    assert snapshot.put_back() == "The machine was put back as it was."


def test_nothing_ends_apt_or_dpkg_while_a_machine_is_put_back(machine: Machine) -> None:
    snapshot.take(machine.files, carry_out=True)
    machine.has(OLD)
    machine.residues = {"libnvidia-cfg1-580": "config-files"}
    done = len(machine.ran)
    snapshot.put_back()
    ran = zip(machine.ran[done:], machine.limits[done:], strict=True)
    limits = {words[0]: limit for words, limit in ran if words[0] in ("apt-get", "dpkg")}
    assert limits == {"apt-get": None, "dpkg": None}


KILLED = pytest.mark.parametrize(
    ("at", "after"), [(at, after) for at in range(1, 21) for after in (False, True)]
)


@KILLED
def test_a_run_that_is_killed_anywhere_is_undone_by_one_that_fails(
    machine: Machine, at: int, after: bool
) -> None:
    machine.has(NEW)
    machine.source("595.91.07")
    dkms.install([KERNEL])
    before = dict(machine.packages), set(machine.held), set(machine.built)
    snapshot.take(machine.files, carry_out=True)
    machine.kill_at(at, after=after)
    with machine.killed():
        installation.install(ORDER)
    # The last is one that has run to its end.
    assert machine.died is (at <= 19)
    assert snapshot.put_back() == "The machine was put back as it was."
    assert (machine.packages, machine.held, machine.built) == before
    assert not paths.NO_BUILD.exists()


@KILLED
def test_a_run_that_is_killed_anywhere_is_ended_by_the_next(machine: Machine, at: int, after: bool) -> None:
    machine.has(NEW)
    snapshot.take(machine.files, carry_out=True)
    machine.kill_at(at, after=after)
    with machine.killed():
        installation.install(ORDER)
    installation.install(ORDER)
    assert machine.packages == {"bash": "5.2-1", "nvtop": "1-1"} | OLD
    assert machine.built == {("nvidia", "580.178.04", KERNEL)}
    assert not paths.NO_BUILD.exists()


def test_the_note_is_made_anew_unless_a_run_was_killed(machine: Machine) -> None:
    snapshot.take(machine.files, carry_out=True)
    machine.has(OLD)
    assert snapshot.take(machine.files, carry_out=True) is True
    machine.residues["libnvidia-cfg1-580"] = "half-installed"
    machine.has(NEW)
    assert snapshot.take(machine.files, carry_out=True) is False
    assert json.loads(paths.SNAPSHOT.read_text())["packages"] == {"bash": "5.2-1"} | OLD


def test_what_the_administrator_has_said_of_builds_keeps_no_old_note(machine: Machine) -> None:
    snapshot.take(machine.files, carry_out=True)
    machine.has(OLD)
    paths.NO_BUILD.parent.mkdir()
    paths.NO_BUILD.write_text("Not on this machine.\n")
    assert snapshot.take(machine.files, carry_out=True) is True
    machine.has(NEW)
    paths.NO_BUILD.write_text(dkms.NO_BUILD_TEXT)
    assert snapshot.take(machine.files, carry_out=True) is False
    assert json.loads(paths.SNAPSHOT.read_text())["packages"] == {"bash": "5.2-1"} | OLD


def test_a_note_that_was_cut_off_is_made_anew(machine: Machine) -> None:
    paths.SNAPSHOT.write_text('{"format": 2, "packages": {"ba', encoding="utf-8")
    machine.residues["libnvidia-cfg1-580"] = "half-installed"
    assert not snapshot.exists()
    assert snapshot.take(machine.files, carry_out=True) is True
    assert snapshot.exists()
    # The repository's key may be in it.
    assert paths.SNAPSHOT.stat().st_mode & 0o777 == 0o600


def test_what_holds_builds_back_is_forgotten_with_the_note(machine: Machine) -> None:
    paths.NO_BUILD.parent.mkdir()
    paths.NO_BUILD.write_text(dkms.NO_BUILD_TEXT)
    assert snapshot.forget(carry_out=False) is True
    assert paths.NO_BUILD.exists()
    assert snapshot.forget(carry_out=True) is True
    assert not paths.NO_BUILD.exists()
    assert snapshot.forget(carry_out=True) is False
    paths.NO_BUILD.parent.mkdir()
    paths.NO_BUILD.write_text("Not on this machine.\n")
    assert snapshot.forget(carry_out=True) is False
    assert paths.NO_BUILD.exists()


def test_the_note_is_forgotten_once(machine: Machine) -> None:
    snapshot.take(machine.files, carry_out=True)
    assert snapshot.forget(carry_out=False) is True
    assert snapshot.exists()
    assert snapshot.forget(carry_out=True) is True
    assert snapshot.forget(carry_out=True) is False
