# SPDX-License-Identifier: GPL-3.0-or-later
"""What programs say of a failure, cut to what is wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import programs


def test_the_compilers_errors_are_shown_and_not_its_kilobytes_of_options() -> None:
    log = "\n".join(
        [
            f"  gcc-14 -Wp,-MMD,{'x' * 4000} -c nv-pci.c",
            "/var/lib/dkms/nvidia/nv-pci.c:237:5: error: too few arguments to function 'pci_resize_resource'",
            "  237 |     pci_resize_resource(a, b, c);",
            "make[3]: *** [nv-pci.o] Error 1",
            "# exit code: 2",
        ]
    )
    said = programs.compiler_errors(log)
    assert said.endswith("error: too few arguments to function 'pci_resize_resource'")
    assert len(said.splitlines()) == 1


def test_a_log_without_an_error_is_shown_from_its_end_in_short_lines() -> None:
    said = programs.compiler_errors("\n".join([f"line {number} {'x' * 500}" for number in range(40)]))
    assert said.splitlines()[-1].startswith("line 39")
    assert max(map(len, said.splitlines())) <= 200


def test_of_apt_the_complaint_is_told_and_not_the_work_before_it() -> None:
    said = "Unpacking a ...\ndpkg: error processing archive a.deb (--unpack):\n trying to overwrite b\nE: Sub-process\n"
    with pytest.raises(programs.Failed, match=r"^apt fails: dpkg: error processing") as failed:
        programs.must("apt fails", "sh", "-c", f"printf '%s' '{said}'; exit 100")
    assert "Unpacking" not in str(failed.value)
    assert "trying to overwrite b" in str(failed.value)


def test_a_program_that_is_missing_or_does_not_end_is_a_failure() -> None:
    assert programs.run("gpumesh-no-such-program") == (127, "gpumesh-no-such-program is not installed")
    assert programs.run("sleep", "60", seconds=0.01)[0] == 124


def test_a_program_that_may_not_be_executed_is_a_failure(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.touch(mode=0o644)
    assert programs.run(str(program)) == (126, f"{program} cannot be executed")


def test_a_program_is_looked_for_where_it_is_run_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gpumesh-elsewhere").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert programs.there("sh")
    assert not programs.there("gpumesh-elsewhere")


def test_what_has_to_succeed_has_no_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float | None] = []

    def run(command: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess[str]:
        limits.append(options["timeout"])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(programs.subprocess, "run", run)
    programs.must("apt fails", "apt-get", "update")
    assert limits == [None]


def test_warnings_can_be_left_out() -> None:
    command = ("sh", "-c", "echo said; echo warned >&2")
    assert programs.run(*command) == (0, "said\nwarned\n")
    assert programs.run(*command, errors=False) == (0, "said\n")
