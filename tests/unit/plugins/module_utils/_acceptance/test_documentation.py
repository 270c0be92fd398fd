# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/acceptance.md is what tools/acceptance-docs makes of the checks as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import registry

ROOT = Path(__file__).parents[5]


def check(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "acceptance-docs", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_page_is_current() -> None:
    found = check("--check")
    assert found.returncode == 0, found.stderr


def test_a_page_that_is_not_current_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "acceptance.md"
    page.write_text((ROOT / "docs" / "acceptance.md").read_text().replace("90%", "91%"))
    found = check("--check", str(page))
    assert (found.returncode, found.stderr.strip()) == (
        1,
        "acceptance.md is out of date: run tools/acceptance-docs",
    )


def test_every_check_is_on_the_page() -> None:
    page = (ROOT / "docs" / "acceptance.md").read_text()
    assert [check.name for check in registry.CHECKS if f"### {check.name}: " not in page] == []


def test_every_check_says_what_a_reader_needs() -> None:
    for check in registry.CHECKS:
        assert min(len(check.about), len(check.expects), len(check.fails)) > 15, check.name
        assert check.title
        assert not check.title.endswith("."), check.name
