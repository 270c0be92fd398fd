# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller of one's own when things go wrong, and over time. What it answers when they do not is in test_recordings."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, http, mesh
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import rest, zerotier_controller
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import NetworkWish
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, FakeClock, Seen, Server, closed_port
from ansible_collections.gpumesh.fleet.tests.zerotier_recordings import CONTROLLER, TOKEN, recordings

ALL = recordings()
LAB = f"{CONTROLLER}0000aa"
NODE = "fa34221551"
STATUS, HAS_CONTROLLER = ALL[1].answer, ALL[20].answer
MEMBER: dict[str, Any] = ALL[309].body
NETWORK: dict[str, Any] = ALL[107].body
MEMBER_PATH = f"/controller/network/{LAB}/member/{NODE}"

Respond = Callable[[Seen], Answer]
Connect = Callable[..., tuple[Server, mesh.ControlPlane]]

EVERYTHING: list[Callable[[mesh.ControlPlane], object]] = [
    lambda plane: plane.network(),
    lambda plane: plane.save_network(NetworkWish(name="a")),
    lambda plane: plane.delete_network(),
    lambda plane: plane.members(),
    lambda plane: plane.member(NODE),
    lambda plane: plane.save_member(MemberWish(NODE, authorized=True)),
    lambda plane: plane.delete_member(NODE),
]


def answers(**by_path: Answer) -> Respond:
    """The status, the controller, and what is given by method and path."""
    known = {
        "GET /status": STATUS,
        "GET /controller": HAS_CONTROLLER,
        "GET /peer": Answer(200, []),
        **by_path,
    }
    return lambda seen: known.get(
        str(seen), Answer(200, {}) if seen.path.startswith("/peer/") else Answer(404)
    )


@pytest.fixture
def daemon() -> Iterator[Connect]:
    with ExitStack() as stack:

        def connected(respond: Respond, clock: FakeClock | None = None) -> tuple[Server, mesh.ControlPlane]:
            server = stack.enter_context(Server(respond).running())
            return server, mesh.open_plane("controller", LAB, TOKEN, server.url + "/", clock or FakeClock())

        yield connected


def writes(server: Server) -> list[str]:
    return [str(seen) for seen in server.seen if seen.method != "GET"]


@pytest.mark.parametrize("act", EVERYTHING)
def test_a_daemon_without_a_controller(daemon: Connect, act: Callable[[mesh.ControlPlane], object]) -> None:
    respond = lambda seen: STATUS if seen.path == "/status" else Answer(404)  # noqa: E731
    with pytest.raises(errors.NotFound, match=r"built without a controller.*1\.16\.0"):
        act(daemon(respond)[1])


def test_a_daemon_that_says_it_has_no_controller(daemon: Connect) -> None:
    with pytest.raises(errors.NotFound, match="built without a controller"):
        daemon(answers(**{"GET /controller": Answer(200, {"controller": False})}))[1].network()


@pytest.mark.parametrize("act", EVERYTHING)
def test_a_token_that_was_revoked(daemon: Connect, act: Callable[[mesh.ControlPlane], object]) -> None:
    server, plane = daemon(lambda seen: Answer(401, {}))
    with pytest.raises(errors.AuthError, match=r"authtoken\.secret"):
        act(plane)
    assert server.calls == ["GET /status"], "one question is enough to know"


def test_a_token_that_is_revoked_in_mid_run(daemon: Connect) -> None:
    known = {"GET /status": STATUS, f"GET {MEMBER_PATH}": Answer(200, MEMBER)}
    server, plane = daemon(lambda seen: known.get(str(seen), Answer(401, {})))
    with pytest.raises(errors.AuthError):
        plane.delete_member(NODE)
    assert writes(server) == [f"POST {MEMBER_PATH}"], "it was not deleted after it could not be deauthorised"


@pytest.mark.parametrize("act", EVERYTHING)
def test_a_daemon_that_is_down(act: Callable[[mesh.ControlPlane], object]) -> None:
    clock = FakeClock()
    plane = mesh.open_plane("controller", LAB, TOKEN, f"http://127.0.0.1:{closed_port()}", clock)
    with pytest.raises(errors.Unreachable) as caught:
        act(plane)
    assert "zerotier-one" in str(caught.value.hint)
    assert TOKEN not in f"{caught.value} {caught.value.as_failure()}"
    assert clock.now() <= 5


@pytest.mark.parametrize("act", EVERYTHING)
def test_a_daemon_that_is_slow(act: Callable[[mesh.ControlPlane], object]) -> None:
    held = threading.Event()

    def respond(seen: Seen) -> Answer:
        held.wait(10)
        return Answer(0)

    clock = FakeClock()
    with Server(respond).running() as server:
        adapter = http.RetryAdapter(clock, rest.policy(deadline=2.0, chance=lambda: 1.0), timeout=(0.2, 0.05))
        api = rest.Rest(server.url, {"X-ZT1-Auth": TOKEN}, adapter, "the ZeroTier controller", {})
        plane = zerotier_controller.ZeroTierController(LAB, api, clock)
        with pytest.raises(errors.Unavailable, match="in time"):
            act(plane)
        assert not writes(server)
        held.set()


@pytest.mark.parametrize("body", ["<html>", "", "null", "[]", '{"hello": 1}', '{"data": 5}', "{"])
@pytest.mark.parametrize("act", [EVERYTHING[0], EVERYTHING[3], EVERYTHING[4], EVERYTHING[5]])
def test_an_answer_that_is_something_else(
    daemon: Connect, body: str, act: Callable[[mesh.ControlPlane], object]
) -> None:
    _server, plane = daemon(lambda seen: STATUS if seen.path == "/status" else Answer(200, body))
    with pytest.raises((errors.Unavailable, errors.NotFound)) as caught:
        act(plane)
    assert "Traceback" not in str(caught.value)
    assert "not the ZeroTier controller's" in str(caught.value) or "without a controller" in str(caught.value)


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", '{"address": 5}', '{"address": "0537bdcc75"}'])
def test_a_status_that_is_something_else(daemon: Connect, body: str) -> None:
    _server, plane = daemon(lambda seen: Answer(200, body))
    with pytest.raises(errors.Unavailable, match="not the ZeroTier controller's"):
        plane.network()


def test_a_500_that_is_no_json_is_shown_as_it_is(daemon: Connect) -> None:
    """403 quotes a quotation mark as it is, so it is no JSON, though it says so."""
    known = {"GET /status": STATUS, f"POST {MEMBER_PATH}": ALL[403].answer}
    clock = FakeClock()
    _server, plane = daemon(lambda seen: known.get(str(seen), Answer(404)), clock)
    with pytest.raises(errors.Unavailable) as caught:
        plane.save_member(MemberWish(NODE, name="a"))
    assert "parse error" in caught.value.details
    assert clock.now() <= 60, "bounded"


def test_a_database_that_is_not_read_yet_is_waited_for(daemon: Connect) -> None:
    left = [Answer(503, {"databaseReady": False})] * 2
    found = answers(**{f"GET /controller/network/{LAB}": Answer(200, NETWORK)})
    _server, plane = daemon(lambda seen: left.pop() if left and "controller" in seen.path else found(seen))
    assert plane.network() is not None
    assert not left


def test_a_connection_that_is_closed_after_five_requests_is_survived() -> None:
    """The daemon says so in a header or not; either way the sixth request needs another connection."""
    for announced in (True, False):
        with five_a_connection(announced) as (url, connections):
            plane = mesh.open_plane("controller", LAB, TOKEN, url, FakeClock())
            for _ in range(4):
                assert len(plane.members()) == 1
                assert plane.save_member(MemberWish(NODE, authorized=True)).authorized
            with ThreadPoolExecutor(8) as pool:
                saved = [
                    pool.submit(plane.save_member, MemberWish(f"{node:010x}", authorized=True))
                    for node in range(1, 41)
                ]
            assert all(one.result().authorized for one in saved)
        assert max(connections) <= 5


@contextmanager
def five_a_connection(announced: bool) -> Iterator[tuple[str, list[int]]]:
    served: list[int] = []
    respond = answers(**{f"GET /unstable/controller/network/{LAB}/member": Answer(200, {"data": [MEMBER]})})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            self.count = 0
            served.append(0)
            self.place = len(served) - 1

        def _serve(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = respond(Seen(self.command, self.path, (), {}, None))
            if self.command == "POST":
                node = self.path.rpartition("/")[2]
                answer = Answer(200, {**MEMBER, "id": node, "authorized": True})
            data = json.dumps(answer.body).encode()
            self.count += 1
            served[self.place] = self.count
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(data)))
            if self.count == 5 and announced:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = self.count == 5

        do_GET = do_POST = _serve

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", served
    finally:
        server.shutdown()
        server.server_close()


def test_what_is_asked_is_asked_again_until_the_answer_shows_it(daemon: Connect) -> None:
    shown = [{**MEMBER, "name": "old"}, {**MEMBER, "name": "old"}, {**MEMBER, "name": "new"}]
    clock = FakeClock()
    server, plane = daemon(
        lambda seen: Answer(200, shown.pop(0)) if seen.method == "POST" else answers()(seen), clock
    )
    assert plane.save_member(MemberWish(NODE, name="new")).name == "new"
    assert len(writes(server)) == 3
    assert clock.slept == [0.25, 0.5]


def test_what_never_comes_true_ends_with_what_differs(daemon: Connect) -> None:
    clock = FakeClock()
    _server, plane = daemon(answers(**{f"POST {MEMBER_PATH}": Answer(200, {**MEMBER, "name": "old"})}), clock)
    with pytest.raises(errors.WaitTimeout) as caught:
        plane.save_member(MemberWish(NODE, name="new", authorized=False))
    assert "name is 'old' instead of 'new'" in str(caught.value)
    assert "authorized is True instead of False" in str(caught.value)
    assert caught.value.details == {"name": ["old", "new"], "authorized": [True, False]}
    assert 25 < clock.now() <= 30


def test_a_network_that_bends_a_value_ends_with_what_differs(daemon: Connect) -> None:
    path = f"/controller/network/{LAB}"
    kept = answers(**{f"GET {path}": Answer(200, NETWORK), f"POST {path}": Answer(200, NETWORK)})
    with pytest.raises(errors.WaitTimeout, match="mtu is 2800 instead of 1400"):
        daemon(kept)[1].save_network(NetworkWish(mtu=1400))


def test_a_new_network_is_private_unless_somebody_says_otherwise(daemon: Connect) -> None:
    path = f"/controller/network/{LAB}"
    for wish, private in (
        (NetworkWish(), True),
        (NetworkWish(name="a"), True),
        (NetworkWish(private=False), False),
    ):
        answer = Answer(200, {**NETWORK, "name": "a", "private": private})
        server, plane = daemon(answers(**{f"POST {path}": answer}))
        assert plane.save_network(wish).private is private
        assert server.seen[-1].body["private"] is private


def test_modes_are_sent_whole(daemon: Connect) -> None:
    path = f"/controller/network/{LAB}"
    now = {**NETWORK, "v6AssignMode": {"rfc4193": True, "6plane": True}}
    then = {**NETWORK, "v6AssignMode": {"rfc4193": True, "6plane": False, "zt": False}}
    server, plane = daemon(answers(**{f"GET {path}": Answer(200, now), f"POST {path}": Answer(200, then)}))
    plane.save_network(NetworkWish(sixplane=False))
    assert server.seen[-1].body == {"v6AssignMode": {"rfc4193": True, "6plane": False, "zt": False}}


def test_a_member_that_is_deleted_by_somebody_else_in_mid_run(daemon: Connect) -> None:
    """It is made again, whole; and where it was to be deleted, it is."""
    looks = [Answer(200, MEMBER), Answer(404)]
    seen_bodies: list[Any] = []

    def respond(seen: Seen) -> Answer:
        if str(seen) == f"GET {MEMBER_PATH}":
            return looks.pop(0)
        if seen.method == "POST":
            seen_bodies.append(seen.body)
            return Answer(200, {**MEMBER, **seen.body})
        return answers()(seen)

    _server, plane = daemon(respond)
    wish = MemberWish(NODE, name="galena", authorized=True, addresses=["10.147.17.99"])
    assert plane.save_member(wish).authorized
    assert seen_bodies == [
        {"name": "galena", "authorized": True, "ipAssignments": ["10.147.17.99", MEMBER["ipAssignments"][0]]}
    ]
    looks[:] = [Answer(200, MEMBER)]
    assert plane.delete_member(NODE) is True, "DELETE was answered 404"


def test_a_network_that_is_deleted_in_mid_run_is_one_clear_error(daemon: Connect) -> None:
    with pytest.raises(errors.NotFound, match=f"{LAB}.*no such network"):
        daemon(answers())[1].save_member(MemberWish(NODE, authorized=True))


def test_the_controller_as_a_member_of_its_own_network(daemon: Connect) -> None:
    record = {**ALL[651].body, "id": CONTROLLER}
    listing = {f"GET /unstable/controller/network/{LAB}/member": Answer(200, {"data": [record]})}
    (member,) = daemon(answers(**listing))[1].members()
    assert (member.online, member.version) == (True, "1.14.1")


def test_a_daemon_is_greeted_once(daemon: Connect) -> None:
    server, plane = daemon(answers(**{f"POST {MEMBER_PATH}": Answer(200, {**MEMBER, "authorized": True})}))
    for _ in range(3):
        plane.save_member(MemberWish(NODE, authorized=True))
    assert server.calls == ["GET /status", *[f"POST {MEMBER_PATH}"] * 3], "one request a member"


def test_a_sandbox_is_known_by_its_word(daemon: Connect) -> None:
    _server, plane = daemon(lambda seen: Answer(STATUS.status, STATUS.body, {http.SIMULATED_HEADER: "true"}))
    assert plane.simulated is False
    with pytest.raises(errors.ProviderError):
        plane.members()
    assert plane.simulated is True
    plane.close()
    plane.close()


def test_the_token_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "authtoken.secret"
    with pytest.raises(errors.NotFound, match="not installed here"):
        zerotier_controller.read_token(str(file))
    with pytest.raises(errors.NotFound):
        zerotier_controller.read_token(str(tmp_path / "no" / "such"))
    file.write_text(f" {TOKEN}\n")
    assert zerotier_controller.read_token(str(file)) == TOKEN
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(errors.InvalidRequest, match="UnicodeDecodeError"):
        zerotier_controller.read_token(str(file))
    with pytest.raises(errors.InvalidRequest, match="IsADirectoryError"):
        zerotier_controller.read_token(str(tmp_path))
