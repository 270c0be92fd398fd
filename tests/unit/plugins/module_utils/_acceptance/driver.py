# SPDX-License-Identifier: GPL-3.0-or-later
"""`gpu-acceptance` with checks and workloads of a test's own, as a process that can be interrupted and killed.

Args of the process: the folder of the workloads, then those of gpu-acceptance.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import cli, registry, run_command
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.check import Check, Group, Need
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.interpreters import Interpreters
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import failed, passed


class Python(Interpreters):
    """Whatever runs this has every framework."""

    def find(self, framework):
        return sys.executable


def _quick(context):
    return passed("it was looked at")


def _works(context):
    run = context.workload("works", "pytorch", seconds=60)
    return failed(run.error, "see its log") if run.error else passed(f"{len(run.figures)} figures")


def _never_comes(context):
    raise AssertionError("the run should have ended before")


def main(folder, *arguments):
    """The process."""
    words = {"title": "", "about": "looks", "expects": "good", "fails": "never"}
    registry.CHECKS = (
        Check("first", group=Group.INVENTORY, run=_quick, **words),
        Check("gpu", group=Group.INVENTORY, run=_quick, needs=(Need.GPU,), **words),
        Check("works", group=Group.COMPUTE, run=_works, needs=(Need.PYTORCH,), seconds=10, **words),
        Check("last", group=Group.AFTERMATH, run=_never_comes if "hang" in folder else _quick, **words),
    )
    registry.NAMES = tuple(check.name for check in registry.CHECKS)
    run_command.Machine = functools.partial(
        run_command.Machine, interpreters=Python({}), path_of=lambda name: Path(folder) / f"{name}.py"
    )
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
