# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH by name over the mesh: who has which name and address, and under which host key a machine is met.

Pure. From the variables of the fleet's hosts to entries, and from entries to the text of a hosts file, an ssh_config and
a known_hosts. What ends up in these files began in a cloud or with whoever wrote the fleet file, so every name, address
and key is checked before it is written: none can end its line, or be taken for an option.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import known_hosts
from .errors import FleetError

_WORD = re.compile(r"[a-z0-9_-]+")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_ALIAS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_DECLARED = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./@+,=-]+")
_LONGEST_NAME = 253
_LONGEST_SHOWN = 80
_LAST_PORT = 65535
_SSH_PORT = 22

_HIS_OWN = "baremetal"
_NEVER_MET = "external"


@dataclass(frozen=True, slots=True)
class Server:
    """The SSH server of a machine.

    Attributes:
        alias: the name its host keys are filed under.
        provider: of the machine, as it is filed with the keys.
        keys: what is on file for it. Without any, ssh refuses to connect.
        ours: the fleet's known_hosts vouches; otherwise the operator's own does, and nobody else can tell the key.
    """

    user: str
    port: int
    alias: str
    provider: str
    keys: tuple[str, ...] = ()
    ours: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """One machine of the mesh.

    Attributes:
        machine: its name in the fleet file.
        names: what it is called in the mesh, the full name first.
        address: in the mesh.
        server: how it is met over SSH; None for a member that is not known to have a host key, such as a laptop.
    """

    machine: str
    names: tuple[str, ...]
    address: str
    server: Server | None = None

    def as_data(self) -> dict[str, Any]:
        """The same as plain data; :func:`entry` reads it."""
        return asdict(self)


def entry(data: Mapping[str, Any]) -> Entry:
    """An entry from plain data, checked like any other.

    Raises:
        FleetError: something in it cannot be written into a configuration file.
    """
    try:
        its = data["server"]
        server = its and Server(
            user=str(its["user"]),
            port=its["port"],
            alias=str(its["alias"]),
            provider=str(its["provider"]),
            keys=tuple(str(key) for key in its["keys"]),
            ours=bool(its["ours"]),
        )
        names = tuple(str(name) for name in data["names"])
        found = Entry(str(data["machine"]), names, str(data["address"]), server or None)
    except (KeyError, TypeError) as error:
        raise FleetError(
            "this is no entry of mesh_ssh_entries", hint="Give the list as that filter made it"
        ) from error
    return _checked(found)


def entries(
    variables: Mapping[str, Mapping[str, Any]],
    hosts: Iterable[str],
    on_file: str,
    *,
    short_names: bool = True,
) -> tuple[Entry, ...]:
    """The machines that have a name in the mesh, in the order of their names.

    A machine that is declared and neither off nor gone has one as soon as its address is known.

    Args:
        variables: of each host, as the inventory sets them.
        hosts: those of the fleet.
        on_file: the text of the fleet's known_hosts.
        short_names: each is called by its own name besides, without the domain.

    Raises:
        FleetError: something in them cannot be written into a configuration file.
    """
    found = (_entry(host, variables[host], on_file, short_names) for host in sorted(hosts))
    return tuple(one for one in found if one)


def _entry(host: str, its: Mapping[str, Any], on_file: str, short_names: bool) -> Entry | None:
    mesh, declared = its.get("fleet_mesh"), its.get("fleet_machine")
    address = its.get("fleet_mesh_ip")
    if not mesh or not declared or not address or _is_off(its, declared):
        return None
    names = (str(mesh["name"]), *((host,) if short_names else ()))
    return _checked(Entry(host, names, str(address), _server(host, its, declared, on_file)))


def _is_off(its: Mapping[str, Any], declared: Mapping[str, Any]) -> bool:
    state = its.get("fleet_state")
    return state == "disabled" or (state == _NEVER_MET and not declared.get("enabled", True))


def _server(host: str, its: Mapping[str, Any], declared: Mapping[str, Any], on_file: str) -> Server | None:
    provider = str(its.get("fleet_provider"))
    if provider == _NEVER_MET:
        return None
    fleet = str(its.get("fleet_name"))
    try:
        port = int(its.get("ansible_port") or _SSH_PORT)
    except (TypeError, ValueError):
        raise _wrong(host, "port", its.get("ansible_port")) from None
    alias = its.get("fleet_host_key_alias")
    if not alias and its.get("fleet_state") == "unknown":
        alias = _last_known(host, fleet, provider, on_file)
    ours = bool(alias) or provider != _HIS_OWN
    if not ours:
        # Under this name the operator's own ssh has filed the key when it met the machine at its declared address.
        address = str(declared.get("address"))
        if not _DECLARED.fullmatch(address):
            raise _wrong(host, "address", address)
        alias = address if port == _SSH_PORT else f"[{address}]:{port}"
    if not alias:
        return None
    keys = known_hosts.filed(on_file, fleet, str(alias)) if ours else ()
    return Server(str(its.get("fleet_user")), port, str(alias), provider, keys, ours)


def _last_known(machine: str, fleet: str, provider: str, on_file: str) -> str | None:
    """What a machine was filed under when its cloud last answered, if that is beyond doubt."""
    prefix = known_hosts.alias(fleet, machine, "")
    found = [
        alias
        for alias, its in known_hosts.aliases(on_file, fleet).items()
        if its == provider and alias.startswith(prefix) and alias.removeprefix(prefix).isalnum()
    ]
    return found[0] if len(found) == 1 else None


def _checked(found: Entry) -> Entry:
    """The entry, with its address in its shortest form.

    Raises:
        FleetError: something in it could be more than what it says it is.
    """
    for name in (found.machine, *found.names):
        if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            raise _wrong(found.machine, "name", name)
    server = found.server
    if server:
        if not _WORD.fullmatch(server.provider):
            raise _wrong(found.machine, "provider", server.provider)
        if not _USER.fullmatch(server.user):
            raise _wrong(found.machine, "user", server.user)
        if (
            isinstance(server.port, bool)
            or not isinstance(server.port, int)
            or not 0 < server.port <= _LAST_PORT
        ):
            raise _wrong(found.machine, "port", server.port)
        if server.ours and not _ALIAS.fullmatch(server.alias):
            raise _wrong(found.machine, "host key alias", server.alias)
        if not server.ours and not _DECLARED.fullmatch(server.alias.replace("[", "").replace("]", "")):
            raise _wrong(found.machine, "host key alias", server.alias)
    try:
        # A scope, which Python takes for part of an address, may hold anything, and no mesh address has one.
        address = str(ipaddress.ip_address(found.address if "%" not in found.address else ""))
    except ValueError:
        raise _wrong(found.machine, "mesh address", found.address) from None
    return Entry(found.machine, found.names, address, server)


def _wrong(machine: str, what: str, value: object) -> FleetError:
    return FleetError(
        f"its {what} {str(value)[:_LONGEST_SHOWN]!r} cannot be written into SSH's configuration",
        machine=re.sub(r"[^\w.-]", "?", machine[:_LONGEST_SHOWN]),
        hint="Correct it in the fleet file, in your variables, or at the control plane it comes from",
    )


def hosts_text(found: Sequence[Entry], own: str = "") -> str:
    """Lines of a hosts file.

    Args:
        own: the machine they are for. What it calls itself stays as it is: programs that bind to their own short name
            would otherwise end up in the mesh.
    """
    return "".join(
        f"{one.address} {' '.join(name for name in one.names if not (one.machine == own == name))}\n"
        for one in found
    )


def ssh_config(
    found: Sequence[Entry],
    known_hosts_file: str,
    *,
    identities: Sequence[str] = (),
    operator: bool = False,
) -> str:
    """Entries of an ssh_config that check the host key and never ask.

    Args:
        known_hosts_file: absolute path of the one file that vouches for the keys.
        identities: private keys to log in with, and then no others.
        operator: it is the operator's own, so machines whose key only the operator's known_hosts knows are in it.

    Raises:
        FleetError: a path cannot be written into it.
    """
    blocks = []
    for one in found:
        server = one.server
        if server is None or not (server.ours or operator):
            continue
        lines = [
            f"HostName {one.address}",
            f"Port {server.port}",
            f"User {server.user}",
            f"HostKeyAlias {server.alias}",
        ]
        if server.ours:
            # No other file may vouch, or a key that was replaced would stay good wherever somebody had accepted it.
            lines += [f"UserKnownHostsFile {_path(known_hosts_file)}", "GlobalKnownHostsFile /dev/null"]
        lines += ["StrictHostKeyChecking yes", "UpdateHostKeys no"]
        if identities:
            # A full agent would use up the tries a server allows before it comes to the fleet's key.
            lines += ["IdentitiesOnly yes", *(f"IdentityFile {_path(path)}" for path in identities)]
        blocks.append(f"Host {' '.join(one.names)}\n" + "".join(f"    {line}\n" for line in lines))
    return "\n".join(blocks)


def include(path: str) -> str:
    """The line that makes ssh read a file of ours.

    Raises:
        FleetError: the path cannot be written into it.
    """
    # ssh takes the first four for a pattern of several files, and whether a % is a token depends on its version.
    if set(path) & set("*?[]%"):
        raise _unfit(path)
    return f"Include {_path(path)}\n"


def _path(path: str) -> str:
    """A path as ssh_config takes it: one word, no token, no variable."""
    if not path.startswith("/") or '"' in path or "\\" in path or "${" in path or not path.isprintable():
        raise _unfit(path)
    safe = path.replace("%", "%%")
    return safe if _PLAIN_PATH.fullmatch(safe) else f'"{safe}"'


def _unfit(path: str) -> FleetError:
    return FleetError(
        f"the path {path!r} cannot be written into SSH's configuration",
        hint="Give an absolute path without quotes, backslashes, patterns and variables",
    )


def known_hosts_text(found: Sequence[Entry], fleet: str) -> str:
    """The host keys of these machines, as the fleet's known_hosts has them, and of no others.

    Raises:
        FleetError: something on file is no key.
    """
    keys = {one.server.alias: (one.server.provider, one.server.keys) for one in found if one.server}
    if not _WORD.fullmatch(fleet):
        raise FleetError(
            f"{fleet[:_LONGEST_SHOWN]!r} is no name of a fleet", hint="Give the variable fleet_name"
        )
    try:
        return known_hosts.merge("", fleet, keys)
    except ValueError as error:
        raise FleetError(
            f"the fleet's known_hosts holds something else than host keys: {error}",
            hint="Take the line out, and run playbooks/provision.yml to have it made anew",
        ) from error
