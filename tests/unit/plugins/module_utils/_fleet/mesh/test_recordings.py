# SPDX-License-Identifier: GPL-3.0-or-later
"""Contract tests: every recorded exchange with a real zerotier-one is asked again of a server that answers as it did.

Each recording has its place in one of the tables below: where the client makes such a request it must make the same one
and understand the answer; where it does not, the reason stands beside it, and the answer is still carried unharmed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, http, mesh
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Member
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import members, rest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import (
    Dns,
    Network,
    NetworkWish,
    Pool,
    Route,
)
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, FakeClock, Seen, Server, closed_port
from ansible_collections.gpumesh.fleet.tests.zerotier_recordings import (
    CONTROLLER,
    TOKEN,
    Recording,
    recordings,
)

ALL = recordings()
LAB, LAB2, BIG = f"{CONTROLLER}0000aa", f"{CONTROLLER}ee1899", f"{CONTROLLER}00bbbb"
N1, N2, N3, N4, N5 = "fa34221551", "acd59acc21", "b2249b9b58", "8bb351789f", "4196af9c0e"
ODD = "1122334455"

Act = Callable[[mesh.ControlPlane], Any]

# Reads: what is called, and which recordings answer it in turn. The last is the one that is meant.

NETWORK_READS = {
    105: None, 107: LAB, 115: LAB,
}  # fmt: skip
MEMBER_READS = (204, 304, 309, 317, 318, 331, 334, 342, 346, 350, 352, 355, 357, 363, 373, 375, 404, 473)
LISTINGS = (201, 305, 320, 601)
LISTINGS_BY_MAP = (200, 303, 319, 347, 370, 434, 453, 465)

# Writes: the recorded body is read as a wish, and the client must send the very same request.

NETWORK_WRITES = {
    106: 105, 113: 112, 116: 114, 119: 118, 158: 149, 367: 119, 371: 367, 374: 371, 464: 105,
}  # fmt: skip
"""By recording, the one that shows the network as it was before; 105 where there was none."""

MEMBER_WRITES = {
    307: 304, 311: 204, 312: 204, 330: 204, 340: 317, 343: 342, 351: 350, 358: 356, 361: 360, 364: 360, 405: 204, 413: 405,
    416: 415, 433: 432, 457: 458, 470: 204, 651: 204,
}  # fmt: skip

NETWORK_DELETES = {139: True, 152: True, 461: True, 603: True}
MEMBER_DELETES = {345: 317, 369: 357, 655: 651}
"""By recording, the one that shows the member as it was before."""

# Requests that the client refuses to make, because of what the controller makes of them.

REFUSED: dict[int, Callable[[mesh.ControlPlane, Any], object]] = {
    114: lambda plane, sent: [NetworkWish(**{name: sent[word]}) for name, word in _WORDS.items() if word in sent],
    117: lambda plane, sent: NetworkWish(mtu=sent["mtu"]),
    118: lambda plane, sent: NetworkWish(mtu=sent["mtu"]),
    143: lambda plane, sent: NetworkWish(dns=Dns("a.example", tuple(sent["dns"]["servers"]))),
    150: lambda plane, sent: NetworkWish(private=sent["private"]),
    154: lambda plane, sent: NetworkWish(private=sent["private"]),
    155: lambda plane, sent: NetworkWish(private=sent["private"]),
    406: lambda plane, sent: MemberWish(ODD, authorized=sent["authorized"]),
    407: lambda plane, sent: MemberWish(ODD, authorized=sent["authorized"]),
    408: lambda plane, sent: MemberWish(ODD, authorized=sent["authorized"]),
    410: lambda plane, sent: MemberWish(ODD, addresses=sent["ipAssignments"]),
    411: lambda plane, sent: MemberWish(ODD, addresses=sent["ipAssignments"]),
    412: lambda plane, sent: MemberWish(ODD, addresses=sent["ipAssignments"]),
    415: lambda plane, sent: MemberWish(ODD, tags=sent["tags"]),
    424: lambda plane, sent: MemberWish("abc"), 425: lambda plane, sent: plane.member("zzzzzzzzzz"),
    426: lambda plane, sent: plane.member("12345678901"), 427: lambda plane, sent: MemberWish("0000000000"),
    428: lambda plane, sent: plane.member("0000000000"), 429: lambda plane, sent: MemberWish("ff00000001"),
    129: lambda plane, sent: open_other("8056c2e21c"), 130: lambda plane, sent: open_other("zzzzzzzzzzzzzzzz"),
    131: lambda plane, sent: open_other("zzzzzzzzzzzzzzzz"), 430: lambda plane, sent: open_other("nothex"),
}  # fmt: skip
"""By recording, the same said to the client."""

REFUSED_PART_BY_PART: dict[int, Callable[[Any], Callable[[], object]]] = {
    120: lambda route: lambda: NetworkWish(routes=[Route(route.get("target"), route.get("via"))]),
    121: lambda pool: lambda: NetworkWish(pools=[Pool(pool["ipRangeStart"], pool.get("ipRangeEnd"))]),
    140: lambda rule: lambda: NetworkWish(rules=[rule]),
}  # fmt: skip
"""The same for lists of which some parts are good: by recording, what is said of one part."""

GOOD_PARTS = {
    120: [{"target": "FD00:0::/48", "via": None}],
    121: [],
    140: [rule for rule in ALL[140].sent["rules"] if rule["type"] != "NO_SUCH_RULE"],
}

FOREIGN = {104: "1234567890000001", 128: "8056c2e21c000001", 137: "8056c2e21c000001", 138: "8056c2e21c000001"}
"""Networks of another controller, which this one would store or delete although it can never serve them."""

_WORDS = {
    "name": "name", "private": "private", "mtu": "mtu", "multicast_limit": "multicastLimit", "broadcast": "enableBroadcast",
}  # fmt: skip


def open_other(network: str) -> mesh.ControlPlane:
    return mesh.open_plane("controller", network, TOKEN, None, FakeClock())


# Requests the client never makes, with the reason.

NOT_OURS = {
    **dict.fromkeys(range(2, 20), "says how tokens and addresses are judged; test_who_may_ask holds to it"),
    **dict.fromkeys((21, 32), "says how tokens are judged"),
    **dict.fromkeys((23, 26, 27, 28, 29, 30, 33), "the local API of a node, which the role zerotier asks"),
    24: "the peers of a node that is no controller", 322: "the peers of a node that is no controller",
    31: "metrics", 100: "networks are asked for by id", 101: "networks are asked for by id",
    102: "a create without id can never be repeated", 103: "a create without id can never be repeated",
    109: "PUT is POST", 419: "PUT is POST", 159: "PATCH is nothing",
    110: "half of v6AssignMode, which would make the rest of it vanish, cannot be said",
    111: "a mode as text cannot be said", 112: "a mode as null cannot be said", 122: "routes that are no list cannot be said",
    156: "null leaves alone what is there", 409: "null leaves alone what is there",
    108: "nothing differs, so nothing is sent: test_what_is_so_already_is_not_sent",
    123: "an unknown field is none of a wish's",
    124: "no JSON: the client sends nothing but JSON", 126: "no JSON", 127: "no JSON", 403: "no JSON",
    125: "a list is no wish", 431: "there is no bulk write",
    132: "ids are sent in lower case", 133: "ids are sent in lower case", 420: "ids are sent in lower case",
    432: "ids are sent in lower case",
    421: "shows an id somebody wrote in upper case: test_ids_in_upper_case_are_read_in_lower_case",
    422: "shows an id somebody wrote in upper case: test_ids_in_upper_case_are_read_in_lower_case",
    423: "what repairs an id in upper case is any write in lower case",
    134: "an id the client can use like any other",
    135: "networks are asked for by id", 136: "networks are asked for by id", 153: "networks are asked for by id",
    321: "networks are asked for by id", 454: "networks are asked for by id", 455: "says how tokens are judged",
    602: "networks are asked for by id",
    141: "tags and capabilities of a network are not managed", 142: "join tokens are not managed",
    144: "an empty object leaves half of it; the client sends an empty domain and no servers",
    145: "remote traces are not managed, and kept: test_a_remote_trace_survives",
    146: "remote traces are not managed, and kept: test_a_remote_trace_survives",
    147: "forms are not sent", 148: "forms are not sent", 149: "its answer is read by 158", 151: "forms are not sent",
    157: "a slash too many",
    202: "a network that is not there: test_members_of_a_network_that_is_not_there",
    203: "a network that is not there: test_members_of_a_network_that_is_not_there",
    400: "a network that is not there: test_members_of_a_network_that_is_not_there",
    462: "a network that is not there: test_members_of_a_network_that_is_not_there",
    **dict.fromkeys((300, 301, 302, 306, 308, 310, 313, 314, 315, 316), "the local API of a node"),
    **dict.fromkeys((332, 333, 341, 344, 349, 354, 359, 362, 365, 368, 372), "the local API of a node"),
    **dict.fromkeys(range(436, 448), "the local API of a node"),
    **dict.fromkeys((450, 451, 459, 460, 463, 471, 472, 480, 481, 482), "the local API of a node"),
    **dict.fromkeys(range(652, 655), "the local API of a node"),
    **dict.fromkeys(range(656, 660), "the local API of a node"),
    348: "a member that is not there is not deleted", 435: "a member that is not there is not deleted",
    353: "an address alone would take the automatic one of the other family: test_an_automatic_address_is_sent_along",
    356: "no addresses of one's own is what the member has", 360: "no addresses of one's own is what the member has",
    366: "no addresses of one's own is what the member has", 458: "no addresses of one's own is what the member has",
    401: "says how tokens are judged", 402: "says how tokens are judged",
    414: "the same address twice is sent once",
    417: "fields that cannot be written are none of a wish's", 418: "its answer is that of 415",
    600: "the map of a listing: test_a_listing_of_a_daemon_without_the_unstable_one",
}  # fmt: skip

OTHER_TESTS = {
    1: "status: in every test here", 20: "controller: in every test here", 22: "controller: every node has one",
    25: "test_peers_give_who_is_online", 323: "test_peers_give_who_is_online", 650: "test_peers_give_who_is_online",
    660: "test_peers_give_who_is_online", 452: "test_a_daemon_that_is_down",
}  # fmt: skip

REPLAYED = (
    *NETWORK_READS, *MEMBER_READS, *LISTINGS, *LISTINGS_BY_MAP, *NETWORK_WRITES, *MEMBER_WRITES, *NETWORK_DELETES,
    *MEMBER_DELETES,
)  # fmt: skip


def test_every_recording_has_its_place() -> None:
    placed = [*REPLAYED, *REFUSED, *REFUSED_PART_BY_PART, *FOREIGN, *NOT_OURS, *OTHER_TESTS]
    assert sorted(placed) == sorted(ALL), (set(ALL) ^ set(placed), [n for n in placed if placed.count(n) > 1])


class Daemon:
    """A zerotier-one that answers as recorded: to each request the next of the answers it was given for it."""

    def __init__(self, *numbers: int, network: str = LAB) -> None:
        self.network = network
        self._answers: dict[tuple[str, str], list[Answer]] = {}
        for number in (1, 20, *numbers):
            self.add(ALL[number])

    def add(self, recording: Recording) -> None:
        self._answers.setdefault((recording.method, recording.path), []).append(recording.answer)

    def put(self, method: str, path: str, answer: Answer) -> None:
        self._answers.setdefault((method, path), []).append(answer)

    def __call__(self, seen: Seen) -> Answer:
        answers = self._answers.get((seen.method, seen.path), [])
        if seen.path.startswith("/peer"):
            return answers[0] if answers else Answer(200, {} if seen.path != "/peer" else [])
        if not answers:
            return Answer(599, {"unexpected": str(seen)})
        return answers.pop(0) if len(answers) > 1 else answers[0]


Ask = Callable[[Daemon], tuple[Server, mesh.ControlPlane]]


@pytest.fixture
def ask() -> Iterator[Ask]:
    with ExitStack() as stack:

        def connected(daemon: Daemon) -> tuple[Server, mesh.ControlPlane]:
            server = stack.enter_context(Server(daemon).running())
            return server, mesh.open_plane("controller", daemon.network, TOKEN, server.url, FakeClock())

        yield connected


def writes(server: Server) -> list[tuple[str, str, Any]]:
    return [(seen.method, seen.path, seen.body) for seen in server.seen if seen.method != "GET"]


def comparable(body: Any) -> Any:
    """A body without the order of what has none."""
    if isinstance(body, dict):
        return {
            name: sorted(value, key=json.dumps)
            if name in ("routes", "ipAssignmentPools")
            else comparable(value)
            for name, value in body.items()
        }
    return body


def same_request(server: Server, recording: Recording) -> None:
    """The client made this very request, with the right headers, and no other that writes."""
    assert [(method, path, comparable(body)) for method, path, body in writes(server)] == [
        (recording.method, recording.path, comparable(recording.sent))
    ]
    (seen,) = (seen for seen in server.seen if seen.method != "GET")
    assert seen.headers["x-zt1-auth"] == TOKEN
    assert seen.headers["content-type"] == "application/json"


def same_network(found: Network | None, record: dict[str, Any]) -> None:
    """Read once more, in the words of the API."""
    assert found is not None
    assert (found.id, found.name, found.private) == (record["id"], record["name"], record["private"])
    assert (found.mtu, found.multicast_limit) == (record["mtu"], record["multicastLimit"])
    assert (found.broadcast, found.revision) == (record["enableBroadcast"], record["revision"])
    assert found.v4_auto is record["v4AssignMode"]["zt"]
    v6 = record["v6AssignMode"]
    assert (found.v6_auto, found.rfc4193, found.sixplane) == tuple(
        v6.get(word, False) for word in ("zt", "rfc4193", "6plane")
    )
    assert {(route.target, route.via) for route in found.routes} == {
        (route["target"], route["via"]) for route in record["routes"]
    }
    assert {(pool.start, pool.end) for pool in found.pools} == {
        (pool["ipRangeStart"], pool["ipRangeEnd"]) for pool in record["ipAssignmentPools"]
    }
    assert found.dns == (
        Dns(record["dns"]["domain"] or "", tuple(record["dns"].get("servers", ())))
        if record["dns"]
        else Dns()
    )
    assert [rule["type"] for rule in found.rules or ()] == [rule["type"] for rule in record["rules"]]


def same_member(found: Member | None, record: dict[str, Any]) -> None:
    assert found is not None
    assert found.node_id == record["id"].lower()
    assert (found.name, found.authorized) == (record.get("name", ""), record["authorized"])
    assert found.addresses == tuple(record["ipAssignments"])
    assert (found.active_bridge, found.no_auto_assign) == (record["activeBridge"], record["noAutoAssignIps"])
    assert [list(tag) for tag in found.tags] == record["tags"]
    assert found.identity == record.get("identity")
    version = ".".join(str(record[part]) for part in ("vMajor", "vMinor", "vRev"))
    assert found.version == (None if version.startswith("-") else version)


@pytest.mark.parametrize("number", NETWORK_READS)
def test_a_network_is_read(ask: Ask, number: int) -> None:
    server, plane = ask(Daemon(number))
    found = plane.network()
    assert ALL[number].path in [seen.path for seen in server.seen]
    if NETWORK_READS[number] is None:
        assert found is None
    else:
        same_network(found, ALL[number].body)
    assert not writes(server)


@pytest.mark.parametrize("number", MEMBER_READS)
def test_a_member_is_read(ask: Ask, number: int) -> None:
    recording = ALL[number]
    network, node = recording.path.split("/")[3], recording.path.split("/")[5]
    server, plane = ask(Daemon(recording.number, network=network))
    found = plane.member(node)
    if recording.status == 404:
        assert found is None
    else:
        same_member(found, recording.body)
    assert recording.path in [seen.path for seen in server.seen]
    assert not writes(server)


def test_a_member_that_came_back_is_as_good_as_none(ask: Ask) -> None:
    _server, plane = ask(Daemon(350))
    found = plane.member(N2)
    assert found is not None and members.is_blank(found)


@pytest.mark.parametrize("number", LISTINGS)
def test_members_are_listed(ask: Ask, number: int) -> None:
    recording = ALL[number]
    server, plane = ask(Daemon(number, network=recording.path.split("/")[4]))
    found = plane.members()
    records = sorted(recording.body["data"], key=lambda record: str(record["id"]))
    assert len(found) == len(records)
    for member, record in zip(found, records, strict=True):
        same_member(member, record)
    assert server.calls == ["GET /status", f"GET {recording.path}", "GET /peer"], "as few as that"


@pytest.mark.parametrize("number", LISTINGS_BY_MAP)
def test_members_are_listed_by_the_map(ask: Ask, number: int) -> None:
    """A daemon without the listing of all records is asked for the map of all ids, then for each."""
    recording = ALL[number]
    daemon = Daemon(number)
    daemon.put("GET", f"/unstable{recording.path}", Answer(404))
    for node in recording.body:
        daemon.put("GET", f"{recording.path}/{node}", Answer(200, {**ALL[309].body, "id": node}))
    server, plane = ask(daemon)
    assert [member.node_id for member in plane.members()] == sorted(recording.body)
    assert len(server.seen) == 4 + len(recording.body)


def test_a_listing_of_a_daemon_without_the_unstable_one(ask: Ask) -> None:
    nodes = sorted(ALL[600].body)
    assert len(nodes) == 1000
    some, gone = nodes[:20], nodes[17]
    path = ALL[600].path
    daemon = Daemon(network=BIG)
    daemon.put("GET", path, Answer(200, dict.fromkeys(some, 1)))
    daemon.put("GET", f"/unstable{path}", Answer(404))
    for node in some:
        record = {**ALL[601].body["data"][0], "id": node}
        daemon.put("GET", f"{path}/{node}", Answer(404) if node == gone else Answer(200, record))
    found = [member.node_id for member in ask(daemon)[1].members()]
    assert found == sorted({*some} - {gone}), "one that was deleted in between is none"


def test_members_of_a_network_that_is_not_there(ask: Ask) -> None:
    network = ALL[202].path.split("/")[3]
    for numbers in ((202, 203), (462, 203)):
        daemon = Daemon(*numbers, network=network)
        daemon.put("GET", f"/controller/network/{network}/member", Answer(404))
        with pytest.raises(errors.NotFound, match="no such network"):
            ask(daemon)[1].members()
    with pytest.raises(errors.NotFound, match="no such network"):
        ask(Daemon(400, network=network))[1].save_member(MemberWish(ODD))


def test_ids_in_upper_case_are_read_in_lower_case(ask: Ask) -> None:
    _server, plane = ask(Daemon(421))
    found = plane.member("abcdef1234")
    assert ALL[421].body["id"] == "ABCDEF1234"
    assert found is not None and found.node_id == "abcdef1234"
    daemon = Daemon(422)
    daemon.put("GET", f"/unstable{ALL[422].path}", Answer(404))
    for node in ALL[422].body:
        daemon.put("GET", f"{ALL[422].path}/{node.lower()}", Answer(200, {**ALL[421].body, "id": node}))
    assert [member.node_id for member in ask(daemon)[1].members()] == sorted(
        node.lower() for node in ALL[422].body
    )


def network_wish(body: dict[str, Any]) -> NetworkWish:
    """The wish that a recorded body expresses."""
    known = {
        "name": "name", "private": "private", "mtu": "mtu", "multicastLimit": "multicast_limit",
        "enableBroadcast": "broadcast", "rules": "rules",
    }  # fmt: skip
    given: dict[str, Any] = {known[name]: value for name, value in body.items() if name in known}
    if "routes" in body:
        given["routes"] = [Route(route["target"], route.get("via")) for route in body["routes"]]
    if "ipAssignmentPools" in body:
        given["pools"] = [
            Pool(pool["ipRangeStart"], pool.get("ipRangeEnd")) for pool in body["ipAssignmentPools"]
        ]
    if "dns" in body:
        given["dns"] = Dns(body["dns"]["domain"], tuple(body["dns"]["servers"]))
    if "v4AssignMode" in body:
        given["v4_auto"] = body["v4AssignMode"]["zt"]
    if "v6AssignMode" in body:
        mode = body["v6AssignMode"]
        given |= {"v6_auto": mode["zt"], "rfc4193": mode["rfc4193"], "sixplane": mode["6plane"]}
    return NetworkWish(**given)


def member_wish(node: str, body: dict[str, Any]) -> MemberWish:
    known = {
        "name": "name", "authorized": "authorized", "activeBridge": "active_bridge", "tags": "tags",
        "noAutoAssignIps": "no_auto_assign", "ipAssignments": "addresses",
    }  # fmt: skip
    return MemberWish(node, **{known[name]: value for name, value in body.items() if name in known})


@pytest.mark.parametrize("number", NETWORK_WRITES)
def test_a_network_is_written(ask: Ask, number: int) -> None:
    recording, before = ALL[number], ALL[NETWORK_WRITES[number]]
    daemon = Daemon(number, network=recording.path.split("/")[3])
    record = before.body
    if number == 116:  # what the recorded request repeats is sent only where it differs
        record = {**record, "private": False, "multicastLimit": 12, "mtu": 1500, "enableBroadcast": False}
    daemon.put("GET", recording.path, Answer(before.status or 0, record))
    server, plane = ask(daemon)
    saved = plane.save_network(network_wish(recording.sent))
    same_request(server, recording)
    same_network(saved, recording.body)


def test_what_is_so_already_is_not_sent(ask: Ask) -> None:
    server, plane = ask(Daemon(107))
    saved = plane.save_network(network_wish(ALL[108].sent))
    same_network(saved, ALL[108].body)
    assert not writes(server)


def test_rules_that_the_controller_kept_are_those_that_were_sent(ask: Ask) -> None:
    """It added ``not`` and ``or`` to some, took them from others, and dropped the one it did not know."""
    network = ALL[140].path.split("/")[3]
    known = [rule for rule in ALL[140].sent["rules"] if rule["type"] != "NO_SUCH_RULE"]
    daemon = Daemon(140, network=network)
    daemon.put("GET", ALL[140].path, ALL[121].answer)
    server, plane = ask(daemon)
    plane.save_network(NetworkWish(rules=known))
    ((_method, _path, body),) = writes(server)
    assert [rule["type"] for rule in body["rules"]] == [rule["type"] for rule in known]
    daemon = Daemon(network=network)
    daemon.put("GET", ALL[140].path, ALL[140].answer)
    server, plane = ask(daemon)
    plane.save_network(NetworkWish(rules=known))
    assert not writes(server), "the second time there is nothing to do"
    server, plane = ask(Daemon(107))
    assert ALL[107].body["rules"] == [{"type": "ACTION_ACCEPT", "not": False, "or": False}]
    plane.save_network(NetworkWish(rules=[{"type": "ACTION_ACCEPT"}]))
    assert not writes(server), "nor for the rule that a new network has"


def test_dns_is_cleared_and_stays_so(ask: Ask) -> None:
    daemon = Daemon(network=LAB2)
    for number in (143, 144):
        daemon.put("GET", ALL[143].path, ALL[number].answer)
    daemon.put("POST", ALL[144].path, ALL[144].answer)
    server, plane = ask(daemon)
    assert plane.save_network(NetworkWish(dns=Dns())).dns == Dns()
    assert [body for _method, _path, body in writes(server)] == [{"dns": {"domain": "", "servers": []}}]
    plane.save_network(NetworkWish(dns=Dns()))
    assert len(writes(server)) == 1


def test_a_remote_trace_survives(ask: Ask) -> None:
    """A request that does not name its level sets it to 0, so the client names it."""
    assert (ALL[145].body["remoteTraceLevel"], ALL[146].body["remoteTraceLevel"]) == (3, 0)
    daemon = Daemon(network=LAB2)
    daemon.put("GET", ALL[145].path, ALL[145].answer)
    daemon.put("POST", ALL[145].path, Answer(200, {**ALL[145].body, "name": "traced"}))
    server, plane = ask(daemon)
    plane.save_network(NetworkWish(name="traced"))
    assert writes(server) == [("POST", ALL[145].path, {"name": "traced", "remoteTraceLevel": 3})]


@pytest.mark.parametrize("number", MEMBER_WRITES)
def test_a_member_is_written(ask: Ask, number: int) -> None:
    recording, before = ALL[number], ALL[MEMBER_WRITES[number]]
    network, node = recording.path.split("/")[3], recording.path.split("/")[5]
    daemon = Daemon(number, network=network)
    daemon.put("GET", recording.path, Answer(before.status or 0, before.body))
    server, plane = ask(daemon)
    saved = plane.save_member(member_wish(node, recording.sent))
    same_request(server, recording)
    same_member(saved, recording.body)
    looked = [seen for seen in server.seen if seen.path == recording.path and seen.method == "GET"]
    assert bool(looked) == ("ipAssignments" in recording.sent), "a look first only where it matters"


def test_an_automatic_address_is_sent_along(ask: Ask) -> None:
    """353 replaced the list, and the IPv6 that the controller had given was gone until it gave it again (355)."""
    daemon = Daemon(network=LAB)
    daemon.put("GET", ALL[353].path, ALL[352].answer)
    daemon.put("POST", ALL[353].path, ALL[355].answer)
    server, plane = ask(daemon)
    saved = plane.save_member(MemberWish(N2, addresses=["10.147.17.200"]))
    assert [body for _method, _path, body in writes(server)] == [
        {"ipAssignments": ["10.147.17.200", "fd42:147:17::ac:d59a:cc21"]}
    ]
    assert members.changes(saved, MemberWish(N2, addresses=["10.147.17.200"])) == {}
    for number in (318, 363):  # what the controller added is no difference
        record = ALL[number].body
        _server, plane = ask(Daemon(number))
        wish = MemberWish(record["id"], addresses=record["ipAssignments"][:1])
        assert members.changes(plane.member(record["id"]), wish) == {}


def test_addresses_that_two_members_have_are_found(ask: Ask) -> None:
    daemon = Daemon(network=LAB)
    twice = [ALL[318].body, {**ALL[364].body, "ipAssignments": ALL[364].body["ipAssignments"]}]
    daemon.put("GET", f"/unstable/controller/network/{LAB}/member", Answer(200, {"data": twice, "meta": {}}))
    _server, plane = ask(daemon)
    assert members.duplicates(plane.members()) == {"10.147.17.33": [N2, N3]}


@pytest.mark.parametrize("number", NETWORK_DELETES)
def test_a_network_is_deleted(ask: Ask, number: int) -> None:
    server, plane = ask(Daemon(number, network=ALL[number].path.split("/")[3]))
    assert plane.delete_network() is NETWORK_DELETES[number]
    assert writes(server) == [("DELETE", ALL[number].path, None)]


def test_a_network_that_is_not_there_is_not_deleted(ask: Ask) -> None:
    daemon = Daemon()
    daemon.put("DELETE", f"/controller/network/{LAB}", ALL[138].answer)
    assert ask(daemon)[1].delete_network() is False


@pytest.mark.parametrize("number", MEMBER_DELETES)
def test_a_member_is_deauthorised_then_deleted(ask: Ask, number: int) -> None:
    recording, before = ALL[number], ALL[MEMBER_DELETES[number]]
    daemon = Daemon(number)
    daemon.put("GET", recording.path, before.answer)
    daemon.put("POST", recording.path, Answer(200, {**before.body, "authorized": False}))
    server, plane = ask(daemon)
    assert plane.delete_member(recording.path.split("/")[5]) is True
    assert writes(server) == [
        ("POST", recording.path, {"authorized": False}),
        ("DELETE", recording.path, None),
    ]


@pytest.mark.parametrize("number", [348, 435])
def test_a_member_that_is_not_there_is_not_deleted(ask: Ask, number: int) -> None:
    daemon = Daemon()
    daemon.put("GET", ALL[number].path, Answer(404))
    server, plane = ask(daemon)
    assert plane.delete_member(ALL[number].path.split("/")[5]) is False
    assert not writes(server)


@pytest.mark.parametrize("number", REFUSED)
def test_what_would_be_bent_is_refused_before_anything_is_sent(ask: Ask, number: int) -> None:
    server, plane = ask(Daemon())
    with pytest.raises(errors.InvalidRequest):
        REFUSED[number](plane, ALL[number].sent)
    assert not server.seen


@pytest.mark.parametrize("number", REFUSED_PART_BY_PART)
def test_of_a_list_each_part_that_would_be_bent_is_refused(number: int) -> None:
    (parts,) = ALL[number].sent.values()
    for part in filter(lambda part: isinstance(part, dict), parts):  # one that is no object cannot be said
        say = REFUSED_PART_BY_PART[number](part)
        if part in GOOD_PARTS[number]:
            say()
        else:
            with pytest.raises(errors.InvalidRequest):
                say()


@pytest.mark.parametrize("number", FOREIGN)
@pytest.mark.parametrize(
    "act",
    [
        lambda plane: plane.network(),
        lambda plane: plane.members(),
        lambda plane: plane.member(N1),
        lambda plane: plane.save_network(NetworkWish(name="a")),
        lambda plane: plane.delete_network(),
        lambda plane: plane.save_member(MemberWish(N1, authorized=True)),
        lambda plane: plane.delete_member(N1),
    ],
)
def test_a_network_of_another_controller_is_left_alone(ask: Ask, number: int, act: Act) -> None:
    server, plane = ask(Daemon(network=FOREIGN[number]))
    with pytest.raises(errors.InvalidRequest) as caught:
        act(plane)
    assert CONTROLLER in str(caught.value) and FOREIGN[number][:10] in str(caught.value)
    assert server.calls == ["GET /status"]


def test_peers_give_who_is_online(ask: Ask) -> None:
    listing = f"/unstable/controller/network/{LAB}/member"
    for number, gone in ((650, None), (660, N5)):
        daemon = Daemon(number)
        records = [{**ALL[309].body, "id": node} for node in (N1, N2, N3, N4, N5, ODD, CONTROLLER)]
        daemon.put("GET", listing, Answer(200, {"data": records, "meta": {}}))
        peers = {peer["address"]: peer for peer in ALL[number].body}
        last = max(path["lastReceive"] for peer in peers.values() for path in peer["paths"])
        daemon._answers["GET", "/status"] = [Answer(200, {**ALL[1].body, "clock": last + 1000})]
        found = {member.node_id: member for member in ask(daemon)[1].members()}
        assert {node for node, member in found.items() if member.online} == {
            *({N1, N2, N3, N4, N5} - {gone}),
            CONTROLLER,
        }
        assert found[ODD].online is False, "it is no peer"
        assert (found[N1].physical_address, found[N1].latency_ms) == ("10.99.0.11", 0.0)
    assert (found[N5].online, found[N5].latency_ms, found[N5].last_seen) == (False, None, None)
    late = Daemon(650)
    late.put("GET", listing, Answer(200, {"data": [{**ALL[309].body, "id": N2}], "meta": {}}))
    heard = max(
        path["lastReceive"] for path in {peer["address"]: peer for peer in ALL[650].body}[N2]["paths"]
    )
    late._answers["GET", "/status"] = [Answer(200, {**ALL[1].body, "clock": heard + 131_000})]
    (member,) = ask(late)[1].members()
    assert member.online is False, "its path is called active, and it was not heard for two minutes"
    one = Daemon(309)
    one.put("GET", f"/peer/{N1}", ALL[323].answer)
    one._answers["GET", "/status"] = [Answer(200, {**ALL[1].body, "clock": 1795195563560})]
    alone = ask(one)[1].member(N1)
    assert alone is not None and (alone.online, alone.latency_ms) == (True, 1.0)
    assert alone.physical_address == "10.99.0.12"
    one = Daemon(309)
    one.put("GET", f"/peer/{N1}", ALL[25].answer)
    unknown = ask(one)[1].member(N1)
    assert unknown is not None and unknown.online is False


@pytest.mark.parametrize("number", [3, 4, 8, 10, 12, 21, 401, 402, 455])
def test_who_may_ask(ask: Ask, number: int) -> None:
    """A wrong token and a wrong source address look the same, so the message names both."""
    daemon = Daemon()
    daemon._answers["GET", "/status"] = [ALL[number].answer]
    with pytest.raises(errors.AuthError) as caught:
        ask(daemon)[1].network()
    assert "authtoken.secret" in str(caught.value) and "allowManagementFrom" in str(caught.value)
    assert TOKEN not in f"{caught.value} {caught.value.as_failure()}"


@pytest.mark.parametrize("number", [1, 5, 6, 7, 9, 13, 451])
def test_a_status_is_read_whoever_asked(ask: Ask, number: int) -> None:
    network = f"{ALL[number].body['address']}0000aa"
    daemon = Daemon(network=network)
    daemon._answers["GET", "/status"] = [ALL[number].answer]
    daemon.put("GET", f"/controller/network/{network}", Answer(404))
    assert ask(daemon)[1].network() is None


def test_a_daemon_that_is_down() -> None:
    assert ALL[452].status is None
    plane = mesh.open_plane("controller", LAB, TOKEN, f"http://127.0.0.1:{closed_port()}", FakeClock())
    with pytest.raises(errors.Unreachable, match="systemctl start zerotier-one"):
        plane.network()


@pytest.fixture(scope="module")
def echo() -> Iterator[Server]:
    """A server that gives the answer of the recording named in the user agent."""
    with Server(lambda seen: ALL[int(seen.headers["user-agent"])].answer).running() as server:
        yield server


@pytest.mark.parametrize("recording", [one for one in ALL.values() if one.status], ids=str)
def test_every_answer_is_carried_unharmed(echo: Server, recording: Recording) -> None:
    """By what carries requests: status, type and body, the empty ones too."""
    # Where the request was no JSON on purpose, what is sent here is of no matter.
    data = json.dumps(recording.sent) if isinstance(recording.sent, (dict, list)) else None
    session = http.new_session(http.RetryAdapter(FakeClock(), rest.policy(deadline=2.0)))
    headers = {**recording.request_headers, "User-Agent": str(recording.number)}
    response = session.request(recording.method, echo.url + recording.path, data=data, headers=headers)
    assert response.status_code == recording.status
    assert response.headers.get("Content-Type") == recording.headers.get("Content-Type")
    if isinstance(recording.body, (dict, list)):
        assert response.json() == recording.body
    else:
        assert response.text == (recording.body or "")
    assert echo.seen[-1].headers.get("x-zt1-auth") == recording.request_headers.get("X-ZT1-Auth")


@pytest.mark.parametrize(
    "recording",
    [one for one in ALL.values() if one.status and one.method in ("GET", "POST", "DELETE")],
    ids=str,
)
def test_every_answer_is_data_nothing_or_one_clear_error(echo: Server, recording: Recording) -> None:
    headers = {"X-ZT1-Auth": TOKEN, "User-Agent": str(recording.number)}
    adapter = http.RetryAdapter(FakeClock(), rest.policy(deadline=2.0))
    api = rest.Rest(echo.url, headers, adapter, "the service", {}, secrets=(TOKEN,))
    calls: dict[str, Callable[[], Any]] = {
        "GET": lambda: api.find(recording.path, "reading"),
        "POST": lambda: api.post(recording.path, recording.sent, "writing"),
        "DELETE": lambda: api.delete(recording.path, "deleting"),
    }
    kinds = {
        400: errors.InvalidRequest,
        401: errors.AuthError,
        404: errors.NotFound,
        413: errors.InvalidRequest,
    }
    kind: type[errors.ProviderError] | None = kinds.get(recording.status or 0)
    if recording.status == 500 or (recording.status == 200 and isinstance(recording.body, str)):
        kind = errors.Unavailable
    if recording.status == 404 and recording.method != "POST":
        assert not calls[recording.method]()
    elif kind is None:
        assert calls[recording.method]() == (recording.body if recording.method != "DELETE" else True)
    else:
        with pytest.raises(kind) as caught:
            calls[recording.method]()
        assert type(caught.value) is kind
        assert TOKEN not in f"{caught.value} {caught.value.as_failure()}"
