# SPDX-License-Identifier: GPL-3.0-or-later
"""Environments are built beside each other from locks with hashes, by the real uv, and a link says which one is in use."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import framework_environments
from ansible_collections.gpumesh.fleet.plugins.modules import framework_environment, framework_lock

from tests.little_wheels import Gate, index, lock, wheel
from tests.module_runner import run_module

ROOT = Path(__file__).parents[4]
UV = shutil.which("uv", path=os.environ.get("PATH", "") + os.pathsep + str(Path(sys.executable).parent))

pytestmark = pytest.mark.skipif(UV is None, reason="there is no uv here; requirements-dev.txt has it")


class Frameworks:
    """A root with a folder of wheels beside it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "frameworks"
        self.wheels = folder / "wheels"
        self.wheels.mkdir()

    def wheel(self, name: str, version: str, requires: tuple[str, ...] = (), content: str = "") -> Path:
        return wheel(self.wheels, name, version, requires, content)

    def options(self, **more: Any) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "python": sys.executable,
            "uv": UV,
            "wheels": str(self.wheels),
            "offline": True,
            **more,
        }

    def put(self, framework: str, *wheels: Path, check: bool = False, **more: Any) -> dict[str, Any]:
        """Have a framework in the version of the first wheel."""
        name = wheels[0].name.split("-")[1] + "-cpu"
        return run_module(
            framework_environment.main,
            check=check,
            **self.options(framework=framework, name=name, lock=lock(*wheels), **more),
        )

    def says(self, framework: str, code: str) -> str:
        """What the framework's own Python says, called through the link."""
        done = subprocess.run(
            [str(self.root / framework / "bin" / "python"), "-c", code],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def environments(self, framework: str) -> list[str]:
        folder = self.root / "envs" / framework
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def frameworks(tmp_path: Path) -> Frameworks:
    return Frameworks(tmp_path)


def test_an_environment_is_built_once_and_linked(frameworks: Frameworks) -> None:
    little = frameworks.wheel("little", "1.0")
    first = frameworks.put("jax", little)
    assert first["changed"], first
    assert first["key"].startswith("1.0-cpu-")
    assert first["packages"] == {"little": "1.0"}
    assert frameworks.says("jax", "import little; print(little.VERSION)") == "1.0"
    assert os.readlink(frameworks.root / "jax") == f"envs/jax/{first['key']}"
    second = frameworks.put("jax", little)
    assert (second["changed"], second["did"], second["key"]) == (False, [], first["key"])


def test_check_mode_says_what_comes_and_touches_nothing(frameworks: Frameworks) -> None:
    little = frameworks.wheel("little", "1.0")
    predicted = frameworks.put("jax", little, check=True)
    assert not frameworks.root.exists()
    done = frameworks.put("jax", little)
    assert (predicted["did"], predicted["key"]) == (done["did"], done["key"])
    assert predicted["diff"] == done["diff"]


def test_a_newer_one_is_built_beside_the_old_and_the_link_goes_back(frameworks: Frameworks) -> None:
    old = frameworks.put("jax", frameworks.wheel("little", "1.0"))["key"]
    newer = frameworks.put("jax", frameworks.wheel("little", "2.0"))
    assert (newer["before"], newer["kept"]) == (old, [old])
    assert frameworks.says("jax", "import little; print(little.VERSION)") == "2.0"
    back = run_module(framework_environment.main, **frameworks.options(framework="jax", key=old))
    assert back["did"] == [f"put {old} into use instead of {newer['key']}"]
    assert frameworks.says("jax", "import little; print(little.VERSION)") == "1.0"
    assert (
        run_module(framework_environment.main, **frameworks.options(framework="jax", key=old))["changed"]
        is False
    )


def test_as_many_old_ones_are_kept_as_asked_for_the_last_used_first(frameworks: Frameworks) -> None:
    one, two, three = (frameworks.wheel("little", version) for version in ("1.0", "2.0", "3.0"))
    keys = [frameworks.put("jax", each, keep=2)["key"] for each in (two, one)]
    frameworks.put("jax", two, keep=2)
    last = frameworks.put("jax", three, keep=1)
    assert last["did"][-1] == f"remove {keys[1]}"
    assert frameworks.environments("jax") == sorted([keys[0], last["key"]])
    alone = frameworks.put("jax", three, keep=0)
    assert alone["did"] == [f"remove {keys[0]}"]


def test_the_one_in_use_is_kept_rather_than_a_later_one_that_never_was(frameworks: Frameworks) -> None:
    one, two, three = (frameworks.wheel("little", version) for version in ("1.0", "2.0", "3.0"))
    used = frameworks.put("jax", one)["key"]
    frameworks.put("jax", two, use=False)
    never = next(name for name in frameworks.environments("jax") if name != used)
    frameworks.put("jax", three, use=False)
    predicted = frameworks.put("jax", three, check=True)
    done = frameworks.put("jax", three)
    assert done["did"] == [f"put {done['key']} into use instead of {used}", f"remove {never}"]
    assert predicted["did"] == done["did"]
    assert frameworks.environments("jax") == sorted([used, done["key"]])


def test_one_that_is_gone_is_no_way_back(frameworks: Frameworks) -> None:
    there = frameworks.put("jax", frameworks.wheel("little", "1.0"))["key"]
    refused = run_module(framework_environment.main, **frameworks.options(framework="jax", key="0.9-cpu-0"))
    assert refused["failed"]
    assert refused["msg"] == f"0.9-cpu-0 of jax is not there to go back to; there is {there}"


def test_a_wheel_with_another_hash_is_refused_and_what_was_in_use_stays(frameworks: Frameworks) -> None:
    before = frameworks.put("jax", frameworks.wheel("little", "1.0"))["key"]
    newer = frameworks.wheel("little", "2.0")
    good = lock(newer)
    frameworks.wheel("little", "2.0", content="VERSION = 'somebody else'\n")
    refused = run_module(
        framework_environment.main, **frameworks.options(framework="jax", name="2.0-cpu", lock=good)
    )
    assert refused["failed"]
    assert "a wheel is not the one that the lock names" in refused["msg"]
    assert frameworks.says("jax", "import little; print(little.VERSION)") == "1.0"
    assert os.readlink(frameworks.root / "jax") == f"envs/jax/{before}"
    # What it has left goes with the next run, and not with an error.
    again = frameworks.put("jax", frameworks.wheel("little", "1.0"))
    assert again["key"] == before
    (frameworks.root / "envs" / "jax" / ".killed.txt").touch()
    assert frameworks.put("jax", frameworks.wheel("little", "1.0"))["did"] == ["remove .killed.txt"]
    assert frameworks.environments("jax") == [before]


def test_what_a_lock_does_not_name_is_not_installed(frameworks: Frameworks) -> None:
    frameworks.wheel("other", "1.0")
    needing = frameworks.wheel("little", "1.0", requires=("other",))
    refused = frameworks.put("jax", needing)
    assert refused["failed"]
    assert "hash" in refused["msg"].lower()
    assert not (frameworks.root / "jax").exists()


def test_wheels_are_stored_once_for_all(frameworks: Frameworks) -> None:
    common = frameworks.wheel("common", "1.0", content="TEXT = '" + "x" * 3_000_000 + "'\n")
    frameworks.put("jax", frameworks.wheel("little", "1.0"), common)
    second = frameworks.put("pytorch", frameworks.wheel("other", "1.0"), common)
    files = [frameworks.root / name / "lib" for name in ("jax", "pytorch")]
    inodes = {next(folder.glob("python3*/site-packages/common.py")).stat().st_ino for folder in files}
    assert len(inodes) == 1
    assert second["disk"]["shared"] >= 3_000_000
    assert second["disk"]["root"] < 2 * 3_000_000 + second["disk"]["environment"]


def test_wheels_that_no_environment_has_leave_the_cache_and_come_again(frameworks: Frameworks) -> None:
    common = frameworks.wheel("common", "1.0", content="TEXT = '" + "x" * 3_000_000 + "'\n")
    one, two = frameworks.wheel("little", "1.0"), frameworks.wheel("little", "2.0")
    full = frameworks.put("jax", one, common)["disk"]["root"]
    frameworks.put("pytorch", one)
    small = frameworks.put("jax", two, keep=0)["disk"]["root"]
    assert small < full - 3_000_000
    again = frameworks.put("jax", one, common)
    assert "failed" not in again, again
    assert again["packages"] == {"common": "1.0", "little": "1.0"}
    assert frameworks.says("jax", "import common; print(len(common.TEXT))") == "3000000"


def test_others_can_read_everything_and_change_nothing(frameworks: Frameworks) -> None:
    before = os.umask(0o077)
    try:
        key = frameworks.put("jax", frameworks.wheel("little", "1.0"))["key"]
    finally:
        os.umask(before)
    # uv makes files in its cache that anybody may write; nobody but root gets there.
    assert (frameworks.root / "cache").stat().st_mode & 0o777 == 0o700
    there = [frameworks.root, *(frameworks.root / "envs").rglob("*")]
    assert frameworks.root / "envs" / "jax" / key / "gpumesh.json" in there
    modes = {path: path.lstat().st_mode & 0o777 for path in there if not path.is_symlink()}
    assert [path for path, mode in modes.items() if mode & 0o022 or not mode & 0o004] == []


def test_variables_hold_in_their_environment_only(frameworks: Frameworks) -> None:
    little = frameworks.wheel("little", "1.0")
    show = "import os; print(os.environ.get('LITTLE_FLAG'))"
    frameworks.put("jax", little, variables={"LITTLE_FLAG": "--data={site}/data"})
    frameworks.put("pytorch", little)
    assert frameworks.says("jax", show).endswith("/site-packages/data")
    assert frameworks.says("pytorch", show) == "None"
    own = subprocess.run(
        [str(frameworks.root / "jax/bin/python"), "-c", show], check=True, capture_output=True, text=True,
        env={**os.environ, "LITTLE_FLAG": "mine"},
    )  # fmt: skip
    assert own.stdout == "mine\n"
    changed = frameworks.put("jax", little, variables={"LITTLE_FLAG": "other"})
    assert [one.partition(" of ")[0] for one in changed["did"]] == ["set the variables"]
    assert frameworks.put("jax", little, variables={})["changed"]
    assert frameworks.says("jax", show) == "None"


def test_one_for_another_python_is_built_beside_the_one_in_use(
    frameworks: Frameworks, tmp_path: Path
) -> None:
    little = frameworks.wheel("little", "1.0")
    before = frameworks.put("jax", little)["key"]
    # The Python that runs this, which says of itself that it is another.
    other = tmp_path / "python"
    other.write_text(
        f'#!/bin/sh\ncase "$*" in *python_version*) echo 3.99.1 ;; *) exec {sys.executable} "$@" ;; esac\n'
    )
    other.chmod(0o755)
    wheel = little.rename(tmp_path / little.name)
    refused = run_module(
        framework_environment.main,
        **frameworks.options(framework="jax", name="1.0-cpu", lock=lock(wheel), python=str(other)),
    )
    assert "nothing that was in use has changed" in refused["msg"]
    assert os.readlink(frameworks.root / "jax") == f"envs/jax/{before}"
    assert frameworks.says("jax", "import little; print(little.VERSION)") == "1.0"
    wheel.rename(little)
    done = frameworks.put("jax", little, python=str(other))
    assert done["did"] == [f"build {done['key']}", f"put {done['key']} into use instead of {before}"]
    assert frameworks.put("jax", little, python=str(other))["changed"] is False
    assert frameworks.put("jax", little)["did"] == [f"put {before} into use instead of {done['key']}"]


def test_the_role_knows_what_an_environment_will_be_called(frameworks: Frameworks, tmp_path: Path) -> None:
    # What the role gives to the module has no line's end at its end, as any file that is looked up.
    text = lock(frameworks.wheel("little", "1.0")).rstrip()
    (tmp_path / "jax.txt").write_text(text + "\n")
    made = run_module(
        framework_environment.main, **frameworks.options(framework="jax", name="1.0-cpu", lock=text)
    )
    variables = {
        "__ai_frameworks_locked": [{"framework": "jax", "name": "1.0-cpu"}],
        "__ai_frameworks_locks": {"jax": str(tmp_path / "jax.txt")},
        "__ai_frameworks_state": {"python": platform.python_version()},
    }
    template = ROOT / "roles" / "ai_frameworks" / "templates" / "keys.json.j2"
    done = subprocess.run(
        ["ansible", "localhost", "-m", "ansible.builtin.template", "-a", f"src={template} dest={tmp_path}/keys.json",
         "-e", json.dumps(variables)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "keys.json").read_text()) == {"jax": made["key"]}


def test_absent_leaves_nothing_of_it_and_the_others_alone(frameworks: Frameworks) -> None:
    little = frameworks.wheel("little", "1.0")
    frameworks.put("jax", little)
    frameworks.put("pytorch", little)
    absent = frameworks.options(framework="jax", state="absent", keep=0)
    gone = run_module(framework_environment.main, **absent)
    assert gone["changed"]
    assert frameworks.environments("jax") == []
    assert not (frameworks.root / "envs" / "jax").exists()
    assert not (frameworks.root / "jax").is_symlink()
    assert frameworks.says("pytorch", "import little; print(little.VERSION)") == "1.0"
    again = run_module(framework_environment.main, **absent)
    assert again["changed"] is False


def test_absent_keeps_what_was_in_use_last_for_the_way_back(frameworks: Frameworks) -> None:
    one, two, three = (frameworks.wheel("little", version) for version in ("1.0", "2.0", "3.0"))
    used = frameworks.put("jax", one)["key"]
    for never in (two, three):
        frameworks.put("jax", never, use=False)
    others = [name for name in frameworks.environments("jax") if name != used]
    (frameworks.root / "envs" / "jax" / "9.0-cpu-half").mkdir()
    absent = frameworks.options(framework="jax", state="absent")
    predicted = run_module(framework_environment.main, check=True, **absent)
    gone = run_module(framework_environment.main, **absent)
    left = ["9.0-cpu-half", *others]
    assert gone["did"] == [f"take {used} out of use", *(f"remove {name}" for name in left)]
    assert predicted["did"] == gone["did"]
    assert (gone["key"], gone["kept"]) == ("", [used])
    assert not (frameworks.root / "jax").is_symlink()
    assert run_module(framework_environment.main, **absent)["changed"] is False
    back = run_module(framework_environment.main, **frameworks.options(framework="jax", key=used))
    assert back["did"] == [f"put {used} into use"]
    assert frameworks.says("jax", "import little; print(little.VERSION)") == "1.0"


def test_a_folder_of_somebody_elses_in_the_place_of_the_link_stays(frameworks: Frameworks) -> None:
    (frameworks.root / "jax").mkdir(parents=True)
    refused = frameworks.put("jax", frameworks.wheel("little", "1.0"))
    assert refused["failed"]
    assert "is no link and was left as it is; move it away" in refused["msg"]


def test_a_cache_of_somebody_elses_stays_as_it_is(frameworks: Frameworks) -> None:
    theirs = frameworks.root / "cache"
    theirs.mkdir(parents=True, mode=0o755)
    (theirs / "picture.png").touch()
    refused = frameworks.put("jax", frameworks.wheel("little", "1.0"))
    assert refused["failed"]
    assert f"{theirs} is of somebody else and was left as it is" in refused["msg"]
    assert theirs.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in frameworks.root.iterdir()] == ["cache"]
    # What was killed before it had its guard has left an empty one, and uv marks its own.
    (theirs / "picture.png").rename(theirs / "CACHEDIR.TAG")
    assert frameworks.put("jax", frameworks.wheel("little", "1.0"))["changed"]
    assert theirs.stat().st_mode & 0o777 == 0o700


def test_killed_while_it_builds_and_run_again(frameworks: Frameworks) -> None:
    before = frameworks.put("jax", frameworks.wheel("little", "1.0"))["key"]
    newer = frameworks.wheel("little", "2.0")
    gate = Gate()
    with index(frameworks.wheels, gate) as url:
        online = frameworks.options(
            framework="jax", name="2.0-cpu", lock=lock(newer), index_url=url, offline=False, wheels=""
        )
        builder = multiprocessing.get_context("fork").Process(
            target=run_module, args=(framework_environment.main,), kwargs=online
        )
        builder.start()
        assert gate.asked.wait(60)
        assert builder.pid
        os.kill(builder.pid, signal.SIGKILL)
        builder.join()
        # Its uv ends with it: nobody holds the guard any more, although the index has not answered.
        with (frameworks.root / ".guard").open() as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
        assert os.readlink(frameworks.root / "jax") == f"envs/jax/{before}"
        assert len(frameworks.environments("jax")) > 1
        gate.open.set()
        again = run_module(framework_environment.main, **online)
    assert again["did"][0] == f"build {again['key']}"
    assert frameworks.says("jax", "import little; print(little.VERSION)") == "2.0"
    assert frameworks.environments("jax") == sorted([before, again["key"]])


@pytest.mark.parametrize("end", ["power", "kill", "unknown"])
def test_a_build_that_lost_its_power_is_not_built_again_from_what_it_left_in_the_cache(
    frameworks: Frameworks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("the first\n")
    monkeypatch.setattr(framework_environments, "BOOT", boot)
    common, other = (
        frameworks.wheel("common", "1.0", content="TEXT = 'whole'\n"),
        frameworks.wheel("other", "1.0"),
    )
    frameworks.put("pytorch", other)
    missing = frameworks.wheel("little", "1.0")
    wanted, away = lock(common, missing), missing.rename(tmp_path / missing.name)
    options = frameworks.options(framework="jax", name="1.0-cpu", lock=wanted)
    assert run_module(framework_environment.main, **options)["failed"]
    away.rename(missing)
    # As far as a build gets that is ended just before it writes its marker.
    done = run_module(framework_environment.main, **{**options, "use": False})
    (half,) = (frameworks.root / "envs" / "jax").glob("1.0-cpu-*")
    (half / "gpumesh.json").unlink()
    note = frameworks.root / "cache" / framework_environments.BEGUN
    assert not note.exists(), done
    if end != "unknown":
        note.write_text("the first\n")
    if end != "kill":
        boot.write_text("the second\n")
        for lost in (frameworks.root / "cache").glob("archive-v*/*/common.py"):
            lost.write_text("")
    theirs = frameworks.root / "envs" / "mine" / "things"
    theirs.mkdir(parents=True)
    kept = next((frameworks.root / "cache").glob("archive-v*/*/common.py")).stat().st_ino
    again = run_module(framework_environment.main, **options)
    assert "failed" not in again, again
    assert frameworks.says("jax", "import common; print(common.TEXT)") == "whole"
    # Who was only killed need not fetch everything again; nor does anybody what is in use elsewhere.
    fetched = next((frameworks.root / "jax").glob("lib/python3*/site-packages/common.py")).stat().st_ino
    assert (fetched == kept) is (end == "kill")
    assert frameworks.says("pytorch", "import other; print(other.VERSION)") == "1.0"
    assert list((frameworks.root / "cache").glob("archive-v*/*/other.py"))
    assert theirs.exists()
    assert not note.exists()


def test_what_a_failed_build_has_fetched_is_in_doubt_until_one_is_whole(frameworks: Frameworks) -> None:
    little = frameworks.wheel("little", "1.0")
    good, away = lock(little), little.rename(frameworks.root.parent / little.name)
    options = frameworks.options(framework="jax", name="1.0-cpu", lock=good)
    assert run_module(framework_environment.main, **options)["failed"]
    note = frameworks.root / "cache" / framework_environments.BEGUN
    assert note.read_text() == framework_environments.BOOT.read_text()
    away.rename(little)
    assert "failed" not in run_module(framework_environment.main, **options)
    assert not note.exists()


def test_what_a_killed_build_left_behind_goes_with_the_next_run(frameworks: Frameworks) -> None:
    little = frameworks.wheel("little", "1.0")
    frameworks.put("jax", little)
    (frameworks.root / "envs" / "jax" / "9.0-cpu-half" / "bin").mkdir(parents=True)
    assert frameworks.put("jax", little)["did"] == ["remove 9.0-cpu-half"]


def test_uv_gets_an_environment_of_its_own_by_pip(frameworks: Frameworks) -> None:
    made = frameworks.put("uv", frameworks.wheel("little", "1.0"), tool="pip")
    assert made["packages"]["little"] == "1.0"
    assert frameworks.says("uv", "import little; print(little.VERSION)") == "1.0"


def test_a_lock_is_made_with_hashes_for_what_was_asked(frameworks: Frameworks) -> None:
    other, little = frameworks.wheel("other", "1.0"), frameworks.wheel("little", "1.0", requires=("other",))
    frameworks.wheel("other", "0.9")
    made = run_module(
        framework_lock.main,
        framework="jax",
        requirements=["little==1.0"],
        root=str(frameworks.root),
        uv=UV,
        wheels=str(frameworks.wheels),
        offline=True,
    )
    assert "failed" not in made, made
    for one in lock(little, other).split():
        assert one in made["lock"]
    built = run_module(
        framework_environment.main, **frameworks.options(framework="jax", name="1.0-cpu", lock=made["lock"])
    )
    assert built["packages"] == {"little": "1.0", "other": "1.0"}


def test_a_lock_that_cannot_be_made_says_why(frameworks: Frameworks) -> None:
    frameworks.wheel("little", "1.0")
    refused = run_module(
        framework_lock.main, framework="jax", requirements=["little==2.0"], root=str(frameworks.root), uv=UV,
        wheels=str(frameworks.wheels), offline=True,
    )  # fmt: skip
    assert refused["failed"]
    assert "no lock could be made for little==2.0 of jax, and nothing has changed" in refused["msg"]
    assert "only little==1.0 is available" in refused["msg"] or "no version of little==2.0" in refused["msg"]
