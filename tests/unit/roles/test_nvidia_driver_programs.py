# SPDX-License-Identifier: GPL-3.0-or-later
"""What the programs of the role nvidia_driver read out of versions, logs and the simulated kernel's files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FILES = Path(__file__).parents[3] / "roles" / "nvidia_driver" / "files"


def program(name: str) -> ModuleType:
    """A program of the role, not run."""
    found = importlib.util.spec_from_file_location(f"nvidia_driver_{name}", FILES / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


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
    assert program("packages").upstream(version) == driver


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
    assert program("packages").fits(driver, wanted) is fits
    assert program("probe").fits(f"{driver}-1", wanted) is fits


def test_a_package_with_a_version_of_its_own_fits_any_driver() -> None:
    assert program("probe").fits("20240109+1", "550")


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
    for found in ("packages", "probe"):
        assert bool(program(found).FAMILY.match(name)) is of_the_driver


def test_the_compilers_errors_are_shown_and_not_its_kilobytes_of_options() -> None:
    log = "\n".join(
        [
            f"  gcc-14 -Wp,-MMD,{'x' * 4000} -c nv-pci.c",
            "/var/lib/dkms/nvidia/nv-pci.c:237:5: error: too few arguments to function 'pci_resize_resource'",
            "  237 |     pci_resize_resource(a, b, c);",
            "make[3]: *** [nv-pci.o] Error 1",
            "# exit code: 2",
        ]
    )
    for name in ("packages", "trial"):
        said = program(name).errors(log)
        assert said.endswith("error: too few arguments to function 'pci_resize_resource'")
        assert len(said.splitlines()) == 1


def test_a_log_without_an_error_is_shown_from_its_end_in_short_lines() -> None:
    said = program("trial").errors("\n".join([f"line {number} {'x' * 500}" for number in range(40)]))
    assert said.splitlines()[-1].startswith("line 39")
    assert max(map(len, said.splitlines())) <= 200


@pytest.mark.parametrize(
    ("text", "loaded"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.178.04  Release Build  (a@b)\n",
            ("580.178.04", "open"),
        ),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8\n",
            ("550.163.01", "closed"),
        ),
        ("", ("", "")),
    ],
)
def test_the_loaded_module_and_its_flavour(tmp_path: Path, text: str, loaded: tuple[str, str]) -> None:
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text(text)
    assert program("module").Machine(tmp_path).loaded() == loaded


def test_a_kernel_without_a_module_asks_for_a_reboot(tmp_path: Path) -> None:
    module = program("module")
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/osrelease").write_text("0.0.0-none\n")
    decided = module.decide(module.Machine(tmp_path), act=False)
    assert decided["reboot"] is True
    assert "the running kernel 0.0.0-none has no module on the disk" in decided["says"]
