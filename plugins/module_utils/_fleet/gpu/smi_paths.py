# SPDX-License-Identifier: GPL-3.0-or-later
"""Where each reading is in ``nvidia-smi -q -x``, in the dialect of every driver branch since 470. Data.

A path starts at an element ``gpu`` and is always whole, for tags repeat under different parents: ``sm_clock`` is there
twice, ``power_draw`` three times. Where a branch moved a reading, the newer place is named first.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """One reading.

    Attributes:
        key: where it goes, with dots between levels (``power.draw_w``).
        kind: how its text is read: the name of a reader in ``smi_text``.
        paths: where it may be. The first place that holds a value wins.
    """

    key: str
    kind: str
    paths: tuple[str, ...]


def _field(key: str, kind: str, *paths: str) -> Field:
    return Field(key, kind, paths)


def _power(key: str, new: str, old: str) -> Field:
    """Branch 535 renamed the group and most of what is in it."""
    return _field(key, "watts", f"gpu_power_readings/{new}", f"power_readings/{old}")


def _ecc_errors(span: str) -> tuple[Field, ...]:
    """Chips before Turing count single and double bit errors by memory, later ones by kind of memory."""
    path = f"ecc_errors/{span}"
    return (
        _field(f"ecc.{span}.sram_correctable", "count", f"{path}/sram_correctable"),
        _field(f"ecc.{span}.sram_uncorrectable", "count", f"{path}/sram_uncorrectable"),
        _field(f"ecc.{span}.sram_uncorrectable_parity", "count", f"{path}/sram_uncorrectable_parity"),
        _field(f"ecc.{span}.sram_uncorrectable_secded", "count", f"{path}/sram_uncorrectable_secded"),
        _field(f"ecc.{span}.dram_correctable", "count", f"{path}/dram_correctable"),
        _field(f"ecc.{span}.dram_uncorrectable", "count", f"{path}/dram_uncorrectable"),
        _field(f"ecc.{span}.single_bit_total", "count", f"{path}/single_bit/total"),
        _field(f"ecc.{span}.double_bit_total", "count", f"{path}/double_bit/total"),
    )


_LINK = "pci/pci_gpu_link_info"

FIELDS: tuple[Field, ...] = (
    _field("name", "text", "product_name"),
    _field("architecture", "text", "product_architecture"),
    _field("uuid", "text", "uuid"),
    _field("serial", "text", "serial"),
    _field("minor", "count", "minor_number"),
    _field("vbios", "text", "vbios_version"),
    _field("gsp_firmware", "text", "gsp_firmware_version"),
    _field("memory_mib", "mebibytes", "fb_memory_usage/total"),
    _field("memory_used_mib", "mebibytes", "fb_memory_usage/used"),
    _field("bar1_mib", "mebibytes", "bar1_memory_usage/total"),
    _field("persistence", "switch", "persistence_mode"),
    _field("compute_mode", "text", "compute_mode"),
    _field("performance_state", "text", "performance_state"),
    _field("utilization_percent", "percent", "utilization/gpu_util"),
    _field("recovery_action", "text", "gpu_recovery_action"),
    _field("mig.current", "switch", "mig_mode/current_mig"),
    _field("mig.pending", "switch", "mig_mode/pending_mig"),
    _field(
        "power.draw_w",
        "watts",
        "gpu_power_readings/instant_power_draw",
        "gpu_power_readings/average_power_draw",
        "gpu_power_readings/power_draw",
        "power_readings/power_draw",
    ),
    _power("power.limit_w", "current_power_limit", "enforced_power_limit"),
    _power("power.requested_w", "requested_power_limit", "power_limit"),
    _power("power.default_w", "default_power_limit", "default_power_limit"),
    _power("power.min_w", "min_power_limit", "min_power_limit"),
    _power("power.max_w", "max_power_limit", "max_power_limit"),
    _field("link.gen_now", "count", f"{_LINK}/pcie_gen/current_link_gen"),
    _field("link.gen_max", "count", f"{_LINK}/pcie_gen/max_link_gen"),
    _field("link.gen_device_max", "count", f"{_LINK}/pcie_gen/max_device_link_gen"),
    _field("link.width_now", "lanes", f"{_LINK}/link_widths/current_link_width"),
    _field("link.width_max", "lanes", f"{_LINK}/link_widths/max_link_width"),
    _field("link.replay_counter", "count", "pci/replay_counter"),
    _field("link.replay_rollover_counter", "count", "pci/replay_rollover_counter"),
    _field("temperatures.gpu_c", "celsius", "temperature/gpu_temp"),
    _field("temperatures.memory_c", "celsius", "temperature/memory_temp"),
    _field("clocks.graphics_mhz", "megahertz", "clocks/graphics_clock"),
    _field("clocks.sm_mhz", "megahertz", "clocks/sm_clock"),
    _field("clocks.memory_mhz", "megahertz", "clocks/mem_clock"),
    _field("clocks.applications_graphics_mhz", "megahertz", "applications_clocks/graphics_clock"),
    _field("clocks.applications_memory_mhz", "megahertz", "applications_clocks/mem_clock"),
    _field("max_clocks.graphics_mhz", "megahertz", "max_clocks/graphics_clock"),
    _field("max_clocks.sm_mhz", "megahertz", "max_clocks/sm_clock"),
    _field("max_clocks.memory_mhz", "megahertz", "max_clocks/mem_clock"),
    _field("ecc.current", "switch", "ecc_mode/current_ecc"),
    _field("ecc.pending", "switch", "ecc_mode/pending_ecc"),
    _field("ecc.sram_threshold_exceeded", "switch", "ecc_errors/aggregate/sram_threshold_exceeded"),
    *_ecc_errors("volatile"),
    *_ecc_errors("aggregate"),
    _field("remapped_rows.correctable", "count", "remapped_rows/remapped_row_corr"),
    _field("remapped_rows.uncorrectable", "count", "remapped_rows/remapped_row_unc"),
    _field("remapped_rows.pending", "switch", "remapped_rows/remapped_row_pending"),
    _field("remapped_rows.failure", "switch", "remapped_rows/remapped_row_failure"),
    _field("retired_pages.single_bit", "count", "retired_pages/multiple_single_bit_retirement/retired_count"),
    _field("retired_pages.double_bit", "count", "retired_pages/double_bit_retirement/retired_count"),
    _field(
        "retired_pages.pending",
        "switch",
        "retired_pages/pending_retirement",
        "retired_pages/pending_blacklist",
    ),
)

ABSOLUTE_TEMPERATURES: tuple[Field, ...] = (
    _field("temperatures.slowdown_c", "celsius", "temperature/gpu_temp_slow_threshold"),
    _field("temperatures.shutdown_c", "celsius", "temperature/gpu_temp_max_threshold"),
    _field("temperatures.max_operating_c", "celsius", "temperature/gpu_temp_max_gpu_threshold"),
)
"""Thresholds in degrees: what the driver says of most cards before Ada."""

RELATIVE_TEMPERATURES: tuple[Field, ...] = (
    _field("slowdown", "celsius", "temperature/gpu_temp_slow_tlimit_threshold"),
    _field("shutdown", "celsius", "temperature/gpu_temp_max_tlimit_threshold"),
    _field("max_operating", "celsius", "temperature/gpu_temp_max_gpu_tlimit_threshold"),
)
"""Thresholds as a distance from a limit that the driver keeps to itself (T.Limit): Ada, Hopper, Blackwell."""

TEMPERATURE_MARGIN = _field("margin", "celsius", "temperature/gpu_temp_tlimit")

PCI_ADDRESS = "pci/pci_bus_id"
PCI_ID = "pci/pci_device_id"
PCI_SUBSYSTEM = "pci/pci_sub_system_id"

THROTTLE_GROUPS: tuple[tuple[str, str], ...] = (
    ("clocks_event_reasons", "clocks_event_reason_"),
    ("clocks_throttle_reasons", "clocks_throttle_reason_"),
)
"""The group of reasons and how each tag in it starts; renamed by branch 535."""

THROTTLE_REASONS: dict[str, str] = {
    "idle": "gpu_idle",
    "app_clocks": "applications_clocks_setting",
    "sw_power_cap": "sw_power_cap",
    "hw_slowdown": "hw_slowdown",
    "sync_boost": "sync_boost",
    "sw_thermal": "sw_thermal_slowdown",
    "hw_thermal": "hw_thermal_slowdown",
    "power_brake": "hw_power_brake_slowdown",
    "display": "display_clocks_setting",
}

DRIVER_VERSION = ("driver_version", "kmd_version")
CUDA_VERSION = ("cuda_version", "cuda_umd_version")
"""Branch 610 renamed both in its table. Its XML has not been seen (unverified), so both names are looked for."""
