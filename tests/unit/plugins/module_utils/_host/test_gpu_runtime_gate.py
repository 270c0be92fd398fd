# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate of the GPU runtime makes of GPUs, specifications and containers, and what it tells to do about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import gpu_runtime_gate
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_runtime_gate import Gate, Wanted, reason
from ansible_collections.gpumesh.fleet.plugins.modules import gpu_runtime_gate as module

from tests.little_docker import LittleContainer, LittleDocker
from tests.module_runner import run_module

UUIDS = tuple(f"GPU-00000000-0000-0000-0000-00000000000{index}" for index in range(4))
EVERY = frozenset(UUIDS)
WANTED: dict[str, Any] = {
    "version": "1.20.0-1",
    "packages": [],
    "gpus": [{"model": "rtx5090", "count": 4}],
    "docker": True,
    "docker_cdi": True,
    "containerd": False,
    "podman": False,
    "default_runtime": False,
    "image": "",
    "deferred": False,
    "gpu": {"devices": [], "driver": {"smi": "ok", "library": "595.91.07"}},
}
RELOADED = ", after a daemon-reload"


def device(address: str, state: str = "ok", model: str | None = "rtx5090") -> dict[str, Any]:
    """One of gpu_info's devices, cut to what is read of it."""
    return {"pci_address": address, "pci_id": "2b85", "model": model, "state": state}


def nothing(command: Sequence[str], _seconds: float) -> Ran:
    """A machine that has none of the programs."""
    return Ran(127, "", f"{command[0]} is not installed")


def gate(tmp_path: Path, run: Callable[[Sequence[str], float], Ran] = nothing, /, **wanted: Any) -> Gate:
    return Gate(Wanted(**{**WANTED, **wanted}), run, tmp_path)


def of_gpus(tmp_path: Path, devices: list[dict[str, Any]], smi: str = "ok") -> Gate:
    """The gate of a machine with these GPUs."""
    return gate(tmp_path, gpu={"devices": devices, "driver": {"smi": smi, "library": "595.91.07"}})


def failures(one: Gate) -> list[str]:
    return [entry["says"] for entry in one.checks if not entry["ok"]]


def test_a_lost_gpu_is_named_by_its_slot_with_what_to_do(tmp_path: Path) -> None:
    one = of_gpus(
        tmp_path, [device(f"0000:{bus}1:00.0", "lost" if bus == 4 else "ok") for bus in (0, 2, 4, 6)]
    )
    one.gpus()
    (said,) = failures(one)
    assert "0000:41:00.0 (rtx5090) of 4" in said
    assert "journalctl -k" in said
    assert "power the machine off" in said


def test_a_gpu_that_is_declared_and_not_there_is_counted_by_model(tmp_path: Path) -> None:
    one = of_gpus(tmp_path, [device("0000:01:00.0"), device("0000:21:00.0", model="t4")])
    one.gpus()
    (said,) = failures(one)
    assert "declared rtx5090: 1 are in the machine and 4 are declared" in said


def test_a_driver_that_does_not_answer_is_to_be_mended_first(tmp_path: Path) -> None:
    devices = [device(f"0000:{bus}1:00.0", "no_driver") for bus in (0, 2, 4, 6)]
    one = of_gpus(tmp_path, devices, smi="Failed to initialize NVML\nDriver/library version mismatch")
    assert one.gpus() == frozenset()
    (said,) = failures(one)
    assert "nvidia-smi fails: Driver/library version mismatch;" in said
    assert "--tags nvidia-drivers" in said


def test_without_gpus_no_container_check_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: Path
) -> None:
    monkeypatch.setattr(module.gpu_programs, "run", nothing)
    told = run_module(
        module.main,
        version="1.20.0-1",
        packages=[],
        gpus=WANTED["gpus"],
        gpu={"devices": [], "driver": {"smi": "not found", "library": None}},
    )
    container = [entry for entry in told["checks"] if entry["name"] == "containers"]
    assert [entry["ok"] for entry in container] == [False]
    assert told["gpus"] == 0
    assert told["changed"] is False
    assert told["simulated"] is False


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the toolkit's files are looked for in."""
    monkeypatch.setattr(gpu_runtime_gate, "SPEC", tmp_path / "nvidia.yaml")
    monkeypatch.setattr(gpu_runtime_gate, "OTHER_SPECS", f"{tmp_path}/others/*")
    monkeypatch.setattr(gpu_runtime_gate, "CONFIG", tmp_path / "config.toml")
    return tmp_path


def spec(uuids: Sequence[str], version: str) -> str:
    """A specification, cut to what is read of it."""
    names = "".join(f"    - name: {uuid}\n" for uuid in uuids)
    mounts = f"        - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{version}\n"
    return f"kind: nvidia.com/gpu\ndevices:\n{names}containerEdits:\n    mounts:\n{mounts}"


UNITS = "ActiveState=active\nUnitFileState=enabled\n"


@pytest.mark.parametrize(
    ("text", "units", "says"),
    [
        (spec(UUIDS, "595.91.07"), UNITS, []),
        ("", UNITS, ["CDI specification: there is no "]),
        (spec(UUIDS[:3], "595.91.07"), UNITS, ["CDI specification, devices: it names 3 devices, and the driver has 4"]),
        (spec(UUIDS, "590.48.01"), UNITS, ["driver: it was made for driver 590.48.01, and 595.91.07 is there"]),
        (
            spec(UUIDS, "595.91.07"),
            "ActiveState=failed\nUnitFileState=enabled\n",
            ["nvidia-cdi-refresh.path: it is not active and enabled (ActiveState=failed UnitFileState=enabled)"],
        ),
    ],
)  # fmt: skip
def test_a_specification_has_what_the_driver_has_and_is_kept_so(
    places: Path, text: str, units: str, says: list[str]
) -> None:
    if text:
        (places / "nvidia.yaml").write_text(text)
    one = gate(places, lambda _command, _seconds: Ran(0, units, ""))
    one.specification(EVERY, "595.91.07")
    assert [part in said for part, said in zip(says, failures(one), strict=True)] == [True] * len(says)


def test_a_second_specification_is_named(places: Path) -> None:
    (places / "others").mkdir()
    (places / "others" / "mine.yaml").write_text("kind: nvidia.com/gpu\n")
    (places / "others" / "net.yaml").write_text("kind: vendor.example/net\n")
    (places / "nvidia.yaml").write_text(spec(UUIDS, "595.91.07"))
    one = gate(places, lambda _command, _seconds: Ran(0, UNITS, ""))
    one.specification(EVERY, "595.91.07")
    (said,) = failures(one)
    assert f"{places}/others/mine.yaml speaks of nvidia.com/gpu, too" in said


def test_the_mode_legacy_is_refused(places: Path) -> None:
    for text, ok in (
        ('  mode = "legacy"\n', False),
        ('mode = "auto"\n', True),
        ('# mode = "legacy"\n', True),
    ):
        (places / "config.toml").write_text(text)
        one = gate(places)
        one.mode()
        assert [entry["ok"] for entry in one.checks] == [ok]


def test_packages_in_another_version_or_not_held_are_named(tmp_path: Path) -> None:
    def run(command: Sequence[str], _seconds: float) -> Ran:
        if command[0] == "apt-mark":
            return Ran(0, "one\n", "")
        listed = "one installed 1.20.0-1\ntwo installed 1.19.0-1\nthree config-files 1.20.0-1\n"
        return Ran(1, listed, "dpkg-query: no packages found matching four\n")

    one = gate(tmp_path, run, packages=["one", "two", "three", "four"])
    assert one.packages() == {"one": "1.20.0-1", "two": "1.19.0-1"}
    version, held = failures(one)
    assert "two is 1.19.0-1, three is not installed, four is not installed, wanted is 1.20.0-1" in version
    assert "may move two, three, four; 'apt-mark hold two three four'" in held


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ('{"Runtimes": {"nvidia": {}}, "DefaultRuntime": "nvidia", "CDISpecDirs": ["/etc/cdi"]}', []),
        (
            '{"Runtimes": {"runc": {}}, "DefaultRuntime": "runc", "CDISpecDirs": null}',
            ["does not know it", "it is runc, declared is nvidia", "CDI in Docker: it is off"],
        ),
    ],
)
def test_the_running_daemon_is_asked_and_not_its_file(tmp_path: Path, info: str, says: list[str]) -> None:
    one = gate(tmp_path, lambda _command, _seconds: Ran(0, f"{info}\n", "WARNING: {}"), default_runtime=True)
    one.daemon()
    assert [part in said for part, said in zip(says, failures(one), strict=True)] == [True] * len(says)


def test_a_daemon_that_does_not_answer_is_told_once(tmp_path: Path) -> None:
    one = gate(tmp_path, lambda _command, _seconds: Ran(1, "{}\n", "Cannot connect to the Docker daemon"))
    one.daemon()
    assert failures(one) == [
        "Docker answers: Cannot connect to the Docker daemon; see 'journalctl -u docker'"
    ]


def test_a_containerd_without_the_runtime_is_told_and_none_at_all_is_not(tmp_path: Path) -> None:
    one = gate(tmp_path, lambda _command, _seconds: Ran(0, "version = 2\n", ""))
    one.containerd()
    (said,) = failures(one)
    assert said.startswith("runtime nvidia in containerd: its configuration has no runtime nvidia")
    absent = gate(tmp_path)
    absent.containerd()
    assert absent.checks == []


class Machine:
    """Docker and Podman, each with its own containers and images, and one systemd."""

    def __init__(self) -> None:
        self.docker = LittleDocker(UUIDS)
        self.podman = LittleDocker(UUIDS)
        self.commands: list[tuple[str, ...]] = []

    def run(self, command: Sequence[str], seconds: float) -> Ran:
        self.commands.append(tuple(command))
        if command[0] == "podman":
            return self.podman.run(["docker", *command[1:]], seconds)
        if command[0] == "systemctl":
            self.podman.run(command, seconds)
        return self.docker.run(command, seconds)

    def started(self) -> list[tuple[str, ...]]:
        """The commands that started containers."""
        return [command for command in self.commands if command[1] == "run"]


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    for engine in (made.docker, made.podman):
        assert engine.containers == {}
        assert set(engine.images) <= {"theirs:1"}


def test_every_route_is_looked_at_before_and_after_a_daemon_reload(tmp_path: Path, machine: Machine) -> None:
    one = gate(tmp_path, machine.run, podman=True)
    one.containers(EVERY)
    names = [
        "Docker with the runtime nvidia",
        "Docker with CDI",
        "Docker with CDI, one GPU",
        "Podman with CDI",
    ]
    assert failures(one) == []
    assert [entry["name"] for entry in one.checks] == [
        "an image for docker",
        *names[:3],
        "an image for podman",
        names[3],
        *(f"{name}{RELOADED}" for name in names),
    ]
    options = [command[command.index("--network=none") + 3 : -3] for command in machine.started()]
    assert options == [
        ("--runtime=nvidia", "--env=NVIDIA_VISIBLE_DEVICES=all"),
        ("--device=nvidia.com/gpu=all",),
        ("--device=nvidia.com/gpu=0",),
        ("--device=nvidia.com/gpu=all", "--security-opt=label=disable", "--stop-signal=SIGKILL"),
    ]
    assert list(tmp_path.iterdir()) == []
    # Whatever a killed gate left is known by its label.
    label = f"gpumesh.gate.gpu={os.getpid()}"
    assert all(f"--label={label}" in command for command in machine.started())
    assert [command for command in machine.commands if "--filter=label=gpumesh.gate.gpu" in command]
    assert machine.docker.commands[0][1] == "ps"


def test_docker_that_reads_no_specification_gets_cdi_names_through_the_runtime(
    tmp_path: Path, machine: Machine
) -> None:
    one = gate(tmp_path, machine.run, docker_cdi=False)
    one.containers(EVERY)
    assert failures(one) == []
    assert any("--env=NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=all" in command for command in machine.started())
    assert not any("--device" in word for command in machine.started() for word in command)


def test_gpus_that_a_container_does_not_see_are_counted(tmp_path: Path, machine: Machine) -> None:
    machine.docker.hidden = {None: {UUIDS[3]}}
    one = gate(tmp_path, machine.run)
    one.containers(EVERY)
    assert failures(one) == [
        f"{name}: a container does not see every GPU: it sees 3 of 4 and says: GPU: (UUID: {UUIDS[2]})"
        for name in ("Docker with the runtime nvidia", "Docker with CDI")
    ]
    # Who asks for one gets it, and only that is looked at again.
    assert [entry["name"] for entry in one.checks if RELOADED in entry["name"]] == [
        f"Docker with CDI, one GPU{RELOADED}"
    ]


def test_a_single_gpu_has_to_be_one_of_the_machines(tmp_path: Path, machine: Machine) -> None:
    one = gate(tmp_path, machine.run)
    one.containers(frozenset(UUIDS[1:]))
    assert any(
        said.startswith("Docker with CDI, one GPU: a container does not see every GPU: it sees 1 of 1")
        for said in failures(one)
    )


def test_gpus_that_a_daemon_reload_takes_away_are_missed(tmp_path: Path, machine: Machine) -> None:
    machine.docker.legacy = True
    one = gate(tmp_path, machine.run, podman=True)
    one.containers(EVERY)
    said = failures(one)
    assert len(said) == 3
    assert said[0].startswith(
        f"Docker with the runtime nvidia{RELOADED}: a running container has lost its GPUs to 'systemctl daemon-reload': it sees "
        "4 of 4 and says: /bin/sh: 1: cannot open /dev/nvidia0: Operation not permitted; its devices are not a part"
    )


def test_a_daemon_reload_that_fails_proves_nothing(tmp_path: Path, machine: Machine) -> None:
    machine.docker.systemd = False
    one = gate(tmp_path, machine.run)
    one.containers(EVERY)
    said = failures(one)
    assert len(said) == 3
    assert all(": System has not been booted with systemd; its devices" in text for text in said)


@pytest.mark.parametrize(
    "theirs",
    [
        LittleContainer("training", "theirs:1", runtime="nvidia"),
        LittleContainer("training", "theirs:1", requests='[{"Capabilities":[["gpu"]]}]'),
    ],
    ids=["runtime", "gpus"],
)
@pytest.mark.parametrize("docker", [True, False])
def test_systemd_is_let_be_while_somebody_elses_container_could_lose_its_gpus(
    tmp_path: Path, machine: Machine, theirs: LittleContainer, docker: bool
) -> None:
    machine.docker.containers["training"] = theirs
    one = gate(tmp_path, machine.run, docker=docker, podman=True)
    one.containers(EVERY)
    assert not [command for command in machine.commands if command[0] == "systemctl"]
    assert failures(one) == []
    # It is neither among what was proved nor among what failed.
    assert not [entry for entry in one.checks if RELOADED in entry["name"]]
    names = (
        ["Docker with the runtime nvidia", "Docker with CDI", "Docker with CDI, one GPU"] if docker else []
    )
    assert [entry["name"] for entry in one.unproved] == [
        f"{name}{RELOADED}" for name in (*names, "Podman with CDI")
    ]
    assert one.unproved[0]["says"] == (
        f"{one.unproved[0]['name']}: not proved, because training has GPUs now and could lose them to the 'systemctl "
        "daemon-reload' that this check makes; run '--tags gate' when no other container uses a GPU"
    )
    assert machine.docker.containers.pop("training") is theirs


def test_other_containers_without_gpus_stand_in_nobodys_way(tmp_path: Path, machine: Machine) -> None:
    machine.docker.containers["web"] = LittleContainer("web", "theirs:1")
    one = gate(tmp_path, machine.run)
    one.containers(EVERY)
    assert len([entry for entry in one.checks if RELOADED in entry["name"]]) == 3
    assert one.unproved == []
    del machine.docker.containers["web"]


def test_what_was_not_proved_is_warned_of(monkeypatch: pytest.MonkeyPatch, places: Path) -> None:
    def evidence(one: Gate) -> dict[str, Any]:
        one._leave_out_reload(["Docker with CDI"], ["training", "serving"])
        return {"checks": one.checks, "unproved": one.unproved}

    warned: list[str] = []
    monkeypatch.setattr(Gate, "evidence", evidence)
    monkeypatch.setattr(module.AnsibleModule, "warn", lambda _self, says: warned.append(says))
    told = run_module(module.main, version="", packages=[], gpu={})
    assert warned == [entry["says"] for entry in told["unproved"]]
    assert "because training, serving have GPUs now" in warned[0]


def test_a_container_that_does_not_start_is_told_with_the_engines_reason(
    tmp_path: Path, machine: Machine
) -> None:
    machine.docker.refuses = "unknown or invalid runtime name: nvidia\n\nRun 'docker run --help' for more"
    one = gate(tmp_path, machine.run, docker_cdi=False)
    one.containers(EVERY)
    assert failures(one) == [
        f"{name}: the container does not start: docker: Error response from daemon: unknown or invalid runtime name: nvidia"
        for name in ("Docker with the runtime nvidia", "Docker with CDI names through the runtime")
    ]


def test_an_image_of_somebody_elses_is_run_with_its_shell_and_stays(tmp_path: Path, machine: Machine) -> None:
    machine.docker.images["theirs:1"] = ""
    one = gate(tmp_path, machine.run, image="theirs:1")
    one.containers(EVERY)
    assert failures(one) == []
    assert "an image for docker" not in [entry["name"] for entry in one.checks]
    for command in machine.started():
        assert command[-4:] == ("--entrypoint=/bin/sh", "theirs:1", "-c", "read line")
        # A shell that reads needs somebody who could write, and a registry may have the image.
        assert "--interactive" in command
        assert "--pull=never" not in command
    assert list(machine.docker.images) == ["theirs:1"]


def test_an_image_that_cannot_be_made_is_told_with_what_came_of_it(tmp_path: Path, machine: Machine) -> None:
    def run(command: Sequence[str], seconds: float) -> Ran:
        return Ran(1, "", "no space left") if command[1] == "import" else machine.run(command, seconds)

    one = gate(tmp_path, run, docker_cdi=False)
    one.containers(EVERY)
    said = failures(one)
    assert said[0] == "an image for docker: none could be made: no space left"
    assert "Docker with the runtime nvidia: the container does not start" in said[1]
    assert "No such image" in said[1]


def test_a_machine_that_is_prepared_for_its_next_boot_runs_no_container(places: Path) -> None:
    def run(command: Sequence[str], seconds: float) -> Ran:
        return (
            Ran(0, "Docker version 29.1.3, build f52814d\n", "")
            if "--version" in command
            else Ran(0, "{}", "")
        )

    found = gate(places, run, deferred=True).evidence()
    assert found["gpus"] == 0
    assert found["versions"] == {"toolkit": "", "docker": "29.1.3"}
    assert {entry["name"] for entry in found["checks"]} >= {"nvidia-cdi-refresh.path", "Docker answers"}
    assert not any("container" in entry["name"] for entry in found["checks"])


def test_the_reason_stands_before_how_to_get_help() -> None:
    assert reason(Ran(125, "", "Unable to find image\n docker: Error one\nRun 'docker run --help'")) == (
        "docker: Error one"
    )
    assert reason(Ran(1, "first\nlast\n", "")) == "last"
