# SPDX-License-Identifier: GPL-3.0-or-later
"""What exists: a machine as its cloud reports it, and a member as the mesh's control plane reports it.

These are the words that providers, plan, inventory and apply share. Plain frozen data that survives a trip through
JSON, because the inventory cache stores nothing else.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import Conflict
from .prices import Price

FLEET_LABEL = "gpumesh-fleet"
"""The label that says which fleet owns a cloud object."""

MACHINE_LABEL = "gpumesh-machine"
"""The label that says which declared machine a cloud object is."""


MESH = "mesh"
"""What the mesh's control plane is called among the sources that are asked, where clouds go by their own names."""


class State(enum.StrEnum):
    """Where a machine is in its life; every cloud's own words are mapped to these."""

    CREATING = "creating"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DELETING = "deleting"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Instance:
    """One machine in a cloud, however it came to be there.

    Attributes:
        provider: name of the provider that reported it (``hetzner``, ``gcp``).
        id: the cloud's own identifier, unique and never used twice; a string even where the cloud uses a number.
        name: the cloud's name of it.
        state: its state in our words; ``cloud_state`` is the cloud's word.
        zone: what it is placed in: a GCP zone, a Hetzner location.
        type: machine type or server type (``n1-standard-8``, ``cx23``).
        image: what it was made from, where the cloud still says so.
        created: RFC 3339 time, as the cloud gave it.
        public_ip, public_ipv6, private_ip: addresses; an IPv6 is one host address, not a network.
        labels: all labels, ours included.
        gpu_model, gpu_count: our name of the GPU model (``t4``) and how many; None and 0 without GPU.
        host_keys: public SSH host keys vouched for by the provider's own channel, as ``ssh-ed25519 AAAA...``.
        host_keys_planted: those keys are the one-time ones we planted, to be replaced at first contact.
        price: what it costs while it exists in this state.
    """

    provider: str
    id: str
    name: str
    state: State
    cloud_state: str
    zone: str
    type: str
    image: str | None = None
    created: str | None = None
    public_ip: str | None = None
    public_ipv6: str | None = None
    private_ip: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    gpu_model: str | None = None
    gpu_count: int = 0
    host_keys: tuple[str, ...] = ()
    host_keys_planted: bool = False
    price: Price = field(default_factory=Price.unknown)

    @property
    def fleet(self) -> str | None:
        """The fleet that owns it, or None if it carries no label of ours."""
        return self.labels.get(FLEET_LABEL)

    @property
    def machine(self) -> str:
        """The declared machine it is; for one without our label, its own name."""
        return self.labels.get(MACHINE_LABEL, self.name)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the inventory cache."""
        return {
            **asdict(self),
            "state": str(self.state),
            "labels": dict(self.labels),
            "price": self.price.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Instance:
        """What :meth:`to_json` wrote."""
        return cls(
            **{
                **data,
                "state": State(data["state"]),
                "host_keys": tuple(data["host_keys"]),
                "price": Price.from_json(data["price"]),
            }
        )


def owned(found: Instance, fleet: str, machine: str) -> Instance:
    """What was found under a machine's name, if it is that machine.

    Raises:
        Conflict: it is something else.
    """
    if (found.fleet, found.machine) == (fleet, machine):
        return found
    owner = "carries no label of a fleet"
    if found.fleet:
        owner = f"belongs to the fleet {found.fleet} as {found.machine}"
    raise Conflict(
        f"{found.provider} has a machine named {found.name} in {found.zone} already, which {owner}",
        machine=machine,
        hint="Rename the machine in the fleet file, or remove the other one in its cloud",
    )


@dataclass(frozen=True, slots=True)
class Member:
    """One node as the mesh's control plane knows it.

    Attributes:
        node_id: 10 hexadecimal digits, lower case.
        name: what the control plane calls it; may be empty.
        authorized: it may take part in the network.
        online: True, False, or None where the control plane does not say.
        addresses: managed addresses, without prefix length.
        version: of zerotier-one on the node, ``1.14.2``.
        last_seen: RFC 3339 time, or None.
        latency_ms: round trip in milliseconds, where the control plane measures it.
        physical_address: the address it was last seen at.
        active_bridge: it may bridge other devices into the network.
        no_auto_assign: it is given no address by itself, neither from a pool nor RFC 4193 or 6PLANE.
        tags: pairs of tag id and value, by id, which the network's rules can ask for.
        identity: its public identity, where the control plane has learnt and pinned it.
    """

    node_id: str
    name: str = ""
    authorized: bool = False
    online: bool | None = None
    addresses: tuple[str, ...] = ()
    version: str | None = None
    last_seen: str | None = None
    latency_ms: float | None = None
    physical_address: str | None = None
    active_bridge: bool = False
    no_auto_assign: bool = False
    tags: tuple[tuple[int, int], ...] = ()
    identity: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for the inventory cache, and for a module's result."""
        return {
            **asdict(self),
            "addresses": list(self.addresses),
            "tags": [list(tag) for tag in self.tags],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Member:
        """What :meth:`to_json` wrote, in this release or in one whose members had fewer fields."""
        tags = tuple((int(tag), int(value)) for tag, value in data.get("tags", ()))
        return cls(**{**data, "addresses": tuple(data["addresses"]), "tags": tags})
