# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory keeps of what it saw, and what it makes of a source that does not answer.

A source that cannot be asked at all, since there is no credential or no network, is no failure: the fleet file alone
is a useful inventory. A source that answers with an error is sick, and the fleet file says what to do then. Either way
no machine is ever taken for missing because nobody could tell.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from .errors import FleetError, Unreachable, no_access
from .machines import MESH, Instance, Member
from .providers.base import Listing
from .spec import FleetSpec, Model

if TYPE_CHECKING:
    from .spec_file import Document

VERSION = 3
"""Of the stored form; one that differs is not read."""

_ENVIRONMENT = re.compile(r"TOKEN|CREDENTIALS|PROJECT|ACCOUNT")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the sources answered, each under its name; a source that did not answer is not there.

    Attributes:
        listings: by provider.
        members: of the mesh, or None.
        simulated_mesh: the members were told by a sandbox.
    """

    listings: Mapping[str, Listing]
    members: tuple[Member, ...] | None = None
    simulated_mesh: bool = False

    @property
    def sources(self) -> frozenset[str]:
        """The names of those that answered."""
        return frozenset(self.listings) | ({MESH} if self.members is not None else set())

    def only(self, source: str) -> Snapshot:
        """What one source answered."""
        if source == MESH:
            return Snapshot({}, self.members, self.simulated_mesh)
        return Snapshot({name: listing for name, listing in self.listings.items() if name == source})

    def to_json(self) -> dict[str, Any]:
        """Plain data for the inventory cache. Holds no credential."""
        return {
            "version": VERSION,
            "listings": {
                name: {
                    "instances": [instance.to_json() for instance in listing.instances],
                    "unreachable": list(listing.unreachable),
                    "simulated": listing.simulated,
                }
                for name, listing in self.listings.items()
            },
            "members": None if self.members is None else [member.to_json() for member in self.members],
            "simulated_mesh": self.simulated_mesh,
        }

    @classmethod
    def from_json(cls, data: Any) -> Snapshot | None:
        """What :meth:`to_json` wrote, or None if it is something else: an older form, a damaged file."""
        try:
            if data["version"] != VERSION:
                return None
            listings = {
                name: Listing(
                    tuple(Instance.from_json(instance) for instance in listing["instances"]),
                    tuple(listing["unreachable"]),
                    listing["simulated"],
                )
                for name, listing in data["listings"].items()
            }
            members = data["members"]
            return cls(
                listings,
                None if members is None else tuple(Member.from_json(member) for member in members),
                bool(data["simulated_mesh"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the inventory is to be made of.

    Attributes:
        snapshot: what is known.
        stale: sources of which only something old is known.
        notes: what the reader should know about sources that were gone without, one sentence each.
        failures: sources without which there must be no inventory, one sentence each.
    """

    snapshot: Snapshot
    stale: frozenset[str]
    notes: tuple[str, ...]
    failures: tuple[str, ...]


def settle(
    spec: FleetSpec, fresh: Snapshot, errors: Mapping[str, FleetError], old: Mapping[str, Snapshot]
) -> Outcome:
    """Decide about sources that did not answer, each by its ``when_sick``.

    Args:
        spec: the fleet.
        fresh: what was answered now.
        errors: by source, why it did not answer.
        old: by source, what it answered last time, where that is remembered.
    """
    listings, members, simulated = dict(fresh.listings), fresh.members, fresh.simulated_mesh
    stale, notes, failures = set(), [], []
    for source, error in sorted(errors.items()):
        policy = _policy(spec, source)
        sick = not _not_asked(error)
        if policy == "stale" and source in old:
            stale.add(source)
            listings.update(old[source].listings)
            if source == MESH:
                members, simulated = old[source].members, old[source].simulated_mesh
            notes.append(f"{source}: {error} Going on with its last answer.")
        elif sick and policy == "fail":
            failures.append(f"{source}: {error}")
        elif sick and policy == "stale":
            failures.append(
                f"{source}: {error} Its when_sick is stale, but no earlier answer is remembered: set cache to true"
            )
        else:
            notes.append(f"{source}: {error}")
    return Outcome(Snapshot(listings, members, simulated), frozenset(stale), tuple(notes), tuple(failures))


def _policy(spec: FleetSpec, source: str) -> str:
    block = spec.mesh if source == MESH else spec.providers.get(source)
    return block.when_sick if block else "fail"


def _not_asked(error: FleetError) -> bool:
    """Whether the service never saw our question."""
    return no_access(error) or isinstance(error, Unreachable)


def key(spec: FleetSpec, documents: Sequence[Document], environ: Mapping[str, str]) -> str:
    """What an answer depends on, as a digest: the files, the credentials, the parts of the environment that name some."""
    parts = [[document.text for document in documents], _credentials(spec), _environment(environ)]
    return _digest(parts)


def source_key(spec: FleetSpec, source: str, environ: Mapping[str, str]) -> str:
    """What the last answer of one source is kept under. Machines may come and go meanwhile."""
    block = spec.mesh if source == MESH else spec.providers.get(source)
    return _digest([spec.fleet, source, _revealed(block) if block else None, _environment(environ)])


def _credentials(spec: FleetSpec) -> Any:
    return [_revealed(block) for block in (*spec.providers.values(), spec.mesh) if block]


def _revealed(block: Model) -> dict[str, Any]:
    """A block with a digest in place of each secret, and of each file that may hold one."""
    result: dict[str, Any] = {}
    for name, value in block:
        if isinstance(value, SecretStr):
            result[name] = _digest(value.get_secret_value())
        else:
            result[name] = value
    return result


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: _digest(value) for name, value in sorted(environ.items()) if _ENVIRONMENT.search(name)}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
