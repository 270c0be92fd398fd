# SPDX-License-Identifier: GPL-3.0-or-later
"""The repositories that GPU packages come from, as stand-ins: NVIDIA's, and the distributions' with their kernels. SIMULATED.

One key signs all of them. Below the root there are, as at their vendors:

* ``cuda/ubuntu2404/x86_64``, ``cuda/debian12/x86_64``, ``cuda/debian13/x86_64``: flat;
* ``ubuntu``: suite ``noble``, component ``restricted``;
* ``debian``: suites ``trixie``, ``trixie-backports`` and ``bookworm``, component ``main``: kernels;
* ``container-toolkit/stable/deb/amd64``: flat.

Beside them, without a key, ``wheels`` has the frameworks as Python's package index has them (:mod:`.wheels`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from ..debian import Archive, Package, write, write_key
from ..openpgp import SigningKey
from . import extras, kernels, wheels
from .driver_version import Driver
from .drivers import packages, pins

KEY_OWNER = "GPU repositories of the sandbox (SIMULATED) <nobody@example.com>"
NVIDIA_ORIGIN = "NVIDIA of the sandbox (SIMULATED)"
UBUNTU_ORIGIN = "Ubuntu of the sandbox (SIMULATED)"
DEBIAN_ORIGIN = "Debian of the sandbox (SIMULATED)"
_UBUNTU_CUDA = (
    "550.163.01",
    "570.211.01",
    "575.57.08",
    "580.173.02",
    "580.178.04",
    "590.48.01",
    "595.91.07",
    "610.57.04",
)
_DEBIAN_CUDA = {
    "debian12": ("580.178.04", "590.48.01", "595.91.07", "610.57.04"),
    "debian13": ("590.48.01", "595.91.07", "610.57.04"),
}
_LAST_SUFFIXED = 580


def cuda_ubuntu() -> list[Package]:
    """NVIDIA's repository for Ubuntu 24.04: names with a branch up to 580, without from 590 on."""
    drivers = [
        Driver(
            version, "-1ubuntu1", "suffixed" if int(version.split(".")[0]) <= _LAST_SUFFIXED else "unsuffixed"
        )
        for version in _UBUNTU_CUDA
    ]
    made = [package for driver in drivers for package in packages(driver)]
    return [*made, *pins(drivers, "-2ubuntu1"), *extras.cuda(), *extras.cudnn()]


def cuda_debian(name: str) -> list[Package]:
    """NVIDIA's repository for a Debian. That for Debian 13 has no 580, and no cuDNN."""
    drivers = [Driver(version, "-1", "debian") for version in _DEBIAN_CUDA[name]]
    made = [package for driver in drivers for package in packages(driver)]
    more = extras.cudnn() if name != "debian13" else []
    return [*made, *pins(drivers, "-1"), *extras.cuda(), *more]


def ubuntu() -> list[Package]:
    """What Ubuntu's archive has of it: server packages, modules built and signed for each kernel, and the kernels."""
    driver = Driver("580.173.02", "-0ubuntu0.24.04.1", "archive", server=True)
    found = (*kernels.UBUNTU_24_04, *kernels.UBUNTU_24_04_GCP)
    made = packages(driver)
    for kernel in found:
        made += [*kernel.packages(), *kernels.followers(kernel), *extras.prebuilt(driver, kernel)]
    return made


def debian(*found: kernels.Kernel) -> list[Package]:
    """Kernels of Debian."""
    made: list[Package] = []
    for kernel in found:
        made += [*kernel.packages(), *kernels.followers(kernel)]
    return made


def files(
    key: SigningKey, now: int, real_wheels: Mapping[str, bytes] = MappingProxyType({})
) -> dict[str, bytes]:
    """Every file of every repository, by its path.

    Args:
        real_wheels: those in the index of wheels that are no stand-ins, by their file names.
    """
    found: dict[str, bytes] = {}

    def flat(path: str, made: Iterable[Package], origin: str) -> None:
        found.update(_below(path, Archive(made, key, now, origin=origin).flat()))

    flat("cuda/ubuntu2404/x86_64", cuda_ubuntu(), NVIDIA_ORIGIN)
    for name in _DEBIAN_CUDA:
        flat(f"cuda/{name}/x86_64", cuda_debian(name), NVIDIA_ORIGIN)
    flat("container-toolkit/stable/deb/amd64", extras.container_toolkit(), NVIDIA_ORIGIN)
    suites = (
        ("ubuntu", "noble", "restricted", ubuntu(), UBUNTU_ORIGIN),
        ("debian", "trixie", "main", debian(*kernels.DEBIAN_13), DEBIAN_ORIGIN),
        ("debian", "trixie-backports", "main", debian(*kernels.DEBIAN_13_BACKPORTS), DEBIAN_ORIGIN),
        ("debian", "bookworm", "main", debian(*kernels.DEBIAN_12), DEBIAN_ORIGIN),
    )
    for path, suite, component, made, origin in suites:
        archive = Archive(
            made, key, now, origin=origin, folder=f"pool/{component}/l/linux", components=(component,)
        )
        found.update(_below(path, archive.files(suite)))
    return found | _below("wheels", wheels.files(real_wheels))


def _below(path: str, found: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{path}/{name}": content for name, content in found.items()}


def output(folder: Path) -> SigningKey:
    """Write all of them below that folder, with the key beside them, which signs this once and is not kept."""
    key = SigningKey(secrets.token_bytes(32), KEY_OWNER)
    write(folder, files(key, int(time.time())))
    write_key(folder, key)
    return key
