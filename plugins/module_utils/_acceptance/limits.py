# SPDX-License-Identifier: GPL-3.0-or-later
"""The thresholds of what is measured: each with what it is for and where it comes from, and how a profile replaces it.

Pure. A threshold that nobody has confirmed on hardware says so in its source, which is shown beside every figure it judges. What
a GPU could reach is in `peaks`, what data-parallel training could reach in `scaling`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from .verdicts import Verdict

PROPOSAL = "our proposal, not confirmed on hardware"
NOT_JUDGED = "not judged: CPU"

_GOLDEN_LINK_GB_S = 63.0
"""Of the machine that the bands for GPUs without NVLink were made for: PCIe 5.0 x16."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One threshold.

    Attributes:
        name: as in ``limits`` of a profile.
        value: None: it depends on the GPUs, `all_reduce_band` makes it.
        unit: ``share`` or a unit of measurement.
        about: what is judged by it.
        source: where the value comes from.
    """

    name: str
    value: float | None
    unit: str
    about: str
    source: str


_SHARE = "share"

# fmt: off
TABLE: tuple[Limit, ...] = (
    Limit("matmul_warn_share", 0.90, _SHARE, "WARN below this share of the clock-true peak, in tf32, fp16 and bf16",
          f"{PROPOSAL}; an RTX 5090 was measured at 94 % by others"),
    Limit("matmul_fail_share", 0.75, _SHARE, "FAIL below this share of the clock-true peak, in tf32, fp16 and bf16", PROPOSAL),
    Limit("matmul_fp32_warn_share", 0.55, _SHARE, "WARN below this share of the clock-true peak, in fp32",
          f"{PROPOSAL}; an RTX 5090 was measured at 83 TFLOPS by others, 62 % at its highest clock"),
    Limit("matmul_fp32_fail_share", 0.40, _SHARE, "FAIL below this share of the clock-true peak, in fp32", PROPOSAL),
    Limit("matmul_fp8_warn_share", 0.60, _SHARE, "WARN below this share of the clock-true peak, in fp8", PROPOSAL),
    Limit("matmul_fp8_fail_share", 0.40, _SHARE, "FAIL below this share of the clock-true peak, in fp8", PROPOSAL),
    Limit("sibling_warn_share", 0.95, _SHARE, "WARN below this share of the median of the GPUs of the same model", PROPOSAL),
    Limit("sibling_fail_share", 0.90, _SHARE, "FAIL below this share of the median of the GPUs of the same model", PROPOSAL),
    Limit("memory_bandwidth_warn_share", 0.80, _SHARE, "WARN below this share of the nominal memory bandwidth", PROPOSAL),
    Limit("memory_bandwidth_fail_share", 0.60, _SHARE, "FAIL below this share of the nominal memory bandwidth",
          f"{PROPOSAL}; DCGM's targets are 51 to 66 % of it"),
    Limit("memory_pattern_share", 0.70, _SHARE, "WARN where less of a GPU's memory than this could be tested", PROPOSAL),
    Limit("transfer_fail_share", 0.75, _SHARE,
          "FAIL (in a virtual machine WARN) below this share of what the link carries under load with the lanes it has",
          f"{PROPOSAL}; others measure about 89 % of PCIe 5.0, and Azure asks for 57 to 87 % of it"),
    Limit("together_warn_share", 0.75, _SHARE, "WARN where a transfer slows down to less than this share when all GPUs transfer",
          PROPOSAL),
    Limit("all_reduce_warn_gb_s", None, "GB/s", "WARN below this bus bandwidth of the all-reduce of all GPUs", ""),
    Limit("all_reduce_fail_gb_s", None, "GB/s", "FAIL below this bus bandwidth of the all-reduce of all GPUs", ""),
    Limit("training_fail_share", 0.90, _SHARE,
          "FAIL below this share of what the cost model predicts for training on all GPUs without any overlap",
          f"{PROPOSAL}; the rest is for what the model leaves out"),
    Limit("contention_warn_share", 0.90, _SHARE,
          "WARN where GPUs that train at the same time, each for itself, keep less than this share of what they reach alone",
          PROPOSAL),
    Limit("rest_margin_c", 15, "°C", "WARN where a GPU at rest is closer than this to where it slows itself down", PROPOSAL),
    Limit("pcie_corrected", 100, "errors", "WARN above so many corrected errors of a PCIe link, or replays, since the boot",
          f"{PROPOSAL}; a few happen whenever a link changes its speed"),
    Limit("pcie_replays_per_minute", 8, "a minute",
          "WARN (in a burn-in FAIL) above so many replays of a PCIe link while the suite runs, which judges corrected errors by it, too",
          "DCGM's limit"),
    Limit("step_difference", 1e-4, "", "FAIL where a step of several GPUs together differs by more than this from the right answer",
          f"{PROPOSAL}; single precision leaves about 1e-7"),
    Limit("llm_bandwidth_share", 0.25, _SHARE,
          "FAIL where one stream of LLM inference is below this share of what the memory bandwidth allows",
          f"{PROPOSAL}; others reach 0.6 to 0.9 in one stream"),
    Limit("burn_in_late_warn_s", 1, "s", "WARN where the machine of a burn-in usually wakes a process up later than this", PROPOSAL),
    Limit("burn_in_late_fail_s", 10, "s", "FAIL where the machine of a burn-in has woken a process up later than this", PROPOSAL),
    Limit("burn_in_disk_warn_s", 5, "s", "WARN where writing to the disk usually takes longer than this", PROPOSAL),
    Limit("burn_in_disk_fail_s", 60, "s", "FAIL where writing to the disk has taken longer than this", PROPOSAL),
    Limit("burn_in_temperature_spread_c", 20, "°C", "WARN where a GPU of a burn-in is hotter by more than this than its coolest sibling",
          PROPOSAL),
    Limit("burn_in_memory_short", 0.05, _SHARE,
          "WARN where a burn-in filled less of a GPU's memory than it was asked for by more than this", PROPOSAL),
    Limit("burn_in_unread_share", 0.01, _SHARE, "WARN where more of the readings of a burn-in than this are missing", PROPOSAL),
)
# fmt: on

NAMES = frozenset(limit.name for limit in TABLE)
SHARES = frozenset(limit.name for limit in TABLE if limit.unit == _SHARE)
"""Above 1 nothing would ever reach such a threshold, or nothing ever be too much for it."""
_BY_NAME = {limit.name: limit for limit in TABLE}


class Limits:
    """The thresholds that hold for a machine.

    Args:
        given: those of its profile, by their names.
    """

    def __init__(self, given: Mapping[str, float]) -> None:
        self._given = given

    def get(self, name: str) -> tuple[float, str]:
        """A threshold that does not depend on the GPUs, and where it comes from."""
        limit = _BY_NAME[name]
        if name in self._given:
            return float(self._given[name]), f"limits.{name} of the profile"
        if limit.value is None:
            raise KeyError(f"{name} depends on the GPUs")
        return limit.value, limit.source

    def share(self, kind: str, value: float) -> tuple[Verdict, float, str]:
        """Judge a share by ``<kind>_warn_share`` and ``<kind>_fail_share``.

        Returns:
            The verdict, the share that is expected, and where that comes from.
        """
        warn, source = self.get(f"{kind}_warn_share")
        fail, why = self.get(f"{kind}_fail_share")
        # One that is declared alone is both bounds where it lies beyond the other.
        if f"{kind}_fail_share" not in self._given:
            fail = min(fail, warn)
        if warn < fail:
            warn, source = fail, why
        return grade(value, warn, fail), warn, source

    def all_reduce_band(self, model: str, form: str, gpus: int, link_gb_s: float | None) -> Band | None:
        """Below what the all-reduce of so many GPUs of a model is too slow.

        Args:
            model: the catalog's short name.
            form: of the card, such as SXM; the same model is sold with and without NVLink.
            gpus: how many.
            link_gb_s: what the slowest PCIe link of them carries one way; None: not known.

        Returns:
            None where neither the model nor the link gives a band.
        """
        band = _nvlink_band(model, form, gpus) or _pcie_band(link_gb_s)
        given = self._given
        if "all_reduce_warn_gb_s" not in given and "all_reduce_fail_gb_s" not in given:
            return band
        # One that is declared alone is both bounds where the GPUs give none.
        warn = given.get("all_reduce_warn_gb_s", band.warn if band else given.get("all_reduce_fail_gb_s", 0))
        fail = given.get("all_reduce_fail_gb_s", min(band.fail, warn) if band else warn)
        return Band(float(max(warn, fail)), float(fail), "limits.all_reduce_* of the profile")


@dataclass(frozen=True, slots=True)
class Band:
    """WARN below the one, FAIL below the other."""

    warn: float
    fail: float
    source: str


def grade(value: float, warn: float, fail: float) -> Verdict:
    """Judge a value of which more is better. What is not even a number is a failure."""
    if not value >= fail:
        return Verdict.FAIL
    return Verdict.PASS if value >= warn else Verdict.WARN


def siblings(values: Mapping[int, float], models: Mapping[int, str]) -> dict[int, float]:
    """Of each GPU, its share of the median of the others of its model and itself; without a sibling it is not in there.

    With two the median lies between them, and a share says too little of the slower one: the faster is the measure then.
    """
    found: dict[int, float] = {}
    for model in {models.get(gpu, "") for gpu in values}:
        same = {gpu: value for gpu, value in values.items() if models.get(gpu, "") == model}
        if len(same) < 2:
            continue
        measure = max(same.values()) if len(same) == 2 else statistics.median(same.values())
        if measure > 0:
            found |= {gpu: value / measure for gpu, value in same.items()}
    return found


_LANE_GB_S = {1: 0.25, 2: 0.5, 3: 0.984375, 4: 1.96875, 5: 3.9375, 6: 7.5625}
"""What one lane carries one way, by generation, after its line code."""


def link_gb_s(generation: int | None, width: int | None) -> float | None:
    """What a PCIe link carries one way: 63 GB/s for generation 5 and 16 lanes; None: not known."""
    if generation is None or width is None or generation not in _LANE_GB_S or width < 1:
        return None
    return _LANE_GB_S[generation] * width


@dataclass(frozen=True, slots=True)
class _Floor:
    """What others ask of an all-reduce: of so many GPUs of these models, in this form, at messages of up to 16 GB."""

    models: tuple[str, ...]
    form: str
    gpus: int
    gb_s: float
    who: str


_FLOORS = (
    _Floor(("v100",), "SXM", 8, 110, "Azure"),
    _Floor(("a100", "a100-80gb"), "SXM", 8, 228, "Azure"),
    _Floor(("h100",), "SXM", 8, 460, "Azure"),
    _Floor(("h200",), "SXM", 8, 431, "Azure"),
    _Floor(("b200",), "SXM", 8, 600, "AWS, NVLink alone"),
)
_FAIL_OF_FLOOR, _FAIL_OF_FLOOR_FOR_OTHERS = 0.75, 0.5


def _nvlink_band(model: str, form: str, gpus: int) -> Band | None:
    for floor in _FLOORS:
        if model in floor.models and form == floor.form:
            source, share = (
                f"{floor.who} asks for {floor.gb_s:g} GB/s of {floor.gpus} at messages of up to 16 GB",
                _FAIL_OF_FLOOR,
            )
            if gpus != floor.gpus:
                # How much less fewer of them reach depends on how they are joined.
                source, share = f"{source}, taken for {gpus}: {PROPOSAL}", _FAIL_OF_FLOOR_FOR_OTHERS
            return Band(
                floor.gb_s, floor.gb_s * share, f"{source}; FAIL below {100 * share:g} % of it: {PROPOSAL}"
            )
    return None


_PCIE_WARN_GB_S, _PCIE_FAIL_GB_S = 20.0, 10.0


def _pcie_band(link: float | None) -> Band | None:
    """Without NVLink: the band for RTX 5090 on PCIe 5.0 x16, by what the slowest link carries."""
    if link is None:
        return None
    scale = link / _GOLDEN_LINK_GB_S
    source = f"20 and 10 GB/s for 4 RTX 5090 on PCIe 5.0 x16: {PROPOSAL}; one public measurement: 35 GB/s"
    if scale != 1:
        source += f"; scaled to a link of {link:g} GB/s"
    return Band(_PCIE_WARN_GB_S * scale, _PCIE_FAIL_GB_S * scale, source)
