# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages of a driver, as NVIDIA's repositories and Ubuntu's archive cut it up: names and relations. SIMULATED.

Names and relations are those of NVIDIA/ubuntu-packaging-nvidia-driver (``debian/templates/control.in``), of NVIDIA's driver
installation guide and of what people's apt has said. Where a repository was not at hand, they are the nearest known:
the relations of Ubuntu's packages without a branch in their name, and most of Debian's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..debian import Package
from . import contents, scripts
from .driver_version import Driver

_NOTE = "A stand-in of the gpumesh.fleet sandbox for the vendor's package of this name. It drives no GPU."


@dataclass(frozen=True, slots=True)
class Template:
    """One package of a driver. In all its words ``{b}`` is the branch, ``{d}`` the package's version, ``{f}`` the flavour.

    Attributes:
        holds: names of :mod:`contents`.
        virtual: a name of which only one provider can be installed.
        provides: names that others may provide beside it.
    """

    name: str
    summary: str
    holds: tuple[str, ...] = ()
    depends: str = ""
    recommends: str = ""
    virtual: str = ""
    provides: str = ""

    @property
    def flavoured(self) -> bool:
        return "{f}" in self.name or "{o}" in self.name


_SUFFIXED = (
    Template(
        "nvidia-kernel-source-{b}{f}",
        "NVIDIA kernel source package",
        ("sources",),
        depends="python3",
        virtual="nvidia-kernel-source",
    ),
    Template(
        "nvidia-dkms-{b}{f}",
        "NVIDIA DKMS package",
        ("dkms",),
        depends="dkms, nvidia-kernel-source-{b}{f} (= {d}), nvidia-kernel-common-{b} (= {d})",
        virtual="nvidia-dkms-kernel",
    ),
    Template(
        "nvidia-kernel-common-{b}",
        "shared files used with the kernel module",
        ("settings",),
        depends="nvidia-firmware-{b}-{v} (= {d}), kmod",
        recommends="nvidia-modprobe",
        virtual="nvidia-kernel-common",
    ),
    Template("nvidia-firmware-{b}-{v}", "firmware files used by the kernel module", ("firmware",)),
    Template(
        "libnvidia-compute-{b}",
        "NVIDIA libcompute package",
        ("cuda", "ml"),
        virtual="nvidia-opencl-icd",
        provides="libcuda.so.1 (= {v}), libnvidia-ml.so.1 (= {v})",
    ),
    Template(
        "libnvidia-cfg1-{b}", "NVIDIA binary configuration library", ("cfg",), virtual="libnvidia-cfg1-any"
    ),
    Template(
        "nvidia-utils-{b}",
        "NVIDIA driver support binaries",
        ("smi",),
        depends="libnvidia-compute-{b} (= {d}), python3",
        virtual="nvidia-utils, nvidia-smi",
    ),
    Template(
        "nvidia-compute-utils-{b}",
        "NVIDIA compute utilities",
        ("persistenced",),
        depends="libnvidia-compute-{b} (= {d}), python3, init-system-helpers (>= 1.54~)",
        virtual="nvidia-persistenced",
    ),
    Template(
        "nvidia-headless-no-dkms-{b}{f}",
        "NVIDIA headless metapackage - no DKMS",
        depends="nvidia-kernel-source-{b}{f} (= {d}), nvidia-kernel-common-{b} (= {d}), libnvidia-compute-{b} (= {d}), "
        "nvidia-compute-utils-{b} (= {d}), libnvidia-cfg1-{b} (= {d})",
    ),
)
_UNSUFFIXED = (
    Template(
        "nvidia-kernel-source{f}",
        "NVIDIA kernel source package",
        ("sources",),
        depends="python3",
        virtual="nvidia-kernel-source",
    ),
    Template(
        "nvidia-dkms{f}",
        "NVIDIA DKMS package",
        ("dkms",),
        depends="dkms, nvidia-kernel-source{f} (= {d}), nvidia-kernel-common (= {d})",
        virtual="nvidia-dkms-kernel",
    ),
    Template(
        "nvidia-kernel-common",
        "shared files used with the kernel module",
        ("settings",),
        depends="nvidia-firmware (= {d}), kmod",
        recommends="nvidia-modprobe",
    ),
    Template("nvidia-firmware", "firmware files used by the kernel module", ("firmware",)),
    Template(
        "libnvidia-compute",
        "NVIDIA libcompute package",
        ("cuda", "ml"),
        virtual="nvidia-opencl-icd",
        provides="libcuda.so.1 (= {v}), libnvidia-ml.so.1 (= {v})",
    ),
    Template("libnvidia-cfg1", "NVIDIA binary configuration library", ("cfg",), virtual="libnvidia-cfg1-any"),
    Template(
        "nvidia-utils",
        "NVIDIA driver support binaries",
        ("smi",),
        depends="libnvidia-compute (= {d}), python3",
        virtual="nvidia-smi",
    ),
    Template(
        "nvidia-persistenced",
        "daemon to maintain persistent software state in the NVIDIA driver",
        ("persistenced",),
        depends="libnvidia-cfg1 (= {d}), python3, init-system-helpers (>= 1.54~)",
    ),
)
_DEBIAN = (
    Template(
        "nvidia-kernel-{o}dkms",
        "NVIDIA binary kernel module DKMS source",
        ("sources", "dkms"),
        depends="dkms, python3, nvidia-kernel-common (= {d}), firmware-nvidia-gsp (= {d})",
        virtual="nvidia-kernel-dkms-any",
    ),
    Template(
        "nvidia-kernel-common", "NVIDIA binary kernel module support files", ("settings",), depends="kmod"
    ),
    Template("firmware-nvidia-gsp", "NVIDIA GSP firmware", ("firmware",)),
    Template(
        "nvidia-driver-cuda",
        "NVIDIA driver CUDA integration components",
        depends="libcuda1 (= {d}), libnvidia-ml1 (= {d}), nvidia-smi (= {d}), nvidia-modprobe (>= {branch}), "
        "nvidia-kernel-open-dkms (= {d}) | nvidia-kernel-dkms (= {d})",
        recommends="nvidia-persistenced (= {d}), libnvidia-cfg1 (= {d})",
    ),
    Template("libcuda1", "NVIDIA CUDA Driver Library", ("cuda",), provides="libcuda.so.1 (= {v})"),
    Template(
        "libnvidia-ml1",
        "NVIDIA Management Library (NVML) runtime library",
        ("ml",),
        provides="libnvidia-ml.so.1 (= {v})",
    ),
    Template(
        "nvidia-smi", "NVIDIA System Management Interface", ("smi",), depends="libnvidia-ml1 (= {d}), python3"
    ),
    Template(
        "libnvidia-cfg1",
        "NVIDIA binary configuration library",
        ("cfg",),
        provides="libnvidia-cfg.so.1 (= {v})",
    ),
    Template(
        "nvidia-persistenced",
        "daemon to maintain persistent software state in the NVIDIA driver",
        ("persistenced",),
        depends="libnvidia-cfg1 (= {d}), python3, init-system-helpers (>= 1.54~)",
    ),
)
# One package for all branches, whose newest version therefore comes to any of them.
_MODPROBE = Template(
    "nvidia-modprobe", "utility to load NVIDIA kernel modules and create device nodes", ("modprobe",)
)
_PINS = (
    Template(
        "nvidia-driver-pinning-{branch}",
        "APT driver pinning file for driver branch {branch}",
        virtual="nvidia-driver-pinning",
    ),
    Template(
        "nvidia-driver-pinning-{v}",
        "APT driver pinning file for driver version {v}",
        virtual="nvidia-driver-pinning",
    ),
)
KINDS = {
    "suffixed": (*_SUFFIXED, _MODPROBE),
    "unsuffixed": (*_UNSUFFIXED, _MODPROBE),
    "debian": (*_DEBIAN, _MODPROBE),
    # Ubuntu's archive has this one apart.
    "archive": _SUFFIXED,
}


def packages(driver: Driver) -> list[Package]:
    """All packages of one driver version, of both flavours."""
    return [
        _package(driver, template, flavour)
        for template in KINDS[driver.kind]
        for flavour in (("open", "closed") if template.flavoured else ("open",))
    ]


def pins(drivers: list[Driver], revision: str) -> Iterator[Package]:
    """The packages that keep a host at a branch or a version. Of a branch there is one, whatever its versions.

    Args:
        revision: behind the branch, in their own version.
    """
    branches = {driver.branch: driver for driver in drivers}
    for template, found in zip(_PINS, (list(branches.values()), drivers), strict=True):
        for driver in found:
            kept = driver.branch if template is _PINS[0] else driver.version
            package = _package(driver, template, "open")
            file = contents.pin(package.name, kept)
            yield replace(
                package,
                version=f"{kept}{revision}",
                architecture="all",
                contents=(file,),
                conffiles=(file.path,),
            )


def _package(driver: Driver, template: Template, flavour: str) -> Package:
    words = driver.words(flavour)
    name = template.name.format(**words)
    only = template.virtual.format(**words)
    fields = {
        "Depends": template.depends.format(**words),
        "Recommends": template.recommends.format(**words),
        "Provides": ", ".join(filter(None, (only, template.provides.format(**words)))),
        "Conflicts": only,
        "Replaces": only,
        "Section": "restricted/misc" if driver.kind == "archive" else "NVIDIA",
        "Priority": "optional",
    }
    held = [contents.HOLDS[key](driver, flavour) for key in template.holds]
    return Package(
        name,
        words["d"],
        f"{template.summary.format(**words)} (SIMULATED)\n{_NOTE}",
        contents=tuple(file for files, _ in held for file in files),
        architecture="amd64",
        fields=fields,
        scripts=scripts.joined(*(made for _, made in held)),
    )
