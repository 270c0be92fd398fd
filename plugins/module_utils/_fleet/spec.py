# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet file: from its text to a :class:`FleetSpec`, or every problem in it with file, line, machine and field.

The models below are the published shape of the file: types, defaults and descriptions are read from here into the
JSON Schema. What only one provider has (zone, location, server types) is in that provider's own file, as a subclass of
:class:`MachineBase`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

MachineName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""A host name every cloud accepts: RFC 1035 label, lower case."""

Tag = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class Model(BaseModel):
    """Strict, immutable, and no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Gpu(Model):
    """The GPUs a machine has."""

    model: str = Field(description="Model by its short name, as in the catalog: t4, l4, a100, h100, rtx5090, ...")
    count: int = Field(default=1, ge=1, description="How many.")


class Budget(Model):
    """What the fleet may cost."""

    hourly_usd: float = Field(gt=0, description="Refuse a plan that costs more than this many US dollars per hour.")
    usd_per_eur: float = Field(default=1.20, gt=0, description="Exchange rate the budget is computed with.")


class Mesh(Model):
    """The ZeroTier network the fleet shares."""

    network: str = Field(pattern=r"^[0-9a-f]{16}$", description="Network id, 16 hexadecimal digits.")
    controller: str = Field(
        description="Who controls it: central_v1, central_v2, or the name of the machine that runs the controller."
    )
    domain: str = Field(default="zt", description="Suffix of the names of mesh members.")
    token: SecretStr | None = Field(default=None, description="API token of ZeroTier Central.")
    endpoint: str | None = Field(default=None, description="Base URL of the control plane's API.")


class Defaults(Model):
    """Values for every machine that does not say otherwise."""

    user: str = Field(default="admin", description="Administrator account on every machine, with sudo.")
    ssh_keys: tuple[str, ...] = Field(default=(), description="Files of public SSH keys, relative to the fleet file.")
    ssh_sources: tuple[str, ...] = Field(
        default=("0.0.0.0/0", "::/0"), description="Networks from which the public SSH port may be reached."
    )
    ssh_port: int = Field(default=22, ge=1, le=65535, description="Port of the SSH server.")


class ProviderSettings(Model):
    """A block under ``providers:``; every provider has its own subclass."""

    endpoint: str | None = Field(default=None, description="Base URL of the API, for a proxy or the sandbox.")
    when_sick: Literal["fail", "stale", "partial"] = Field(
        default="fail",
        description="What the inventory does when this cloud does not answer: fail, list what the cache knew, or go on without.",
    )


class MachineBase(Model):
    """What every machine can declare, whoever makes it."""

    name: MachineName = Field(exclude=True)
    provider: str = Field(description="Who makes it: hetzner, gcp, baremetal (already there) or external (never configured).")
    enabled: bool = Field(default=False, description="It should exist. False unless set, for all that costs money.")
    disabled: Literal["absent", "stopped"] = Field(default="absent", description="What it is while not enabled.")
    tags: tuple[Tag, ...] = Field(default=(), description="Groups of your own: each becomes the group tag_<tag>.")
    gpu: Gpu | None = Field(default=None, description="Its GPUs.")
    user: str | None = Field(default=None, description="Administrator account, instead of the fleet's default.")
    vars: dict[str, Any] = Field(default_factory=dict, description="Host variables of your own.")

    @property
    def zone(self) -> str:
        """Where it is declared to be placed; empty for machines no cloud places."""
        return ""

    @property
    def type_name(self) -> str:
        """Machine type or server type; empty for machines no cloud makes."""
        return ""


class CloudMachine(MachineBase):
    """What every machine that a cloud makes can declare."""

    type: str = Field(description="Machine type (GCP) or server type (Hetzner).")
    image: str = Field(default="debian-13", description="What it boots: ubuntu-24.04, debian-12, debian-13, or the cloud's own name.")
    labels: dict[str, str] = Field(default_factory=dict, description="Labels of your own on the cloud object.")
    ssh_sources: tuple[str, ...] | None = Field(default=None, description="Networks that may reach its SSH port.")
    user_data: str | None = Field(default=None, description="File of cloud-config to merge with ours, relative to the fleet file.")

    @property
    def type_name(self) -> str:
        return self.type


class BaremetalMachine(MachineBase):
    """A machine that is there already, reached at its address."""

    provider: Literal["baremetal"] = "baremetal"
    enabled: bool = Field(default=True, description="It takes part in the fleet.")
    address: str = Field(description="IP address or name to reach it at.")
    host_keys: tuple[str, ...] = Field(default=(), description="Its public SSH host keys, as `ssh-ed25519 AAAA...`.")


class ExternalMachine(MachineBase):
    """A mesh member that Ansible never configures: a laptop, a phone."""

    provider: Literal["external"] = "external"
    enabled: bool = Field(default=True, description="It is a member of the mesh.")
    node_id: str = Field(pattern=r"^[0-9a-f]{10}$", description="ZeroTier node id, 10 hexadecimal digits.")


class FleetSpec(Model):
    """A whole fleet file, checked.

    Attributes:
        providers: settings by provider name, as the provider's own model.
        machines: by name, in the order of the file.
        base_dir: folder of the fleet file; relative paths in it are meant from here.
        known_hosts: the fleet's own known_hosts file, absolute.
    """

    fleet: MachineName
    budget: Budget | None = None
    providers: dict[str, ProviderSettings]
    mesh: Mesh | None = None
    defaults: Defaults = Defaults()
    machines: dict[str, MachineBase]
    base_dir: str
    known_hosts: str
