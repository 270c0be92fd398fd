# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks: the gate, which starts and stops all machines of a build, or somebody who wants to look at one."""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from .engine import BootError, engine
from .kvm import accelerator
from .login import boot_all, wait
from .machine import ssh_command, start, stop
from .order import Order, order_of
from .seed import make_key


def run(arguments: argparse.Namespace) -> None:
    """Boot one image for somebody who wants to look at it."""
    with tempfile.TemporaryDirectory(prefix="gpumesh-boot-") as folder:
        order = Order(
            image=Path(arguments.image).absolute(),
            folder=Path(folder),
            tools=arguments.tools,
            build=f"hand-{secrets.token_hex(4)}",
            engine=arguments.engine,
            firmware=(arguments.firmware,),
            user=arguments.user,
            memory_mb=arguments.memory,
            timeout=arguments.timeout,
        )
        keys = [arguments.key.expanduser().read_text(encoding="ascii").strip()] if arguments.key else []
        try:
            own = make_key(order.folder / f"key-{arguments.firmware}", "boot")
            speed = accelerator(order.engine, order.tools)
            machine = start(
                order, arguments.firmware, speed, keys=[own, *keys], isolated=not arguments.network
            )
            print(f"Booting ({machine.accelerator}); the console is in {machine.console}", flush=True)
            found = wait(order, machine, lambda: False)
            print(f"Up after {found['seconds_to_ssh']} s. Log in from another terminal:")
            print(f"  {' '.join(ssh_command(machine))}", flush=True)
            print("Ctrl-C stops the machine; the image stays as it is.", flush=True)
            while engine(
                order.engine, "inspect", "--format={{.State.Running}}", machine.container, check=False
            ):
                time.sleep(2)
        except KeyboardInterrupt:
            print()
        finally:
            stop(order.engine, order.build)


def _stopped(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: list[str]) -> None:
    """Do what is asked."""
    signal.signal(signal.SIGTERM, _stopped)
    try:
        if arguments[:1] == ["start"]:
            print(json.dumps(boot_all(order_of(json.loads(arguments[1])))))
        elif arguments[:1] == ["stop"]:
            given = json.loads(arguments[1])
            stop(given.get("engine", "docker"), given["build"])
        else:
            run(_by_hand().parse_args(arguments))
    except BootError as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit("Stopped; no machine is left running.")


def _by_hand() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="boot", description="Boot a golden image, and say how to log in.")
    parser.add_argument("what", choices=["run"])
    parser.add_argument("image", help="a qcow2 or raw disk image; it is only read")
    parser.add_argument("--tools", required=True, help="the tools image: docker image ls gpumesh/image-tools")
    parser.add_argument("--engine", default="docker")
    parser.add_argument("--firmware", choices=["bios", "uefi"], default="uefi")
    parser.add_argument("--user", default="admin")
    parser.add_argument("--key", type=Path, help="a public key that is let in, too")
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS")
    parser.add_argument(
        "--network", action="store_true", help="let it reach what the control machine reaches"
    )
    return parser
