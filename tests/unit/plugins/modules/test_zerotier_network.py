# SPDX-License-Identifier: GPL-3.0-or-later
"""The module zerotier_network, against a controller on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.doc_fragments.zerotier import ModuleDocFragment
from ansible_collections.gpumesh.fleet.plugins.modules import zerotier_network
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, FakeClock, Server, closed_port
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module
from ansible_collections.gpumesh.fleet.tests.own_controller import NETWORK, NODE, TOKEN, OwnController

FULL: dict[str, Any] = {
    "name": "minerals",
    "private": True,
    "routes": [{"target": "10.147.17.0/24"}, {"target": "192.168.77.0/24", "via": "10.147.17.77"}],
    "pools": [{"start": "10.147.17.100", "end": "10.147.17.199"}],
    "v4_auto": True,
    "v6_auto": False,
    "rfc4193": True,
    "sixplane": False,
    "mtu": 1400,
    "multicast_limit": 64,
    "broadcast": False,
    "dns": {"domain": "zt", "servers": ["10.147.17.1"]},
    "rules": [
        {"type": "MATCH_ETHERTYPE", "etherType": 2048, "not": True},
        {"type": "ACTION_DROP"},
        {"type": "ACTION_ACCEPT"},
    ],
}


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zerotier_network, "SystemClock", FakeClock)


@pytest.fixture
def daemon() -> Iterator[OwnController]:
    with OwnController().running() as daemon:
        yield daemon


def run(daemon: OwnController, **given: Any) -> dict[str, Any]:
    arguments = {"network": NETWORK, "token": TOKEN, "endpoint": daemon.server.url, **given}
    result = run_module(
        zerotier_network.main, **{name: value for name, value in arguments.items() if value is not None}
    )
    assert "Traceback" not in str(result)
    assert TOKEN not in str(result)
    return result


def test_the_documentation_is_yaml_and_has_every_option() -> None:
    documentation = yaml.safe_load(zerotier_network.DOCUMENTATION)
    shared = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)
    assert documentation["module"] == "zerotier_network"
    assert {*documentation["options"], *shared["options"]} >= {
        *FULL,
        "state",
        "plane",
        "network",
        "token_file",
    }
    assert yaml.safe_load(zerotier_network.EXAMPLES) and yaml.safe_load(zerotier_network.RETURN)


def test_a_network_is_created_and_the_second_time_there_is_nothing_to_do(daemon: OwnController) -> None:
    predicted = run(daemon, **FULL, check=True)
    assert predicted["changed"] and predicted["network"] is None
    assert not daemon.writes and daemon.get() is None, "check mode writes nothing"
    created = run(daemon, **FULL)
    assert created["changed"] and created["diff"] == predicted["diff"]
    assert created["diff"]["before"] == {"state": "absent"}
    assert created["network"]["name"] == "minerals"
    assert created["network"]["rules"][0] == {
        "type": "MATCH_ETHERTYPE",
        "etherType": 2048,
        "not": True,
        "or": False,
    }
    assert len(daemon.writes) == 1
    for _ in range(2):
        again = run(daemon, **FULL)
        assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
    assert again["network"] == created["network"]
    assert len(daemon.writes) == 1, "nothing was written when there was nothing to do"
    assert again["simulated"] is False


def test_a_new_network_is_private_unless_somebody_says_otherwise(daemon: OwnController) -> None:
    assert run(daemon)["network"]["private"] is True
    assert daemon.get()["private"] is True
    assert not run(daemon)["changed"]
    assert run(daemon, private=False)["changed"]
    assert run(daemon)["network"]["private"] is False, "not given is left alone"


def test_one_field_leaves_all_others_alone(daemon: OwnController) -> None:
    run(daemon, **FULL)
    before = daemon.get()
    result = run(daemon, sixplane=True)
    assert result["changed"]
    assert daemon.writes[-1][1] == {"v6AssignMode": {"zt": False, "rfc4193": True, "6plane": True}}
    after = daemon.get()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"v6AssignMode", "revision"}
    assert {
        name for name, value in result["diff"]["before"].items() if result["diff"]["after"][name] != value
    } == {"sixplane"}


@pytest.mark.parametrize(
    ("empty", "after"),
    [
        ({"routes": []}, []),
        ({"pools": []}, []),
        ({"rules": []}, []),
        ({"dns": {}}, {"domain": "", "servers": []}),
        ({"name": ""}, ""),
    ],
)
def test_empty_is_not_the_same_as_not_given(daemon: OwnController, empty: dict[str, Any], after: Any) -> None:
    run(daemon, **FULL)
    (name,) = empty
    assert run(daemon)["network"][name] != after
    result = run(daemon, **empty)
    assert result["changed"] and result["network"][name] == after
    assert not run(daemon, **empty)["changed"]


def test_the_order_of_routes_does_not_matter(daemon: OwnController) -> None:
    run(daemon, **FULL)
    assert not run(daemon, routes=FULL["routes"][::-1])["changed"]


def test_a_network_is_deleted_once(daemon: OwnController) -> None:
    run(daemon, **FULL)
    predicted = run(daemon, state="absent", check=True)
    assert predicted["changed"] and predicted["network"]["name"] == "minerals"
    assert daemon.get() is not None
    result = run(daemon, state="absent")
    assert result["changed"] and result["network"] is None and result["diff"] == predicted["diff"]
    assert daemon.get() is None
    assert not run(daemon, state="absent")["changed"]
    assert len(daemon.writes) == 2


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"routes": [{"target": "10.8.0.0"}]}, "InvalidRequest", "default route"),
        ({"mtu": 100}, "InvalidRequest", "1280 to 10000"),
        ({"rules": [{"type": "NO_SUCH_RULE"}]}, "InvalidRequest", "NO_SUCH_RULE"),
        ({"rules": [{"type": "MATCH_ETHERTYPE", "etherType": "2048"}]}, "InvalidRequest", "'2048'"),
        ({"network": NODE}, "InvalidRequest", "16 hexadecimal digits"),
        ({"network": "8056c2e21c000001"}, "InvalidRequest", "8056c2e21c"),
        ({"token": "wrong"}, "AuthError", "allowManagementFrom"),
        ({"endpoint": f"http://127.0.0.1:{closed_port()}"}, "Unreachable", "Start zerotier-one"),
    ],
)
def test_what_goes_wrong_is_told_before_anything_is_written(
    daemon: OwnController, given: dict[str, Any], kind: str, words: str
) -> None:
    for check in (True, False):
        result = run(daemon, **{"name": "a", **given}, check=check)
        assert result["failed"] and result["failure"]["kind"] == kind
        assert words in result["msg"] == result["failure"]["text"]
    assert not daemon.writes


def test_what_is_no_truth_value_is_refused(daemon: OwnController) -> None:
    assert run(daemon, private="perhaps")["failed"]
    assert not daemon.server.seen


def test_the_token_from_a_file(
    daemon: OwnController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "authtoken.secret"
    result = run(daemon, token=None, token_file=str(file))
    assert result["failure"]["kind"] == "NotFound" and "not installed here" in result["msg"]
    file.write_text(f"{TOKEN}\n")
    assert run(daemon, token=None, token_file=str(file))["changed"]
    monkeypatch.setenv("ZEROTIER_TOKEN", "of-zerotier-central")
    assert not run(daemon, token=None, token_file=str(file))["changed"], "the file goes first"
    monkeypatch.setenv("ZEROTIER_TOKEN", TOKEN)
    assert "failed" not in run(daemon, token=None)


@pytest.mark.parametrize("plane", ["central_v1", "central_v2"])
def test_central_needs_a_token(plane: str) -> None:
    result = run_module(zerotier_network.main, network=NETWORK, plane=plane)
    assert result["failed"] and "token" in result["msg"]


@pytest.mark.parametrize("check", [True, False])
def test_central_makes_no_network_under_an_id_of_ours(check: bool) -> None:
    with Server(lambda seen: Answer(404)).running() as server:
        result = run_module(
            zerotier_network.main,
            network=NETWORK,
            plane="central_v1",
            token=TOKEN,
            endpoint=server.url,
            check=check,
        )
    assert result["failure"]["kind"] == "NotFound" and "chooses the ids" in result["msg"]
    assert {seen.method for seen in server.seen} == {"GET"}


def test_central_v2_cannot_set_rules_and_check_mode_knows() -> None:
    record = {"name": "a", "config": {"private": True}}
    with Server(lambda seen: Answer(200, record)).running() as server:
        result = run_module(
            zerotier_network.main, network=NETWORK, plane="central_v2", token=TOKEN, endpoint=server.url, check=True,
            rules=[{"type": "ACTION_ACCEPT"}],
        )  # fmt: skip
    assert result["failure"]["kind"] == "InvalidRequest" and "rules" in result["msg"]


def test_without_the_engine_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zerotier_network, "MISSING", ImportError("no", name="requests"))
    result = run_module(zerotier_network.main, network=NETWORK)
    assert result["failed"] and "requests" in result["msg"]
