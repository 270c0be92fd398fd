# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The connection plugin gpumesh.fleet.refused: the connection that is never made."""

from __future__ import annotations

DOCUMENTATION = r"""
name: refused
short_description: Refuses to connect, and says why
author:
  - The gpumesh.fleet maintainers (@gpumesh)
description:
  - Connects to nothing. Each attempt ends with one sentence that names the member of the mesh, and says what to do.
  - The inventory plugin P(gpumesh.fleet.fleet#inventory) sets it for members of the mesh that the fleet file does not declare,
    where the fleet file has C(mesh.strict). So no play reaches a machine that nobody vouches for, not even by its name.
  - A host is refused as unreachable. A task that is delegated to another host, or that needs no connection, still runs.
options:
  member:
    description: What to call the host in the sentence.
    type: str
    default: this host
    vars:
      - name: inventory_hostname
  node_id:
    description: Its ZeroTier node id.
    type: str
    vars:
      - name: fleet_mesh_node_id
  fleet:
    description: The fleet that does not declare it.
    type: str
    vars:
      - name: fleet_name
"""

from typing import Any, NoReturn

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase


class Connection(ConnectionBase):
    """Never connected."""

    transport = "gpumesh.fleet.refused"
    has_pipelining = False

    def _connect(self) -> NoReturn:
        """Refuse."""
        node, fleet = self.get_option("node_id"), self.get_option("fleet")
        what = f"the node {node}" if node else "a node"
        of = f"the fleet {fleet} does" if fleet else "the fleet file does"
        advice = (
            f"Declare it (provider: external, node_id: {node})" if node else "Declare it with its node_id"
        )
        raise AnsibleConnectionFailure(
            f"{self.get_option('member')} is {what} of the mesh that {of} not declare, so no connection is made to it. "
            f"{advice}, or shut it out with playbooks/mesh.yml."
        )

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> NoReturn:
        """Refuse to run a command."""
        self._connect()

    def put_file(self, in_path: str, out_path: str) -> NoReturn:
        """Refuse to write a file."""
        self._connect()

    def fetch_file(self, in_path: str, out_path: str) -> NoReturn:
        """Refuse to read a file."""
        self._connect()

    def close(self) -> None:
        """Nothing was opened."""

    def reset(self) -> Any:
        """Nothing to begin anew."""
