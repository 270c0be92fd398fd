# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd unit that goes on with a burn-in by itself, also after a crash and after a restart of the machine.

Role validation installs it. An instance is named by the run's id; it is enabled as long as its burn-in is unfinished.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..._fleet.errors import FleetError
from ..._host.gpu_programs import Ran

_TEMPLATE = "gpumesh-burn-in@.service"
_SECONDS = 60.0

Runner = Callable[[Sequence[str], float], Ran]


class ServiceError(FleetError):
    """systemd cannot, or will not."""


def unit(run_id: str) -> str:
    """The instance of a run."""
    return _TEMPLATE.replace("@", f"@{run_id}")


def is_installed(run: Runner) -> bool:
    """Whether the unit is there."""
    return run(["systemctl", "cat", _TEMPLATE], _SECONDS).status == 0


def start(run_id: str, run: Runner) -> None:
    """Start it, now and after a restart of the machine.

    Raises:
        ServiceError: systemd says no.
    """
    ran = run(["systemctl", "enable", "--now", unit(run_id)], _SECONDS)
    if ran.status:
        forget(run_id, run)
        raise ServiceError(
            f"systemd does not start {unit(run_id)}: {ran.says}", hint=f"See `journalctl -u {unit(run_id)}`"
        )


def forget(run_id: str, run: Runner) -> None:
    """It is not to be started any more."""
    run(["systemctl", "--no-block", "disable", unit(run_id)], _SECONDS)
