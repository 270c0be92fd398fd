# SPDX-License-Identifier: GPL-3.0-or-later
"""Every dialect of nvidia-smi gives the same readings, and nothing that it prints can do harm."""

from __future__ import annotations

import json
import string
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import smi, smi_paths, smi_text
from hypothesis import given
from hypothesis import strategies as st

FOLDER = Path(__file__).parents[5] / "fixtures" / "nvidia_smi"
FIXTURES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.xml"))}


def log(name: str) -> smi.SmiLog:
    return smi.parse(FIXTURES[name])


def at(gpu: Mapping[str, Any], key: str) -> Any:
    for name in key.split("."):
        gpu = gpu[name]
    return gpu


def edited(name: str, *changes: tuple[str, str]) -> str:
    """A fixture with something replaced, which must be there."""
    text = FIXTURES[name]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def test_there_is_a_fixture_of_every_dialect() -> None:
    assert {name.split("-")[0] for name in FIXTURES} == {
        "470", "515", "525", "535", "550", "570", "580", "595", "610",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "driver", "cuda", "count"),
    [
        ("470-v100", "470.256.02", "11.4", 2),
        ("515-t4", "515.105.01", "11.7", 1),
        ("525-rtx3090", "525.147.05", "12.0", 1),
        ("535-a100-mig", "535.309.01", "12.2", 1),
        ("550-l4", "550.163.01", "12.4", 1),
        ("570-rtx5090", "570.124.06", "12.8", 4),
        ("580-h100", "580.178.04", "13.0", 2),
        ("595-t4", "595.91.07", "13.2", 1),
        ("595-l40s", "595.91.07", "13.2", 1),
        # Branch 610 renamed both versions, and calls the old names deprecated.
        ("610-rtx5090", "610.57.04", "13.3", 4),
    ],
)
def test_versions_of_every_dialect(name: str, driver: str, cuda: str, count: int) -> None:
    found = log(name)
    assert (found.driver, found.cuda, found.attached, len(found.gpus)) == (driver, cuda, count, count)
    assert not found.simulated
    assert found.notes == ()


READINGS: dict[str, dict[str, Any]] = {
    "470-v100": {
        "pci_address": "0000:06:00.0",
        "pci_id": "1db1",
        "subsystem_id": "10de:1212",
        "name": "Tesla V100-SXM2-16GB",
        "uuid": "GPU-00000000-0000-4000-8000-000000000001",
        "serial": "0000000000001",
        "memory_mib": 16160,
        "memory_used_mib": 0,
        "persistence": True,
        "compute_mode": "Default",
        "power": {
            "draw_w": 41.5, "limit_w": 300.0, "requested_w": 300.0, "default_w": 300.0, "min_w": 150.0, "max_w": 300.0,
        },
        "link.gen_now": 3,
        "link.gen_device_max": None,
        "link.width_now": 16,
        "temperatures": {
            "gpu_c": 34, "memory_c": 33, "slowdown_c": 87, "shutdown_c": 90, "max_operating_c": 83, "margin_c": 49,
            "scale": "absolute",
        },
        "clocks.sm_mhz": 135,
        "clocks.applications_memory_mhz": 877,
        "max_clocks.sm_mhz": 1530,
        "throttle": ["idle"],
        "ecc.current": True,
        "ecc.volatile.double_bit_total": 0,
        "ecc.volatile.uncorrectable": 0,
        "ecc.volatile.sram_uncorrectable": None,
        "retired_pages": {"single_bit": 0, "double_bit": 0, "pending": False},
        "remapped_rows.pending": None,
    },
    "515-t4": {
        "pci_address": "0000:00:1e.0",
        "persistence": False,
        "memory_mib": 15360,
        "bar1_mib": 256,
        "architecture": "Turing",
        "link": {
            "gen_now": 3, "gen_max": 3, "gen_device_max": None, "width_now": 8, "width_max": 16, "replay_counter": 0,
            "replay_rollover_counter": 0,
        },
        "ecc.aggregate": {
            "sram_correctable": 0, "sram_uncorrectable": 0, "sram_uncorrectable_parity": None,
            "sram_uncorrectable_secded": None, "dram_correctable": 1, "dram_uncorrectable": 0, "single_bit_total": None,
            "double_bit_total": None, "correctable": 1, "uncorrectable": 0,
        },
        "power.min_w": 60.0,
        "recovery_action": None,
    },
    "525-rtx3090": {
        "power": {
            "draw_w": 27.0, "limit_w": 300.0, "requested_w": 300.0, "default_w": 350.0, "min_w": 100.0, "max_w": 375.0,
        },
        "performance_state": "P8",
        "ecc.current": None,
        "ecc.volatile.uncorrectable": None,
        "remapped_rows": {"correctable": None, "uncorrectable": None, "pending": None, "failure": None},
        "temperatures.memory_c": None,
        "temperatures.margin_c": 56,
        "serial": None,
    },
    "535-a100-mig": {
        "power.draw_w": 67.03,
        "mig": {
            "current": True,
            "pending": True,
            "devices": [
                {"index": 0, "gpu_instance": 3, "compute_instance": 0, "memory_mib": 19968},
                {"index": 1, "gpu_instance": 4, "compute_instance": 0, "memory_mib": 19968},
            ],
        },
        "throttle": [],
        "temperatures.memory_c": 44,
        # The first element of this name in the file is a MIG device's.
        "memory_mib": 81920,
        "remapped_rows": {"correctable": 0, "uncorrectable": 0, "pending": False, "failure": False},
    },
    "550-l4": {
        "power.draw_w": 12.5,
        "power.max_w": 72.0,
        "temperatures": {
            "gpu_c": 38, "memory_c": None, "slowdown_c": 87, "shutdown_c": 90, "max_operating_c": 85, "margin_c": 47,
            "scale": "relative",
        },
    },
    "570-rtx5090": {
        "name": "NVIDIA GeForce RTX 5090",
        "pci_id": "2b85",
        "memory_mib": 32607,
        "bar1_mib": 32768,
        "throttle": ["sw_power_cap"],
        "recovery_action": "None",
        "link": {
            "gen_now": 1, "gen_max": 5, "gen_device_max": 5, "width_now": 16, "width_max": 16, "replay_counter": 0,
            "replay_rollover_counter": 0,
        },
        "temperatures": {
            "gpu_c": 25, "memory_c": None, "slowdown_c": 92, "shutdown_c": 95, "max_operating_c": 90, "margin_c": 65,
            "scale": "relative",
        },
        "ecc.pending": None,
        "throttle_us": {},
    },
    "580-h100": {
        "power.draw_w": 640.2,
        "utilization_percent": 98,
        "throttle_us": {
            "sw_power_cap": 81234567, "sync_boost": 0, "sw_therm_slowdown": 0, "hw_therm_slowdown": 0, "hw_power_brake": 0,
        },
        "processes": [
            {"pid": 4711, "type": "C", "name": "/usr/bin/python3", "memory_mib": 59004},
            {"pid": 4712, "type": "C", "name": "/usr/bin/python3", "memory_mib": 1500},
        ],
        "link.replay_counter": 150,
        "ecc.volatile.sram_uncorrectable": None,
        "ecc.volatile.sram_uncorrectable_parity": 0,
        "ecc.volatile.uncorrectable": 0,
        "temperatures.shutdown_c": 95,
        "mig.current": False,
        "gsp_firmware": "580.178.04",
    },
    "595-t4": {
        "power.draw_w": 33.51,
        "clocks.applications_graphics_mhz": None,
        "ecc.volatile.sram_uncorrectable": 0,
        "temperatures.shutdown_c": 96,
        "remapped_rows.failure": None,
    },
    "595-l40s": {
        "memory_mib": 46068,
        "link.width_now": 8,
        "temperatures.margin_c": 59,
        "temperatures.slowdown_c": 90,
    },
    "610-rtx5090": {
        "power": {
            "draw_w": 18.2, "limit_w": 450.0, "requested_w": 450.0, "default_w": 575.0, "min_w": 400.0, "max_w": 600.0,
        },
        "throttle": ["idle"],
        "state": "ok",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", READINGS)
def test_readings_of_every_dialect(name: str) -> None:
    gpu = log(name).gpus[0]
    assert {key: at(gpu, key) for key in READINGS[name]} == READINGS[name]


def test_the_cards_of_a_machine_are_told_apart() -> None:
    gpus = log("570-rtx5090").gpus
    assert [gpu["pci_address"] for gpu in gpus] == [
        "0000:01:00.0", "0000:21:00.0", "0000:41:00.0", "0000:61:00.0",
    ]  # fmt: skip
    assert [gpu["index"] for gpu in gpus] == [0, 1, 2, 3]
    assert [gpu["link"]["width_now"] for gpu in gpus] == [16, 16, 8, 16]
    assert [gpu["temperatures"]["gpu_c"] for gpu in gpus] == [25, 27, 26, 31]


@pytest.mark.parametrize(
    ("name", "key", "why"),
    [
        ("515-t4", "recovery_action", "absent"),
        ("515-t4", "link.gen_device_max", "absent"),
        ("525-rtx3090", "ecc.current", "not_available"),
        # The element is a leaf, and its children are what is asked for.
        ("525-rtx3090", "remapped_rows.pending", "not_available"),
        ("595-t4", "clocks.applications_graphics_mhz", "deprecated"),
        ("570-rtx5090", "ecc.volatile.uncorrectable", "not_available"),
        ("470-v100", "ecc.volatile.sram_uncorrectable", "absent"),
    ],
)
def test_the_reasons_for_a_missing_value_differ(name: str, key: str, why: str) -> None:
    gpu = log(name).gpus[0]
    assert (at(gpu, key), gpu["missing"][key]) == (None, why)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("N/A", "not_available"),
        ("[N/A]", "not_available"),
        ("[Not Supported]", "not_available"),
        ("", "not_available"),
        ("Unknown Error", "unknown"),
        ("[Unknown Error]", "unknown"),
        ("ERR!", "unknown"),
        ("[Insufficient Permissions]", "unknown"),
        ("[GPU is lost]", "lost"),
        ("GPU is lost", "lost"),
        ("Requested functionality has been deprecated", "deprecated"),
        ("32607 GB/s", "unknown"),
        ("32607 PiB", "unknown"),
        ("1" * 400, "unknown"),
        ("nan MiB", "unknown"),
        ("٣ MiB", "unknown"),
    ],
)
def test_a_text_that_is_no_value_has_its_state(text: str, why: str) -> None:
    gpu = smi.parse(edited("525-rtx3090", ("<total>24576 MiB</total>", f"<total>{text}</total>"))).gpus[0]
    assert (gpu["memory_mib"], gpu["missing"]["memory_mib"]) == (None, why)


def test_units_are_not_guessed() -> None:
    for text, value in (("24576 MiB", 24576), ("24 GiB", 24576), ("24576", 24576)):
        gpu = smi.parse(edited("525-rtx3090", ("<total>24576 MiB</total>", f"<total>{text}</total>"))).gpus[0]
        assert gpu["memory_mib"] == value


def test_a_lost_card_is_marked_and_the_others_are_not() -> None:
    gpus = log("580-rtx5090-lost").gpus
    assert [gpu["state"] for gpu in gpus] == ["ok", "ok", "lost", "ok"]
    assert gpus[2]["missing"]["power.draw_w"] == "lost"
    assert gpus[2]["missing"]["throttle.idle"] == "lost"
    assert gpus[2]["pci_address"] == "0000:41:00.0"
    assert gpus[1]["power"]["draw_w"] == 18.2


def test_a_tag_is_never_found_under_another_parent() -> None:
    """Without its own group, no power draw is taken from the memory's or the module's."""
    text = edited("595-l40s", ("<gpu_power_readings>", "<other>"), ("</gpu_power_readings>", "</other>"))
    gpu = smi.parse(
        text.replace("<average_power_draw>N/A", "<average_power_draw>11.00 W").replace(
            "<current_power_limit>N/A", "<current_power_limit>22.00 W"
        )
    ).gpus[0]
    assert set(gpu["power"].values()) == {None}
    assert gpu["missing"]["power.limit_w"] == "absent"


def test_the_average_is_taken_where_no_draw_of_this_instant_is_told() -> None:
    text = edited("580-h100", ("<instant_power_draw>640.20 W", "<instant_power_draw>N/A"))
    assert smi.parse(text).gpus[0]["power"]["draw_w"] == 655.51


def test_uncorrectable_errors_are_added_up() -> None:
    old = edited("470-v100", ("<total>0</total>", "<total>3</total>"))
    assert smi.parse(old).gpus[0]["ecc"]["volatile"]["uncorrectable"] == 3
    new = edited(
        "580-h100",
        ("<sram_uncorrectable_parity>0", "<sram_uncorrectable_parity>1"),
        ("<sram_uncorrectable_secded>0", "<sram_uncorrectable_secded>2"),
        ("<dram_uncorrectable>0", "<dram_uncorrectable>4"),
    )
    assert smi.parse(new).gpus[0]["ecc"]["volatile"]["uncorrectable"] == 7


@pytest.mark.parametrize(
    ("tag", "name"),
    [(tag, name) for name, tag in smi_paths.THROTTLE_REASONS.items()],
)
@pytest.mark.parametrize(
    ("fixture", "prefix"), [("525-rtx3090", "clocks_throttle_reason_"), ("595-t4", "clocks_event_reason_")]
)
def test_every_reason_has_one_name_in_all_dialects(tag: str, name: str, fixture: str, prefix: str) -> None:
    text = edited(fixture, (f"<{prefix}gpu_idle>Active", f"<{prefix}gpu_idle>Not Active"))
    text = text.replace(f"<{prefix}{tag}>Not Active", f"<{prefix}{tag}>Active")
    assert smi.parse(text).gpus[0]["throttle"] == [name]


def test_a_reason_that_is_not_told_is_not_taken_for_inactive() -> None:
    text = edited("595-t4", ("hw_thermal_slowdown>", "other>"))
    assert smi.parse(text).gpus[0]["missing"]["throttle.hw_thermal"] == "absent"


def test_warnings_around_the_xml_are_kept() -> None:
    warning = "WARNING: infoROM is corrupted at gpu 0000:00:1E.0"
    found = smi.parse(f"Some banner\n{FIXTURES['595-t4']}{warning}\n")
    assert found.driver == "595.91.07"
    assert found.notes == ("Some banner", warning)


def test_a_simulated_answer_is_known_as_such() -> None:
    text = edited("595-t4", ("<nvidia_smi_log>", "<nvidia_smi_log><simulated>SIMULATED</simulated>"))
    assert smi.parse(text).simulated


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:01:00.0", "0000:01:00.0"),
        ("0000:0A:00.0", "0000:0a:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("0008:06:00.0", "0008:06:00.0"),
        ("01:00.0", None),
        ("0000:01:00.9", None),
    ],
)
def test_addresses_are_those_of_sysfs(text: str, address: str | None) -> None:
    assert smi.address(text) == address


@pytest.mark.parametrize(
    "line",
    [
        "Unable to determine the device handle for GPU 0000:41:00.0: GPU is lost.  Reboot the system to recover this GPU",
        "Unable to determine the device handle for GPU0000:41:00.0: GPU is lost.  Reboot the system to recover this GPU",
        "Unable to determine the device handle for GPU2: 00000000:41:00.0: GPU is lost.  Reboot the system to recover this GPU",
        "Unable to determine the device handle for gpu 0000:41:00.0: GPU is lost.  Reboot the system to recover this GPU",
    ],
)
def test_lost_cards_are_found_in_every_wording(line: str) -> None:
    assert smi.lost(f"something\n{line}\n") == {
        "0000:41:00.0": "GPU is lost. Reboot the system to recover this GPU"
    }


def test_half_a_character_is_no_reason_to_fail() -> None:
    text = edited("580-h100", ("/usr/bin/python3", "/usr/bin/\udcffpython3"))
    assert smi.parse(text).gpus[0]["processes"][0]["name"] == "/usr/bin/?python3"
    raw = FIXTURES["580-h100"].encode().replace(b"/usr/bin/python3", b"/usr/bin/\xff3\x7f")
    assert smi.parse(raw).gpus[0]["processes"][0]["name"] == "/usr/bin/\ufffd3"


# What is refused.

BILLION = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
HOSTILE = {
    "entity expansion": f'<!DOCTYPE nvidia_smi_log [<!ENTITY a0 "ha">{BILLION}]><nvidia_smi_log>&a9;</nvidia_smi_log>',
    "one entity": '<!DOCTYPE nvidia_smi_log [<!ENTITY a "b">]><nvidia_smi_log>&a;</nvidia_smi_log>',
    "a file": '<!DOCTYPE nvidia_smi_log [<!ENTITY a SYSTEM "file:///etc/passwd">]><nvidia_smi_log>&a;</nvidia_smi_log>',
    "a parameter entity": '<!DOCTYPE nvidia_smi_log [<!ENTITY % a SYSTEM "http://192.0.2.1/">%a;]><nvidia_smi_log/>',
    "an empty subset": "<!DOCTYPE nvidia_smi_log [ ]><nvidia_smi_log></nvidia_smi_log>",
    "a declared element": "<!DOCTYPE nvidia_smi_log [<!ELEMENT gpu ANY>]><nvidia_smi_log></nvidia_smi_log>",
    "an undeclared entity": '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd"><nvidia_smi_log>&a;</nvidia_smi_log>',
    "depth": "<nvidia_smi_log>" + "<a>" * 100_000,
    "many elements": "<nvidia_smi_log>" + "<a/>" * (smi.MOST_ELEMENTS + 1) + "</nvidia_smi_log>",
    "many cards": "<nvidia_smi_log>"
    + "".join(f'<gpu id="0000:{n // 256:02x}:00.0"/>' for n in range(smi.MOST_GPUS + 1))
    + "</nvidia_smi_log>",
    "size": "<nvidia_smi_log>" + " " * smi.MOST_BYTES + "</nvidia_smi_log>",
    "two documents": "<nvidia_smi_log></nvidia_smi_log><nvidia_smi_log></nvidia_smi_log>",
    "something else": "<html><nvidia_smi_log_not/></html>",
    "another root around it": "<?xml version='1.0'?><a><nvidia_smi_log></nvidia_smi_log></a>",
    "a card without address": "<nvidia_smi_log><gpu/></nvidia_smi_log>",
    "a card twice": '<nvidia_smi_log><gpu id="0000:01:00.0"/><gpu id="00000000:01:00.0"/></nvidia_smi_log>',
    "nothing": "",
    "blanks": " \n\t ",
    "a NUL": "<nvidia_smi_log>\x00</nvidia_smi_log>",
    "an unknown encoding": "<?xml version='1.0' encoding='utf-7'?><nvidia_smi_log></nvidia_smi_log",
    "half a tag": "<nvidia_smi_log",
    "no XML": "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
    "wrong nesting": "<nvidia_smi_log><a></b></nvidia_smi_log>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_nvidia_smi_prints_is_refused(name: str) -> None:
    with pytest.raises(smi.SmiError) as refused:
        smi.parse(HOSTILE[name])
    said = str(refused.value)
    assert said.startswith("nvidia-smi ")
    assert len(said) < 700
    assert "passwd" not in said


def test_an_expansion_is_refused_before_it_happens() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(smi.SmiError, match="entities"):
            smi.parse(HOSTILE["entity expansion"])
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_what_nvidia_smi_says_instead_of_xml_is_told() -> None:
    with pytest.raises(smi.SmiError, match="Driver/library version mismatch"):
        smi.parse(b"Failed to initialize NVML: Driver/library version mismatch\n")


@given(st.sampled_from(sorted(FIXTURES)), st.floats(0, 1, exclude_max=True))
def test_an_answer_that_is_cut_short_is_an_error(name: str, share: float) -> None:
    text = FIXTURES[name]
    whole = text.index("</nvidia_smi_log>") + len("</nvidia_smi_log>")
    with pytest.raises(smi.SmiError):
        smi.parse(text[: int(share * whole)])


def nulls(data: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from nulls(value, f"{above}{key}.")
        elif value is None:
            yield f"{above}{key}"


STATES = {
    smi_text.ABSENT, smi_text.NOT_AVAILABLE, smi_text.DEPRECATED, smi_text.LOST, smi_text.UNKNOWN,
}  # fmt: skip


def ends_well(text: str | bytes) -> None:
    """A result of plain data in which every null has its reason, or an error of ours."""
    try:
        found = smi.parse(text)
    except smi.SmiError as refused:
        assert str(refused)
        return
    for gpu in found.gpus:
        assert json.loads(json.dumps(gpu, allow_nan=False)) == gpu
        assert set(nulls(gpu)) <= set(gpu["missing"])
        assert set(gpu["missing"].values()) <= STATES


@pytest.mark.parametrize("name", FIXTURES)
def test_every_null_has_its_reason(name: str) -> None:
    ends_well(FIXTURES[name])
    for gpu in log(name).gpus:
        assert {key for key in gpu["missing"] if not key.startswith("throttle.")} == set(nulls(gpu))


@given(st.one_of(st.text(), st.binary()))
def test_anything_at_all_ends_well(text: str | bytes) -> None:
    ends_well(text)


SCRAPS = st.one_of(
    st.text(max_size=30),
    st.text(string.printable, max_size=30),
    st.sampled_from(
        [
            "N/A", "[GPU is lost]", "<gpu>", "</gpu>", "<pci>", "</pci>", "&a;", "&lt;", "<![CDATA[", "]]>", "<!--", "-->",
            "<?xml?>", "</nvidia_smi_log>", "-1", "9" * 5000, "1e999 W", "x", "<temperature/>", "\ud800", "\x00", "�",
            "<!DOCTYPE a [<!ENTITY b 'c'>]>", "<processes>N/A</processes>", "<ecc_mode>Enabled</ecc_mode>",
        ]
    ),
)  # fmt: skip


@given(
    st.sampled_from(sorted(FIXTURES)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 60), SCRAPS), max_size=4),
)
def test_any_damage_to_an_answer_ends_well(name: str, damages: list[tuple[float, int, str]]) -> None:
    text = FIXTURES[name]
    for share, length, scrap in damages:
        place = int(share * len(text))
        text = text[:place] + scrap + text[place + length :]
    ends_well(text)


@given(st.sampled_from(sorted(FIXTURES)), st.data())
def test_any_value_in_any_place_ends_well(name: str, data: st.DataObject) -> None:
    lines = FIXTURES[name].splitlines()
    for _ in range(3):
        number = data.draw(st.integers(0, len(lines) - 1))
        head, sign, rest = lines[number].partition(">")
        if rest:
            lines[number] = f"{head}{sign}{data.draw(SCRAPS)}<{rest.partition('<')[2]}"
    ends_well("\n".join(lines))


@given(st.binary(max_size=200))
def test_the_text_of_lost_cards_is_read_from_anything(text: bytes) -> None:
    for address, says in smi.lost(text.decode("latin-1") * 3).items():
        assert smi.address(address) == address
        assert says == smi_text.clean(says)
