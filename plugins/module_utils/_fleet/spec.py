# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of the fleet file: its models, and the :class:`FleetSpec` that everything else works from.

Types, defaults and descriptions are read from here into the JSON Schema. What only one provider has (zone, location,
server types) is in that provider's own file, as a subclass of :class:`MachineBase`. Rules that join several fields are
validators of the models; a validator raises :class:`WrongField`, or ``ValueError`` with one full sentence.

:mod:`spec_file` reads a file into a FleetSpec.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import difflib
import ipaddress
import os.path
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from . import addresses
from .gpu import catalog
from .images.reference import GoldenReference, is_golden

MachineName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""A host name every cloud accepts: RFC 1035 label, lower case."""

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""One part of a DNS name, in the form that every resolver and every hosts file takes."""

Tag = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
UserName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]

PATTERNS: dict[str, str] = {
    r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$": (
        "begins with a letter, holds only a-z, 0-9 and dashes, does not end in a dash, and has at most 63 characters"
    ),
    r"^[a-z][a-z0-9_]*$": "begins with a letter and holds only a-z, 0-9 and underscores",
    r"^[a-z_][a-z0-9_-]{0,31}$": "is a Linux account: a-z, 0-9, - and _, at most 32 characters",
    r"^[0-9a-f]{16}$": "is 16 hexadecimal digits in lower case",
    r"^[0-9a-f]{10}$": "is 10 hexadecimal digits in lower case",
    r"^https?://[^\s/]\S*$": "begins with http:// or https://",
}
"""What each pattern of the models asks for, in words."""

RESERVED_NAMES = frozenset(
    {
        *("all", "ungrouped", "localhost"),
        *("fleet", "enabled", "disabled", "running", "missing", "undeclared", "gpu"),
        *("mesh", "mesh_online", "mesh_offline", "mesh_unauthorized", "mesh_undeclared"),
    }
)
"""Names that no host can have, since they are those of groups or of the control machine."""

_MOST_GPUS = 16
_FEW = 12
_SHORT = 3
_ADDRESS = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.:_%-]*[A-Za-z0-9])?$")
_HOST_KEY = re.compile(
    r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) AAAA[A-Za-z0-9+/]+={0,2}( .*)?$"
)
_TAKEN_DOMAINS = frozenset({"local", "localhost"})
_OUR_LABELS = "gpumesh-"
_OUR_VARS = "fleet_"


class WrongField(ValueError):
    """What a model's validator raises when it knows which field is to blame.

    Args:
        field: the field, dotted below the model: ``gpu.count``.
        message: what is wrong and what would be right, one sentence without a final full stop.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def _network(value: str) -> str:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"'{value}' is not a network; write it as 203.0.113.0/24 or 2001:db8::/32") from None
    if str(network) != value:
        raise ValueError(
            f"'{value}' is not the first address of a network with its length; did you mean '{network}'?"
        )
    return value


def _node(value: str) -> str:
    addresses.node_number(value)
    return value


WhenSick = Literal["fail", "stale", "partial"]
_WHEN_SICK_DOC = (
    "What the inventory does when {who} answers with an error: fail, go on with what the cache knew (stale), "
    "or go on with what is declared (partial)."
)
Cidr = Annotated[str, AfterValidator(_network)]
NodeId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{10}$"), AfterValidator(_node)]
Addressing = Literal["rfc4193", "6plane", "managed"]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]\S*$")]


class Model(BaseModel):
    """Strict, immutable, and no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Gpu(Model):
    """The GPUs a machine has."""

    model: str = Field(
        description="Model by its short name, as in the catalog: t4, l4, a100, h100, rtx5090, ..."
    )
    count: int = Field(default=1, ge=1, le=_MOST_GPUS, description="How many.")

    @field_validator("model")
    @classmethod
    def _known(cls, value: str) -> str:
        model = catalog.find(value)
        if model is None:
            raise ValueError(f"'{value}' is no GPU model we know{did_you_mean(value, catalog.names())}")
        return model.name


class Budget(Model):
    """What the fleet may cost."""

    hourly_usd: float = Field(
        gt=0, description="Refuse a plan that costs more than this many US dollars per hour."
    )
    usd_per_eur: float = Field(default=1.20, gt=0, description="Exchange rate the budget is computed with.")


class Mesh(Model):
    """The ZeroTier network the fleet shares."""

    network: str = Field(pattern=r"^[0-9a-f]{16}$", description="Network id, 16 hexadecimal digits.")
    controller: str = Field(
        description="Who controls it: central_v1, central_v2, or the name of the machine that runs the controller."
    )
    domain: DnsLabel = Field(
        default="zt", description="Last part of the names of mesh members, which are <machine>.<domain>."
    )
    addressing: Addressing = Field(
        default="rfc4193",
        description=(
            "Which address of a member is its mesh address: one computed from its node id (rfc4193, 6plane), "
            "or the first one its control plane assigned to it (managed)."
        ),
    )
    connect: Literal["mesh", "public"] = Field(
        default="mesh",
        description="Where Ansible connects to a member that is online: its mesh address, or its public one.",
    )
    strict: bool = Field(
        default=False, description="No connection is made to a member of the mesh that is not declared."
    )
    token: SecretStr | None = Field(default=None, description="API token of ZeroTier Central.")
    endpoint: Url | None = Field(default=None, description="Base URL of the control plane's API.")
    when_sick: WhenSick = Field(default="fail", description=_WHEN_SICK_DOC.format(who="the control plane"))

    @field_validator("domain")
    @classmethod
    def _free(cls, value: str) -> str:
        if value in _TAKEN_DOMAINS:
            raise ValueError(
                f"'{value}' has a meaning of its own to resolvers; choose another one, such as 'zt'"
            )
        return value


class Defaults(Model):
    """Values for every machine that does not say otherwise."""

    user: UserName = Field(default="admin", description="Administrator account on every machine, with sudo.")
    ssh_keys: tuple[str, ...] = Field(
        default=(), description="Files of public SSH keys, relative to the fleet file."
    )
    ssh_sources: tuple[Cidr, ...] = Field(
        default=("0.0.0.0/0", "::/0"), description="Networks from which the public SSH port may be reached."
    )
    ssh_port: int = Field(
        default=22,
        ge=1,
        le=65535,
        description="Port of the SSH server. A new machine listens on 22: first move the role base's base_ssh_ports, then this.",
    )


class ProviderSettings(Model):
    """A block under ``providers:``; every provider has its own subclass."""

    endpoint: Url | None = Field(default=None, description="Base URL of the API, for a proxy or the sandbox.")
    when_sick: WhenSick = Field(default="fail", description=_WHEN_SICK_DOC.format(who="this cloud"))


class MachineBase(Model):
    """What every machine can declare, whoever makes it."""

    name: MachineName = Field(exclude=True)
    provider: str = Field(
        description="Who makes it: hetzner, gcp, baremetal (already there) or external (never configured)."
    )
    enabled: bool = Field(
        default=False, description="It should exist. False unless set, for all that costs money."
    )
    disabled: Literal["absent", "stopped"] = Field(
        default="absent", description="What it is while not enabled."
    )
    tags: tuple[Tag, ...] = Field(
        default=(), description="Groups of your own: each becomes the group tag_<tag>."
    )
    gpu: Gpu | None = Field(default=None, description="Its GPUs.")
    user: UserName | None = Field(
        default=None, description="Administrator account, instead of the fleet's default."
    )
    node_id: NodeId | None = Field(
        default=None,
        description="ZeroTier node id, 10 hexadecimal digits, where its identity is prepared beforehand.",
    )
    vars: dict[str, Any] = Field(default_factory=dict, description="Host variables of your own.")

    @field_validator("vars")
    @classmethod
    def _variable_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not name.isidentifier():
                raise ValueError(
                    f"'{name}' is no variable name; it holds only letters, digits and underscores"
                )
            if name.startswith(_OUR_VARS):
                raise ValueError(
                    f"'{name}' begins with {_OUR_VARS}, which is kept for what the inventory says; choose another name"
                )
        return value

    if TYPE_CHECKING:
        # Declared only: pydantic warns when a provider's model has a field of the name of a property up here.

        @property
        def zone(self) -> str:
            """Where it is declared to be placed; empty for machines no cloud places."""

    @property
    def type_name(self) -> str:
        """Machine type or server type; empty for machines no cloud makes."""
        return ""


class CloudMachine(MachineBase):
    """What every machine that a cloud makes can declare."""

    type: str = Field(description="Machine type (GCP) or server type (Hetzner).")
    image: str = Field(
        default="debian-13",
        description="What it boots: ubuntu-24.04, debian-12, debian-13, golden:NAME@VERSION, or the cloud's own name.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="Labels of your own on the cloud object."
    )
    ssh_sources: tuple[Cidr, ...] | None = Field(
        default=None, description="Networks that may reach its SSH port."
    )
    user_data: str | None = Field(
        default=None, description="File of cloud-config to merge with ours, relative to the fleet file."
    )
    mesh_birth: bool = Field(
        default=False,
        description="It is in the mesh from its first boot on, by a one-time identity in its user data.",
    )

    @model_validator(mode="after")
    def _one_identity(self) -> CloudMachine:
        if self.mesh_birth and self.node_id:
            raise WrongField(
                "mesh_birth",
                "the identity it is born with is replaced at first contact, so its node_id cannot be known beforehand; "
                "declare one of the two",
            )
        return self

    @field_validator("image")
    @classmethod
    def _golden_image(cls, value: str) -> str:
        if is_golden(value):
            GoldenReference.parse(value)
        return value

    @field_validator("labels")
    @classmethod
    def _foreign_labels(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name.startswith(_OUR_LABELS):
                raise ValueError(
                    f"'{name}' begins with {_OUR_LABELS}, which is kept for our own labels; choose another name"
                )
        return value

    @property
    def type_name(self) -> str:
        return self.type

    @property
    def golden(self) -> GoldenReference | None:
        """The golden image it is made from; None for one of the cloud's."""
        return GoldenReference.parse(self.image) if is_golden(self.image) else None


class UnplacedMachine(MachineBase):
    """A machine that no cloud makes."""

    @property
    def zone(self) -> str:
        return ""


class BaremetalMachine(UnplacedMachine):
    """A machine that is there already, reached at its address."""

    provider: Literal["baremetal"] = "baremetal"
    enabled: bool = Field(default=True, description="It takes part in the fleet.")
    address: str = Field(description="IP address or name to reach it at.")
    host_keys: tuple[str, ...] = Field(
        default=(), description="Its public SSH host keys, as `ssh-ed25519 AAAA...`."
    )

    @field_validator("address")
    @classmethod
    def _reachable(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):
            raise ValueError(
                f"'{value}' is no address; write an IP address or a host name, without user, port or scheme"
            )
        return value

    @field_validator("host_keys")
    @classmethod
    def _public_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for key in value:
            if not _HOST_KEY.fullmatch(key):
                raise ValueError(
                    "a host key is written as in /etc/ssh/ssh_host_ed25519_key.pub: ssh-ed25519 AAAA..."
                )
        return value


class ExternalMachine(UnplacedMachine):
    """A mesh member that Ansible never configures: a laptop, a phone."""

    provider: Literal["external"] = "external"
    enabled: bool = Field(default=True, description="It is a member of the mesh.")
    node_id: NodeId = Field(description="ZeroTier node id, 10 hexadecimal digits.")


class FleetFile(Model):
    """The top level of a fleet file. Providers and machines are checked by the models of their kind."""

    plugin: Literal["gpumesh.fleet.fleet"] = Field(
        description="Says that this file is a fleet file, and an Ansible inventory."
    )
    fleet: MachineName = Field(
        description="Name of the fleet; every cloud object it owns carries it as a label."
    )
    budget: Budget | None = Field(default=None, description="What the fleet may cost.")
    providers: dict[str, Any] = Field(
        default_factory=dict, description="Settings of each provider in use, by its name."
    )
    mesh: Mesh | None = Field(default=None, description="The ZeroTier network the fleet shares.")
    defaults: Defaults = Field(
        default=Defaults(), description="Values for every machine that does not say otherwise."
    )
    machines: dict[str, Any] = Field(default_factory=dict, description="The machines, by name.")
    machines_dir: str | None = Field(
        default=None, description="Folder with one file a machine, named after it, relative to this file."
    )
    known_hosts: str | None = Field(
        default=None,
        description="The fleet's own known_hosts, relative to this file. Default: ~/.ssh/gpumesh/<fleet>.known_hosts",
    )
    compose: dict[str, Any] | None = Field(default=None, description="Host variables from Jinja expressions.")
    groups: dict[str, Any] | None = Field(default=None, description="Groups from Jinja conditions.")
    keyed_groups: list[dict[str, Any]] | None = Field(
        default=None, description="Groups from values of variables."
    )
    strict: bool | None = Field(default=None, description="An expression that fails is an error.")
    use_extra_vars: bool | None = Field(default=None, description="Expressions see extra variables.")
    leading_separator: bool | None = Field(
        default=None, description="Keyed groups without a prefix begin with a separator."
    )
    cache: bool | None = Field(default=None, description="Keep what the clouds answered.")
    cache_plugin: str | None = Field(default=None, description="Cache plugin to keep it with.")
    cache_timeout: int | None = Field(default=None, description="How long it is kept, in seconds.")
    cache_connection: str | None = Field(default=None, description="Where the cache plugin keeps it.")
    cache_prefix: str | None = Field(
        default=None, description="Prefix of the cache plugin's files or tables."
    )

    @classmethod
    def inventory_options(cls) -> frozenset[str]:
        """The keys that are options of Ansible's inventory and no part of the fleet."""
        return frozenset(cls.model_fields) - {
            "fleet", "budget", "providers", "mesh", "defaults", "machines", "machines_dir", "known_hosts"
        }  # fmt: skip


class FleetSpec(Model):
    """A whole fleet file, checked.

    Attributes:
        providers: settings by provider name, as the provider's own model.
        machines: by name, in the order of the file.
        base_dir: folder of the fleet file; relative paths in it are meant from here.
        known_hosts: the fleet's own known_hosts file, absolute.
        inventory_options: what the file sets of the options of Ansible's inventory (compose, cache, ...).
    """

    fleet: MachineName
    budget: Budget | None = None
    providers: dict[str, ProviderSettings]
    mesh: Mesh | None = None
    defaults: Defaults = Defaults()
    machines: dict[str, MachineBase]
    base_dir: str
    known_hosts: str
    inventory_options: dict[str, Any] = Field(default_factory=dict)

    def user(self, machine: MachineBase) -> str:
        """The administrator account of a machine."""
        return machine.user or self.defaults.user

    def node_id(self, machine: MachineBase) -> str | None:
        """The ZeroTier node a machine is, where that is known beforehand: its own word, or that of the network id it controls."""
        if machine.node_id is None and self.mesh and self.mesh.controller == machine.name:
            return addresses.controller(self.mesh.network)
        return machine.node_id

    def ssh_sources(self, machine: MachineBase) -> tuple[str, ...]:
        """The networks that may reach a machine's SSH port."""
        own = machine.ssh_sources if isinstance(machine, CloudMachine) else None
        return self.defaults.ssh_sources if own is None else own

    def file(self, name: str) -> str:
        """A file named in the fleet file, absolute: ``~`` is the user's home, a relative path begins at the file."""
        return os.path.normpath(os.path.join(self.base_dir, os.path.expanduser(name)))

    @property
    def usd_per(self) -> dict[str, Decimal]:
        """US dollars for one unit of each other currency."""
        rate = self.budget.usd_per_eur if self.budget else Budget.model_fields["usd_per_eur"].default
        return {"EUR": Decimal(str(rate))}


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the choice most like the word, or the choices if they are few, or nothing."""
    known = list(choices)
    folded = {choice.lower().replace("-", "_"): choice for choice in known}
    likeness = 0.6 if len(word) > _SHORT else 0.5
    close = difflib.get_close_matches(word.lower().replace("-", "_"), folded, n=1, cutoff=likeness)
    if close:
        return f"; did you mean '{folded[close[0]]}'?"
    return f"; it is one of {', '.join(known)}" if 0 < len(known) <= _FEW else ""
