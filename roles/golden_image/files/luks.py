# SPDX-License-Identifier: GPL-3.0-or-later
"""Encrypt the root file system of an image that the program disk has laid out, and pack the image.

Only a kernel with the device mapper can write LUKS volumes, and a container on any machine may have none. So a virtual machine
does it, with the image's own kernel, initramfs and cryptsetup: luks/init is its only program. The passphrase reaches it as a disk,
which is a file in memory, and stands on no command line. Only blocks in use are copied, so that the image stays as small as it can
be; encrypted, they do not compress.

usage: python3 luks.py '{"tools": "gpumesh/image-tools:0123", "work": "/images/.work/x-1", "passphrase_file": "~/passphrase", ...}'
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from boot.engine import BootError
from boot.kvm import accelerator

MIB = 1 << 20
# What cryptsetup makes it by itself.
HEADER_MIB = 16
CIPHER = "aes-xts-plain64"
# Argon2id as RFC 9106 has it for machines with little memory (64 MiB), with the least number of passes that cryptsetup takes, and
# one thread, because the smallest machines have one. It is opened in less than a second, also where an image has been made on a
# machine that is far larger.
MEMORY_KIB = 64 * 1024
ITERATIONS = 4
THREADS = 1
# cryptsetup reads no more from a keyboard.
LONGEST = 512
SHORTEST = 8
MARK = "gpumesh-luks: "
DISKS = {
    "plain": "file=/work/root.img,readonly=on",
    "image": "file=/work/disk.raw,cache=unsafe",
    "key": "file=/key/disk,readonly=on",
    "back": "file=/work/back.img,cache=unsafe",
}
SHOWN_LINES = 15
GROUP_FREE = re.compile(r"^\s+Free blocks: (.*)$", re.MULTILINE)
FIELD = re.compile(r"^(Block size|Block count):\s+(\d+)$", re.MULTILINE)


class LuksError(Exception):
    """What is told to the user: what went wrong, and what to do next."""


def passphrase_of(path: Path) -> bytes:
    """The passphrase, if its file is nobody else's to read and it can be typed at a console."""
    name = "golden_image_luks_passphrase_file"
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            content = file.read(LONGEST + 3)
    except OSError as error:
        raise LuksError(
            f"{name}: {path} cannot be read: {error.strerror}. Write the passphrase into it"
        ) from None
    if not stat.S_ISREG(about.st_mode):
        raise LuksError(f"{name}: {path} is no file. Write the passphrase into one")
    if about.st_mode & 0o077:
        raise LuksError(f"{name}: others may read {path}. Run: chmod 600 {path}")
    passphrase = content.removesuffix(b"\n").removesuffix(b"\r")
    if not SHORTEST <= len(passphrase) <= LONGEST:
        raise LuksError(
            f"{name}: the passphrase in {path} has to have {SHORTEST} to {LONGEST} bytes, and nobody could type another"
        )
    if any(byte < 32 or byte == 127 for byte in passphrase):
        raise LuksError(
            f"{name}: {path} has to hold one line without control characters, which nobody could type at a console"
        )
    return passphrase


def in_memory(mounts: str, candidates: Iterable[str]) -> Path | None:
    """The first of some folders that is kept in memory and not on a disk."""
    kinds = {
        fields[1]: fields[2] for fields in (line.split() for line in mounts.splitlines()) if len(fields) > 2
    }
    for candidate in candidates:
        folder = Path(candidate)
        home = next((str(path) for path in (folder, *folder.parents) if str(path) in kinds), "")
        if kinds.get(home) in ("tmpfs", "ramfs") and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


def key_folder() -> Path:
    """A new folder in memory for the passphrase."""
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.getuid()}", "/dev/shm", "/run"]  # noqa: S108
    place = in_memory(Path("/proc/mounts").read_text(encoding="utf-8"), filter(None, candidates))
    if place is None:
        raise LuksError(
            "The control machine has no folder in memory to hand the passphrase over in, and it is not written to a disk. "
            "Mount one: sudo mount -t tmpfs tmpfs /dev/shm"
        )
    return Path(tempfile.mkdtemp(prefix="gpumesh-luks-", dir=place))


def key_disk(passphrase: bytes) -> bytes:
    """The passphrase as a disk: its length in the first sector, and it from the second one on."""
    disk = f"{len(passphrase)}\n".encode().ljust(512, b"\0") + passphrase
    return disk.ljust(4096, b"\0")


def extents_of(dumped: str, size: int) -> list[tuple[int, int]]:
    """What of a file system is in use by what dumpe2fs says, as start and length in MiB."""
    fields = dict(FIELD.findall(dumped))
    block, count = int(fields["Block size"]), int(fields["Block count"])
    free: list[tuple[int, int]] = []
    for line in GROUP_FREE.findall(dumped):
        for word in filter(None, (part.strip() for part in line.split(","))):
            first, _dash, last = word.partition("-")
            free.append((int(first), int(last or first) + 1))
    used, at = [], 0
    for start, end in [*sorted(free), (count, count)]:
        if start > at:
            used.append((at * block, start * block))
        at = max(at, end)
    merged: list[list[int]] = []
    for start, end in used:
        first, last = start // MIB, min(-(-end // MIB), -(-size // MIB))
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return [(first, last - first) for first, last in merged]


def digest(path: Path, extents: Iterable[tuple[int, int]]) -> str:
    """The checksum of some parts of a file."""
    summed = hashlib.sha256()
    with path.open("rb") as file:
        for start, count in extents:
            file.seek(start * MIB)
            for _mib in range(count):
                summed.update(file.read(MIB))
    return summed.hexdigest()


def archive(files: dict[str, tuple[int, bytes]]) -> bytes:
    """Files as a cpio archive of the kind that the kernel unpacks (newc); a name that ends in a slash is a folder."""
    members = [(name, *content) for name, content in files.items()] + [("TRAILER!!!", 0, b"")]
    out = bytearray()
    for number, (name, mode, content) in enumerate(members, 1):
        kind = 0 if not mode else stat.S_IFDIR if name.endswith("/") else stat.S_IFREG
        path = name.rstrip("/").encode() + b"\0"
        fields = (number, kind | mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        for part in (b"070701" + b"".join(b"%08X" % value for value in fields) + path, content):
            out += part
            out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs(
    image: bytes, program: str, parameters: dict[str, Any], extents: list[tuple[int, int]]
) -> bytes:
    """The image's own, with our program and what it is to do."""
    said = "".join(f"{name}={value}\n" for name, value in parameters.items())
    lines = "".join(f"{start} {count}\n" for start, count in extents)
    ours = archive(
        {
            "gpumesh/": (0o700, b""),
            "gpumesh/init": (0o755, program.encode()),
            "gpumesh/parameters": (0o600, said.encode()),
            "gpumesh/extents": (0o600, lines.encode()),
        }
    )
    return image + bytes(-len(image) % 4) + ours


def machine(speed: str, *disks: str) -> list[str]:
    """QEMU's command line, as seen from in the container of the tools."""

    devices: list[str] = []
    for name in disks:
        devices += ["-drive", f"id={name},if=none,format=raw,{DISKS[name]}"]
        devices += ["-device", f"virtio-blk-pci,drive={name},serial={name}"]
    return [
        *("qemu-system-x86_64", "-machine", f"q35,accel={speed}"),
        *("-cpu", "host" if speed == "kvm" else "max", "-smp", "2", "-m", "1024"),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-device", "virtio-rng-pci"),
        *("-kernel", "/work/vmlinuz", "-initrd", "/work/luks-initrd.img"),
        *("-append", "console=ttyS0 quiet panic=-1 rdinit=/gpumesh/init"),
        *devices,
    ]


def told(console: str) -> Iterator[str]:
    """What the program on the virtual machine has said."""
    for line in console.splitlines():
        _before, mark, text = line.partition(MARK)
        if mark:
            yield text.strip()


def verdict(console: str) -> dict[str, Any]:
    """What came of it by what was said on the console."""
    said = list(told(console))
    last = said[-1] if said else ""
    if last != "done":
        lines = "\n".join([line for line in console.splitlines() if line.strip()][-SHOWN_LINES:])
        why = last if last.startswith("failed: ") else f"it ended after '{last or 'nothing'}'"
        raise LuksError(
            f"The virtual machine that encrypts the root file system did not get through ({why}). "
            f"The image needs the packages cryptsetup-initramfs and busybox. The last lines of its console:\n{lines}"
        )
    dump = dict(line.removeprefix("dump ").split("=", 1) for line in said if line.startswith("dump "))
    return {
        "cipher": dump.get("Cipher", CIPHER),
        "pbkdf": dump.get("PBKDF", ""),
        "iterations": int(dump.get("Time cost", 0)),
        "memory_kib": int(dump.get("Memory", 0)),
        "threads": int(dump.get("Threads", 0)),
    }


class Tools:
    """Programs in the container of the tools."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.engine = wanted.get("engine", "docker")
        self.image = wanted["tools"]
        self.work = Path(wanted["work"])
        self.build = wanted["build"]
        self.store = wanted.get("store", "")

    def run(self, command: list[str], options: Iterable[str] = (), timeout: float = 600) -> str:
        """Run one program; what it said."""
        name = f"gpumesh-luks-{self.build}"
        done = None
        try:
            done = subprocess.run(
                [
                    *(self.engine, "run", "--rm", "--pull=never", f"--name={name}", "--network=none"),
                    *(
                        f"--label=gpumesh.image.build={self.build}",
                        f"--label=gpumesh.image.store={self.store}",
                    ),
                    "--env=LC_ALL=C.UTF-8",
                    *("--read-only", "--tmpfs=/tmp", f"--user={os.getuid()}:{os.getgid()}"),
                    *(f"--volume={self.work}:/work", *options, self.image, *command),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError:
            raise LuksError(
                f"There is no command '{self.engine}' on the control machine. Install a container engine, "
                "or name yours in golden_image_engine"
            ) from None
        except subprocess.TimeoutExpired as error:
            console = (
                error.stdout.decode(errors="replace")
                if isinstance(error.stdout, bytes)
                else error.stdout or ""
            )
            raise LuksError(
                f"{command[0]} was still running after {timeout:.0f} seconds. "
                f"The last that was heard of it: {console.strip().splitlines()[-1:]}"
            ) from None
        finally:
            if done is None:
                subprocess.run([self.engine, "rm", "--force", name], capture_output=True, check=False)
        if done.returncode != 0:
            raise LuksError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout


def encrypt(wanted: dict[str, Any], passphrase: bytes) -> dict[str, Any]:
    """Encrypt, and pack."""
    tools, work = Tools(wanted), Path(wanted["work"])
    root = work / "root.img"
    extents = extents_of(tools.run(["dumpe2fs", "/work/root.img"]), root.stat().st_size)
    parameters = {
        "uuid": wanted["luks_uuid"],
        "partition": wanted.get("partition", 4),
        "cipher": CIPHER,
        "header_mib": HEADER_MIB,
        "memory_kib": MEMORY_KIB,
        "iterations": ITERATIONS,
        "threads": THREADS,
    }
    (work / "luks-initrd.img").write_bytes(
        initramfs((work / "initrd.img").read_bytes(), wanted["init"], parameters, extents)
    )
    back = work / "back.img"
    with back.open("wb") as file:
        file.truncate(root.stat().st_size)
    speed, group = accelerator(tools.engine, tools.image)
    device = [] if group is None else ["--device=/dev/kvm", f"--group-add={group}"]
    folder = key_folder()
    try:
        disk = folder / "disk"
        disk.touch(mode=0o600)
        disk.write_bytes(key_disk(passphrase))
        console = tools.run(
            machine(speed, *DISKS),
            [f"--volume={folder}:/key:ro", *device],
            timeout=wanted.get("timeout", 3600),
        )
    finally:
        shutil.rmtree(folder)
    result = verdict(console)
    wrote, got = digest(root, extents), digest(back, extents)
    if got != wrote:
        raise LuksError(
            f"What is read back from the encrypted file system (sha256 {got}) is not what was written ({wrote}). "
            "Look at the disk that the store is on; then build again"
        )
    root.unlink()
    back.unlink()
    packed = ["qemu-img", "convert", "-m", "2", "-O", "qcow2"]
    if wanted.get("compress", True):
        packed += ["-c", "-o", "compression_type=zstd"]
    tools.run([*packed, "/work/disk.raw", f"/work/{wanted['out']}"], timeout=3600)
    for name in ("disk.raw", "vmlinuz", "initrd.img", "luks-initrd.img"):
        (work / name).unlink()
    made = work / wanted["out"]
    with made.open("rb") as file:
        summed = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        **result,
        "file": {"sha256": summed, "size_bytes": made.stat().st_size},
        "accelerator": speed,
        "copied_mib": sum(count for _start, count in extents),
    }


def main() -> None:
    """Do it, and print what came of it as one JSON object."""
    wanted = json.loads(sys.argv[1])
    start = time.monotonic()
    try:
        passphrase = passphrase_of(Path(wanted["passphrase_file"]).expanduser())
        if wanted.get("check_only"):
            print(json.dumps({"changed": False}))
            return
        result = encrypt(wanted, passphrase)
    except (LuksError, BootError) as error:
        sys.exit(str(error))
    print(json.dumps({"changed": True, **result, "seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
