# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine that the driver is installed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.plugins.module_utils._host.driver.driver_machine import Machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with no driver."""
    return Machine(tmp_path, monkeypatch)
