# SPDX-License-Identifier: GPL-3.0-or-later
"""The network controller of version 1.14.1: its HTTP interface, and what it answers nodes. Talks to nobody itself.

A change is not told to nodes by the call that makes it; who holds the controller calls :meth:`Controller.settle` after
each call and sends what that returns. So an answer shows a record as the request left it, before the addresses the
controller adds when it tells the node, as with the real one.
"""

from __future__ import annotations

import copy
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import members, networks
from .admission import configuration
from .store import Store
from .values import BadJson, Json, dump, parse

API_VERSION = 4
PROTOCOL = 12
ONLINE_MS = 120_000
"""A node that has not asked for longer than this is told nothing."""
_MOST_TRIES = 100_000
_NETWORK, _MEMBER = r"/controller/network/([0-9a-fA-F]{16})", r"/member/([0-9a-fA-F]{10})"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; text None is an empty body with no content type."""

    status: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What a node has to be told.

    Attributes:
        reply: its new configuration; None tells it, and through it all others, that it is no longer a member.
    """

    network: str
    node: str
    reply: Json | None


@dataclass(slots=True)
class _Known:
    """A node that was admitted since this controller started; only those are told of changes."""

    identity: str
    asked: int


class Controller:
    """All networks of one controller.

    Args:
        node: its own node id, with which the ids of its networks begin.
        now: milliseconds since 1970.
    """

    def __init__(self, node: str, store: Store, now: Callable[[], int]) -> None:
        self._node = node
        self._store = store
        self._now = now
        self._networks: dict[str, Json] = {}
        self._members: dict[str, dict[str, Json]] = {}
        self._known: dict[tuple[str, str], _Known] = {}
        self._due: dict[tuple[str, str], bool] = {}
        self._before: Json | None = None
        for network, (record, found) in store.load().items():
            self._networks[network], self._members[network] = record, found

    def look(self, path: str) -> Json | None:
        """The record that a write to a member's path begins with; None for every other path.

        The real controller reads it, works on it and writes it back with no lock held. Who lets time pass between this
        and :meth:`answer` loses updates as it does.
        """
        found = re.fullmatch(_NETWORK + _MEMBER, path)
        network, node = (found[1].lower(), found[2].lower()) if found else ("", "")
        return copy.deepcopy(self._members[network].get(node, {})) if network in self._members else None

    def answer(self, method: str, path: str, body: bytes = b"", before: Json | None = None) -> Answer:
        """Answer a request to ``/controller...`` or ``/unstable/controller...``; 404 for every other.

        Args:
            before: what :meth:`look` said of the member it is about.
        """
        self._before = before
        for pattern, methods, handler in self._routes():
            found = pattern.fullmatch(path)
            if found and method in methods:
                try:
                    return handler(body, *found.groups())
                except BadJson as error:
                    # The text is put in as it is: where it quotes a quotation mark, this is no JSON.
                    return Answer(500, f'{{"error": 500, "description": "{error}"}}')
        return Answer(404)

    def _routes(self) -> list[tuple[re.Pattern[str], tuple[str, ...], Callable[..., Answer]]]:
        network, member = _NETWORK, _MEMBER
        get, write = ("GET", "HEAD"), ("POST", "PUT")
        return [
            (re.compile("/controller"), get, self._status),
            (re.compile("/controller/network"), get, self._list_networks),
            (re.compile("/unstable/controller/network"), get, self._full_networks),
            (re.compile("/controller/network"), write, self._create_network),
            (re.compile(r"/controller/network/([0-9a-fA-F]{10})______"), write, self._create_network),
            (re.compile(network), get, self._get_network),
            (re.compile(network), write, self._change_network),
            (re.compile(network), ("DELETE",), self._delete_network),
            (re.compile(f"{network}/member"), get, self._list_members),
            (re.compile(f"/unstable{network}/member"), get, self._full_members),
            (re.compile(network + member), get, self._get_member),
            (re.compile(network + member), write, self._change_member),
            (re.compile(network + member), ("DELETE",), self._delete_member),
        ]

    def _status(self, body: bytes) -> Answer:
        lines = (
            '"controller": true', f'"apiVersion": {API_VERSION}', f'"clock": {self._now()}', '"databaseReady": true',
        )  # fmt: skip
        return Answer(200, "{\n\t" + ",\n\t".join(lines) + "\n}\n")

    def _list_networks(self, body: bytes) -> Answer:
        return Answer(200, dump(sorted(self._networks)))

    def _full_networks(self, body: bytes) -> Answer:
        data = [
            network
            | {
                "meta": {
                    "totalMemberCount": len(self._members[network_id]),
                    "authorizedMemberCount": len(self.authorised(network_id)),
                }
            }
            for network_id, network in sorted(self._networks.items())
        ]
        return Answer(200, dump({"data": data, "meta": {"networkCount": len(data)}}))

    def _create_network(self, body: bytes, prefix: str | None = None) -> Answer:
        if prefix is not None and prefix != self._node:
            return Answer(400)
        for _ in range(_MOST_TRIES):
            network = self._node + secrets.token_hex(3)
            if network not in self._networks and not network.endswith("000000"):
                return self._change_network(body, network)
        return Answer(503)

    def _get_network(self, body: bytes, network: str) -> Answer:
        found = self._networks.get(network.lower())
        return Answer(200, dump(found)) if found else Answer(404)

    def _change_network(self, body: bytes, network: str) -> Answer:
        network, given = network.lower(), parse(body)
        record = copy.deepcopy(self._networks.get(network, {"creationTime": self._now(), "revision": 0}))
        networks.initialise(record)
        networks.update(record, given)
        record |= {"id": network, "nwid": network}
        if _differs(record, self._networks.get(network)):
            record["revision"] += 1
            self._networks[network] = record
            self._members.setdefault(network, {})
            self._store.put_network(record)
            for known_network, node in self._known:
                if known_network == network:
                    self._due[network, node] = True
        return Answer(200, dump(record))

    def _delete_network(self, body: bytes, network: str) -> Answer:
        network = network.lower()
        found = self._networks.pop(network, None)
        if not found:
            return Answer(404)
        for node in self._members.pop(network):
            self._due[network, node] = False
        self._store.drop_network(network)
        return Answer(200, dump(found))

    def _list_members(self, body: bytes, network: str) -> Answer:
        found = self._members.get(network.lower())
        if found is None:
            return Answer(404)
        return Answer(200, dump({member["id"]: member["revision"] for member in found.values()}))

    def _full_members(self, body: bytes, network: str) -> Answer:
        found = self._members.get(network.lower())
        if found is None:
            return Answer(404)
        meta = {"totalCount": len(found), "authorizedCount": len(self.authorised(network.lower()))}
        return Answer(200, dump({"data": list(found.values()), "meta": meta}))

    def _get_member(self, body: bytes, network: str, node: str) -> Answer:
        found = self._members.get(network.lower(), {}).get(node.lower())
        return Answer(200, dump(found)) if found else Answer(404)

    def _change_member(self, body: bytes, network: str, node: str) -> Answer:
        """The ids are kept as they are written in the path, in either case."""
        if network.lower() not in self._networks:
            return Answer(404)
        record = self._before
        if record is None:
            record = copy.deepcopy(self._members[network.lower()].get(node.lower(), {}))
        members.initialise(record, self._now())
        members.update(record, parse(body), self._now())
        record |= {"id": node, "address": node, "nwid": network}
        before = self._members[network.lower()].get(node.lower())
        if self._keep_member(network.lower(), record):
            if before and before["authorized"] and not record["authorized"]:
                self._due[network.lower(), node.lower()] = False
            else:
                self._tell(network.lower(), node.lower())
        return Answer(200, dump(record))

    def _keep_member(self, network: str, record: Json) -> bool:
        """Store a record if it differs from what is there, under a new revision; whether it does."""
        node = record["id"].lower()
        if not int(node, 16) or not _differs(record, self._members[network].get(node)):
            return False
        record["revision"] += 1
        self._members[network][node] = record
        self._store.put_member(network, node, record)
        return True

    def _tell(self, network: str, node: str) -> None:
        if (network, node) in self._known:
            self._due[network, node] = True

    def _delete_member(self, body: bytes, network: str, node: str) -> Answer:
        network, node = network.lower(), node.lower()
        found = self._members.get(network, {}).pop(node, None)
        if not found:
            return Answer(404)
        self._store.drop_member(network, node)
        self._due[network, node] = False
        return Answer(200, dump(found))

    def authorised(self, network: str) -> list[str]:
        """The node ids of a network's authorised members."""
        return [node for node, member in self._members.get(network, {}).items() if member["authorized"]]

    def settle(self) -> list[Message]:
        """What nodes have to be told since the last call."""
        due, self._due = self._due, {}
        messages: list[Message] = []
        for (network, node), still in due.items():
            known = self._known.get((network, node))
            if not still:
                messages.append(Message(network, node, None))
            elif known and self._now() - known.asked < ONLINE_MS:
                # To nothing that was asked a refusal is not sent: the node learns it when it asks.
                reply = self._admit(network, node, known.identity, None)
                if reply["status"] == "OK":
                    messages.append(Message(network, node, reply))
        return messages

    def request(self, network: str, identity: str, version: tuple[int, int, int]) -> Json:
        """A node asks for its configuration of a network; ``status`` of the reply is as the node will show it."""
        node = identity.partition(":")[0]
        if known := self._known.get((network, node)):
            known.asked = self._now()
        return self._admit(network, node, identity, version)

    def _admit(self, network: str, node: str, identity: str, version: tuple[int, int, int] | None) -> Json:
        rules = self._networks.get(network)
        if rules is None or not network.startswith(self._node):
            return {"status": "NOT_FOUND"}
        record = copy.deepcopy(self._members[network].get(node, {}))
        members.initialise(record, self._now())
        if record.setdefault("identity", identity) != identity:
            return {"status": "ACCESS_DENIED"}
        record |= {"id": node, "address": node, "nwid": network}
        if not record["authorized"] and not rules["private"]:
            record |= {
                "authorized": True,
                "lastAuthorizedTime": self._now(),
                "lastAuthorizedCredentialType": "public",
                "lastAuthorizedCredential": None,
            }
        if not record["authorized"]:
            self._keep_member(network, record)
            return {"status": "ACCESS_DENIED"}
        if version:
            record |= dict(zip(("vMajor", "vMinor", "vRev"), version, strict=True)) | {"vProto": PROTOCOL}
            self._known[network, node] = _Known(identity, self._now())
        reply = configuration(rules, record, self._taken(network, node))
        self._keep_member(network, record)
        return reply

    def _taken(self, network: str, node: str) -> set[str]:
        others = (member for other, member in self._members[network].items() if other != node)
        return {address for member in others for address in member["ipAssignments"]}


def _differs(record: Json, before: Json | None) -> bool:
    return before is None or _without_revision(record) != _without_revision(before)


def _without_revision(record: Json) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "revision"}
