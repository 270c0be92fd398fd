# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters over ZeroTier ids. Each is documented in the YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._fleet import addresses

_FORMS = {"rfc4193": addresses.rfc4193, "6plane": addresses.sixplane}


def mesh_address(node: Any, network: Any, form: str = "rfc4193", prefix: bool = False) -> str:
    """The address of a node in a network."""
    if form not in _FORMS:
        raise AnsibleFilterError(f"mesh_address: form is rfc4193 or 6plane, not {form}")
    try:
        address = _FORMS[form](str(network), str(node))
    except ValueError as exc:
        raise AnsibleFilterError(f"mesh_address: {exc}; got node {node} and network {network}") from exc
    return str(address if prefix else address.ip)


def mesh_controller(network: Any) -> str:
    """The node id of the controller of a network."""
    try:
        return addresses.controller(str(network))
    except ValueError as exc:
        raise AnsibleFilterError(f"mesh_controller: {exc}; got {network}") from exc


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """By name."""
        return {"mesh_address": mesh_address, "mesh_controller": mesh_controller}
