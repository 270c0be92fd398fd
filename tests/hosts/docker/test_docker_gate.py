# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker layer's gate finds a daemon that has not taken up what is declared."""

from __future__ import annotations

import pytest

from tests.hosts.conftest import Machine

pytestmark = pytest.mark.docker


def test_the_gate_finds_options_that_the_daemon_has_not_taken_up(machine: Machine) -> None:
    played = machine.play("--tags", "gate", docker_log_max_size="20m", docker_daemon_options={"debug": True})
    assert played.returncode == 2
    assert "log-opts: a new container does not get {'max-size': '20m'}" in played.said
    assert "debug: the daemon has False, declared is True" in played.said
    assert machine.play("--tags", "gate").returncode == 0
    assert machine.ssh("docker ps --all --quiet").stdout == ""
