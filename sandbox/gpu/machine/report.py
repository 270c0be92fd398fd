# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``nvidia-smi -q`` tells, as a tree, in the dialect of the driver's branch. SIMULATED.

Elements come, go and are renamed from branch to branch; who reads this has to live with it.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import mig
from .dialect import DEPRECATED, LOST, NA, Node, branch_of
from .gpu import HW_SLOWDOWN, HW_THERMAL, POWER_BRAKE, POWER_CAP, REASONS, SW_THERMAL, Gpu, Reading
from .hardware import MARK


class Report:
    """One GPU's part."""

    def __init__(self, version: str, gpu: Gpu) -> None:
        self.version = version
        self.branch = branch_of(version)
        self.gpu = gpu
        self.card = gpu.card
        self.now: Reading = gpu.read()

    def nodes(self) -> list[Node]:
        found = [
            *self._identity(),
            *self._pci(),
            *self._state(),
            *self._memory(),
            *self._errors(),
            *self._temperatures(),
            *self._power(),
            *self._clocks(),
        ]
        return [_with_values(node, LOST) for node in found] if self.gpu.mute else found

    def _identity(self) -> Iterable[Node]:
        gpu, card, branch = self.gpu, self.card, self.branch
        yield "product_name", card.name
        yield "product_brand", card.brand
        yield "product_architecture", card.architecture
        yield "display_mode", DEPRECATED if branch >= 580 else "Disabled"
        if branch >= 580:
            yield "display_attached", "No"
        yield "display_active", "Disabled"
        yield "persistence_mode", _enabled(gpu.persistence)
        if branch >= 535:
            yield "addressing_mode", "HMM" if gpu.machine.state().get("flavour") == "open" else "None"
        yield "mig_mode", [("current_mig", _enabled(gpu.mig)), ("pending_mig", _enabled(gpu.mig_pending))]
        yield "mig_devices", self._instances() or "None"
        yield "accounting_mode", "Disabled"
        yield "accounting_mode_buffer_size", "4000"
        yield "driver_model", [("current_dm", NA), ("pending_dm", NA)]
        yield "serial", gpu.serial
        yield "uuid", gpu.uuid
        if branch >= 580:
            yield "pdi", f"0x{int(gpu.uuid[-12:], 16):016x}"
        yield "minor_number", str(gpu.minor)
        yield "vbios_version", card.vbios
        yield "multigpu_board", "No"
        yield "board_id", f"0x{gpu.address[5:7].lstrip('0') or '0'}00"
        if branch >= 525:
            yield "board_part_number", f"{MARK}"
        yield "gpu_part_number", card.gpu_part
        if branch >= 570:
            yield "gpu_fru_part_number", NA
            yield "platformInfo", [("module_id", "1"), ("gpu_fabric_guid", NA)]
        elif branch >= 470:
            yield "gpu_module_id", "1"
        yield (
            "inforom_version",
            [("img_version", NA), ("oem_object", "2.1"), ("ecc_object", NA), ("pwr_object", NA)],
        )
        yield "gpu_operation_mode", [("current_gom", NA), ("pending_gom", NA)]
        yield (
            "gpu_virtualization_mode",
            [
                ("virtualization_mode", "Pass-Through" if card.passthrough else "None"),
                ("host_vgpu_mode", NA),
            ],
        )
        if 525 <= branch < 570:
            yield "gpu_reset_status", [("reset_required", "No"), ("drain_and_reset_recommended", "No")]
        elif 570 <= branch < 580:
            yield (
                "gpu_reset_status",
                [("reset_required", DEPRECATED), ("drain_and_reset_recommended", DEPRECATED)],
            )
        if branch >= 570:
            yield "gpu_recovery_action", "Drain and Reset" if gpu.broken("ecc") else "None"
        if branch >= 515:
            yield "gsp_firmware_version", self.version if gpu.machine.state().get("flavour") == "open" else NA
        yield "ibmnpu", [("relaxed_ordering_mode", NA)]

    def _instances(self) -> list[Node]:
        """What it is cut into."""
        return [
            (
                "mig_device",
                [
                    ("index", str(place)),
                    ("gpu_instance_id", str(place)),
                    ("compute_instance_id", "0"),
                    ("fb_memory_usage", [("total", f"{cut.memory_gb * 1024 - 512} MiB"), ("used", "12 MiB")]),
                ],
            )
            for place, cut in enumerate(mig.instances(self.gpu))
        ]

    def _pci(self) -> Iterable[Node]:
        gpu, card = self.gpu, self.card
        domain, bus, place = gpu.address.upper().split(":")
        vendor, subsystem = card.subsystem_id.upper().split(":")
        generation: list[Node] = [
            ("max_link_gen", str(card.link_gen)),
            ("current_link_gen", str(self.now.link_gen)),
        ]
        if self.branch >= 525:
            host = NA if card.passthrough else str(card.link_gen)
            generation += [
                ("device_current_link_gen", str(self.now.link_gen)),
                ("max_device_link_gen", str(card.link_gen)),
                ("max_host_link_gen", host),
            ]
        widths: list[Node] = [
            ("max_link_width", f"{card.link_width}x"),
            ("current_link_width", f"{gpu.link_width}x"),
        ]
        nodes: list[Node] = [("pci_bus", bus), ("pci_device", place.split(".")[0]), ("pci_domain", domain)]
        if self.branch >= 570:
            nodes += [("pci_base_class", "3"), ("pci_sub_class", card.pci_class[3])]
        nodes += [
            ("pci_device_id", f"{card.pci_id.upper()}10DE"),
            ("pci_bus_id", gpu.bus_id),
            ("pci_sub_system_id", f"{subsystem}{vendor}"),
            ("pci_gpu_link_info", [("pcie_gen", generation), ("link_widths", widths)]),
            ("pci_bridge_chip", [("bridge_chip_type", NA), ("bridge_chip_fw", NA)]),
            ("replay_counter", "0"),
            ("replay_rollover_counter", "0"),
            ("tx_util", f"{400 + self.now.utilisation * 9000} KB/s"),
            ("rx_util", f"{300 + self.now.utilisation * 8000} KB/s"),
        ]
        yield "pci", nodes

    def _state(self) -> Iterable[Node]:
        yield "fan_speed", f"{self.now.fan} %" if self.card.fan else NA
        yield "performance_state", self.now.state
        word = "event" if self.branch >= 535 else "throttle"
        active = self.now.reasons
        yield (
            f"clocks_{word}_reasons",
            [
                (f"clocks_{word}_reason_{name}", "Active" if name in active else "Not Active")
                for name, _ in REASONS
            ],
        )
        if self.branch >= 580:
            us = {name: 7_015_662_857 if name in active else 0 for name, _ in REASONS}
            yield (
                "clocks_event_reasons_counters",
                [
                    ("clocks_event_reasons_counters_sw_power_cap", f"{us[POWER_CAP]} us"),
                    ("clocks_event_reasons_counters_sync_boost", "0 us"),
                    ("clocks_event_reasons_counters_sw_therm_slowdown", f"{us[SW_THERMAL]} us"),
                    ("clocks_event_reasons_counters_hw_therm_slowdown", f"{us[HW_THERMAL]} us"),
                    (
                        "clocks_event_reasons_counters_hw_power_brake",
                        f"{us[POWER_BRAKE] and us[HW_SLOWDOWN]} us",
                    ),
                ],
            )
            yield "sparse_operation_mode", NA

    def _memory(self) -> Iterable[Node]:
        gpu, card, now = self.gpu, self.card, self.now
        total, used = gpu.memory_mib, now.used_mib
        memory: list[Node] = [("total", f"{total} MiB")]
        if self.branch >= 510:
            memory.append(("reserved", f"{card.reserved_mib} MiB"))
        free = total - used - (card.reserved_mib if self.branch >= 510 else 0)
        yield "fb_memory_usage", [*memory, ("used", f"{used} MiB"), ("free", f"{free} MiB")]
        yield (
            "bar1_memory_usage",
            [
                ("total", f"{card.bar1_mib} MiB"),
                ("used", "2 MiB"),
                ("free", f"{card.bar1_mib - 2} MiB"),
            ],
        )
        if self.branch >= 535:
            yield "cc_protected_memory_usage", [("total", "0 MiB"), ("used", "0 MiB"), ("free", "0 MiB")]
        yield "compute_mode", gpu.compute_mode
        usage: list[Node] = [
            ("gpu_util", f"{now.utilisation} %"),
            ("memory_util", f"{now.memory_utilisation} %"),
        ]
        usage += [("encoder_util", "0 %"), ("decoder_util", "0 %")]
        if self.branch >= 535:
            usage += [("jpeg_util", "0 %"), ("ofa_util", "0 %")]
        yield "utilization", usage
        if self.branch >= 580:
            yield "dram_encryption_mode", [("current_dram_encryption", NA), ("pending_dram_encryption", NA)]

    def _errors(self) -> Iterable[Node]:
        gpu, card = self.gpu, self.card
        yield "ecc_mode", [("current_ecc", _enabled(gpu.ecc)), ("pending_ecc", _enabled(gpu.ecc_pending))]
        bad = gpu.broken("ecc")
        totals: list[Node] = self._counts(14 if bad else 0, 3 if bad else 0)
        split = card.sram_split and self.branch >= 570
        if split:
            totals.append(("sram_threshold_exceeded", "No" if gpu.ecc else NA))
        errors: list[Node] = [
            ("volatile", self._counts(9 if bad else 0, 2 if bad else 0)),
            ("aggregate", totals),
        ]
        if split:
            sources = ("sram_l2", "sram_sm", "sram_microcontroller", "sram_pcie", "sram_other")
            errors.append(
                ("aggregate_uncorrectable_sram_sources", [(name, "0" if gpu.ecc else NA) for name in sources])
            )
            errors += [("channel_repair_pending", "No"), ("tpc_repair_pending", "No")]
            if self.branch >= 590:
                errors.append(("unrepairable_memory", "No" if gpu.ecc else NA))
        yield "ecc_errors", errors
        count = NA if not card.pages else "2" if bad else "0"
        pages: list[Node] = [
            (
                kind,
                [
                    ("retired_count", count if kind.startswith("double") else "0" if card.pages else NA),
                    ("retired_pagelist", "" if card.pages else NA),
                ],
            )
            for kind in ("multiple_single_bit_retirement", "double_bit_retirement")
        ]
        pending = NA if not card.pages else _yes(bad)
        yield "retired_pages", [*pages, ("pending_blacklist", pending), ("pending_retirement", pending)]
        yield "remapped_rows", self._rows(bad) if card.rows and gpu.ecc is not None else NA

    def _counts(self, correctable: int, uncorrectable: int) -> list[Node]:
        on = bool(self.gpu.ecc)
        zero, many, few = ("0", str(correctable), str(uncorrectable)) if on else (NA, NA, NA)
        if self.card.sram_split and self.branch >= 570:
            sram: list[Node] = [("sram_uncorrectable_parity", zero), ("sram_uncorrectable_secded", zero)]
        else:
            sram = [("sram_uncorrectable", zero)]
        return [("sram_correctable", zero), *sram, ("dram_correctable", many), ("dram_uncorrectable", few)]

    def _rows(self, bad: bool) -> list[Node]:
        failed = self.gpu.broken("remap-failure")
        banks = self.card.rows
        spread = {
            "max": banks - 1 if bad or failed else banks,
            "high": int(bad),
            "partial": 0,
            "low": 0,
            "none": int(failed),
        }
        nodes: list[Node] = [
            ("remapped_row_corr", "0"),
            ("remapped_row_unc", "1" if bad or failed else "0"),
            ("remapped_row_pending", _yes(bad)),
            ("remapped_row_failure", _yes(failed)),
        ]
        if self.branch >= 595:
            nodes.append(("remapped_row_inactive", "0"))
        histogram: list[Node] = [
            (f"row_remapper_histogram_{name}", f"{n} bank(s)") for name, n in spread.items()
        ]
        return [*nodes, ("row_remapper_histogram", histogram)]

    def _temperatures(self) -> Iterable[Node]:
        card, branch = self.card, self.branch
        highest, slow, shut = card.temperatures
        relative = card.relative and branch >= 535
        nodes: list[Node] = [("gpu_temp", f"{self.now.gpu_c} C")]
        if branch >= 525:
            nodes.append(("gpu_temp_tlimit", f"{highest - self.now.gpu_c} C" if relative else NA))
        middle = "_tlimit" if relative else ""
        memory = NA if not card.memory_limit_c else "0 C" if relative else f"{card.memory_limit_c} C"
        # Told as a distance, a limit beyond the first one is below zero.
        shown = {value: highest - value if relative else value for value in (highest, slow, shut)}
        nodes += [
            (f"gpu_temp_max{middle}_threshold", f"{shown[shut]} C"),
            (f"gpu_temp_slow{middle}_threshold", f"{shown[slow]} C"),
            (f"gpu_temp_max_gpu{middle}_threshold", f"{shown[highest]} C"),
            ("gpu_target_temperature", NA),
            ("memory_temp", f"{self.now.memory_c} C" if card.memory_limit_c else NA),
            (f"gpu_temp_max_mem{middle}_threshold", memory),
        ]
        yield "temperature", nodes
        yield "supported_gpu_target_temp", [("gpu_target_temp_min", NA), ("gpu_target_temp_max", NA)]

    def _power(self) -> Iterable[Node]:
        card, now, branch = self.card, self.now, self.branch
        lowest, default, highest = card.power
        limit = f"{self.gpu.power_limit:.2f} W"
        state: Node = ("power_state", DEPRECATED if branch >= 590 else now.state)
        borders: list[Node] = [
            ("default_power_limit", f"{default:.2f} W"),
            ("min_power_limit", f"{lowest:.2f} W"),
            ("max_power_limit", f"{highest:.2f} W"),
        ]
        if branch < 535:
            yield (
                "power_readings",
                [
                    state,
                    ("power_management", "Supported"),
                    ("power_draw", f"{now.power_w:.2f} W"),
                    ("power_limit", limit),
                    borders[0],
                    ("enforced_power_limit", limit),
                    *borders[1:],
                ],
            )
            return
        average = f"{now.average_w:.2f} W" if card.average_power else NA
        draw: list[Node] = [("power_draw", f"{now.power_w:.2f} W")]
        nothing: list[Node] = [("power_draw", NA)]
        if branch >= 570:
            draw = [("average_power_draw", average), ("instant_power_draw", f"{now.power_w:.2f} W")]
            nothing = [("average_power_draw", NA), ("instant_power_draw", NA)]
        limits: list[Node] = [("current_power_limit", limit), ("requested_power_limit", limit), *borders]
        yield "gpu_power_readings", [state, *draw, *limits]
        if branch >= 570:
            yield "gpu_memory_power_readings", nothing
        yield "module_power_readings", [state, *nothing, *((tag, NA) for tag, _ in limits)]
        if branch >= 590:
            yield "edpp_multiplier", NA

    def _clocks(self) -> Iterable[Node]:
        card, now, branch = self.card, self.now, self.branch
        yield "clocks", _clocks(now.sm_mhz, now.memory_mhz, now.video_mhz)
        memory, graphics = self.gpu.application_clocks
        for kind, pair in (
            ("applications", (graphics, memory)),
            ("default_applications", card.max_clocks[:2]),
        ):
            # GeForce has never had them; in the newest branches nobody has.
            gone = DEPRECATED if branch >= 590 else NA if card.brand == "GeForce" else ""
            yield (
                f"{kind}_clocks",
                [("graphics_clock", gone or f"{pair[0]} MHz"), ("mem_clock", gone or f"{pair[1]} MHz")],
            )
        yield "max_clocks", _clocks(*card.max_clocks)
        yield (
            "max_customer_boost_clocks",
            [("graphics_clock", NA if card.brand == "GeForce" else f"{card.max_clocks[0]} MHz")],
        )
        yield "clock_policy", [("auto_boost", NA), ("auto_boost_default", NA)]
        if 510 <= branch < 580:
            yield "voltage", [("graphics_volt", "700.000 mV")]
        if branch >= 535:
            yield "fabric", [("state", NA), ("status", NA)]
        steps = range(card.max_clocks[0], card.idle_clocks[0] - 1, -15)
        yield (
            "supported_clocks",
            [
                (
                    "supported_mem_clock",
                    [
                        ("value", f"{card.max_clocks[1]} MHz"),
                        *(("supported_graphics_clock", f"{mhz} MHz") for mhz in steps),
                    ],
                )
            ],
        )
        yield "processes", ""
        yield "accounted_processes", ""


def _clocks(graphics: int, memory: int, video: int) -> list[Node]:
    return [
        ("graphics_clock", f"{graphics} MHz"),
        ("sm_clock", f"{graphics} MHz"),
        ("mem_clock", f"{memory} MHz"),
        ("video_clock", f"{video} MHz"),
    ]


def _with_values(node: Node, value: str) -> Node:
    """The same tree with every value replaced, but what was known before the card was lost."""
    tag, inner = node
    if isinstance(inner, list):
        return tag, [_with_values(child, value) for child in inner]
    known = {"product_name", "product_brand", "product_architecture", "uuid", "serial", "minor_number"}
    return tag, inner if tag in known or tag.startswith("pci_") else value


def _enabled(value: bool | None) -> str:
    return NA if value is None else "Enabled" if value else "Disabled"


def _yes(value: bool) -> str:
    return "Yes" if value else "No"
