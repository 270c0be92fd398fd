# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that know of GPUs are found wherever a machine has them."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import gpu_programs


def test_a_short_path_gets_every_folder_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/opt/mine:/usr/bin")
    assert gpu_programs.search_path().split(":") == [
        "/opt/mine",
        "/usr/bin",
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/sbin",
        "/bin",
    ]
