# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog is consistent in itself and with the data beside it."""

from __future__ import annotations

import re

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import (
    branches,
    catalog,
    sources,
    wheels,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.catalog import GpuModel

EVERY_MODEL = pytest.mark.parametrize("model", catalog.MODELS, ids=lambda model: model.name)


@EVERY_MODEL
def test_every_model_is_complete(model: GpuModel) -> None:
    assert model.architecture in catalog.ARCHITECTURES
    assert re.fullmatch(r"\d+\.\d", model.compute_capability)
    assert branches.numbers(model.cuda_min)
    assert model.cards and model.flavours
    assert model.p2p in ("yes", "no", "topology") and model.ecc in ("yes", "no", "toggle")
    assert catalog.find(model.full_name) is catalog.find(model.name) is model


@EVERY_MODEL
def test_its_cards(model: GpuModel) -> None:
    for card in model.cards:
        assert re.fullmatch(r"[0-9a-f]{4}", card.pci_id)
        assert catalog.model_of(card) is model
        power = card.power
        known = [one for one in (power.minimum, power.default, power.maximum) if one is not None]
        assert known == sorted(known)
        # The floor of the model is good for each of its cards.
        if card.driver_floor:
            assert branches.numbers(card.driver_floor) <= branches.numbers(model.driver_floor)


def test_no_pci_id_is_there_twice_and_none_is_a_name() -> None:
    ids = [card.pci_id for model in catalog.MODELS for card in model.cards]
    assert len(set(ids)) == len(ids)
    assert [one for one in ids if catalog.find(one)] == []


def test_no_name_is_there_twice() -> None:
    names = [name for model in catalog.MODELS for name in {model.name, *model.aliases}]
    assert len(set(names)) == len(names)


@EVERY_MODEL
def test_what_is_unverified_is_a_field(model: GpuModel) -> None:
    beside = {"memory", "power", "peak", "pytorch_floor", "tf32"}
    assert {*model.all_unverified, *model.all_community, *model.captured} <= set(
        GpuModel.__dataclass_fields__
    ) | beside


@pytest.mark.parametrize("text", ["2b85", "2B85", "0x2b85", "10de:2b85", "10DE:2B85"])
def test_a_card_by_its_id(text: str) -> None:
    card = catalog.by_pci_id(text)
    assert card is not None
    assert (card.name, card.power) == ("NVIDIA GeForce RTX 5090", catalog.Power(400, 575, 600))
    assert catalog.model_of(card).name == "rtx5090"


def test_a_card_that_nobody_knows() -> None:
    assert catalog.by_pci_id("ffff") is None


def test_how_figures_are_known() -> None:
    rtx5090, t4, p4 = (catalog.find(name) for name in ("rtx5090", "t4", "p4"))
    assert rtx5090 and t4 and p4
    assert [rtx5090.known(field) for field in ("driver_floor", "memory", "power", "peak")] == [
        "vendor",
        "captured",
        "community",
        "unverified",
    ]
    assert t4.known("power") == "captured"
    assert p4.known("power") == "unverified"


@EVERY_MODEL
def test_modules_follow_from_the_generation(model: GpuModel) -> None:
    major, minor = model.capability
    if (major, minor) < (7, 5):
        assert model.flavours == ("closed",) and model.generation.driver_last == "580"
    elif major >= 10:
        assert model.flavours == ("open",)
        assert branches.numbers(model.driver_floor) >= (570, 86) and branches.numbers(model.cuda_min) >= (
            12,
            8,
        )
    assert model.generation.bf16 == ((major, minor) >= (8, 0))


@EVERY_MODEL
def test_the_floor_of_pytorch_is_that_of_the_wheels(model: GpuModel) -> None:
    first = next(
        f"{torch.version}.0+{index}"
        for torch in wheels.TORCH.values()
        for index, chips in torch.indexes.items()
        if wheels.runs(model.capability, chips)
    )
    floor = model.generation.pytorch_floor
    if floor.startswith("2.7"):
        assert first == floor
    else:
        assert first == "2.1.0+cu118"


def test_code_runs_on_later_chips_of_its_own_major_version_only() -> None:
    assert wheels.runs((8, 9), ("8.6",)) and wheels.runs((6, 1), ("6.0",))
    assert not wheels.runs((8, 0), ("8.6",))
    assert not wheels.runs((12, 0), ("10.0",)) and not wheels.runs((10, 0), ("12.0",))


def test_every_source_has_known_branches_and_kernels_have_names() -> None:
    for distribution in sources.DISTRIBUTIONS.values():
        assert sources.kernel_numbers(distribution.kernel)
        for source in distribution.sources:
            assert set(source.branches) <= set(branches.BRANCHES)
            for branch, version in source.branches.items():
                assert branches.branch_of(version) == branch
                assert branches.numbers(version) <= branches.numbers(branches.BRANCHES[branch].last_seen)
    assert sources.kernel_flavour("6.8.0-90-generic") == "generic"
    assert sources.kernel_flavour("7.0.0-1011-gcp") == "gcp"
    assert sources.kernel_flavour("6.8.0-60-generic-64k") == "generic-64k"
    assert sources.kernel_numbers("6.12.117+deb13-amd64") == (6, 12, 117)


@pytest.mark.parametrize(
    ("package", "held"),
    [
        ("nvidia-dkms-580-open", True),
        ("libnvidia-compute-580", True),
        ("nvidia-modprobe", True),
        ("libcuda1", True),
        ("cuda-toolkit-13-0", True),
        ("cudnn9-cuda-13", True),
        ("libcudnn9-cuda-13", True),
        ("linux-modules-nvidia-580-server-open-generic", True),
        # These are of other layers, or have to move: the container toolkit, the pin, the keys, the kernel.
        ("nvidia-container-toolkit", False),
        ("libnvidia-container1", False),
        ("nvidia-driver-pinning-580", False),
        ("cuda-keyring", False),
        ("linux-image-generic", False),
        ("nvtop", False),
    ],
)
def test_what_is_held(package: str, held: bool) -> None:
    # As unattended-upgrades matches them: at the start of the name.
    assert any(re.match(pattern, package) for pattern in sources.HOLD_PATTERNS) == held


def test_every_package_of_a_driver_is_held() -> None:
    for distribution in sources.DISTRIBUTIONS.values():
        for source in distribution.sources:
            for branch in source.branches:
                for flavour in ("open", "closed"):
                    names = sources.packages(source, branch, flavour, ()).driver
                    free = [
                        one for one in names if not any(re.match(it, one) for it in sources.HOLD_PATTERNS)
                    ]
                    assert free == []
