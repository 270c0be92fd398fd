# SPDX-License-Identifier: GPL-3.0-or-later
"""What six real daemons were asked and answered, asked again of six stand-ins in one process.

The recordings are of one long session, so they are replayed as one: in the order of their times, on a clock that shows
them. In between the stand-ins do by themselves what daemons do. What was done to the daemons without being recorded is
told here, under the number of the recording it came before.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

from sandbox.zerotier_one import api, joined
from sandbox.zerotier_one.api import Api
from sandbox.zerotier_one.build import Build
from sandbox.zerotier_one.controller import Controller
from sandbox.zerotier_one.home import Home
from sandbox.zerotier_one.identity import read
from sandbox.zerotier_one.interface import Wish
from sandbox.zerotier_one.node import Node, Place
from sandbox.zerotier_one.store import Folder
from sandbox.zerotier_one.web import Request, Response

FOLDER = Path(__file__).parents[2] / "fixtures" / "zerotier" / "recordings"
NETWORK = "0537bdcc750000aa"
SECOND_NETWORK = "0537bdcc7500bbbb"
NODES = {
    "controller n0": "0537bdcc75",
    "peer n1": "fa34221551",
    "peer n2": "acd59acc21",
    "peer n3": "b2249b9b58",
    "peer n4": "8bb351789f",
    "peer n5": "4196af9c0e",
}
BUILD = Build("1.14.1")
TICK_MS = 5000
PORT = 9993
_SETTINGS = {
    "allowTcpFallbackRelay": False,
    "portMappingEnabled": False,
    "primaryPort": PORT,
    "softwareUpdate": "disable",
}
_FROM = {
    10: "10.99.0.11",
    11: "10.99.0.11",
    12: "10.99.0.10",
    13: "::1",
    454: "10.99.0.11",
    455: "10.99.0.11",
    481: "10.99.0.11",
}
"""Where a request came from; the others came from loopback."""


@dataclass(frozen=True)
class Recording:
    """One exchange with a real daemon."""

    number: int
    name: str
    node: str
    at: int
    request: dict[str, Any]
    response: dict[str, Any]


def load() -> list[Recording]:
    """All exchanges that got an answer, oldest first."""
    found = []
    for path in FOLDER.glob("[0-9][0-9][0-9]-*.json"):
        content = json.loads(path.read_text("utf-8"))
        if isinstance(content, dict) and content.get("response", {}).get("status"):
            name, node, at = content["name"], content["node"], content["recorded_at_ms"]
            found.append(
                Recording(int(path.name[:3]), name, node, at, content["request"], content["response"])
            )
    return sorted(found, key=lambda recording: (recording.at, recording.number))


class _NoInterface:
    """An interface that is as it should be."""

    def __init__(self, name: str, mac: str) -> None:
        self.name = name
        self.mtu = 0

    def apply(self, wish: Wish) -> bool:
        return True

    def remove(self) -> None:
        """Gone."""


class _Wire:
    """Stands for a node's UDP socket."""

    def __init__(self, lab: Lab, source: Place) -> None:
        self._lab = lab
        self._source = source

    def sendto(self, data: bytes, place: Place) -> None:
        for station in self._lab.stations.values():
            if station.place == place and station.node:
                asyncio.get_running_loop().call_soon(station.node.datagram_received, data, self._source)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Closed."""


@dataclass
class Station:
    """A stand-in, running or not."""

    label: str
    home: Home
    place: Place
    node: Node | None = None
    api: Api | None = None
    next_tick: int = 0


@dataclass
class Lab:
    """The six of them, and the clock."""

    stations: dict[str, Station]
    now: int = 0
    identities: dict[str, str] = field(default_factory=dict)

    def start(self, label: str) -> None:
        station = self.stations[label]
        identity = read(f"{self.identities[NODES[label]]}:{'0' * 128}")
        assert identity
        planet = {"roots": [f"10.99.0.10:{PORT}"], "id": 22410022005, "timestamp": 1795195226351}
        is_root = label == "controller n0"
        controller = Controller(identity.node, Folder(station.home.path / "controller.d"), self.clock)
        node = Node(
            station.home,
            BUILD,
            identity,
            roots=[("10.99.0.10", PORT)],
            is_root=is_root,
            controller=controller,
            now=self.clock,
        )
        node.connection_made(_Wire(self, station.place))  # type: ignore[arg-type]
        token = f"FAKEfakeAUTHtoken0000{label[-1]}00"
        station.node, station.next_tick = node, self.now
        station.api = Api(node, station.home, BUILD, token=token, planet=planet, port=PORT, now=self.clock)
        node.join_again()

    def stop(self, label: str) -> None:
        self.stations[label].node = self.stations[label].api = None

    def clock(self) -> int:
        return self.now

    async def advance(self, to: int) -> None:
        """Let time pass, and the running nodes do what they do every 5 s."""
        while True:
            running = [station for station in self.stations.values() if station.node]
            first = min(running, key=lambda station: station.next_tick)
            if first.next_tick > to:
                break
            self.now = max(self.now, first.next_tick)
            await self.tick(first)
        self.now = max(self.now, to)

    async def tick(self, station: Station) -> None:
        assert station.node and station.api
        station.next_tick = self.now + TICK_MS
        station.api.look_at_settings()
        station.node.tick()
        await self.settle()

    async def settle(self) -> None:
        """Until every datagram has arrived."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def ask(self, label: str, method: str, path: str, content: object = None) -> Response:
        """A request that was not recorded."""
        station = self.stations[label]
        assert station.api
        headers = {"x-zt1-auth": f"FAKEfakeAUTHtoken0000{label[-1]}00", "content-type": "application/json"}
        body = b"" if content is None else json.dumps(content).encode()
        answer = await station.api.answer(Request(method, path, {}, headers, body, "127.0.0.1"))
        await self.settle()
        return answer

    async def replay(self, recording: Recording) -> Response:
        """A recorded request."""
        station, given = self.stations[recording.node], recording.request
        assert station.api
        url = urlsplit(given["path"])
        headers = {name.lower(): value.strip() for name, value in given["headers"].items()}
        text = given.get("body_text", "")
        body = json.dumps(given["json"]) if "json" in given else text
        request = Request(
            given["method"],
            url.path,
            dict(parse_qsl(url.query)),
            headers,
            body.encode(),
            _FROM.get(recording.number, "127.0.0.1"),
        )
        # What is drawn at random is drawn as it was then.
        drawn = _body(recording).get("id", "")[10:] if given["method"] == "POST" else ""
        with mock.patch("sandbox.zerotier_one.controller.secrets.token_hex", return_value=drawn):
            return await station.api.answer(request)


def _body(recording: Recording) -> dict[str, Any]:
    content = recording.response.get("json")
    return content if isinstance(content, dict) else {}


async def _unrecorded(lab: Lab, number: int) -> None:
    """What was done to the daemons before a recording."""
    n0, n2, member = "controller n0", "peer n2", f"/controller/network/{NETWORK}/member"
    match number:
        case 153:
            await lab.ask(n0, "DELETE", "/controller/network/0537bdcc75000000")
        case 330:
            # Eight times out and in again, to measure how long it takes.
            for _ in range(8):
                for authorized in (False, True):
                    await lab.ask(n0, "POST", f"{member}/{NODES[n2]}", {"authorized": authorized})
        case 332:
            home = lab.stations["peer n4"].home
            home.keep(NETWORK, {})
            lab.start("peer n4")
            await lab.advance(lab.now)
        case 369:
            await lab.ask(n0, "POST", f"/controller/network/{NETWORK}", {"name": "lab"})
            await lab.ask(n2, "DELETE", f"/network/{NETWORK}")
        case 372:
            await lab.ask(n2, "POST", f"/network/{NETWORK}", {})
        case 434:
            for node in ("1122334455", "abcdef1234", "ff00000001"):
                await lab.ask(n0, "DELETE", f"{member}/{node}")
        case 450:
            lab.stop(n0)
            lab.start("peer n3")
            await lab.advance(lab.now)
        case 453:
            settings = _SETTINGS | {"allowManagementFrom": ["10.99.0.0/24"]}
            lab.stations[n0].home.write_local_conf({"settings": settings})
            lab.start(n0)
        case 458:
            # Its minute was over: it asked the controller, which had not told it anything since its start.
            n1 = lab.stations["peer n1"]
            assert n1.node
            n1.node.networks[NETWORK].updated = 0
            await lab.tick(n1)
        case 600:
            for label in ("peer n1", "peer n2", "peer n3", "peer n4"):
                await lab.ask(n0, "POST", f"{member}/{NODES[label]}", {"authorized": True})
            await lab.ask(n0, "POST", f"/controller/network/{SECOND_NETWORK}", {"name": "scale"})
            recorded = json.loads(next(FOLDER.glob("600-*.json")).read_text())
            for place, node in enumerate(recorded["response"]["json"]):
                content = {"authorized": place % 2 == 0, "name": f"host-{place:04}"}
                await lab.ask(n0, "POST", f"/controller/network/{SECOND_NETWORK}/member/{node}", content)
        case 471:
            home = lab.stations["peer n5"].home
            home.keep(NETWORK, {})
            home.keep_settings(
                NETWORK, {"allowManaged": True, "allowGlobal": True, "allowDefault": False, "allowDNS": True}
            )
            lab.start("peer n5")
            await lab.advance(lab.now)


@dataclass(frozen=True)
class Outcome:
    """A recording, and what the stand-in answered; None where it answered right only after its next look around."""

    recording: Recording
    answer: Response


Same = Callable[[Recording, Response], bool]


def outcomes(folder: Path, skipped: set[int], same: Same) -> Iterator[Outcome]:
    """Replay everything.

    Args:
        folder: for the homes.
        skipped: numbers of recordings that are left out.
        same: whether an answer is the recorded one. When a daemon looked around is not known, so where it is not the
            question is put again after every node has done so.
    """

    async def run() -> list[Outcome]:
        recordings = load()
        lab = Lab(
            {
                label: Station(label, Home(folder / label[-2:]), (f"10.99.0.1{label[-1]}", PORT))
                for label in NODES
            }
        )
        lab.identities = _identities(recordings)
        lab.now = recordings[0].at - 60_000
        for label, station in lab.stations.items():
            station.home.prepare()
            station.home.write_local_conf({"settings": _SETTINGS})
            if label not in ("peer n4", "peer n5"):
                lab.start(label)
        found = []
        for recording in recordings:
            await lab.advance(recording.at)
            await _unrecorded(lab, recording.number)
            if recording.number in skipped:
                continue
            answer = await lab.replay(recording)
            if recording.request["method"] == "GET" and not same(recording, answer):
                await lab.settle()
                for station in lab.stations.values():
                    if station.node:
                        await lab.tick(station)
                answer = await lab.replay(recording)
            await lab.settle()
            found.append(Outcome(recording, answer))
        return found

    with (
        mock.patch.object(joined, "Interface", _NoInterface),
        mock.patch.object(api, "own_addresses", return_value=["10.99.0.10"]),
    ):
        yield from asyncio.run(run())


def _identities(recordings: list[Recording]) -> dict[str, str]:
    """Every node's public identity, from what was recorded of it."""
    found = {}
    for recording in recordings:
        for name in ("identity", "publicIdentity"):
            text = _body(recording).get(name)
            if isinstance(text, str) and read(text):
                found[text[:10]] = text
    return found
