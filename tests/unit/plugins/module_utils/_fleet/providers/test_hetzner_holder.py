# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is at work with the temporary server: told by its labels, believed as long as the process may live."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import hetzner_holder
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_holder import Holder
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_models import (
    check_labels,
)

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
LATER = (NOW + timedelta(hours=1)).timestamp()


def test_our_own_work_keeps_us_off_nothing() -> None:
    labels = Holder.me().labels(LATER)
    assert check_labels(labels) == labels
    assert Holder.me().keeps_us_off(labels, NOW) is None


def test_a_process_that_lives_keeps_others_off_until_its_time_is_over() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        other = replace(Holder.me(), pid=process.pid, begun=hetzner_holder._begun(process.pid) or "")
        labels = other.labels(LATER)
        assert Holder.me().keeps_us_off(labels, NOW) == "2026-11-27 13:00 UTC"
        assert Holder.me().keeps_us_off(labels, NOW + timedelta(hours=1)) is None
        process.kill()
        process.wait()
        assert Holder.me().keeps_us_off(labels, NOW) is None


def test_a_process_with_the_number_of_a_dead_one_is_another() -> None:
    me = Holder.me()
    assert me.keeps_us_off(replace(me, begun="1").labels(LATER), NOW) is None


def test_of_another_machine_only_the_time_is_known() -> None:
    labels = replace(Holder.me(), machine="0123456789ab").labels(LATER)
    assert Holder.me().keeps_us_off(labels, NOW) == "2026-11-27 13:00 UTC"
    assert Holder.me().keeps_us_off(labels, NOW + timedelta(hours=2)) is None


def test_labels_of_nobody_keep_nobody_off() -> None:
    assert Holder.me().keeps_us_off({}, NOW) is None
    assert Holder.me().keeps_us_off({"gpumesh-image-by": "x", "gpumesh-image-until": "y"}, NOW) is None


def test_where_processes_cannot_be_looked_at_one_that_lives_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hetzner_holder, "_PROC", tmp_path)
    with subprocess.Popen(["sleep", "60"]) as process:
        labels = replace(Holder.me(), pid=process.pid).labels(LATER)
        assert Holder.me().keeps_us_off(labels, NOW) == "2026-11-27 13:00 UTC"
        process.kill()
        process.wait()
        assert Holder.me().keeps_us_off(labels, NOW) is None
