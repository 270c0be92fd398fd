# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet and its mesh as data, and the mesh as a table. Each filter is documented in the YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._fleet.mesh import mesh_table as table


def _named(filter_name: str, variables: Any, hosts: Any) -> list[str]:
    if not isinstance(variables, Mapping):
        raise AnsibleFilterError(f"{filter_name}: give it hostvars")
    if isinstance(hosts, str) or not isinstance(hosts, Sequence):
        raise AnsibleFilterError(f"{filter_name}: name the hosts in a list, such as groups['fleet']")
    if absent := [host for host in hosts if host not in variables]:
        raise AnsibleFilterError(f"{filter_name}: no host is named {', '.join(map(str, absent))}")
    return [str(host) for host in hosts]


FACTS = (
    "provider",
    "state",
    "simulated",
    "stale",
    "public_ip",
    "gpu_model",
    "gpu_count",
    "hourly_usd",
    "monthly_usd",
)


def fleet_status(variables: Any, hosts: Any) -> list[dict[str, Any]]:
    """Every machine with what its cloud says of it."""
    named = _named("fleet_status", variables, hosts)
    return [
        {
            "name": host,
            "address": variables[host].get("ansible_host"),
            **{fact: variables[host].get(f"fleet_{fact}") for fact in FACTS},
        }
        for host in named
    ]


def mesh_peers(variables: Any, hosts: Any, external: bool = True) -> dict[str, str]:
    """The mesh addresses of members that should answer."""
    return table.peers(variables, _named("mesh_peers", variables, hosts), external=external)


def mesh_status(variables: Any, hosts: Any, undeclared: Any = ()) -> dict[str, Any]:
    """Every member with its state, and what was measured."""
    declared = _named("mesh_status", variables, hosts)
    strangers = _named("mesh_status", variables, undeclared)
    return table.status(variables, declared, strangers, datetime.now(UTC))


def mesh_table(found: Any) -> list[str]:
    """The same for people."""
    if not isinstance(found, Mapping) or "members" not in found:
        raise AnsibleFilterError("mesh_table: give it what the filter gpumesh.fleet.mesh_status made")
    return table.lines(found)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {
            "fleet_status": fleet_status,
            "mesh_peers": mesh_peers,
            "mesh_status": mesh_status,
            "mesh_table": mesh_table,
        }
