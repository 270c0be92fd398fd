# SPDX-License-Identifier: GPL-3.0-or-later
"""The module image_manifest on a store of small images."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import image_manifest

from tests import image_builds
from tests.module_runner import run_module


def run(store: Path, state: str, *, check: bool = False, **params: Any) -> dict[str, Any]:
    return run_module(
        image_manifest.main, check=check, **{"store": str(store), "name": "gpu-box", "state": state, **params}
    )


def admit(store: Path, recipe: str = "a", *, check: bool = False, **params: Any) -> dict[str, Any]:
    folder = image_builds.build(store, content=recipe)
    return run(store, "present", check=check, **{**image_builds.options(folder, recipe=recipe), **params})


def snapshot(folder: Path) -> dict[str, Any]:
    """Everything below a folder, but for the lock and who was there to look at it."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def two(store: Path) -> Path:
    """A store with versions 1.0.0 and 1.1.0."""
    for recipe in ("a", "b"):
        assert admit(store, recipe)["changed"]
    return store


def test_a_build_is_opened_and_becomes_a_version(store: Path) -> None:
    opened = run(store, "opened")
    assert opened["changed"]
    folder = Path(opened["folder"])
    built = image_builds.build(store)
    shutil.copytree(built, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("build.json"))
    result = run(store, "present", **image_builds.options(folder))
    assert (result["changed"], result["version"], result["kind"], result["current"]) == (
        True,
        "1.0.0",
        "first",
        "1.0.0",
    )
    assert result["reason"] == "there is no earlier image of this name"
    assert result["file"] == f"{store}/gpu-box/gpu-box-v1.0.0/gpu-box-v1.0.0.qcow2"
    assert result["manifest"] == json.loads((Path(result["folder"]) / "image-manifest.json").read_text())
    assert result["diff"]["before"] == ""
    assert result["diff"]["after"] == "gpu-box 1.0.0 (current)\n"
    assert not folder.exists()


def test_a_build_belongs_to_the_process_that_is_named_and_goes_with_it(store: Path) -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    folder = Path(run(store, "opened", pid=child.pid)["folder"])
    assert run(store, "opened", pid=os.getpid())["swept"] == []
    assert folder.exists()
    child.communicate(timeout=60)
    assert run(store, "opened")["swept"] == [folder.name]
    assert not folder.exists()


def test_the_same_content_changes_nothing(two: Path) -> None:
    before = snapshot(two)
    result = admit(two, "b")
    assert (result["changed"], result["version"], result["kind"]) == (False, "1.1.0", "same")
    assert result["diff"]["before"] == result["diff"]["after"]
    assert snapshot(two) == before


def test_check_mode_says_what_would_be_and_writes_nothing(two: Path) -> None:
    admit(two, "c")
    folder = image_builds.build(two, content="d")
    before = snapshot(two)
    foreseen = run(two, "present", check=True, **image_builds.options(folder, recipe="d"))
    assert snapshot(two) == before
    done = run(two, "present", **image_builds.options(folder, recipe="d"))
    assert done["pruned"] == ["1.0.0"]
    for key in (
        "changed",
        "version",
        "kind",
        "reason",
        "file",
        "folder",
        "pruned",
        "current",
        "versions",
        "diff",
    ):
        assert foreseen[key] == done[key], key
    assert foreseen["diff"]["before"] == "gpu-box 1.0.0\ngpu-box 1.1.0\ngpu-box 1.2.0 (current)\n"
    assert foreseen["diff"]["after"] == "gpu-box 1.1.0\ngpu-box 1.2.0\ngpu-box 1.3.0 (current)\n"
    before = snapshot(two)
    assert "folder" not in run(two, "opened", check=True)
    assert run(two, "current", version="1.1.0", check=True)["changed"]
    assert run(two, "pruned", keep=1, check=True)["pruned"] == ["1.1.0"]
    assert run(two, "verified")["version"] == "1.3.0"
    assert snapshot(two) == before


@pytest.mark.parametrize("check", [False, True])
def test_what_is_refused(two: Path, check: bool) -> None:
    folder = image_builds.build(two, content="c", junit=image_builds.FAILED)
    before = snapshot(two)
    result = run(two, "present", check=check, **image_builds.options(folder, recipe="c"))
    assert result["msg"] == (
        f"gpu-box gets no version: 1 of its tests failed (test_boot::test_no_unit_failed). See {folder}/gate."
    )
    assert result["failure"]["kind"] == "ImageError"
    (folder / "gate" / "junit.xml").write_text(image_builds.JUNIT)
    result = run(two, "present", check=check, version="1.0.0", **image_builds.options(folder, recipe="c"))
    assert "version 1.0.0 exists with other content" in result["msg"]
    (folder / "gate" / "junit.xml").write_text(image_builds.FAILED)
    assert snapshot(two) == before


def test_going_back_changes_once(two: Path) -> None:
    result = run(two, "current", version="previous")
    assert (result["changed"], result["version"], result["current"], result["signer"]) == (
        True,
        "1.0.0",
        "1.0.0",
        None,
    )
    assert result["diff"]["after"] == "gpu-box 1.0.0 (current)\ngpu-box 1.1.0\n"
    assert os.readlink(two / "gpu-box" / "current") == "gpu-box-v1.0.0"
    again = run(two, "current", version="previous")
    assert (again["changed"], again["current"]) == (False, "1.0.0")
    assert again["diff"]["before"] == again["diff"]["after"]
    assert run(two, "current", version="latest")["current"] == "1.1.0"


def test_a_damaged_version_does_not_become_current(two: Path) -> None:
    disk = two / "gpu-box" / "gpu-box-v1.0.0" / "gpu-box-v1.0.0.qcow2"
    disk.write_bytes(disk.read_bytes()[:-1] + b"?")
    for check in (True, False):
        result = run(two, "current", version="1.0.0", check=check)
        assert result["failed"]
        assert result["msg"].startswith(f"{disk} is corrupted (its sha256 is ")
        assert result["msg"].endswith(
            f"): take another version (1.1.0), or remove {disk.parent} and build the image again."
        )
    assert os.readlink(two / "gpu-box" / "current") == "gpu-box-v1.1.0"
    assert run(two, "verified", version="1.0.0")["failed"]
    assert not run(two, "verified")["changed"]


def test_older_versions_are_removed(two: Path) -> None:
    for recipe in ("c", "d", "e"):
        admit(two, recipe, keep=9)
    result = run(two, "pruned", keep=2)
    assert (result["changed"], result["pruned"], result["versions"]) == (
        True,
        ["1.0.0", "1.1.0", "1.2.0"],
        ["1.3.0", "1.4.0"],
    )
    assert not run(two, "pruned", keep=2)["changed"]


def test_a_key_signs_and_stays_where_it_is(store: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    for path in (key, tmp_path / "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=60)
    signers = tmp_path / "signers"
    signers.write_text(f"images@example.org {key.with_suffix('.pub').read_text()}")
    private = key.read_bytes()
    result = admit(store, signing_key=str(key))
    folder = Path(result["folder"])
    assert (folder / "image-manifest.json.sig").read_text().startswith("-----BEGIN SSH SIGNATURE-----")
    assert run(store, "verified", allowed_signers=str(signers))["signer"] == "images@example.org"
    kept = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    assert b"PRIVATE KEY" not in kept
    assert b"PRIVATE KEY" not in json.dumps(result).encode()
    assert key.read_bytes() == private

    manifest = folder / "image-manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"dirty": false', '"dirty": true'))
    changed = run(store, "current", version="1.0.0", allowed_signers=str(signers))
    assert "image-manifest.json.sig is not the signature of what it is beside" in changed["msg"]
    manifest.write_text(whole)
    signers.write_text(f"images@example.org {(tmp_path / 'other.pub').read_text()}")
    assert "is by nobody that" in run(store, "verified", allowed_signers=str(signers))["msg"]
    (folder / "image-manifest.json.sig").unlink()
    assert "there is no signature" in run(store, "verified", allowed_signers=str(signers))["msg"]
    assert run(store, "verified")["signer"] is None


def test_a_version_whose_signature_would_not_count_is_not_made(store: Path, tmp_path: Path) -> None:
    key, signers = tmp_path / "key", tmp_path / "signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=60)
    signers.write_text("")
    assert "there is no key to sign with" in admit(store, allowed_signers=str(signers))["msg"]
    result = admit(store, signing_key=str(key), allowed_signers=str(signers))
    assert "is by nobody that" in result["msg"]
    assert list((store / "gpu-box").glob("gpu-box*")) == []
    signers.write_text(f"images@example.org {key.with_suffix('.pub').read_text()}")
    assert admit(store, signing_key=str(key), allowed_signers=str(signers))["version"] == "1.0.0"


def test_a_key_that_cannot_sign_ends_the_build_without_a_version(store: Path, tmp_path: Path) -> None:
    result = admit(store, signing_key=str(tmp_path / "absent"))
    assert result["msg"].startswith(f"no signature could be made with {tmp_path}/absent: ")
    assert "versions" not in result
    assert list((store / "gpu-box").glob("gpu-box*")) == []


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"state": "current"}, "state is current but all of the following are missing: version"),
        (
            {"state": "present"},
            "state is present but all of the following are missing: folder, identity, disk, builder, epoch",
        ),
        ({"state": "verified", "name": "GPU box"}, "'GPU box' is no name for an image."),
        ({"state": "verified"}, "there is no image gpu-box in "),
        ({"state": "current", "version": "one"}, "'one' is no version of an image."),
    ],
)
def test_wrong_options(store: Path, params: dict[str, Any], says: str) -> None:
    result = run_module(image_manifest.main, **{"store": str(store), "name": "gpu-box", **params})
    assert says in result["msg"]
    assert not store.exists()


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "file", "opened")
    assert result["msg"] == f"{tmp_path}/file/.work cannot be used: Not a directory"
