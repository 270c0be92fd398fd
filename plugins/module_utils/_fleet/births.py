# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what new machines are given at birth: the keys and the cloud-config the fleet file points to.

Everything is read before anything is bought, so that a missing file is no half-made fleet.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterable, Mapping

import yaml

from .errors import InvalidRequest
from .firstboot import FirstBoot, HostKey, new_host_key
from .mesh_birth import MeshBirth
from .providers.base import Kind
from .spec import CloudMachine, FleetSpec

_PUBLIC_KEY = re.compile(
    r"^(ssh-(ed25519|rsa|dss)|ecdsa-sha2-nistp\d+|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com) [A-Za-z0-9+/]+=*( .*)?$"
)


def first_boots(
    spec: FleetSpec,
    kinds: Mapping[str, Kind],
    machines: Iterable[CloudMachine],
    *,
    mesh: Mapping[str, MeshBirth] | None = None,
    new_key: Callable[[], HostKey] = new_host_key,
) -> dict[str, FirstBoot]:
    """What each of these machines is given.

    Args:
        mesh: by machine, what makes it a member of the mesh from its first boot on; of others than these it is not used.

    Raises:
        InvalidRequest: a file is missing or is not what it should be.
    """
    wanted = list(machines)
    keys = _authorized_keys(spec) if wanted else ()
    return {
        machine.name: FirstBoot(
            user=spec.user(machine),
            authorized_keys=keys,
            host_key=new_key() if kinds[machine.provider].plants_host_key else None,
            user_data=_user_data(spec, machine),
            mesh=(mesh or {}).get(machine.name),
        )
        for machine in wanted
    }


def _authorized_keys(spec: FleetSpec) -> tuple[str, ...]:
    if not spec.defaults.ssh_keys:
        raise InvalidRequest(
            "the fleet file names no public SSH key, so nobody could log in to a new machine",
            hint="Set defaults.ssh_keys, for example to [~/.ssh/id_ed25519.pub]",
        )
    keys: dict[str, None] = {}
    for name in spec.defaults.ssh_keys:
        path = spec.file(name)
        if not path.endswith(".pub"):
            raise InvalidRequest(
                f"defaults.ssh_keys names {path}, which may be a private key",
                hint="Name the file that ends in .pub",
            )
        for line in _read(path, "defaults.ssh_keys").splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if not _PUBLIC_KEY.match(line.strip()):
                raise InvalidRequest(
                    f"{path}, named in defaults.ssh_keys, holds a line that is no public SSH key",
                    hint="Each line is written like `ssh-ed25519 AAAA... comment`",
                )
            keys[line.strip()] = None
    return tuple(keys)


def _user_data(spec: FleetSpec, machine: CloudMachine) -> str | None:
    if machine.user_data is None:
        return None
    path = spec.file(machine.user_data)
    text = _read(path, "user_data", machine.name)
    if text.startswith("#!"):
        raise InvalidRequest(
            f"its user_data {path} is a script and no cloud-config",
            machine=machine.name,
            hint="Put its lines under runcmd in a file of cloud-config",
        )
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidRequest(f"its user_data {path} is not valid YAML", machine=machine.name) from error
    if config is not None and not isinstance(config, dict):
        raise InvalidRequest(
            f"its user_data {path} is no cloud-config",
            machine=machine.name,
            hint="Write it as a mapping of cloud-config keys",
        )
    return text


def _read(path: str, field: str, machine: str | None = None) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "is no text"
        raise InvalidRequest(
            f"{path}, named in {field}, cannot be read: {reason}",
            machine=machine,
            hint="Correct the path in the fleet file",
        ) from error
