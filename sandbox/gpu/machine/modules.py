# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel modules on disk: which one a kernel would load, and what it says of itself. SIMULATED."""

from __future__ import annotations

import gzip
import lzma
import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .places import Machine, version_key

SIGNATURE = b"~Module signature appended~\n"
_MAIN = re.compile(r"^nvidia(-current|-tesla|-tesla-\d+)?(-open)?\.ko(\.(xz|gz|zst))?$")
_OPEN_LICENSES = ("Dual MIT/GPL", "Dual MIT/GPL v2", "GPL")


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the driver, in a file."""

    path: Path
    version: str
    flavour: str
    vermagic: str
    signed: bool

    @property
    def dkms(self) -> bool:
        return "dkms" in self.path.parts


def on_disk(machine: Machine, kernel: str) -> Module | None:
    """The module that this kernel would load."""
    folder = machine.modules / kernel
    found = [path for path in folder.glob("**/nvidia*.ko*") if _MAIN.match(path.name)]
    modules = [module for path in found if (module := read(path)) is not None]
    # As depmod has it: what was added under updates/ goes before what came with the kernel.
    return max(modules, key=lambda m: ("updates" in m.path.parts, version_key(m.version)), default=None)


def companions(machine: Machine, kernel: str) -> list[str]:
    """The other modules of the driver there are for a kernel, by the names they are loaded under."""
    folder = machine.modules / kernel
    names = {path.name.split(".ko")[0] for path in folder.glob("**/nvidia*.ko*")}
    wanted = ("modeset", "uvm", "drm")
    return [f"nvidia_{part}" for part in wanted if any(name.endswith(f"-{part}") for name in names)]


def read(path: Path) -> Module | None:
    """What a module says of itself; None: the file is none."""
    content = _unpacked(path)
    info = modinfo(content)
    if "version" not in info:
        return None
    return Module(
        path=path,
        version=info["version"],
        flavour="open" if info.get("license") in _OPEN_LICENSES else "closed",
        vermagic=info.get("vermagic", ""),
        signed=content.endswith(SIGNATURE),
    )


def modinfo(content: bytes) -> dict[str, str]:
    """The ``.modinfo`` section of an ELF object; {}: it has none."""
    if content[:5] != b"\x7fELF\x02" or len(content) < 64:
        return {}
    table, size, count, names_at = struct.unpack_from("<Q10xHHH", content, 40)
    try:
        headers = [struct.unpack_from("<IIQQQQ", content, table + size * n) for n in range(count)]
        names = content[headers[names_at][4] :]
        for header in headers:
            if names[header[0] :].split(b"\0", 1)[0] == b".modinfo":
                section = content[header[4] : header[4] + header[5]]
                pairs = (entry.partition("=") for entry in section.decode(errors="replace").split("\0"))
                return {key: value for key, sep, value in pairs if sep}
    except (struct.error, IndexError):
        return {}
    return {}


def _unpacked(path: Path) -> bytes:
    try:
        if path.suffix == ".xz":
            return lzma.decompress(path.read_bytes())
        if path.suffix == ".gz":
            return gzip.decompress(path.read_bytes())
        if path.suffix == ".zst":
            return subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout
        return path.read_bytes()
    except (OSError, lzma.LZMAError, subprocess.CalledProcessError):
        return b""


def next_kernel(machine: Machine, otherwise: str) -> str:
    """The kernel a boot takes: the highest one that has an image, as the boot loader's menu has it."""
    kernels = [path.name.removeprefix("vmlinuz-") for path in (machine.prefix / "boot").glob("vmlinuz-*")]
    return max(kernels, key=_kernel_key, default=otherwise)


def _kernel_key(kernel: str) -> list[tuple[int, int, str]]:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|\D+", kernel)]


def settings(machine: Machine) -> list[list[str]]:
    """The lines of modprobe's settings, in words."""
    return [words for line in _lines(machine, "modprobe.d") if (words := line.split("#", 1)[0].split())]


def _lines(machine: Machine, folder: str) -> list[str]:
    """Of all files of a folder that is in several places. A file in /etc hides one of the same name in /usr/lib."""
    files: dict[str, Path] = {}
    for place in ("usr/lib", "run", "etc"):
        found = (machine.prefix / place / folder).glob("*.conf")
        # A link may lead nowhere, as Debian's to /etc/modules does where that is not installed.
        files.update({path.name: path for path in found if path.is_file()})
    return [line for name in sorted(files) for line in files[name].read_text(errors="replace").splitlines()]


def blacklisted(machine: Machine, name: str) -> bool:
    """Whether a module is not to be loaded by itself."""
    lines = settings(machine)
    return ["blacklist", name] in lines or any(
        line[:2] == ["install", name] and line[2:] in (["/bin/false"], ["/bin/true"]) for line in lines
    )


def parameters(machine: Machine, names: tuple[str, ...] = ("nvidia", "nvidia-current")) -> dict[str, str]:
    """The options a module is to be loaded with."""
    pairs = (
        word.partition("=")
        for line in settings(machine)
        if line[:1] == ["options"]
        for word in line[2:]
        if line[1] in names
    )
    return {key: value for key, _, value in pairs}


def wanted_at_boot(machine: Machine) -> list[str]:
    """Modules named in modules-load.d."""
    lines = (line.strip() for line in _lines(machine, "modules-load.d"))
    return [line for line in lines if line and line[0] not in "#;"]
