# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in packages of a driver hold: libraries, programs, sources, settings, a service. SIMULATED."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ..debian import File, Link
from . import scripts
from .driver_version import Driver
from .sources.elf import shared_library
from .sources.make import MODULES, PROBLEMS

Held = tuple[list[File | Link], dict[str, str]]
"""Files, and the maintainer scripts that they need."""

_HERE = Path(__file__).parent
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
SMI_FOLDER = "usr/lib/nvidia-simulated"
"""Where the code of the simulated ``nvidia-smi`` lies, for whoever lets a container see it."""
_MARK = "SIMULATED by the gpumesh.fleet sandbox"
_SMI = """\
#!/usr/bin/python3
# SIMULATED: a stand-in, no part of the NVIDIA driver.
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, "/usr/lib/nvidia-simulated")
from nvidia_simulated.nvidia_smi import main

sys.exit(main())
"""
_UNIT = """\
[Unit]
Description=NVIDIA Persistence Daemon (SIMULATED)
Wants=syslog.target

[Service]
Type=notify
ExecStart=/usr/bin/nvidia-persistenced --verbose

[Install]
WantedBy=multi-user.target
"""
_SETTINGS = f"""\
# {_MARK}
blacklist nouveau
alias nouveau off
"""
_DKMS = """\
PACKAGE_NAME="{module}"
PACKAGE_VERSION="{version}"
AUTOINSTALL="yes"
# SIMULATED: in the place of a compiler.
MAKE[0]="python3 -m simulated.make --version {version} --flavour {flavour} --kernel ${{kernelver}} --headers ${{kernel_source_dir}}"
CLEAN="true"
"""
_BROKEN = {
    # GoogleCloudPlatform/ops-agent PR 2426: R590 does not build on 7.0, 595.91.07 does.
    "590": [
        {
            "kernel": "7.0",
            "file": "nvidia/nv-mmap.c:436:9",
            "says": "implicit declaration of function '__vma_start_write' [-Werror=implicit-function-declaration]",
        }
    ],
}


def _library(name: str) -> Callable[[Driver, str], Held]:
    def held(driver: Driver, _flavour: str) -> Held:
        files: list[File | Link] = [
            File(f"{_LIBRARIES}/{name}.so.{driver.version}", shared_library(f"{name}.so.1")),
            Link(f"{_LIBRARIES}/{name}.so.1", f"{name}.so.{driver.version}"),
        ]
        return files, scripts.library()

    return held


def _sources(driver: Driver, flavour: str) -> Held:
    folder = f"usr/src/{driver.module}-{driver.version}"
    words = {"module": driver.module, "version": driver.version, "flavour": flavour}
    conf = _DKMS.format(**words) + "".join(
        f'BUILT_MODULE_NAME[{number}]="{name}"\nDEST_MODULE_LOCATION[{number}]="/updates/dkms"\n'
        for number, name in enumerate(MODULES)
    )
    files: list[File | Link] = [
        File(f"{folder}/dkms.conf", conf.encode()),
        File(f"{folder}/simulated/{PROBLEMS}", json.dumps(_BROKEN.get(driver.branch, []), indent=1).encode()),
    ]
    files += [
        File(f"{folder}/simulated/{name}", (_HERE / "sources" / name).read_bytes())
        for name in ("__init__.py", "elf.py", "make.py")
    ]
    return files, {}


def _dkms(driver: Driver, _flavour: str) -> Held:
    return [], scripts.dkms(driver.module, driver.version)


def _settings(_driver: Driver, _flavour: str) -> Held:
    return [File("usr/lib/modprobe.d/nvidia-graphics-drivers.conf", _SETTINGS.encode())], {}


def _firmware(driver: Driver, _flavour: str) -> Held:
    folder = f"usr/lib/firmware/nvidia/{driver.version}"
    return [File(f"{folder}/gsp_{chip}.bin", f"{_MARK}\n".encode()) for chip in ("ga10x", "tu10x")], {}


def _smi(_driver: Driver, _flavour: str) -> Held:
    files: list[File | Link] = [File("usr/bin/nvidia-smi", _SMI.encode(), 0o755)]
    for path in sorted((_HERE / "machine").glob("*.py")):
        files.append(File(f"{SMI_FOLDER}/nvidia_simulated/{path.name}", path.read_bytes()))
    return files, {}


def _persistenced(_driver: Driver, _flavour: str) -> Held:
    program = b"#!/usr/bin/python3\n" + (_HERE / "sources" / "persistenced.py").read_bytes()
    files: list[File | Link] = [
        File("usr/bin/nvidia-persistenced", program, 0o755),
        File("usr/lib/systemd/system/nvidia-persistenced.service", _UNIT.encode()),
    ]
    return files, scripts.unit("nvidia-persistenced.service")


def _modprobe(_driver: Driver, _flavour: str) -> Held:
    return [File("usr/bin/nvidia-modprobe", f"#!/bin/sh\n# {_MARK}\nexit 0\n".encode(), 0o755)], {}


HOLDS: dict[str, Callable[[Driver, str], Held]] = {
    "sources": _sources,
    "dkms": _dkms,
    "settings": _settings,
    "firmware": _firmware,
    "cuda": _library("libcuda"),
    "ml": _library("libnvidia-ml"),
    "cfg": _library("libnvidia-cfg"),
    "smi": _smi,
    "persistenced": _persistenced,
    "modprobe": _modprobe,
}


def pin(name: str, kept: str) -> File:
    """The preferences of a pinning package: the driver's packages stay at that branch or version."""
    text = (
        f"# {_MARK}\n"
        "Package: nvidia-* libnvidia-* libcuda1 firmware-nvidia-gsp xserver-xorg-video-nvidia*\n"
        f"Pin: version {kept}{'.' if '.' not in kept else '-'}*\n"
        "Pin-Priority: 1000\n"
    )
    return File(f"etc/apt/preferences.d/{name.replace(f'-{kept}', '')}-{kept}", text.encode())
