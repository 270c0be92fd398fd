# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The table at the end of a run, documented in the YAML file beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._fleet import status_table


def fleet_table(variables: Any, hosts: Any) -> list[str]:
    """One line a machine, and what they cost together."""
    if not isinstance(variables, Mapping):
        raise AnsibleFilterError("fleet_table: give it hostvars")
    if isinstance(hosts, str) or not isinstance(hosts, Sequence):
        raise AnsibleFilterError("fleet_table: name the hosts in a list, such as groups['fleet']")
    if absent := [host for host in hosts if host not in variables]:
        raise AnsibleFilterError(f"fleet_table: no host is named {', '.join(map(str, absent))}")
    return status_table.lines(variables, [str(host) for host in hosts])


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """By name."""
        return {"fleet_table": fleet_table}
