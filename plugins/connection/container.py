# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The connection plugin gpumesh.fleet.container: into a container on the control machine, as root, with no network between."""

from __future__ import annotations

DOCUMENTATION = r"""
name: container
short_description: Run tasks in a container on the control machine
author:
  - The gpumesh.fleet maintainers (@gpumesh)
description:
  - Runs tasks as root in a container of the control machine's container engine, through its command line client.
  - It is how P(gpumesh.fleet.golden_image#role) reaches the machine that it builds. There is no SSH server, key or password in
    between, so none can be left in an image.
options:
  container:
    description: Name or id of the container. It has to run.
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
      - name: gpumesh_container
  engine:
    description: The client of the container engine, by name or path.
    type: str
    default: docker
    vars:
      - name: gpumesh_container_engine
"""

import shlex
import subprocess
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.connection import ConnectionBase


class Connection(ConnectionBase):
    """A shell in the container for each command; files travel over its standard input and output."""

    transport = "gpumesh.fleet.container"
    has_pipelining = True
    # Always root already.
    default_user = "root"

    def _connect(self) -> Connection:
        """Nothing is opened: each command is a process of its own."""
        self._connected = True
        return self

    def _command(self, *command: str) -> list[str]:
        return [self.get_option("engine"), "exec", "--interactive", self.get_option("container"), *command]

    def _run(self, command: list[str], data: bytes | None = None) -> tuple[int, bytes, bytes]:
        """Exit status, standard output and standard error.

        Raises:
            AnsibleConnectionFailure: there is no engine, or the container does not run.
        """
        # Never the terminal: an empty input is an end of file there as well.
        try:
            done = subprocess.run(command, check=False, capture_output=True, input=data or b"")  # noqa: S603
        except FileNotFoundError as error:
            raise AnsibleConnectionFailure(
                f"There is no {command[0]} in the PATH, so the container cannot be reached. Install it, or name the client in "
                "gpumesh_container_engine."
            ) from error
        # What docker says itself; podman's own failures have an exit status that commands have not.
        if done.returncode and (
            done.returncode == 125 or done.stderr.startswith(b"Error response from daemon")
        ):
            reason = to_text(done.stderr, errors="surrogate_or_replace").strip()
            raise AnsibleConnectionFailure(
                f"The container {self.get_option('container')} cannot be reached: {reason}. '{command[0]} ps' shows what runs."
            )
        return done.returncode, done.stdout, done.stderr

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Run a command line with the container's shell."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._run(self._command("/bin/sh", "-c", cmd), in_data)

    def put_file(self, in_path: str, out_path: str) -> None:
        """Write a file of the control machine into the container."""
        super().put_file(in_path, out_path)
        try:
            content = Path(in_path).read_bytes()
        except FileNotFoundError as error:
            raise AnsibleFileNotFound(f"{in_path} is not there.") from error
        status, _out, said = self._run(
            self._command("/bin/sh", "-c", f"cat > {shlex.quote(out_path)}"), content
        )
        if status:
            raise AnsibleConnectionFailure(
                f"{out_path} cannot be written in the container: {to_text(said).strip()}"
            )

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Read a file of the container."""
        super().fetch_file(in_path, out_path)
        status, content, said = self._run(self._command("cat", in_path))
        if status:
            raise AnsibleConnectionFailure(
                f"{in_path} cannot be read in the container: {to_text(said).strip()}"
            )
        Path(out_path).write_bytes(content)

    def close(self) -> None:
        """Nothing stays open."""
        self._connected = False

    def reset(self) -> None:
        """Nothing to begin anew."""
