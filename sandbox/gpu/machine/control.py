# SPDX-License-Identifier: GPL-3.0-or-later
"""``gpumesh-simulated-gpus``: boot, break, mend and exchange the simulated hardware of this machine. SIMULATED."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from . import driver, tree
from .gpu import visible
from .hardware import KINDS, MARK, PER_DEVICE, Profile
from .places import Machine, read_json
from .setting import change

_SERVICES = ("nvidia-*", "gpumesh-gpu-*")


def main(arguments: list[str] | None = None, machine: Machine | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpumesh-simulated-gpus", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("boot", help="what the kernel does at a boot; the unit of this name runs it")
    commands.add_parser(
        "reboot", help="all that a boot would do, without one: services of the driver are restarted"
    )
    breaks = commands.add_parser("break", help="break something")
    breaks.add_argument("kind", choices=KINDS)
    breaks.add_argument(
        "--device", type=int, help=f"which card, from 0; default: the last ({', '.join(PER_DEVICE)})"
    )
    commands.add_parser("mend", help="take away all that is broken")
    exchange = commands.add_parser("profile", help="exchange the cards, and reboot")
    exchange.add_argument("name", nargs="?", help="without: list the profiles")
    work = commands.add_parser("load", help="give the GPUs something to do")
    work.add_argument("percent", type=int)
    work.add_argument("--device", type=int, help="which GPU; default: all")
    commands.add_parser("status", help="what is in the machine, and what is broken")
    options = parser.parse_args(arguments)
    machine = machine or Machine()
    try:
        return _run(machine, options)
    except (ValueError, driver.LoadError) as error:
        print(f"gpumesh-simulated-gpus: {error}", file=sys.stderr)
        return 1


def _run(machine: Machine, options: argparse.Namespace) -> int:
    match options.command:
        case "boot":
            driver.boot(machine)
        case "reboot":
            _restart(machine, lambda: driver.boot(machine))
        case "break":
            fault = driver.break_(machine, options.kind, options.device)
            where = f" at device {fault.device}" if fault.device >= 0 else ""
            print(f"{MARK}: {fault.kind}{where} is broken until {fault.until or 'it is mended'}")
        case "mend":
            driver.mend(machine)
        case "profile":
            known = profiles(machine)
            if not options.name:
                print("\n".join(sorted(known)))
            elif options.name not in known:
                raise ValueError(f"unknown profile {options.name!r}: known are {', '.join(sorted(known))}")
            else:
                _restart(machine, lambda: driver.change_profile(machine, known[options.name]))
        case "load":
            if not 0 <= options.percent <= 100:
                raise ValueError("percent is between 0 and 100")
            for gpu in visible(machine):
                if options.device in (None, gpu.index):
                    change(gpu, load=options.percent)
        case "status":
            _status(machine)
    return 0


def profiles(machine: Machine) -> dict[str, Profile]:
    """The machines this one may become."""
    found = read_json(machine.home / "profiles.json", {})
    return {name: Profile.from_json(profile) for name, profile in found.items()}


def _status(machine: Machine) -> None:
    profile = machine.profile()
    print(f"{MARK} machine {profile.name}, kernel {machine.kernel()}")
    bound = tree.drivers(machine)
    for number, slot in enumerate(profile.slots):
        faults = ", ".join(fault.kind for fault in profile.faults if fault.device == number)
        note = f" [{faults}]" if faults else ""
        print(
            f"{number}: {slot.address} {profile.card(slot).name}, driver {bound.get(slot.address, 'none')}{note}"
        )
    print(
        f"modules: {', '.join(tree.loaded(machine)) or 'none'}; driver {machine.loaded_version() or 'not loaded'}"
    )


def _restart(machine: Machine, boot: Callable[[], None]) -> None:
    """Stop the driver's services, boot, and start those that a boot starts."""
    systemd = machine.real and Path("/run/systemd/system").exists()
    running: list[str] = []
    if systemd:
        listed = _systemctl("list-units", "--all", "--plain", "--no-legend", "--type=service", *_SERVICES)
        running = [line.split()[0] for line in listed if line.split()]
        if running:
            _systemctl("stop", *running)
    boot()
    if systemd:
        enabled = _systemctl(
            "list-unit-files", "--state=enabled", "--no-legend", "--type=service", *_SERVICES
        )
        names = [line.split()[0] for line in enabled if line.split() and "@" not in line.split()[0]]
        if names:
            _systemctl("start", *names)


def _systemctl(*words: str) -> list[str]:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())
