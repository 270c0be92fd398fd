# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers see every GPU, share them, and keep them; and none of ours is left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import CannotLook
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import (
    container_gpus,
    container_reload,
    container_sharing,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran

from tests.acceptance_bench import Bench
from tests.acceptance_frameworks import facts, uuid
from tests.little_docker import LittleContainer, LittleDocker

UUIDS = [uuid(index) for index in range(4)]
ALL = (container_gpus, container_reload, container_sharing)
RIGHT = json.dumps({"gpus": 4, "rounds": 9, "wrong": 0})


class DockerBench(Bench):
    """A machine whose programs are those of a little Docker."""

    def __init__(self, docker: LittleDocker, **more: Mapping[str, object]) -> None:
        super().__init__(facts=facts(), **more)
        self.docker = docker

    def run(self, command: Sequence[str], seconds: float) -> Ran:
        return self.docker.run(command, seconds)


@pytest.fixture
def docker(tmp_path):
    cdi = tmp_path / "cdi"
    cdi.mkdir()
    (cdi / "nvidia.yaml").write_text("cdiVersion: 0.7.0\nkind: nvidia.com/gpu\n")
    daemon = LittleDocker(UUIDS, cdi_folder=str(cdi))
    daemon.containers["database"] = LittleContainer("database", "postgres")
    daemon.images["postgres"] = ""
    yield daemon
    assert set(daemon.containers) == {"database"}, "something of ours is left"
    assert set(daemon.images) <= {"postgres", "pytorch/pytorch:2.13"}


def made(check, docker, tmp_path):
    return check.CHECK.run(DockerBench(docker, folder=tmp_path))


def test_a_container_sees_every_gpu_in_both_ways(docker, tmp_path):
    result = made(container_gpus, docker, tmp_path)

    assert result.verdict is Verdict.PASS
    assert result.says == ("a container of Docker sees and opens all 4 GPUs, with runtime nvidia and CDI")
    assert [(one.name, one.value) for one in result.figures] == [
        ("GPUs with runtime nvidia", 4),
        ("GPUs with CDI", 4),
    ]


def test_a_gpu_that_no_container_gets_is_named(docker, tmp_path):
    docker.hidden = {1: {UUIDS[2]}}

    result = made(container_gpus, docker, tmp_path)

    assert result.verdict is Verdict.FAIL
    assert "with CDI: it sees 3 of 4 without GPU 2" in result.says
    assert "nvidia-cdi-refresh" in result.advice


def test_a_container_that_does_not_start_fails(docker, tmp_path):
    docker.refuses = "could not select device driver"

    result = made(container_gpus, docker, tmp_path)

    assert result.verdict is Verdict.FAIL
    assert "could not select device driver" in result.says


def test_only_the_ways_that_docker_offers_are_tried(docker, tmp_path):
    docker.runtimes = ("runc",)

    assert made(container_gpus, docker, tmp_path).says.endswith("with CDI")


@pytest.mark.parametrize("check", ALL)
def test_without_any_way_there_is_a_gap(check, docker, tmp_path):
    docker.runtimes, docker.cdi_folder = ("runc",), ""

    with pytest.raises(CannotLook, match="neither the runtime nvidia nor a CDI specification") as gap:
        made(check, docker, tmp_path)

    assert "role gpu_runtime" in gap.value.advice


@pytest.mark.parametrize("check", ALL)
def test_a_docker_that_does_not_answer_is_a_gap(check, docker, tmp_path):
    docker.answers = False

    with pytest.raises(CannotLook, match="Docker does not answer: Cannot connect"):
        made(check, docker, tmp_path)


@pytest.mark.parametrize("check", ALL)
def test_a_driver_that_lists_no_gpu_is_a_gap(check, docker, tmp_path):
    docker.uuids = []

    with pytest.raises(CannotLook, match="the driver lists no GPU"):
        made(check, docker, tmp_path)


@pytest.mark.parametrize("check", ALL)
@pytest.mark.parametrize("command", ["import", "run", "exec"])
def test_nothing_is_left_after_a_ctrl_c(check, command, docker, tmp_path):
    docker.interrupted_at = command

    with pytest.raises(KeyboardInterrupt):
        made(check, docker, tmp_path)


def test_a_container_keeps_its_gpus(docker, tmp_path):
    result = made(container_reload, docker, tmp_path)

    assert result.verdict is Verdict.PASS
    assert result.says == (
        "a running container keeps all 4 GPUs over a daemon-reload, with runtime nvidia and CDI"
    )


def test_a_container_that_loses_them_fails(docker, tmp_path):
    docker.legacy = True

    result = made(container_reload, docker, tmp_path)

    assert result.verdict is Verdict.FAIL
    assert "with CDI: /bin/sh: 1: cannot open /dev/nvidia0: Operation not permitted" in result.says
    assert "use CDI" in result.advice
    assert {one.value for one in result.figures} == {0}


def test_what_is_not_there_to_begin_with_cannot_be_kept(docker, tmp_path):
    docker.hidden = {None: {UUIDS[0]}}

    with pytest.raises(CannotLook, match="does not have every GPU to begin with: it sees 3 of 4"):
        made(container_reload, docker, tmp_path)


def test_without_systemd_there_is_nothing_to_prove(docker, tmp_path):
    docker.systemd = False

    with pytest.raises(CannotLook, match="System has not been booted with systemd"):
        made(container_reload, docker, tmp_path)


def test_other_peoples_containers_are_not_put_at_risk(docker, tmp_path):
    docker.containers["training"] = LittleContainer("training", "theirs", runtime="nvidia")

    with pytest.raises(CannotLook, match="training has GPUs now and could lose them"):
        made(container_reload, docker, tmp_path)

    assert ("systemctl", "daemon-reload") not in docker.commands
    del docker.containers["training"]


def test_three_containers_share_the_gpus_and_it_is_said_what_that_proves(docker, tmp_path):
    result = made(container_sharing, docker, tmp_path)

    assert result.verdict is Verdict.PASS
    assert result.says.startswith("3 containers at the same time see and open all 4 GPUs, with CDI")
    assert "nothing was computed in them, because no image with PyTorch is here" in result.says


def test_one_of_them_that_lacks_a_gpu_fails(docker, tmp_path):
    docker.hidden = {2: {UUIDS[3]}}

    result = made(container_sharing, docker, tmp_path)

    assert result.verdict is Verdict.FAIL
    assert "container 3: it sees 3 of 4 without GPU 3" in result.says


def test_one_that_ended_meanwhile_proves_nothing(docker, tmp_path):
    docker.dies = True

    assert made(container_sharing, docker, tmp_path).verdict is Verdict.UNKNOWN


def test_those_that_do_not_start_together_fail(docker, tmp_path):
    docker.refuses = "no more"

    result = made(container_sharing, docker, tmp_path)

    assert result.verdict is Verdict.FAIL
    assert result.says.startswith("0 of 3 containers start at the same time")


def test_where_an_image_of_pytorch_is_here_it_computes(docker, tmp_path):
    docker.images["pytorch/pytorch:2.13"] = ""
    docker.computes = [RIGHT]

    result = made(container_sharing, docker, tmp_path)

    assert result.verdict is Verdict.PASS
    assert result.says.endswith("3 containers of pytorch/pytorch:2.13 compute right on them at the same time")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (json.dumps({"gpus": 4, "rounds": 9, "wrong": 3}), "container 2: 3 elements are wrong"),
        (json.dumps({"gpus": 3, "rounds": 9, "wrong": 0}), "3 of 4 GPUs were seen"),
        ("RuntimeError: no kernel image", "container 2: RuntimeError: no kernel image"),
    ],
)
def test_one_that_computes_wrong_fails(docker, tmp_path, wrong, says):
    docker.images["pytorch/pytorch:2.13"] = ""
    # The first three containers are ours and compute nothing.
    docker.computes = ["", "", "", RIGHT, wrong, RIGHT]

    result = made(container_sharing, docker, tmp_path)

    assert result.verdict is Verdict.FAIL
    assert says in result.says


def test_what_a_killed_run_left_is_removed_and_what_another_run_has_is_not(docker, tmp_path):
    docker.containers["gpumesh-acceptance-9-0"] = LittleContainer(
        "gpumesh-acceptance-9-0", "x", maker="4194305"
    )
    docker.images["gpumesh-acceptance-9"] = "4194305"
    docker.containers["other-run"] = LittleContainer("other-run", "x", maker="1")

    made(container_gpus, docker, tmp_path)

    assert set(docker.containers) == {"database", "other-run"}
    del docker.containers["other-run"]


def test_the_archive_of_the_image_does_not_stay(docker, tmp_path):
    made(container_gpus, docker, tmp_path)

    assert not list(tmp_path.glob("*.tar"))
