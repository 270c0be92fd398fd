# SPDX-License-Identifier: GPL-3.0-or-later
"""How a new machine becomes a member of the mesh before anybody has connected to it.

Its identity is made beforehand, so its node id and addresses are known and it is authorised before it exists. The
identity travels in the user data. There the files are written before packages are installed, so the daemon finds them
when its package starts it for the first time, and is admitted within a second; no public SSH need ever be open.

Whoever can read the machine's user data can read that identity: people with access to the cloud's project, and every
process on the machine. So it is good for the first contact only, in which the role ``zerotier`` replaces it.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .addresses import network_number
from .errors import InvalidRequest
from .mesh.identity import Identity, verify
from .spec import CloudMachine, FleetSpec

HOME = "/var/lib/zerotier-one"
KEYRING = "/etc/apt/keyrings/gpumesh-zerotier.asc"
SOURCE = "/etc/apt/sources.list.d/gpumesh-zerotier.sources"
PREFERENCES = "/etc/apt/preferences.d/gpumesh-zerotier.pref"
"""The same files that the role ``zerotier`` keeps, which so finds its work done."""

SUITES: Mapping[str, str] = {"debian-12": "bookworm", "debian-13": "trixie", "ubuntu-24.04": "noble"}
"""The names of the releases that the vendor has packages for, by image."""

_PACKAGE = "zerotier-one"
_ARMOUR = "-----{} PGP PUBLIC KEY BLOCK-----"
_BY = "# From gpumesh.fleet, at the first boot.\n"


@dataclass(frozen=True, slots=True)
class Repository:
    """Where the package comes from.

    Attributes:
        url: the folder in which each release has a repository of its own, named after it.
        key: the key that signs them, ASCII-armoured. It must have come by a way that can be trusted, for it is believed.
        version: of zerotier-one, as apt takes it (``1.14.2``, ``1.14.*``); None for the newest.
    """

    url: str
    key: str
    version: str | None = None

    def __post_init__(self) -> None:
        # Each of them becomes part of a file that apt reads as root.
        if not re.fullmatch(r"https?://[!-~]+", self.url):
            raise InvalidRequest(
                "the URL of ZeroTier's repository is none", hint="It is written like https://host/path"
            )
        lines = self.key.strip().splitlines()
        if len(lines) < 3 or (lines[0].strip(), lines[-1].strip()) != (
            _ARMOUR.format("BEGIN"),
            _ARMOUR.format("END"),
        ):
            raise InvalidRequest(
                "the key of ZeroTier's repository is no public key in ASCII armour",
                hint=f"It begins with {_ARMOUR.format('BEGIN')}; make it so with: gpg --enarmor, or gpg --armor --export",
            )
        if self.version is not None and not re.fullmatch(r"[0-9][0-9A-Za-z.+~:-]*\*?", self.version):
            raise InvalidRequest(
                f"{self.version!r} is no version of a package", hint="It is written like 1.14.2 or 1.14.*"
            )


@dataclass(frozen=True, slots=True)
class MeshBirth:
    """What makes one machine a member.

    Attributes:
        network: the network's id.
        identity: the machine's, with its secret.
        repository: where the package comes from.
        suite: the machine's release, as the repository names it.
    """

    network: str
    identity: Identity
    repository: Repository
    suite: str

    def __post_init__(self) -> None:
        try:
            network_number(self.network)
        except ValueError as error:
            raise InvalidRequest(f"{self.network}: {error}", hint="Correct mesh.network") from error
        if not self.identity.secret:
            raise InvalidRequest(
                f"only the public half of the identity {self.identity.node_id} was given",
                hint="Give the content of its identity.secret",
            )
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.suite):
            raise InvalidRequest(
                f"{self.suite!r} is no name of a release", hint="It is written like trixie or noble"
            )

    def add_to(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A cloud-config with this in it besides what it has. Of files that both write, ours are written last.

        The files come from ``write_files``, which cloud-init carries out long before ``packages``, and before the
        network is up, so also before the daemon of an image that has the package already.
        """
        package = f"{_PACKAGE}={self.repository.version}" if self.repository.version else _PACKAGE
        return {
            **config,
            "write_files": [*_items(config, "write_files"), *self._files()],
            "package_update": True,
            "packages": [*_items(config, "packages"), package],
        }

    def _files(self) -> list[dict[str, str]]:
        files = [
            _file(KEYRING, self.repository.key.strip() + "\n"),
            _file(
                SOURCE,
                f"{_BY}Types: deb\nURIs: {self.repository.url.rstrip('/')}/{self.suite}\nSuites: {self.suite}\n"
                f"Components: main\nSigned-By: {KEYRING}\n",
            ),
        ]
        if self.repository.version:
            pin = f"{_BY}Package: {_PACKAGE}\nPin: version {self.repository.version}\nPin-Priority: 1001\n"
            files.append(_file(PREFERENCES, pin))
        return [
            *files,
            _file(f"{HOME}/identity.secret", self.identity.secret or "", "0600"),
            _file(f"{HOME}/identity.public", self.identity.public),
            # An empty one is enough for the daemon to join when it starts.
            _file(f"{HOME}/networks.d/{self.network.lower()}.conf", "", "0600"),
        ]


def mesh_births(
    spec: FleetSpec,
    machines: Iterable[CloudMachine],
    identities: Mapping[str, Identity],
    repository: Repository | None,
    releases: Mapping[str, str] | None = None,
) -> dict[str, MeshBirth]:
    """What makes those of these machines members, from their first boot on, that have an identity.

    Args:
        identities: by machine, also of machines that are not among these.
        releases: by machine, the operating system of its golden image.

    Raises:
        InvalidRequest: an identity is none, or one of the machines cannot be born into the mesh.
    """
    if not identities:
        return {}
    for name in identities:
        if not isinstance(spec.machines.get(name), CloudMachine):
            raise InvalidRequest(
                "only a machine that is made in a cloud can be born into the mesh",
                machine=name,
                hint="Give the role zerotier its identity as zerotier_identity_secret",
            )
    if spec.mesh is None:
        raise InvalidRequest(
            f"the fleet {spec.fleet} declares no mesh to be born into",
            hint="Add a mesh block to the fleet file",
        )
    if repository is None:
        raise InvalidRequest(
            "machines are to be born into the mesh, and there is no repository of ZeroTier's package",
            hint="Give its URL and its key",
        )
    wanted = [machine for machine in machines if machine.name in identities]
    return {
        machine.name: MeshBirth(
            spec.mesh.network,
            _proved(spec, machine, identities[machine.name]),
            repository,
            _suite(machine, (releases or {}).get(machine.name)),
        )
        for machine in wanted
    }


def _proved(spec: FleetSpec, machine: CloudMachine, identity: Identity) -> Identity:
    declared = spec.node_id(machine)
    if declared and declared != identity.node_id:
        raise InvalidRequest(
            f"its identity is that of {identity.node_id}, and the fleet file declares the node id {declared}",
            machine=machine.name,
            hint="Give the identity that belongs to it, or correct node_id in the fleet file",
        )
    try:
        # Its daemon would not start with one that is none, and nobody could reach it over the mesh to find out.
        verify(identity)
    except InvalidRequest as error:
        raise error.about(machine.name) from None
    return identity


def _suite(machine: CloudMachine, golden: str | None) -> str:
    if not getattr(machine, "has_cloud_init", True):
        raise InvalidRequest(
            f"its image {machine.image} has no cloud-init, so it cannot be born into the mesh",
            machine=machine.name,
            hint="Use an image with cloud-init, or leave it to the role zerotier",
        )
    release = golden or "" if machine.golden else machine.image
    if release not in SUITES:
        raise InvalidRequest(
            f"nothing says which release its image {machine.image} is of, so ZeroTier cannot be installed at its first boot",
            machine=machine.name,
            hint=f"Use one of {', '.join(SUITES)}, or leave it to the role zerotier",
        )
    return SUITES[release]


def _file(path: str, content: str, mode: str = "0644") -> dict[str, str]:
    return {"path": path, "content": content, "permissions": mode, "owner": "root:root"}


def _items(config: Mapping[str, Any], key: str) -> list[Any]:
    found = config.get(key)
    return found if isinstance(found, list) else []
