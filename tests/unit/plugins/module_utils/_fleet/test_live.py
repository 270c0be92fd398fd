# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking: every source at the same time, and none that fails takes another with it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, live
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.live import Live, clouds, look
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Member, State
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Kind, Listing
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.quotes import LiveQuotes
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import (
    BaremetalMachine,
    FleetSpec,
    MachineBase,
    Mesh,
    ProviderSettings,
)
from ansible_collections.gpumesh.fleet.tests.little_cloud import (
    LittleCloud,
    LittleMachine,
    PassingClock,
    fleet,
    kinds,
    machine,
)
from ansible_collections.gpumesh.fleet.tests.little_mesh import NETWORK_ID, LittleMesh, connecting

CLOCK = PassingClock()
TWO = fleet(machine("ore"), machine("zinc", provider="tin"))
MESHED = fleet(*TWO.machines.values(), mesh=Mesh(network=NETWORK_ID, controller="central_v1"))
OWN = fleet(*TWO.machines.values(), mesh=Mesh(network=NETWORK_ID, controller="ore"))


def two() -> tuple[LittleCloud, LittleCloud]:
    return LittleCloud("iron", CLOCK), LittleCloud("tin", CLOCK, hourly=Decimal("0.5"))


def test_every_source_is_asked_while_the_others_are() -> None:
    iron, tin = two()
    meet = threading.Barrier(3, timeout=20)
    iron.fault = tin.fault = lambda verb, _machine, _zone: str(meet.wait()) and None

    plane = LittleMesh(fault=lambda _verb, _node: str(meet.wait()) and None).put(Member("8046d53400"))
    seen = look(MESHED, kinds(iron, tin), CLOCK, mesh=connecting(plane))
    assert (
        set(seen.listings) == {"iron", "tin"} and seen.members == (Member("8046d53400"),) and not seen.errors
    )
    assert plane.calls == {"members": 1} and plane.closed == 1


def test_one_that_fails_leaves_the_others() -> None:
    iron, tin = two()
    found = tin.put("zinc")
    iron.refuses = errors.Unavailable("no answer")

    def mesh(*_given: object) -> LittleMesh:
        raise errors.AuthError("no token")

    seen = look(MESHED, kinds(iron, tin), CLOCK, mesh=mesh)
    assert seen.instances == (found,) and set(seen.providers) == {"tin"}
    assert seen.members is None, "not an empty mesh: an unknown one"
    assert set(seen.errors) == {"iron", "mesh"} and set(seen.sick) == {"iron"}


def test_a_cloud_that_cannot_be_connected_is_sick() -> None:
    def connect(spec: FleetSpec, overrides: Mapping[str, Any], clock: object) -> LittleCloud:
        raise errors.MissingLibrary("hcloud is not installed")

    seen = look(TWO, {"iron": Kind("iron", LittleMachine, ProviderSettings, connect)}, CLOCK)
    assert isinstance(seen.sick["iron"], errors.MissingLibrary)


def test_only_clouds_of_the_fleet_are_asked() -> None:
    iron, tin = two()
    registry = {**kinds(iron, tin), "baremetal": Kind("baremetal", BaremetalMachine)}
    assert clouds(fleet(BaremetalMachine(name="box", address="192.0.2.1")), registry) == ()
    assert clouds(fleet(machine("ore")), registry) == ("iron",)
    assert clouds(fleet(machine("ore"), providers={"tin": ProviderSettings()}), registry) == ("iron", "tin")


def test_settings_given_go_to_their_cloud() -> None:
    given: dict[str, Any] = {}
    iron, _ = two()

    def connect(spec: FleetSpec, overrides: Mapping[str, Any], clock: object) -> LittleCloud:
        given.update(overrides)
        return iron

    look(TWO, {"iron": Kind("iron", LittleMachine, None, connect)}, CLOCK, overrides={"iron": {"token": "t"}})
    assert given == {"token": "t"}


def test_silent_zones_are_kept_by_cloud() -> None:
    live = Live({"iron": Listing((), ("here",)), "tin": Listing(())})
    assert live.unreachable == {"iron": ("here",)}


def test_what_all_talk_with_is_imported_before_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads that import requests at the same time may see it half made, and take it for missing.
    package = live.__package__
    monkeypatch.setattr(sys.modules[package], "http", None, raising=False)
    monkeypatch.delitem(sys.modules, f"{package}.http", raising=False)
    there: list[bool] = []

    def mesh(*_given: object) -> LittleMesh:
        there.append(f"{package}.http" in sys.modules)
        return LittleMesh()

    look(MESHED, kinds(*two()), CLOCK, mesh=mesh)
    assert there == [True]


def test_without_a_mesh_nobody_is_asked_for_one() -> None:
    plane = LittleMesh()
    assert look(TWO, kinds(*two()), CLOCK, mesh=connecting(plane)).members is None
    assert look(MESHED, kinds(*two()), CLOCK).members is None
    assert not plane.calls


def test_what_a_sandbox_tells_of_the_mesh_is_called_simulated() -> None:
    for simulated in (True, False):
        seen = look(MESHED, kinds(*two()), CLOCK, mesh=connecting(LittleMesh(simulated=simulated)))
        assert seen.simulated_mesh is simulated


def test_settings_may_be_given_for_the_mesh_as_well() -> None:
    plane = LittleMesh()
    look(MESHED, kinds(*two()), CLOCK, mesh=connecting(plane), overrides={"mesh": {"token": "x"}})
    assert plane.settings == {"token": "x"}


class TestAControllerOnAMachine:
    def own(self) -> tuple[LittleCloud, LittleCloud, LittleMesh]:
        iron, tin = two()
        return iron, tin, LittleMesh("controller").put(Member("8046d53400"))

    def test_is_asked_through_ssh_once_its_cloud_has_told_where_it_is(self) -> None:
        iron, tin, plane = self.own()
        iron.put("ore", public_ip="203.0.113.5")
        seen = look(OWN, kinds(iron, tin), CLOCK, mesh=connecting(plane))
        assert seen.members == (Member("8046d53400"),) and not seen.errors
        ssh = plane.settings["ssh"]
        assert (ssh.host, ssh.name) == ("203.0.113.5", "ore")
        assert iron.calls["list"] == 1, "nobody is asked twice"

    def test_waits_for_no_other_cloud(self) -> None:
        iron, tin, plane = self.own()
        iron.put("ore", public_ip="203.0.113.5")
        asked = threading.Event()

        def mesh(*given: Any) -> LittleMesh:
            asked.set()
            return connecting(plane)(*given)  # type: ignore[return-value]

        tin.fault = lambda verb, _machine, _zone: None if asked.wait(20) else "lost"
        assert not look(OWN, kinds(iron, tin), CLOCK, mesh=mesh).errors

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            (None, "the mesh's controller ore does not exist yet. Provision it first."),
            (State.STOPPED, "the mesh's controller ore is not running but stopped. Start it, or wait"),
            (State.CREATING, "is not running but creating"),
        ],
    )
    def test_that_is_not_up_was_not_asked(self, state: State | None, message: str) -> None:
        iron, tin, plane = self.own()
        if state:
            iron.put("ore", state=state, public_ip="203.0.113.5")
        seen = look(OWN, kinds(iron, tin), CLOCK, mesh=connecting(plane))
        assert isinstance(seen.errors["mesh"], errors.Unreachable) and message in str(seen.errors["mesh"])
        assert not plane.calls and seen.members is None and not seen.sick

    @pytest.mark.parametrize("error", [errors.AuthError("no token"), errors.Unavailable("503", code="503")])
    def test_in_a_cloud_that_does_not_tell_was_not_asked(self, error: errors.FleetError) -> None:
        iron, tin, plane = self.own()
        iron.refuses = error
        seen = look(OWN, kinds(iron, tin), CLOCK, mesh=connecting(plane))
        assert set(seen.errors) == {"iron", "mesh"} and isinstance(seen.errors["mesh"], errors.Unreachable)
        assert str(seen.errors["mesh"]).endswith("for iron did not tell where it is."), (
            "why, the cloud says itself"
        )
        with pytest.raises(errors.Unreachable, match=f"iron did not tell where it is: {error.what}"):
            live.plane(OWN, kinds(iron, tin), CLOCK, connecting(plane))

    def test_in_a_zone_that_does_not_tell_was_not_asked(self) -> None:
        iron, tin, plane = self.own()
        iron.unreachable = ("here",)
        seen = look(OWN, kinds(iron, tin), CLOCK, mesh=connecting(plane))
        assert "iron did not answer for here" in str(seen.errors["mesh"])

    def test_that_has_no_network_yet_was_not_asked(self) -> None:
        iron, tin, plane = self.own()
        iron.put("ore", public_ip="203.0.113.5")
        plane.network_ = None
        seen = look(OWN, kinds(iron, tin), CLOCK, mesh=connecting(plane))
        assert isinstance(seen.errors["mesh"], errors.Unreachable) and plane.closed == 1
        assert isinstance(
            look(MESHED, kinds(iron, tin), CLOCK, mesh=connecting(plane)).errors["mesh"], errors.NotFound
        )

    def test_of_bare_metal_waits_for_nobody(self) -> None:
        box = BaremetalMachine(name="box", address="192.0.2.1")
        spec = fleet(box, mesh=Mesh(network=NETWORK_ID, controller="box"))
        _iron, _tin, plane = self.own()
        assert look(spec, {}, CLOCK, mesh=connecting(plane)).members
        assert plane.settings["ssh"].host == "192.0.2.1"

    def test_with_an_endpoint_is_asked_there(self) -> None:
        iron, tin, plane = self.own()
        there = Mesh(network=NETWORK_ID, controller="ore", endpoint="http://192.0.2.1:9993")
        assert look(fleet(machine("ore"), mesh=there), kinds(iron), CLOCK, mesh=connecting(plane)).members
        assert "ssh" not in plane.settings
        given = {"mesh": {"endpoint": "http://192.0.2.2:9993"}}
        assert look(OWN, kinds(iron, tin), CLOCK, mesh=connecting(plane), overrides=given).members
        assert plane.settings == given["mesh"]

    def test_can_be_connected_with_only_its_own_cloud(self) -> None:
        iron, tin, plane = self.own()
        iron.put("ore", public_ip="203.0.113.5")
        assert live.plane(OWN, kinds(iron, tin), CLOCK, connecting(plane)) is plane
        assert plane.settings["ssh"].host == "203.0.113.5"
        assert (iron.calls["list"], tin.calls["list"]) == (1, 0)
        live.plane(MESHED, kinds(iron, tin), CLOCK, connecting(plane))
        assert (iron.calls["list"], tin.calls["list"]) == (1, 0), "and ZeroTier Central with none"

    def test_that_is_not_there_cannot_be_connected(self) -> None:
        iron, tin, plane = self.own()
        assert live.plane(OWN, kinds(iron, tin), CLOCK, connecting(plane)) is None, "it can be foreseen"
        iron.put("ore", state=State.STOPPED, public_ip="203.0.113.5")
        with pytest.raises(errors.Unreachable, match="not running but stopped"):
            live.plane(OWN, kinds(iron, tin), CLOCK, connecting(plane))


class TestQuotes:
    def test_come_from_the_machines_cloud(self) -> None:
        iron, tin = two()
        quotes = LiveQuotes({"iron": iron, "tin": tin})
        zinc = TWO.machines["zinc"]
        assert quotes.running(zinc, "here").hourly == Decimal("0.5")
        assert quotes.stopped(zinc, "here").hourly == Decimal("0.01")
        assert quotes.zones(machine("ore", fallbacks=("there",))) == ("here", "there")

    def test_of_a_cloud_that_was_not_reached_are_unknown(self) -> None:
        quotes = LiveQuotes({})
        assert quotes.running(machine("ore"), "here").hourly is None
        assert quotes.zones(machine("ore", fallbacks=("there",))) == ("here",)

    def test_that_cannot_be_had_are_unknown_with_the_reason(self) -> None:
        class Priceless(LittleCloud):
            def price(self, machine: MachineBase, zone: str) -> Any:
                raise errors.Unavailable("the price list does not answer")

        price = LiveQuotes({"iron": Priceless("iron", CLOCK)}).running(machine("ore"), "here")
        assert (price.hourly, price.source) == (None, "the price list does not answer")
