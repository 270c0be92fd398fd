# SPDX-License-Identifier: GPL-3.0-or-later
"""The loaded module, the library that programs use, and the module that the next boot would load are one version.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping

from .. import health_checks as common
from ..check import FULL, QUICK, Check, Context, Group, Need
from ..verdicts import Figure, Result, Verdict, failed, skipped


def run(context: Context) -> Result:
    """Compare them."""
    common.on_bus(context)
    driver = context.facts.get("driver") or {}
    if not driver.get("loaded"):
        return skipped("NVIDIA's module is not loaded", "see the check kernel_modules")
    engine = common.engine(context, common.undeclared_driver(common.expected(context)))
    figures = _figures(driver)
    answers = engine.get("driver_answers")
    if answers and answers.made and not answers.ok and not _answers_for_some(context):
        return failed(answers.what, answers.to_do, *figures)
    found = [
        *common.from_engine(engine.get("library")),
        *common.from_engine(engine.get("module_on_disk")),
        *common.from_engine(engine.get("module_other_kernels"), Verdict.WARN),
    ]
    on_disk = engine.get("module_on_disk")
    notes = []
    if on_disk and not on_disk.made:
        notes = [f"what the next boot would load was not looked at: {on_disk.what}"]
    return common.conclude(
        found,
        f"module and library are {driver.get('loaded')}"
        + (f", as is what the next boot loads ({driver.get('next_kernel')})" if not notes else ""),
        figures,
        notes=notes,
    )


def _answers_for_some(context: Context) -> bool:
    """One card that is lost spoils nvidia-smi's answer, which is not the fault of a version."""
    lost = any(device.get("state") == "lost" for device in common.devices(context.facts))
    return lost or bool((context.facts.get("counts") or {}).get("driver"))


def _figures(driver: Mapping[str, object]) -> list[Figure]:
    loaded = str(driver.get("loaded"))
    on_disk = driver.get("on_disk")
    following = on_disk.get(driver.get("next_kernel")) if isinstance(on_disk, dict) else None
    versions = {
        "loaded module": loaded,
        "library": driver.get("library"),
        "module of the next boot": following.get("version") if isinstance(following, dict) else None,
    }
    return [
        Figure(
            name,
            str(version) if version else None,
            expected=loaded,
            source="the loaded module",
            verdict=Verdict.SKIP if not version else Verdict.PASS if version == loaded else Verdict.FAIL,
        )
        for name, version in versions.items()
    ] + [Figure("newest CUDA it runs", str(driver["cuda"]) if driver.get("cuda") else None)]


CHECK = Check(
    name="driver_versions",
    title="Module and library",
    group=Group.CONFIGURATION,
    about="Compares the version of the loaded kernel module with the library that programs load, and with the module that the "
    "next boot would load.",
    expects="One version everywhere, whichever it is, and an nvidia-smi that answers. A kernel besides the next one without the "
    "module is WARN. Where no kernel is in /boot, as in a container, what the next boot loads is not judged, and the result "
    "says so.",
    fails="An upgrade has changed the library under the loaded module: reboot. No module for the next kernel: `dkms status`, "
    "install the kernel's headers, `dkms autoinstall`. Libraries of several drivers: remove those of the other one.",
    run=run,
    suites=(QUICK, FULL),
    needs=(Need.GPU,),
    seconds=0.1,
)
