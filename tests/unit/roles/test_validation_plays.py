# SPDX-License-Identifier: GPL-3.0-or-later
"""The plays of role validation on no machine: what they refuse, where a rollback goes, and that following a burn-in comes to an end.

The role's own tasks are played; only what asks a machine is replaced by answers from a file.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.playbook_runner import ROOT, run_playbook

ROLE = ROOT / "roles/validation"
HERE = {"ansible_connection": "local", "ansible_become": False}

YAML = {"ANSIBLE_INVENTORY_ENABLED": "yaml,host_list"}

Played = subprocess.CompletedProcess[str]


def inventory(folder: Path, *hosts: str, **variables: Any) -> str:
    """Machines with GPUs that are this machine."""
    machines = {host: {**HERE, **variables} for host in hosts}
    named: dict[str, None] = dict.fromkeys(hosts)
    children = {"gpu": {"hosts": named}, "running": {"hosts": named}}
    file = folder / "inventory.yml"
    file.write_text(json.dumps({"all": {"hosts": machines, "children": children}}))
    return str(file)


def said(played: Played) -> str:
    """All of it, in one line."""
    return " ".join((played.stdout + played.stderr).split())


# A limit


@pytest.mark.parametrize("limit", ["one", "localhost,one", "other"])
@pytest.mark.parametrize(
    ("playbook", "variable"), [("playbooks/validate.yml", "validate"), ("playbooks/burn_in.yml", "burn_in")]
)
def test_a_limit_is_refused_before_anything_else(
    tmp_path: Path, playbook: str, variable: str, limit: str
) -> None:
    file = inventory(tmp_path, "one", "two")
    (tmp_path / "inventory.yml").write_text(
        (tmp_path / "inventory.yml").read_text().replace('{"one": {', '{"other": {}, "one": {', 1)
    )
    played = run_playbook(tmp_path, file, playbook, "--limit", limit, **YAML)
    assert played.returncode == 2, said(played)
    assert f"Name the machines with -e {variable}={limit} instead of --limit" in said(played)
    assert "preflight" not in played.stdout


def test_a_burn_in_of_no_length_is_refused(tmp_path: Path) -> None:
    played = run_playbook(tmp_path, inventory(tmp_path, "one", "two"), "playbooks/burn_in.yml", **YAML)
    assert played.returncode == 2, said(played)
    assert "Say for how long: -e burn_in_for=24h" in said(played)
    assert "preflight" not in played.stdout


# A rollback


@pytest.mark.parametrize(
    ("versions", "current", "before", "is_back"),
    [
        (["new", "old"], "new", ["old"], False),
        (["new", "old"], "old", [], True),
        (["new"], "new", [], False),
        (["new", "old"], "", ["new", "old"], False),
        ([], "", [], False),
    ],
)
def test_a_second_rollback_does_not_go_forward(
    tmp_path: Path, versions: list[str], current: str, before: list[str], is_back: bool
) -> None:
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"__validation_probe": {"stdout": json.dumps({"versions": versions, "current": current})}},
        "tasks": [
            {"ansible.builtin.include_vars": {"file": str(ROLE / "vars/main.yml")}},
            {
                "ansible.builtin.assert": {
                    "that": ["__validation_before == before", "__validation_is_back == is_back"]
                }
            },
        ],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    wanted = {"before": before, "is_back": is_back}
    played = run_playbook(tmp_path, "localhost,", str(tmp_path / "play.yml"), "-e", json.dumps(wanted))
    assert played.returncode == 0, said(played)


# What a machine calls its run


@pytest.mark.parametrize("name", ["../../20261127T100000Z-quick", "/tmp/x", ".ssh", ""])
def test_a_run_whose_name_leads_elsewhere_is_not_fetched(tmp_path: Path, name: str) -> None:
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"__validation_run": {"id": name}},
        "tasks": [{"ansible.builtin.include_tasks": str(ROLE / "tasks/collect.yml")}],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    played = run_playbook(tmp_path, "localhost,", str(tmp_path / "play.yml"))
    assert played.returncode == 2
    assert "which is no name of a run; nothing was fetched" in said(played)
    assert "Pack the run" not in played.stdout


# A run that did not come to its end


def test_a_run_without_an_end_is_told_and_is_no_record(tmp_path: Path) -> None:
    for name in ("tasks", "templates", "vars"):
        shutil.copytree(ROLE / name, tmp_path / name)
    ended = {"going": False, "run": None, "line": "no run", "tail": "it broke off"}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {
            "validation_run": "always",
            "validation_gate": False,
            "validation_deferred": False,
            "validation_folder": str(tmp_path),
            "__validation_probe": {"stdout": json.dumps({"installed": True})},
            "__validation_look": {"stdout": json.dumps({"fingerprint": "f", "run": None})},
            "__validation_follow": {"stdout": json.dumps(ended)},
        },
        "tasks": [
            {"ansible.builtin.include_vars": {"file": str(ROLE / "vars/main.yml")}},
            {"ansible.builtin.include_tasks": str(tmp_path / "tasks/gate.yml")},
            {"ansible.builtin.include_tasks": str(tmp_path / "tasks/record.yml")},
        ],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    played = run_playbook(tmp_path, "localhost,", str(tmp_path / "play.yml"))
    assert played.returncode == 0, said(played)
    assert "made no run that came to its end; its last words: it broke off" in said(played)
    assert "changed=0" in said(played)


# Following a burn-in

GOING = {
    "id": "20261127T100000Z-burn-in", "over": False, "going": True, "detached": True, "asked_s": 60, "left_s": 30,
    "says": "it burns", "burned": "30 s", "asked": "60 s", "gaps": 0, "verdict": None,
}  # fmt: skip
OVER = {
    **GOING, "over": True, "going": False, "left_s": 0, "says": "it is over",
    "verdict": {"checks": "PASS", "says": "all of it"},
}  # fmt: skip
UNKNOWN = {**OVER, "verdict": {"checks": "UNKNOWN", "says": "1 of 10 checks is UNKNOWN"}}
UNJUDGED = {**OVER, "verdict": None}
LIES = {**GOING, "going": False, "detached": False, "says": "nobody is at it"}
CRASHED = {**GOING, "going": False}
SILENT = None


def follow(folder: Path, answers: dict[str, list[dict[str, Any] | None]], **variables: Any) -> Played:
    """Play what follows, with what each machine answers one after the other; the last again and again."""
    for name in ("tasks", "templates", "vars"):
        shutil.copytree(ROLE / name, folder / name)
    # Instead of the machines: the next answer, after no time.
    (folder / "tasks/burn_in_look.yml").write_text(
        yaml.safe_dump(
            [
                {
                    "name": "Look",
                    "ansible.builtin.set_fact": {
                        "__looks": "{{ __looks | default(0) | int + 1 }}",
                        "__validation_burn_in_look": "{{ answers[[__looks | default(0) | int, answers | length - 1] | min] }}",
                    },
                }
            ]
        )
    )
    waits = yaml.safe_load((folder / "tasks/burn_in_step.yml").read_text())
    for task in waits:
        if "ansible.builtin.wait_for" in task:
            timeout = task.pop("ansible.builtin.wait_for")["timeout"]
            task["ansible.builtin.debug"] = {"msg": f"it waits {timeout} s"}
    (folder / "tasks/burn_in_step.yml").write_text(yaml.safe_dump(waits))
    file = inventory(folder, *answers)
    document = json.loads(Path(file).read_text())
    for host, given in answers.items():
        document["all"]["hosts"][host]["answers"] = [
            {"unreachable": True} if one is None else {"rc": 0, "stdout": json.dumps(one)} for one in given
        ]
    Path(file).write_text(json.dumps(document))
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars": {
            "validation_device": "cuda",
            "validation_burn_in_progress_every": "10s",
            "validation_burn_in_for": "60s",
            "validation_burn_in_folder": str(folder),
        },
        "tasks": [
            {"ansible.builtin.include_vars": {"file": str(folder / "vars/burn_in.yml")}},
            {"ansible.builtin.include_vars": {"file": str(folder / "more.json")}},
            {"ansible.builtin.include_tasks": str(folder / "tasks/burn_in_follow.yml")},
        ],
    }
    (folder / "more.json").write_text(json.dumps(variables))
    (folder / "tasks/collect.yml").write_text("[]\n")
    (folder / "play.yml").write_text(json.dumps([play]))
    return run_playbook(folder, file, str(folder / "play.yml"), **YAML)


def test_it_is_followed_over_crashes_and_restarts_to_its_end(tmp_path: Path) -> None:
    played = follow(tmp_path, {"one": [GOING, SILENT, SILENT, CRASHED, OVER], "two": [GOING, GOING, OVER]})
    assert played.returncode == 0, said(played)
    assert "one does not answer; it is asked again" in said(played)
    # Only where nobody else is waited for.
    assert played.stdout.count("it waits 10 s") == 1
    assert "one PASS 30 s 60 s 0 all of it two PASS 30 s 60 s 0 all of it" in said(played)


def test_one_that_is_interrupted_by_hand_ends_it_and_fails_it(tmp_path: Path) -> None:
    played = follow(tmp_path, {"one": [GOING, LIES], "two": [GOING, GOING, OVER]})
    assert played.returncode == 2, said(played)
    assert "The burn-in was interrupted, and nobody goes on with it." in said(played)
    assert "-e burn_in_action=stop" in said(played)
    assert played.stdout.count("fatal:") == 1


@pytest.mark.parametrize(
    ("device", "last", "status", "says"),
    [
        ("cuda", UNKNOWN, 2, "proved nothing: 1 of 10 checks is UNKNOWN"),
        ("cuda", UNJUDGED, 2, "proved nothing: it is over"),
        ("cpu", UNKNOWN, 0, "two UNKNOWN 30 s 60 s 0 1 of 10 checks is UNKNOWN"),
        ("cpu", UNJUDGED, 2, "proved nothing: it is over"),
    ],
)
def test_one_that_ends_without_a_verdict_is_not_green(
    tmp_path: Path, device: str, last: dict[str, Any], status: int, says: str
) -> None:
    played = follow(tmp_path, {"one": [GOING, OVER], "two": [GOING, last]}, validation_device=device)
    assert played.returncode == status, said(played)
    assert says in said(played)
    assert played.stdout.count("fatal:") == (1 if status else 0)
    assert f"{tmp_path}/two" in said(played) or not status


def test_a_machine_that_stays_silent_is_given_up(tmp_path: Path) -> None:
    played = follow(tmp_path, {"one": [GOING, SILENT], "two": [GOING, OVER]}, __validation_burn_in_patience=0)
    assert played.returncode == 2, said(played)
    assert "It has not answered for 0 minutes." in said(played)
    assert "two it is over" in said(played)


def test_one_that_never_ends_is_left_before_the_play_is_too_deep(tmp_path: Path) -> None:
    played = follow(tmp_path, {"one": [CRASHED]}, __validation_burn_in_levels=3)
    assert played.returncode == 2, said(played)
    assert "was followed for as long as can be" in said(played)
    assert "RecursionError" not in said(played)
