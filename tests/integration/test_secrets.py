# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret comes out: not at -vvvv, not in an argument list, not in a fact, not in a file that others can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.tests.fleets import gcp, hetzner, write_fleet

from sandbox.testing import Sandbox, serve

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PRIVATE_KEY = "OPENSSH PRIVATE KEY"
"""Stands in the one-time host keys, which only ever travel inside user data."""
ACCESS_TOKEN = "ya29."
"""How a token of Google's begins."""
TELLTALES = (PRIVATE_KEY, ACCESS_TOKEN)
PLAY = """\
- name: What playbooks/provision.yml does before it meets the machines, which are virtual here
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Plan
      gpumesh.fleet.fleet: {fleet_file: "{{ fleet_file }}"}
      register: plan
    - name: Apply
      gpumesh.fleet.fleet: {fleet_file: "{{ fleet_file }}", state: applied, approved_digest: "{{ plan.digest }}"}
      register: result
    - name: Show everything there is to show
      ansible.builtin.debug:
        var: result
"""


@dataclass
class Watch:
    """The argument lists of all processes, looked at over and over while something runs."""

    seen: set[str] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue  # It has ended.


@dataclass(frozen=True)
class Run:
    """A fleet provisioned at -vvvv, and all it left to look at."""

    folder: Path
    output: str
    arguments: frozenset[str]
    secrets: tuple[str, ...]
    environ: dict[str, str]


def command(folder: Path, environ: dict[str, str], *words: str) -> str:
    """Everything a command prints, which must succeed."""
    done = subprocess.run(
        words, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def planted(sandbox: Sandbox) -> tuple[str, ...]:
    """The secrets of this run: the Hetzner token, and lines of the service account's private key."""
    key = json.loads(sandbox.google_credentials.read_text())["private_key"]
    return (sandbox.hetzner_token, *(line for line in key.splitlines() if line and not line.startswith("-")))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("secrets")
    home = tmp_path_factory.mktemp("home")
    old = os.umask(0o022)  # The usual one: whatever is to be private has to say so itself.
    try:
        with serve(operation_seconds=0.1) as sandbox, Watch() as watch:
            file = write_fleet(folder, sandbox, {"ore": hetzner(), "tin": gcp()})
            # As the README has it; a token written into the file is for its writer to hide.
            file.write_text(
                file.read_text().replace(sandbox.hetzner_token, "'{{ lookup(''env'', ''HCLOUD_TOKEN'') }}'")
            )
            environ = {
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                "HOME": str(home),
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_LOG_PATH": str(folder / "ansible.log"),
                "HCLOUD_TOKEN": sandbox.hetzner_token,
            }
            play = folder / "play.yml"
            play.write_text(PLAY)
            output = command(
                folder, environ,
                "ansible-playbook", "-vvvv", "--diff", "-i", str(file), str(play),
            )  # fmt: skip
            output += command(folder, environ, "ansible-inventory", "-vvvv", "-i", str(file), "--list")
            secrets = planted(sandbox)
            assert len(sandbox.machines()) == 2
        yield Run(folder, output, frozenset(watch.seen), secrets, environ)
    finally:
        os.umask(old)


def test_the_run_had_something_to_hide(run: Run) -> None:
    """Otherwise the other tests would prove nothing."""
    assert len(run.secrets) > 10
    assert any("ansible-playbook" in arguments for arguments in run.arguments)
    assert "needs_approval" in run.output
    assert "gpumesh-hostkey" in run.output
    assert (run.folder / "ansible.log").stat().st_size > 1000


def test_no_secret_is_printed_at_the_highest_verbosity(run: Run) -> None:
    shown = [secret for secret in (*run.secrets, *TELLTALES) if secret in run.output]
    assert shown == []


def test_no_secret_is_in_the_log(run: Run) -> None:
    log = (run.folder / "ansible.log").read_text()
    assert [secret for secret in (*run.secrets, *TELLTALES) if secret in log] == []


def test_no_secret_is_in_an_argument_list(run: Run) -> None:
    told = [text for text in run.arguments for secret in (*run.secrets, *TELLTALES) if secret in text]
    assert told == []


def test_no_secret_is_in_a_file_that_others_can_read(run: Run) -> None:
    readable = [
        path
        for folder in (run.folder, Path(run.environ["HOME"]))
        for path in folder.rglob("*")
        if path.is_file() and path.stat().st_mode & 0o077
    ]
    assert readable, "at least the log is readable, or nothing was looked at"
    leaks = [
        str(path)
        for path in readable
        for secret in (*run.secrets, *TELLTALES)
        if secret in path.read_text(errors="replace")
    ]
    assert leaks == []
