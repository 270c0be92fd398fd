# SPDX-License-Identifier: GPL-3.0-or-later
"""Unit tests are about pure code and loopback: whatever a developer's shell holds must not reach them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

CREDENTIALS = (
    "HCLOUD_TOKEN",
    "HCLOUD_ENDPOINT",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
    "ZEROTIER_TOKEN",
    "ZEROTIER_CENTRAL_TOKEN",
)


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """A program that is run in this process may narrow it for itself, and for every test after."""
    before = os.umask(0o022)
    yield
    os.umask(before)
