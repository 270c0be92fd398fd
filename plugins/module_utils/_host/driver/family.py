# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages are the driver's, and which driver a package's version names.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# The driver itself; the container toolkit is another layer's.
DRIVER = re.compile(
    r"(lib)?nvidia-(?!container)|libcuda1$|firmware-nvidia-|cuda-drivers|xserver-xorg-video-nvidia|linux-modules-nvidia-"
)
# The driver and CUDA, whatever suffix: all that a way back exchanges.
STACK = re.compile(
    r"(?!(lib)?nvidia-container)((lib)?nvidia-|libcuda1$|cuda(-|$)|libcudnn|cudnn|libnv(cuvid|fatbin|idia|jitlink|jpeg|optix)"
    r"|lib(cublas|cufft|cufile|curand|cusolver|cusparse|npp)[-\d]|gds-tools-|nsight-"
    r"|linux-(modules|objects|signatures)-nvidia-|firmware-nvidia-|xserver-xorg-video-nvidia)"
)
PINNING = "nvidia-driver-pinning-"
PREBUILT = "linux-modules-nvidia-"
# After an epoch that some distributions have: 580.178.04-1 and 2:595.91.07-1.
_VERSION = re.compile(r"(?:\d+:)?(\d{3,}\.\d+(?:\.\d+)?)(?![\d.])")
# Packages whose version is that of the driver, on every distribution.
_MAIN = re.compile(r"libnvidia-(compute|ml1)|libcuda1$|nvidia-(utils|smi)")


def is_driver(name: str) -> bool:
    """Whether a package is of the driver, by its name."""
    return DRIVER.match(name) is not None


def is_stack(name: str) -> bool:
    """Whether a package is of the driver or of CUDA, by its name."""
    return STACK.match(name) is not None


def upstream(version: str) -> str:
    """The driver in a package's version (580.178.04-1 is of 580.178.04); empty where there is none in it."""
    found = _VERSION.match(version)
    return found[1] if found else ""


def fits(driver: str, wanted: str) -> bool:
    """Whether a driver is the wanted one (580.178.04) or of the wanted branch (580)."""
    return driver == wanted or driver.startswith(f"{wanted}.")


def package_fits(version: str, wanted: str) -> bool:
    """Whether a package's version is of the wanted driver or branch; one that names no driver is of any."""
    driver = upstream(version)
    return not driver or fits(driver, wanted)


def stack_of(packages: Mapping[str, str]) -> dict[str, str]:
    """Those of the driver and of CUDA, from name to version."""
    return {name: version for name, version in packages.items() if is_stack(name)}


def driver_of(packages: Mapping[str, str]) -> str:
    """The driver that packages are of, given from name to version; empty where there is none."""
    for name, version in sorted(packages.items()):
        if _MAIN.match(name) and upstream(version):
            return upstream(version)
    return ""
