# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables of role ai_frameworks that come as strings (-e name=false) mean what they say, for role specs coerce nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLE = Path(__file__).parents[3] / "roles" / "ai_frameworks"
KEY = "1.0-cpu-0123456789ab"


def rendered(folder: Path, text: str, **variables: Any) -> str:
    """What the role makes of a text, with its own variables and these."""
    (folder / "templates").symlink_to(ROLE / "templates")
    (folder / "play.yml").write_text(
        json.dumps(
            [
                {
                    "hosts": "localhost",
                    "gather_facts": False,
                    "vars_files": [str(ROLE / "defaults" / "main.yml"), str(ROLE / "vars" / "main.yml")],
                    "tasks": [{"ansible.builtin.copy": {"content": text, "dest": str(folder / "rendered")}}],
                }
            ]
        )
    )
    state = {
        "machine": "x86_64", "python": "3.12.3", "free_gib": 1.0, "environments": {}, "ours": [], "foreign": ["/usr/local/bin/python-jax"],
        "folder": {"absolute": True, "system": False, "ours": [], "others": []},
    }  # fmt: skip
    answer = {
        "problems": [],
        "environments": [
            {"framework": "jax", "title": "JAX", "name": "1.0-cpu", "lock": "jax", "disk_gib": 9.0, "launchers": {"python-jax": "python"}}
        ],
    }  # fmt: skip
    given = {
        "ansible_python_interpreter": sys.executable,
        "ansible_facts": {"distribution": "Debian", "distribution_version": "13"},
        "__ai_frameworks_here": {"jax": KEY},
        "__ai_frameworks_state": state,
        "__ai_frameworks_answer": answer,
        "__ai_frameworks_unlocked": [],
        **variables,
    }
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-c", "local", "-e", json.dumps(given), str(folder / "play.yml")],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "rendered").read_text()


@pytest.mark.parametrize("value", ["false", "true"])
def test_files_are_written_only_where_they_are_wanted(tmp_path: Path, value: str) -> None:
    names = ("ai_frameworks_launchers", "ai_frameworks_jupyter_kernels", "ai_frameworks_login_message")
    text = rendered(
        tmp_path,
        "{{ __ai_frameworks_files | map(attribute='path') | join(' ') }}",
        **dict.fromkeys(names, value),
    )
    assert ("python-jax" in text, "kernel.json" in text, "motd" in text) == (value == "true",) * 3


@pytest.mark.parametrize(
    ("value", "says"), [("false", "/opt/gpumesh/frameworks/jax"), ("true", "python-jax")]
)
def test_the_message_names_launchers_only_where_there_are_any(tmp_path: Path, value: str, says: str) -> None:
    text = rendered(
        tmp_path, "{{ lookup('ansible.builtin.template', 'message.j2') }}", ai_frameworks_launchers=value
    )
    assert text.splitlines()[3].split()[-1] == says


@pytest.mark.parametrize("value", ["false", "true"])
def test_only_what_was_asked_for_is_refused(tmp_path: Path, value: str) -> None:
    names = ("ai_frameworks_disk_check", "ai_frameworks_offline", "ai_frameworks_launchers")
    text = rendered(tmp_path, "{{ __ai_frameworks_problems | join(' ') }}", **dict.fromkeys(names, value))
    told = ("are free" in text, "no other place for wheels" in text, "python-jax is not of this role" in text)
    assert told == (value == "true",) * 3


@pytest.mark.parametrize(("value", "keeps"), [("0", "1"), ("3", "3")])
def test_the_way_back_keeps_the_newer_one(tmp_path: Path, value: str, keeps: str) -> None:
    tasks = yaml.safe_load((ROLE / "tasks" / "go_back.yml").read_text())
    keep = tasks[0]["gpumesh.fleet.framework_environment"]["keep"]
    assert rendered(tmp_path, keep, ai_frameworks_keep=value) == keeps
