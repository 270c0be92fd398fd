# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking: every source at the same time, and none that fails takes another with it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.live import Live, clouds, look
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Member
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Kind, Listing
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.quotes import LiveQuotes
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import (
    BaremetalMachine,
    FleetSpec,
    MachineBase,
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

CLOCK = PassingClock()
TWO = fleet(machine("ore"), machine("zinc", provider="tin"))


def two() -> tuple[LittleCloud, LittleCloud]:
    return LittleCloud("iron", CLOCK), LittleCloud("tin", CLOCK, hourly=Decimal("0.5"))


def test_every_source_is_asked_while_the_others_are() -> None:
    iron, tin = two()
    meet = threading.Barrier(3, timeout=20)
    iron.fault = tin.fault = lambda verb, _machine, _zone: str(meet.wait()) and None

    def mesh() -> list[Member]:
        meet.wait()
        return [Member("8046d53400")]

    seen = look(TWO, kinds(iron, tin), CLOCK, mesh=mesh)
    assert (
        set(seen.listings) == {"iron", "tin"} and seen.members == (Member("8046d53400"),) and not seen.errors
    )


def test_one_that_fails_leaves_the_others() -> None:
    iron, tin = two()
    found = tin.put("zinc")
    iron.refuses = errors.Unavailable("no answer")

    def mesh() -> list[Member]:
        raise errors.AuthError("no token")

    seen = look(TWO, kinds(iron, tin), CLOCK, mesh=mesh)
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
