# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of the driver: the loaded module, the modules on disk, the library and the packages must be one version.

Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .health_words import Check, Expected, bad, devices, good, not_made, plural

_DRIVER_VERSION = re.compile(r"(?:[0-9]+:)?([0-9]{3,4}(?:\.[0-9]{1,4}){1,2})(?![0-9.])")
_DRIVER_PACKAGE = re.compile(r"(lib)?nvidia-|libcuda1|linux-modules-nvidia-|nvidia$")
_NOT_DRIVER_PACKAGE = re.compile(
    r"(lib)?nvidia-(container|docker|egl|vaapi|vulkan|cuda|cudnn|driver-pinning|driver-assistant|support|installer|prime|"
    r"kernel-common|visual|nsight|gds|fs)"
)
# Debian gives these their own versions: they work beside any driver.
_LOOSE_IN_DEBIAN = frozenset({"nvidia-modprobe", "nvidia-settings", "nvidia-xconfig", "nvidia-persistenced"})


def _answer(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    """nvidia-smi answers. A mismatch of module and library is told as such."""
    if wanted.deferred:
        return
    driver = gpu.get("driver") or {}
    says, loaded, library = str(driver.get("smi")), driver.get("loaded"), driver.get("library")
    if says == "ok":
        yield good("driver_answers", f"nvidia-smi answers, driver {loaded or 'of unknown version'}")
        return
    if says == "not asked":
        yield not_made("driver_answers", "the driver was not asked", "run gpu_info with driver: true")
        return
    if "mismatch" in says.lower() or (loaded and library and loaded != library):
        yield bad(
            "driver_answers",
            f"the loaded module is {loaded or 'of unknown version'}, the library on disk {library or 'of unknown version'}: "
            f"nvidia-smi says {says}",
            "reboot the machine, so that it loads the module that belongs to the library",
        )
    elif not loaded:
        yield bad(
            "driver_answers",
            f"NVIDIA's module is not loaded: nvidia-smi says {says}",
            "see `modprobe nvidia` and `journalctl -k | grep -i nvrm`; with Secure Boot, whether its key is enrolled",
        )
    else:
        yield bad(
            "driver_answers",
            f"nvidia-smi says {says}",
            "see `journalctl -k | grep -iE 'nvrm|xid'`; a card that is lost comes back when the machine is switched off and on",
        )


def _nouveau(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    if wanted.deferred:
        return
    if (gpu.get("driver") or {}).get("nouveau_loaded"):
        yield bad(
            "nouveau",
            "the kernel's own driver nouveau is loaded, beside which NVIDIA's cannot have the cards",
            "reboot the machine; if it is loaded again, see whether the blacklist is in the initramfs (`update-initramfs -u`)",
        )
    else:
        yield good("nouveau", "nouveau is not loaded")


def _loaded(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    """The loaded module is the one that was declared."""
    if wanted.deferred:
        return
    driver = gpu.get("driver") or {}
    loaded, flavour = driver.get("loaded"), driver.get("flavour")
    if not loaded:
        yield bad(
            "driver_loaded",
            "NVIDIA's module is not loaded",
            "load it (`modprobe nvidia`) or reboot the machine",
        )
        return
    wrong = _differs(loaded, flavour, wanted)
    if wrong:
        yield bad(
            "driver_loaded",
            f"the loaded module is {wrong}",
            "reboot the machine, or apply the driver layer first",
        )
    else:
        yield good("driver_loaded", f"the loaded module is {loaded}{f', {flavour}' if flavour else ''}")


def _differs(version: str, flavour: str | None, wanted: Expected) -> str | None:
    """What is other than declared."""
    if wanted.version and version != wanted.version:
        return f"{version}, declared is {wanted.version}"
    if wanted.branch and version.split(".")[0] != wanted.branch:
        return f"{version}, declared is branch {wanted.branch}"
    if wanted.flavour and flavour and flavour != wanted.flavour:
        return f"the {flavour} one, declared is the {wanted.flavour} one"
    return None


def _library(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    """The library that programs load is the module's."""
    driver = gpu.get("driver") or {}
    library, loaded = driver.get("library"), driver.get("loaded")
    if not library:
        yield bad(
            "library", "the driver's library libnvidia-ml.so.1 is not installed", "apply the driver layer"
        )
        return
    other = sorted(
        {
            version
            for versions in (driver.get("libraries") or {}).values()
            for version in versions
            if version != library
        }
    )
    if other:
        yield bad(
            "library",
            f"libraries of several drivers are installed: {library} and {', '.join(other)}",
            "remove the packages of the other version; a driver that NVIDIA's .run file installed goes with `nvidia-uninstall`",
        )
    elif not wanted.deferred and loaded and loaded != library:
        yield bad(
            "library",
            f"the library is {library}, the loaded module {loaded}",
            "reboot the machine, so that it loads the module that belongs to the library",
        )
    else:
        yield good("library", f"the library is {library}")


def _on_disk(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    """What the next boot would load, whichever kernel it takes."""
    driver = gpu.get("driver") or {}
    on_disk = driver.get("on_disk") or {}
    # Not the running kernel, if it has no image: in a container it is that of another machine.
    kernels = list(driver.get("kernels") or [])
    if not on_disk or not kernels:
        yield not_made("module_on_disk", "no kernel was found in /boot", "install the kernel's image package")
        return
    following = driver.get("next_kernel") or kernels[-1]
    library = driver.get("library")
    build = "see `dkms status`; build it with `dkms autoinstall -k KERNEL` after its headers are installed"
    for name, several in (
        ("module_on_disk", [following]),
        ("module_other_kernels", [kernel for kernel in kernels if kernel != following]),
    ):
        problems: list[str] = []
        for kernel in several:
            module = on_disk.get(kernel)
            if not module:
                problems.append(f"kernel {kernel} has no module of NVIDIA's")
                continue
            wrong = _differs(str(module.get("version")), module.get("flavour"), wanted)
            if wrong:
                problems.append(f"the module for kernel {kernel} is {wrong}")
            elif library and module.get("version") != library:
                problems.append(
                    f"the module for kernel {kernel} is {module.get('version')}, the library {library}"
                )
        if problems:
            which = "the next boot would have no working driver: " if name == "module_on_disk" else ""
            yield bad(name, f"{which}{'; '.join(problems)}", build)
        elif several:
            versions = sorted({f"{on_disk[kernel]['version']}" for kernel in several})
            yield good(name, f"{', '.join(several)} would load {', '.join(versions)}")


def _packages(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    """What was installed is there, whole, of one version, and held."""
    there: Mapping[str, Mapping[str, Any]] = gpu.get("packages") or {}
    if not there and not wanted.packages:
        yield not_made("packages", "dpkg knows no package of the GPU stack", "run gpu_info with driver: true")
        return
    plain = {name.partition(":")[0]: package for name, package in there.items()}
    absent = [name for name in wanted.packages if name not in plain]
    half = sorted(name for name, package in there.items() if not package.get("ok", True))
    if absent or half:
        parts = [f"{', '.join(absent)} not installed"] if absent else []
        parts += [f"{', '.join(half)} half installed"] if half else []
        yield bad("packages", "; ".join(parts), "see `dpkg --audit`, then apply the driver layer")
    else:
        yield _one_version(there, gpu, wanted)
    loose = sorted(name for name in wanted.packages if name in plain and not plain[name].get("held"))
    if loose:
        yield bad(
            "packages_held",
            f"{', '.join(loose)} not held: an upgrade can move the driver under the loaded module",
            f"hold {'it' if len(loose) == 1 else 'them'} again: `apt-mark hold {' '.join(loose)}`, or apply the driver layer",
        )
    elif wanted.packages:
        yield good("packages_held", f"{plural(len(wanted.packages), 'package')} held")


def _one_version(there: Mapping[str, Mapping[str, Any]], gpu: Mapping[str, Any], wanted: Expected) -> Check:
    versions: dict[str, list[str]] = {}
    for name, package in sorted(there.items()):
        plain = name.partition(":")[0]
        if not _DRIVER_PACKAGE.match(plain) or _NOT_DRIVER_PACKAGE.match(plain):
            continue
        if wanted.source == "distribution" and plain in _LOOSE_IN_DEBIAN:
            continue
        found = _DRIVER_VERSION.match(str(package.get("version")))
        if found:
            versions.setdefault(found[1], []).append(name)
    library = (gpu.get("driver") or {}).get("library")
    known = (
        wanted.version or library or (max(versions, key=lambda one: len(versions[one])) if versions else "")
    )
    other = {version: names for version, names in versions.items() if version != known}
    if other:
        told = "; ".join(f"{', '.join(names)} {version}" for version, names in sorted(other.items()))
        return bad(
            "packages",
            f"packages of the driver are not all {known}: {told}",
            "apply the driver layer, or put them back with `apt-get install NAME=VERSION`",
        )
    if not versions:
        return bad("packages", "no package of the driver is installed", "apply the driver layer")
    count = sum(map(len, versions.values()))
    return good("packages", f"{plural(count, 'package')} of the driver, all {known}")


def _dkms(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    """No build of DKMS has failed: such a one is tried again by every later run of apt."""
    entries = [entry for entry in gpu.get("dkms") or [] if isinstance(entry, Mapping)]
    if not entries:
        return
    failed = [
        entry
        for entry in entries
        if entry.get("state") not in ("installed", "installed-weak") and entry.get("kernel")
    ]
    unbuilt = [entry for entry in entries if not entry.get("kernel")]
    if failed or unbuilt:
        told = ", ".join(
            f"{entry.get('module')} {entry.get('version')} for {entry.get('kernel') or 'no kernel'} is {entry.get('state')}"
            for entry in [*failed, *unbuilt]
        )
        yield bad(
            "dkms",
            f"DKMS has not finished: {told}",
            "read /var/lib/dkms/MODULE/VERSION/build/make.log; missing headers and a kernel too new for the driver are the usual reasons",
        )
    else:
        yield good("dkms", f"DKMS has built {plural(len(entries), 'module')}")


def _apt(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    """apt works, and leaves the stack alone at its next run."""
    if not wanted.apt:
        return
    apt = gpu.get("apt") or {}
    if not apt.get("checked"):
        yield not_made("apt", "apt was not asked", "run gpu_info with apt: true")
        return
    if broken := list(apt.get("broken") or []):
        yield bad(
            "apt_works",
            f"packages are broken, and every run of apt stumbles over them: {', '.join(map(str, broken))}",
            "see `dpkg --audit`; `apt-get --fix-broken install` or a purge of the package that does not build mends it",
        )
    else:
        yield good("apt_works", "no package is broken")
    moved = [
        entry for entry in apt.get("would_change") or [] if entry.get("kind") == "gpu" or wanted.kernel_held
    ]
    removed = list(apt.get("would_remove") or [])
    if moved or removed:
        told = [f"{entry['name']} {entry['from'] or 'new'} -> {entry['to']}" for entry in moved]
        told += [f"{name} removed" for name in removed]
        names = " ".join(dict.fromkeys(entry["name"] for entry in moved if entry["from"]))
        yield bad(
            "apt_next",
            f"the next upgrade would change the GPU stack: {', '.join(told)}",
            f"hold it: `apt-mark hold {names}`, or apply the driver layer"
            if names
            else "apply the driver layer",
        )
    else:
        yield good("apt_next", "the next upgrade leaves the GPU stack alone")


def _daemon(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    """The persistence daemon, without which power limits and the like are lost as soon as nobody uses a card."""
    if not devices(gpu) and not wanted.deferred:
        return
    daemon = (gpu.get("driver") or {}).get("persistence_daemon") or {}
    # Ubuntu's unit is static: a rule of udev wants it where there is a card.
    lasting = daemon.get("enabled") or daemon.get("state") in ("static", "indirect", "generated")
    if not wanted.deferred and not daemon.get("active"):
        yield bad(
            "persistence_daemon",
            "nvidia-persistenced does not run",
            "start it: `systemctl enable --now nvidia-persistenced`; `journalctl -u nvidia-persistenced` says why it ended",
        )
    elif not lasting:
        yield bad(
            "persistence_daemon",
            "nvidia-persistenced will not start at the next boot",
            "enable it: `systemctl enable nvidia-persistenced`",
        )
    else:
        yield good(
            "persistence_daemon",
            "nvidia-persistenced runs and starts at boot"
            if not wanted.deferred
            else "nvidia-persistenced starts at boot",
        )


HOST_CHECKS: tuple[Callable[[Mapping[str, Any], Expected], Iterator[Check]], ...] = (
    _answer,
    _nouveau,
    _loaded,
    _library,
    _on_disk,
    _packages,
    _dkms,
    _apt,
    _daemon,
)
