# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection into a container, through Ansible's own loader, with a client of an engine that is a small script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleFileNotFound
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

# Does what `docker exec --interactive NAME COMMAND...` does, here; a container with another name does not run.
ENGINE = """#!/bin/sh
test "$1 $2" = "exec --interactive" || exit 64
if [ "$3" != box ]; then echo "Error response from daemon: No such container: $3" >&2; exit 1; fi
shift 3
exec "$@"
"""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    client = tmp_path / "engine"
    client.write_text(ENGINE)
    client.chmod(0o755)
    return client


def connection(engine: Path | str, container: str = "box") -> Any:
    found = connection_loader.get("gpumesh.fleet.container", PlayContext(), "/dev/null")
    found.set_options(
        var_options={
            "inventory_hostname": "golden",
            "gpumesh_container": container,
            "gpumesh_container_engine": str(engine),
        }
    )
    return found


def test_a_command_has_its_input_and_keeps_its_status(engine: Path) -> None:
    one = connection(engine)
    one._connect()
    assert one.exec_command("cat; echo complaint >&2; exit 3", in_data=b"given") == (
        3,
        b"given",
        b"complaint\n",
    )


def test_a_command_without_input_does_not_wait_for_the_terminal(engine: Path) -> None:
    assert connection(engine).exec_command("cat") == (0, b"", b"")


def test_what_fails_in_the_container_is_no_lost_connection(engine: Path) -> None:
    status, _out, said = connection(engine).exec_command("echo 'Error: no such file' >&2; exit 1")
    assert (status, said) == (1, b"Error: no such file\n")


def test_files_go_both_ways_whatever_they_are_called(engine: Path, tmp_path: Path) -> None:
    one = connection(engine)
    source, there, back = tmp_path / "source", tmp_path / "it's $(id) there", tmp_path / "back"
    source.write_bytes(bytes(range(256)) * 1000)
    one.put_file(str(source), str(there))
    one.fetch_file(str(there), str(back))
    assert back.read_bytes() == source.read_bytes()


def test_a_file_that_cannot_be_written_or_read_is_named(engine: Path, tmp_path: Path) -> None:
    one = connection(engine)
    with pytest.raises(AnsibleFileNotFound, match="/not/here"):
        one.put_file("/not/here", "/there")
    with pytest.raises(AnsibleConnectionFailure, match="/no/folder/file cannot be written"):
        one.put_file(__file__, "/no/folder/file")
    with pytest.raises(AnsibleConnectionFailure, match="/no/such/file cannot be read"):
        one.fetch_file("/no/such/file", str(tmp_path / "back"))


def test_a_container_that_does_not_run_is_a_lost_connection(engine: Path) -> None:
    with pytest.raises(AnsibleConnectionFailure) as caught:
        connection(engine, "gone").exec_command("true")
    assert "container gone cannot be reached" in str(caught.value)
    assert "ps' shows what runs" in str(caught.value)


def test_a_missing_engine_is_named() -> None:
    with pytest.raises(AnsibleConnectionFailure, match="There is no /no/such/engine in the PATH"):
        connection("/no/such/engine").exec_command("true")
