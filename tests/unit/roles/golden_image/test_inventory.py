# SPDX-License-Identifier: GPL-3.0-or-later
"""What the list of an image's contents finds in a small root file system."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[4] / "roles" / "golden_image" / "files" / "inventory.py"

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.41-12

Package: linux-image-6.12.10+deb13-amd64
Status: install ok installed
Architecture: amd64
Source: linux-signed-amd64 (6.12.10+1)
Version: 6.12.10-1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

"""


def put(root: Path, name: str, text: str = "") -> None:
    """A file, with its folders."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with two kernels, a module of DKMS, and Python in four places."""
    put(
        tmp_path,
        "etc/os-release",
        'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n',
    )
    put(tmp_path, "var/lib/dpkg/status", STATUS)
    put(tmp_path, "boot/vmlinuz-6.12.9+deb13-amd64")
    put(tmp_path, "boot/vmlinuz-6.12.10+deb13-amd64")
    put(tmp_path, "lib/modules/6.12.10+deb13-amd64/updates/dkms/nvidia-current.ko.xz")
    put(tmp_path, "lib/modules/6.12.10+deb13-amd64/kernel/fs/ext4.ko.xz")
    put(
        tmp_path,
        "usr/lib/python3/dist-packages/PyYAML-6.0.2.egg-info/PKG-INFO",
        "Metadata-Version: 2.2\nName: PyYAML\nVersion: 6.0.2\n",
    )
    put(tmp_path, "usr/lib/python3/dist-packages/distro-1.9.egg-info", "Name: distro\nVersion: 1.9\n")
    put(
        tmp_path,
        "usr/local/lib/python3.13/dist-packages/x-1.dist-info/METADATA",
        "Name: x\nVersion: 1\n\nVersion: 9\n",
    )
    put(
        tmp_path,
        "opt/gpumesh/frameworks/torch-1/lib/python3.13/site-packages/torch-2.13.0.dist-info/METADATA",
        "Name: torch\nVersion: 2.13.0+cu130\n",
    )
    put(
        tmp_path,
        "opt/gpumesh/frameworks/torch-1/lib/python3.13/site-packages/torch/site-packages/y-1.dist-info/METADATA",
        "Name: y\nVersion: 1\n",
    )
    put(
        tmp_path,
        "opt/gpumesh/frameworks/torch-1/lib/python3.13/site-packages/broken-1.dist-info/METADATA",
        "Summary: no name\n",
    )
    put(
        tmp_path,
        "etc/ansible/facts.d/gpumesh.fact",
        json.dumps({"layers": {"base": {"when": "2026-11-27T12:00:00Z", "versions": {"ufw": "0.36"}}}}),
    )
    return tmp_path  # fmt: skip


def listed(root: Path) -> dict[str, Any]:
    """What the program prints."""
    if not shutil.which("dpkg-query"):
        pytest.skip("there is no dpkg-query here")
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), str(root)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_packages_are_those_that_are_installed_with_their_sources(root: Path) -> None:
    assert listed(root)["packages"] == [
        {
            "name": "libc6",
            "version": "2.41-12",
            "architecture": "amd64",
            "source": "glibc",
            "source_version": "2.41-12",
        },
        {
            "name": "linux-image-6.12.10+deb13-amd64",
            "version": "6.12.10-1",
            "architecture": "amd64",
            "source": "linux-signed-amd64",
            "source_version": "6.12.10+1",
        },
    ]


def test_python_is_found_in_every_environment(root: Path) -> None:
    assert listed(root)["python"] == [
        {"name": "torch", "version": "2.13.0+cu130", "environment": "/opt/gpumesh/frameworks/torch-1"},
        {"name": "x", "version": "1", "environment": "/usr/local"},
        {"name": "PyYAML", "version": "6.0.2", "environment": "system"},
        {"name": "distro", "version": "1.9", "environment": "system"},
    ]


def test_kernels_are_in_the_order_of_their_versions_with_their_foreign_modules(root: Path) -> None:
    found = listed(root)
    assert found["kernels"] == ["6.12.9+deb13-amd64", "6.12.10+deb13-amd64"]
    assert found["modules"] == {"6.12.9+deb13-amd64": [], "6.12.10+deb13-amd64": ["nvidia-current"]}


def test_the_system_and_its_layers_are_named(root: Path) -> None:
    found = listed(root)
    assert found["os"] == {
        "id": "debian",
        "version": "13",
        "codename": "trixie",
        "pretty": "Debian GNU/Linux 13 (trixie)",
    }
    # Without their time: a layer that is reused and one that is rebuilt are the same.
    assert found["layers"] == {"base": {"versions": {"ufw": "0.36"}}}


def test_the_same_image_is_listed_the_same(root: Path) -> None:
    assert json.dumps(listed(root)) == json.dumps(listed(root))
