# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a disk that boots with BIOS and UEFI out of the tar of a root file system. Nothing is mounted, and root is not needed.

It runs in the image of tools. The same tar gives the same disk, bit for bit: all ids follow from the fingerprint, all times
are the epoch or older, and files are written in the order of their names.

usage: python3 disk.py '{"tar": "root.tar", "out": "disk.qcow2", "fingerprint": "0123", "epoch": 1764000000, ...}'
       python3 disk.py '{"image": "disk.qcow2", "gcp_tar": "disk.tar.gz"}'
       python3 disk.py '{"image": "disk.qcow2", "raw": "disk.raw.zst"}'
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SECTOR = 512
MIB = 1 << 20
GIB = 1 << 30
BLOCK = 4096
# One inode for so much of the disk.
INODE_RATIO = 16384
ROOM = 768 * MIB
ESP_BYTES = 128 * MIB
BOOT_BYTES = GIB
LUKS_HEADER_BYTES = 16 * MIB

BIOS_TYPE = "21686148-6449-6E6F-744E-656564454649"
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"

GRUB = Path("/usr/lib/grub/i386-pc")
# What finds the root file system and starts a kernel from it. All others are beside grub.cfg, for when it is generated anew.
GRUB_MODULES = (
    "biosdisk",
    "part_gpt",
    "ext2",
    "search",
    "search_fs_uuid",
    "search_fs_file",
    "search_label",
    "configfile",
    "normal",
    "linux",
    "boot",
    "echo",
    "test",
    "true",
    "loadenv",
    "minicmd",
    "sleep",
    "reboot",
    "halt",
    "serial",
    "terminal",
    "gzio",
    "all_video",
)

# Kernel file systems, and what a container engine leaves where it mounts its own.
EMPTY_FOLDERS = ("dev", "proc", "run", "sys", "tmp", "lost+found")
ENGINE_FILES = (".dockerenv", "run/.containerenv")
MOUNTED_OVER = {
    "etc/hosts": b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    b"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    "etc/hostname": b"",
}
RESOLVER = "../run/systemd/resolve/stub-resolv.conf"

SHIM = "usr/lib/shim/shimx64.efi.signed"
SIGNED_GRUB = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
MOK_MANAGERS = ("usr/lib/shim/mmx64.efi.signed", "usr/lib/shim/mmx64.efi")


class DiskError(Exception):
    """What is told to the user, in one sentence."""


@dataclass(frozen=True)
class Partition:
    """One partition; numbers are in sectors."""

    name: str
    type: str
    start: int
    sectors: int
    uuid: str

    @property
    def offset(self) -> int:
        """Where it begins, in bytes."""
        return self.start * SECTOR

    @property
    def size(self) -> int:
        """How large it is, in bytes."""
        return self.sectors * SECTOR


class Ids:
    """The ids of everything in an image, which follow from its fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def of(self, what: str) -> str:
        """The UUID of something."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"gpumesh-image:{self.fingerprint}:{what}"))

    @property
    def esp(self) -> str:
        """The volume id of the FAT file system, which has but 32 bits."""
        return self.of("esp")[:8].upper()


def run(what: str, *command: str, stdin: str = "", **environment: str) -> str:
    """Run a program, and answer what it printed."""
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, input=stdin, env={**os.environ, **environment}
    )
    if done.returncode != 0:
        raise DiskError(f"Cannot {what}: {last_words(done.stderr or done.stdout)}")
    return done.stdout


def last_words(said: str) -> str:
    """The last lines of what a program said, as one."""
    return (
        "; ".join([line.strip() for line in said.splitlines() if line.strip()][-3:])
        or "the program said nothing"
    )


class Root:
    """The files of the root file system, by their names from its top, read out of a tar."""

    def __init__(self, path: str, epoch: int) -> None:
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115
            members = self._tar.getmembers()
        except (OSError, tarfile.TarError) as error:
            raise DiskError(f"Cannot read the root file system out of {path}: {error}") from error
        self.path = path
        self.epoch = epoch
        self.members: dict[str, tarfile.TarInfo] = {}
        self._added: dict[str, bytes] = {}
        for member in members:
            name = posixpath.normpath(member.name).lstrip("/")
            if (
                name == "."
                or name in ENGINE_FILES
                or (name.partition("/")[0] in EMPTY_FOLDERS and "/" in name)
            ):
                continue
            # The size in the file system counts, and a hard link has none.
            member.name = name
            if member.islnk():
                member.linkname = posixpath.normpath(member.linkname).lstrip("/")
            member.mtime = min(int(member.mtime), epoch)
            member.uname = member.gname = ""
            member.pax_headers = {
                key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")
            }
            self.members[name] = member
        for name in list(self.members):
            self._make_folders(name)
        self._repair()

    def _repair(self) -> None:
        """Put back what the engine has mounted its own files over, which are empty in an export."""
        for name, content in MOUNTED_OVER.items():
            if name not in self.members or (self.members[name].isfile() and self.members[name].size == 0):
                self.add(name, content)
        resolver = self.members.get("etc/resolv.conf")
        if resolver is None or (resolver.isfile() and resolver.size == 0):
            link = tarfile.TarInfo("etc/resolv.conf")
            link.type, link.linkname, link.mode, link.mtime = tarfile.SYMTYPE, RESOLVER, 0o777, self.epoch
            self._put(link)

    def add(self, name: str, content: bytes) -> None:
        """Add a file, or replace it."""
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(content), 0o644, self.epoch
        self._put(member)
        self._added[name] = content

    def add_folder(self, name: str) -> None:
        """Make sure that there is a folder."""
        self._make_folders(f"{name}/.")

    def _put(self, member: tarfile.TarInfo) -> None:
        self._make_folders(member.name)
        self.members[member.name] = member

    def _make_folders(self, name: str) -> None:
        """Those above a file, which mke2fs does not make by itself."""
        folder = posixpath.dirname(name)
        if folder and folder not in self.members:
            member = tarfile.TarInfo(folder)
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, self.epoch
            self._put(member)

    def find(self, pattern: str) -> list[str]:
        """The names of files or links that a pattern matches, the newest version last."""
        found = [
            name
            for name, member in self.members.items()
            if re.fullmatch(pattern, name) and not member.isdir()
        ]
        return sorted(
            found, key=lambda name: [(int(part or 0), rest) for part, rest in re.findall(r"(\d*)(\D*)", name)]
        )

    def resolve(self, name: str) -> str | None:
        """The file that a name leads to."""
        for _hop in range(16):
            member = self.members.get(name)
            if member is None or member.isdir():
                return None
            if member.isfile():
                return name
            base = "" if member.islnk() or member.linkname.startswith("/") else posixpath.dirname(name)
            name = posixpath.normpath(posixpath.join(base, member.linkname.lstrip("/")))
        return None

    def _first(self, name: str) -> tarfile.TarInfo:
        """What a hard link links to."""
        member = self.members[name]
        while member.islnk():
            if member.linkname not in self.members:
                raise DiskError(
                    f"{self.path} has a hard link {name} to {member.linkname}, which it does not have"
                )
            member = self.members[member.linkname]
        return member

    def read(self, name: str) -> bytes:
        """What a file holds."""
        found = self.resolve(name)
        if found is None:
            raise DiskError(f"{self.path} has no file {name}")
        if found in self._added:
            return self._added[found]
        file = self._tar.extractfile(self.members[found])
        return file.read() if file is not None else b""

    def below(self, folder: str) -> list[str]:
        """The names of all files below a folder."""
        return [name for name in self.members if name.startswith(f"{folder}/")]

    def used(self, names: list[str]) -> int:
        """About how many bytes they take on the disk."""
        return sum(BLOCK * -(-max(self.members[name].size, 1) // BLOCK) for name in names)

    def write(self, names: list[str], top: str, into: IO[bytes]) -> None:
        """Write these files as a tar: folders before what is in them, hard links after what they link to."""
        ordered = sorted(names, key=lambda name: (self.members[name].islnk(), name.split("/")))
        with tarfile.open(fileobj=into, mode="w|", format=tarfile.PAX_FORMAT, bufsize=MIB) as tar:
            tar.copybufsize = MIB
            for name in ordered:
                member = self.members[name].replace(name=name.removeprefix(top), deep=False)
                if member.islnk():
                    # mke2fs gives the file the owner and the mode of the link.
                    first = self._first(name)
                    member = first.replace(
                        name=member.name, linkname=first.name.removeprefix(top), deep=False
                    )
                    member.type, member.size = tarfile.LNKTYPE, 0
                if not member.isreg():
                    tar.addfile(member)
                elif name in self._added:
                    tar.addfile(member, io.BytesIO(self._added[name]))
                else:
                    tar.addfile(member, self._tar.extractfile(self.members[name]))


def needed(root: Root) -> tuple[str, str]:
    """Refuse what would not boot, and answer the newest kernel and its initrd."""
    missing = []
    kernels = [
        (kernel, initrd)
        for kernel in root.find(r"boot/vmlinuz-[^/]+")
        if root.resolve(initrd := kernel.replace("boot/vmlinuz-", "boot/initrd.img-"))
    ]
    if not root.find(r"boot/vmlinuz-[^/]+"):
        missing.append("a kernel (boot/vmlinuz-*)")
    elif not kernels:
        missing.append("an initrd for its kernel (boot/initrd.img-*)")
    for name, what in (
        (SHIM, "shim"),
        (SIGNED_GRUB, "GRUB's signed image"),
        ("boot/grub/grub.cfg", "GRUB's menu"),
    ):
        if not root.resolve(name):
            missing.append(f"{what} ({name})")
    if missing:
        raise DiskError(
            f"{root.path} would not boot, it lacks {', '.join(missing)}. Its lowest layer installs the packages, and sealing "
            "writes the menu; see which of them a layer has removed"
        )
    return kernels[-1]


def plan(used: int, files: int, ids: Ids, wanted_bytes: int, luks: bool) -> tuple[int, dict[str, Partition]]:
    """How large the disk is, and its partitions. The last one can grow."""
    fixed = 2 * MIB + ESP_BYTES + (BOOT_BYTES + LUKS_HEADER_BYTES if luks else 0)
    least = max(int(used * 1.25) + ROOM, int(files * INODE_RATIO * 1.25)) + (fixed if luks else 0)
    total = wanted_bytes or -(-least // GIB) * GIB
    if total % GIB:
        raise DiskError(
            f"The disk is to have {total} bytes, which are no whole GiB. Some clouds take nothing else"
        )
    if total < least:
        raise DiskError(
            f"The disk is to have {total // GIB} GiB, and its content and some room need {-(-least // GIB)}. "
            "Raise golden_image_size_gb, or leave it 0"
        )
    sizes = [("bios", BIOS_TYPE, MIB), ("esp", ESP_TYPE, ESP_BYTES)]
    if luks:
        sizes.append(("boot", LINUX_TYPE, BOOT_BYTES))
    start = MIB
    partitions = {}
    # The last MiB holds the second copy of the table.
    sizes.append(("root", ROOT_TYPE, total - 2 * MIB - sum(size for _name, _type, size in sizes)))
    for number, (name, kind, size) in enumerate(sizes, 1):
        partitions[name] = Partition(name, kind, start // SECTOR, size // SECTOR, ids.of(f"part{number}"))
        start += size
    return total, partitions


def write_table(disk: Path, total: int, ids: Ids, partitions: dict[str, Partition]) -> None:
    """An empty disk with its table of partitions."""
    with disk.open("wb") as file:
        file.truncate(total)
    rows = [
        f"start={part.start}, size={part.sectors}, type={part.type}, uuid={part.uuid}, name={part.name}"
        for part in partitions.values()
    ]
    head = ["label: gpt", f"label-id: {ids.of('disk')}", "first-lba: 34"]
    run("write the table of partitions", "sfdisk", "--quiet", str(disk), stdin="\n".join([*head, *rows, ""]))


def write_bios(disk: Path, start: int, early: str, scratch: Path) -> None:
    """GRUB for BIOS: its boot sector, and its core in a partition of its own."""
    config = scratch / "early.cfg"
    config.write_text(early, encoding="utf-8")
    image = scratch / "core.img"
    run(
        "make GRUB's core", "grub-mkimage", "--format=i386-pc", "--prefix=/boot/grub", f"--config={config}",
        f"--output={image}", *GRUB_MODULES,
    )  # fmt: skip
    core = bytearray(image.read_bytes())
    if len(core) > MIB:
        raise DiskError(f"GRUB's core has {len(core)} bytes, and its partition has {MIB}")
    boot = bytearray((GRUB / "boot.img").read_bytes()[:440])
    # What grub-install does: where the core begins and goes on, and no trust in the BIOS about the drive it booted from.
    core[0x1F4:0x1FC] = struct.pack("<Q", start + 1)
    boot[0x5C:0x64] = struct.pack("<Q", start)
    boot[0x66:0x68] = b"\x90\x90"
    with disk.open("r+b") as file:
        file.write(boot)
        file.seek(start * SECTOR)
        file.write(core)


def write_esp(
    disk: Path, part: Partition, root: Root, ids: Ids, vendor: str, early: str, scratch: Path
) -> None:
    """The partition that UEFI starts from: shim and GRUB as signed by the distribution, where a removable disk has them."""
    image = scratch / "esp.img"
    with image.open("wb") as file:
        file.truncate(part.size)
    run(
        "make the EFI file system", "mkfs.vfat", "--invariant", "-F", "32", "-s", "1", "-S", str(SECTOR), "-i", ids.esp,
        "-n", "EFI", str(image),
    )  # fmt: skip
    files = {"BOOT/BOOTX64.EFI": root.read(SHIM), "BOOT/grubx64.efi": root.read(SIGNED_GRUB)}
    # It enrols the key that DKMS signs modules with.
    manager = next((name for name in MOK_MANAGERS if root.resolve(name)), None)
    if manager:
        files["BOOT/mmx64.efi"] = root.read(manager)
    files[f"{vendor}/grub.cfg"] = early.encode()
    times = {"SOURCE_DATE_EPOCH": str(root.epoch), "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"}
    run(
        "fill the EFI file system", "mmd", "-i", str(image), "::EFI", "::EFI/BOOT", f"::EFI/{vendor}", **times
    )
    for name, content in files.items():
        source = scratch / "file"
        source.write_bytes(content)
        os.utime(source, (root.epoch, root.epoch))
        run(
            "fill the EFI file system", "mcopy", "-m", "-i", str(image), str(source), f"::EFI/{name}", **times
        )
    with image.open("rb") as read, disk.open("r+b") as file:
        file.seek(part.offset)
        while chunk := read.read(MIB):
            if chunk.strip(b"\0"):
                file.write(chunk)
            else:
                file.seek(len(chunk), os.SEEK_CUR)


def write_ext4(
    target: Path, offset: int, size: int, label: str, identity: str, root: Root, names: list[str], top: str
) -> None:
    """A file system with these files, and nothing in it that depends on the builder's kernel or configuration."""
    command = [
        "mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-I", "256", "-i", str(INODE_RATIO), "-m", "1", "-L", label, "-U", identity,
        "-O", "^orphan_file,^metadata_csum_seed",
        "-E", f"offset={offset},hash_seed={identity},root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        "-d", "-", str(target), str(size // BLOCK),
    ]  # fmt: skip
    # Names are not ASCII everywhere, and libarchive refuses to convert them in the locale C.
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(root.epoch)}
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment
        ) as made:
            try:
                if made.stdin is not None:
                    root.write(names, top, made.stdin)
                    made.stdin.close()
            except BrokenPipeError:
                # It has said why.
                pass
        log.seek(0)
        said = log.read()
    if made.returncode != 0:
        raise DiskError(f"Cannot fill the file system {label}: {last_words(said)}")


def convert(disk: Path, out: Path, compress: bool) -> None:
    """The image file, under its name only when it is whole. Clusters are written in order, else no two would be equal."""
    part = out.with_name(f"{out.name}.part")
    options = ["-c", "-o", "compression_type=zstd"] if compress else []
    run(
        "write the image",
        "qemu-img",
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-m",
        "8",
        *options,
        str(disk),
        str(part),
    )
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    part.replace(out)


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Watch:
    """How long each step takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, step: str) -> None:
        """A step is done."""
        now = time.monotonic()
        self.seconds[step] = round(now - self._last, 2)
        self._last = now


def make(wanted: dict[str, Any]) -> dict[str, Any]:
    """Make the image; with LUKS, what it is encrypted from."""
    watch = Watch()
    ids = Ids(wanted["fingerprint"])
    luks = bool(wanted.get("luks"))
    root = Root(wanted["tar"], int(wanted["epoch"]))
    kernel, initrd = needed(root)
    root.add_folder("boot/efi")
    for module in sorted(GRUB.glob("*.mod")) + sorted(GRUB.glob("*.lst")):
        root.add(f"boot/grub/i386-pc/{module.name}", module.read_bytes())
    total, partitions = plan(
        root.used(list(root.members)), len(root.members), ids, int(wanted.get("size_bytes") or 0), luks
    )
    out = Path(wanted["out"])
    disk = out.with_name("disk.raw")
    watch.lap("read")
    early = (
        f"search.fs_uuid {ids.of('boot' if luks else 'root')} root\n"
        f"set prefix=($root){'' if luks else '/boot'}/grub\nconfigfile $prefix/grub.cfg\n"
    )
    with tempfile.TemporaryDirectory(dir=out.parent or ".", prefix=".disk-") as folder:
        scratch = Path(folder)
        write_table(disk, total, ids, partitions)
        write_bios(disk, partitions["bios"].start, early, scratch)
        write_esp(disk, partitions["esp"], root, ids, wanted.get("vendor") or "debian", early, scratch)
        watch.lap("boot")
    answer: dict[str, Any] = {}
    below = root.below("boot") if luks else []
    names = sorted(set(root.members) - set(below))
    part = partitions["root"]
    if luks:
        boot = partitions["boot"]
        write_ext4(disk, boot.offset, boot.size, "boot", ids.of("boot"), root, below, "boot/")
        plain = out.with_name("root.img")
        with plain.open("wb") as file:
            file.truncate(part.size - LUKS_HEADER_BYTES)
        write_ext4(plain, 0, part.size - LUKS_HEADER_BYTES, "root", ids.of("root"), root, names, "")
        out.with_name("vmlinuz").write_bytes(root.read(kernel))
        out.with_name("initrd.img").write_bytes(root.read(initrd))
        watch.lap("root")
        answer["luks"] = {
            "partition": len(partitions),
            "offset": part.offset,
            "root_bytes": part.size - LUKS_HEADER_BYTES,
            "compress": bool(wanted.get("compress", True)),
        }
    else:
        write_ext4(disk, part.offset, part.size, "root", ids.of("root"), root, names, "")
        watch.lap("root")
        if wanted.get("raw_checksum"):
            answer["raw_sha256"] = sha256(disk)
        convert(disk, out, bool(wanted.get("compress", True)))
        disk.unlink()
        watch.lap("convert")
        answer |= {"sha256": sha256(out), "size_bytes": out.stat().st_size}
        watch.lap("checksum")
    return answer | {
        "virtual_size_bytes": total,
        "sectors": total // SECTOR,
        "used_bytes": root.used(list(root.members)),
        "kernel": kernel.removeprefix("boot/vmlinuz-"),
        "ids": {"disk": ids.of("disk"), "root": ids.of("root"), "boot": ids.of("boot"), "esp": ids.esp},
        "partitions": [
            {
                "number": number,
                "name": one.name,
                "type": one.type,
                "uuid": one.uuid,
                "start": one.start,
                "sectors": one.sectors,
            }
            for number, one in enumerate(partitions.values(), 1)
        ],
        "seconds": watch.seconds,
    }


def pack(wanted: dict[str, Any]) -> dict[str, Any]:
    """The image in the form that a cloud takes: a raw disk in a tar for Google, a packed raw disk for others."""
    image, out = Path(wanted["image"]), Path(wanted.get("gcp_tar") or wanted["raw"])
    size = json.loads(run("read the image", "qemu-img", "info", "--output=json", str(image)))["virtual-size"]
    if wanted.get("gcp_tar") and size % GIB:
        raise DiskError(f"{image} has {size} bytes, and Google takes whole GiB")
    with tempfile.TemporaryDirectory(dir=out.parent or ".", prefix=".pack-") as folder:
        # Another run may be packing the same; whichever ends last, the file is whole.
        disk, part = Path(folder) / "disk.raw", Path(folder) / f"{out.name}.part"
        run("unpack the image", "qemu-img", "convert", "-O", "raw", str(image), str(disk))
        if wanted.get("gcp_tar"):
            # https://cloud.google.com/compute/docs/import/import-existing-image: the format, the name, and sparse.
            run(
                "pack the disk", "tar", "--format=oldgnu", "--sparse", "--owner=0", "--group=0", "--numeric-owner", "--mode=0644",
                "--mtime=@0", f"--directory={folder}", "--use-compress-program=pigz --no-name", "--create", f"--file={part}", "disk.raw",
            )  # fmt: skip
        elif out.suffix in (".zst", ".xz"):
            packer = {".zst": "zstd", ".xz": "xz"}[out.suffix]
            with part.open("wb") as file:
                done = subprocess.run(
                    [packer, "-T0", "-c", str(disk)], stdout=file, stderr=subprocess.PIPE, check=False
                )
            if done.returncode != 0:
                raise DiskError(f"Cannot pack the disk: {last_words(done.stderr.decode(errors='replace'))}")
        else:
            shutil.move(disk, part)
        part.replace(out)
    return {
        "out": str(out),
        "virtual_size_bytes": size,
        "size_bytes": out.stat().st_size,
        "sha256": sha256(out),
    }


def main() -> None:
    """Do what the argument says, and print what came of it as one JSON object."""
    wanted = json.loads(sys.argv[1])
    print(json.dumps(pack(wanted) if "image" in wanted else make(wanted)))


if __name__ == "__main__":
    try:
        main()
    except DiskError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"Cannot write the disk: {error}")
