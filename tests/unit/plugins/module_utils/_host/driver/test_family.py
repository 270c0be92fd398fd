# SPDX-License-Identifier: GPL-3.0-or-later
"""What the names and versions of packages tell."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import family


@pytest.mark.parametrize(
    ("version", "driver"),
    [
        ("580.178.04-1ubuntu1", "580.178.04"),
        ("2:595.91.07-1", "595.91.07"),
        ("550.163.01-2", "550.163.01"),
        ("580-2ubuntu1", ""),
        ("6.8.0-90.91", ""),
        ("20240109+1", ""),
        ("12.4.131~12.4.1-2", ""),
        ("1.20.0-1", ""),
    ],
)
def test_the_driver_in_a_packages_version(version: str, driver: str) -> None:
    assert family.upstream(version) == driver


@pytest.mark.parametrize(
    ("driver", "wanted", "fits"),
    [
        ("580.178.04", "580", True),
        ("580.178.04", "580.178.04", True),
        ("580.178.04", "580.17", False),
        ("595.91.07", "580", False),
    ],
)
def test_a_branch_and_a_full_version_fit(driver: str, wanted: str, fits: bool) -> None:
    assert family.fits(driver, wanted) is fits
    assert family.package_fits(f"{driver}-1", wanted) is fits


def test_a_package_with_a_version_of_its_own_fits_any_driver() -> None:
    assert family.package_fits("20240109+1", "550")


@pytest.mark.parametrize(
    ("name", "of_the_driver"),
    [
        ("libnvidia-compute-580", True),
        ("nvidia-utils", True),
        ("libcuda1", True),
        ("firmware-nvidia-gsp", True),
        ("nvidia-container-toolkit", False),
        ("libnvidia-container1", False),
        ("nvtop", False),
    ],
)
def test_packages_of_the_container_runtime_are_none_of_the_driver(name: str, of_the_driver: bool) -> None:
    assert family.is_driver(name) is of_the_driver


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("libnvidia-compute-580", True),
        ("nvidia-driver-pinning-595", True),
        ("linux-modules-nvidia-580-server-open-6.8.0-90-generic", True),
        ("firmware-nvidia-gsp", True),
        ("libcuda1", True),
        ("cuda-toolkit-13-0", True),
        ("libcublas-13-0", True),
        ("cudnn9-cuda-13", True),
        ("nvidia-container-toolkit", False),
        ("libnvidia-container1", False),
        ("libnvme1", False),
        ("linux-headers-6.8.0-90-generic", False),
        ("nvtop", False),
        ("dkms", False),
    ],
)
def test_what_a_way_back_exchanges(name: str, ours: bool) -> None:
    assert family.is_stack(name) is ours


def test_the_driver_of_a_machine_is_told_by_its_libraries_and_not_by_a_meta_package() -> None:
    packages = {"cuda-drivers-595": "595.91.07-1", "libcuda1": "550.163.01-2", "nvtop": "3.1.0-1"}
    assert family.driver_of(packages) == "550.163.01"
    assert family.driver_of({"nvtop": "3.1.0-1"}) == ""
