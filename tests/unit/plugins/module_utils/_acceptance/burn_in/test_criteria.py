# SPDX-License-Identifier: GPL-3.0-or-later
"""What a burn-in is judged by: each criterion passes a good one, and finds what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import judgement
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in import guard, ledger
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.criteria import (
    CRITERIA,
    judge,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.plan import Plan
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.records import (
    MOST_GRAVE_LINES,
    MOST_LINES,
    tally,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.seen import Seen
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Sample
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.kernel_log import Place
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.record import Entry
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Label, Verdict

NO_MODELS: Mapping[int, str] = {}
PLAN = Plan("x-burn-in", 100, 0.0, interval_s=10)
CARDS = (Place("0000:01:00.0"), Place("0000:02:00.0"))
INDEXES = {"0000:01:00.0": 0, "0000:02:00.0": 1}
XID_79 = "50.0 box kernel: NVRM: Xid (PCI:0000:02:00): 79, pid=1, GPU has fallen off the bus."
XID_94 = "50.0 box kernel: NVRM: Xid (PCI:0000:01:00): 94, pid=1, Contained: SM (0x1)."


def tick(t: float, **more: Any) -> dict[str, Any]:
    return {
        "event": "tick",
        "from": t - 10,
        "t": t,
        "late_s": 0.01,
        "sync_s": 0.02,
        "rates": {"0": 230.0, "1": 229.0},
        "checked": {"0": 10 * t, "1": 10 * t},
        "mismatches": {"0": 0, "1": 0},
        "cursor": "s=1",
        **more,
    }


def good(*more: dict[str, Any], until: int = 100, stop: bool = True, **of_ticks: Any) -> list[dict[str, Any]]:
    """The records of a burn-in without a fault; `more` are added before its end."""
    counters = {"replay_counter": 3, "ecc_aggregate_uncorrectable": 0}
    return [
        {"event": "begin", "t": 0, "boot": "one", "cursor": "s=0"},
        {"event": "counters", "t": 0, "gpus": {"0": counters, "1": counters}},
        {
            "event": "burning",
            "t": 0,
            "memory": {"0": {"gib": 28.1, "share": 0.9}, "1": {"gib": 28.1, "share": 0.9}},
        },
        *(tick(t, **of_ticks) for t in range(10, until + 1, 10)),
        *more,
        *(
            [{"event": "stop", "t": until, "kind": ledger.FINISHED, "says": "its time is over"}]
            if stop
            else []
        ),
    ]


def filled(*shares: float | None) -> dict[str, Any]:
    """What the workers say of their memory."""
    memory = {str(gpu): {"gib": 28.1, "share": share} for gpu, share in enumerate(shares)}
    return {"event": "burning", "t": 100, "memory": memory}


def slowed(counter: str) -> list[dict[str, Any]]:
    """The driver counts time in which GPU 1 was slowed down, between two readings."""
    return [{"event": "counters", "t": 50, "gpus": {"1": {counter: us}}} for us in (7, 2_500_007)]


def noise(count: int) -> list[dict[str, Any]]:
    """Lines of the kernel that mean nothing."""
    line = "40.0 box kernel: nvidia-modeset: a display was plugged in"
    return [{"event": "kernel", "t": 40, "line": line}] * count


def samples(**changed: Any) -> list[Sample]:
    """Of two GPUs; `changed` is of the second."""
    usual = {
        "temperature_c": 70.0,
        "margin_c": 20.0,
        "power_w": 570.0,
        "sm_mhz": 2700.0,
        "reasons": ("sw_power_cap",),
    }
    return [
        Sample(float(t), gpu, **{**usual, **(changed if gpu else {})})
        for t in range(10, 101, 10)
        for gpu in (0, 1)
    ]


def judged(
    records: list[dict[str, Any]],
    readings: list[Sample] | None = None,
    *,
    going: bool = False,
    gpus: tuple[int, ...] = (0, 1),
    plan: Plan = PLAN,
    models: Mapping[int, str] = NO_MODELS,
    **limits: float,
) -> dict[str, Entry]:
    found = tally(records, samples() if readings is None else readings)
    label = Label.HARDWARE if plan.device == "cuda" else Label.CPU
    entries = judge(Seen(plan, found, gpus, going, limits, CARDS, INDEXES, models), label)
    return {entry.name: entry for entry in entries}


def overall(entries: dict[str, Entry]) -> Verdict:
    return judgement.overall(tuple(entries.values()))


def test_a_burn_in_without_a_fault_passes_in_all() -> None:
    found = judged(good())
    assert {name: entry.result.verdict for name, entry in found.items()} == dict.fromkeys(found, Verdict.PASS)
    assert overall(found) is Verdict.PASS
    assert "power limit held the clocks down" in found["throttling"].result.says


def test_nothing_passes_where_nothing_was_seen() -> None:
    found = judged([], [])
    assert Verdict.PASS not in {entry.result.verdict for entry in found.values()}
    assert overall(found) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("records", "readings", "name", "verdict", "says"),
    [
        (good({"event": "worker", "t": 50, "gpu": 1, "says": "the worker of GPU 1 was killed by signal 9"}),
         samples(), "workers_alive", Verdict.FAIL, "killed by signal 9"),
        (good(mismatches={"0": 0, "1": 17}), samples(), "numbers", Verdict.FAIL, "GPU 1: 17 of them"),
        (good(checked={"0": 5, "1": 0}), samples(), "numbers", Verdict.UNKNOWN, "nothing was compared on GPU 1"),
        (good(), samples(margin_c=1.0), "margin", Verdict.FAIL, "GPU 1: 1 degrees left"),
        (good(), samples(margin_c=None), "margin", Verdict.UNKNOWN, "GPU 1: not told"),
        (good(), samples(reasons=("hw_thermal",)), "throttling", Verdict.FAIL, "GPU 1 was slowed down by the hardware because of heat"),
        (good(), samples(reasons=("hw_slowdown",)), "throttling", Verdict.FAIL, "slowed down by the hardware"),
        (good(), samples(reasons=("power_brake",)), "throttling", Verdict.FAIL, "power supply"),
        (good({"event": "kernel", "t": 50, "line": XID_79}), samples(), "kernel_errors", Verdict.FAIL, "GPU 1: Xid 79"),
        (good({"event": "kernel", "t": 50, "line": XID_94}), samples(), "kernel_errors", Verdict.WARN, "GPU 0: Xid 94"),
        (good({"event": "blind", "t": 5, "what": "kernel", "says": "journalctl: no"}), samples(), "kernel_errors", Verdict.UNKNOWN, "journalctl: no"),
        (good({"event": "counters", "t": 50, "gpus": {"1": {"ecc_aggregate_uncorrectable": 1}}}), samples(), "error_counters", Verdict.FAIL, "GPU 1 grew by 1"),
        (good({"event": "counters", "t": 50, "gpus": {"1": {"replay_counter": 5}}}), samples(), "error_counters", Verdict.WARN, "replay counter of GPU 1 grew by 2"),
        (good({"event": "counters", "t": 50, "gpus": {"1": {"replay_counter": 5000}}}), samples(), "error_counters", Verdict.FAIL, "grew by 4997"),
        (good(tick(100, late_s=11.0)), samples(), "responsive", Verdict.FAIL, "11.000 s late"),
        (good(late_s=2.0), samples(), "responsive", Verdict.WARN, "2.000 s late"),
        (good(sync_s=70.0), samples(), "responsive", Verdict.FAIL, "70.000 s"),
        (good(tick(100, lost=3)), samples(), "responsive", Verdict.WARN, "3 writes to the disk were lost"),
        (good({"event": "blind", "t": 50, "what": "gpus", "says": "it did not answer"}), samples(), "readings", Verdict.WARN, "it did not answer"),
        (good(rates={"0": 230.0, "1": 212.0}), samples(), "siblings", Verdict.WARN, "GPU 1 computes 7.8% slower"),
        (good(rates={"0": 230.0, "1": 200.0}), samples(), "siblings", Verdict.FAIL, "GPU 1 computes 13.0% slower"),
        (good(), samples(temperature_c=45.0), "siblings", Verdict.WARN, "GPU 0 is 25 degrees hotter"),
        (good(filled(0.9, 0.4)), samples(), "workers_alive", Verdict.WARN, "only 40% of GPU 1's memory was filled"),
        (good(filled(0.9, None)), samples(), "workers_alive", Verdict.UNKNOWN, "how much of the memory of GPU 1"),
        (good(), samples(reasons=("untold",)), "throttling", Verdict.UNKNOWN, "GPU 1 did not in 10 of 10 readings"),
        (good(*slowed("hw_therm_slowdown_us")), samples(), "throttling", Verdict.FAIL, "because of heat for 2.5 s"),
        (good(*slowed("hw_power_brake_us")), samples(), "throttling", Verdict.FAIL, "brake signal for 2.5 s"),
        (good(*noise(MOST_LINES + 1)), samples(), "kernel_errors", Verdict.UNKNOWN, "1 of 501 lines that may matter were not kept"),
    ],
)  # fmt: skip
def test_each_fault_is_found_by_its_criterion(
    records: list[dict[str, Any]], readings: list[Sample], name: str, verdict: Verdict, says: str
) -> None:
    found = judged(records, readings)
    assert found[name].result.verdict is verdict
    assert says in found[name].result.says
    assert found[name].result.advice
    assert overall(found) in (verdict, Verdict.FAIL)
    others = {one for one, entry in found.items() if entry.result.verdict is not Verdict.PASS and one != name}
    assert not others, "one fault is told once"


def test_hours_that_were_not_burned_are_unknown_and_say_how_many_were() -> None:
    half = judged(good(until=50, stop=False))
    assert half["hours_burned"].result.verdict is Verdict.UNKNOWN
    assert half["hours_burned"].result.says == "50 s of 1 min 40 s were burned, and it was interrupted"
    assert "--resume x-burn-in" in half["hours_burned"].result.advice
    assert overall(half) is Verdict.UNKNOWN
    assert "so far" in judged(good(until=50, stop=False), going=True)["hours_burned"].result.says


def test_a_reference_that_the_cpu_does_not_agree_with_is_a_wrong_number() -> None:
    ended = {"event": "worker", "t": 50, "gpu": 1, "says": "it gave up", "wrong": True}
    found = judged(good(ended))
    assert found["numbers"].result.says == "values came out wrong (GPU 1: already at the start)"
    assert found["numbers"].result.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (guard.MARGIN, "margin"),
        (guard.TEMPERATURE, "margin"),
        (guard.BLIND, "readings"),
        (guard.START, "workers_alive"),
    ],
)
def test_what_stopped_itself_fails_by_the_criterion_that_stopped_it(kind: str, name: str) -> None:
    records = [
        *good(until=50, stop=False),
        {"event": "stop", "t": 50, "kind": kind, "says": "it was so", "reading": {"gpu": 1}},
    ]
    found = judged(records)
    assert found[name].result.verdict is Verdict.FAIL
    assert "it was so" in found[name].result.says
    assert found["hours_burned"].result.verdict is Verdict.UNKNOWN
    assert overall(found) is Verdict.FAIL


def test_one_that_somebody_stopped_is_unknown_and_not_failed() -> None:
    records = [*good(until=50, stop=False), {"event": "stop", "t": 50, "kind": ledger.ASKED, "says": "asked"}]
    assert overall(judged(records)) is Verdict.UNKNOWN
    assert "somebody stopped it" in judged(records)["hours_burned"].result.says


def test_a_declared_temperature_judges_a_card_that_tells_no_margin() -> None:
    plan = replace(PLAN, stop_temperature_c=80.0)
    assert judged(good(), samples(margin_c=None), plan=plan)["margin"].result.verdict is Verdict.PASS


def test_a_limit_of_the_profile_replaces_ours_and_is_named() -> None:
    found = judged(good(late_s=2.0), burn_in_late_warn_s=3.0)
    assert found["responsive"].result.verdict is Verdict.PASS
    assert any(
        figure.source == "limits.burn_in_late_warn_s of the profile"
        for figure in found["responsive"].result.figures
    )


def test_a_single_gpu_has_no_siblings() -> None:
    found = judged(good(), gpus=(0,))
    assert not found["siblings"].result.applies
    assert overall(found) is Verdict.PASS


def test_gpus_are_compared_with_those_of_their_own_model() -> None:
    rates = {"0": 230.0, "1": 80.0, "2": 229.0}
    of = {0: "rtx-5090", 1: "l4", 2: "rtx-5090"}
    readings = [*samples(temperature_c=45.0), *(replace(one, gpu=2) for one in samples() if not one.gpu)]
    found = judged(good(rates=rates), readings, gpus=(0, 1, 2), models=of)["siblings"].result
    assert found.verdict is Verdict.PASS
    assert [figure.gpu for figure in found.figures if figure.name == "rate"] == [0, 2]
    slow = judged(good(rates={**rates, "2": 200.0}), readings, gpus=(0, 1, 2), models=of)["siblings"].result
    assert slow.says == "GPU 2 computes 13.0% slower than its siblings"
    alone = judged(good(rates=rates), models={0: "rtx-5090", 1: "l4"})["siblings"].result
    assert not alone.applies


def test_harmless_lines_of_the_kernel_do_not_hide_an_xid() -> None:
    xid = {"event": "kernel", "t": 50, "line": XID_79}
    found = judged(good(*noise(MOST_LINES + 1), xid))["kernel_errors"].result
    assert found.verdict is Verdict.FAIL
    assert "GPU 1: Xid 79" in found.says


def test_a_warning_is_none_where_graver_lines_may_be_among_those_that_were_not_kept() -> None:
    light = [{"event": "kernel", "t": 50, "line": XID_94.replace("94", "43")}] * MOST_GRAVE_LINES
    assert judged(good(*light))["kernel_errors"].result.verdict is Verdict.WARN
    found = judged(good(*light, light[0]))["kernel_errors"].result
    assert found.verdict is Verdict.UNKNOWN
    assert "1 of 5001 lines that may matter were not kept; GPU 0: the GPU stopped" in found.says
    blind = {"event": "blind", "t": 5, "what": "kernel", "says": "journalctl: no"}
    assert judged(good(blind, light[0]))["kernel_errors"].result.verdict is Verdict.UNKNOWN


def test_what_the_driver_counts_of_slowdowns_does_not_stand_for_counters_of_errors() -> None:
    records = [one for one in good(*slowed("hw_therm_slowdown_us")) if one["t"] or one["event"] != "counters"]
    assert "no counters of GPU 0, 1" in judged(records)["error_counters"].result.says


def test_on_the_cpu_what_needs_a_gpu_is_skipped_and_nothing_is_green_for_it() -> None:
    found = judged(good(), [], plan=replace(PLAN, device="cpu"))
    skipped = {name for name, entry in found.items() if entry.result.verdict is Verdict.SKIP}
    assert skipped == {"siblings", "margin", "throttling", "error_counters", "readings"}
    assert all(found[name].result.applies for name in skipped), "they are gaps"
    assert [figure.verdict for figure in found["siblings"].result.figures] == [None, None], (
        "shown, and not judged"
    )
    assert overall(found) is Verdict.UNKNOWN


def test_every_criterion_has_its_texts() -> None:
    names = [one.name for one in CRITERIA]
    assert len(set(names)) == len(names)
    for one in CRITERIA:
        assert all(text.strip() == text and text for text in (one.title, one.about, one.expects, one.fails))
