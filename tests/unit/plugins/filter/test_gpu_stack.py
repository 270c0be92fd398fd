# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter over GPU stacks, as a template uses it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import filter_loader

TODAY = "2026-11-27"


def run(name: str, *arguments: Any, **options: Any) -> Any:
    return filter_loader.get(f"gpumesh.fleet.{name}").j2_function(*arguments, **options)


def test_a_stack() -> None:
    answer = run("gpu_stack", "rtx5090x4", "ubuntu-24.04", kernel="6.8.0-90-generic", today=TODAY)
    assert answer["ok"]
    assert answer["gpus"][0]["count"] == 4
    assert answer["driver"]["version"] == "580.178.04"
    assert answer["packages"]["headers"] == ["linux-headers-6.8.0-90-generic"]
    assert answer["asked"] == {
        "distribution": "ubuntu-24.04",
        "kernels": ["6.8.0-90-generic"],
        "secure_boot": False,
        "wishes": {},
    }


def test_success_and_refusal_have_the_same_keys_and_are_plain() -> None:
    good = run("gpu_stack", ["t4"], today=TODAY)
    bad = run("gpu_stack", ["t4"], wishes={"power_limit_w": 450}, today=TODAY)
    assert (good["ok"], bad["ok"]) == (True, False)
    for answer in (good, bad):
        assert json.loads(json.dumps(answer)) == answer
    assert set(bad["instead"]) <= set(good)
    assert {"refusals", "accepted", "judged", "nearest", "instead", "reasons", "unverified", "driver"} <= set(
        good
    ) & set(bad)


def test_the_nearest_wishes_can_be_given_back() -> None:
    wishes = {
        "driver": "550.127.05",
        "cuda": "12.4",
        "pytorch": "2.1+cu124",
        "power_limit_w": 450,
        "tensorflow": "2.21",
    }
    refused = run("gpu_stack", "rtx5090x4", wishes=wishes, today=TODAY)
    again = run("gpu_stack", "rtx5090x4", wishes=refused["nearest"], today=TODAY)
    assert again["ok"]
    assert refused["instead"] == {name: again[name] for name in refused["instead"]}


def test_code_names_and_several_kernels() -> None:
    answer = run(
        "gpu_stack",
        [{"pci_id": "10de:1eb8", "count": 1}],
        "Trixie",
        kernel="6.12.117+deb13-amd64,6.12.120+deb13-amd64",
        today=TODAY,
    )
    assert answer["asked"]["distribution"] == "debian-13"
    assert len(answer["packages"]["headers"]) == 2


def test_the_day_is_the_present_one_unless_it_is_given() -> None:
    assert run("gpu_stack", "t4", "debian-13", today="2028-01-01")["ok"] is False
    assert run("gpu_stack", "t4")["asked"]["distribution"] == "ubuntu-24.04"


@pytest.mark.parametrize(("given", "read"), [(True, True), ("true", True), ("false", False), (None, False)])
def test_secure_boot_may_be_text(given: Any, read: bool) -> None:
    assert run("gpu_stack", "t4", secure_boot=given, today=TODAY)["asked"]["secure_boot"] is read


def test_the_table() -> None:
    lines = run("gpu_stack_table", run("gpu_stack", "l4", today=TODAY))
    assert lines[0] == "GPU stack for 1x L4 on Ubuntu 24.04."


@pytest.mark.parametrize(
    ("name", "arguments", "options", "says"),
    [
        ("gpu_stack", (5090,), {}, "gpu_stack: gpus: give names or PCI ids"),
        ("gpu_stack", ("t4",), {"today": "tomorrow"}, "no date such as"),
        ("gpu_stack", ("t4",), {"kernel": "newest"}, "newest is none, as uname -r has it"),
        ("gpu_stack", ("t4",), {"kernel": 6}, "give one, or a list"),
        ("gpu_stack", ("t4",), {"wishes": {"drivr": "580"}}, "drivr is none"),
        ("gpu_stack", ("t4",), {"wishes": ["580"]}, "give a mapping"),
        (
            "gpu_stack",
            ("t4",),
            {"secure_boot": "perhaps"},
            "secure_boot: 'perhaps' is neither true nor false",
        ),
        ("gpu_stack_table", ("t4",), {}, "what gpu_stack made"),
    ],
)
def test_what_cannot_be_answered(name: str, arguments: Any, options: Any, says: str) -> None:
    with pytest.raises(AnsibleError, match=says):
        run(name, *arguments, **options)
