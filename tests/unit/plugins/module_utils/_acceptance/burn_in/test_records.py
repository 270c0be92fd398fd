# SPDX-License-Identifier: GPL-3.0-or-later
"""What was recorded, put together, over crashes and restarts."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.burn_in.records import (
    MOST_LINES,
    Card,
    sample_of,
    tally,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Sample


def begin(t: float, boot: str = "one", **more: Any) -> dict[str, Any]:
    return {"event": "begin", "t": t, "boot": boot, **more}


def counters(t: float, **values: int) -> dict[str, Any]:
    return {"event": "counters", "t": t, "gpus": {"0": values}}


def tick(t: float, checked: int, mismatches: int = 0) -> dict[str, Any]:
    return {
        "event": "tick",
        "from": t - 5,
        "t": t,
        "late_s": 0.01,
        "sync_s": 0.002,
        "rates": {"0": 200.0, "1": None},
        "checked": {"0": checked},
        "mismatches": {"0": mismatches},
        "cursor": f"c{t}",
    }


def test_counts_of_workers_that_began_again_are_added() -> None:
    found = tally([begin(0), tick(5, 100, 1), tick(10, 200, 2), begin(60), tick(70, 50), tick(75, 80, 1)])
    assert found.gpus[0].checked == 280
    assert found.gpus[0].mismatches == 3
    assert found.gpus[0].rates == [200.0] * 4
    assert 1 not in found.gpus, "a rate that is not there is none"
    assert found.cursor == "c75"


def test_only_growth_of_a_counter_counts() -> None:
    found = tally(
        [
            begin(0),
            counters(0, replay_counter=7),
            counters(5, replay_counter=9),
            counters(9, replay_counter=10),
        ]
    )
    assert found.gpus[0].grown == {"replay_counter": 3}


def test_a_counter_of_a_boot_begins_anew_after_a_restart_and_one_of_the_card_does_not() -> None:
    found = tally(
        [
            begin(0),
            counters(0, replay_counter=7, ecc_aggregate_uncorrectable=1, hw_therm_slowdown_us=5),
            begin(100, "two"),
            counters(100, replay_counter=30, ecc_aggregate_uncorrectable=2, hw_therm_slowdown_us=9),
        ]
    )
    assert found.gpus[0].grown == {"ecc_aggregate_uncorrectable": 1}


def test_a_counter_goes_on_over_a_crash_without_a_restart() -> None:
    found = tally([begin(0), counters(0, replay_counter=7), begin(100), counters(100, replay_counter=30)])
    assert found.gpus[0].grown == {"replay_counter": 23}


def test_the_place_in_the_kernels_log_is_known_from_the_beginning() -> None:
    assert tally([begin(0, cursor="s=1")]).cursor == "s=1"
    assert tally([begin(0, cursor="s=1"), tick(5, 1), begin(9, cursor="")]).cursor == "c5"


def test_lines_of_a_card_in_distress_are_counted_and_not_all_kept() -> None:
    found = tally([begin(0), *({"event": "kernel", "t": 1, "line": f"{n}"} for n in range(MOST_LINES + 5))])
    assert len(found.kernel_lines) == MOST_LINES
    assert found.kernel_seen == MOST_LINES + 5


def test_lines_that_may_tell_of_a_lost_card_are_kept_beside_all_others() -> None:
    grave = (
        "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.",
        "pcieport 0000:00:01.0: pciehp: Slot(1): Link Down",
        "nvidia 0000:01:00.0: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Transaction Layer",
    )
    found = tally(
        {"event": "kernel", "t": 1, "line": line} for line in (*map(str, range(MOST_LINES + 5)), *grave)
    )
    assert found.kernel_lines[MOST_LINES:] == [*grave]
    assert found.kernel_lost == 0


def test_what_workers_had_counted_when_they_ended_counts_and_is_no_time() -> None:
    last = {"event": "counts", "t": 12, "checked": {"0": 250}, "mismatches": {"0": 2}}
    burning = {"event": "burning", "t": 0}
    records = [begin(0), burning, tick(5, 100), tick(10, 200), last, begin(60), tick(70, 50, 1)]
    found = tally(records)
    assert found.gpus[0].checked == 300
    assert found.gpus[0].mismatches == 3
    assert found.ledger.burned_s == 10
    assert found.ticks == 3


def blind(says: str, **more: Any) -> dict[str, Any]:
    return {"event": "blind", "t": 5, "what": "kernel", "says": says, **more}


SEEN = {"event": "seen", "t": 9, "what": "kernel"}


def test_what_was_read_after_all_is_not_missed_and_what_nobody_reads_any_more_is() -> None:
    assert tally([begin(0), blind("it was slow"), SEEN]).blind_says == {}
    lost = blind("2000 were kept", lost=True)
    assert tally([begin(0), lost, SEEN]).blind_says == {"kernel": "2000 were kept"}
    slow_after_that = [begin(0), lost, blind("it was slow"), SEEN]
    assert tally(slow_after_that).blind_says == {"kernel": "2000 were kept"}
    assert tally([begin(0), blind("it was slow"), SEEN, blind("again")]).blind_says == {"kernel": "again"}


def test_records_that_a_full_disk_took_are_counted_over_all_processes() -> None:
    records = [
        begin(0),
        {**tick(5, 1), "lost": 2},
        {**tick(9, 1), "lost": 3},
        begin(20),
        {**tick(30, 1), "lost": 1},
    ]
    assert tally(records).lost == 4
    assert tally([*records, {"event": "end", "t": 31, "why": "asked", "lost": 5}]).lost == 8
    assert tally([begin(0), tick(5, 1)]).lost == 0


def test_the_gpus_are_those_of_the_beginning() -> None:
    one, other = ({"uuid": f"GPU-{n}", "address": f"0000:0{n}:00.0", "model": "l4"} for n in (1, 2))
    found = tally([begin(0, gpus=[one, other]), begin(60, gpus=[other])])
    assert found.cards == (Card("GPU-1", "0000:01:00.0", "l4"), Card("GPU-2", "0000:02:00.0", "l4"))
    assert [card.as_json() for card in found.cards] == [one, other]
    assert tally([begin(0), begin(60, gpus=[one])]).cards == found.cards[:1], "an older version wrote none"
    assert tally([begin(0, gpus=[3, None])]).cards == (Card("", "", ""),) * 2


def test_samples_come_to_the_hottest_moment_and_the_least_margin() -> None:
    found = tally(
        [],
        [
            Sample(1, 0, temperature_c=60, margin_c=30, power_w=500, sm_mhz=2800),
            Sample(2, 0, temperature_c=71, margin_c=19, power_w=570, sm_mhz=2600, reasons=("sw_power_cap",)),
            Sample(3, 0, temperature_c=70, margin_c=20, reasons=("sw_power_cap", "hw_slowdown")),
        ],
    )
    gpu = found.gpus[0]
    assert gpu.hottest is not None
    assert gpu.hottest.at == 2
    assert gpu.closest is not None
    assert gpu.closest.margin_c == 19
    assert gpu.mean_w == 535
    assert gpu.mean_mhz == 2700
    assert gpu.mean_c == 67
    assert gpu.reasons == {"sw_power_cap": 2, "hw_slowdown": 1}


def test_a_line_that_is_no_sample_is_none() -> None:
    assert sample_of({"at": 1.0}) is None
    assert sample_of({"gpu": 1}) is None
    assert sample_of({"at": 1.5, "gpu": 1, "reasons": ["idle"], "later": 3}) == Sample(
        1.5, 1, reasons=("idle",)
    )


def test_nonsense_from_a_damaged_disk_does_no_harm() -> None:
    found = tally(
        [{}, {"event": "tick"}, {"event": "counters", "gpus": 3}, {"event": "burning", "memory": [1]}]
    )
    assert found.ledger.burned_s == 0
