# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden images that take longer than the others: with Debian's real driver, and with an encrypted root.

Run by `make test-real-image`. The driver's kernel module is compiled, and the encrypted one is booted and unlocked over SSH; without
KVM each takes a quarter of an hour.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.golden.conftest import Builder

DRIVER = {
    "golden_image_name": "driver",
    "golden_image_layers": ["base", "docker", "nvidia_driver"],
    "golden_image_gpus": [{"model": "t4", "count": 1}],
    "golden_image_variables": {"nvidia_driver_source": "distribution", "nvidia_driver_eol_allowed": ["550"]},
}


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("home"))


def test_the_real_driver_is_built_for_the_kernel_of_the_image(builder: Builder) -> None:
    run = builder.build(**DRIVER)
    assert run.status == 0, run.text
    folder = builder.folder("driver", "1.0.0")
    said = json.loads((folder / "image-manifest.json").read_text())
    assert said["driver"]["version"].startswith("550.")
    assert not said["simulated"]
    # Its gate asked the booted machine for the module of its own kernel; the bill of materials has where that comes from.
    bill = json.loads((folder / "driver-v1.0.0.cdx.json").read_text())
    assert "nvidia-kernel-dkms" in {component["name"] for component in bill["components"]}
    assert [case["outcome"] for case in said["tests"]["cases"] if "module" in case["name"]].count(
        "passed"
    ) > 0


def test_an_encrypted_image_is_unlocked_over_ssh_before_it_gets_its_version(builder: Builder) -> None:
    keys = builder.home / ".ssh"
    keys.mkdir(mode=0o700)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / "id_ed25519")], check=True
    )
    passphrase = builder.home / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("correct horse battery staple\n")
    run = builder.build(
        golden_image_name="locked",
        golden_image_kernel="cloud",
        golden_image_layers=["base"],
        golden_image_luks=True,
        golden_image_luks_passphrase_file=str(passphrase),
        golden_image_luks_unlock_with=str(keys / "id_ed25519"),
        golden_image_luks_unlock_keys=[(keys / "id_ed25519.pub").read_text().strip()],
    )
    assert run.status == 0, run.text
    folder = builder.folder("locked", "1.0.0")
    said = json.loads((folder / "image-manifest.json").read_text())
    assert said["disk"]["luks"] is True
    assert "correct horse" not in run.text
    image = folder / said["file"]["name"]
    # The kernel's name is in the clear, which shows that the search finds things; what is in /etc is not.
    assert in_plain_text(image, f"vmlinuz-{said['kernels'][-1]}".encode())
    assert not in_plain_text(image, said["identity"]["fingerprint"].encode())
    assert not in_plain_text(image, b"correct horse battery staple")


def in_plain_text(image: Path, text: bytes) -> bool:
    """Whether the disk has the text anywhere: as it is, not as the file packs it."""
    raw = image.with_suffix(".raw")
    subprocess.run(
        ["docker", "run", "--rm", "--pull=never", f"--volume={image.parent}:/work", tools(), "qemu-img", "convert", "-O", "raw",
         f"/work/{image.name}", f"/work/{raw.name}"],
        check=True,
    )  # fmt: skip
    try:
        tail = b""
        with raw.open("rb") as file:
            while block := file.read(1 << 24):
                if text in tail + block:
                    return True
                tail = block[-len(text) :]
        return False
    finally:
        raw.unlink()


def tools() -> str:
    """The image of tools that the build has made."""
    said = subprocess.run(
        ["docker", "images", "--filter=label=gpumesh.image.tools", "--format={{.Repository}}:{{.Tag}}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return said.stdout.split()[0]
