# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a driver can come from, per distribution: repositories, what they offer, the names of their packages, what is known broken.

NVIDIA's own network repository, or the distribution's archive. The two are never mixed on one machine: they ship the same files
under other versions. This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .catalog import CLOSED, COMMUNITY, OPEN, VENDOR

NVIDIA = "nvidia"
DISTRIBUTION = "distribution"
DKMS = "dkms"
PREBUILT = "prebuilt"

# From this branch on the packages for Ubuntu carry no branch in their names any more.
UNSUFFIXED_FROM = 590

# Every package of the stack, for holds and for the blacklist of unattended upgrades; the container toolkit is another layer's.
HOLD_PATTERNS = (
    "^nvidia-(?!container-|driver-pinning-)",
    "^libnvidia-(?!container)",
    "^xserver-xorg-video-nvidia",
    "^firmware-nvidia-",
    "^lib(cuda|nvcuvid|nvoptix|xnvctrl)",
    "^linux-(modules|objects|signatures)-nvidia-",
    "^cuda-(?!keyring)",
    "^(lib)?cudnn",
)


@dataclass(frozen=True, slots=True)
class Repository:
    """An APT repository.

    Attributes:
        suite: ``/`` is a flat one.
        key_url: where its signing key is; empty: the distribution brings it, in ``signed_by``.
        key_fingerprint_known: how the fingerprint is known.
        keyring_deb: the package that would set the repository up as well, and its SHA-256.
    """

    name: str
    url: str
    suite: str
    components: tuple[str, ...] = ()
    key_url: str = ""
    key_fingerprint: str = ""
    key_fingerprint_known: str = VENDOR
    signed_by: str = ""
    keyring_deb: str = ""
    keyring_deb_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """What one source offers for one distribution.

    Attributes:
        branches: driver branches with the newest version seen there.
        build: how its kernel modules come: built on the machine by DKMS, or built and signed with the kernel.
        cuda: its one CUDA toolkit; empty: a package for every toolkit NVIDIA has for the distribution.
        unverified: branches whose offer was read nowhere.
        warnings: what a reader should know before the packages are installed.
    """

    name: str
    distribution: str
    repository: Repository
    branches: dict[str, str]
    build: str
    cuda: str = ""
    cuda_first: str = ""
    unverified: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution we know.

    Attributes:
        kernel: the kernel it is delivered with, for questions that name none.
    """

    name: str
    full_name: str
    kernel: str
    aliases: tuple[str, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class BrokenBuild:
    """Kernel modules that are known not to build.

    Attributes:
        distributions: where it was seen; empty: everywhere.
        kernel_from: the first kernel that it fails on.
        happens: what happens, in one sentence without its end.
    """

    version: str
    flavours: tuple[str, ...]
    kernel_from: tuple[int, ...]
    happens: str
    source: str
    distributions: tuple[str, ...] = ()


def _cuda_repository(folder: str, key: str, fingerprint: str, sha256: str, known: str = VENDOR) -> Repository:
    url = f"https://developer.download.nvidia.com/compute/cuda/repos/{folder}/x86_64/"
    return Repository(
        f"nvidia-cuda-{folder}",
        url,
        "/",
        (),
        f"{url}{key}.pub",
        fingerprint,
        known,
        keyring_deb=f"{url}cuda-keyring_1.1-1_all.deb",
        keyring_deb_sha256=sha256,
    )


_OLD_KEY = ("3bf863cc", "EB693B3035CD5710E231E123A4B469963BF863CC")
# NVIDIA signs for Debian 13 with another key: Debian 13 refuses the SHA-1 signature that the old one carries on itself.
_NEW_KEY = ("8793F200", "02182E60104FCDC26EAE1B8597A5D4CB8793F200")

_UBUNTU_2404 = "ubuntu-24.04"
_DEBIAN_12 = "debian-12"
_DEBIAN_13 = "debian-13"

DISTRIBUTIONS: dict[str, Distribution] = {
    one.name: one
    for one in (
        Distribution(
            _UBUNTU_2404,
            "Ubuntu 24.04",
            "6.8.0-90-generic",
            ("noble", "ubuntu2404", "ubuntu24.04"),
            (
                Source(
                    NVIDIA,
                    _UBUNTU_2404,
                    _cuda_repository(
                        "ubuntu2404",
                        *_OLD_KEY,
                        "d2a6b11c096396d868758b86dab1823b25e14d70333f1dfa74da5ddaf6a06dba",
                    ),
                    {
                        "550": "550.163.01",
                        "570": "570.211.01",
                        "575": "575.57.08",
                        "580": "580.178.04",
                        "590": "590.48.01",
                        "595": "595.91.07",
                        "610": "610.57.04",
                    },
                    DKMS,
                    cuda_first="12.4",
                ),
                Source(
                    DISTRIBUTION,
                    _UBUNTU_2404,
                    Repository(
                        "ubuntu",
                        "http://archive.ubuntu.com/ubuntu",
                        "noble-updates",
                        ("main", "restricted"),
                        signed_by="/usr/share/keyrings/ubuntu-archive-keyring.gpg",
                    ),
                    {"580": "580.173.02", "595": "595.91.07", "610": "610.57.04"},
                    PREBUILT,
                    cuda="12.0",
                    unverified=("595", "610"),
                ),
            ),
        ),
        Distribution(
            _DEBIAN_12,
            "Debian 12",
            "6.1.0-50-amd64",
            ("bookworm", "debian12"),
            (
                Source(
                    NVIDIA,
                    _DEBIAN_12,
                    _cuda_repository(
                        "debian12",
                        *_OLD_KEY,
                        "e7f219eab6fe4819cdb5c15b98233dc3420302d9c00883219cd3d896857cf48d",
                    ),
                    {
                        "550": "550.163.01",
                        "570": "570.211.01",
                        "575": "575.57.08",
                        "580": "580.178.04",
                        "590": "590.48.01",
                        "595": "595.91.07",
                        "610": "610.57.04",
                    },
                    DKMS,
                    cuda_first="12.1",
                    unverified=("550", "570", "575", "590", "595", "610"),
                    warnings=(
                        "One report: NVIDIA's modules for Debian 12 ask for dkms 3.1.8 from 570.148.08 on, and it has 3.0.10.",
                    ),
                ),
                Source(
                    DISTRIBUTION,
                    _DEBIAN_12,
                    Repository(
                        "debian",
                        "http://deb.debian.org/debian",
                        "bookworm",
                        ("main", "contrib", "non-free", "non-free-firmware"),
                        signed_by="/usr/share/keyrings/debian-archive-keyring.gpg",
                    ),
                    {"535": "535.309.01"},
                    DKMS,
                    cuda="11.8",
                ),
            ),
        ),
        Distribution(
            _DEBIAN_13,
            "Debian 13",
            "6.12.117+deb13-amd64",
            ("trixie", "debian13"),
            (
                Source(
                    NVIDIA,
                    _DEBIAN_13,
                    _cuda_repository(
                        "debian13",
                        *_NEW_KEY,
                        "dd28f1f6ba0038180d6b23f846cefca1e3de4c9327751665241370bacea452a1",
                        COMMUNITY,
                    ),
                    {"590": "590.48.01", "595": "595.91.07", "610": "610.57.04"},
                    DKMS,
                    cuda_first="13.0",
                ),
                Source(
                    DISTRIBUTION,
                    _DEBIAN_13,
                    Repository(
                        "debian",
                        "http://deb.debian.org/debian",
                        "trixie",
                        ("main", "contrib", "non-free", "non-free-firmware"),
                        signed_by="/usr/share/keyrings/debian-archive-keyring.gpg",
                    ),
                    {"550": "550.163.01"},
                    DKMS,
                    cuda="12.4",
                ),
            ),
        ),
    )
}

KNOWN_BROKEN: tuple[BrokenBuild, ...] = (
    BrokenBuild(
        "590",
        (OPEN, CLOSED),
        (7, 0),
        "does not build on kernel 7.0 and later; 595.91.07 does",
        "github.com/GoogleCloudPlatform/ops-agent/pull/2426",
    ),
    # Debian moved a change of pci_resize_resource() back into its 6.12; the packages of the closed modules do not call it.
    BrokenBuild(
        "550",
        (OPEN,),
        (6, 12, 107),
        "does not build on Debian 13's kernels from 6.12.107 on, because pci_resize_resource() changed; the closed modules do",
        "measured with Debian's packages in November 2026",
        (_DEBIAN_13,),
    ),
)


def find(name: str) -> Distribution | None:
    """A distribution by its name or code name."""
    plain = name.strip().lower()
    for distribution in DISTRIBUTIONS.values():
        if plain == distribution.name or plain in distribution.aliases:
            return distribution
    return None


def canonical(name: str) -> str:
    """Our name of a distribution; one that is not known keeps its own."""
    found = find(name)
    return found.name if found else name.strip().lower()


def kernel_numbers(kernel: str) -> tuple[int, ...]:
    """The version of a kernel's name: ``6.12.117+deb13-amd64`` is (6, 12, 117)."""
    found = re.match(r"(\d+(?:\.\d+)*)", kernel)
    return tuple(map(int, found[1].split("."))) if found else ()


def kernel_flavour(kernel: str) -> str:
    """What Ubuntu calls the flavour of a kernel: ``6.8.0-90-generic`` is generic."""
    found = re.fullmatch(r"[0-9.]+-[0-9]+-([a-z][a-z0-9-]*)", kernel)
    return found[1] if found else "generic"


def broken(distribution: str, branch: str, flavour: str, kernel: str) -> BrokenBuild | None:
    """What is known against building modules of a branch for a kernel."""
    for pair in KNOWN_BROKEN:
        here = not pair.distributions or distribution in pair.distributions
        if (
            here
            and pair.version == branch
            and flavour in pair.flavours
            and kernel_numbers(kernel) >= pair.kernel_from
        ):
            return pair
    return None


@dataclass(frozen=True, slots=True)
class Packages:
    """The packages of a driver, by what they are for. ``driver`` holds all of it, the modules included, except pin and headers."""

    pin: tuple[str, ...]
    headers: tuple[str, ...]
    driver: tuple[str, ...]
    modules: tuple[str, ...]
    unverified: tuple[str, ...] = ()


def packages(source: Source, branch: str, flavour: str, kernels: Sequence[str], exact: str = "") -> Packages:
    """The packages that make a driver.

    Args:
        kernels: those that modules are needed for, as ``uname -r`` has it.
        exact: a full version that is to be kept to; empty: the branch may move on.
    """
    if source.name == NVIDIA:
        modules, user_space = _nvidia(source.distribution, branch, flavour)
    elif source.build == PREBUILT:
        modules, user_space = _ubuntu(branch, flavour, kernels)
    else:
        modules, user_space = _debian(flavour)
    unverified = []
    if source.distribution == _UBUNTU_2404 and source.name == NVIDIA and int(branch) >= UNSUFFIXED_FROM:
        unverified.append("The exact list of NVIDIA's compute packages for Ubuntu from branch 590 on.")
    if source.build == PREBUILT and flavour == CLOSED:
        unverified.append(f"That Ubuntu has closed prebuilt modules of branch {branch}.")
    if source.build == PREBUILT and {kernel_flavour(one) for one in kernels} - {"generic"}:
        unverified.append("The names of Ubuntu's prebuilt modules for kernels other than the generic one.")
    return Packages(
        pin=(f"nvidia-driver-pinning-{exact or branch}",) if source.name == NVIDIA else (),
        headers=() if source.build == PREBUILT else tuple(f"linux-headers-{kernel}" for kernel in kernels),
        driver=(*modules, *user_space),
        modules=modules,
        unverified=tuple(unverified),
    )


def _nvidia(distribution: str, branch: str, flavour: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not distribution.startswith("ubuntu"):
        module = "nvidia-kernel-open-dkms" if flavour == OPEN else "nvidia-kernel-dkms"
        return (module,), ("nvidia-driver-cuda", "nvidia-persistenced", "libnvidia-cfg1", "nvidia-modprobe")
    if int(branch) >= UNSUFFIXED_FROM:
        module = "nvidia-dkms-open" if flavour == OPEN else "nvidia-dkms"
        return (module,), ("libnvidia-compute", "libnvidia-cfg1", "nvidia-utils", "nvidia-persistenced")
    module = f"nvidia-dkms-{branch}-open" if flavour == OPEN else f"nvidia-dkms-{branch}"
    names = ("libnvidia-compute", "libnvidia-cfg1", "nvidia-utils", "nvidia-compute-utils")
    return (module,), tuple(f"{name}-{branch}" for name in names)


def _ubuntu(branch: str, flavour: str, kernels: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    of = f"{branch}-server-open" if flavour == OPEN else f"{branch}-server"
    names = ("nvidia-utils", "libnvidia-compute", "libnvidia-cfg1", "nvidia-compute-utils")
    return (
        # By kernel: the package of a flavour brings its newest kernel along, and no modules for the one that runs.
        tuple(f"linux-modules-nvidia-{of}-{kernel}" for kernel in kernels or ("generic",)),
        (f"nvidia-headless-no-dkms-{of}", *(f"{name}-{branch}-server" for name in names)),
    )


def _debian(flavour: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    module, support = "nvidia-kernel-dkms", "nvidia-kernel-support"
    if flavour == OPEN:
        module, support = "nvidia-open-kernel-dkms", "nvidia-open-kernel-support"
    return (module,), (
        support,
        "nvidia-driver-bin",
        "nvidia-smi",
        "libcuda1",
        "libnvidia-ml1",
        "libnvidia-cfg1",
        "nvidia-persistenced",
        "nvidia-modprobe",
    )
