# SPDX-License-Identifier: GPL-3.0-or-later
"""The role takes nothing away that it has not put there, and does not settle in a folder of somebody else.

Its own probe looks at real folders, and ansible-playbook carries out its own tasks and templates with what the probe said.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLE = Path(__file__).parents[3] / "roles" / "ai_frameworks"
NAMES = ["pytorch", "tensorflow", "jax", "vllm", "uv"]
KEY = "1.0-cpu-0123456789ab"
LOCKED = "jax-1.0-cpu"


def look(root: Path | str) -> dict[str, Any]:
    """What the probe says of a machine whose folder this is."""
    asked = {
        "root": str(root), "names": NAMES, "python": sys.executable, "launchers": [], "files": [], "mark": "mark",
        "history": "/nonexistent", "packages": [],
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-", json.dumps(asked)],
        input=(ROLE / "files" / "probe.py").read_text(encoding="utf-8"),
        check=True, capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def folder(root: Path | str) -> dict[str, Any]:
    """What it says of the folder."""
    return dict(look(root)["folder"])


def put(root: Path, *frameworks: str) -> None:
    """What the role leaves."""
    (root / "cache" / "archive-v0").mkdir(parents=True)
    (root / ".guard").touch()
    for name in frameworks:
        (root / "envs" / name / KEY).mkdir(parents=True)
        (root / "envs" / name / KEY / "gpumesh.json").write_text("{}")
        (root / name).symlink_to(Path("envs", name, KEY))


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


class Play:
    """Tasks of the role, carried out on this machine as ansible-playbook does, in a folder with its templates."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        for part in ("templates", "files"):
            (scratch / part).symlink_to(ROLE / part)

    def run(self, tasks: list[dict[str, Any]], **variables: Any) -> None:
        play = {
            "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks,
            "vars_files": [str(ROLE / "defaults" / "main.yml"), str(ROLE / "vars" / "main.yml")],
        }  # fmt: skip
        (self.scratch / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
        (self.scratch / "vars.json").write_text(
            json.dumps({"role_path": str(ROLE), "ansible_python_interpreter": sys.executable, **variables}),
            encoding="utf-8",
        )
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-e", "@vars.json", "play.yml"],
            check=False, capture_output=True, text=True, cwd=self.scratch,
            env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "false"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def purge(self, root: Path) -> None:
        """Those tasks of the purge that are about the folder."""
        tasks = yaml.safe_load((ROLE / "tasks" / "purge.yml").read_text(encoding="utf-8"))
        mine = [
            {**task, "become": False}
            for task in tasks
            if {"ai_frameworks_folder", "__ai_frameworks_memory"} & set(re.findall(r"\w+", str(task)))
        ]
        self.run(
            mine,
            ai_frameworks_folder=str(root),
            __ai_frameworks_memory=str(self.scratch / "memory"),
            __ai_frameworks_state=look(root),
        )

    def value(self, expression: str, **variables: Any) -> Any:
        """What an expression of the role comes to."""
        result = self.scratch / "result.json"
        copy = {"dest": str(result), "content": "{{ (" + expression + ") | to_json }}", "mode": "0600"}
        self.run([{"ansible.builtin.copy": copy}], **variables)
        return json.loads(result.read_text(encoding="utf-8"))

    def problems(self, root: Path | str) -> list[str]:
        """What the role refuses a machine for."""
        return list(
            self.value(
                "__ai_frameworks_problems",
                ansible_facts={"distribution": "Debian", "distribution_version": "12.5"},
                ai_frameworks_folder=str(root),
                __ai_frameworks_state={**look(root), "machine": "x86_64", "python": "3.11.2"},
                __ai_frameworks_answer={"environments": [], "problems": [], "unsupported": []},
            )
        )


@pytest.fixture
def play(tmp_path: Path) -> Play:
    scratch = tmp_path / "play"
    scratch.mkdir()
    return Play(scratch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_purge_leaves_nothing_where_nothing_else_is(play: Play, root: Path) -> None:
    put(root, *NAMES)
    (root / ".jax.new").symlink_to(Path("envs", "jax", KEY))
    play.purge(root)
    assert not root.exists()
    play.purge(root)


def test_a_purge_leaves_everything_that_is_of_somebody_else(play: Play, root: Path) -> None:
    put(root, "jax", "uv")
    (root / "photos").mkdir()
    (root / "photos" / "wedding.png").touch()
    (root / "latest").symlink_to("photos")
    (root / "envs" / "mine" / KEY).mkdir(parents=True)
    play.purge(root)
    assert names(root) == ["envs", "envs/mine", f"envs/mine/{KEY}", "latest", "photos", "photos/wedding.png"]


def test_a_purge_touches_no_folder_that_was_never_the_roles(play: Play, root: Path) -> None:
    for name in ("cache/thumbnails", "envs/pytorch/bin", "photos"):
        (root / name).mkdir(parents=True)
    (root / "jax").symlink_to("photos")
    before = names(root)
    play.purge(root)
    assert names(root) == before


def test_the_links_go_last_for_they_are_the_proof(root: Path) -> None:
    put(root, "jax", "uv")
    ours = folder(root)["ours"]
    assert ours[-2:] == [str(root / "jax"), str(root / "uv")]
    (root / "photos").mkdir()
    for path in (root / "envs").glob(f"*/{KEY}/gpumesh.json"):
        path.unlink()
    assert folder(root)["ours"] == ours


@pytest.mark.parametrize(
    "left",
    [
        [],
        ["lost+found/"],
        ["cache/"],
        ["cache/", ".guard"],
        ["cache/", ".guard", f"envs/uv/.{KEY}.txt"],
        ["cache/", ".guard", f"envs/uv/{KEY}/bin/"],
        ["cache/archive-v0/", ".guard", "envs/"],
    ],
)
def test_what_a_first_run_leaves_that_was_killed_is_the_roles(root: Path, left: list[str]) -> None:
    root.mkdir()
    for name in left:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).mkdir() if name.endswith("/") else (root / name).touch()
    assert folder(root)["others"] == []
    assert len(folder(root)["ours"]) == len({name.split("/")[0] for name in left} - {"lost+found"})


@pytest.mark.parametrize(
    "there", ["photos/", "cache/thumbnails/", "envs/pytorch/bin/", "envs/mine/", ".guard/", "jax"]
)
def test_a_folder_of_somebody_else_is_known_for_that(root: Path, there: str) -> None:
    (root / there).parent.mkdir(parents=True)
    (root / there).mkdir() if there.endswith("/") else (root / there).touch()
    assert folder(root)["others"] == [there.split("/")[0]]
    assert folder(root)["ours"] == []


def test_a_refusal_says_what_is_there_and_what_to_name_instead(play: Play, root: Path) -> None:
    (root / "photos").mkdir(parents=True)
    (said,) = play.problems(root)
    assert f"{root} has something of somebody else in it (photos)" in said
    assert f"such as {root}/frameworks" in said


def test_a_folder_with_environments_of_the_role_goes_on(play: Play, root: Path) -> None:
    put(root, "jax", "uv")
    (root / "notes.txt").touch()
    assert play.problems(root) == []
    assert play.problems(root.parent / "not there yet") == []


@pytest.mark.parametrize(
    "given", ["/", "/usr", "/usr/", "/etc", "/var", "/home", "/opt", "/opt/../var/lib", "/root"]
)
def test_a_folder_of_the_system_is_refused(given: str) -> None:
    assert folder(given)["system"]
    assert folder(given)["ours"] == []


def test_what_is_refused_by_its_name_is_said_once(play: Play, root: Path) -> None:
    assert [one.split(": ")[1] for one in play.problems("/usr")] == [
        "/usr is a folder of the system; name one of its own below it, such as /opt/gpumesh/frameworks."
    ]
    assert [one.split(": ")[1] for one in play.problems("data/frameworks")] == [
        "'data/frameworks' does not begin with a slash; name the whole path of a folder."
    ]
    root.symlink_to("/usr")
    assert "is a folder of the system" in play.problems(root)[0]


class Declared:
    """A machine with JAX, whose lock is here, and PyTorch, whose lock is on another control machine."""

    def __init__(self, play: Play, root: Path) -> None:
        put(root, "jax", "pytorch", "uv")
        locks = play.scratch / "locks"
        locks.mkdir()
        (locks / f"{LOCKED}.txt").write_text("jax==1.0\n", encoding="utf-8")
        environments = [
            {"framework": "jax", "title": "JAX", "name": "1.0-cpu", "lock": LOCKED},
            {"framework": "pytorch", "title": "PyTorch", "name": "1.0-cpu", "lock": "pytorch-1.0-cpu"},
        ]
        self.play = play
        self.variables: dict[str, Any] = {
            "ai_frameworks_folder": str(root),
            "ai_frameworks_device": "cpu",
            "ai_frameworks_locks_folder": str(locks),
            "ai_frameworks_locks_shipped": False,
            "__ai_frameworks_state": {**look(root), "ours": ["/usr/local/bin/python-pytorch"]},
            "__ai_frameworks_answer": {"environments": environments, "problems": [], "unsupported": []},
            "__ai_frameworks_look": {"gpu": {"counts": {}, "simulated": False}},
        }

    def during(self, task_file: str, name: str, expression: str, **more: Any) -> Any:
        """An expression, with the variables that a task sets."""
        tasks = yaml.safe_load((ROLE / "tasks" / task_file).read_text(encoding="utf-8"))
        task = next(one for one in tasks if one["name"] == name)
        return self.play.value(expression, **self.variables, **task.get("vars", {}), **more)


@pytest.fixture
def declared(play: Play, root: Path) -> Declared:
    return Declared(play, root)


def test_the_gate_is_told_of_what_has_no_lock_here(declared: Declared) -> None:
    expected = declared.during(
        "gate.yml", "gate | Compute in every framework at the same time", "__ai_frameworks_expected"
    )
    assert [one["framework"] for one in expected["environments"]] == ["jax"]
    assert expected["unlocked"] == ["PyTorch"]
    back = declared.during(
        "go_back.yml",
        "go_back | Prove what is in use now",
        "__ai_frameworks_expected",
        __ai_frameworks_to={"jax": KEY},
    )
    assert [one["key"] for one in back["environments"]] == [KEY]
    assert back["unlocked"] == []


def test_launchers_of_what_has_no_lock_here_stay(declared: Declared) -> None:
    files = declared.during(
        "launchers.yml",
        "launchers | Write launchers, kernels and the message at login",
        "__ai_frameworks_files",
    )
    by_path = {file["path"]: file for file in files}
    assert "python" in by_path["/usr/local/bin/python-pytorch"]["content"]
    assert "python" in by_path["/usr/local/bin/python-jax"]["content"]
    # A rollback to a state without it takes them away all the same.
    back = declared.during(
        "go_back.yml",
        "go_back | Take away their launchers",
        "__ai_frameworks_files",
        __ai_frameworks_to={"jax": KEY},
    )
    assert {"path": "/usr/local/bin/python-pytorch", "state": "absent"} in back
