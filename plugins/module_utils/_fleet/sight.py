# SPDX-License-Identifier: GPL-3.0-or-later
"""What the clouds could not tell: where a machine that was not seen may exist nevertheless.

Pure, and part of making a plan.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from .errors import FleetError, Unavailable, no_access
from .spec import CloudMachine

_PLACE = re.compile(r"^[a-z0-9-]+$")


class Sight:
    """How much of the fleet was to be seen.

    Args:
        unreachable: by provider, the zones it could not answer for.
        sick: by provider, why it could not be asked at all.
    """

    def __init__(self, unreachable: Mapping[str, Collection[str]], sick: Mapping[str, FleetError]) -> None:
        self._unreachable = {
            provider: {scope.rsplit("/", 1)[-1] for scope in scopes}
            for provider, scopes in unreachable.items()
        }
        self._sick = sick

    def doubt(self, machine: CloudMachine, zones: Sequence[str]) -> FleetError | None:
        """Why a machine that was not seen may exist nevertheless; None if it surely does not.

        Args:
            zones: where it may have been placed.
        """
        if reason := self._sick.get(machine.provider):
            return type(reason)(
                f"its cloud could not be asked: {reason.what}",
                machine=machine.name,
                hint=reason.hint,
                code=reason.code,
            )
        silent = self._unreachable.get(machine.provider, set())
        hidden = sorted(zone for zone in zones if any(_covers(scope, zone) for scope in silent))
        if not hidden:
            return None
        return Unavailable(
            f"{machine.provider} could not answer for {', '.join(hidden)}, where it may exist already; it was not created",
            machine=machine.name,
            hint="Run again when the zone answers",
        )

    def warnings(self, creates: Sequence[tuple[str, str]]) -> list[str]:
        """What to know of machines that are about to be made while another cloud may have them still.

        Args:
            creates: machine and provider of each.
        """
        silent = {name for name, reason in self._sick.items() if not no_access(reason)}
        silent |= {name for name, scopes in self._unreachable.items() if scopes}
        result = []
        for cloud in sorted(silent):
            if others := [machine for machine, provider in creates if provider != cloud]:
                result.append(
                    f"{cloud} could not tell all that is there: if {', '.join(others)} was in {cloud} before, it may exist "
                    "there still and will be paid for twice"
                )
        return result


def _covers(scope: str, zone: str) -> bool:
    """Whether a scope that did not answer may hold this zone: the zone itself, its region, or nobody says which."""
    return scope == zone or zone.startswith(f"{scope}-") or not _PLACE.match(scope)
