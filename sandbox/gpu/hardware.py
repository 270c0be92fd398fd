# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated hardware as an archive: what turns a container into a machine with GPUs. SIMULATED.

It is unpacked into the root of a running machine (``docker cp - MACHINE:/``), whose unit then builds what the kernel
would show. A machine that already runs needs ``systemctl daemon-reload`` and a start of that unit.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from .machine.hardware import MARK, Profile
from .profiles import PROFILES

DISTRIBUTIONS: dict[str, str] = {
    "ubuntu-24.04": "6.8.0-90-generic",
    "debian-13": "6.12.117+deb13-amd64",
    "debian-12": "6.1.0-44-amd64",
}
"""The systems a machine may have, or claim to have, and the kernel it has booted where nothing else is said."""
UNIT = "gpumesh-simulated-gpus.service"
HOME = "usr/lib/gpumesh-simulated-gpus"
ROOT = "/var/lib/gpumesh-simulated-gpus/root"
"""Where the simulated machine's ``/sys`` and ``/proc`` are."""
CODE = Path(__file__).parent / "machine"
_EPOCH = 1_704_067_200
_PROGRAMS = {
    "modprobe": ("kmod", "modprobe"),
    "rmmod": ("kmod", "rmmod"),
    "gpumesh-simulated-gpus": ("control", "main"),
}
_PROGRAM = """\
#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SIMULATED: a stand-in of the gpumesh.fleet sandbox.
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, "/{home}")
from machine.{module} import {function}

sys.exit({function}())
"""
_UNIT = f"""\
[Unit]
Description=Simulated GPUs of the gpumesh.fleet sandbox ({MARK})
DefaultDependencies=no
RequiresMountsFor=/var/lib/gpumesh-simulated-gpus
After=local-fs.target systemd-remount-fs.service
Before=sysinit.target nvidia-persistenced.service nvidia-cdi-refresh.service
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/gpumesh-simulated-gpus boot

[Install]
WantedBy=sysinit.target
"""
_UBUNTU = {
    # What Ansible tells a distribution by. The word it knows the true one by must not occur in it.
    "etc/os-release": f"""\
PRETTY_NAME="Ubuntu 24.04.3 LTS ({MARK})"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat) ({MARK})"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
UBUNTU_CODENAME=noble
""",
    "etc/lsb-release": f"""\
DISTRIB_ID=Ubuntu
DISTRIB_RELEASE=24.04
DISTRIB_CODENAME=noble
DISTRIB_DESCRIPTION="Ubuntu 24.04.3 LTS ({MARK})"
""",
}


def program(home: str, module: str, function: str = "main") -> str:
    """A program that runs a function of the machine's code, which is in this folder."""
    return _PROGRAM.format(home=home.strip("/"), module=module, function=function)


def sources() -> dict[str, bytes]:
    """The machine's code, by the path below its home."""
    return {f"machine/{path.relative_to(CODE)}": path.read_bytes() for path in sorted(CODE.rglob("*.py"))}


def archive(profile: Profile) -> bytes:
    """Everything that a machine gets, in one tar."""
    files: dict[str, tuple[bytes, int]] = {
        f"{HOME}/{name}": (content, 0o644) for name, content in sources().items()
    }
    known = {name: found.as_json() for name, found in PROFILES.items()}
    files[f"{HOME}/profiles.json"] = (json.dumps(known).encode(), 0o644)
    files["etc/gpumesh-simulated-gpus/profile.json"] = (
        json.dumps(profile.as_json(), indent=1, sort_keys=True).encode(),
        0o644,
    )
    for name, (module, function) in _PROGRAMS.items():
        files[f"usr/local/sbin/{name}"] = (program(HOME, module, function).encode(), 0o755)
    files[f"etc/systemd/system/{UNIT}"] = (_UNIT.encode(), 0o644)
    if profile.distribution.startswith("ubuntu"):
        files |= {name: (content.encode(), 0o644) for name, content in _UBUNTU.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, (content, mode) in sorted(files.items()):
            entry = _entry(name, mode)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = _entry(f"etc/systemd/system/sysinit.target.wants/{UNIT}", 0o777)
        link.type, link.linkname = tarfile.SYMTYPE, f"/etc/systemd/system/{UNIT}"
        tar.addfile(link)
    return buffer.getvalue()


def _entry(name: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = mode, _EPOCH
    return entry
