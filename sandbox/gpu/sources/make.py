# SPDX-License-Identifier: GPL-3.0-or-later
"""What dkms runs in the stand-in's source tree in the place of make and a compiler. SIMULATED.

    python3 -m simulated.make --version 595.91.07 --flavour open --kernel KERNEL --headers FOLDER

It writes the modules into the folder it is run in. Like a compiler it needs the headers of the kernel, and it fails where
the real sources are known not to compile.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from .elf import kernel_module

MODULES = ("nvidia", "nvidia-modeset", "nvidia-drm", "nvidia-uvm", "nvidia-peermem")
_NEEDS = {
    "nvidia-modeset": "nvidia",
    "nvidia-drm": "nvidia-modeset,nvidia",
    "nvidia-uvm": "nvidia",
    "nvidia-peermem": "nvidia",
}
_CLOSED_TOO = {"nvidia", "nvidia-modeset"}
"""What of it the closed flavour has under the vendor's licence; the rest is open in both."""
_PCI = ("bc03sc00i00", "bc03sc02i00", "bc03sc80i00")
_OPTIONS = " ".join(
    ["-Wp,-MMD,nvidia/.nv-pci.o.d", *(f"-I./nvidia/include/{number:02}" for number in range(50))]
)
_HEADERS = ("include/generated/autoconf.h", "include/generated/utsrelease.h", "Module.symvers")
PROBLEMS = "known-problems.json"
"""Beside this file: ``[{"kernel": "7.0", "file": "...", "says": "..."}]``, from which kernel on it does not compile."""


def information(module: str, version: str, flavour: str, kernel: str) -> list[tuple[str, str]]:
    """The ``.modinfo`` of one of the vendor's modules."""
    closed = flavour == "closed" and module in _CLOSED_TOO
    found = [("license", "NVIDIA" if closed else "Dual MIT/GPL"), ("version", version)]
    if module == "nvidia":
        found += [("firmware", f"nvidia/{version}/gsp_{chip}.bin") for chip in ("tu10x", "ga10x")]
        found += [("alias", f"pci:v000010DEd*sv*sd*{classes}*") for classes in _PCI]
        found += [
            ("parm", "NVreg_PreserveVideoMemoryAllocations:int"),
            ("parm", "NVreg_EnableGpuFirmware:int"),
        ]
    return [
        *found,
        ("description", "SIMULATED by the gpumesh.fleet sandbox"),
        ("depends", _NEEDS.get(module, "")),
        ("retpoline", "Y"),
        ("name", module.replace("-", "_")),
        ("vermagic", f"{kernel} SMP preempt mod_unload modversions "),
    ]


def problem(kernel: str, headers: Path, known: list[dict[str, str]]) -> str:
    """What a compiler would say; empty where it has nothing to say."""
    for name in _HEADERS:
        if not (headers / name).is_file():
            asked = name.removeprefix("include/")
            return f"nvidia/nv-linux.h:21:10: fatal error: {asked}: No such file or directory\ncompilation terminated."
    release = re.search(r'"(.+)"', (headers / "include/generated/utsrelease.h").read_text("utf-8"))
    if not release or release[1] != kernel:
        return f"ERROR: the headers in {headers} are those of {release and release[1]}, not of {kernel}"
    for entry in known:
        if _numbers(kernel) >= _numbers(entry["kernel"]):
            return f"{entry['file']}: error: {entry['says']}"
    return ""


def _numbers(version: str) -> list[int]:
    found = re.match(r"[0-9.]+", version)
    return [int(part) for part in found[0].strip(".").split(".")] if found else []


def main() -> int:
    parser = argparse.ArgumentParser(description="A stand-in for a compiler, SIMULATED.")
    for name in ("version", "flavour", "kernel"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--headers", required=True, type=Path)
    options = parser.parse_args()
    print(
        f"make: SIMULATED build of NVIDIA {options.version} ({options.flavour}) for {options.kernel}",
        flush=True,
    )
    known = json.loads((Path(__file__).parent / PROBLEMS).read_text("utf-8"))
    found = problem(options.kernel, options.headers, known)
    if found:
        print(found, file=sys.stderr)
        # What says nothing comes last, and at length, as with the real sources.
        print(f"make[2]: *** [nvidia/nv-pci.o] Error 1\n  gcc {_OPTIONS}", file=sys.stderr)
        print("make: *** [modules] Error 2", file=sys.stderr)
        return 2
    for module in MODULES:
        print(f"  LD [M]  {module}.ko")
        words = information(module, options.version, options.flavour, options.kernel)
        Path(f"{module}.ko").write_bytes(kernel_module(words))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
