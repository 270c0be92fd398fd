# SPDX-License-Identifier: GPL-3.0-or-later
"""The Packer template, by Packer itself where it is installed: Debian's 1.6, and current ones with their plugins installed.

No machine is started. What a build does is in packer/README.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PACKER = ROOT / "packer"

needs_packer = pytest.mark.skipif(
    shutil.which("packer") is None, reason="needs packer (Debian: apt-get install packer)"
)


def packer(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What Packer says, and asks nobody on the network for newer versions."""
    return subprocess.run(
        ["packer", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CHECKPOINT_DISABLE": "1", "PACKER_CACHE_DIR": str(folder / "cache")},
    )


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """What packer/seed makes."""
    folder = tmp_path / "seed"
    subprocess.run([str(PACKER / "seed"), str(folder)], check=True, capture_output=True)
    return folder


def validate(seed: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    """`packer validate` with an image that is there, so that it fetches none."""
    image = seed.parent / "cloud.qcow2"
    image.write_bytes(b"an image")
    given = [f"seed={seed}", f"image_url={image}", "image_checksum=none", *variables]
    words = [word for variable in given for word in ("-var", variable)]
    return packer("validate", *words, str(PACKER), folder=seed.parent)


@needs_packer
@pytest.mark.parametrize(
    "variables",
    [
        (),
        ("firmware=/usr/share/ovmf/OVMF.fd", "accelerator=tcg", "tags=base"),
        ("layer_variables=layers.yml", "disk_size=20G", "cpus=4"),
    ],
)
def test_the_template_is_valid(seed: Path, variables: tuple[str, ...]) -> None:
    """As it is, with UEFI and without KVM, and with variables for the layers."""
    done = validate(seed, *variables)

    assert done.returncode == 0, done.stdout + done.stderr


@needs_packer
def test_without_a_seed_nothing_is_built(tmp_path: Path) -> None:
    """It has no default: a host key that is published is none."""
    done = packer("validate", "-var", "image_checksum=none", str(PACKER), folder=tmp_path)

    assert done.returncode != 0
    assert "seed" in done.stdout + done.stderr


@needs_packer
def test_the_template_is_formatted() -> None:
    """As `packer fmt` does it."""
    for folder in (PACKER, PACKER / "plugins"):
        done = packer("fmt", "-check", "-diff", str(folder), folder=ROOT / ".cache")
        assert done.returncode == 0, done.stdout


def test_the_block_that_old_versions_do_not_know_is_apart() -> None:
    """Packer reads every file of a folder and none of the folders in it."""
    block = re.compile(r"^packer\s*\{", re.MULTILINE)

    assert not [path.name for path in PACKER.glob("*.pkr.hcl") if block.search(path.read_text())]
    assert block.search((PACKER / "plugins" / "plugins.pkr.hcl").read_text())


def test_the_seed_plants_the_key_that_is_expected(seed: Path) -> None:
    """The host key that cloud-init is given is the one in known_hosts, and it lets the key in that Packer uses."""
    user_data: dict[str, Any] = yaml.safe_load((seed / "cidata" / "user-data").read_text())
    host_key = user_data["ssh_keys"]

    assert (seed / "known_hosts").read_text() == f"golden-image {host_key['ed25519_public']}\n"
    assert host_key["ed25519_private"] == (seed / "host_key").read_text()
    assert user_data["users"][0]["ssh_authorized_keys"] == [(seed / "key.pub").read_text().strip()]
    assert json.loads((seed / "variables.json").read_text())["base_admin_ssh_keys"] == [
        (seed / "key.pub").read_text().strip()
    ]


def test_the_seed_is_its_owners_alone(seed: Path) -> None:
    """It holds two private keys."""
    paths = [seed, *seed.rglob("*")]

    assert not [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_a_seed_is_not_overwritten(seed: Path) -> None:
    """Its keys may be those of a build that runs."""
    before = (seed / "key").read_text()

    done = subprocess.run([str(PACKER / "seed"), str(seed)], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert (seed / "key").read_text() == before


def test_the_seal_is_given_what_the_role_gives_it() -> None:
    """What seals is one program with two callers."""
    plays = yaml.safe_load((PACKER / "seal.yml").read_text())
    here = next(
        task["vars"]["__seal_wanted"] for task in plays[0]["tasks"] if "__seal_wanted" in task.get("vars", {})
    )
    tasks = yaml.safe_load((ROOT / "roles" / "golden_image" / "tasks" / "seal.yml").read_text())
    there = next(
        task["vars"]["__golden_image_seal_wanted"]
        for task in tasks
        if "__golden_image_seal_wanted" in task.get("vars", {})
    )

    assert set(here) - {"archive"} == set(there)
    assert here["archive"] is False


def test_what_seals_arrives_in_memory_and_whole(tmp_path: Path) -> None:
    """It is packed into one file, of which nothing is left when the machine is off."""
    play = yaml.safe_load((PACKER / "seal.yml").read_text())[0]
    task = next(task for task in play["tasks"] if "__seal_wanted" in task.get("vars", {}))
    arrives, _then, starts = task["ansible.builtin.command"]["argv"][2].partition("; ")
    program = Path(
        re.sub(r".*}}", str(PACKER.parent / "roles" / "golden_image"), play["vars"]["__seal_zipped"][1])
    )

    sent = subprocess.run([sys.executable, str(program), "seal"], capture_output=True, check=True).stdout
    # It is not started: that would seal the machine that the tests run on.
    subprocess.run(["sh", "-ec", arrives.replace("/run/", f"{tmp_path}/")], input=sent, check=True)

    assert starts == 'exec /usr/bin/python3 -B /run/gpumesh-seal.pyz "$1"'
    with zipfile.ZipFile(tmp_path / "gpumesh-seal.pyz") as packed:
        assert packed.testzip() is None
        assert {"__main__.py", "seal/main.py", "seal/clean.py"} <= set(packed.namelist())
