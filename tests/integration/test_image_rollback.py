# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/image_rollback.yml as a user runs it, on a store of small images."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import image_manifest

from tests import image_builds
from tests.module_runner import run_module
from tests.playbook_runner import run_playbook

pytestmark = pytest.mark.integration

PLACE = Path(".local") / "share" / "gpumesh" / "images"
"""Where a user's images are, below their home, unless they say otherwise."""


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=60)
    (tmp_path / "signers").write_text(f"images@example.org {path.with_suffix('.pub').read_text()}")
    return path


@pytest.fixture
def store(tmp_path: Path, key: Path) -> Path:
    """A store with versions 1.0.0, 1.1.0 and 1.2.0, all of them signed."""
    folder = tmp_path / PLACE
    for recipe in ("a", "b", "c"):
        build = image_builds.build(folder, content=recipe)
        done = run_module(
            image_manifest.main,
            store=str(folder),
            name="gpu-box",
            signing_key=str(key),
            **image_builds.options(build, recipe=recipe),
        )
        assert done["changed"], done
    return folder


def play(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_playbook(home, "localhost,", "playbooks/image_rollback.yml", *arguments)


def words(done: subprocess.CompletedProcess[str]) -> str:
    """What was said, whatever way it was broken into lines."""
    said = " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in said
    return said


def current(store: Path) -> str:
    return os.readlink(store / "gpu-box" / "current")


def test_it_goes_back_and_proves_what_it_goes_back_to(tmp_path: Path, store: Path) -> None:
    name = ("-e", "golden_image_name=gpu-box")
    looked = play(tmp_path, *name, "--check", "--diff")
    assert looked.returncode == 0, looked.stdout
    assert "Version 1.1.0 of gpu-box would be current now." in words(looked)
    assert "+gpu-box 1.1.0 (current)" in looked.stdout
    assert "-gpu-box 1.2.0 (current)" in looked.stdout
    assert current(store) == "gpu-box-v1.2.0"

    done = play(tmp_path, *name, "--diff", "-e", f"golden_image_allowed_signers={tmp_path}/signers")
    assert done.returncode == 0, done.stdout
    assert "Version 1.1.0 of gpu-box is current now." in words(done)
    manifest = json.loads((store / "gpu-box" / "current" / "image-manifest.json").read_text())
    proof = (
        f"9 bytes, sha256 {manifest['file']['sha256']}, as its manifest says, signed by images@example.org."
    )
    assert proof in words(done)
    assert "There are 1.0.0, 1.1.0, 1.2.0." in words(done)
    assert current(store) == "gpu-box-v1.1.0"
    assert "changed=1" in done.stdout

    again = play(tmp_path, *name)
    assert "changed=0" in again.stdout
    assert "Version 1.1.0 of gpu-box is current already." in words(again)
    assert "no signature was looked at" in words(again)


def test_it_goes_to_the_version_that_is_named(tmp_path: Path, store: Path) -> None:
    arguments = ("-e", "golden_image_name=gpu-box", "-e", f"golden_image_store={store}")
    for version, changed in (("1.0.0", 1), ("1.0.0", 0), ("latest", 1)):
        done = play(tmp_path, *arguments, "-e", f"golden_image_to={version}")
        assert f"changed={changed}" in done.stdout, done.stdout
    assert current(store) == "gpu-box-v1.2.0"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Say which image to take back, such as -e golden_image_name=gpu-box"),
        (("-e", "golden_image_name=other"), "there is no image other in {store}. There are gpu-box."),
        (
            ("-e", "golden_image_name=gpu-box", "-e", "golden_image_to=1.7.0"),
            "there is no version 1.7.0 of gpu-box. There are 1.0.0, 1.1.0, 1.2.0.",
        ),
        (
            ("-e", "golden_image_name=gpu-box", "-e", "golden_image_to=one"),
            "'one' is no version of an image. A version is three numbers, such as 1.2.0.",
        ),
        (
            ("-e", "golden_image_name=gpu-box", "-e", "golden_image_allowed_signers=/nowhere"),
            "there is no file of allowed signers /nowhere. Write lines such as",
        ),
    ],
)
def test_what_is_not_there_is_told(
    tmp_path: Path, store: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = play(tmp_path, *arguments)
    assert done.returncode != 0
    assert says.format(store=store) in words(done)
    assert current(store) == "gpu-box-v1.2.0"


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_a_file_that_was_damaged_does_not_become_current(
    tmp_path: Path, store: Path, check: tuple[str, ...]
) -> None:
    disk = store / "gpu-box" / "gpu-box-v1.1.0" / "gpu-box-v1.1.0.qcow2"
    disk.write_bytes(disk.read_bytes()[:-1] + b"?")
    done = play(tmp_path, "-e", "golden_image_name=gpu-box", *check)
    assert done.returncode != 0
    sentence = (
        rf"{re.escape(str(disk))} is corrupted \(its sha256 is [0-9a-f]{{64}}, its manifest says [0-9a-f]{{64}}\): take"
        rf" another version \(1\.0\.0, 1\.2\.0\), or remove {re.escape(str(disk.parent))} and build the image again\."
    )
    assert re.search(sentence, words(done)), done.stdout
    assert current(store) == "gpu-box-v1.2.0"
    assert play(tmp_path, "-e", "golden_image_name=gpu-box", "-e", "golden_image_to=1.0.0").returncode == 0


def test_a_manifest_that_was_changed_is_refused_where_signatures_count(tmp_path: Path, store: Path) -> None:
    manifest = store / "gpu-box" / "gpu-box-v1.1.0" / "image-manifest.json"
    manifest.write_text(manifest.read_text().replace('"revision": "ae967d7"', '"revision": "ae967d8"'))
    signers = ("-e", f"golden_image_allowed_signers={tmp_path}/signers")
    done = play(tmp_path, "-e", "golden_image_name=gpu-box", *signers)
    assert done.returncode != 0
    assert f"{manifest}.sig is not the signature of what it is beside" in words(done)
    assert current(store) == "gpu-box-v1.2.0"


PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  vars: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  tasks:
    - gpumesh.fleet.image_manifest: {store: "{{ place }}", name: gpu-box, state: opened}
      register: first
    - gpumesh.fleet.image_manifest: {store: "{{ place }}", name: gpu-box, state: opened}
      register: second
    - ansible.builtin.stat: {path: "{{ first.folder }}"}
      register: kept
    - ansible.builtin.assert: {that: [kept.stat.exists, second.swept | length == 0]}
"""


def test_a_work_folder_lives_as_long_as_the_playbook(tmp_path: Path) -> None:
    book, place = tmp_path / "book.yml", tmp_path / "images"
    book.write_text(PLAYBOOK)
    for left in (0, 2):
        swept = run_module(image_manifest.main, store=str(place), name="gpu-box", state="opened")["swept"]
        assert len(swept) == left
        done = run_playbook(tmp_path, "localhost,", str(book), "-e", f"place={place}")
        assert done.returncode == 0, done.stdout
