# SPDX-License-Identifier: GPL-3.0-or-later
"""The script that undoes a change puts back what was there, and removes what was not."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ansible_collections.gpumesh.fleet.plugins.module_utils._host import undo


def test_the_script_restores_and_removes_and_runs_its_command(tmp_path: Path) -> None:
    old, new = tmp_path / "it's old.conf", tmp_path / "new.conf"
    saved = tmp_path / "saved"
    kept = saved / str(old).lstrip("/")
    kept.parent.mkdir(parents=True)
    kept.write_text("before", encoding="utf-8")
    old.write_text("after", encoding="utf-8")
    new.write_text("after", encoding="utf-8")
    script = undo.script([old, new], saved, ["touch", str(tmp_path / "it ran")])
    subprocess.run(["sh", "-c", script], check=True)
    assert old.read_text(encoding="utf-8") == "before"
    assert not new.exists()
    assert (tmp_path / "it ran").exists()


def test_the_timer_is_named_after_the_change() -> None:
    assert undo.unit("ssh") == "gpumesh-undo-ssh"
