# SPDX-License-Identifier: GPL-3.0-or-later
"""A framework that cannot work on the GPUs is told from one that nobody has installed."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import framework_support
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict

from tests.acceptance_bench import Bench, SimulatedMachine
from tests.acceptance_frameworks import PYTHONS, facts


def test_no_published_wheel_of_tensorflow_has_kernels_for_a_5090():
    says = framework_support.unsupported(facts("rtx5090"), "tensorflow")

    assert says == (
        "No official wheel of TensorFlow has kernels for the GeForce RTX 5090; what works instead: NVIDIA's TensorFlow container "
        "(nvcr.io/nvidia/tensorflow), or a wheel built for the chip by oneself"
    )


@pytest.mark.parametrize("framework", ["pytorch", "jax", "vllm"])
def test_the_others_have(framework):
    assert framework_support.unsupported(facts("rtx5090"), framework) == ""


def test_the_facts_of_a_whole_machine_are_understood(tmp_path, monkeypatch):
    found = SimulatedMachine(tmp_path, monkeypatch).look()

    assert "NVIDIA's TensorFlow container" in framework_support.unsupported(found, "tensorflow")
    assert framework_support.unsupported(found, "pytorch") == ""


def test_what_cannot_work_is_no_gap():
    result = framework_support.unavailable(Bench(facts=facts("rtx5090")), "tensorflow")

    assert (result.verdict, result.applies) == (Verdict.SKIP, False)
    assert "what works instead" in result.says


def test_what_is_only_not_installed_is_a_gap_with_the_way_to_close_it():
    result = framework_support.unavailable(Bench(facts=facts("rtx5090")), "jax")

    assert (result.verdict, result.applies, result.says) == (Verdict.SKIP, True, "JAX is not installed")
    assert "role ai_frameworks" in result.advice


def test_a_driver_that_is_too_old_is_a_gap_too():
    result = framework_support.unavailable(Bench(facts=facts("t4", driver="470.256.02")), "vllm")

    assert (result.verdict, result.applies) == (Verdict.SKIP, True)
    assert "works with driver 470.256.02" in result.says
    assert "newer driver" in result.advice


def test_a_framework_that_is_installed_is_looked_at_whatever_the_catalog_says():
    context = Bench(facts=facts("rtx5090"), interpreters=PYTHONS)

    assert framework_support.unavailable(context, "tensorflow") is None


def test_on_the_cpu_the_gpus_do_not_matter():
    result = framework_support.unavailable(Bench(device="cpu", facts=facts("rtx5090")), "tensorflow")

    assert (result.applies, result.says) == (True, "TensorFlow is not installed")


def test_without_a_gpu_there_is_nothing_to_run_on():
    result = framework_support.unavailable(Bench(interpreters=PYTHONS), "pytorch")

    assert (result.verdict, result.says) == (Verdict.SKIP, "the driver answers for no GPU")


@pytest.mark.parametrize(
    ("model", "driver", "framework", "advice"),
    [
        ("rtx5090", "595.91.07", "pytorch", "install torch=="),
        ("rtx5090", "595.91.07", "tensorflow", "take NVIDIA's TensorFlow container"),
        ("t4", "470.256.02", "vllm", "take a newer driver"),
    ],
)
def test_the_advice_is_the_resolvers(model, driver, framework, advice):
    assert framework_support.how_to_install(facts(model, driver=driver), framework).startswith(advice)


def test_a_gpu_that_nobody_knows_is_not_judged():
    strange = facts("rtx5090")
    strange["devices"][0]["pci_id"] = "ffff"

    assert framework_support.unsupported(strange, "tensorflow") == ""
    assert framework_support.how_to_install(strange, "tensorflow").startswith("install a build")
