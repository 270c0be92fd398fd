# SPDX-License-Identifier: GPL-3.0-or-later
"""What every ring of tests shares: the work tree as the collection gpumesh.fleet, and where things are."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from ansible.plugins.loader import init_plugin_loader
from hypothesis import settings

ROOT = Path(__file__).parent.parent
COLLECTIONS = ROOT / ".ansible" / "collections"


def _link_work_tree() -> None:
    """Make a plain clone importable as ansible_collections.gpumesh.fleet, as tools/venv does."""
    link = COLLECTIONS / "ansible_collections" / "gpumesh" / "fleet"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("../../../..")


# Before any test module is imported, for they import the collection at their top.
_link_work_tree()
init_plugin_loader([str(COLLECTIONS)])

# Who is started in the background, as by nohup, hands on that these are ignored; programs that tests start and interrupt are to heed them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A slow machine is no reason to fail: no example of a property test has a deadline. CI tries the same examples every
# time, so that what it says is about the change; new ones are looked for wherever else the tests run.
settings.register_profile("gpumesh", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("gpumesh")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository, which is the root of the collection."""
    return ROOT
