# SPDX-License-Identifier: GPL-3.0-or-later
"""How a machine is reached over SSH: at which address, under which account, and with which host key and no other.

The inventory tells Ansible, and whoever asks a controller on a machine of the fleet connects by the same rules.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import ipaddress
import os.path
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from . import addresses, known_hosts
from .errors import MissingLibrary
from .machines import Instance, Member, State
from .spec import BaremetalMachine, FleetSpec, MachineBase

if TYPE_CHECKING:
    from .mesh.relay import SshTarget

_BEST_STATES = (State.RUNNING, State.CREATING, State.STOPPED, State.STOPPING, State.UNKNOWN, State.DELETING)

_SSH_PORT = 22

_COMPUTED = {"rfc4193": addresses.rfc4193, "6plane": addresses.sixplane}
"""The forms of address that follow from a node id."""


def pick(machine: MachineBase, instances: Iterable[Instance]) -> Instance | None:
    """The one among several instances of a machine that is it; the others are left over."""
    ours = [instance for instance in instances if instance.provider == machine.provider]
    if not ours:
        return None
    zone = machine.zone
    return min(ours, key=lambda one: (_BEST_STATES.index(one.state), one.zone != zone, one.id))


def public_address(machine: MachineBase, instance: Instance | None) -> str | None:
    """Where it is reached without the mesh."""
    if isinstance(machine, BaremetalMachine):
        return machine.address
    if instance is None:
        return None
    return checked(instance.public_ip) or checked(instance.public_ipv6)


def mesh_address(spec: FleetSpec, node_id: str | None, member: Member | None) -> str | None:
    """Where a node is in the mesh, in the form the fleet file chose; None where it has no such address.

    Args:
        member: as the control plane has it, if it does.
    """
    if spec.mesh is None:
        return None
    if (form := _COMPUTED.get(spec.mesh.addressing)) is None:
        found = (checked(text) for text in (member.addresses if member else ()))
        return next((address for address in found if address), None)
    if not node_id or (member is not None and member.no_auto_assign):
        return None  # A member that is exempt from automatic addresses is not even given the computed ones.
    try:
        return str(form(spec.mesh.network, node_id).ip)
    except ValueError:
        return None


def checked(text: str | None) -> str | None:
    """The text if it is an IP address: what ssh is given must not be an option or a command."""
    if not text or "%" in text:  # Behind the percent sign of a scope anything goes, line ends included.
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def host_key_alias(spec: FleetSpec, machine: MachineBase, instance: Instance | None) -> str | None:
    """The name its host keys are filed under in the fleet's own known_hosts; None where it has no key of this machine."""
    if isinstance(machine, BaremetalMachine):
        return known_hosts.alias(spec.fleet, machine.name, machine.provider) if machine.host_keys else None
    return known_hosts.alias(spec.fleet, machine.name, instance.id) if instance else None


def ssh_options(
    spec: FleetSpec, machine: MachineBase, instance: Instance | None, *, over_mesh: bool = False
) -> tuple[str, ...]:
    """Options of ssh as ``Name=value``: check the host key, and against the fleet's own list wherever we vouch for the key.

    Args:
        over_mesh: it is reached at its address in the mesh.
    """
    alias = host_key_alias(spec, machine, instance)
    if alias is None and isinstance(machine, BaremetalMachine):
        own = ("StrictHostKeyChecking=yes",)
        # The user's known_hosts has its key under the address the user has connected to.
        return (
            (*own, f"HostKeyAlias={_filed_by_ssh(machine.address, spec.defaults.ssh_port)}")
            if over_mesh
            else own
        )
    return (
        f"UserKnownHostsFile={_quoted(spec.known_hosts)}",
        "StrictHostKeyChecking=yes",
        f"HostKeyAlias={alias or machine.name}",  # No key is ever filed under the mere name.
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
    )


def _filed_by_ssh(address: str, port: int) -> str:
    return address if port == _SSH_PORT else f"[{address}]:{port}"


def target(
    spec: FleetSpec,
    machine: MachineBase,
    instance: Instance | None,
    *,
    is_file: Callable[[str], bool] = os.path.isfile,
) -> SshTarget | None:
    """How to run a command on a machine without Ansible; None where nothing is known to connect to.

    A machine whose SSH port is open to nobody in public is reached over the mesh. The private keys are those that lie
    beside the public ones the fleet file names; an agent and the user's own ssh_config are heard as ever. What the
    machine declares as variables for Ansible's own connection is followed, unless it is an expression.

    Args:
        is_file: whether there is such a file.

    Raises:
        MissingLibrary: requests is not installed.
    """
    try:
        # Not at the top of the file: a fleet is read and listed without requests.
        from .mesh.relay import SshTarget
    except ImportError as exc:
        raise MissingLibrary(
            f"asking {machine.name} needs the Python library {exc.name or 'requests'} on this machine",
            hint="Install it with: python3 -m pip install requests",
        ) from exc
    host = _own(machine, "ansible_host") or public_address(machine, instance)
    if not spec.ssh_sources(machine) and not isinstance(machine, BaremetalMachine):
        host = _own(machine, "ansible_host") or mesh_address(spec, spec.node_id(machine), None) or host
    if not host:
        return None
    if own_key := _own(machine, "ansible_ssh_private_key_file"):
        private = [spec.file(own_key)]
    else:
        private = [
            spec.file(key).removesuffix(".pub") for key in spec.defaults.ssh_keys if key.endswith(".pub")
        ]
    port = _own(machine, "ansible_port") or ""
    options = [
        *ssh_options(spec, machine, instance),
        *(f"IdentityFile={_quoted(path)}" for path in private if is_file(path)),
    ]
    return SshTarget(
        host=host,
        port=int(port) if port.isdecimal() else spec.defaults.ssh_port,
        user=_own(machine, "ansible_user") or spec.user(machine),
        options=tuple(word for option in options for word in ("-o", option)),
        name=machine.name,
    )


def _own(machine: MachineBase, name: str) -> str | None:
    """What the machine's own variables say, where that needs no templating."""
    value = machine.vars.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)
    return None if "{{" in text or "{%" in text or text.startswith("-") else text


def _quoted(path: str) -> str:
    """A path as ssh's options take it: they have percent signs and blanks of their own."""
    file = path.replace("%", "%%")
    return f'"{file}"' if " " in file else file
