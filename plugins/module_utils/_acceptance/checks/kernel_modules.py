# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's kernel module is loaded, and the kernel's own driver does not have the cards.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict


def run(context: Context) -> Result:
    """Look at what is loaded."""
    common.on_bus(context)
    engine = common.engine(context, common.undeclared_driver(common.expected(context)))
    driver = context.facts.get("driver") or {}
    nouveau = common.from_engine(engine.get("nouveau"))
    loaded = common.from_engine(engine.get("driver_loaded"))
    # Beside nouveau it cannot be loaded: then only the reason is told.
    return common.conclude(
        nouveau or loaded,
        f"NVIDIA's module {driver.get('loaded')} is loaded, nouveau is not",
        [
            Figure(
                "nvidia",
                str(driver["loaded"]) if driver.get("loaded") else "not loaded",
                expected="loaded",
                verdict=Verdict.FAIL if loaded else Verdict.PASS,
            ),
            Figure(
                "nouveau",
                "loaded" if nouveau else "not loaded",
                expected="not loaded",
                verdict=Verdict.FAIL if nouveau else Verdict.PASS,
            ),
        ],
    )


CHECK = Check(
    name="kernel_modules",
    title="Kernel modules",
    group=Group.CONFIGURATION,
    about="Looks whether NVIDIA's kernel module is loaded, and whether the kernel's own driver nouveau is not.",
    expects="The module loaded, of whatever version, and nouveau not, whatever is declared.",
    fails="nouveau took the cards first: see whether its blacklist is in the initramfs, and reboot. The module is not loaded: "
    "`modprobe nvidia` says why; with Secure Boot it is most often its key, which is not enrolled.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU,),
    seconds=0.1,
)
