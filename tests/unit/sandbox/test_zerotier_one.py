# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the sandbox's stand-in for ZeroTier One the recordings do not reach."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.zerotier_one import api as api_module
from sandbox.zerotier_one.api import Api
from sandbox.zerotier_one.build import Build
from sandbox.zerotier_one.controller import Controller
from sandbox.zerotier_one.formulas import device_name, hardware_address, rfc4193, sixplane
from sandbox.zerotier_one.home import Home, HomeError
from sandbox.zerotier_one.identity import generate, read
from sandbox.zerotier_one.node import Node
from sandbox.zerotier_one.rules import cleaned
from sandbox.zerotier_one.store import Folder, Memory
from sandbox.zerotier_one.web import Request

NODE = "db4344343b"
NETWORK = f"{NODE}14b903"
MEMBER = "8046d53400"
TOKEN = "a" * 24


def controller() -> Controller:
    made = Controller(NODE, Memory(), lambda: 1_000_000)
    assert made.answer("POST", f"/controller/network/{NETWORK}", b"{}").status == 200
    return made


def member(made: Controller, node: str = MEMBER, **content: object) -> dict[str, Any]:
    path, body = f"/controller/network/{NETWORK}/member/{node}", json.dumps(content).encode()
    return dict(json.loads(made.answer("POST", path, body).text or ""))


def public(node: str, key: str = "0") -> str:
    return f"{node}:0:{key * 128}"


def test_the_arithmetic_gives_what_the_daemons_own_functions_gave() -> None:
    assert rfc4193(NETWORK, MEMBER) == "fddb:4344:343b:14b9:399:9380:46d5:3400/88"
    assert sixplane(NETWORK, MEMBER) == "fce0:57fd:3780:46d5:3400::1/40"
    assert hardware_address(NETWORK, MEMBER) == "02:39:52:ee:00:44"
    assert device_name("0537bdcc750000aa") == "ztzfbl3tg7"
    # Of a network id that would make the first octet that of virtual machines.
    assert hardware_address("0000000000000052", "0000000001") == "32:00:00:00:00:01"


def test_another_key_with_the_same_node_id_is_refused() -> None:
    made = controller()
    member(made, authorized=True)
    assert made.request(NETWORK, public(MEMBER, "a"), (1, 14, 1))["status"] == "OK"
    assert made.request(NETWORK, public(MEMBER, "b"), (1, 14, 1))["status"] == "ACCESS_DENIED"
    assert made.request(NETWORK, public(MEMBER, "a"), (1, 14, 1))["status"] == "OK"


def test_a_network_with_another_controllers_prefix_is_kept_and_never_served() -> None:
    made = controller()
    assert made.answer("POST", "/controller/network/8056c2e21c000001", b"{}").status == 200
    assert made.request("8056c2e21c000001", public(MEMBER), (1, 14, 1))["status"] == "NOT_FOUND"


def test_only_a_node_admitted_since_the_start_and_heard_of_lately_is_told_of_changes() -> None:
    now = [1_000_000]
    made = Controller(NODE, Memory(), lambda: now[0])
    made.answer("POST", f"/controller/network/{NETWORK}", b"{}")
    made.request(NETWORK, public(MEMBER), (1, 14, 1))
    member(made, authorized=True)
    assert made.settle() == []  # it has never been admitted
    made.request(NETWORK, public(MEMBER), (1, 14, 1))
    member(made, name="one")
    assert [(message.node, (message.reply or {})["status"]) for message in made.settle()] == [(MEMBER, "OK")]
    member(made, authorized=False)
    assert [message.reply for message in made.settle()] == [None]
    member(made, authorized=True)
    now[0] += 121_000
    assert made.settle() == []


def test_the_deleted_network_and_the_deleted_member_are_told_to_those_they_concern() -> None:
    made = controller()
    for node in (MEMBER, "1122334455"):
        member(made, node, authorized=True)
        made.request(NETWORK, public(node), (1, 14, 1))
    made.settle()
    assert made.answer("DELETE", f"/controller/network/{NETWORK}/member/{MEMBER}").status == 200
    assert [(message.node, message.reply) for message in made.settle()] == [(MEMBER, None)]
    assert made.answer("DELETE", f"/controller/network/{NETWORK}").status == 200
    assert [(message.node, message.reply) for message in made.settle()] == [("1122334455", None)]


def test_pool_addresses_are_given_once_and_skip_what_ends_in_255() -> None:
    made = controller()
    content = {
        "v4AssignMode": {"zt": True},
        "routes": [{"target": "10.0.0.0/16"}],
        "ipAssignmentPools": [{"ipRangeStart": "10.0.0.254", "ipRangeEnd": "10.0.1.2"}],
    }
    made.answer("POST", f"/controller/network/{NETWORK}", json.dumps(content).encode())
    given = []
    # Four addresses, of which the last is never used and one ends in .255.
    for number in range(4):
        node = f"00000000{number + 1:02x}"
        member(made, node, authorized=True)
        given += made.request(NETWORK, public(node), (1, 14, 1))["addresses"]
    assert sorted(given) == ["10.0.0.254/16", "10.0.1.0/16", "10.0.1.1/16"]


def test_a_rule_keeps_the_fields_of_its_kind() -> None:
    assert cleaned(
        [
            {"type": "MATCH_IP_DEST_PORT_RANGE", "start": 22, "or": 1, "else": 2},
            {"type": "MATCH_IPV6_DEST", "ip": "FD00::1/64"},
            {"type": "ACTION_TEE", "address": "ABCDEF1234", "not": True},
            {"type": "MATCH_ICMP", "icmpType": 8},
            {"type": "INTEGER_RANGE", "start": 1},
            "ACTION_DROP",
        ]
    ) == [
        {"type": "MATCH_IP_DEST_PORT_RANGE", "start": 22, "end": 22, "not": False, "or": True},
        {"type": "MATCH_IPV6_DEST", "ip": "fd00::1/64", "not": False, "or": False},
        {"type": "ACTION_TEE", "address": "abcdef1234", "flags": 0, "length": 0},
        {"type": "MATCH_ICMP", "icmpType": 8, "icmpCode": None, "not": False, "or": False},
    ]


def test_records_survive_a_restart_and_a_file_cut_off_in_the_writing(tmp_path: Path) -> None:
    first = Controller(NODE, Folder(tmp_path), lambda: 1)
    first.answer("POST", f"/controller/network/{NETWORK}", b'{"name": "kept"}')
    for node in (MEMBER, "1122334455"):
        first.answer("POST", f"/controller/network/{NETWORK}/member/{node}", b'{"authorized": true}')
    (tmp_path / f"network/{NETWORK}/member/1122334455.json").write_text('{"id": "11')
    second = Controller(NODE, Folder(tmp_path), lambda: 2)
    for path in ("", "/member/8046d53400"):
        url = f"/controller/network/{NETWORK}{path}"
        assert second.answer("GET", url) == first.answer("GET", url)
    assert second.answer("GET", f"/controller/network/{NETWORK}/member/1122334455").status == 404


def make_api(folder: Path, build: Build | None = None) -> Api:
    build, home, identity = build or Build(), Home(folder), read(f"{public(NODE)}:{'0' * 128}")
    assert identity
    home.prepare()
    node = Node(
        home,
        build,
        identity,
        roots=[],
        is_root=True,
        controller=Controller(NODE, Memory(), lambda: 1) if build.controller else None,
        now=lambda: 1,
    )
    return Api(node, home, build, token=TOKEN, planet={}, port=9993, now=lambda: 1)


async def ask(made: Api, method: str, path: str, content: object = None, **headers: str) -> tuple[int, Any]:
    body = b"" if content is None else json.dumps(content).encode()
    given = {"x-zt1-auth": TOKEN} | headers
    answer = await made.answer(Request(method, path, {}, given, body, "127.0.0.1"))
    return answer.status, json.loads(answer.body) if answer.body else None


def test_of_two_writes_to_one_member_at_once_one_is_lost(tmp_path: Path) -> None:
    made, path = make_api(tmp_path), f"/controller/network/{NETWORK}/member/{MEMBER}"

    async def work() -> Any:
        await ask(made, "POST", f"/controller/network/{NETWORK}", {})
        await asyncio.gather(
            ask(made, "POST", path, {"name": "one"}), ask(made, "POST", path, {"authorized": True})
        )
        first = await ask(made, "GET", path)
        other = path.replace(MEMBER, "1122334455")
        await asyncio.gather(
            ask(made, "POST", path, {"name": "two"}), ask(made, "POST", other, {"name": "three"})
        )
        return first, await ask(made, "GET", path), await ask(made, "GET", other)

    first, second, other = (record for _, record in asyncio.run(work()))
    assert ("name" in first) + first["authorized"] == 1
    assert (second["name"], other["name"]) == ("two", "three")


def test_a_build_without_a_controller_has_no_such_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "own_addresses", list)
    made = make_api(tmp_path, Build.of("1.16.0"))

    async def work() -> list[tuple[int, Any]]:
        paths = ("/controller", "/controller/network", "/unstable/controller/network", "/status")
        return [await ask(made, "GET", path) for path in paths]

    *without, status = asyncio.run(work())
    assert without == [(404, None)] * 3
    assert status[1]["version"] == "1.16.0"


def test_a_home_is_taken_as_it_was_prepared(tmp_path: Path) -> None:
    identity = generate()
    (tmp_path / "identity.secret").write_text(identity.secret + "\n")
    (tmp_path / "authtoken.secret").write_text(" seeded\n")
    home = Home(tmp_path)
    home.prepare()
    (tmp_path / f"networks.d/{NETWORK}.conf").touch()
    (tmp_path / f"networks.d/{NETWORK}.local.conf").write_text("allowGlobal=1\nallowManaged=0\nmadeUp=1\n")
    (tmp_path / "networks.d/nonsense.conf").touch()
    (tmp_path / "planet").write_bytes(b"\x01real planets are not JSON")
    assert home.identity() == identity
    assert not (tmp_path / "identity.public").exists()  # the daemon does not write what it was not given
    assert home.token() == "seeded"
    settings = {"allowManaged": False, "allowGlobal": True, "allowDefault": False, "allowDNS": False}
    assert home.joined() == {NETWORK: ({}, settings)}
    assert home.planet(("192.0.2.1:9993",)) == {"roots": ["192.0.2.1:9993"]}


def test_an_empty_home_is_furnished(tmp_path: Path) -> None:
    home = Home(tmp_path / "new")
    home.prepare()
    identity, token = home.identity(), home.token()
    assert len(token) == 24
    assert (home.path / "authtoken.secret").read_text() == token
    assert len(identity.secret) == 270
    assert len((home.path / "identity.public").read_text()) == 141
    assert home.identity() == identity
    modes = {
        name: (home.path / name).stat().st_mode & 0o777 for name in ("identity.secret", "authtoken.secret")
    }
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("text", ["", "nonsense", public(NODE), f"ff{NODE[2:]}:0:{'0' * 128}:{'0' * 128}"])
def test_a_home_with_no_usable_identity_stops_the_daemon(tmp_path: Path, text: str) -> None:
    (tmp_path / "identity.secret").write_text(text)
    with pytest.raises(HomeError, match=r"identity\.secret"):
        Home(tmp_path).identity()
