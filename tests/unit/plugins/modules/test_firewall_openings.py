# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall module with programs in place of ufw and systemd."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import firewall_openings

from tests.module_runner import run_module

OPEN: dict[str, Any] = {"owner": "base", "openings": [{"port": "22", "comment": "SSH"}]}


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, *, unproved: bool) -> Path:
    """A ufw that is as declared, and a systemd that has the timer or not; what they were told is in this file."""
    told = folder / "told"
    scripts = {
        "ufw": "echo \"ufw allow 22/tcp comment 'gpumesh base: SSH'\"",
        "systemctl": "true" if unproved else "false",
        "systemd-run": "true",
    }
    for name, does in scripts.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {told}\n{does}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return told


def play(**more: Any) -> dict[str, Any]:
    return run_module(firewall_openings.main, **OPEN, **more)


def test_what_is_as_declared_and_proved_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = programs(tmp_path, monkeypatch, unproved=False)
    assert play(undo_after=77)["changed"] is False
    assert "systemd-run" not in told.read_text()


def test_what_nobody_proved_is_changed_until_somebody_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = programs(tmp_path, monkeypatch, unproved=True)
    predicted = play(undo_after=77, check=True)
    assert (predicted["changed"], predicted["commands"]) == (True, [])
    assert "systemd-run" not in told.read_text()
    done = play(undo_after=77)
    assert (done["changed"], done["commands"]) == (True, [])
    assert "systemctl stop gpumesh-undo-firewall.timer" in told.read_text()
    assert "--on-active=77" in told.read_text()
