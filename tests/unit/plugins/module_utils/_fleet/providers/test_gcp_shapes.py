# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs fit which Google machine types."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import catalog
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import gcp_shapes as shapes
from hypothesis import example, given
from hypothesis import strategies as st

CUSTOM = (
    "custom-8-30720",
    "custom-8-131072-ext",
    "n1-custom-4-16384",
    "custom-96-638976",
    "e2-custom-4-8192",
)
TYPES = (*shapes.machine_types(), *CUSTOM, "c4-standard-8", "t2d-standard-4")

# Written out once more, apart from the code's own table: rows of Google's page "GPU machine types".
BUILT_IN = {
    "l4": {1: "g2-standard-4 g2-standard-8 g2-standard-12 g2-standard-16 g2-standard-32", 2: "g2-standard-24",
           4: "g2-standard-48", 8: "g2-standard-96"},
    "a100": {1: "a2-highgpu-1g", 2: "a2-highgpu-2g", 4: "a2-highgpu-4g", 8: "a2-highgpu-8g", 16: "a2-megagpu-16g"},
    "a100-80gb": {1: "a2-ultragpu-1g", 2: "a2-ultragpu-2g", 4: "a2-ultragpu-4g", 8: "a2-ultragpu-8g"},
    "h100": {1: "a3-highgpu-1g", 2: "a3-highgpu-2g", 4: "a3-highgpu-4g", 8: "a3-highgpu-8g a3-megagpu-8g"},
    "h200": {8: "a3-ultragpu-8g"},
    "b200": {8: "a4-highgpu-8g"},
    "rtx-pro-6000": {1: "g4-standard-48", 2: "g4-standard-96", 4: "g4-standard-192", 8: "g4-standard-384"},
}  # fmt: skip
ATTACHED = {
    ("t4", 1): (48, 312), ("t4", 2): (48, 312), ("t4", 4): (96, 624),
    ("p4", 1): (24, 156), ("p4", 2): (48, 312), ("p4", 4): (96, 624),
    ("p100", 1): (16, 104), ("p100", 2): (32, 208), ("p100", 4): (96, 624),
    ("v100", 1): (12, 78), ("v100", 2): (24, 156), ("v100", 4): (48, 312), ("v100", 8): (96, 624),
}  # fmt: skip


def allowed(machine_type: str, model: str, count: int) -> bool:
    """The rule of the table, said in another way than the code says it."""
    if machine_type in BUILT_IN.get(model, {}).get(count, "").split():
        return True
    has = shapes.shape(machine_type)
    on_n1 = machine_type.startswith(("n1-", "custom-"))
    vcpus, memory = ATTACHED.get((model, count), (0, 0))
    return on_n1 and has is not None and has.vcpus <= vcpus and has.memory_gb <= memory


@given(
    st.sampled_from(TYPES),
    st.sampled_from((*shapes.GPU_NAMES, "rtx5090", "k80")),
    st.sampled_from((1, 2, 3, 4, 8, 16)),
)
@example("n1-standard-8", "a100", 1)
@example("n1-highmem-96", "v100", 8)
@example("custom-96-638976", "t4", 4)
@example("custom-8-131072-ext", "p100", 1)
def test_a_gpu_is_accepted_exactly_where_the_table_has_it(machine_type: str, model: str, count: int) -> None:
    problem = shapes.check(machine_type, model, count)
    assert (problem is None) == allowed(machine_type, model, count), problem
    if problem:
        assert machine_type in problem or model in problem
        assert not problem.endswith(".")


@pytest.mark.parametrize(
    ("machine_type", "model", "count", "words"),
    [
        (
            "n1-standard-8",
            "a100",
            1,
            "n1-standard-8 cannot take an A100: 1 A100 comes built into a2-highgpu-1g",
        ),
        ("n1-standard-8", "l4", 2, "2 L4 come built into g2-standard-24"),
        ("n1-standard-8", "h100", 3, "a3-highgpu-1g (1), a3-highgpu-2g (2)"),
        (
            "e2-standard-8",
            "t4",
            1,
            "e2-standard-8 cannot take a T4: T4s attach to N1 types only, by 1, 2 or 4",
        ),
        ("f1-micro", "t4", 1, "T4s attach to N1 types only"),
        ("n1-standard-8", "t4", 8, "they come by 1, 2 or 4 on N1"),
        ("n1-standard-64", "t4", 1, "at most 48 vCPUs and 312 GB; take a smaller type, or 4 T4"),
        ("n1-standard-96", "v100", 4, "at most 48 vCPUs and 312 GB; take a smaller type, or 8 V100"),
        ("a2-highgpu-1g", "t4", 1, "a2-highgpu-1g comes with 1 A100, not 1 T4"),
        ("a2-highgpu-1g", "a100", 2, "2 A100 come built into a2-highgpu-2g"),
        ("n1-standard-8", "rtx5090", 1, "Google Compute Engine has no rtx5090"),
        ("n1-standard-8", "a100-40gb", 1, "did you mean a100"),
    ],
)
def test_a_refusal_names_what_does_fit(machine_type: str, model: str, count: int, words: str) -> None:
    assert words in (shapes.check(machine_type, model, count) or "accepted")


def test_a_machine_that_declares_no_gpu_is_no_matter_of_gpus() -> None:
    assert shapes.check("e2-standard-8", None) is None
    assert shapes.check("a2-highgpu-1g", None) is None


@pytest.mark.parametrize(
    ("machine_type", "vcpus", "memory_gb"),
    [
        ("n1-standard-8", 8, 30),
        ("n1-highmem-96", 96, 624),
        ("n1-highcpu-96", 96, 86.4),
        ("e2-standard-8", 8, 32),
        ("e2-medium", 2, 4),
        ("n2-highmem-128", 128, 864),
        ("n2d-highcpu-224", 224, 224),
        ("c3-standard-22", 22, 88),
        ("custom-8-30720", 8, 30),
        ("n2-custom-4-10240", 4, 10),
        ("a2-highgpu-1g", 12, 85),
        ("a2-megagpu-16g", 96, 1360),
        ("a3-highgpu-8g", 208, 1872),
        ("g2-standard-24", 24, 96),
        ("g4-standard-96", 96, 360),
    ],
)
def test_what_a_machine_type_has(machine_type: str, vcpus: int, memory_gb: float) -> None:
    has = shapes.shape(machine_type)
    assert has is not None
    assert (has.vcpus, has.memory_gb) == (vcpus, pytest.approx(memory_gb))


@pytest.mark.parametrize("machine_type", TYPES)
def test_every_type_there_is_passes(machine_type: str) -> None:
    assert shapes.check_type(machine_type) is None


@pytest.mark.parametrize(
    ("machine_type", "words"),
    [
        ("n1-standart-8", "did you mean n1-standard-8?"),
        ("n1-standard-9", "n1-standard comes with 1, 2, 4, 8, 16, 32, 64, 96 vCPUs"),
        ("cx33", "cx33 is not a Google machine type"),
        ("", "is not a Google machine type"),
        ("n1-standard-٨", "is not a Google machine type"),
        ("custom-3-3072", "1 vCPU or an even number"),
        ("custom-98-98304", "1 vCPU or an even number"),
        ("custom-4-1000", "a multiple of 256 MB"),
        ("custom-2-99840", "2048 to 13312 MB"),
        ("custom-4-6272", "a multiple of 256 MB"),
        ("custom-2-0", "a multiple of 256 MB"),
        ("e2-custom-0-1024", "it has no vCPU"),
        ("custom-big", "write custom-<vCPUs>-<MB of memory>"),
    ],
)
def test_a_type_that_cannot_be_is_told_apart(machine_type: str, words: str) -> None:
    assert words in (shapes.check_type(machine_type) or "accepted")


def test_extended_memory_is_allowed_where_it_is_asked_for() -> None:
    assert shapes.check_type("custom-2-99840-ext") is None


def test_our_names_of_gpus_are_those_of_the_catalog_and_googles_lead_back() -> None:
    for ours, theirs in shapes.GPU_NAMES.items():
        model = catalog.find(ours)
        assert model is not None and model.name == ours
        assert [shapes.gpu_of_accelerator(name) for name in theirs] == [ours] * len(theirs)
    assert shapes.gpu_of_accelerator("nvidia-tesla-t4-vws") == "t4"
    assert shapes.gpu_of_accelerator("nvidia-tesla-k80") == "k80"


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("us-centrl1-c", "did you mean us-central1-c?"),
        ("eurpe-west4-a", "did you mean europe-west4-a?"),
        ("us-central1", "us-central1 is not a zone: zones look like us-central1-a"),
        ("fsn1", "fsn1 is not a zone"),
        ("us-central1-", "is not a zone"),
    ],
)
def test_what_cannot_be_a_zone_is_refused(zone: str, words: str) -> None:
    assert words in (shapes.check_zone(zone) or "accepted")


@pytest.mark.parametrize("zone", ["us-central1-c", "us-south1-ai1b", "us-north9-a", "asia-west1-a"])
def test_a_zone_never_heard_of_is_believed(zone: str) -> None:
    assert shapes.check_zone(zone) is None


def test_zones_of_gpus_are_zones_of_gpus_google_has() -> None:
    for model, zones in shapes.GPU_ZONES.items():
        assert model in shapes.GPU_NAMES
        assert all(shapes.check_zone(zone) is None for zone in zones)
        assert len(set(zones)) == len(zones) > 0


def test_advice_about_zones_is_near_dated_and_never_a_refusal() -> None:
    assert shapes.zone_advice("a100", "us-central1-c") is None
    assert shapes.zone_advice(None, "us-central1-c") is None
    assert shapes.zone_advice("h200", "us-central1-c") is None
    near = shapes.zone_advice("a100", "us-east1-c") or ""
    assert shapes.DATA_OF in near and "us-east1-b, not in us-east1-c" in near
    assert "europe-west4-a" in (shapes.zone_advice("a100", "europe-north1-a") or "")
    assert shapes.zone_advice("p4", "me-west1-a")


def test_regions_are_cut_at_the_last_dash() -> None:
    assert shapes.region_of("us-central1-c") == "us-central1"
    assert shapes.region_of("us-south1-ai1b") == "us-south1"


def test_the_small_h100_types_are_spot_only() -> None:
    assert shapes.needs_spot("a3-highgpu-1g")
    assert not shapes.needs_spot("a3-highgpu-8g")
