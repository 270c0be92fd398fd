# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection that is never made, through Ansible's own loader and with the variables a host has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import hosts


def connection(**variables: str) -> Any:
    found = connection_loader.get(hosts.REFUSED, PlayContext(), "/dev/null")
    found.set_options(var_options=variables)
    return found


ASKS: dict[str, Callable[[Any], Any]] = {
    "connect": lambda one: one._connect(),
    "run": lambda one: one.exec_command("id"),
    "write": lambda one: one.put_file("/a", "/b"),
    "read": lambda one: one.fetch_file("/a", "/b"),
}


@pytest.mark.parametrize("ask", ASKS)
def test_whatever_is_asked_is_refused_with_a_sentence(ask: str) -> None:
    one = connection(
        inventory_hostname="mesh_8046d53400", fleet_mesh_node_id="8046d53400", fleet_name="minerals"
    )
    with pytest.raises(AnsibleConnectionFailure) as caught:
        ASKS[ask](one)
    assert str(caught.value) == (
        "mesh_8046d53400 is the node 8046d53400 of the mesh that the fleet minerals does not declare, so no connection "
        "is made to it. Declare it (provider: external, node_id: 8046d53400), or shut it out with playbooks/mesh.yml."
    )
    assert not one.connected


def test_it_refuses_without_knowing_whom() -> None:
    with pytest.raises(AnsibleConnectionFailure, match="this host is a node of the mesh"):
        connection()._connect()


def test_it_ends_without_having_begun() -> None:
    one = connection()
    one.reset()
    one.close()
    assert not one.connected
