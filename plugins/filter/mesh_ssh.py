# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that make SSH's files for the mesh. Each is documented in the YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._fleet import mesh_ssh
from ..module_utils._fleet.errors import FleetError


def mesh_ssh_entries(
    variables: Any, hosts: Any, known_hosts: str = "", short_names: bool = True
) -> list[dict[str, Any]]:
    """Who has which name and address in the mesh, and under which host key it is met."""
    if not isinstance(variables, Mapping):
        raise AnsibleFilterError("mesh_ssh_entries: give it hostvars")
    names = _list("mesh_ssh_entries", hosts)
    if absent := [host for host in names if host not in variables]:
        raise AnsibleFilterError(f"mesh_ssh_entries: no host is named {', '.join(map(str, absent))}")
    try:
        found = mesh_ssh.entries(variables, names, str(known_hosts), short_names=bool(short_names))
    except FleetError as exc:
        raise AnsibleFilterError(f"mesh_ssh_entries: {exc}") from exc
    return [one.as_data() for one in found]


def mesh_ssh_hosts(entries: Any, own: str = "") -> str:
    """The entries as lines of a hosts file."""
    return _text("mesh_ssh_hosts", entries, lambda found: mesh_ssh.hosts_text(found, str(own)))


def mesh_ssh_config(entries: Any, known_hosts_file: str, identities: Any = (), operator: bool = False) -> str:
    """The entries as an ssh_config."""
    keys = [str(path) for path in _list("mesh_ssh_config", identities)]
    return _text(
        "mesh_ssh_config",
        entries,
        lambda found: mesh_ssh.ssh_config(
            found, str(known_hosts_file), identities=keys, operator=bool(operator)
        ),
    )


def mesh_ssh_known_hosts(entries: Any, fleet: str) -> str:
    """The host keys of the entries as a known_hosts."""
    return _text("mesh_ssh_known_hosts", entries, lambda found: mesh_ssh.known_hosts_text(found, str(fleet)))


def mesh_ssh_include(path: Any) -> str:
    """The line of an ssh_config that includes a file."""
    try:
        return mesh_ssh.include(str(path))
    except FleetError as exc:
        raise AnsibleFilterError(f"mesh_ssh_include: {exc}") from exc


def _text(name: str, entries: Any, render: Callable[[list[mesh_ssh.Entry]], str]) -> str:
    try:
        return render([mesh_ssh.entry(one) for one in _list(name, entries)])
    except FleetError as exc:
        raise AnsibleFilterError(f"{name}: {exc}") from exc


def _list(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise AnsibleFilterError(f"{name}: this is no list: {str(value)[:80]!r}")
    return value


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {
            "mesh_ssh_entries": mesh_ssh_entries,
            "mesh_ssh_hosts": mesh_ssh_hosts,
            "mesh_ssh_config": mesh_ssh_config,
            "mesh_ssh_known_hosts": mesh_ssh_known_hosts,
            "mesh_ssh_include": mesh_ssh_include,
        }
