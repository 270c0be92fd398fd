# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line, in this process and as its users start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import cli, registry, store
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.judgement import EXIT_STATUS, overall
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Figure, Verdict

from tests.acceptance_runs import ROOT, entry, run


def call(capsys, *words):
    try:
        status = cli.main(words)
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def runs(tmp_path):
    """Two runs, of which the second is slower."""
    for name, rate in (("one", 254.0), ("two", 200.0)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        store.write(folder, run(entry(figures=[Figure("bf16", rate, "TFLOPS", 0, better="higher")]), id=name))
    return tmp_path


def test_help_says_what_the_exit_status_means(capsys):
    status, out, _ = call(capsys, "--help")

    assert status == 0
    assert "0 PASS, 1 FAIL, 2 the command" in out
    for command in ("list", "run", "burn-in", "report", "compare"):
        assert f"\n    {command} " in out or f"\n    {command}\n" in out


@pytest.mark.parametrize("command", ["list", "run", "report", "compare"])
def test_every_command_has_help(command, capsys):
    status, out, _ = call(capsys, command, "--help")

    assert status == 0
    assert "exit status: " in out


def test_list_shows_every_check(capsys):
    status, out, _ = call(capsys, "list")

    assert status == 0
    for check in registry.CHECKS:
        assert f"  {check.name} " in out
    _, shown, _ = call(capsys, "list", "--json", "--suite", "demo")
    assert [one["name"] for one in json.loads(shown)] == [check.name for check in registry.of_suite("demo")]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("dance",),
        ("run", "--suite", "slow"),
        ("run", "--device", "tpu"),
        ("compare", "one"),
        ("compare", "a", "b", "--tolerance", "many"),
    ],
    ids=" ".join,
)
def test_a_command_that_cannot_be_used_ends_with_2(words, capsys):
    status, out, err = call(capsys, *words)

    assert (status, out) == (2, "")
    assert err.startswith("usage: ")


def test_a_check_that_is_not_there_is_refused(capsys, tmp_path):
    status, _, err = call(capsys, "run", "--only", "matmull", "--folder", str(tmp_path))

    assert status == 2
    assert err.startswith("gpu-acceptance: there is no check matmull")
    assert "See `gpu-acceptance list`." in err


def test_two_runs_are_compared(runs, capsys):
    status, out, _ = call(capsys, "compare", "one", "two", "--folder", str(runs))

    assert status == 1
    assert "REGRESSION" in out
    assert "-21.3 %" in out
    assert call(capsys, "compare", "two", "one", "--folder", str(runs))[0] == 0
    assert call(capsys, "compare", "one", "two", "--tolerance", "25%", "--folder", str(runs))[0] == 0


def test_a_comparison_as_json(runs, capsys):
    _, out, _ = call(capsys, "compare", str(runs / "runs/one"), "two", "--folder", str(runs), "--json")
    found = json.loads(out)

    assert (found["before"], found["after"], found["regressions"]) == ("one", "two", 1)
    assert [row["change_percent"] for row in found["rows"] if row["figure"]] == [-21.26]


def test_a_comparison_as_a_page(runs, capsys, tmp_path):
    page = tmp_path / "compared.html"
    assert call(capsys, "compare", "one", "two", "--folder", str(runs), "--html", str(page))[0] == 1
    assert "21.3" in page.read_text(encoding="utf-8")


def test_a_run_that_is_not_there(runs, capsys):
    status, out, err = call(capsys, "compare", "one", "three", "--folder", str(runs))

    assert (status, out) == (2, "")
    assert err.startswith("gpu-acceptance: there is no run three, neither as a folder nor in ")


def test_a_file_that_is_no_run(runs, capsys):
    (runs / "runs/one/run.json").write_text("{}")
    status, _, err = call(capsys, "compare", "one", "two", "--folder", str(runs))

    assert status == 2
    assert "it is not the document of a run of gpu-acceptance" in err


@pytest.mark.parametrize(
    ("verdict", "status"),
    [(Verdict.PASS, 0), (Verdict.FAIL, 1), (Verdict.WARN, 3), (Verdict.UNKNOWN, 4), (Verdict.SKIP, 4)],
)
def test_the_exit_status_is_that_of_the_verdict(verdict, status):
    assert EXIT_STATUS[overall([entry(verdict=verdict)])] == status


def test_it_runs_from_a_clone_with_nothing_but_python(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-S", "-m", "module_utils._acceptance", "list", "--suite", "demo"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "plugins")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "gpus_present" in ran.stdout


def test_a_reader_that_has_seen_enough_is_no_failure():
    writer = subprocess.Popen(
        [sys.executable, "-m", "module_utils._acceptance", "list", "--json"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "plugins")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    writer.stdout.close()
    err = writer.stderr.read()

    assert err == ""
    assert writer.wait(timeout=60) == 2
