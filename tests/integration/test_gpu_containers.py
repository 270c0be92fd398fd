# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of the machine's own shell, with the real Docker: they start, are looked into, and are gone afterwards, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import gpu_programs, gpu_runtime_gate
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_containers import (
    LABEL,
    ContainerError,
    Containers,
    Route,
    routes,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran

pytestmark = [pytest.mark.integration, pytest.mark.docker]

ROOT = Path(__file__).parents[2]
PLAIN = Route("nothing", ())


def docker(*words: str) -> list[str]:
    """What docker says."""
    done = subprocess.run(["docker", *words], check=True, capture_output=True, text=True)
    return done.stdout.split()


def ours(maker: int, label: str = LABEL) -> list[str]:
    """What a process has made and not removed."""
    chosen = f"--filter=label={label}={maker}"
    return [*docker("ps", "--all", "--quiet", chosen), *docker("image", "ls", "--quiet", chosen)]


@pytest.fixture(scope="module")
def bystander(tmp_path_factory):
    """Somebody else's container. Those that are here already come and go by themselves."""
    with Containers(
        gpu_programs.run, tmp_path_factory.mktemp("bystander"), label="gpumesh.bystander"
    ) as made:
        yield made.start(PLAIN)


@pytest.fixture(autouse=True)
def _nothing_is_left(bystander):
    yield
    assert ours(os.getpid()) == []
    assert docker("inspect", "--format={{.State.Running}}", bystander) == ["true"]


def test_a_container_without_gpus_sees_none(tmp_path):
    with Containers(gpu_programs.run, tmp_path) as made:
        name = made.start(PLAIN)
        look = made.look(name)
        running = made.running([name])

    assert running
    assert look.uuids == frozenset()
    assert "/dev/nvidia" in look.problem


def test_a_node_that_can_be_opened_is_no_problem(tmp_path):
    # A file in the place of the node; nvidia-smi is not there, and what counts is the last command.
    node = tmp_path / "nvidia0"
    node.touch()
    with Containers(gpu_programs.run, tmp_path) as made:
        look = made.look(made.start(Route("a file", (f"--volume={node}:/dev/nvidia0:ro",))))

    assert look.problem == ""


def test_several_run_at_the_same_time(tmp_path):
    with Containers(gpu_programs.run, tmp_path) as made:
        names = [made.start(PLAIN) for _one in range(3)]

        assert made.running(names)
        assert len(set(names)) == 3


def test_an_option_that_docker_refuses_is_told(tmp_path):
    with (
        Containers(gpu_programs.run, tmp_path) as made,
        pytest.raises(ContainerError, match="does not start with CDI"),
    ):
        made.start(Route("CDI", ("--device=nvidia.com/gpu=none-such",)))


def test_an_image_that_is_not_here_is_not_fetched(tmp_path):
    with (
        Containers(gpu_programs.run, tmp_path) as made,
        pytest.raises(ContainerError, match=r"(?i)no such image"),
    ):
        made.start(PLAIN, "gpumesh/none-such:1", ("true",))


def test_the_end_of_a_program_is_told(tmp_path):
    with Containers(gpu_programs.run, tmp_path) as made:
        name = made.start(PLAIN, made.image(), ("/bin/sh", "-c", "echo one; echo two; exit 3"))

        assert made.ended(name, 60) == (3, "two")


def test_the_daemon_says_what_it_offers(tmp_path):
    with Containers(gpu_programs.run, tmp_path) as made:
        assert [route.name for route in routes(made.info())] in (
            [],
            ["CDI"],
            ["runtime nvidia"],
            ["runtime nvidia", "CDI"],
        )


def test_nothing_of_ours_is_seen_by_whoever_looks_for_others(tmp_path):
    with Containers(gpu_programs.run, tmp_path) as made:
        name = made.start(PLAIN)

        assert name not in made.in_danger()
        assert made.image() not in [one for one in made.local_images() if "gpumesh-acceptance" not in one]


def test_a_container_that_starts_only_after_the_ctrl_c_is_removed_too(tmp_path):
    begun = []

    def interrupted(command: Sequence[str], seconds: float) -> Ran:
        if tuple(command[:2]) != ("docker", "run"):
            return gpu_programs.run(command, seconds)
        # As in a Ctrl-C: the client goes on without us.
        begun.append(
            subprocess.Popen(["sh", "-c", 'sleep 1; exec "$@"', "sh", *command], stdout=subprocess.DEVNULL)
        )
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Containers(interrupted, tmp_path) as made:
        made.image()
        made.start(PLAIN)
    begun[0].wait()


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from module_utils._host import gpu_programs
        from module_utils._host.gpu_containers import Containers, Route
        with Containers(gpu_programs.run, Path(sys.argv[1])) as made:
            made.start(Route("nothing", ()))
            print("there", flush=True)
            time.sleep(600)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "plugins")},
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline() == b"there\n"
    with Containers(gpu_programs.run, tmp_path):
        assert len(ours(process.pid)) == 2, "what a living run has is not ours to remove"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with Containers(gpu_programs.run, tmp_path):
        assert ours(process.pid) == []


def test_a_container_of_another_image_waits_for_a_line_that_nobody_writes(tmp_path):
    with Containers(gpu_programs.run, tmp_path, label="gpumesh.test") as made:
        image = made.image()
        waits = ("/bin/sh", "-c", "read line")
        name = made.start(Route("nothing", ("--interactive",)), image, waits, fetched=True)

        assert made.running([name])
        assert name.startswith(f"gpumesh-test-{os.getpid()}-")
        assert len(ours(os.getpid(), "gpumesh.test")) == 2
    assert ours(os.getpid(), "gpumesh.test") == []


def test_the_gate_of_the_runtime_says_why_no_container_starts_and_leaves_nothing(tmp_path):
    def run(command: Sequence[str], seconds: float) -> Ran:
        # A machine that is not ours to reload.
        return Ran(0, "", "") if command[0] == "systemctl" else gpu_programs.run(command, seconds)

    wanted = gpu_runtime_gate.Wanted(
        version="",
        packages=[],
        gpus=[],
        docker=True,
        docker_cdi=True,
        containerd=False,
        podman=False,
        default_runtime=False,
        image="",
        deferred=False,
        gpu={},
    )
    gate = gpu_runtime_gate.Gate(wanted, run, tmp_path)
    gate.containers(frozenset({"GPU-00000000-0000-0000-0000-000000000000"}))

    assert gate.checks[0]["name"] == "an image for docker"
    assert gate.checks[0]["ok"]
    for entry in gate.checks[1:]:
        assert not entry["ok"]
        assert "the container does not start: docker: Error response from daemon: " in entry["says"]
    assert ours(os.getpid(), gpu_runtime_gate.LABEL) == []
