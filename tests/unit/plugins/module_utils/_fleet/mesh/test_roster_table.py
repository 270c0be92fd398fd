# SPDX-License-Identifier: GPL-3.0-or-later
"""A roster as text: one sign for each thing that can happen to a member."""

from __future__ import annotations

from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import Conflict
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Member
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.entries import Act, Entry, Roster
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.networks import Network, NetworkWish
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.roster_table import lines
from ansible_collections.gpumesh.fleet.tests.little_mesh import NETWORK_ID

NODE = "8046d53400"


def entry(act: Act, machine: str = "ore", **facts: object) -> Entry:
    return Entry(**{"act": act, "machine": machine, "declared": True, "node_id": NODE, "why": "so", **facts})  # type: ignore[arg-type]


def roster(*entries: Entry, private: bool = True, **facts: object) -> Roster:
    network = Network(NETWORK_ID, "minerals", private=private)
    return Roster("minerals", NETWORK_ID, entries, network, NetworkWish(private=True), **facts)  # type: ignore[arg-type]


def test_a_sign_and_a_word_for_each() -> None:
    entries = [entry(act, f"m-{act}") for act in Act]
    said = lines(roster(*entries), addresses={NODE: "fd00::1"})
    assert said[0] == (
        "Mesh of minerals, network db4344343b14b903: 1 to admit, 1 to rename, 1 to remove, 1 to deauthorize, "
        "1 knocking, 1 to keep."
    )
    assert said[1] == ""
    assert said[2].split() == ["action", "machine", "node", "state", "address", "why"]
    rows = {line.split()[2]: line.split()[0] for line in said[3:9]}
    assert rows == {
        "m-admit": "+", "m-rename": "~", "m-remove": "-", "m-deauthorize": "!", "m-knocking": "?", "m-keep": "=",
    }  # fmt: skip
    assert all("fd00::1" in line for line in said[3:9])


def test_how_a_member_is_now() -> None:
    members = {
        "-": None,
        "unauthorized": Member(NODE, online=True),
        "online": Member(NODE, authorized=True, online=True),
        "offline": Member(NODE, authorized=True, online=False),
        "authorized": Member(NODE, authorized=True),
    }
    for word, member in members.items():
        assert lines(roster(entry(Act.KEEP, member=member)), addresses={})[3].split()[4] == word


def test_what_is_not_known_is_a_dash() -> None:
    row = lines(roster(entry(Act.KNOCKING, "", node_id=None)), addresses={})[3]
    assert row.split() == ["?", "knocking", "-", "-", "-", "-", "so"]


def test_a_new_name_is_told() -> None:
    row = lines(roster(entry(Act.RENAME, before={"name": ""}, after={"name": "ore"})), addresses={})[3]
    assert row.endswith("name: none -> ore (so)")


def test_what_differs_of_the_network() -> None:
    said = lines(roster(private=False), addresses={})
    assert said[0].endswith("no members.")
    assert said[3].split() == ["~", "change", "(the", "network)", "private:", "false", "->", "true"]


def test_many_that_stay_are_one_line() -> None:
    said = lines(
        roster(*(entry(Act.KEEP, f"m{n}") for n in range(51)), entry(Act.ADMIT, "new")), addresses={}
    )
    assert said[-1] == "  and 51 as declared." and "new" in said[3] and len(said) == 5
    assert (
        "as declared" not in lines(roster(*(entry(Act.KEEP, f"m{n}") for n in range(50))), addresses={})[-1]
    )


def test_what_the_reader_must_know_comes_last() -> None:
    error = Conflict("it is two nodes", machine="ore", hint="Choose one")
    made = roster(entry(Act.KEEP, error=error), entry(Act.DEAUTHORIZE, "x"), warnings=("beware",))
    assert lines(made, addresses={})[-3:] == [
        "Warning: beware.",
        "Problem: ore: it is two nodes. Choose one.",
        f"This needs an approval. Its digest is {made.digest}.",
    ]


def test_a_sandbox_is_called_one() -> None:
    assert lines(roster(), addresses={}, simulated=True)[1].startswith("SIMULATED")
    assert not any("SIMULATED" in line for line in lines(roster(), addresses={}))
