# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: whole versions or none, whoever is killed and whoever comes at the same time.

Who is killed is a real process, killed at one operation on files after the other. Python tells of each before it is made:
https://docs.python.org/3/library/audit_events.html
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import manifest, work
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.store import Store
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.versions import Version

from tests import image_builds
from tests.image_builds import NAME, NOW, admit, there


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


@pytest.fixture
def three(store: Store) -> Store:
    return image_builds.three(store.root)


MOST_POINTS = 400


def watched(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an event is one that changes files. (Opening one to read is told as well.)"""
    if event == "open":
        return bool(isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in (
        "os.rename",
        "os.link",
        "os.symlink",
        "os.mkdir",
        "os.remove",
        "os.rmdir",
        "os.truncate",
        "shutil.copyfile",
        "shutil.rmtree",
        "fcntl.flock",
    )


def run_and_kill(task: Callable[[], object], point: int) -> bool:
    """Do it in a process of its own that is killed before so many operations; whether it was."""
    child = os.fork()
    if child == 0:
        left = point

        def kill(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if watched(event, arguments):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(kill)
            task()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "see the output"
    return False


def every_point(original: Store, task: Callable[[Store], object]) -> Iterator[Store]:
    """A copy of the store for each point at which the task was killed."""
    for point in range(1, MOST_POINTS):
        folder = original.root.with_name(f"killed-{point}")
        shutil.copytree(original.root, folder, symlinks=True)
        copy = Store(folder)
        killed = run_and_kill(lambda store=copy: task(store), point)
        if not killed:
            assert point > 3, "hardly anything was done"
            shutil.rmtree(folder)
            return
        yield copy
        shutil.rmtree(folder)
    raise AssertionError("it never ended")


def assert_intact(store: Store) -> None:
    """That whatever has a name is whole."""
    for version in store.versions(NAME):
        store.verify(NAME, version)
    current = store.current(NAME)
    assert current is not None, "there is always one to use"
    names = {each.name for each in (store.root / NAME).iterdir() if not each.name.startswith(".")}
    assert names <= {"current", "previous", *(f"gpu-box-v{version}" for version in there(store))}


def assert_swept(store: Store) -> None:
    assert store.sweep()[1] == []
    assert list(store.work.iterdir()) == []
    hidden = {each.name for each in (store.root / NAME).iterdir() if each.name.startswith(".")}
    assert hidden == {".lock"}


def test_a_build_that_is_killed_at_any_point_leaves_a_store_that_is_intact(three: Store) -> None:
    points = 0
    for store in every_point(three, lambda store: admit(store, recipe="d")):
        points += 1
        assert_intact(store)
        assert set(there(store)) >= {"1.1.0", "1.2.0"}
        admitted = admit(store, recipe="d")
        assert str(admitted.bump.version) == "1.3.0"
        assert_intact(store)
        assert there(store) == ["1.1.0", "1.2.0", "1.3.0"]
        # Also where the killed one was the last to write: what it had announced is ended.
        assert (str(store.current(NAME)), str(store.previous(NAME))) == ("1.3.0", "1.2.0")
        assert_swept(store)
    assert points >= 20


def test_going_back_that_is_killed_at_any_point_has_gone_back_or_not(three: Store) -> None:
    for store in every_point(three, lambda store: store.make_current(NAME, Version(1, 0, 0))):
        assert_intact(store)
        assert str(store.current(NAME)) in ("1.0.0", "1.2.0")
        store.make_current(NAME, Version(1, 0, 0))
        assert str(store.current(NAME)) == "1.0.0"
        assert_intact(store)


def test_removing_that_is_killed_at_any_point_leaves_no_half_version(three: Store) -> None:
    for store in every_point(three, lambda store: store.prune(NAME, 1)):
        assert_intact(store)
        store.prune(NAME, 1)
        assert there(store) == ["1.1.0", "1.2.0"]
        assert_swept(store)


def test_sweeping_that_is_killed_at_any_point_is_ended_by_the_next(three: Store) -> None:
    assert run_and_kill(lambda: admit(three, recipe="d"), 20)
    assert len(list(three.work.iterdir())) == 2
    for store in every_point(three, Store.sweep):
        assert_swept(store)
        assert_intact(store)


def test_a_build_that_is_killed_from_outside_leaves_a_store_that_is_intact(three: Store) -> None:
    """As above, but wherever it may be, and not only before an operation on files."""
    for number in range(20):
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(go, b".")
            for recipe in range(1000):
                admit(three, recipe=f"{number}-{recipe}")
            os._exit(1)
        os.read(ready, 1)
        # Some work of ours that takes a little longer each time, rather than a time.
        for _each in range(number * 3):
            assert_intact_enough(three)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(go)
        assert_intact(three)
        admit(three, recipe=f"after-{number}")
        assert_intact(three)
        assert_swept(three)


def assert_intact_enough(store: Store) -> None:
    """What a reader may rely on who holds no lock: the current version can be read."""
    path = store.root / NAME / "current" / manifest.FILE
    assert json.loads(path.read_bytes())["name"] == NAME


def at_once(tasks: list[Callable[[], object]]) -> None:
    """Do all of it, each in a process of its own."""
    children = []
    for task in tasks:
        child = os.fork()
        if child == 0:
            try:
                task()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)


def test_builds_at_the_same_time_do_not_mix(store: Store) -> None:
    recipes = [f"r{number}" for number in range(8)]
    at_once([lambda recipe=recipe: admit(store, recipe, recipe=recipe, keep=99) for recipe in recipes])
    assert there(store) == [f"1.{minor}.0" for minor in range(8)]
    held = {
        store.manifest(NAME, version).identity.layers[1].recipe: store.disk(NAME, version).read_bytes()
        for version in store.versions(NAME)
    }
    assert held == {recipe: image_builds.QCOW2 + recipe.encode() for recipe in recipes}
    assert str(store.current(NAME)) == "1.7.0"
    assert_intact(store)
    assert_swept(store)


def test_the_same_build_at_the_same_time_is_one_version(store: Store) -> None:
    at_once([lambda number=number: admit(store, str(number)) for number in range(6)])
    assert there(store) == ["1.0.0"]
    assert_intact(store)
    assert_swept(store)


def test_builds_under_way_are_not_swept(store: Store) -> None:
    mine = image_builds.build(store.root)
    of_another_machine = work.open_folder(store.work, NAME)
    record = json.loads((of_another_machine / work.RECORD).read_text())
    (of_another_machine / work.RECORD).write_text(json.dumps({**record, "boot": "another", "pid": 1 << 30}))
    nobody_knows = store.work / "nobody-knows"
    nobody_knows.mkdir()
    assert store.sweep() == ([], [])
    assert {mine, of_another_machine, nobody_knows} == set(store.work.iterdir())


def test_a_process_with_the_number_of_one_that_is_gone_is_another(store: Store) -> None:
    folder = image_builds.build(store.root)
    record = json.loads((folder / work.RECORD).read_text())
    (folder / work.RECORD).write_text(json.dumps({**record, "start_ticks": record["start_ticks"] - 1}))
    assert store.sweep() == ([folder.name], [])


@pytest.mark.parametrize("record", ["", '{"pid": 1}', '{"boot": "another", "pid": 1, "start_ticks": 1}'])
def test_what_belongs_to_nobody_known_goes_when_nothing_happens_in_it_any_more(
    store: Store, record: str
) -> None:
    folder = work.open_folder(store.work, NAME)
    (folder / work.RECORD).write_text(record)
    long_ago = NOW.timestamp() - 365 * 86400
    for path in (folder / work.RECORD, folder):
        os.utime(path, (long_ago, long_ago))
    assert store.sweep() == ([folder.name], [])


def test_a_work_folder_is_its_owners_alone(store: Store) -> None:
    folder = work.open_folder(store.work, NAME)
    assert (folder.stat().st_mode & 0o777, store.work.stat().st_mode & 0o777) == (0o700, 0o700)
    record = json.loads((folder / work.RECORD).read_text())
    assert (record["pid"], record["name"]) == (os.getpid(), NAME)
    assert record["start_ticks"] == work.start_ticks(os.getpid())


def test_a_process_that_ended_and_was_not_waited_for_is_gone() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert work.start_ticks(child) is None
    os.waitpid(child, 0)
    assert work.start_ticks(child) is None


ASKS = """
import subprocess, sys
asked = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import work; print(work.builder())", sys.argv[-1]]
# As Ansible runs a module: by a shell that ends with it.
print(subprocess.Popen(["sh", "-c", '"$@"; true', "sh", *asked], stdout=subprocess.PIPE).communicate()[0].decode().strip())
"""


@pytest.mark.parametrize(
    "command",
    [
        ["bin/ansible-playbook"],
        ["bin/.ansible-playbook-wrapped", "image.yml"],
        ["-m", "ansible", "playbook"],
        ["-m", "ansible.cli.playbook"],
    ],
)
def test_a_build_belongs_to_the_playbook_however_it_is_called(tmp_path: Path, command: list[str]) -> None:
    for name in (
        "bin/ansible-playbook",
        "bin/.ansible-playbook-wrapped",
        "ansible/__main__.py",
        "ansible/cli/playbook.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ASKS)
    for name in ("ansible", "ansible/cli"):
        (tmp_path / name / "__init__.py").touch()
    running = subprocess.Popen(
        [sys.executable, *command, str(Path(work.__file__).parent)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _nothing = running.communicate(timeout=60)
    assert int(said) == running.pid
