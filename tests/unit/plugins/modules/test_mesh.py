# SPDX-License-Identifier: GPL-3.0-or-later
"""The module mesh in this process, on a little control plane: what goes in, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Member
from ansible_collections.gpumesh.fleet.plugins.modules import mesh as module
from ansible_collections.gpumesh.fleet.tests.little_cloud import FLEET, LittleCloud, PassingClock, kinds
from ansible_collections.gpumesh.fleet.tests.little_mesh import NETWORK_ID, LittleMesh, connecting
from ansible_collections.gpumesh.fleet.tests.module_runner import patch_module_args

Run = Callable[..., dict[str, Any]]
ORE, LAPTOP, OTHER = "aaaaaaaaaa", "8046d53400", "cccccccccc"
LAPTOPS_ADDRESS = "fddb:4344:343b:14b9:399:9380:46d5:3400"
SECRET = "sesame-0123456789"


@pytest.fixture
def iron(monkeypatch: pytest.MonkeyPatch) -> LittleCloud:
    cloud = LittleCloud("iron", PassingClock())
    registry = kinds(cloud) | {name: module.KINDS[name] for name in ("external",)}
    monkeypatch.setattr(module, "KINDS", registry)
    return cloud


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> LittleMesh:
    plane = LittleMesh()
    monkeypatch.setattr(module, "connect", connecting(plane))
    return plane


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(**top: Any) -> Path:
        content = {
            "plugin": "gpumesh.fleet.fleet",
            "fleet": FLEET,
            "providers": {"iron": {}},
            "mesh": {"network": NETWORK_ID, "controller": "central_v1", "token": SECRET},
            "machines": {
                "ore": {"provider": "iron", "type": "small", "enabled": True},
                "laptop": {"provider": "external", "node_id": LAPTOP},
            },
            **top,
        }
        path = tmp_path / "fleet.yml"
        path.write_text(
            yaml.safe_dump({key: value for key, value in content.items() if value}, sort_keys=False)
        )
        return path

    return write


@pytest.fixture
def run(
    write: Callable[..., Path],
    iron: LittleCloud,
    plane: LittleMesh,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    path = write()

    def run(*, check: bool = False, diff: bool = False, **options: Any) -> dict[str, Any]:
        arguments = {"fleet_file": str(path), **options, "_ansible_check_mode": check, "_ansible_diff": diff}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


def test_a_plan_is_no_change(run: Run, plane: LittleMesh) -> None:
    result = run(diff=True)
    assert result["changed"] is False and result["needs_approval"] is False
    assert [(entry["machine"], entry["action"]) for entry in result["plan"]] == [
        ("ore", "keep"),
        ("laptop", "admit"),
    ]
    assert [(one["machine"], one["status"]) for one in result["results"]] == [("laptop", "would")]
    assert not plane.records and "diff" not in result
    assert plane.calls == {"network": 1, "members": 1} and plane.closed == 1


def test_check_mode_tells_what_applying_does(run: Run, plane: LittleMesh) -> None:
    would = run(state="applied", check=True, diff=True, nodes={"ore": ORE})
    assert would["changed"] is True and not plane.records
    did = run(state="applied", diff=True, nodes={"ore": ORE})
    assert did["changed"] is True and plane.authorized == {LAPTOP: "laptop", ORE: "ore"}
    assert would["diff"] == did["diff"] == {"prepared": "\n".join([*did["table"], ""])}
    assert set(would) == set(did)
    assert f"+  admit   laptop   {LAPTOP}  -      {LAPTOPS_ADDRESS}" in did["diff"]["prepared"]


def test_twice_is_once(run: Run) -> None:
    run(state="applied", nodes={"ore": ORE})
    again = run(state="applied", diff=True, nodes={"ore": ORE})
    assert again["changed"] is False and again["results"] == [] and "diff" not in again
    assert run(state="applied")["changed"] is False, "nor where the node was not learnt this time"


def test_the_members_are_told_as_they_are_afterwards(run: Run, plane: LittleMesh) -> None:
    plane.put(Member(OTHER, "intruder", True, online=True, addresses=("10.0.0.1",)))
    before = run()["members"]
    assert [(one["node_id"], one["declared"], one["authorized"]) for one in before] == [(OTHER, False, True)]
    after = {one["node_id"]: one for one in run(state="applied", approve=True)["members"]}
    assert set(after) == {OTHER, LAPTOP}
    assert (after[LAPTOP]["machine"], after[LAPTOP]["address"]) == ("laptop", LAPTOPS_ADDRESS)
    assert (after[OTHER]["machine"], after[OTHER]["authorized"], after[OTHER]["online"]) == (
        None,
        False,
        True,
    )


def test_nobody_is_shut_out_without_consent(run: Run, plane: LittleMesh) -> None:
    plane.put(Member(OTHER, "intruder", True))
    result = run(state="applied")
    assert result["failed"] is True and result["failure"]["kind"] == "ApprovalRequired"
    assert "deauthorize intruder (cccccccccc)" in result["msg"] and not plane.calls["save_member"]
    shown = run()
    assert shown["needs_approval"] is True and shown["table"][-1].endswith(f"digest is {shown['digest']}.")
    plane.put(Member(ORE, "second", True))
    assert run(state="applied", approved_digest=shown["digest"])["failure"]["kind"] == "ApprovalRequired"
    assert not run(state="applied", approved_digest=run()["digest"]).get("failed")
    assert set(plane.authorized) == {LAPTOP}


def test_only_and_retire(run: Run, plane: LittleMesh) -> None:
    plane.put(Member(OTHER, "intruder", True), Member(ORE, "ore", True))
    assert run(state="applied", only=["ore"], retire=["ore"])["changed"] is True
    assert plane.authorized == {OTHER: "intruder"} and ORE not in plane.records


@pytest.mark.parametrize("empty", [None, ""])
def test_a_machine_whose_node_was_not_learnt_is_left_alone(
    run: Run, plane: LittleMesh, empty: str | None
) -> None:
    assert run(nodes={"ore": empty})["plan"][0]["node_id"] is None


def test_a_failure_has_all_results_with_it(run: Run, plane: LittleMesh) -> None:
    plane.fault = lambda verb, _node: "revoked" if verb == "save_member" else None
    result = run(state="applied", nodes={"ore": ORE})
    assert result["failed"] is True and len(result["failures"]) == 1
    assert result["failures"][0]["kind"] == "AuthError" and result["msg"] == result["failures"][0]["text"]
    assert [one["machine"] for one in result["results"]] == ["ore", "laptop"]
    assert {one["status"] for one in result["results"]} <= {"failed", "skipped"} and result[
        "changed"
    ] is False
    assert plane.closed == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("revoked", "AuthError"), ("down", "Unreachable"), ("slow", "Unavailable"), ("wrong", "Unavailable")],
)
def test_a_control_plane_that_does_not_answer_is_one_failure(
    run: Run, plane: LittleMesh, fault: str, kind: str
) -> None:
    plane.fault = lambda _verb, _node: fault
    for state in ("planned", "applied"):
        result = run(state=state)
        assert result["failed"] is True and result["failure"]["kind"] == kind and "plan" not in result
    assert plane.closed == 2


def test_what_must_be_settled_fails_an_apply_and_is_shown_by_a_plan(run: Run, plane: LittleMesh) -> None:
    nodes = {"ore": LAPTOP}
    shown = run(nodes=nodes)
    assert "failed" not in shown and {one["machine"] for one in shown["failures"]} == {"ore", "laptop"}
    assert run(state="applied", nodes=nodes)["failed"] is True


def test_warnings_are_given(run: Run, plane: LittleMesh) -> None:
    plane.put(*(Member(node, "", addresses=("10.0.0.1",)) for node in (ORE, OTHER)))
    assert "10.0.0.1 is assigned to" in run()["table"][-1]


def test_a_network_of_our_own_is_made(run: Run, plane: LittleMesh) -> None:
    plane.network_ = None
    assert run()["failure"]["kind"] == "NotFound", "ZeroTier Central chooses the ids of its networks itself"
    plane.kind = "controller"
    shown = run()
    assert shown["network"] is None and shown["network_changes"][0] == {
        "field": "name",
        "before": None,
        "after": FLEET,
    }
    assert plane.calls["members"] == 0
    result = run(state="applied")
    assert result["network"]["private"] is True and result["network"]["rfc4193"] is True
    assert [one["action"] for one in result["results"]] == ["network", "admit"]
    assert run(state="applied")["changed"] is False


def test_a_controller_in_a_cloud_is_looked_for_there(
    run: Run, plane: LittleMesh, iron: LittleCloud, write: Callable[..., Path]
) -> None:
    write(mesh={"network": NETWORK_ID, "controller": "ore"})
    for options in ({}, {"state": "applied", "check": True}):
        shown = run(**options)
        acts = [(one["machine"], one["action"]) for one in shown["plan"]]
        assert acts == [("ore", "admit"), ("laptop", "admit")] and not plane.calls
        assert (
            "Warning: the mesh's controller ore does not exist yet; it is shown with no members."
            in shown["table"]
        )
    result = run(state="applied")
    assert result["failure"]["kind"] == "Unreachable" and "does not exist yet" in result["msg"]
    iron.put("ore", public_ip="203.0.113.5")
    assert run()["plan"][0]["node_id"] == NETWORK_ID[:10]
    assert plane.settings["ssh"].host == "203.0.113.5"


def test_a_controller_without_zerotier_one_is_foreseen(
    run: Run, plane: LittleMesh, iron: LittleCloud, write: Callable[..., Path]
) -> None:
    write(mesh={"network": NETWORK_ID, "controller": "ore"})
    iron.put("ore", public_ip="203.0.113.5")
    plane.kind, plane.fault = "controller", lambda _verb, _node: "uninstalled"
    shown = run()
    assert (
        shown["network_changes"] and "zerotier-one is not installed there; it is shown" in shown["table"][-1]
    )
    assert run(state="applied")["failure"]["kind"] == "NotFound" and plane.closed == 2
    plane.fault = lambda _verb, _node: "missing"
    assert run()["failure"]["kind"] == "NotFound", "a build without a controller is no matter of time"


def test_a_fleet_without_a_mesh_says_so(run: Run, write: Callable[..., Path]) -> None:
    write(mesh=None)
    assert "declares no mesh" in run()["msg"]


def test_a_fleet_file_that_cannot_be_used_is_one_clear_failure(run: Run) -> None:
    assert run(fleet_file="/nowhere/fleet.yml")["failure"]["kind"] == "SpecError"


def test_a_sandbox_is_called_one(run: Run, plane: LittleMesh) -> None:
    plane.simulated = True
    result = run()
    assert result["simulated"] is True and result["table"][1].startswith("SIMULATED")


def test_no_secret_comes_out(run: Run, plane: LittleMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> LittleMesh:
        raise module.FleetError(f"it said {SECRET} and option-secret-77")

    monkeypatch.setattr(module, "connect", broken)
    result = run(credentials={"mesh": {"token": "option-secret-77"}})
    assert result["failed"] is True
    assert SECRET not in json.dumps(result) and "option-secret-77" not in json.dumps(result)


def test_credentials_take_the_place_of_those_in_the_file(run: Run, plane: LittleMesh) -> None:
    run(credentials={"mesh": {"token": "option-secret-77", "endpoint": "http://127.0.0.1:1"}})
    assert plane.settings == {"token": "option-secret-77", "endpoint": "http://127.0.0.1:1"}
