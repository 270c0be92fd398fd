# SPDX-License-Identifier: GPL-3.0-or-later
"""How a language model is laid on GPUs, what may be expected of it, and how its figures are judged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import llm_speed
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.checks import llm_inference
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.llm_speed import Plan
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.profile import Profile, Targets
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import (
    Figure,
    Verdict,
    passed,
)

from tests.acceptance_bench import Bench
from tests.acceptance_frameworks import PYTHONS, facts, figure, recording, run_of

LLAMA = 13.4769


def told(rate=96.0, **values):
    wanted = {
        "weights": LLAMA,
        "split": 1,
        "start": 61.0,
        "one stream": rate,
        "batch": 2310.0,
        "first token, one stream": 14.2,
        "first token, median": 60.1,
        "first token, p95": 75.0,
        "tokens": 1500,
        "not finite": 0,
    } | {name.replace("_", " "): value for name, value in values.items()}
    return run_of([figure(name, value, wanted=1500) for name, value in wanted.items()])


def judged(run, model="rtx5090", **more):
    context = Bench(facts=facts(model), interpreters=PYTHONS, workloads={"llm": run}, **more)
    return llm_inference.CHECK.run(context)


def of(result, name):
    return next(one for one in result.figures if one.name == name)


@pytest.mark.parametrize(
    ("model", "count", "expected"),
    [
        ("rtx5090", 4, Plan("llama-2-7b", 1)),
        ("rtx4090", 1, Plan("llama-2-7b", 1)),
        ("t4", 2, Plan("llama-2-7b", 2)),
        ("t4", 3, Plan("llama-2-7b", 2)),
    ],
)
def test_the_model_is_split_over_as_few_gpus_as_hold_it(model, count, expected):
    assert llm_speed.plan(Bench(facts=facts(model, count))) == expected


def test_what_no_gpu_here_can_hold_is_no_gap():
    result = llm_speed.plan(Bench(facts=facts("t4", 1)))

    assert (result.verdict, result.applies) == (Verdict.SKIP, False)
    assert "13.5 GB of weights and does not fit into 1 x 16.1 GB" in result.says


def test_memory_that_cannot_be_read_is_a_gap():
    machine = facts("t4", 2)
    machine["devices"][1]["memory_mib"] = None

    result = llm_speed.plan(Bench(facts=machine))

    assert (result.verdict, result.applies) == (Verdict.SKIP, True)


def model_in(folder, size=20_000_000, heads=6):
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": heads}))
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(size)
    return Profile(model_path=str(folder))


def test_a_local_model_is_split_by_its_own_size_and_heads(tmp_path):
    # 27 GB would fit into two cards of 16, but for the six heads there is no way to give two cards the same.
    profile = model_in(tmp_path, 22_000_000_000, heads=9)

    assert llm_speed.plan(Bench(facts=facts("t4", 2), profile=profile)).applies is False
    assert llm_speed.plan(
        Bench(facts=facts("t4", 2), profile=model_in(tmp_path, 22_000_000_000, heads=6))
    ) == Plan("llama-2-7b", 2)


def test_a_local_model_that_is_not_there_is_a_gap(tmp_path):
    result = judged(told(), profile=Profile(model_path=str(tmp_path / "none")))

    assert (result.verdict, result.applies) == (Verdict.SKIP, True)
    assert "model_path" in result.advice


def test_a_local_model_is_what_is_run(tmp_path):
    context = Bench(
        facts=facts(), interpreters=PYTHONS, workloads={"llm": told()}, profile=model_in(tmp_path)
    )
    llm_inference.CHECK.run(context)

    assert context.asked[0][2][:2] == ("--model", str(tmp_path))


def test_without_one_a_llama_is_made():
    context = Bench(facts=facts("t4", 2), interpreters=PYTHONS, workloads={"llm": told(split=2)})
    llm_inference.CHECK.run(context)

    assert context.asked == [
        ("llm", "vllm", ("--shape", "llama-2-7b", "--prompts", "30", "--tokens", "50", "--split", "2"))
    ]


def test_a_real_run_on_a_cpu_passes_and_its_speed_is_not_judged():
    context = Bench(device="cpu", interpreters=PYTHONS, workloads={"llm": recording("llm")})
    result = llm_inference.CHECK.run(context)

    assert result.verdict is Verdict.PASS
    assert result.says.endswith("(speed is not judged on the CPU)")
    assert of(result, "one stream").verdict is None
    assert of(result, "one stream").source == "not judged: CPU"
    assert of(result, "tokens").verdict is Verdict.PASS
    assert context.asked[0][2][:2] == ("--shape", "tiny")


def test_a_sound_machine_passes_and_the_bound_is_shown():
    result = judged(told())

    assert result.verdict is Verdict.PASS
    assert result.says.startswith("96.0 tokens/s in one stream, 2310 with all prompts at once")
    share = of(result, "share of what the bandwidth allows")
    # 1792 GB/s / 13.48 GB.
    assert share.value == pytest.approx(72.2, abs=0.1)
    assert "at most 133 tokens/s: 1792 GB/s (catalog, unverified)" in share.source


def test_far_below_what_the_bandwidth_allows_is_a_defect_although_the_target_is_met():
    result = judged(told(30.0))

    assert result.verdict is Verdict.FAIL
    assert "23% of the 133 tokens/s that the memory bandwidth allows" in result.says
    assert "throttle_reasons" in result.advice


def test_a_missed_target_is_no_defect():
    result = judged(told(96.0), profile=Profile(targets=Targets(tokens_per_s=120)))

    assert result.verdict is Verdict.WARN
    assert "the owner's target of 120 tokens/s in one stream is missed" in result.says
    assert "the memory bandwidth allows 133 at most" in result.says
    assert of(result, "one stream").verdict is Verdict.WARN


def test_the_share_can_be_set():
    result = judged(told(30.0), profile=Profile(limits={"llm_bandwidth_share": 0.2}))

    assert result.verdict is Verdict.PASS
    assert of(result, "share of what the bandwidth allows").source.startswith("limits.llm_bandwidth_share")


def test_the_bandwidth_that_was_measured_replaces_the_nominal_one():
    measured = passed(
        "", Figure("copy", 1000.0, "GB/s", 0), Figure("copy", 800.0, "GB/s", 1), Figure("copy", 1.0, "%", 1)
    )
    result = judged(told(30.0), results={"memory_bandwidth": measured})

    assert result.verdict is Verdict.PASS
    assert (
        "800 GB/s (measured by memory_bandwidth)" in of(result, "share of what the bandwidth allows").source
    )


def test_a_card_that_differs_from_its_model_has_a_bandwidth_of_its_own():
    machine = facts("rtx5090", 2)
    for device, card in zip(machine["devices"], ("2330", "2321"), strict=True):
        device.update(model="h100", pci_id=card)
    assert llm_speed.bound(Bench(facts=machine), 10.0, 1).source == "3350 GB/s (catalog) / 10.0 GB of weights"

    machine["devices"][0]["pci_id"] = "2331"
    assert llm_speed.bound(Bench(facts=machine), 10.0, 1).source == "2000 GB/s (catalog) / 10.0 GB of weights"

    machine["devices"][0]["pci_id"] = "2321"
    bound = llm_speed.bound(Bench(facts=machine), 10.0, 1)
    assert bound.source == "3900 GB/s (catalog, unverified) / 10.0 GB of weights"


def test_two_gpus_that_share_a_model_read_twice_as_fast():
    context = Bench(facts=facts("t4", 2))

    assert llm_speed.bound(context, 12.0, 2).tokens_per_s == pytest.approx(
        2 * llm_speed.bound(context, 12.0, 1).tokens_per_s
    )


def test_where_the_bandwidth_is_not_known_only_the_target_counts():
    machine = facts()
    machine["devices"][0]["model"] = "rtx9999"
    context = Bench(facts=machine, interpreters=PYTHONS, workloads={"llm": told(5.0)})

    result = llm_inference.CHECK.run(context)

    assert result.verdict is Verdict.WARN
    assert "is not known" in result.says


@pytest.mark.parametrize(
    ("values", "verdict", "says"),
    [
        ({"tokens": 1499}, Verdict.FAIL, "1499 of 1500 tokens were made"),
        ({"not_finite": 7}, Verdict.FAIL, "7 tokens were chosen by something that is no number"),
        ({"not_finite": None}, Verdict.UNKNOWN, "did not say by what"),
        ({"batch": None}, Verdict.UNKNOWN, "vLLM did not say batch"),
        ({"rate": float("nan")}, Verdict.FAIL, "nan tokens/s"),
    ],
)
def test_what_is_wrong_is_told(values, verdict, says):
    result = judged(told(**values))

    assert result.verdict is verdict
    assert says in result.says
    assert result.advice


def test_a_break_fails():
    result = judged(replace(told(), error="vLLM cannot run the model: CUDA out of memory"))

    assert result.verdict is Verdict.FAIL
    assert "nvidia-smi" in result.advice


def test_a_gpu_that_vllm_does_not_know_is_no_gap():
    context = Bench(facts=facts("p100", 1, driver="580.178.04"))

    result = llm_inference.CHECK.run(context)

    assert (result.verdict, result.applies) == (Verdict.SKIP, False)
    assert "vLLM" in result.says
