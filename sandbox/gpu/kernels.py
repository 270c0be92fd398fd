# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for Linux kernels and their headers: enough for dkms, depmod, modinfo and a boot loader's menu. SIMULATED.

Their versions are a little higher than those of the distribution's own packages of the same names.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path

from ..debian import File, Link, Package
from . import scripts
from .sources.elf import kernel_module

_MARK = "SIMULATED by the gpumesh.fleet sandbox"
_SIGN_FILE = Path(__file__).parent / "sources" / "sign_file.py"
_BUILT = (("drivers/gpu/drm/nouveau", "nouveau"), ("drivers/net", "dummy"))
"""Modules that come with a kernel, for tools that want some."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a distribution.

    Attributes:
        release: as ``uname -r`` has it.
        version: of its packages.
        flavour: what the packages that follow the newest kernel are named after.
    """

    release: str
    version: str
    flavour: str

    @property
    def ubuntu(self) -> bool:
        return "+deb" not in self.release and not self.release.endswith("-amd64")

    def packages(self) -> list[Package]:
        """The kernel, its headers, and its modules where the distribution packs them apart."""
        return [*(self._images()), self._headers()]

    def _images(self) -> list[Package]:
        image = (
            File(f"boot/vmlinuz-{self.release}", f"{_MARK}\n".encode()),
            File(f"boot/System.map-{self.release}", f"{_MARK}\n".encode()),
            File(f"boot/config-{self.release}", self._config().encode()),
        )
        fields = {"Section": "kernel", "Depends": "kmod"}
        if not self.ubuntu:
            return [
                self._package(
                    "linux-image",
                    "Linux kernel",
                    (*image, *self._modules()),
                    fields,
                    scripts.kernel(self.release),
                )
            ]
        needs = {**fields, "Depends": f"kmod, linux-modules-{self.release} (= {self.version})"}
        return [
            self._package(
                "linux-modules",
                "modules of a Linux kernel",
                self._modules(),
                fields,
                scripts.modules(self.release),
            ),
            self._package("linux-image", "Linux kernel", image, needs, scripts.kernel(self.release)),
        ]

    def _modules(self) -> tuple[File, ...]:
        folder = f"usr/lib/modules/{self.release}"
        found = []
        for place, name in _BUILT:
            words = (
                ("license", "GPL"),
                ("description", _MARK),
                ("depends", ""),
                ("name", name),
                ("vermagic", f"{self.release} SMP preempt mod_unload modversions "),
            )
            content = kernel_module(words)
            # Debian packs its modules, and dkms those it builds as it finds them: Ubuntu's way needs a tool more.
            if self.ubuntu:
                found.append(File(f"{folder}/kernel/{place}/{name}.ko", content))
            else:
                packed = lzma.compress(content, lzma.FORMAT_XZ, lzma.CHECK_CRC32)
                found.append(File(f"{folder}/kernel/{place}/{name}.ko.xz", packed))
        order = "".join(f"kernel/{place}/{name}.ko\n" for place, name in _BUILT)
        found.append(File(f"{folder}/modules.order", order.encode()))
        found += [File(f"{folder}/{name}", b"") for name in ("modules.builtin", "modules.builtin.modinfo")]
        return tuple(found)

    def _headers(self) -> Package:
        folder = f"usr/src/linux-headers-{self.release}"
        contents = (
            File(f"{folder}/.config", self._config().encode()),
            File(f"{folder}/Makefile", f"# {_MARK}\n".encode()),
            File(f"{folder}/Module.symvers", b""),
            File(f"{folder}/include/config/auto.conf", self._config().encode()),
            File(f"{folder}/include/generated/autoconf.h", f"/* {_MARK} */\n".encode()),
            File(
                f"{folder}/include/generated/utsrelease.h", f'#define UTS_RELEASE "{self.release}"\n'.encode()
            ),
            File(f"{folder}/scripts/sign-file", _SIGN_FILE.read_bytes(), 0o755),
            Link(f"usr/lib/modules/{self.release}/build", f"/{folder}"),
        )
        needs = "python3, openssl"
        if not self.ubuntu:
            # As Debian's, which are of no use without their kernel.
            needs += f", linux-image-{self.release} (= {self.version})"
        return self._package(
            "linux-headers",
            "headers of a Linux kernel",
            contents,
            {"Section": "kernel", "Depends": needs},
            scripts.headers(self.release),
        )

    def _config(self) -> str:
        return (
            f"# {_MARK}\n"
            "CONFIG_64BIT=y\nCONFIG_MODULES=y\nCONFIG_MODULE_SIG=y\n"
            'CONFIG_MODULE_SIG_HASH="sha256"\nCONFIG_SMP=y\nCONFIG_PREEMPT_DYNAMIC=y\n'
        )

    def _package(
        self,
        name: str,
        what: str,
        contents: tuple[File | Link, ...],
        fields: dict[str, str],
        made: dict[str, str],
    ) -> Package:
        return Package(
            f"{name}-{self.release}",
            self.version,
            f"{what} {self.release} (SIMULATED)\nA stand-in of the gpumesh.fleet sandbox. It boots nothing.",
            contents=contents,
            architecture="amd64",
            fields=fields,
            scripts=made,
        )


def followers(kernel: Kernel) -> list[Package]:
    """The packages without a number, which bring the newest kernel with the next upgrade."""
    parts = {
        "linux-image": [f"linux-image-{kernel.release}"],
        "linux-headers": [f"linux-headers-{kernel.release}"],
    }
    if kernel.ubuntu:
        parts["linux"] = [f"linux-image-{kernel.flavour}", f"linux-headers-{kernel.flavour}"]
    return [
        Package(
            f"{name}-{kernel.flavour}",
            kernel.version,
            "the newest kernel of its flavour (SIMULATED)",
            architecture="amd64",
            fields={
                "Section": "metapackages",
                "Depends": ", ".join(f"{needed} (= {kernel.version})" for needed in needs),
            },
        )
        for name, needs in parts.items()
    ]


DEBIAN_13 = tuple(
    Kernel(f"{number}+deb13-amd64", f"{number}-1+simulated1", "amd64") for number in ("6.12.117", "6.12.120")
)
DEBIAN_13_BACKPORTS = (Kernel("7.2.12+deb13-amd64", "7.2.12-1~bpo13+1+simulated1", "amd64"),)
DEBIAN_12 = tuple(
    Kernel(f"6.1.0-{abi}-amd64", f"{number}-1+simulated1", "amd64")
    for abi, number in ((44, "6.1.176"), (45, "6.1.192"))
)
UBUNTU_24_04 = tuple(
    Kernel(f"6.8.0-{abi}-generic", f"6.8.0-{abi}.{abi + 1}+simulated1", "generic") for abi in (90, 94)
)
UBUNTU_24_04_GCP = (Kernel("7.0.0-1011-gcp", "7.0.0-1011.11+simulated1", "gcp"),)
