# SPDX-License-Identifier: GPL-3.0-or-later
"""The module mesh on all three control planes: the same fleet, the same answer, and nobody lost when one of them is ill.

The planes are SIMULATED: see :mod:`tests.integration.planes`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import connect
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from ansible_collections.gpumesh.fleet.plugins.modules import mesh as module

from sandbox.testing import Sandbox, serve
from tests.fleets import ROOT
from tests.integration import planes
from tests.integration.planes import Plane
from tests.loopback import Answer
from tests.module_runner import run_module

pytestmark = pytest.mark.integration

LAPTOP, PHONE, BOX, OLD, INTRUDER, KNOCKER = (
    "8046d53400",
    "abcdef0123",
    "1d7196c3a9",
    "1d7196c3b0",
    "eeeeeeeeee",
    "dddddddddd",
)
COUNT = 12


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with serve() as sandbox:
        yield sandbox


@pytest.fixture(params=planes.KINDS)
def plane(
    request: pytest.FixtureRequest, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Plane]:
    home = tmp_path / "zerotier-one"
    home.mkdir()
    with planes.running(request.param, sandbox, home) as plane:
        monkeypatch.setattr(module, "SystemClock", lambda: plane.clock)
        yield plane


@pytest.fixture
def write(plane: Plane, tmp_path: Path) -> Callable[..., Path]:
    def write(machines: dict[str, Any] | None = None, **mesh: Any) -> Path:
        own = plane.kind == "controller"
        content = {
            "plugin": "gpumesh.fleet.fleet",
            "fleet": "minerals",
            "mesh": {
                "network": plane.network,
                "controller": "keeper" if own else plane.kind,
                "token": plane.token,
                "endpoint": plane.proxy.server.url + plane._path,
                **mesh,
            },
            "machines": {
                **({"keeper": {"provider": "baremetal", "address": "192.0.2.1"}} if own else {}),
                **(
                    machines
                    or {
                        "laptop": {"provider": "external", "node_id": LAPTOP},
                        "phone": {"provider": "external", "node_id": PHONE, "enabled": False},
                        "box": {"provider": "baremetal", "address": "192.0.2.2"},
                    }
                ),
            },
        }
        path = tmp_path / "fleet.yml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, write: Callable[..., Path]) -> Run:
    write()

    def run(**options: Any) -> dict[str, Any]:
        return run_module(
            module.main, **{"fleet_file": str(tmp_path / "fleet.yml"), "state": "applied", **options}
        )

    return run


def put(plane: Plane, node_id: str, **wish: Any) -> None:
    somebody = plane.somebody()
    somebody.save_member(MemberWish(node_id, **wish))
    somebody.close()


def authorized(plane: Plane) -> dict[str, str]:
    """Who takes part, and under which name; by somebody else's word."""
    somebody = plane.somebody()
    found = {member.node_id: member.name for member in somebody.members() if member.authorized}
    somebody.close()
    return found


def own(plane: Plane) -> dict[str, str]:
    """The controller is a machine of the fleet, too, and its node is known by the network id."""
    return {plane.network[:10]: "keeper"} if plane.kind == "controller" else {}


def many(count: int = COUNT) -> dict[str, Any]:
    return {f"m{n:03}": {"provider": "external", "node_id": f"{n + 1:010x}"} for n in range(count)}


def listings(plane: Plane) -> int:
    return sum(1 for call in plane.proxy.calls("GET") if call.endswith("/member"))


def test_the_members_become_exactly_the_declared(plane: Plane, run: Run) -> None:
    put(plane, PHONE, name="phone", authorized=True)
    put(plane, OLD, name="box", authorized=True)
    put(plane, INTRUDER, name="intruder", authorized=True)
    plane.appears(KNOCKER)
    before = authorized(plane)
    plane.proxy.server.seen.clear()
    would = run(check=True, nodes={"box": BOX})
    assert authorized(plane) == before and listings(plane) == 1
    assert not [call for call in plane.proxy.calls() if not call.startswith("GET")]
    acts = {entry["node_id"]: entry["action"] for entry in would["plan"]}
    assert acts == {
        LAPTOP: "admit", PHONE: "remove", BOX: "admit", OLD: "remove", INTRUDER: "deauthorize", KNOCKER: "knocking",
        **dict.fromkeys(own(plane), "admit"),
    }  # fmt: skip
    assert run(nodes={"box": BOX})["failure"]["kind"] == "ApprovalRequired" and authorized(plane) == before
    plane.proxy.server.seen.clear()
    did = run(nodes={"box": BOX}, approved_digest=would["digest"])
    assert listings(plane) == 1, "one listing a run"
    assert not did.get("failed"), did
    assert authorized(plane) == {LAPTOP: "laptop", BOX: "box", **own(plane)}
    assert {one["status"] for one in did["results"]} == {"ok"} and did["simulated"] is True
    assert did["network"]["private"] is True and did["network"]["rfc4193"] is True
    assert did["network"]["pools"], "what was not named is not touched"
    told = {one["node_id"]: one for one in did["members"]}
    assert set(told) == {LAPTOP, BOX, INTRUDER, KNOCKER, *own(plane)}
    assert (told[BOX]["machine"], told[INTRUDER]["authorized"]) == ("box", False)
    again = run(nodes={"box": BOX})
    assert again["changed"] is False and again["results"] == []
    assert run()["changed"] is False, "nor when its node was not learnt this time"


def test_a_machine_that_is_retired_is_out(plane: Plane, run: Run) -> None:
    run(nodes={"box": BOX})
    assert BOX in authorized(plane)
    result = run(only=["box"], retire=["box"])
    assert result["changed"] is True and BOX not in authorized(plane) and LAPTOP in authorized(plane)
    again = run(only=["box"], retire=["box"])
    assert again["changed"] is False, again["table"]


def test_a_node_that_never_came_is_let_in_at_its_first_request(plane: Plane, run: Run) -> None:
    run()
    plane.appears(LAPTOP)
    assert authorized(plane)[LAPTOP] == "laptop"
    assert run()["changed"] is False, "the addresses it was given are no difference"


class TestFaults:
    """Each is one clear error, and the next run heals it."""

    @pytest.fixture
    def spec(self, write: Callable[..., Path]) -> Path:
        return write(many())

    def heals(self, plane: Plane, run: Run) -> None:
        plane.proxy.heal()
        assert not run().get("failed")
        assert authorized(plane) == {
            **{machine["node_id"]: name for name, machine in many().items()},
            **own(plane),
        }
        assert run()["changed"] is False

    def broken(self, result: dict[str, Any], kind: str) -> dict[str, Any]:
        """The one failure, of a run that ended in the middle."""
        assert result["failed"] is True and len(result["failures"]) == 1, result
        failure: dict[str, Any] = result["failures"][0]
        assert failure["kind"] == kind and result["msg"] == failure["text"] and failure["hint"]
        statuses = [one["status"] for one in result["results"] if one["action"] != "network"]
        assert len(statuses) >= COUNT and {"failed", "skipped"} <= set(statuses), "none is lost"
        return failure

    def writes(self, plane: Plane) -> str:
        """The requests that write a member."""
        return r"POST .*/member"

    def test_a_token_that_is_revoked_in_mid_run(self, plane: Plane, run: Run, spec: Path) -> None:
        plane.proxy.before(self.writes(plane), lambda: setattr(plane.proxy, "credential", "wrong-0123456789"))
        self.broken(run(), "AuthError")
        self.heals(plane, run)

    def test_a_token_that_is_no_good(self, plane: Plane, run: Run, spec: Path) -> None:
        plane.proxy.credential = "wrong-0123456789"
        result = run()
        assert result["failure"]["kind"] == "AuthError" and "results" not in result
        self.heals(plane, run)

    def test_nobody_listens(self, plane: Plane, run: Run, write: Callable[..., Path]) -> None:
        gone = plane.nowhere()
        write(many(), endpoint=gone._rest.endpoint)
        assert run()["failure"]["kind"] == "Unreachable"
        write(many())
        self.heals(plane, run)

    def test_a_control_plane_that_breaks_down_in_mid_run(self, plane: Plane, run: Run, spec: Path) -> None:
        plane.clock.least = 30.0
        plane.proxy.before(self.writes(plane), lambda: setattr(plane.proxy, "answer", Answer(503)))
        self.broken(run(), "Unavailable")
        self.heals(plane, run)

    def test_a_control_plane_that_is_slow(
        self, plane: Plane, run: Run, spec: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def impatient(*given: Any) -> Any:
            connected = connect(*given)
            connected._rest.adapter._timeout = (5.0, 0.3)  # type: ignore[attr-defined]
            return connected

        monkeypatch.setattr(module, "connect", impatient)
        plane.clock.least = 60.0
        plane.proxy.before(self.writes(plane), lambda: setattr(plane.proxy, "delay", 0.8))
        self.broken(run(), "Unavailable")
        plane.clock.least = 0.0
        self.heals(plane, run)

    @pytest.mark.parametrize("body", ["{", "[]", '{"x": 1}', "<html>"])
    def test_an_answer_that_is_none(self, plane: Plane, run: Run, spec: Path, body: str) -> None:
        plane.proxy.before(self.writes(plane), lambda: setattr(plane.proxy, "answer", Answer(200, body)))
        failure = self.broken(run(), "Unavailable")
        assert "in a form that is not" in failure["message"]
        self.heals(plane, run)

    def test_a_member_that_somebody_deletes_meanwhile(self, plane: Plane, run: Run, spec: Path) -> None:
        run()
        victim = many()["m003"]["node_id"]
        put(plane, victim, name="somebody")

        def delete() -> None:
            somebody = plane.somebody()
            somebody.delete_member(victim)
            somebody.close()

        plane.proxy.before(self.writes(plane), delete)
        run()
        self.heals(plane, run)

    def test_a_member_that_is_gone_before_it_is_removed(
        self, plane: Plane, run: Run, write: Callable[..., Path]
    ) -> None:
        write(many())
        run()
        victim = many()["m003"]["node_id"]
        somebody = plane.somebody()
        # The first request is the listing; somebody is quicker than the one after it.
        plane.proxy.before(f"(GET|POST|DELETE) .*/member(/{victim}.*)?$", lambda: None)
        plane.proxy.before(
            f"(GET|POST|DELETE) .*/member(/{victim}.*|/de-authorize)?$",
            lambda: somebody.delete_member(victim),
        )
        result = run(retire=["m003"], only=["m003"])
        assert not result.get("failed"), result
        assert victim not in authorized(plane)

    def test_the_network_of_another_controller(
        self, plane: Plane, run: Run, write: Callable[..., Path]
    ) -> None:
        write(many(), network="123456789a000001")
        result = run()
        assert result["failure"]["kind"] == ("InvalidRequest" if plane.kind == "controller" else "NotFound")
        if plane.kind == "controller":
            assert "123456789a" in result["msg"] and plane.network[:10] in result["msg"]
        assert "results" not in result
        write(many())
        self.heals(plane, run)

    def test_a_network_that_is_not_there(self, plane: Plane, run: Run, write: Callable[..., Path]) -> None:
        machines = {"laptop": {"provider": "external", "node_id": LAPTOP}}
        write(machines, network=plane.other)
        result = run()
        if plane.kind == "controller":
            assert not result.get("failed") and result["network"]["name"] == "minerals"
            assert [one["action"] for one in result["results"]] == ["network", "admit", "admit"]
            assert run()["changed"] is False
        else:
            assert result["failure"]["kind"] == "NotFound" and plane.other in result["msg"]


def test_no_token_comes_out(plane: Plane, run: Run, write: Callable[..., Path]) -> None:
    write(many())
    plane.clock.least = 60.0
    for answer in (
        Answer(401, f"bad {plane.token}"),
        Answer(500, f"bad {plane.token}"),
        Answer(200, plane.token),
    ):
        plane.proxy.answer = answer
        result = run()
        assert result["failed"] is True and plane.token not in json.dumps(result)


@pytest.mark.parametrize("plane", ["central_v1"], indirect=True)
def test_through_ansible_check_and_diff_print_the_table(
    plane: Plane, write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write()
    put(plane, INTRUDER, name="intruder", authorized=True)
    tasks = [
        {
            "gpumesh.fleet.mesh": {
                "fleet_file": str(path),
                "state": "applied",
                "nodes": {"box": "{{ node }}"},
                "approve": True,
            }
        }
    ]
    play = [{"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": tasks}]
    (tmp_path / "play.yml").write_text(json.dumps(play))

    def ansible(*options: str) -> str:
        ran = subprocess.run(
            [
                *(
                    str(Path(sys.executable).parent / "ansible-playbook"),
                    "-i",
                    "localhost,",
                    "-e",
                    f"node={BOX}",
                ),
                *("-e", f"ansible_python_interpreter={sys.executable}", *options, str(tmp_path / "play.yml")),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
            },
            check=False,
        )
        return f"{ran.stdout}{ran.stderr}"

    said = ansible("--check", "--diff")
    assert "changed=1" in said and "failed=0" in said, said
    assert re.search(rf"^\+  admit +box +{BOX} ", said, re.MULTILINE), said
    assert re.search(rf"^!  deauthorize +intruder +{INTRUDER} ", said, re.MULTILINE) and "SIMULATED" in said
    assert BOX not in authorized(plane)
    assert "changed=1" in ansible()
    assert authorized(plane) == {LAPTOP: "laptop", BOX: "box", **own(plane)}
    again = ansible("--diff")
    assert "changed=0" in again and "admit" not in again
