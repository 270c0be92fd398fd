# SPDX-License-Identifier: GPL-3.0-or-later
"""What a GPU could reach at its clock."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import peaks
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import catalog
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("model", "precision", "mhz", "tflops"),
    [
        # facts: 87.0 TFLOPS a GHz, 269 at 3.09 GHz, of which a measured 254 are 94 %.
        ("rtx5090", "bf16", 1000, 87.04),
        ("rtx5090", "bf16", 3090, 268.95),
        ("rtx5090", "tf32", 1000, 43.52),
        ("rtx5090", "fp32", 1000, 43.52),
        # Of which a measured 774 are 77 % at 2.9 GHz; half of it would be 153 %.
        ("rtx5090", "fp8", 2900, 1009.7),
        ("rtx-pro-6000", "fp8", 1000, 385.0),
        ("rtx-pro-6000", "bf16", 1000, 192.5),
        ("t4", "fp16", 1590, 65.1),
        ("v100", "fp16", 1530, 125.3),
    ],
)
def test_the_peak_follows_the_clock(model, precision, mhz, tflops):
    peak = peaks.matmul(model, precision, mhz)

    assert peak.tflops == pytest.approx(tflops, rel=1e-3)
    assert peak.clock_true
    assert "for each GHz of its SM clock" in peak.source
    assert "unverified" in peak.source


@pytest.mark.parametrize("model", [one.name for one in catalog.MODELS if one.peak.tensor_tflops])
def test_the_operations_a_clock_agree_with_the_nominal_peak(model):
    """The clock at which both are the same must be one that such a card has."""
    found = catalog.find(model)
    ghz = found.peak.tensor_tflops / peaks.tflops_per_ghz(found, "fp16", None)
    assert 1.2 < ghz < 2.7

    if found.peak.tf32_tflops:
        assert found.peak.tf32_tflops / peaks.tflops_per_ghz(found, "tf32", None) == pytest.approx(
            ghz, rel=0.02
        )


def test_multiprocessors_that_the_card_counts_itself_come_before_those_of_its_model():
    assert peaks.matmul("h100", "bf16", 1620, 114).tflops == pytest.approx(756, rel=2e-3)


@pytest.mark.parametrize(
    ("model", "precision"),
    [("t4", "bf16"), ("v100", "tf32"), ("t4", "fp8"), ("a100", "fp8"), ("p4", "fp16"), ("rtx5090", "int4"), ("nothing", "bf16"), ("", "bf16"), ("a10", "bf16")],
)  # fmt: skip
def test_what_a_card_does_not_have_or_nobody_knows_has_no_peak(model, precision):
    assert peaks.matmul(model, precision, 1500) is None


def test_a_model_that_nobody_counted_has_a_peak_once_the_card_counts():
    assert peaks.matmul("a10", "bf16", 1695, 72).tflops == pytest.approx(125, rel=2e-3)


def test_without_a_clock_the_nominal_peak_is_told_with_its_caveat():
    peak = peaks.matmul("rtx5090", "bf16", None)

    assert (peak.tflops, peak.clock_true) == (209.5, False)
    assert peak.source == (
        "nominal peak of the catalog (unverified, at the nominal clock; the real one is not known)"
    )
    assert peaks.matmul("rtx5090", "fp32", None) is None


@pytest.mark.parametrize(
    ("card", "precision", "tflops"),
    [("2331", "bf16", 756.0), ("2331", "tf32", 378.0), ("2330", "bf16", 989.0), ("", "bf16", 989.0), ("2321", "bf16", 989.0)],
)  # fmt: skip
def test_a_card_that_differs_from_its_model_has_a_nominal_peak_of_its_own(card, precision, tflops):
    assert peaks.matmul("h100", precision, None, pci_id=card).tflops == tflops


def test_a_card_that_differs_from_its_model_has_multiprocessors_of_its_own():
    assert peaks.matmul("h100", "bf16", 1620, pci_id="2331").tflops == pytest.approx(756, rel=2e-3)
    assert peaks.matmul("h100", "bf16", 1620, 100, pci_id="2331").tflops == pytest.approx(663.6, rel=2e-3)


@given(st.sampled_from(sorted(peaks.MULTIPROCESSORS)), st.floats(100, 4000), st.floats(1.01, 3))
def test_a_faster_clock_never_lowers_the_peak(model, mhz, factor):
    slow, fast = (peaks.matmul(model, "fp32", clock) for clock in (mhz, mhz * factor))
    assert fast.tflops > slow.tflops


def test_the_bandwidth_of_memory_says_what_it_is_worth():
    assert peaks.memory_gb_s("rtx5090") == (1792.0, "nominal bandwidth of the catalog, unverified")
    assert peaks.memory_gb_s("h100") == (3350.0, "nominal bandwidth of the catalog")
    assert peaks.memory_gb_s("h100", "2330") == (3350.0, "nominal bandwidth of the catalog")
    assert peaks.memory_gb_s("a10") is None
    assert peaks.memory_gb_s("") is None


@pytest.mark.parametrize(
    ("model", "card", "gb_s", "source"),
    [
        ("h100", "2331", 2000.0, "nominal bandwidth of the NVIDIA H100 PCIe"),
        ("h100", "2321", 3900.0, "nominal bandwidth of the NVIDIA H100 NVL, unverified"),
        ("p100", "15f7", 549.0, "nominal bandwidth of the Tesla P100 PCIe 12 GB, unverified"),
    ],
)
def test_a_card_that_differs_from_its_model_has_a_bandwidth_of_its_own(model, card, gb_s, source):
    assert peaks.memory_gb_s(model, card) == (gb_s, source)
    assert peaks.memory_gb_s(model, card.upper()) == (gb_s, source)


def test_every_card_of_its_own_is_in_the_catalog():
    assert all(catalog.by_pci_id(card) for card in peaks.CARDS)
