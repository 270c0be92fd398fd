# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver keeps each GPU's state while nobody uses it, also after the next boot.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict


def run(context: Context) -> Result:
    """Look at the mode of each card, and at the daemon that keeps it."""
    there = common.cards(context)
    engine = common.engine(context)
    found = common.from_engine(engine.get("persistence"))
    # Without the daemon it was switched on by hand, and is off after the next boot.
    found += common.from_engine(engine.get("persistence_daemon"), Verdict.WARN)
    return common.conclude(
        found,
        f"{common.plural(len(there), 'GPU')}: persistence is on, and stays so after a boot",
        [
            Figure(
                "persistence",
                None if device.get("persistence") is None else "on" if device["persistence"] else "off",
                gpu=common.index_of(device),
                expected="on",
                source="every machine of ours",
                verdict=Verdict.PASS if device.get("persistence") else Verdict.FAIL,
            )
            for device in there
        ],
        unseen=common.silent(context),
    )


CHECK = Check(
    name="persistence",
    title="Persistence",
    group=Group.CONFIGURATION,
    about="Looks whether the driver keeps each GPU's state while nobody uses it, and whether nvidia-persistenced sees to that.",
    expects="On for each GPU, whatever is declared; the daemon running and enabled, else WARN, since it is then lost at the next "
    "boot.",
    fails="The daemon does not run: `systemctl enable --now nvidia-persistenced`. Without persistence a card forgets its power "
    "limit as soon as nobody uses it, and every program waits for it to start.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU, Need.DRIVER),
    seconds=0.1,
)
