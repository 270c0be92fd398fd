# SPDX-License-Identifier: GPL-3.0-or-later
"""The stack for every GPU, distribution and wish, and what an answer has in it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import catalog, sources
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack import resolve
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack_answer import plain
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack_request import (
    Request,
    read_gpus,
    read_wishes,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack_rules import RULES

TODAY = date(2026, 11, 27)
TABLE: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[5] / "fixtures" / "gpu_stacks.yml").read_text()
)


def ask(
    gpus: Any,
    distribution: str = "ubuntu-24.04",
    *,
    kernel: str = "",
    secure_boot: bool = False,
    today: date = TODAY,
    **wishes: Any,
) -> dict[str, Any]:
    groups, strangers = read_gpus(gpus)
    kernels = tuple(filter(None, kernel.split(",")))
    return plain(
        resolve(Request(groups, distribution, today, kernels, secure_boot, read_wishes(wishes), strangers))
    )


def rules(answer: dict[str, Any]) -> list[str]:
    return [one["rule"] for one in answer["refusals"]]


# The questions of the table, by the names they have there.
WISHES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "580": {"branch": "580"},
    "595": {"branch": "595"},
    "610": {"branch": "610"},
    "610, allowed": {"branch": "610", "eol_allowed": ["610"]},
    "550.127.05": {"driver": "550.127.05"},
    "flavour of the seed": {"driver": "550.127.05", "flavour": "closed"},
    "open": {"flavour": "open"},
    "closed": {"flavour": "closed"},
    "distribution": {"source": "distribution"},
    "distribution, allowed": {"source": "distribution", "eol_allowed": ["535", "550"]},
    "CUDA 12.4": {"cuda": "12.4"},
    "CUDA 12.8": {"cuda": "12.8"},
    "CUDA 13.0": {"cuda": "13.0"},
    "cuDNN": {"cudnn": True},
    "PyTorch 2.1": {"pytorch": "2.1"},
    "PyTorch 2.1+cu124": {"pytorch": "2.1+cu124"},
    "PyTorch 2.11": {"pytorch": "2.11"},
    "TensorFlow 2.21": {"tensorflow": "2.21"},
    "vLLM 0.29.0": {"vllm": "0.29.0"},
    "JAX 0.8": {"jax": "0.8.0"},
    "450 W": {"power_limit_w": 450},
    "Secure Boot": {"secure_boot": True},
    "Secure Boot, key": {"secure_boot": True, "mok": True},
    "kernel 7.0": {},
}
KERNEL_7 = {
    "ubuntu-24.04": "7.0.0-1011-gcp",
    "debian-12": "7.2.12+deb13-amd64",
    "debian-13": "7.2.12+deb13-amd64",
}


def outcome(answer: dict[str, Any]) -> str:
    if answer["ok"]:
        driver = answer["driver"]
        return f"{driver['version']} {driver['flavour']} {driver['source']}"
    return f"{' '.join(dict.fromkeys(rules(answer)))} -> {answer['nearest']}"


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row['wish']}, {row['distribution']}")
def test_the_table(row: dict[str, Any]) -> None:
    wishes, distribution = WISHES[row["wish"]], row["distribution"]
    kernel = KERNEL_7[distribution] if row["wish"] == "kernel 7.0" else ""
    expected = {gpu: one["outcome"] for one in row["outcomes"] for gpu in one["gpus"]}
    found = {gpu: outcome(ask(gpu, distribution, kernel=kernel, **wishes)) for gpu in catalog.names()}
    assert found == expected


def test_the_table_is_complete() -> None:
    asked = {(row["wish"], row["distribution"]) for row in TABLE}
    assert asked == {(wish, distribution) for wish in WISHES for distribution in sources.DISTRIBUTIONS}


def test_the_stack_first_asked_for_is_refused_point_by_point() -> None:
    answer = ask(
        "rtx5090x4",
        driver="550.127.05",
        flavour="closed",
        cuda="12.4",
        pytorch="2.1+cu124",
        power_limit_w=450,
    )
    says = {(one["about"], one["rule"]): one for one in answer["refusals"]}
    assert set(says) == {
        ("driver", "end_of_life"),
        ("driver", "driver_floor"),
        ("flavour", "flavour"),
        ("cuda", "cuda_min"),
        ("pytorch", "wheel_exists"),
        ("pytorch", "wheel_kernels"),
    }
    assert "570.86.16" in says["driver", "driver_floor"]["says"]
    assert "12.8 is the first" in says["cuda", "cuda_min"]["says"]
    assert "2.1 has cu118 and cu121. cu124 came with 2.4." in says["pytorch", "wheel_exists"]["says"]
    assert {one["about"]: one["nearest"] for one in answer["refusals"]} == {
        "driver": "580.178.04",
        "flavour": "open",
        "cuda": "12.8",
        "pytorch": "2.7.0+cu128",
    }
    # 450 W is legal, and said to be, with what becomes of it.
    assert [one["about"] for one in answer["accepted"]] == ["power_limit_w"]
    assert "450 W is within" in answer["accepted"][0]["says"] and "reboot" in answer["accepted"][0]["says"]
    assert answer["nearest"] == {
        "branch": "580",
        "flavour": "open",
        "cuda": "12.8",
        "pytorch": "2.7.0+cu128",
        "power_limit_w": 450,
    }
    assert answer["instead"]["driver"]["version"] == "580.178.04"
    assert "PyTorch 2.13.0 from cu130" in " ".join(answer["reasons"])


def test_the_packages_of_nvidia_for_ubuntu_lose_their_suffix_at_590() -> None:
    assert ask("rtx5090", kernel="6.8.0-90-generic")["packages"] == {
        "pin": ["nvidia-driver-pinning-580"],
        "headers": ["linux-headers-6.8.0-90-generic"],
        "driver": [
            "nvidia-dkms-580-open",
            "libnvidia-compute-580",
            "libnvidia-cfg1-580",
            "nvidia-utils-580",
            "nvidia-compute-utils-580",
        ],
        "cuda": [],
        "cudnn": [],
        "utilities": ["nvtop"],
        "module": "nvidia-dkms-580-open",
        "modules": ["nvidia-dkms-580-open"],
        "module_versions": "580.178.04-*",
        "hold_patterns": list(sources.HOLD_PATTERNS),
    }
    newer = ask("rtx5090", branch="595")["packages"]
    assert newer["driver"] == [
        "nvidia-dkms-open",
        "libnvidia-compute",
        "libnvidia-cfg1",
        "nvidia-utils",
        "nvidia-persistenced",
    ]
    assert newer["pin"] == ["nvidia-driver-pinning-595"]
    assert ask("v100")["packages"]["module"] == "nvidia-dkms-580"


def test_the_packages_of_nvidia_for_debian() -> None:
    packages = ask("t4", "debian-13")["packages"]
    user_space = ["nvidia-driver-cuda", "nvidia-persistenced", "libnvidia-cfg1", "nvidia-modprobe"]
    assert packages["driver"] == ["nvidia-kernel-open-dkms", *user_space]
    assert ask("v100", "debian-12")["packages"]["driver"] == ["nvidia-kernel-dkms", *user_space]


def test_the_packages_of_the_distributions() -> None:
    ubuntu = ask("rtx5090", secure_boot=True, kernel="6.8.0-90-generic,6.8.0-1020-gcp")
    assert ubuntu["packages"]["modules"] == [
        "linux-modules-nvidia-580-server-open-6.8.0-90-generic",
        "linux-modules-nvidia-580-server-open-6.8.0-1020-gcp",
    ]
    assert "nvidia-headless-no-dkms-580-server-open" in ubuntu["packages"]["driver"]
    # Prebuilt modules need no headers, and have the version of their kernel.
    assert ubuntu["packages"]["headers"] == ubuntu["packages"]["pin"] == []
    assert ubuntu["packages"]["module_versions"] == ""
    assert any("kernels other than the generic one" in one for one in ubuntu["unverified"])
    debian = ask("t4", "debian-13", source="distribution", eol_allowed=["550"], cuda="12.4", cudnn=True)
    assert debian["packages"]["module"] == "nvidia-kernel-dkms"
    assert debian["packages"]["cuda"] == ["nvidia-cuda-toolkit"]
    assert debian["packages"]["cudnn"] == ["nvidia-cudnn"]
    assert debian["driver"]["ended"]
    assert any("no more security fixes" in one for one in debian["reasons"])


def test_toolkit_and_cudnn_only_where_they_were_asked_for() -> None:
    packages = ask("rtx5090", cuda="13.0", cudnn=True)["packages"]
    assert (packages["cuda"], packages["cudnn"]) == (["cuda-toolkit-13-0"], ["cudnn9-cuda-13"])
    assert ask("rtx5090", cuda="12.8", cudnn=True)["packages"]["cudnn"] == ["cudnn9-cuda-12"]
    assert ask("rtx5090", cudnn=True)["packages"]["cudnn"] == ["cudnn9-cuda-13"]
    assert ask("rtx5090")["packages"]["cuda"] == []


@pytest.mark.parametrize(
    ("name", "key", "end"),
    [
        ("ubuntu-24.04", "3bf863cc", "3BF863CC"),
        ("debian-12", "3bf863cc", "3BF863CC"),
        ("debian-13", "8793F200", "8793F200"),
    ],
)
def test_nvidias_repository(name: str, key: str, end: str) -> None:
    repository = ask("t4", name)["repository"]
    assert repository["suite"] == "/"
    assert repository["url"].endswith(f"/cuda/repos/{name.replace('-', '').replace('.', '')}/x86_64/")
    assert repository["key_url"] == f"{repository['url']}{key}.pub"
    assert repository["key_fingerprint"].endswith(end) and len(repository["key_fingerprint"]) == 40


def test_a_full_version_is_pinned_as_such() -> None:
    answer = ask("t4", driver="580.65.06")
    assert answer["driver"]["exact"]
    assert answer["packages"]["pin"] == ["nvidia-driver-pinning-580.65.06"]
    assert answer["packages"]["module_versions"] == "580.65.06-*"
    # The distribution's archive has but the newest.
    assert rules(ask("t4", driver="580.65.06", source="distribution")) == ["driver_offered"]
    newer = ask("t4", driver="580.200.01")
    assert any("newer than any that was seen" in one for one in newer["unverified"])


def test_mixed_generations() -> None:
    both = ask(["rtx5090", "v100"])
    assert rules(both) == ["generations"]
    assert both["nearest"] is None and both["instead"] is None
    assert "GeForce RTX 5090" in both["refusals"][0]["says"] and "Tesla V100" in both["refusals"][0]["says"]
    # One generation that takes either flavour goes with each of them.
    assert outcome(ask(["rtx5090", "t4"])) == "580.178.04 open nvidia"
    assert outcome(ask(["v100", "t4"])) == "580.178.04 closed nvidia"


def test_the_card_and_not_the_model_counts_where_its_id_is_known() -> None:
    # Of the RTX PRO 6000, the workstation's card is known to older drivers than the server's.
    old = {"driver": "570.211.01", "eol_allowed": ["570"]}
    assert ask("2bb1", **old)["ok"]
    assert rules(ask("2bb5", **old)) == ["driver_floor"]
    assert rules(ask("rtx-pro-6000", **old)) == ["driver_floor"]
    # A limit of 450 W is for neither card, 350 W for the larger one only.
    assert ask("rtx-pro-6000", power_limit_w=350)["ok"]
    assert rules(ask("2bb4", power_limit_w=350)) == ["power_limit"]


def test_the_known_pair_of_debian_13() -> None:
    debian = {"source": "distribution", "eol_allowed": ["550"]}
    old, new = "6.12.73+deb13-amd64", "6.12.117+deb13-amd64"
    assert ask("t4", "debian-13", kernel=old, **debian)["driver"]["flavour"] == "open"
    assert ask("t4", "debian-13", kernel=new, **debian)["driver"]["flavour"] == "closed"
    # One of the kernels is enough.
    assert ask("t4", "debian-13", kernel=f"{old},{new}", **debian)["driver"]["flavour"] == "closed"
    refused = ask("t4", "debian-13", kernel=new, flavour="open", **debian)
    assert rules(refused) == ["kernel_build"]
    assert "pci_resize_resource" in refused["refusals"][0]["says"]
    assert ask("t4", "debian-13", kernel=new, flavour="open", build_allowed=True, **debian)["ok"]


def test_kernel_7_and_branch_590() -> None:
    refused = ask("l4", kernel="7.0.0-1011-gcp", branch="590", eol_allowed=["590"])
    assert rules(refused) == ["kernel_build"]
    assert refused["nearest"] == {"branch": "595", "eol_allowed": ["590"]}
    chosen = ask("v100", kernel="7.0.0-1011-gcp")
    assert any("580 builds for kernel 7.0" in one for one in chosen["unverified"])


def test_secure_boot_and_a_toolkit_of_nvidia() -> None:
    """Ubuntu's signed modules and NVIDIA's toolkit would be two sources."""
    refused = ask("rtx5090", secure_boot=True, cuda="13.0")
    assert rules(refused) == ["cuda_source"]
    assert ask("rtx5090", secure_boot=True, cuda="13.0", mok=True)["driver"]["source"] == "nvidia"


def test_time_goes_by() -> None:
    assert outcome(ask("t4", "debian-13", today=date(2027, 3, 31))) == "595.91.07 open nvidia"
    refused = ask("t4", "debian-13", today=date(2027, 4, 1))
    assert rules(refused) == ["end_of_life"]
    assert "2027-03" in refused["refusals"][0]["says"]
    assert refused["nearest"] == {"eol_allowed": ["595"]}
    assert outcome(ask("t4", today=date(2028, 6, 30))) == "580.178.04 open nvidia"


def test_where_else_an_answer_is() -> None:
    assert (
        "On Ubuntu 24.04 and Debian 12 the same question has an answer."
        in ask("v100", "debian-13")["reasons"]
    )


def test_questions_that_make_no_sense() -> None:
    answer = ask("rtx5091", "debian-11")
    assert rules(answer) == ["distribution_known", "gpu_known"]
    assert "rtx5090" in answer["refusals"][1]["says"]
    assert answer["nearest"] is None and answer["judged"] is None
    assert rules(ask([])) == ["gpu_known"]


def test_power_of_several_models() -> None:
    answer = ask(["t4", "10de:20b0"], power_limit_w=100)
    assert rules(answer) == ["power_limit"]
    assert answer["nearest"]["power_limit_w"] == {"t4": 70, "a100": 100}
    assert answer["instead"]["power"]["t4"] == {
        "min_w": 60,
        "default_w": 70,
        "max_w": 70,
        "wished_w": 70,
        "clamped_w": 70,
        "known": "captured",
        "notes": [],
    }
    assert rules(ask("t4", power_limit_w={"l4": 60})) == ["power_limit"]


def test_frameworks_that_are_wanted_are_more_than_a_remark() -> None:
    answer = ask("rtx5090")
    assert answer["frameworks"]["tensorflow"]["supported"] is False
    assert "nvcr.io/nvidia/tensorflow" in answer["frameworks"]["tensorflow"]["instead"]
    assert answer["frameworks"]["vllm"]["torch"] == "2.13.0"
    assert "tensorflow" not in ask("rtx5090", tensorflow=False)["frameworks"]
    # What was not seen to be released is not chosen, and may be asked for.
    assert ask("t4")["frameworks"]["pytorch"]["version"] == "2.13.0"
    assert ask("t4", pytorch="2.14")["frameworks"]["pytorch"]["index"] == "cu132"


@pytest.mark.parametrize(
    ("gpus", "index"),
    [("v100", "cu126"), ("rtx5090", "cu130"), (["v100", "t4"], "cu126"), ("l4", "cu130")],
)
def test_the_index_of_pytorch_by_chip(gpus: Any, index: str) -> None:
    made = ask(gpus)["frameworks"]["pytorch"]
    assert (made["index"], made["wheel_index_url"]) == (index, f"https://download.pytorch.org/whl/{index}")


def test_no_single_wheel_for_two_chips() -> None:
    """The P100's kernels are in cu126, Ada's in all; a wish for an index without the first is refused for it."""
    refused = ask(["p100", "l4"], pytorch="2.13+cu130")
    assert rules(refused) == ["wheel_kernels"]
    assert "6.0" in refused["refusals"][0]["says"]
    assert refused["nearest"]["pytorch"] == "2.13.0+cu126"


EVERY_RULE = [
    ask("rtx5091"), ask("t4", "debian-11"), ask(["rtx5090", "v100"]), ask("rtx5090", flavour="closed"), ask("t4", branch="535"),
    ask("t4", driver="580.65.06", source="distribution"), ask("t4", branch="610"), ask("rtx5090", driver="570.86.10"),
    ask("v100", branch="595"), ask("gh200"), ask("l4", branch="590", kernel="7.0.0-1-gcp"), ask("t4", "debian-12", secure_boot=True),
    ask("t4", cuda="14.0"), ask("rtx5090", cuda="12.4"), ask("v100", cuda="13.0"), ask("t4", branch="550", cuda="13.0"),
    ask("t4", source="distribution", cuda="13.0"), ask("v100", cudnn=True), ask("t4", cuda="11.8", cudnn=True),
    ask("t4", branch="550", cuda="13.0", cudnn=True), ask("t4", pytorch="2.1+cu124"), ask("rtx5090", pytorch="2.1"),
    ask("t4", branch="550", pytorch="2.13+cu130"), ask("t4", power_limit_w=450),
]  # fmt: skip


def test_every_rule_is_in_use_and_documented() -> None:
    assert {rule for answer in EVERY_RULE for rule in rules(answer)} == set(RULES)


def test_what_is_unverified_is_said() -> None:
    said = " ".join(ask("rtx5090", "debian-13")["unverified"])
    assert "fingerprint" in said
    assert "from a single report: power" in said
    assert "compute packages for Ubuntu" in " ".join(ask("rtx5090", branch="595")["unverified"])
    assert ask("p4")["gpus"][0]["unverified"] == ["cuda_min", "ecc", "peak", "power", "tf32"]


@pytest.mark.parametrize(
    ("gpu", "too_old", "first"),
    [
        ("rtx5090", "570.86.15", "570.86.16"),
        ("b200", "570.86.15", "570.133.20"),
        ("2bb1", "570.86.16", "570.123.07"),
        ("2bb5", "570.211.01", "575.57.08"),
        ("233b", "550.163.01", "565.57.01"),
        ("2335", "550.40.07", "550.40.65"),
        ("3182", "580.65.06", "580.82.07"),
    ],
)
def test_the_first_driver_that_knows_a_card(gpu: str, too_old: str, first: str) -> None:
    def judged(version: str) -> list[str]:
        return rules(ask(gpu, driver=version, eol_allowed=["550", "565", "570", "575"]))

    assert "driver_floor" in judged(too_old)
    assert "driver_floor" not in judged(first)


def test_the_nearest_stack_keeps_what_it_can() -> None:
    assert ask("rtx5090", branch="595", flavour="closed")["nearest"] == {"branch": "595", "flavour": "open"}
    assert ask("v100", "debian-12", source="distribution", cuda="12.8")["nearest"] == {
        "source": "nvidia",
        "cuda": "12.8",
    }
    # A version in the middle of a branch that is fine stays exactly that.
    kept = ask("t4", driver="580.65.06", cuda="14.0")
    assert kept["nearest"] == {"driver": "580.65.06", "cuda": "13.3"}


def test_a_wheel_needs_a_driver() -> None:
    old = {"branch": "550", "eol_allowed": ["550"]}
    refused = ask("t4", pytorch="2.13+cu130", **old)
    assert rules(refused) == ["wheel_driver"]
    assert "580.65.06" in refused["refusals"][0]["says"]
    # The driver is as much at fault as the wheel: either of them changes.
    assert refused["nearest"] == {"branch": "580", "eol_allowed": ["550"], "pytorch": "2.13+cu130"}
    assert ask("t4", pytorch="2.13", **old)["frameworks"]["pytorch"]["index"] == "cu126"
