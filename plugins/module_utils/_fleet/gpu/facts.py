# SPDX-License-Identifier: GPL-3.0-or-later
"""What was read on a host, put together as the facts that the module gpu_info returns.

Pure. The readers below turn what a program printed into data; a line that they do not understand is left out.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from . import catalog
from .pci import Errors, PciGpu
from .smi import SmiLog

OK = "ok"
LOST = "lost"
UNSEEN = "unseen"
NO_DRIVER = "no_driver"

PACKAGE_PATTERNS = (
    "nvidia*",
    "libnvidia*",
    "cuda*",
    "libcuda*",
    "libcudnn*",
    "cudnn*",
    "firmware-nvidia*",
    "linux-image*",
    "linux-headers*",
    "linux-modules-nvidia*",
)
"""The packages of the GPU stack, and of the kernels that its modules are built for; for dpkg-query."""

_PACKAGE = re.compile(
    r"(nvidia|libnvidia|cuda|libcuda|libcudnn|cudnn|firmware-nvidia|linux-image|linux-headers|linux-modules-nvidia)"
)
_KERNEL_PACKAGE = re.compile(r"linux-(image|headers)")
_VERSION = re.compile(r"\b([0-9]{3,4}(?:\.[0-9]{1,4}){1,2})\b")


@dataclass(frozen=True)
class Found:
    """Everything that was read on a host. None and empty mean that it is not there."""

    pci: Sequence[PciGpu] = ()
    simulated: bool = False
    smi: SmiLog | None = None
    smi_says: str = ""
    lost: Mapping[str, str] = field(default_factory=dict)
    asked: bool = True
    loaded_version: str | None = None
    loaded_flavour: str | None = None
    modules: frozenset[str] = frozenset()
    libraries: Mapping[str, Sequence[str]] = field(default_factory=dict)
    library: str | None = None
    running_kernel: str | None = None
    kernels: Sequence[str] = ()
    on_disk: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict)
    persistence: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dkms: Sequence[Mapping[str, str]] = ()
    apt: Mapping[str, Any] = field(default_factory=dict)
    secure_boot: bool | None = None
    governors: Sequence[str] = ()
    topology: Sequence[Mapping[str, Any]] = ()
    p2p: Sequence[Mapping[str, Any]] = ()


def facts(found: Found) -> dict[str, Any]:
    """The facts ``gpu``."""
    return {
        "simulated": found.simulated or bool(found.smi and found.smi.simulated),
        "devices": _devices(found),
        "counts": {"pci": len(found.pci), "driver": len(found.smi.gpus) if found.smi else None},
        "driver": _driver(found),
        "packages": {name: dict(found.packages[name]) for name in sorted(found.packages)},
        "dkms": [dict(entry) for entry in found.dkms],
        "apt": {"checked": False, "broken": [], "would_change": [], "would_remove": [], **found.apt},
        "secure_boot": found.secure_boot,
        "cpu_governors": list(found.governors),
        "topology": [dict(pair) for pair in found.topology],
        "p2p": [dict(pair) for pair in found.p2p],
    }


def _driver(found: Found) -> dict[str, Any]:
    return {
        "loaded": found.loaded_version or (found.smi.driver if found.smi else None),
        "flavour": found.loaded_flavour,
        "cuda": found.smi.cuda if found.smi else None,
        "library": found.library,
        "libraries": {name: list(versions) for name, versions in sorted(found.libraries.items())},
        "smi": found.smi_says or (OK if found.smi else "no answer"),
        "smi_notes": list(found.smi.notes) if found.smi else [],
        "running_kernel": found.running_kernel,
        "next_kernel": found.kernels[-1] if found.kernels else None,
        "kernels": list(found.kernels),
        "on_disk": {kernel: (dict(module) if module else None) for kernel, module in found.on_disk.items()},
        "persistence_daemon": {"active": False, "enabled": False, "state": None, **found.persistence},
        "nouveau_loaded": "nouveau" in found.modules,
    }


def _devices(found: Found) -> list[dict[str, Any]]:
    """One entry a GPU: in the order of their addresses, whoever sees them."""
    told = {gpu["pci_address"]: gpu for gpu in found.smi.gpus} if found.smi else {}
    on_bus = {gpu.address: gpu for gpu in found.pci}
    return [
        _device(on_bus.get(address), told.get(address), address, found)
        for address in sorted({*on_bus, *told})
    ]


def _device(gpu: PciGpu | None, told: Mapping[str, Any] | None, address: str, found: Found) -> dict[str, Any]:
    missing: dict[str, str] = dict(told["missing"]) if told else {}
    device: dict[str, Any] = {
        **_unseen(),
        **{key: value for key, value in (told or {}).items() if key not in ("missing", "state")},
        "pci_address": address,
        "pci_id": gpu.pci_id if gpu else (told or {}).get("pci_id"),
        "subsystem_id": (gpu.subsystem_id if gpu else None) or (told or {}).get("subsystem_id"),
        "class": gpu.class_code if gpu else None,
        "kernel_driver": gpu.kernel_driver if gpu else None,
        "numa_node": gpu.numa_node if gpu else None,
        "slot": gpu.slot if gpu else None,
        "port": asdict(gpu.port) if gpu and gpu.port else None,
        "aer": asdict(gpu.aer if gpu else Errors()),
        "seen_by_driver": bool(told) if found.asked else None,
        "state": _state(gpu, told, address, found),
    }
    card = catalog.by_pci_id(device["pci_id"]) if device["pci_id"] else None
    model = catalog.model_of(card) if card else None
    device["model"] = model.name if model else None
    device["name"] = device["name"] or (card.name if card else None)
    _link(device, gpu, missing)
    if device["state"] in (LOST, UNSEEN) or not told:
        why = "lost" if device["state"] == LOST else "unknown" if found.asked else "absent"
        for key in _nulls(device):
            missing.setdefault(key, why)
    device["missing"] = {key: missing[key] for key in sorted(missing) if _is_null(device, key)}
    return device


def _state(gpu: PciGpu | None, told: Mapping[str, Any] | None, address: str, found: Found) -> str | None:
    if address in found.lost or (told and told["state"] == LOST):
        return LOST
    if told:
        return OK
    if gpu and gpu.kernel_driver != "nvidia":
        return NO_DRIVER
    return UNSEEN if found.asked else None


def _link(device: dict[str, Any], gpu: PciGpu | None, missing: dict[str, str]) -> None:
    """sysfs knows the link without a driver, and also of a card that the driver has lost."""
    link = dict(device["link"])
    if gpu:
        for key, value in (
            ("gen_now", gpu.gen_now),
            ("width_now", gpu.width_now),
            ("width_max", gpu.width_max),
        ):
            link[key] = value if value is not None else link[key]
        link["gen_max"] = link["gen_max"] if link["gen_max"] is not None else gpu.gen_max
        link["gen_device_max"] = link["gen_device_max"] if link["gen_device_max"] is not None else gpu.gen_max
    device["link"] = link


def _unseen() -> dict[str, Any]:
    """The keys of a GPU that the driver says nothing of."""
    errors = dict.fromkeys(("correctable", "uncorrectable"))
    clocks = ("graphics_mhz", "sm_mhz", "memory_mhz")
    replays = ("replay_counter", "replay_rollover_counter")
    modes = ("current", "pending", "sram_threshold_exceeded")
    scalars = (
        "index",
        "name",
        "architecture",
        "uuid",
        "serial",
        "minor",
        "vbios",
        "gsp_firmware",
        "memory_mib",
        "memory_used_mib",
        "bar1_mib",
        "persistence",
        "compute_mode",
        "performance_state",
        "utilization_percent",
        "recovery_action",
    )
    return {
        **dict.fromkeys(scalars),
        "mig": {"current": None, "pending": None, "devices": []},
        "power": dict.fromkeys(("draw_w", "limit_w", "requested_w", "default_w", "min_w", "max_w")),
        "link": dict.fromkeys(("gen_now", "gen_max", "gen_device_max", "width_now", "width_max", *replays)),
        "temperatures": dict.fromkeys(
            ("gpu_c", "memory_c", "margin_c", "slowdown_c", "shutdown_c", "max_operating_c", "scale")
        ),
        "clocks": dict.fromkeys(clocks),
        "max_clocks": dict.fromkeys(clocks),
        "throttle": [],
        "throttle_us": {},
        "ecc": {**dict.fromkeys(modes), "volatile": dict(errors), "aggregate": dict(errors)},
        "remapped_rows": dict.fromkeys(("correctable", "uncorrectable", "pending", "failure")),
        "retired_pages": dict.fromkeys(("single_bit", "double_bit", "pending")),
        "processes": [],
    }


_NOT_THE_DRIVERS = frozenset(
    {"class", "kernel_driver", "numa_node", "slot", "port", "aer", "model", "state", "seen_by_driver"}
)


def _nulls(data: Mapping[str, Any], above: str = "") -> Iterable[str]:
    for key, value in data.items():
        if f"{above}{key}" in _NOT_THE_DRIVERS:
            continue
        if isinstance(value, Mapping):
            yield from _nulls(value, f"{above}{key}.")
        elif value is None:
            yield f"{above}{key}"


def _is_null(data: Mapping[str, Any], key: str) -> bool:
    at: Any = data
    for name in key.split("."):
        if not isinstance(at, Mapping) or name not in at:
            # A reason for slower clocks is a word in a list; what is not known of it is told here alone.
            return key.startswith("throttle.")
        at = at[name]
    return at is None


# What programs print and files hold, as data.


def loaded_module(text: str) -> tuple[str | None, str | None]:
    """Version and flavour of the loaded module, of ``/proc/driver/nvidia/version``."""
    line = next((line for line in text.splitlines() if line.startswith("NVRM version:")), "")
    version = _VERSION.search(line)
    if not version:
        return None, None
    return version[1], "open" if "open kernel module" in line.lower() else "closed"


def modinfo(text: str) -> dict[str, str] | None:
    """Version, flavour and path of a module on disk, of what ``modinfo`` prints."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    if not fields.get("version"):
        return None
    flavours = {"NVIDIA": "closed", "Dual MIT/GPL": "open"}
    return {
        "version": fields["version"],
        "flavour": flavours.get(fields.get("license", ""), "unknown"),
        "path": fields.get("filename", ""),
    }


def packages(text: str, native: str) -> dict[str, dict[str, Any]]:
    """Installed packages, of dpkg-query with `PACKAGE_FORMAT`; those that are half installed, too.

    Args:
        text: what it printed.
        native: the machine's architecture; the packages of another have it in their name.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) != 6 or len(fields[4]) < 2:
            continue
        name, architecture, version, source, status, source_version = fields
        want, state = status[0], status[1]
        if state in "nc":
            continue
        if architecture not in (native, "all"):
            name = f"{name}:{architecture}"
        found[name] = {
            "version": version,
            "held": want == "h",
            "ok": state == "i" and (len(status) < 3 or status[2] == " "),
            "source": source,
            "source_version": source_version,
        }
    return found


PACKAGE_FORMAT = (
    r"${Package}\t${Architecture}\t${Version}\t${source:Package}\t${db:Status-Abbrev}\t${source:Version}\n"
)


def dkms(text: str) -> list[dict[str, str]]:
    """What DKMS has of NVIDIA's modules, of ``dkms status`` as versions 2 and 3 print it."""
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        head, colon, state = line.partition(": ")
        parts = [part.strip() for part in re.split(r"[,/]", head)]
        if not colon or len(parts) < 2 or not parts[0].startswith("nvidia"):
            continue
        found.append(
            {
                "module": parts[0],
                "version": parts[1],
                "kernel": parts[2] if len(parts) > 2 else "",
                "state": state.split("(")[0].strip(),
            }
        )
    return found


def apt_simulation(text: str) -> tuple[list[dict[str, str]], list[str]]:
    """What ``apt-get --simulate`` would change and remove of the GPU stack and the kernels."""
    change: list[dict[str, str]] = []
    remove: list[str] = []
    for line in text.splitlines():
        install = re.match(r"Inst (\S+)(?: \[([^\]]*)\])? \((\S+)", line)
        if install and of_the_stack(install[1]):
            change.append(
                {
                    "name": install[1],
                    "from": install[2] or "",
                    "to": install[3],
                    "kind": "kernel" if _KERNEL_PACKAGE.match(install[1]) else "gpu",
                }
            )
        removal = re.match(r"Remv (\S+)", line)
        if removal and of_the_stack(removal[1]):
            remove.append(removal[1])
    return change, remove


def of_the_stack(package: str) -> bool:
    """Whether a package is one that these facts look at."""
    return bool(_PACKAGE.match(package))


def audit(text: str) -> list[str]:
    """The packages that ``dpkg --audit`` complains of."""
    return [line.split()[0] for line in text.splitlines() if re.match(r" [a-z0-9]\S*", line)]


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts ``6.8.0-100`` after ``6.8.0-90``, as boot loaders do."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", name)
    return [(1, int(part), "") if part[0] in "0123456789" else (0, 0, part) for part in parts]


def matrix(text: str) -> tuple[list[str], dict[str, dict[str, str]]]:
    """A table of ``nvidia-smi topo``: its GPUs, and the word where two of them meet."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    heads: list[str] = []
    table: dict[str, dict[str, str]] = {}
    for line in plain.splitlines():
        words = line.split()
        if not words:
            if table:
                break
            continue
        if not heads:
            gpus = [word for word in words if re.fullmatch(r"(GPU|NIC)[0-9]{1,4}", word)]
            heads = gpus if gpus and words[: len(gpus)] == gpus else []
        elif words[0] in heads and len(words) > len(heads):
            table[words[0]] = dict(zip(heads, words[1:], strict=False))
    return heads, table


def pairs(text: str, word: str) -> list[dict[str, Any]]:
    """The same as a list of pairs of GPUs by index, each pair once.

    Args:
        text: what nvidia-smi printed.
        word: the name of what stands where two GPUs meet.
    """
    heads, table = matrix(text)
    gpus = [head for head in heads if head.startswith("GPU")]
    return [
        {"from": int(one[3:]), "to": int(other[3:]), word: table[one][other]}
        for place, one in enumerate(gpus)
        for other in gpus[place + 1 :]
        if other in table.get(one, {})
    ]
