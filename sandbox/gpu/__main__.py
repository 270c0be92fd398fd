# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m sandbox.gpu``: write simulated GPU hardware, and the repositories of the driver that goes with it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from .archives import script
from .hardware import DISTRIBUTIONS, archive
from .machine.hardware import MARK
from .profiles import PROFILES, find
from .repositories import output


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.gpu", description=f"{MARK} GPU machines.")
    commands = parser.add_subparsers(dest="command", required=True)
    hardware = commands.add_parser(
        "hardware", help="an archive that turns a container into a machine with GPUs"
    )
    hardware.add_argument("--profile", required=True, help="which machine; the command profiles lists them")
    hardware.add_argument("--distribution", choices=sorted(DISTRIBUTIONS), default="debian-13")
    hardware.add_argument(
        "--kernel", default="", help="which one is booted; default: one of the distribution"
    )
    hardware.add_argument(
        "--secure-boot", action=argparse.BooleanOptionalAction, help="default: no UEFI at all"
    )
    hardware.add_argument(
        "--mok-enrolled", action="store_true", help="its firmware knows the key that DKMS signs with"
    )
    hardware.add_argument("--seed", type=int, default=1, help="for serial numbers and readings that differ")
    hardware.add_argument(
        "--output", type=Path, required=True, help="a file for docker cp; -: standard output"
    )
    commands.add_parser("profiles", help="list the machines")
    repositories = commands.add_parser("repositories", help="the signed package repositories")
    repositories.add_argument("--output", type=Path, required=True, help="a folder to be served over HTTP")
    setup = commands.add_parser("setup", help="print what root of the machine runs to get its kernel")
    setup.add_argument("--distribution", choices=sorted(DISTRIBUTIONS), default="debian-13")
    setup.add_argument("--kernel", default="", help="which one is booted; default: one of the distribution")
    setup.add_argument("--more-kernel", action="append", default=[], help="installed afterwards, any number")
    setup.add_argument("--url", required=True, help="where the repositories are served")
    options = parser.parse_args()
    if options.command == "setup":
        kernel = options.kernel or DISTRIBUTIONS[options.distribution]
        print(script(options.distribution, kernel, options.url, options.more_kernel), end="")
        return 0
    if options.command == "profiles":
        for name, profile in PROFILES.items():
            cards = ", ".join(profile.card(slot).name for slot in profile.slots) or "no GPU"
            faults = (
                f"; broken: {', '.join(fault.kind for fault in profile.faults)}" if profile.faults else ""
            )
            print(f"{name}: {cards}{faults} ({MARK})")
        return 0
    if options.command == "repositories":
        print(output(options.output).fingerprint)
        return 0
    try:
        profile = find(
            options.profile,
            distribution=options.distribution,
            kernel=options.kernel or DISTRIBUTIONS[options.distribution],
            secure_boot=options.secure_boot,
            seed=options.seed,
        )
    except ValueError as error:
        print(f"sandbox.gpu: {error}", file=sys.stderr)
        return 1
    content = archive(replace(profile, mok_enrolled=options.mok_enrolled))
    if str(options.output) == "-":
        sys.stdout.buffer.write(content)
    else:
        options.output.write_bytes(content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
