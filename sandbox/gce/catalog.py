# SPDX-License-Identifier: GPL-3.0-or-later
"""What this Compute Engine has to offer: zones, machine types, GPUs and their rules, images, quotas.

Zones of the GPUs up to the A100, the counts and the limits on n1 are those of Google's pages in 2026; zones of the newer
GPUs and the list of zones without GPUs are an excerpt and may be behind. The GPUs are SIMULATED: no sandbox machine
has any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

SIMULATED = "SIMULATED"


@dataclass(frozen=True, slots=True)
class Gpu:
    """An accelerator type.

    Attributes:
        metric: of its quota; empty where the regions' quotas do not know it.
        zones: where it can be had.
        n1_limits: count to (vCPU, GB of memory) at most on n1; empty for GPUs that cannot be attached to n1.
    """

    name: str
    title: str
    metric: str
    zones: frozenset[str]
    n1_limits: Mapping[int, tuple[int, int]]

    @property
    def most(self) -> int:
        """How many cards one instance can have."""
        built_in = [shape.gpu_count for shape in shapes().values() if shape.gpu == self.name]
        return max([*self.n1_limits, *built_in])


@dataclass(frozen=True, slots=True)
class Shape:
    """A machine type; ``gpu`` and ``gpu_count`` are what is built in."""

    name: str
    cpus: int
    memory_mb: int
    gpu: str = ""
    gpu_count: int = 0

    @property
    def family(self) -> str:
        return self.name.partition("-")[0]

    @property
    def shared(self) -> bool:
        """It has a part of a core only."""
        return self.name in ("f1-micro", "g1-small", "e2-micro", "e2-small", "e2-medium")

    @property
    def takes_gpus(self) -> bool:
        """GPUs can be attached to it."""
        return self.family == "n1"

    @property
    def quota(self) -> str:
        """The metric its vCPUs count against."""
        metric = f"{self.family.upper()}_CPUS"
        return metric if metric in ("N2_CPUS", "N2D_CPUS", "C3_CPUS", "A2_CPUS") else "CPUS"


@dataclass(frozen=True, slots=True)
class OsImage:
    """A public image, or one that a project has made.

    Attributes:
        machine: what the back end calls the same system.
        cloud_init: it runs the user-data; all public ones have the guest agent.
        guest_agent: Google's agent is in it; in a project's own cloud-init does its work.
        disk_gb: size of the disk in it, below which no boot disk can be.
        uefi: it is marked as able to start by UEFI, without which there are no shielded instances.
    """

    project: str
    family: str
    name: str
    description: str
    machine: str
    cloud_init: bool
    guest_agent: bool = True
    disk_gb: int = 10
    uefi: bool = True

    @property
    def path(self) -> str:
        return f"projects/{self.project}/global/images/{self.name}"


def _zones(text: str) -> frozenset[str]:
    """``us-central1-a,b us-west1-b`` -> the zones' names."""
    return frozenset(
        f"{region}-{letter}"
        for region, _, letters in (entry.rpartition("-") for entry in text.split())
        for letter in letters.split(",")
    )


_T4 = (
    "asia-east1-a,c asia-east2-a,c asia-northeast1-a,c asia-northeast3-b,c asia-south1-a,b asia-southeast1-a,b,c "
    "asia-southeast2-a,b australia-southeast1-a,c europe-central2-b,c europe-west1-b,c,d europe-west2-a,b europe-west3-b "
    "europe-west4-a,b,c me-west1-b,c northamerica-northeast1-c southamerica-east1-a,b,c us-central1-a,b,c,f "
    "us-east1-b,c,d us-east4-a,b,c us-west1-a,b us-west2-b,c us-west3-b us-west4-a,b"
)
_L4 = (
    "asia-east1-a,b,c asia-northeast1-a,b,c asia-northeast3-a,b asia-south1-a,b,c asia-southeast1-a,b,c europe-west1-b,c "
    "europe-west2-a,b europe-west3-a,b europe-west4-a,b,c europe-west6-b,c me-central2-a,c northamerica-northeast1-b,c "
    "northamerica-northeast2-a,b us-central1-a,b,c us-east1-b,c,d us-east4-a,c us-west1-a,b,c us-west4-a,c"
)
_A100 = (
    "asia-northeast1-a,c asia-northeast3-a,b asia-southeast1-a,b,c europe-west4-a,b me-west1-a,c us-central1-a,b,c,f "
    "us-east1-b us-west1-b us-west3-b us-west4-b"
)
_A100_80 = "asia-southeast1-c europe-west4-a us-central1-a,c us-east4-c us-east5-a,b"
_V100 = "asia-east1-c europe-west4-a,b,c us-central1-a,b,c,f us-east1-b,c us-west1-a,b"
_P100 = "asia-east1-a,c australia-southeast1-b europe-west1-b,d europe-west4-a us-central1-c,f us-east1-b,c us-west1-a,b"
_P4 = (
    "asia-southeast1-a,b,c australia-southeast1-a,b europe-west4-b,c northamerica-northeast1-a,b,c us-central1-a,c "
    "us-east4-a,b,c us-west2-b,c"
)
_H100 = "asia-northeast1-b asia-southeast1-b,c europe-west1-b,c europe-west4-b,c us-central1-a,c us-east4-a,b us-west1-a"
_NEWEST = "europe-west4-a us-central1-b us-east4-b us-west1-c"
_PLAIN = (
    "asia-east2-b asia-northeast2-a,b,c asia-northeast3-c asia-southeast2-c australia-southeast2-a,b,c europe-central2-a "
    "europe-north1-a,b,c europe-southwest1-a,b,c europe-west10-a,b,c europe-west12-a,b,c europe-west2-c europe-west3-c "
    "europe-west6-a europe-west8-a,b,c europe-west9-a,b,c me-central1-a,b,c me-central2-b northamerica-northeast2-c "
    "southamerica-west1-a,b,c us-east5-c us-south1-a,b,c us-west2-a us-west3-a,c us-west4-b"
)

_SMALL_N1 = {1: (48, 312), 2: (48, 312), 4: (96, 624)}


@cache
def gpus() -> Mapping[str, Gpu]:
    """Accelerator types by name."""
    found = (
        Gpu("nvidia-tesla-t4", "NVIDIA T4", "NVIDIA_T4_GPUS", _zones(_T4), _SMALL_N1),
        Gpu("nvidia-tesla-p4", "NVIDIA Tesla P4", "NVIDIA_P4_GPUS", _zones(_P4), _SMALL_N1 | {1: (24, 156)}),
        Gpu("nvidia-tesla-p100", "NVIDIA Tesla P100", "NVIDIA_P100_GPUS", _zones(_P100),
            {1: (16, 104), 2: (32, 208), 4: (96, 624)}),
        Gpu("nvidia-tesla-v100", "NVIDIA V100", "NVIDIA_V100_GPUS", _zones(_V100),
            {1: (12, 78), 2: (24, 156), 4: (48, 312), 8: (96, 624)}),
        Gpu("nvidia-l4", "NVIDIA L4", "NVIDIA_L4_GPUS", _zones(_L4), {}),
        Gpu("nvidia-tesla-a100", "NVIDIA A100 40GB", "NVIDIA_A100_GPUS", _zones(_A100), {}),
        Gpu("nvidia-a100-80gb", "NVIDIA A100 80GB", "NVIDIA_A100_80GB_GPUS", _zones(_A100_80), {}),
        Gpu("nvidia-h100-80gb", "NVIDIA H100 80GB", "", _zones(_H100), {}),
        Gpu("nvidia-h100-mega-80gb", "NVIDIA H100 80GB Mega", "", _zones(_H100), {}),
        Gpu("nvidia-h200-141gb", "NVIDIA H200 141GB", "", _zones(_NEWEST), {}),
        Gpu("nvidia-b200", "NVIDIA B200", "", _zones(_NEWEST), {}),
        Gpu("nvidia-rtx-pro-6000", "NVIDIA RTX PRO 6000", "", _zones(_NEWEST), {}),
    )  # fmt: skip
    return {gpu.name: gpu for gpu in found}


@cache
def zones() -> Mapping[str, str]:
    """Zones and the region of each."""
    everywhere = _zones(_PLAIN).union(*(gpu.zones for gpu in gpus().values()))
    return {zone: zone.rpartition("-")[0] for zone in sorted(everywhere)}


@cache
def regions() -> Mapping[str, tuple[str, ...]]:
    """Regions and the zones of each."""
    found: dict[str, list[str]] = {}
    for zone, region in zones().items():
        found.setdefault(region, []).append(zone)
    return {region: tuple(names) for region, names in sorted(found.items())}


@cache
def shapes() -> Mapping[str, Shape]:
    """Predefined machine types by name."""
    found = [
        Shape("f1-micro", 1, 614), Shape("g1-small", 1, 1740), Shape("e2-micro", 2, 1024),
        Shape("e2-small", 2, 2048), Shape("e2-medium", 2, 4096),
    ]  # fmt: skip
    for family, sizes, per_cpu in (
        ("e2-standard", (2, 4, 8, 16, 32), 4096.0),
        ("e2-highmem", (2, 4, 8, 16), 8192.0),
        ("e2-highcpu", (2, 4, 8, 16, 32), 1024.0),
        ("n1-standard", (1, 2, 4, 8, 16, 32, 64, 96), 3840.0),
        ("n1-highmem", (2, 4, 8, 16, 32, 64, 96), 6656.0),
        ("n1-highcpu", (2, 4, 8, 16, 32, 64, 96), 921.6),
        ("n2-standard", (2, 4, 8, 16, 32, 48, 64, 80), 4096.0),
        ("n2-highmem", (2, 4, 8, 16, 32, 48, 64, 80), 8192.0),
        ("n2-highcpu", (2, 4, 8, 16, 32, 48, 64, 80, 96), 1024.0),
        ("n2d-standard", (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224), 4096.0),
        ("n2d-highmem", (2, 4, 8, 16, 32, 48, 64, 80, 96), 8192.0),
        ("n2d-highcpu", (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224), 1024.0),
        ("c3-standard", (4, 8, 22, 44, 88, 176), 4096.0),
        ("c3-highmem", (4, 8, 22, 44, 88, 176), 8192.0),
        ("c3-highcpu", (4, 8, 22, 44, 88, 176), 2048.0),
    ):
        found += [Shape(f"{family}-{cpus}", cpus, int(cpus * per_cpu)) for cpus in sizes]
    for cpus, count in ((4, 1), (8, 1), (12, 1), (16, 1), (24, 2), (32, 1), (48, 4), (96, 8)):
        found.append(Shape(f"g2-standard-{cpus}", cpus, cpus * 4096, "nvidia-l4", count))
    for count in (1, 2, 4, 8):
        found.append(Shape(f"a2-highgpu-{count}g", 12 * count, 87040 * count, "nvidia-tesla-a100", count))
        found.append(Shape(f"a2-ultragpu-{count}g", 12 * count, 174080 * count, "nvidia-a100-80gb", count))
        found.append(Shape(f"a3-highgpu-{count}g", 26 * count, 239616 * count, "nvidia-h100-80gb", count))
        found.append(
            Shape(f"g4-standard-{48 * count}", 48 * count, 184320 * count, "nvidia-rtx-pro-6000", count)
        )
    found += [
        Shape("a2-megagpu-16g", 96, 1392640, "nvidia-tesla-a100", 16),
        Shape("a3-megagpu-8g", 208, 1916928, "nvidia-h100-mega-80gb", 8),
        Shape("a3-ultragpu-8g", 224, 3022848, "nvidia-h200-141gb", 8),
        Shape("a4-highgpu-8g", 224, 4063232, "nvidia-b200", 8),
    ]
    return {shape.name: shape for shape in found}


_CUSTOM = re.compile(r"(?:(n1|n2|e2)-)?custom-(\d+)-(\d+)(-ext)?")


def shape(name: str, zone: str) -> Shape | None:
    """The machine type of that name, if the zone has it; also custom ones."""
    if match := _CUSTOM.fullmatch(name):
        cpus, memory = int(match[2]), int(match[3])
        fits = (cpus == 1 or cpus % 2 == 0) and 1 <= cpus <= 96 and memory % 256 == 0 and memory >= cpus * 922
        return (
            Shape(f"{match[1] or 'n1'}-custom-{cpus}-{memory}{match[4] or ''}", cpus, memory)
            if fits
            else None
        )
    found = shapes().get(name)
    return found if found and (not found.gpu or zone in gpus()[found.gpu].zones) else None


IMAGES = (
    OsImage("debian-cloud", "debian-12", "debian-12-bookworm-v20261110",
            "Debian, Debian GNU/Linux, 12 (bookworm), amd64 built on 20261110", "debian-12", False),
    OsImage("debian-cloud", "debian-13", "debian-13-trixie-v20261110",
            "Debian, Debian GNU/Linux, 13 (trixie), amd64 built on 20261110", "debian-13", False),
    OsImage("ubuntu-os-cloud", "ubuntu-2404-lts-amd64", "ubuntu-2404-noble-amd64-v20261112",
            "Canonical, Ubuntu, 24.04 LTS, amd64 noble image built on 2026-11-12", "ubuntu-24.04", True),
    OsImage("ubuntu-os-cloud", "ubuntu-2204-lts", "ubuntu-2204-jammy-v20261112",
            "Canonical, Ubuntu, 22.04 LTS, amd64 jammy image built on 2026-11-12", "ubuntu-22.04", True),
)  # fmt: skip
IMAGE_PROJECTS = frozenset(image.project for image in IMAGES)

DISK_TYPES = frozenset({"pd-standard", "pd-balanced", "pd-ssd", "pd-extreme", "hyperdisk-balanced"})

REGION_QUOTAS: Mapping[str, float] = {
    **dict.fromkeys(("CPUS", "N2_CPUS", "N2D_CPUS", "C3_CPUS", "A2_CPUS", "PREEMPTIBLE_CPUS"), 1_000_000.0),
    **dict.fromkeys(("INSTANCES", "IN_USE_ADDRESSES"), 100_000.0),
    **{
        metric: 10_000.0
        for gpu in gpus().values()
        if gpu.metric
        for metric in (gpu.metric, f"PREEMPTIBLE_{gpu.metric}")
    },
}
"""Large enough that only a test that asks for it meets one."""

PROJECT_QUOTAS: Mapping[str, float] = {"CPUS_ALL_REGIONS": 4_000_000.0, "GPUS_ALL_REGIONS": 40_000.0}


def usage(shape: Shape, gpu: str, gpu_count: int, *, spot: bool, address: bool) -> dict[str, float]:
    """What an instance uses of its region's quotas."""
    used = {"INSTANCES": 1.0, "PREEMPTIBLE_CPUS" if spot else shape.quota: float(shape.cpus)}
    if address:
        used["IN_USE_ADDRESSES"] = 1.0
    if gpu_count and (metric := gpus()[gpu].metric):
        used[f"PREEMPTIBLE_{metric}" if spot else metric] = float(gpu_count)
    return used
