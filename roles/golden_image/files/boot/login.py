# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting until a machine lets its user in, or nothing more will come of it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .console import LOST, keys_on, read_console
from .engine import BootError, engine
from .kvm import accelerator
from .machine import Machine, qemu_said, ssh_command, start, stop
from .order import Order

SHOWN_LINES = 30


def banner(address: str, port: int) -> bool:
    """Whether an SSH server answers. QEMU takes connections before the machine does, so being let in says nothing."""
    try:
        with socket.create_connection((address, port), timeout=5) as connection:
            connection.settimeout(10)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def wait(order: Order, machine: Machine, give_up: Callable[[], bool]) -> dict[str, Any]:
    """Wait until the machine lets its user in; what is known of it then."""
    until = machine.begun + order.timeout
    unlocked = not order.unlock
    keys = [machine.planted] if machine.planted else []
    for _turn in _turns(order, machine, until, give_up):
        if not unlocked:
            unlocked = _unlock(order, machine)
            continue
        if not keys:
            keys = keys_on(read_console(machine.console))
        if not keys or not banner(machine.address, machine.port):
            continue
        machine.known_hosts.write_text(
            "".join(f"[{machine.address}]:{machine.port} {key}\n" for key in keys), encoding="ascii"
        )
        ran = subprocess.run(
            [*ssh_command(machine), "cat /etc/machine-id; cat /etc/ssh/ssh_host_*_key.pub"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if ran.returncode == 0:
            return _boot(machine, ran.stdout)
        # The SSH server that unlocks an encrypted root answers for a while after that, with a key of its own.
        if not order.unlock and (
            "Host key verification failed" in ran.stderr or "IDENTIFICATION HAS CHANGED" in ran.stderr
        ):
            raise _failure(
                machine,
                "shows another host key than the one it was given; is the seed taken, and ssh_deletekeys on?",
            )
    raise _failure(machine, f"let nobody in within {order.timeout:.0f} s of its start")


def _turns(order: Order, machine: Machine, until: float, give_up: Callable[[], bool]) -> Iterator[int]:
    """One a second, while there is hope."""
    turn = 0
    while time.monotonic() < until:
        if give_up():
            raise BootError(f"{machine.firmware}: given up, because the other machine failed")
        if turn % 5 == 0:
            running = engine(
                order.engine, "inspect", "--format={{.State.Running}}", machine.container, check=False
            )
            if running != "true":
                raise _failure(
                    machine,
                    f"stopped by itself; QEMU said: {qemu_said(order, machine.firmware)}",
                )
        if lost := LOST.search(read_console(machine.console)):
            raise _failure(machine, f"does not come up: {lost[0].strip()}")
        yield turn
        turn += 1
        time.sleep(1)


def _unlock(order: Order, machine: Machine) -> bool:
    ran = subprocess.run(
        order.unlock,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={
            **os.environ,
            "BOOT_ADDRESS": machine.address,
            "BOOT_PORT": str(machine.port),
            "BOOT_FIRMWARE": machine.firmware,
            "BOOT_CONSOLE": str(machine.console),
        },
    )
    return ran.returncode == 0


def _boot(machine: Machine, said: str) -> dict[str, Any]:
    lines = said.splitlines()
    return {
        "firmware": machine.firmware,
        "accelerator": machine.accelerator,
        "seconds_to_ssh": round(time.monotonic() - machine.begun, 1),
        "address": machine.address,
        "port": machine.port,
        "user": machine.user,
        "key": str(machine.key),
        "known_hosts": str(machine.known_hosts),
        "console": str(machine.console),
        "machine_id": lines[0] if lines else "",
        "host_keys": [" ".join(line.split()[:2]) for line in lines[1:]],
        "planted": machine.planted,
    }


def _failure(machine: Machine, what: str) -> BootError:
    lines = [line.rstrip() for line in read_console(machine.console).splitlines() if line.strip()]
    shown = (
        "\n".join(lines[-SHOWN_LINES:])
        or "(nothing: no boot loader was found, or it does not use the serial console)"
    )
    return BootError(
        f"The machine booted by {machine.firmware.upper()} {what}. Its console is {machine.console}; it ends with:\n{shown}"
    )


def boot_all(order: Order) -> list[dict[str, Any]]:
    """Boot one machine for each firmware, all at once. They stay up if every one of them lets its user in."""
    order.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    failed: list[str] = []
    try:
        speed = accelerator(order.engine, order.tools)
        machines = [start(order, firmware, speed) for firmware in order.firmware]
        with ThreadPoolExecutor(len(machines)) as pool:

            def one(machine: Machine) -> dict[str, Any] | None:
                try:
                    return wait(order, machine, lambda: bool(failed))
                except BootError as problem:
                    failed.append(str(problem))
                    return None

            boots = list(pool.map(one, machines))
        if failed:
            raise BootError(failed[0])
    except BaseException:
        with contextlib.suppress(BootError):
            stop(order.engine, order.build)
        raise
    found = [boot for boot in boots if boot]
    (order.folder / "boots.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found
