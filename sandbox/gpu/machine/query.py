# SPDX-License-Identifier: GPL-3.0-or-later
"""``nvidia-smi --query-gpu``: chosen values as lines of CSV. SIMULATED."""

from __future__ import annotations

import time

from .dialect import DEPRECATED, Node, branch_of
from .gpu import REASONS, Gpu
from .report import Report

_PATHS = {
    "name": "product_name",
    "gpu_name": "product_name",
    "gpu_bus_id": "pci/pci_bus_id",
    "pci.bus_id": "pci/pci_bus_id",
    "pci.bus": "pci/pci_bus",
    "pci.device": "pci/pci_device",
    "pci.domain": "pci/pci_domain",
    "pci.device_id": "pci/pci_device_id",
    "pci.sub_device_id": "pci/pci_sub_system_id",
    "uuid": "uuid",
    "gpu_uuid": "uuid",
    "serial": "serial",
    "gpu_serial": "serial",
    "vbios_version": "vbios_version",
    "display_active": "display_active",
    "display_mode": "display_mode",
    "persistence_mode": "persistence_mode",
    "accounting.mode": "accounting_mode",
    "compute_mode": "compute_mode",
    "pstate": "performance_state",
    "fan.speed": "fan_speed",
    "memory.total": "fb_memory_usage/total",
    "memory.reserved": "fb_memory_usage/reserved",
    "memory.used": "fb_memory_usage/used",
    "memory.free": "fb_memory_usage/free",
    "utilization.gpu": "utilization/gpu_util",
    "utilization.memory": "utilization/memory_util",
    "temperature.gpu": "temperature/gpu_temp",
    "temperature.gpu.tlimit": "temperature/gpu_temp_tlimit",
    "temperature.memory": "temperature/memory_temp",
    "ecc.mode.current": "ecc_mode/current_ecc",
    "ecc.mode.pending": "ecc_mode/pending_ecc",
    "ecc.errors.corrected.volatile.dram": "ecc_errors/volatile/dram_correctable",
    "ecc.errors.uncorrected.volatile.dram": "ecc_errors/volatile/dram_uncorrectable",
    "ecc.errors.corrected.aggregate.dram": "ecc_errors/aggregate/dram_correctable",
    "ecc.errors.uncorrected.aggregate.dram": "ecc_errors/aggregate/dram_uncorrectable",
    "ecc.errors.corrected.volatile.total": "ecc_errors/volatile/dram_correctable",
    "ecc.errors.uncorrected.volatile.total": "ecc_errors/volatile/dram_uncorrectable",
    "ecc.errors.corrected.aggregate.total": "ecc_errors/aggregate/dram_correctable",
    "ecc.errors.uncorrected.aggregate.total": "ecc_errors/aggregate/dram_uncorrectable",
    "retired_pages.single_bit_ecc.count": "retired_pages/multiple_single_bit_retirement/retired_count",
    "retired_pages.double_bit.count": "retired_pages/double_bit_retirement/retired_count",
    "retired_pages.pending": "retired_pages/pending_retirement",
    "mig.mode.current": "mig_mode/current_mig",
    "mig.mode.pending": "mig_mode/pending_mig",
    "pcie.link.gen.current": "pci/pci_gpu_link_info/pcie_gen/current_link_gen",
    "pcie.link.gen.max": "pci/pci_gpu_link_info/pcie_gen/max_link_gen",
    "pcie.link.gen.gpucurrent": "pci/pci_gpu_link_info/pcie_gen/device_current_link_gen",
    "pcie.link.gen.gpumax": "pci/pci_gpu_link_info/pcie_gen/max_device_link_gen",
    "pcie.link.gen.hostmax": "pci/pci_gpu_link_info/pcie_gen/max_host_link_gen",
    "clocks.current.graphics": "clocks/graphics_clock",
    "clocks.current.sm": "clocks/sm_clock",
    "clocks.current.memory": "clocks/mem_clock",
    "clocks.current.video": "clocks/video_clock",
    "clocks.gr": "clocks/graphics_clock",
    "clocks.sm": "clocks/sm_clock",
    "clocks.mem": "clocks/mem_clock",
    "clocks.max.graphics": "max_clocks/graphics_clock",
    "clocks.max.sm": "max_clocks/sm_clock",
    "clocks.max.memory": "max_clocks/mem_clock",
    "clocks.max.gr": "max_clocks/graphics_clock",
    "clocks.max.mem": "max_clocks/mem_clock",
    "clocks.applications.graphics": "applications_clocks/graphics_clock",
    "clocks.applications.memory": "applications_clocks/mem_clock",
    "gpu_recovery_action": "gpu_recovery_action",
}
_WITH_UNIT = ("memory.", "utilization.", "clocks.", "power.", "enforced.power", "fan.", "temperature")


def csv(version: str, gpus: list[Gpu], fields: list[str], options: set[str], now: float) -> str:
    """Lines of CSV. Raises: KeyError with the name of a field there is not."""
    lines = []
    if "noheader" not in options:
        lines.append(", ".join(_title(field, options) for field in fields))
    for gpu in gpus:
        values = [_value(version, gpu, field, now, len(gpus)) for field in fields]
        if "nounits" in options:
            values = [value.split(" ")[0] if _unit(value) else value for value in values]
        lines.append(", ".join(values))
    if not gpus:
        for field in fields:
            if field not in _PATHS and not _special(field):
                raise KeyError(field)
    return "\n".join(lines)


def _unit(value: str) -> str:
    number, _, unit = value.partition(" ")
    return (
        unit
        if unit in ("MiB", "%", "MHz", "W", "C") and number.replace(".", "").lstrip("-").isdigit()
        else ""
    )


def _title(field: str, options: set[str]) -> str:
    if (
        "nounits" in options
        or not field.startswith(_WITH_UNIT)
        or "reasons" in field
        or field.startswith("temperature")
    ):
        return field
    unit = (
        "MiB"
        if field.startswith("memory.")
        else "%"
        if field.startswith(("utilization.", "fan."))
        else "W"
        if "power" in field
        else "MHz"
    )
    return f"{field} [{unit}]"


def _special(field: str) -> bool:
    return field in ("index", "count", "timestamp", "driver_version", "compute_cap") or field.startswith(
        (
            "power.",
            "enforced.power",
            "pcie.link.width.",
            "clocks_event_reasons.",
            "clocks_throttle_reasons.",
            "module.power",
        )
    )


def _value(version: str, gpu: Gpu, field: str, now: float, count: int) -> str:
    known = {
        "index": str(gpu.index),
        "count": str(count),
        "timestamp": time.strftime("%Y/%m/%d %H:%M:%S.000", time.localtime(now)),
        "driver_version": version,
        "compute_cap": gpu.card.compute_capability,
    }
    if field in known:
        return known[field]
    if gpu.mute and field not in (
        "name",
        "uuid",
        "serial",
        "pci.bus_id",
        "gpu_bus_id",
        "gpu_name",
        "gpu_uuid",
    ):
        return "[GPU is lost]"
    if field.startswith(("clocks_event_reasons.", "clocks_throttle_reasons.")):
        return _reason(gpu, field.split(".", 1)[1], field)
    if "power" in field:
        return _power(version, gpu, field)
    if field.startswith("pcie.link.width."):
        widths = {"current": gpu.link_width, "max": gpu.card.link_width}
        return str(widths[_part(field, "pcie.link.width.", widths)])
    if field not in _PATHS:
        raise KeyError(field)
    found: str | list[Node] = Report(version, gpu).nodes()
    for tag in _PATHS[field].split("/"):
        found = (
            next((inner for name, inner in found if name == tag), "N/A") if isinstance(found, list) else "N/A"
        )
    value = found if isinstance(found, str) else "N/A"
    if field.startswith("pci.") and field not in ("pci.bus_id",):
        return f"0x{value}"
    # CSV has what is not there in brackets, and temperatures without their unit.
    if value in ("N/A", DEPRECATED):
        return f"[{value}]"
    return value.removesuffix(" C") if field.startswith("temperature") else value


def _part(field: str, prefix: str, known: dict[str, int]) -> str:
    part = field.removeprefix(prefix)
    if part not in known:
        raise KeyError(field)
    return part


def _reason(gpu: Gpu, name: str, field: str) -> str:
    now = gpu.read()
    if name == "active":
        return f"0x{now.bits:016x}"
    if name == "supported":
        return f"0x{sum(bit for _, bit in REASONS):016x}"
    if name not in {reason for reason, _ in REASONS}:
        raise KeyError(field)
    return "Active" if name in now.reasons else "Not Active"


def _power(version: str, gpu: Gpu, field: str) -> str:
    now, card = gpu.read(), gpu.card
    values = {
        "power.management": "Enabled",
        "power.draw": now.power_w,
        "power.draw.average": now.average_w if card.average_power else None,
        "power.draw.instant": now.power_w,
        "power.limit": gpu.power_limit,
        "enforced.power.limit": gpu.power_limit,
        "power.default_limit": card.power[1],
        "power.min_limit": card.power[0],
        "power.max_limit": card.power[2],
    }
    newer = ("power.draw.average", "power.draw.instant")
    if field not in values or (field in newer and branch_of(version) < 535):
        raise KeyError(field)
    value = values[field]
    return "[N/A]" if value is None else value if isinstance(value, str) else f"{value:.2f} W"
