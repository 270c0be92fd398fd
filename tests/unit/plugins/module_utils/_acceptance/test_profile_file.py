# SPDX-License-Identifier: GPL-3.0-or-later
"""The profile's file: everything that is wrong with it is told at once."""

from __future__ import annotations

import json

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.limits import TABLE
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile, Targets
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile_file import (
    ProfileError,
    as_data,
    parse,
)
from hypothesis import given
from hypothesis import strategies as st

WHOLE = {
    "machine": "demo-box",
    "gpus": {"rtx5090": 4},
    "bare_metal": True,
    "expected": {"driver": {"branch": "580", "flavour": "open"}, "width": {"rtx5090": 16}},
    "interpreters": {"pytorch": "/opt/torch/bin/python"},
    "targets": {"scaling_efficiency": 0.85, "tokens_per_s": 12},
    "limits": {"matmul_fail": 0.7},
    "waived": {"p2p": "the cards have no\n P2P"},
    "stop_margin_c": 5,
    "model_path": "/srv/model",
    "root": "/run/simulated",
    "kernel_log": "/run/kernel.log",
    "nvidia_smi": "/usr/bin/nvidia-smi",
}


def problems(data, **known):
    with pytest.raises(ProfileError) as caught:
        parse(data if isinstance(data, str) else json.dumps(data), **known)
    return list(caught.value.problems)


def test_a_whole_profile():
    profile = parse(json.dumps(WHOLE), checks=["p2p"], limits=["matmul_fail"])

    assert profile.gpus == {"rtx5090": 4}
    assert profile.targets == Targets(0.85, 0.90, 12.0)
    assert profile.waived == {"p2p": "the cards have no P2P"}
    assert profile.stop_margin_c == 5.0
    assert profile.bare_metal is True


def test_an_empty_one_declares_nothing():
    assert parse("{}") == Profile()


def test_it_comes_back_as_it_went_in():
    profile = parse(json.dumps(WHOLE))

    assert parse(json.dumps(as_data(profile))) == profile
    assert parse(json.dumps(as_data(Profile()))) == Profile()


def test_a_model_has_its_catalog_name():
    assert parse('{"gpus": {"RTX 5090": 2, "rtx5090": 2}}').gpus == {"rtx5090": 4}


def test_every_problem_is_told_at_once():
    found = problems(
        {
            "machin": "x",
            "gpus": {"rtx9999": 1, "rtx5090": 0},
            "bare_metal": "yes",
            "expected": {"drivr": {}},
            "interpreters": {"torch": "/x", "jax": "python3"},
            "targets": {"utilization": 90, "speed": 1},
            "limits": {"matmul_fail": "low", "matmul_fial": 1},
            "waived": {"p2p": " ", "p3p": "why"},
            "stop_margin_c": -1,
            "root": "here",
            "nvidia_smi": 7,
        },
        checks=["p2p"],
        limits=["matmul_fail"],
    )
    keys = {problem.partition(":")[0] for problem in found}

    assert keys == {
        "machin",
        "gpus.rtx9999",
        "gpus.rtx5090",
        "bare_metal",
        "expected",
        "interpreters.torch",
        "interpreters.jax",
        "targets.utilization",
        "targets.speed",
        "limits.matmul_fail",
        "limits.matmul_fial",
        "waived.p2p",
        "waived.p3p",
        "stop_margin_c",
        "root",
        "nvidia_smi",
    }
    assert not any(problem.endswith(".") for problem in found)


@pytest.mark.parametrize("name", sorted(limit.name for limit in TABLE if limit.unit == "share"))
def test_a_share_that_switches_a_check_off_is_refused(name):
    with pytest.raises(ProfileError, match=rf"limits.{name}: 5 is not at least 0 and at most 1"):
        parse(json.dumps({"limits": {name: 5}}))
    assert parse(json.dumps({"limits": {name: 1}})).limits == {name: 1.0}


def test_a_threshold_that_is_no_share_has_no_upper_bound():
    given = {"rest_margin_c": 20, "all_reduce_warn_gb_s": 460}
    assert parse(json.dumps({"limits": given})).limits == given


def test_a_key_that_is_not_known_is_refused_with_those_that_are():
    [problem] = problems({"machin": "x"})

    assert problem.startswith("machin: there is no such key, machine perhaps (known: bare_metal, expected, ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: it is no JSON (Expecting value)"),
        ('{"machine": "x",\n}', "it is no JSON"),
        ("[]", "it is no JSON object with keys"),
        ('{"machine": "a", "machine": "b"}', "machine: it is there twice"),
        ("[" * 100_000, "nested"),
        ('{"stop_margin_c": NaN}', "stop_margin_c: NaN is no number"),
    ],
    ids=["empty", "comma", "list", "twice", "deep", "nan"],
)
def test_what_is_no_profile(text, says):
    [problem] = problems(text)

    assert says in problem


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    st.sampled_from(sorted(WHOLE)),
)
def test_anything_ends_in_a_profile_or_in_problems(value, key):
    try:
        parse(json.dumps({key: value}))
    except ProfileError as problem:
        assert all(problem.problems)
