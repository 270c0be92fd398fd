# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs fit which Google machine types, what those types have, and where. Data and rules; nothing talks.

Google attaches GPUs to N1 machines only; every other GPU is built into the machine types of its own family, in fixed
numbers. So ``n1-standard-8`` with an A100 cannot exist, and is refused here before anything is asked of the cloud.

The tables were read from Google's pages "GPU machine types" and "GPU locations" and compared with two catalogues made
from the live API, in August 2026. Machine types and GPU rules are refused by them, since they change once a year and a
typo costs an evening. Zones are not: they open every month, so :data:`GPU_ZONES` only helps to word advice.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

DATA_OF = "2026-08"
"""Month the tables of this file were read."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a machine type has.

    Attributes:
        series: what comes before the size: ``n1-standard``, ``a2-highgpu``, ``custom``.
        vcpus: virtual CPUs; a shared core counts as what the guest sees.
        memory_gb: memory in GB, as Google counts it.
        gpu_model, gpu_count: the GPUs built in; None and 0 where there are none.
    """

    series: str
    vcpus: int
    memory_gb: float
    gpu_model: str | None = None
    gpu_count: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest N1 machine that may carry so many GPUs of a model."""

    vcpus: int
    memory_gb: float


GPU_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "t4": ("nvidia-tesla-t4",),
        "p4": ("nvidia-tesla-p4",),
        "p100": ("nvidia-tesla-p100",),
        "v100": ("nvidia-tesla-v100",),
        "l4": ("nvidia-l4",),
        "a100": ("nvidia-tesla-a100",),
        "a100-80gb": ("nvidia-a100-80gb",),
        "h100": ("nvidia-h100-80gb", "nvidia-h100-mega-80gb"),
        "h200": ("nvidia-h200-141gb",),
        "b200": ("nvidia-b200",),
        "rtx-pro-6000": ("nvidia-rtx-pro-6000",),
    }
)
"""Each model Google has, by our name of it as in the GPU catalog, and Google's names (``acceleratorTypes``)."""

N1_LIMITS: Mapping[str, Mapping[int, Limit]] = MappingProxyType(
    {
        "t4": {1: Limit(48, 312), 2: Limit(48, 312), 4: Limit(96, 624)},
        "p4": {1: Limit(24, 156), 2: Limit(48, 312), 4: Limit(96, 624)},
        "p100": {1: Limit(16, 104), 2: Limit(32, 208), 4: Limit(96, 624)},
        "v100": {1: Limit(12, 78), 2: Limit(24, 156), 4: Limit(48, 312), 8: Limit(96, 624)},
    }
)
"""Models that attach to N1: by how many, the largest machine that takes them."""

_GB_PER_VCPU: Mapping[str, tuple[float, tuple[int, ...]]] = MappingProxyType(
    {
        "n1-standard": (3.75, (1, 2, 4, 8, 16, 32, 64, 96)),
        "n1-highmem": (6.5, (2, 4, 8, 16, 32, 64, 96)),
        "n1-highcpu": (0.9, (2, 4, 8, 16, 32, 64, 96)),
        "e2-standard": (4, (2, 4, 8, 16, 32)),
        "e2-highmem": (8, (2, 4, 8, 16)),
        "e2-highcpu": (1, (2, 4, 8, 16, 32)),
        "n2-standard": (4, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)),
        "n2-highmem": (8, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)),
        "n2-highcpu": (1, (2, 4, 8, 16, 32, 48, 64, 80, 96)),
        "n2d-standard": (4, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224)),
        "n2d-highmem": (8, (2, 4, 8, 16, 32, 48, 64, 80, 96)),
        "n2d-highcpu": (1, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224)),
        "c3-standard": (4, (4, 8, 22, 44, 88, 176)),
        "c3-highmem": (8, (4, 8, 22, 44, 88, 176)),
        "c3-highcpu": (2, (4, 8, 22, 44, 88, 176)),
    }
)
"""Memory in GB per vCPU, and the sizes there are."""

_ODD_SIZES: Mapping[str, Shape] = MappingProxyType(
    {
        "f1-micro": Shape("f1-micro", 1, 0.6),
        "g1-small": Shape("g1-small", 1, 1.7),
        "e2-micro": Shape("e2-micro", 2, 1),
        "e2-small": Shape("e2-small", 2, 2),
        "e2-medium": Shape("e2-medium", 2, 4),
        "n1-highcpu-96": Shape("n1-highcpu", 96, 86.4),
        "n2-highmem-128": Shape("n2-highmem", 128, 864),
        **{f"g2-standard-{n}": Shape("g2-standard", n, n * 4, "l4", 1) for n in (4, 8, 12, 16, 32)},
        "g2-standard-24": Shape("g2-standard", 24, 96, "l4", 2),
        "g2-standard-48": Shape("g2-standard", 48, 192, "l4", 4),
        "g2-standard-96": Shape("g2-standard", 96, 384, "l4", 8),
        **{f"a2-highgpu-{n}g": Shape("a2-highgpu", n * 12, n * 85, "a100", n) for n in (1, 2, 4, 8)},
        "a2-megagpu-16g": Shape("a2-megagpu", 96, 1360, "a100", 16),
        **{f"a2-ultragpu-{n}g": Shape("a2-ultragpu", n * 12, n * 170, "a100-80gb", n) for n in (1, 2, 4, 8)},
        **{f"a3-highgpu-{n}g": Shape("a3-highgpu", n * 26, n * 234, "h100", n) for n in (1, 2, 4, 8)},
        "a3-megagpu-8g": Shape("a3-megagpu", 208, 1872, "h100", 8),
        "a3-ultragpu-8g": Shape("a3-ultragpu", 224, 2952, "h200", 8),
        "a4-highgpu-8g": Shape("a4-highgpu", 224, 3968, "b200", 8),
        **{
            f"g4-standard-{n * 48}": Shape("g4-standard", n * 48, n * 180, "rtx-pro-6000", n)
            for n in (1, 2, 4, 8)
        },
    }
)

_OTHER_FAMILIES = frozenset(
    (
        *("a4x", "c2", "c2d", "c3", "c3d", "c4", "c4a", "c4d", "h3", "h4d", "m1", "m2", "m3", "m4"),
        *("n4", "n4a", "n4d", "t2a", "t2d", "x4", "z3"),
    )
)
"""Families whose sizes are not listed here: their types are taken on trust, and carry no GPU we know."""

_SPOT_ONLY = frozenset({"a3-highgpu-1g", "a3-highgpu-2g", "a3-highgpu-4g"})
_TYPE = re.compile(
    r"^(?P<family>[a-z]\d[a-z]{0,2})-(?P<class>[a-z]+)(?:-(?P<size>\d+g?|metal))?(?:-[a-z0-9]+)*$"
)
_CUSTOM = re.compile(r"^(?:(?P<family>n1|n2|n2d|n4|e2)-)?custom-(?P<vcpus>\d+)-(?P<mb>\d+)(?P<ext>-ext)?$")
_ZONE = re.compile(r"^(?P<region>[a-z]+-[a-z]+\d+)-(?:[a-z]|ai\d+[a-z])$")


def shape(machine_type: str) -> Shape | None:
    """What that machine type has, or None where this file does not know."""
    if machine_type in _ODD_SIZES:
        return _ODD_SIZES[machine_type]
    series, _dummy, size = machine_type.rpartition("-")
    if series in _GB_PER_VCPU and size.isascii() and size.isdigit():
        per_vcpu, sizes = _GB_PER_VCPU[series]
        return Shape(series, int(size), int(size) * per_vcpu) if int(size) in sizes else None
    custom = _CUSTOM.match(machine_type)
    if custom and _custom_problem(machine_type) is None:
        series = f"{custom['family'] or 'n1'}-custom"
        return Shape(series, int(custom["vcpus"]), int(custom["mb"]) / 1024)
    return None


def machine_types() -> tuple[str, ...]:
    """Every machine type listed here, custom ones apart."""
    sized = (f"{series}-{size}" for series, (_dummy, sizes) in _GB_PER_VCPU.items() for size in sizes)
    return tuple(dict.fromkeys((*sized, *_ODD_SIZES)))


def built_in(gpu_model: str) -> tuple[str, ...]:
    """The machine types that come with this model, by how many GPUs they have."""
    types = (name for name, has in _ODD_SIZES.items() if has.gpu_model == gpu_model)
    return tuple(sorted(types, key=lambda name: (_ODD_SIZES[name].gpu_count, _ODD_SIZES[name].vcpus)))


def gpu_of_accelerator(accelerator: str) -> str:
    """Our name for one of Google's accelerator types; workstation variants count as the plain model."""
    plain = accelerator.removesuffix("-vws")
    for ours, theirs in GPU_NAMES.items():
        if plain in theirs:
            return ours
    return plain.removeprefix("nvidia-").removeprefix("tesla-")


def region_of(zone: str) -> str:
    """The region a zone is in: all before the last dash."""
    return zone.rpartition("-")[0]


def needs_spot(machine_type: str) -> bool:
    """Whether Google sells this type only as spot capacity."""
    return machine_type in _SPOT_ONLY


def check_type(machine_type: str) -> str | None:
    """Why there is no such machine type, in one sentence, or None."""
    if shape(machine_type) is not None:
        return None
    if "custom" in machine_type.split("-"):
        return _custom_problem(machine_type)
    series, _dummy, size = machine_type.rpartition("-")
    if series in _GB_PER_VCPU and size.isascii() and size.isdigit():
        sizes = ", ".join(str(size) for size in _GB_PER_VCPU[series][1])
        return f"{machine_type} is not a Google machine type: {series} comes with {sizes} vCPUs"
    form = _TYPE.match(machine_type)
    if form and form["family"] in _OTHER_FAMILIES:
        return None
    close = difflib.get_close_matches(machine_type, machine_types(), n=1, cutoff=0.75)
    advice = (
        f"did you mean {close[0]}?"
        if close
        else "they look like e2-standard-4, n1-standard-8 or g2-standard-8"
    )
    return f"{machine_type} is not a Google machine type known here ({DATA_OF}); {advice}"


def _custom_problem(machine_type: str) -> str | None:
    custom = _CUSTOM.match(machine_type)
    if custom is None:
        return f"{machine_type} is not a custom machine type: write custom-<vCPUs>-<MB of memory>, as in custom-8-30720"
    vcpus, megabytes = int(custom["vcpus"]), int(custom["mb"])
    if megabytes == 0 or megabytes % 256:
        return f"{machine_type} cannot exist: the memory of a custom type is a multiple of 256 MB"
    if custom["family"] not in (None, "n1"):
        return None if vcpus else f"{machine_type} cannot exist: it has no vCPU"
    if vcpus != 1 and (vcpus % 2 or not 2 <= vcpus <= 96):
        return f"{machine_type} cannot exist: N1 custom types have 1 vCPU or an even number up to 96"
    most = 624 * 1024 if custom["ext"] else vcpus * 6.5 * 1024
    if not vcpus * 0.9 * 1024 <= megabytes <= most:
        return (
            f"{machine_type} cannot exist: {vcpus} vCPU{'s' if vcpus > 1 else ''} of N1 take "
            f"{-(-int(vcpus * 921.6) // 256) * 256} to {int(most) // 256 * 256} MB of memory"
        )
    return None


def check(machine_type: str, gpu_model: str | None, gpu_count: int = 1) -> str | None:
    """Why this machine type cannot have these GPUs, in one sentence that names what can, or None if it can.

    Args:
        machine_type: Google's name of it.
        gpu_model: our name of the model; None asks about a machine that declares no GPU.
        gpu_count: how many.
    """
    if gpu_model is None:
        return None
    has = shape(machine_type)
    if gpu_model not in GPU_NAMES:
        close = difflib.get_close_matches(gpu_model, GPU_NAMES, n=1)
        advice = f"did you mean {close[0]}? It has" if close else "it has"
        return f"Google Compute Engine has no {gpu_model}: {advice} {', '.join(GPU_NAMES)}"
    name = gpu_model.upper()
    if has is not None and has.gpu_model is not None:
        if (has.gpu_model, has.gpu_count) == (gpu_model, gpu_count):
            return None
        return f"{machine_type} comes with {has.gpu_count} {has.gpu_model.upper()}, not {gpu_count} {name}: {_where(gpu_model, gpu_count)}"
    if gpu_model not in N1_LIMITS or has is None or not has.series.startswith("n1-"):
        return f"{machine_type} cannot take {_a(name)}: {_where(gpu_model, gpu_count)}"
    limits = N1_LIMITS[gpu_model]
    if gpu_count not in limits:
        return f"{machine_type} cannot take {gpu_count} {name}: they come by {_or(limits)} on N1"
    limit = limits[gpu_count]
    if has.vcpus > limit.vcpus or has.memory_gb > limit.memory_gb:
        return (
            f"{machine_type} is too large for {gpu_count} {name}: at most {limit.vcpus} vCPUs and {limit.memory_gb} GB; "
            + _larger(has, gpu_model, gpu_count)
        )
    return None


def _where(gpu_model: str, gpu_count: int) -> str:
    """What does have so many of that model."""
    name = gpu_model.upper()
    if gpu_model in N1_LIMITS:
        return f"{name}s attach to N1 types only, by {_or(N1_LIMITS[gpu_model])}, as in n1-standard-8"
    fitting = [has for has in built_in(gpu_model) if _ODD_SIZES[has].gpu_count == gpu_count]
    if fitting:
        return f"{gpu_count} {name} come{'s' if gpu_count == 1 else ''} built into {_or(fitting)}"
    return f"{name}s come built into {', '.join(f'{has} ({_ODD_SIZES[has].gpu_count})' for has in built_in(gpu_model))}"


def _larger(has: Shape, gpu_model: str, gpu_count: int) -> str:
    """Advice for a machine that is too large for its GPUs."""
    for more, limit in N1_LIMITS[gpu_model].items():
        if more > gpu_count and has.vcpus <= limit.vcpus and has.memory_gb <= limit.memory_gb:
            return f"take a smaller type, or {more} {gpu_model.upper()}"
    return "take a smaller type"


def _or(choices: Iterable[object]) -> str:
    words = [str(choice) for choice in choices]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "AHLR" else f"a {name}"


def check_zone(zone: str) -> str | None:
    """Why that cannot be a zone, or None. A zone this file has never heard of is believed, a misspelt area is not."""
    form = _ZONE.match(zone)
    if form is None:
        return f"{zone} is not a zone: zones look like us-central1-a"
    area = form["region"].rstrip("0123456789")
    if area in _AREAS:
        return None
    close = difflib.get_close_matches(area, sorted(_AREAS), n=1, cutoff=0.9)
    if close:
        return f"{zone} is not a zone; did you mean {close[0]}{zone.removeprefix(area)}?"
    return None


_AREAS = frozenset(
    {
        "africa-south",
        "asia-east",
        "asia-northeast",
        "asia-south",
        "asia-southeast",
        "australia-southeast",
        "europe-central",
        "europe-north",
        "europe-southwest",
        "europe-west",
        "me-central",
        "me-west",
        "northamerica-northeast",
        "northamerica-south",
        "southamerica-east",
        "southamerica-west",
        "us-central",
        "us-east",
        "us-south",
        "us-west",
    }
)
"""Where Google's regions are, without their numbers."""


def _zones(text: str) -> tuple[str, ...]:
    return tuple(
        f"{region}-{letter}"
        for region, letters in (part.split(":") for part in text.split())
        for letter in letters
    )


GPU_ZONES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "t4": _zones(
            "asia-east1:ac asia-east2:ac asia-northeast1:ac asia-northeast3:bc asia-south1:ab asia-southeast1:abc "
            "asia-southeast2:ab australia-southeast1:ac europe-central2:bc europe-west1:bcd europe-west2:ab "
            "europe-west3:b europe-west4:abc me-west1:bc northamerica-northeast1:c southamerica-east1:abc "
            "us-central1:abcf us-east1:bcd us-east4:abc us-west1:ab us-west2:bc us-west3:b us-west4:ab"
        ),
        "l4": _zones(
            "asia-east1:abc asia-northeast1:abc asia-northeast3:ab asia-south1:abc asia-southeast1:abc europe-west1:bc "
            "europe-west2:ab europe-west3:ab europe-west4:abc europe-west6:bc me-central2:ac northamerica-northeast1:bc "
            "northamerica-northeast2:ab us-central1:abc us-east1:bcd us-east4:ac us-west1:abc us-west4:ac"
        ),
        "a100": _zones(
            "asia-northeast1:ac asia-northeast3:ab asia-southeast1:abc europe-west4:ab me-west1:ac us-central1:abcf "
            "us-east1:b us-west1:b us-west3:b us-west4:b"
        ),
        "a100-80gb": _zones("asia-southeast1:c europe-west4:a us-central1:ac us-east4:c us-east5:ab"),
        "v100": _zones("asia-east1:c europe-west4:abc us-central1:abcf us-east1:bc us-west1:ab"),
        "p100": _zones(
            "asia-east1:ac australia-southeast1:b europe-west1:bd europe-west4:a us-central1:cf us-east1:bc us-west1:ab"
        ),
        "p4": _zones(
            "asia-southeast1:abc australia-southeast1:ab europe-west4:bc northamerica-northeast1:abc us-central1:ac "
            "us-east4:abc us-west2:bc"
        ),
    }
)
"""Zones that had each model in :data:`DATA_OF`. For advice only: nothing is refused because of it."""


def zone_advice(gpu_model: str | None, zone: str) -> str | None:
    """Where a model was to be had, nearest first, if it was not known to be in that zone; for the hint of an error."""
    known = GPU_ZONES.get(gpu_model or "")
    if not known or zone in known:
        return None
    near = [other for other in known if region_of(other) == region_of(zone)]
    if not near:
        continent = zone.partition("-")[0]
        near = [other for other in known if other.startswith(f"{continent}-")] or list(known)
    return f"In {DATA_OF} Google had the {(gpu_model or '').upper()} in {', '.join(near[:6])}, not in {zone}"
