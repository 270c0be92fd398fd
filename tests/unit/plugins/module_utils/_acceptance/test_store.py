# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs are kept whole, found again, and never made two at a time."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import store
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.document import to_document

from tests.acceptance_runs import BEGIN, entry, problems, run

WRITER = """
import sys
from pathlib import Path
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import store
while True:
    store.write_text(Path(sys.argv[1]), '"' + "x" * 100_000 + '"')
"""


def test_a_run_is_read_as_it_was_written(tmp_path):
    one = run(entry())
    store.write(tmp_path, one)
    read, document = store.read(tmp_path / "run.json")

    assert document == to_document(one)
    assert read.entries == one.entries
    assert problems(document) == []
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_write_that_fails_leaves_the_old_one(tmp_path):
    store.write(tmp_path, run(entry("before")))
    (tmp_path / "taken").mkdir()
    with pytest.raises(store.StoreError, match="cannot be written"):
        store.write_text(tmp_path / "taken", "x")
    with pytest.raises(ValueError, match="Out of range float values"):
        store.write_text(tmp_path / "run.json", json.dumps(float("nan"), allow_nan=False))

    assert store.read(tmp_path / "run.json")[0].entries[0].name == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "taken"]


def test_a_folder_is_named_by_time_and_suite(tmp_path):
    folders = [store.new_folder(tmp_path, "quick", BEGIN).name for _ in range(3)]

    assert folders == ["20251127T104000Z-quick", "20251127T104000Z-quick-2", "20251127T104000Z-quick-3"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(store.StoreError, match=r"cannot be written: Not a directory\. Name another place"):
        store.new_folder(tmp_path / "file", "quick", BEGIN)


def test_a_run_is_found_by_id_folder_file_and_as_the_latest(tmp_path):
    old, new = (store.new_folder(tmp_path, "quick", BEGIN + more) for more in (0, 60))
    for number, folder in enumerate((old, new)):
        store.write(folder, run(entry()))
        os.utime(folder / "run.json", (BEGIN + number, BEGIN + number))

    assert store.find(tmp_path, old.name) == old / "run.json"
    assert store.find(tmp_path, str(old)) == old / "run.json"
    assert store.find(tmp_path, str(old / "run.json")) == old / "run.json"
    assert store.find(tmp_path, "latest") == new / "run.json"


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(store.StoreError, match="there is no run x"):
        store.find(tmp_path, "x")
    with pytest.raises(store.StoreError, match="there is no run in"):
        store.find(tmp_path, "latest")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is no JSON"),
        ("{}", "it is not the document of a run"),
        ('{"schema": 9}', "schema 9"),
        ("\udcff", "is no JSON"),
    ],
    ids=["cut", "other", "newer", "bytes"],
)
def test_a_file_that_is_no_run(tmp_path, content, says):
    path = tmp_path / "run.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(store.StoreError, match=says):
        store.read(path)


def test_a_second_run_is_refused(tmp_path):
    lock = tmp_path / "lock"
    with (
        store.alone(lock),
        pytest.raises(
            store.StoreError, match=rf"another run .* is going on on this machine \(process {os.getpid()}\)"
        ),
        store.alone(lock),
    ):
        pass
    with store.alone(lock):
        pass


def test_a_lock_of_a_process_that_was_killed_blocks_nobody(tmp_path):
    lock = tmp_path / "lock"
    script = "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", script, lock], stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(store.StoreError), store.alone(lock):
        pass
    holder.kill()
    holder.communicate()

    with store.alone(lock):
        pass


def test_the_lock_may_be_another_users_file(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text("123456\n")
    lock.chmod(0o444)
    with store.alone(lock), lock.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_is_no_link_to_somewhere_else(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").write_text("precious")
    with (
        pytest.raises(store.StoreError, match=r"the lock .* cannot be opened"),
        store.alone(tmp_path / "lock"),
    ):
        pass

    assert (tmp_path / "precious").read_text() == "precious"


def test_whoever_reads_meanwhile_finds_a_whole_document(tmp_path):
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            WRITER,
            tmp_path / "run.json",
        ],
        env={**os.environ, "PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"].split(":")[0]},
    )
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "run.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        for _ in range(300):
            assert len(json.loads((tmp_path / "run.json").read_text())) == 100_000
    finally:
        # As a kill -9 or a loss of power would: in the midst of it.
        writer.kill()
        writer.wait()
    assert len(json.loads((tmp_path / "run.json").read_text())) == 100_000
