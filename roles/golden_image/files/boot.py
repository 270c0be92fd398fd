# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot a disk image under QEMU and wait until somebody can log in over SSH. The image itself is never written to.

QEMU runs in a container of the tools image, which needs no right but, where it is there, /dev/kvm. Each machine starts from an
overlay a little larger than the image, with a NoCloud seed and a network that leads nowhere but to its SSH server.

The one booted by BIOS gets a host key that is planted by the seed and so known in advance; the one booted by UEFI makes its own,
which is read from its serial console before the first connection. No key is ever taken on trust.

usage: boot.py start '{"image": "disk.qcow2", "folder": "gate", "tools": "gpumesh/image-tools:...", "build": "..."}'
       boot.py stop  '{"build": "...", "engine": "docker"}'
       boot.py run IMAGE.qcow2 --tools gpumesh/image-tools:... [--firmware uefi] [--key ~/.ssh/id_ed25519.pub]

`start` boots one machine for each firmware at the same time, leaves them running, and writes boots.json into the folder. A
machine that nobody stops stops itself. `run` is for people: it boots one image, says how to log in, and stops at Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

SHOWN_LINES = 30
# What a console says when nothing more will come of it.
LOST = re.compile(
    r"Kernel panic|Gave up waiting for root|\(initramfs\) *$|grub rescue>|No bootable device|^Boot failed|"
    r"You are in emergency mode|BdsDxe: failed to load|error: no such (?:device|partition)",
    re.MULTILINE,
)
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])|\r")
HOST_KEYS = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----\n(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
PUBLIC_KEY = re.compile(r"(?:ssh-|ecdsa-)\S+ [A-Za-z0-9+/=]{40,}")
KVM_GET_API_VERSION, KVM_CREATE_VM = 0xAE00, 0xAE01
GUEST_PORT = 2222
# The gate may take about so long after the boot.
GATE_SECONDS = 1800
# The validation layer's first run is for real machines: its unit is told that this one is where the image was made.
NO_ACCEPTANCE = (
    "test ! -e /var/lib/gpumesh/first-acceptance || cp /etc/machine-id /var/lib/gpumesh/first-acceptance"
)
# A nested virtual machine may have a /dev/kvm that makes machines which then stand still: the firmware has to come up with it.
TRIAL = r"""
timeout 20 qemu-system-x86_64 -accel "$1" -machine q35 -cpu max -m 256 -display none -monitor none -nic none \
    -serial file:/tmp/said -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd 2>/tmp/failed &
while kill -0 $! 2>/dev/null; do
    ! grep -q BdsDxe /tmp/said 2>/dev/null || { echo BdsDxe; break; }
    [ ! -s /tmp/failed ] || break
    sleep 0.2
done
"""
# A machine whose network leads nowhere has no route but to its own net, and QEMU lets who comes from its own side be of that net.
RELAY = r"""
import socket, threading
def pump(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
    except OSError:
        pass
    for each in (one, other):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
server = socket.create_server(("", 2222))
while True:
    one, _address = server.accept()
    try:
        other = socket.create_connection(("127.0.0.1", 2200))
    except OSError:
        one.close()
        continue
    for pair in ((one, other), (other, one)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""
INSIDE = r"""
set -eu
exec 2>"/gate/qemu-$FIRMWARE.log"
cd /tmp
python3 -c "$RELAY" &
qemu-img create -q -f qcow2 -b /image -F "$FORMAT" overlay.qcow2
qemu-img resize -q overlay.qcow2 +1G
truncate -s 1M seed.img
mkfs.vfat -n CIDATA seed.img >/dev/null
mcopy -i seed.img /seed/meta-data /seed/user-data ::
set -- -machine q35 -cpu max -smp "$CPUS" -m "$MEMORY" -display none -monitor none -serial "$SERIAL" \
    -device virtio-rng-pci -drive file=overlay.qcow2,if=virtio,cache=unsafe,discard=unmap \
    -drive file=seed.img,if=virtio,format=raw,readonly=on \
    -netdev user,id=net0,"$RESTRICT"hostfwd=tcp:127.0.0.1:2200-:22 -device virtio-net-pci,netdev=net0,romfile=
if [ "$ACCELERATOR" = kvm ]; then set -- -accel kvm "$@"; else set -- -accel tcg "$@"; fi
if [ "$FIRMWARE" = uefi ]; then
    cp /usr/share/OVMF/OVMF_VARS_4M.fd vars.fd
    set -- "$@" -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \
        -drive if=pflash,format=raw,file=vars.fd
fi
exec timeout --foreground --kill-after=5 "$LIFETIME" qemu-system-x86_64 "$@"
"""


class BootError(Exception):
    """What is told to the user: what happened, to which machine, and what the console said last."""


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    image: Path
    folder: Path
    tools: str
    build: str
    # The folder of images that the build is for; what prunes after killed builds goes by it.
    store: str = ""
    engine: str = "docker"
    firmware: tuple[str, ...] = ("bios", "uefi")
    user: str = "admin"
    memory_mb: int = 1024
    timeout: float = 900
    # Run until it succeeds, before SSH is waited for: it gives an encrypted root its passphrase. Where to is in BOOT_ADDRESS,
    # BOOT_PORT, BOOT_FIRMWARE and BOOT_CONSOLE of its environment.
    unlock: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """One that is booted, and how it is known."""

    firmware: str
    accelerator: str
    container: str
    address: str
    port: int
    user: str
    key: Path
    known_hosts: Path
    console: Path
    planted: str = ""
    begun: float = field(default_factory=time.monotonic)


def order_of(given: dict[str, Any]) -> Order:
    """Read it; what is not one of ours is no order."""
    values = dict(given)
    for name in ("firmware", "unlock"):
        if name in values:
            values[name] = tuple(values[name])
    for name in ("image", "folder"):
        values[name] = Path(values[name]).absolute()
    return Order(**values)


def engine(name: str, *arguments: str, check: bool = True) -> str:
    """Ask the container engine."""
    try:
        ran = subprocess.run(
            [name, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise BootError(f"There is no command '{name}' on the control machine; install it") from None
    except subprocess.TimeoutExpired:
        raise BootError(f"'{name} {arguments[0]}' did not answer within 120 s; is its daemon well?") from None
    if check and ran.returncode:
        raise BootError(f"'{name} {arguments[0]}' failed: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout.strip()


def kvm_group() -> int | None:
    """The group that may use /dev/kvm, if that works: a device file alone says nothing."""
    try:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if fcntl.ioctl(device, KVM_GET_API_VERSION, 0) != 12:
            return None
        os.close(fcntl.ioctl(device, KVM_CREATE_VM, 0))
        return os.fstat(device).st_gid
    except OSError:
        return None
    finally:
        os.close(device)


def accelerator(name: str, tools: str) -> tuple[str, int | None]:
    """kvm and the group of its device where a firmware comes up with it, else tcg."""
    group = kvm_group()
    if group is None:
        return "tcg", None
    said = engine(
        name,
        "run",
        "--rm",
        "--pull=never",
        "--network=none",
        "--device=/dev/kvm",
        tools,
        "sh",
        "-c",
        TRIAL,
        "sh",
        "kvm",
        check=False,
    )
    return ("kvm", group) if "BdsDxe" in said else ("tcg", None)


def make_key(path: Path, comment: str) -> str:
    """A key pair of this one boot; its public half."""
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.pub").unlink(missing_ok=True)
    ran = subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise BootError(f"ssh-keygen made no key {path}: {ran.stderr.strip()}")
    return path.with_name(f"{path.name}.pub").read_text(encoding="ascii").strip()


def write_seed(folder: Path, firmware: str, keys: list[str], host_key: Path | None) -> None:
    """The two files of NoCloud. The host key is a secret, so the folder is its owner's alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    user: dict[str, Any] = {"ssh_authorized_keys": keys, "bootcmd": [["sh", "-c", NO_ACCEPTANCE]]}
    if host_key:
        user["ssh_keys"] = {
            "ed25519_private": host_key.read_text(encoding="ascii"),
            "ed25519_public": host_key.with_name(f"{host_key.name}.pub").read_text(encoding="ascii").strip(),
        }
    meta = {"instance-id": f"gate-{secrets.token_hex(4)}", "local-hostname": f"gate-{firmware}"}
    for name, text in (
        ("meta-data", json.dumps(meta)),
        ("user-data", f"#cloud-config\n{json.dumps(user, indent=1)}\n"),
    ):
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")


def image_format(path: Path) -> str:
    """By its first bytes: qcow2 has a magic number, and what has none is raw."""
    try:
        with path.open("rb") as file:
            return "qcow2" if file.read(4) == b"QFI\xfb" else "raw"
    except OSError as problem:
        raise BootError(
            f"The image {path} cannot be read: {problem.strerror}. Build it, or name another"
        ) from None


def start(
    order: Order,
    firmware: str,
    speed: tuple[str, int | None],
    *,
    keys: list[str] | None = None,
    isolated: bool = True,
) -> Machine:
    """Start one machine."""
    accelerated, group = speed
    name = f"gpumesh-gate-{order.build}-{firmware}"
    console = order.folder / f"console-{firmware}.log"
    key = order.folder / f"key-{firmware}"
    made = [make_key(key, f"gate-{firmware}")] if keys is None else keys
    host_key = None
    planted = ""
    if firmware == "bios":
        host_key = order.folder / f"host-key-{firmware}"
        planted = " ".join(make_key(host_key, f"gate-{firmware}").split()[:2])
    seed = order.folder / f"seed-{firmware}"
    write_seed(seed, firmware, made, host_key)
    console.unlink(missing_ok=True)
    settings = {
        "FIRMWARE": firmware,
        "FORMAT": image_format(order.image),
        "ACCELERATOR": accelerated,
        # More than one only slows an emulated machine down where two of them share few CPUs.
        "CPUS": "2" if accelerated == "kvm" else "1",
        "MEMORY": str(order.memory_mb),
        "SERIAL": f"file:/gate/{console.name}",
        "LIFETIME": str(int(order.timeout) + GATE_SECONDS),
        "RESTRICT": "restrict=on," if isolated else "",
        "RELAY": RELAY,
    }
    engine(order.engine, "rm", "--force", "--volumes", name, check=False)
    begun = time.monotonic()
    engine(
        order.engine,
        "run",
        "--detach",
        "--rm",
        "--pull=never",
        f"--name={name}",
        f"--label=gpumesh.image.build={order.build}",
        f"--label=gpumesh.image.store={order.store}",
        f"--label=gpumesh.image.gate={order.build}",
        f"--user={os.getuid()}:{os.getgid()}",
        *([] if group is None else ["--device=/dev/kvm", f"--group-add={group}"]),
        f"--publish=127.0.0.1::{GUEST_PORT}",
        f"--volume={order.image}:/image:ro",
        f"--volume={seed}:/seed:ro",
        f"--volume={order.folder}:/gate",
        *(f"--env={key}={value}" for key, value in settings.items()),
        order.tools,
        "sh",
        "-c",
        INSIDE,
    )
    published = engine(order.engine, "port", name, str(GUEST_PORT), check=False).splitlines()
    if not published:
        raise BootError(f"QEMU did not start for {firmware}: {_qemu_said(order, firmware)}")
    return Machine(
        firmware=firmware,
        accelerator=accelerated,
        container=name,
        address="127.0.0.1",
        port=int(published[0].rpartition(":")[2]),
        user=order.user,
        key=key,
        known_hosts=order.folder / f"known-hosts-{firmware}",
        console=console,
        planted=planted,
        begun=begun,
    )


def _qemu_said(order: Order, firmware: str) -> str:
    try:
        said = (order.folder / f"qemu-{firmware}.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        said = ""
    return " ".join(said.split()) or "it said nothing"


def read_console(path: Path) -> str:
    """What the serial console has said, without its colours."""
    try:
        return ESCAPES.sub("", path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""


def keys_on(console: str) -> list[str]:
    """The host keys that cloud-init prints on the console: all of them, or none while it is at it."""
    found = HOST_KEYS.search(console)
    return PUBLIC_KEY.findall(found[1]) if found else []


def banner(address: str, port: int) -> bool:
    """Whether an SSH server answers. QEMU takes connections before the machine does, so being let in says nothing."""
    try:
        with socket.create_connection((address, port), timeout=5) as connection:
            connection.settimeout(10)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def ssh_command(machine: Machine) -> list[str]:
    """A login that believes only the known host key, with the one key that was made for it."""
    return [
        "ssh", "-F", "/dev/null", "-p", str(machine.port), "-i", str(machine.key),
        "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "ConnectTimeout=30",
        "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={machine.known_hosts}",
        "-o", "GlobalKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", f"{machine.user}@{machine.address}",
    ]  # fmt: skip


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
                    f"stopped by itself; QEMU said: {_qemu_said(order, machine.firmware)}",
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


def stop(name: str, build: str) -> None:
    """Stop every machine of a build."""
    found = engine(name, "ps", "--all", "--quiet", f"--filter=label=gpumesh.image.gate={build}").split()
    if found:
        engine(name, "rm", "--force", "--volumes", *found, check=False)


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
    parser = argparse.ArgumentParser(
        prog="boot.py", description="Boot a golden image, and say how to log in."
    )
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


if __name__ == "__main__":
    main(sys.argv[1:])
