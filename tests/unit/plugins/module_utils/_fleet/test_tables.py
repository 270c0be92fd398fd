# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables people read: the plan before, the fleet after."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import (
    errors,
    plan,
    plan_table,
    status_table,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.access import (
    Access,
    AccessChange,
    CloudAccess,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import State
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.prices import Price
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.quotes import LiveQuotes
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import BaremetalMachine, Budget
from ansible_collections.gpumesh.fleet.tests.little_cloud import LittleCloud, PassingClock, fleet, machine


class Mint(LittleCloud):
    """A cloud that charges in euro, and keeps the price of one place to itself."""

    def price(self, machine: Any, zone: str) -> Price:
        if zone == "dark":
            return Price.unknown()
        return Price(Decimal("0.0096"), "EUR", "price list of 2026-11-20", Decimal("5.99"))


def test_a_plan_is_told_with_its_cost() -> None:
    mint = Mint("iron", PassingClock(), names_per_zone=True)
    budget = Budget(hourly_usd=6)
    spec = fleet(
        machine("new", fallbacks=("there",)),
        machine("dark", place="dark"),
        machine("asleep"),
        machine("off", enabled=False),
        machine("odd", labels={"team": "b"}),
        machine("big"),
        machine("off2", enabled=False),
        BaremetalMachine(name="box", address="192.0.2.10"),
        budget=budget,
    )
    mint.put("asleep", state=State.STOPPED)
    mint.put("off")
    mint.put("odd", labels={"team": "a"})
    mint.put("big", type="large")
    mint.put("stray")
    made = plan.make(spec, mint.list().instances, LiveQuotes({"iron": mint}))
    lines = plan_table.lines(made, types={"off2": "small"}, budget=budget, simulated=["iron"])
    assert lines == [
        "Fleet minerals: 2 to create, 1 to start, 1 to delete, 1 to change, 2 to keep, 2 in drift.",
        "SIMULATED (iron): a sandbox; no money is spent and no machine is real.",
        "",
        "   action  machine  type   provider/zone       now/h      then/h  then/month  why",
        "+  create  new      small  iron/here               -  0.0096 EUR    5.99 EUR  enabled and does not exist",
        "+  create  dark     small  iron/dark               -     unknown     unknown  enabled and does not exist",
        ">  start   asleep   small  iron/here      0.0100 USD  0.0096 EUR    5.99 EUR  enabled and stopped",
        "-  delete  off      small  iron/here      0.0100 USD           -           -  not enabled",
        "~  change  odd      small  iron/here      0.0100 USD  0.0100 USD    7.30 USD  labels.team: a -> b (labels differ; changed in place)",
        "!  drift   big      large  iron/here      0.0100 USD  0.0100 USD    7.30 USD  type: large -> small (type differs; to change that, retire the machine and provision it again)",
        "   keep    off2     small  iron/here               -           -           -  not enabled and does not exist",
        "   keep    box             baremetal               -           -           -  not made by a cloud",
        "!  drift   stray    small  iron/here      0.0100 USD  0.0100 USD    7.30 USD  carries the fleet's label and is not declared; it is left alone",
        "",
        "               per hour  per month",
        "now          0.0500 USD  36.50 USD",
        "then         0.0530 USD  36.28 USD  and 1 unknown",
        "difference  +0.0030 USD  -0.22 USD  and 1 unknown",
        "budget       6.0000 USD",
        "  Totals are in USD at 1 EUR = 1.2 USD.",
        "",
        "Prices are without tax, from iron: price list of 2026-11-20.",
        f"This needs an approval. The plan's digest is {made.digest}.",
    ]


def test_who_may_come_in_is_part_of_the_plan() -> None:
    opened = AccessChange("create", "firewall b", {}, {"SSH from": "192.0.2.0/24", "icmp from": "anywhere"})
    changed = AccessChange.between(
        "firewall a",
        {"SSH from": "0.0.0.0/0", "icmp from": "anywhere", "tcp 80 from": "anywhere"},
        {"SSH from": "192.0.2.0/24", "icmp from": "anywhere"},
    )
    found = Access((changed, opened, AccessChange("delete", "SSH key c")))
    access = (CloudAccess("iron", (), found), CloudAccess("tin", (), error=errors.Forbidden("not for you")))
    made = replace(plan.make(fleet(), [], LiveQuotes({})), access=access)
    lines = plan_table.lines(made)
    assert lines[:6] == [
        "Fleet minerals: nothing declared. Access: 1 to create, 1 to delete, 1 to change.",
        "",
        "   action  machine  type  provider/zone  now/h  then/h  then/month  why",
        "~  change  access         iron                                      firewall a: SSH from 0.0.0.0/0 -> 192.0.2.0/24; tcp 80 from anywhere -> none",
        "+  create  access         iron                                      firewall b: SSH from 192.0.2.0/24; icmp from anywhere",
        "-  delete  access         iron                                      SSH key c: no machine of the fleet needs it",
    ]
    assert lines[-1] == "Problem: not for you."


def test_what_stands_in_the_way_is_told() -> None:
    spec = fleet(machine("ore"), machine("off", enabled=False, provider="tin"))
    sick = {"iron": errors.Unavailable("no answer"), "tin": errors.AuthError("no token")}
    made = plan.make(spec, [], LiveQuotes({}), sick=sick)
    lines = plan_table.lines(made, refusal="over budget")
    assert lines[0] == "Fleet minerals: 2 unknown."
    assert lines[-3:] == [
        "Warning: off: its cloud could not be asked: no token.",
        "Problem: ore: its cloud could not be asked: no answer.",
        "Refused: over budget",
    ]


def test_a_large_fleet_that_stays_is_summed_up() -> None:
    iron = LittleCloud("iron", PassingClock())
    for number in range(80):
        iron.put(f"m{number}")
    spec = fleet(*(machine(f"m{number}") for number in range(80)), machine("new"))
    lines = plan_table.lines(plan.make(spec, iron.list().instances, LiveQuotes({"iron": iron})))
    assert "  and 80 machines as declared." in lines and len(lines) < 20


def test_an_empty_fleet_is_no_fault() -> None:
    assert plan_table.lines(plan.make(fleet(), [], LiveQuotes({})))[0] == "Fleet minerals: nothing declared."


def gate(*oks: bool) -> dict[str, Any]:
    return {"stdout": json.dumps({"checks": [{"name": "x", "ok": ok} for ok in oks]})}


def test_the_fleet_at_the_end_of_a_run() -> None:
    variables = {
        "agate": {
            "fleet_provider": "hetzner",
            "fleet_state": "running",
            "fleet_hourly_usd": 0.0115,
            "fleet_monthly_usd": 7.19,
            "ansible_host": "198.18.0.1",
            "__docker_gate": {"skipped": True},
            "__base_gate": gate(True, True),
            "__nvidia_driver_gate": {"checks": [{"name": "x", "ok": True}]},
        },
        "garnet": {
            "fleet_provider": "gcp",
            "fleet_state": "running",
            "fleet_hourly_usd": None,
            "fleet_simulated": True,
            "__base_gate": gate(True, False),
            "__docker_gate": {"msg": "unreachable"},
            "ansible_local": {"gpumesh": {"layers": {"zerotier": {}}}},
        },
        "topaz": {"fleet_provider": "gcp", "fleet_state": "disabled", "fleet_simulated": True},
    }
    assert status_table.lines(variables, ["agate", "garnet", "topaz"]) == [
        "machine  provider         state     address     base           docker     zerotier  nvidia_driver  USD/hour",
        "agate    hetzner          running   198.18.0.1  ok (2)         skipped    -         ok (1)           0.0115",
        "garnet   gcp (SIMULATED)  running   -           1 of 2 failed  no answer  applied   -               unknown",
        "topaz    gcp (SIMULATED)  disabled  -           -              -          -         -                     -",
        "Together 0.0115 USD per hour, 7.19 USD per month, and 1 of unknown price.",
        "SIMULATED machines are in a sandbox: no money is spent, and nothing measured there is real.",
    ]


def test_a_layer_that_has_no_verdict_yet_is_deferred() -> None:
    def shown(facts: Any) -> list[str]:
        variables = {"agate": {"ansible_local": {"gpumesh": {"layers": {"base": {}, "validation": facts}}}}}
        return status_table.lines(variables, ["agate"])[1].split()[-3:]

    assert shown({"verdict": None, "coverage": "no check has run yet"}) == ["applied", "deferred", "unknown"]
    assert shown({"verdict": "FAIL"}) == ["applied", "applied", "unknown"]
    assert shown("what nobody writes") == ["applied", "applied", "unknown"]


def test_why_a_price_is_unknown_is_no_source_of_prices() -> None:
    made = plan.make(
        fleet(machine("ore")), [], LiveQuotes({}), sick={"iron": errors.Unavailable("no answer")}
    )
    lines = plan_table.lines(made)
    assert "Unknown prices: iron: its cloud could not be asked." in lines
    assert not any(line.startswith("Prices are without tax") for line in lines)
