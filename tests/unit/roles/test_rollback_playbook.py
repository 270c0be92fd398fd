# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook that takes layers back, against the roles there are."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


def test_the_playbook_knows_every_role_that_can_be_taken_back() -> None:
    play = yaml.safe_load((ROOT / "playbooks" / "rollback.yml").read_text(encoding="utf-8"))[0]
    roles = {path.parent.parent.name for path in ROOT.glob("roles/*/tasks/rollback.yml")}
    assert set(play["vars"]["__rollback_layers"]) == roles
    assert {f"{role}_rollback_to" for role in roles} <= set(play["vars"])
