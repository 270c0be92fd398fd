# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver is the declared one, knows the cards, and is still maintained.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from ..._fleet.gpu import catalog
from ..._fleet.gpu.branches import BRANCHES, branch_of, runs_on
from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict, skipped


def run(context: Context) -> Result:
    """Compare it with the declaration, the catalog and the calendar."""
    there = common.on_bus(context)
    driver = context.facts.get("driver") or {}
    loaded = str(driver.get("loaded") or "")
    if not loaded:
        return skipped("NVIDIA's module is not loaded", "see the check kernel_modules")
    flavour = str(driver.get("flavour") or "")
    wanted = common.expected(context)
    found = [*_declared(context, wanted), *_maintained(context, loaded)]
    flavours = _common_flavours(there)
    for device in there:
        found += _fit(device, loaded, flavour, flavours)
    shown = f"driver {loaded}, {flavour or 'of a flavour that it does not tell'}"
    if not (wanted.version or wanted.branch or wanted.flavour):
        found.append(
            common.Finding(
                Verdict.UNKNOWN,
                f"{shown}: nobody has declared which driver belongs here",
                f'if it is the right one, declare it: `"expected": {{"driver": {{"branch": "{branch_of(loaded)}", '
                f'"flavour": "{flavour or "open"}"}}}}` in {common.PROFILE}',
            )
        )
    return common.conclude(
        found,
        f"{shown}, as declared; it knows {'the card' if len(there) == 1 else f'all {len(there)} cards'}",
        _figures(loaded, flavour, wanted),
    )


def _declared(context: Context, wanted: common.Expected) -> Iterator[common.Finding]:
    """What is other than declared, and does not already fail the check driver_versions."""
    engine = common.engine(context, wanted)
    yield from common.from_engine(engine.get("driver_loaded"))
    plain = common.engine(context, common.undeclared_driver(wanted)).get("module_on_disk")
    if plain and plain.ok:
        yield from common.from_engine(engine.get("module_on_disk"))


def _maintained(context: Context, loaded: str) -> Iterator[common.Finding]:
    branch = BRANCHES.get(branch_of(loaded))
    if branch and branch.over(datetime.fromtimestamp(context.now(), tz=UTC).date()):
        yield common.Finding(
            Verdict.WARN,
            f"NVIDIA no longer maintains branch {branch.name} (its support ended: {branch.ends()})",
            "move to a branch that is maintained: `gpu_stack` says which one these cards and this system take",
        )


def _common_flavours(there: Sequence[common.Device]) -> tuple[str, ...]:
    """The flavours of the module that drive all cards; there can be none: open ones alone on Blackwell, closed ones on Volta."""
    known = [model.flavours for device in there if (model := common.model_of(device))]
    return tuple(one for one in (known[0] if known else ()) if all(one in flavours for flavours in known))


def _fit(
    device: common.Device, loaded: str, flavour: str, possible: tuple[str, ...]
) -> Iterator[common.Finding]:
    """Whether the catalog has it that this driver knows this card. One that answers all the same is no failure."""
    model = common.model_of(device)
    card = catalog.by_pci_id(str(device.get("pci_id") or ""))
    if model is None or card is None:
        return
    verdict = Verdict.WARN if device.get("state") == "ok" else Verdict.FAIL
    floor = card.driver_floor or model.driver_floor
    last = model.generation.driver_last
    if floor and not runs_on(loaded, floor):
        yield common.Finding(
            verdict,
            f"{common.title(device)} is known to drivers from {floor} on, loaded is {loaded}",
            f"install driver {floor} or newer",
        )
    if last and int(branch_of(loaded)) > int(last):
        yield common.Finding(
            verdict,
            f"{common.title(device)} is known to drivers up to branch {last}, loaded is {loaded}",
            f"install branch {last}",
        )
    if flavour and flavour not in model.flavours:
        yield common.Finding(
            verdict,
            f"{common.title(device)} needs the {' or '.join(model.flavours)} modules, loaded are the {flavour} ones",
            f"set `nvidia_driver_flavour: {possible[0]}` and apply the driver layer"
            if possible
            else "no flavour of the module drives all the cards of this machine: put this one into another",
        )


def _figures(loaded: str, flavour: str, wanted: common.Expected) -> list[Figure]:
    branch = BRANCHES.get(branch_of(loaded))
    return [
        _figure("version", loaded, wanted.version),
        _figure("branch", branch_of(loaded), wanted.branch),
        _figure("flavour", flavour, wanted.flavour),
        Figure(
            "maintained until", branch.ends() if branch else "not known", source="NVIDIA's list of branches"
        ),
    ]


def _figure(name: str, value: str, declared: str) -> Figure:
    if not declared:
        return Figure(name, value or None)
    verdict = Verdict.PASS if value == declared else Verdict.FAIL
    return Figure(name, value or None, expected=declared, source=common.DECLARED, verdict=verdict)


CHECK = Check(
    name="driver_declared",
    title="Driver as declared",
    group=Group.CONFIGURATION,
    about="Compares the loaded driver with the declared version, branch and flavour, with what the cards need, and with how long "
    "NVIDIA maintains its branch.",
    expects="The declared one. Without a declaration UNKNOWN. In both cases a driver that the catalog says knows every card (FAIL "
    "where a card does not answer, else WARN), of a branch that is maintained (else WARN).",
    fails="The machine runs another driver than it was built with: reboot it, or apply the driver layer. A driver that does not "
    "know a card is to be exchanged for the one that `gpu_stack` names.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU,),
    seconds=0.1,
)
