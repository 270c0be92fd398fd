# SPDX-License-Identifier: GPL-3.0-or-later
"""One virtual machine: QEMU in a container, started and stopped."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from .engine import BootError, engine
from .order import Order
from .seed import make_key, write_seed

GUEST_PORT = 2222
# The gate may take about so long after the boot.
GATE_SECONDS = 1800
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
        raise BootError(f"QEMU did not start for {firmware}: {qemu_said(order, firmware)}")
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


def qemu_said(order: Order, firmware: str) -> str:
    """What QEMU complained of."""
    try:
        said = (order.folder / f"qemu-{firmware}.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        said = ""
    return " ".join(said.split()) or "it said nothing"


def ssh_command(machine: Machine) -> list[str]:
    """A login that believes only the known host key, with the one key that was made for it."""
    return [
        "ssh", "-F", "/dev/null", "-p", str(machine.port), "-i", str(machine.key),
        "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "ConnectTimeout=30",
        "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={machine.known_hosts}",
        "-o", "GlobalKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", f"{machine.user}@{machine.address}",
    ]  # fmt: skip


def stop(name: str, build: str) -> None:
    """Stop every machine of a build."""
    found = engine(name, "ps", "--all", "--quiet", f"--filter=label=gpumesh.image.gate={build}").split()
    if found:
        engine(name, "rm", "--force", "--volumes", *found, check=False)
