# SPDX-License-Identifier: GPL-3.0-or-later
"""What is missing for a check is told exactly."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Need
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.needs import unmet
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran

from tests.acceptance_bench import Bench
from tests.acceptance_runs import check


def facts(pci=4, driver=4, smi="ok"):
    return {"counts": {"pci": pci, "driver": driver}, "driver": {"smi": smi}}


def asked(context, *needs, root=True):
    return unmet(
        check(needs=needs), context, lambda name: (f"{name} is not installed", "install it"), lambda: root
    )


@pytest.mark.parametrize(
    ("context", "need", "says"),
    [
        (Bench(device="cpu"), Need.GPU, "it needs a GPU, and the run is on the CPU"),
        (Bench(facts=facts(0, None)), Need.GPU, "no NVIDIA GPU is on the PCI bus"),
        (
            Bench(facts=facts(4, None, "No devices were found.")),
            Need.DRIVER,
            "no driver answers for a GPU: No devices were found",
        ),
        (
            Bench(facts=facts(4, 1)),
            Need.SEVERAL,
            "it needs two GPUs, and the driver answers for 1 of 4",
        ),
        (
            Bench(facts=facts(1, 1), profile=Profile(gpus={"rtx5090": 4})),
            Need.SEVERAL,
            "it needs two GPUs, and the driver answers for 1 of 4",
        ),
        (Bench(facts=facts(0, None)), Need.SEVERAL, "it needs two GPUs, and there is none"),
        (Bench(facts=facts()), Need.PYTORCH, "pytorch is not installed"),
        (
            Bench(programs={"docker": Ran(1, "", "permission denied")}),
            Need.DOCKER,
            "Docker does not answer: permission denied",
        ),
    ],
    ids=["cpu", "none", "driver", "lost", "declared", "no_gpus", "framework", "docker"],
)
def test_what_is_missing_is_a_gap(context, need, says):
    result = asked(context, need)

    assert (result.verdict, result.says, result.applies) == (Verdict.SKIP, says, True)
    assert result.advice


def test_a_single_gpu_is_no_gap():
    result = asked(Bench(facts=facts(1, 1)), Need.SEVERAL)

    assert (result.says, result.applies) == ("there is a single GPU", False)


def test_only_root_may():
    assert asked(Bench(), Need.ROOT, root=False).says == "only root may look at this"
    assert asked(Bench(), Need.ROOT) is None


def test_nothing_is_missing():
    context = Bench(
        facts=facts(), interpreters={"pytorch": "/usr/bin/python3"}, programs={"docker": Ran(0, "27.0", "")}
    )

    assert asked(context, Need.GPU, Need.DRIVER, Need.SEVERAL, Need.PYTORCH, Need.DOCKER) is None


def test_two_processes_are_several_on_the_cpu():
    assert asked(Bench(device="cpu"), Need.SEVERAL) is None


def test_the_gpu_is_asked_for_first():
    assert "on the CPU" in asked(Bench(device="cpu"), Need.PYTORCH, Need.GPU).says
