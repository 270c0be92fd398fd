# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: which version a build becomes, which one is used, which go, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import admission, manifest, work
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.store import Store
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.versions import ImageError, Version

from tests import image_builds
from tests.image_builds import NAME, NOW, admit, there, wish


def files(folder: Path) -> list[str]:
    """Every file below a folder but the lock."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and path.name != ".lock"
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


@pytest.fixture
def three(store: Store) -> Store:
    return image_builds.three(store.root)


def test_a_build_becomes_a_version_and_its_work_folder_goes(store: Store) -> None:
    admitted = admit(store)
    assert (str(admitted.bump.version), admitted.bump.kind, admitted.current) == ("1.0.0", "first", True)
    own = "gpu-box-v1.0.0"
    assert files(store.root) == [
        "gpu-box/current",
        f"gpu-box/{own}/gate/junit.xml",
        f"gpu-box/{own}/{own}.cdx.json",
        f"gpu-box/{own}/{own}.qcow2",
        f"gpu-box/{own}/image-manifest.json",
    ]
    assert os.readlink(store.root / NAME / "current") == own
    assert store.disk(NAME, Version(1, 0, 0)).read_bytes() == image_builds.QCOW2 + b"1"
    assert list(store.work.iterdir()) == []
    read, signer = store.verify(NAME, Version(1, 0, 0))
    assert (read.built, read.epoch, signer) == ("2026-11-27T14:00:00Z", image_builds.EPOCH, None)
    assert (read.sbom.debian_packages, read.sbom.python_packages) == (1, 1)


def test_the_same_content_is_thrown_away(three: Store) -> None:
    before = files(three.root)
    admitted = admit(three, "other bytes", recipe="b")
    assert (str(admitted.bump.version), admitted.bump.kind, admitted.current) == ("1.1.0", "same", False)
    assert files(three.root) == before
    assert str(three.current(NAME)) == "1.2.0"


def test_a_version_that_was_gone_back_from_does_not_come_back_by_a_build_without_change(three: Store) -> None:
    three.make_current(NAME, Version(1, 1, 0))
    admit(three, recipe="c")
    assert str(three.current(NAME)) == "1.1.0"


@pytest.mark.parametrize(
    ("identified", "version"),
    [
        ({"key": "2", "recipe": "c"}, "1.2.1"),
        ({"recipe": "d"}, "1.3.0"),
        ({"layout": "2"}, "2.0.0"),
        ({"os": "debian-12"}, "2.0.0"),
    ],
)
def test_what_differs_from_the_newest_decides(three: Store, identified: dict[str, str], version: str) -> None:
    assert str(admit(three, **identified).bump.version) == version


def test_so_many_are_kept_and_the_current_one_and_the_one_before_it(three: Store) -> None:
    assert [str(version) for version in admit(three, recipe="d").pruned] == ["1.0.0"]
    assert there(three) == ["1.1.0", "1.2.0", "1.3.0"]
    three.make_current(NAME, Version(1, 1, 0))
    assert [str(version) for version in three.prune(NAME, 1)] == []
    assert there(three) == ["1.1.0", "1.2.0", "1.3.0"]
    assert [str(version) for version in admit(three, recipe="e", keep=1).pruned] == ["1.2.0", "1.3.0"]
    assert there(three) == ["1.1.0", "1.4.0"]
    assert list(three.work.iterdir()) == []


def test_none_cannot_be_kept(three: Store) -> None:
    with pytest.raises(ImageError, match=r"0 versions cannot be kept\. Keep at least 1"):
        three.prune(NAME, 0)
    assert len(there(three)) == 3


def test_previous_is_what_was_current_before_the_newest_came_however_often_one_goes_back(
    three: Store,
) -> None:
    for _again in range(2):
        assert str(three.find(NAME, "previous")) == "1.1.0"
        three.make_current(NAME, three.find(NAME, "previous"))
    admit(three, recipe="d", keep=9)
    assert [str(three.find(NAME, word)) for word in ("current", "previous", "latest")] == [
        "1.3.0",
        "1.1.0",
        "1.3.0",
    ]


@pytest.mark.parametrize(
    ("name", "wanted", "says"),
    [
        (NAME, "1.7.0", "there is no version 1.7.0 of gpu-box. There are 1.0.0, 1.1.0, 1.2.0."),
        (NAME, "newest", "'newest' is no version of an image. A version is three numbers, such as 1.2.0."),
        ("other", "1.0.0", "there is no image other in {root}. There are gpu-box."),
        ("other", "previous", "there is no image other in {root}. There are gpu-box."),
    ],
)
def test_what_is_not_there_is_told_with_what_is(three: Store, name: str, wanted: str, says: str) -> None:
    with pytest.raises(ImageError, match=f"^{re.escape(says.format(root=three.root))}$"):
        three.find(name, wanted)


def test_an_empty_store_says_how_to_build_one(store: Store) -> None:
    with pytest.raises(
        ImageError, match=r"there is no image gpu-box in .+ ansible-playbook playbooks/image\.yml"
    ):
        store.find(NAME, "current")
    assert (store.names(), store.current(NAME), store.prune(NAME), store.sweep()) == ([], None, (), ([], []))
    assert not store.root.exists()


def test_a_version_with_other_content_is_never_overwritten(three: Store) -> None:
    before = {path: (three.root / path).lstat() for path in files(three.root)}
    folder = image_builds.build(three.root)
    with pytest.raises(
        ImageError,
        match=r"version 1\.1\.0 exists with other content\. Leave the version out, and it is 1\.3\.0",
    ):
        admission.admit(three, wish(folder, "1.1.0", recipe="d"), NOW)
    assert folder.is_dir(), "what was refused is kept to be looked at"
    shutil.rmtree(folder)
    assert {path: (three.root / path).lstat() for path in files(three.root)} == before
    assert admit(three, version="1.1.0", recipe="b").bump.kind == "same"
    assert str(admit(three, version="3.0.0", recipe="d").bump.version) == "3.0.0"


@pytest.mark.parametrize(
    ("junit", "says"),
    [
        (
            image_builds.FAILED,
            "gpu-box gets no version: 1 of its tests failed (test_boot::test_no_unit_failed). See ",
        ),
        (image_builds.EMPTY, "gpu-box gets no version: no test of it passed. See "),
    ],
)
def test_what_was_not_proven_gets_no_version(three: Store, junit: str, says: str) -> None:
    folder = image_builds.build(three.root, junit=junit)
    for attempt in (admission.foresee, lambda *the: admission.admit(*the, NOW)):
        with pytest.raises(ImageError, match=re.escape(f"{says}{folder}/gate")):
            attempt(three, wish(folder, recipe="d"))
    assert there(three) == ["1.0.0", "1.1.0", "1.2.0"]


def test_what_was_not_booted_with_each_firmware_gets_no_version(store: Store) -> None:
    folder = image_builds.build(store.root)
    (folder / "gate" / "boots.json").write_text(json.dumps(image_builds.BOOTS[:1]))
    with pytest.raises(ImageError, match="it was not booted with uefi"):
        admission.admit(store, wish(folder), NOW)
    assert there(store) == []


@pytest.mark.parametrize("missing", ["disk.qcow2", "inventory.json", "gate/junit.xml", "gate/boots.json"])
def test_a_build_that_left_something_out_gets_no_version(store: Store, missing: str) -> None:
    folder = image_builds.build(store.root)
    (folder / missing).unlink()
    with pytest.raises(ImageError, match=f"left no .*{missing}"):
        admission.admit(store, wish(folder), NOW)
    assert there(store) == []


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_an_inventory_that_is_none_is_told(store: Store, text: str) -> None:
    folder = image_builds.build(store.root)
    (folder / "inventory.json").write_text(text)
    with pytest.raises(ImageError, match=r"inventory\.json holds no"):
        admission.admit(store, wish(folder), NOW)


def test_only_a_work_folder_of_the_store_is_ever_removed(store: Store, tmp_path: Path) -> None:
    folder = shutil.move(image_builds.build(store.root), tmp_path / "mine")
    with pytest.raises(
        ImageError, match=r"mine is no work folder of the store .+ Open one with state opened"
    ):
        admission.admit(store, wish(Path(folder)), NOW)
    assert (tmp_path / "mine" / "disk.qcow2").exists()


def test_a_manifest_that_would_be_wrong_ends_before_anything_is_there(store: Store) -> None:
    folder = image_builds.build(store.root, kernels=[])
    with pytest.raises(ImageError, match=r"the manifest of gpu-box-v1\.0\.0 would not be valid: kernels: "):
        admission.admit(store, wish(folder), NOW)
    assert (there(store), list(store.work.iterdir())) == ([], [folder])


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        (
            "gpu-box-v1.1.0.qcow2",
            truncated,
            "{file} is corrupted (it has 8 bytes, its manifest says 9): {cure}",
        ),
        ("gpu-box-v1.1.0.qcow2", flipped, "{file} is corrupted (its sha256 is "),
        ("gpu-box-v1.1.0.qcow2", Path.unlink, "there is no {file}, which its manifest names: {cure}"),
        ("gpu-box-v1.1.0.cdx.json", flipped, "{file} is corrupted (its sha256 is "),
        ("image-manifest.json", truncated, ""),
        ("image-manifest.json", Path.unlink, "there is no {file}"),
    ],
)
def test_what_was_damaged_is_refused_in_a_sentence(
    three: Store, file: str, damage: Callable[[Path], None], says: str
) -> None:
    path = three.folder(NAME, Version(1, 1, 0)) / file
    if file == "image-manifest.json" and damage is truncated:
        path.write_bytes(path.read_bytes()[:-20])
        says = "{file} is corrupted: it holds no JSON"
    else:
        damage(path)
    cure = f"take another version (1.0.0, 1.2.0), or remove {path.parent} and build the image again."
    with pytest.raises(ImageError, match=f"^{re.escape(says.format(file=path, cure=cure))}"):
        three.verify(NAME, Version(1, 1, 0))
    for other in (Version(1, 0, 0), Version(1, 2, 0)):
        three.verify(NAME, other)


def test_the_manifest_of_another_version_is_refused(three: Store) -> None:
    folders = [three.folder(NAME, Version(1, minor, 0)) for minor in (0, 1)]
    shutil.copy(folders[0] / manifest.FILE, folders[1] / manifest.FILE)
    with pytest.raises(ImageError, match=r"gpu-box-v1\.1\.0/image-manifest\.json is that of gpu-box 1\.0\.0"):
        three.verify(NAME, Version(1, 1, 0))


def test_a_version_from_another_store_is_admitted_once_and_proven_first(three: Store, tmp_path: Path) -> None:
    other, version = Store(tmp_path / "other"), Version(1, 1, 0)
    for flaw in (False, True):
        scratch = work.open_folder(other.work, NAME) / "copy"
        shutil.copytree(three.folder(NAME, version), scratch)
        if flaw:
            shutil.rmtree(other.folder(NAME, version))
            flipped(scratch / "gpu-box-v1.1.0.qcow2")
            with pytest.raises(ImageError, match="is corrupted"):
                other.admit(NAME, version, scratch)
            assert there(other) == []
        else:
            assert other.admit(NAME, version, scratch)
            assert there(other) == ["1.1.0"]
            shutil.copytree(three.folder(NAME, version), scratch)
            assert not other.admit(NAME, version, scratch)
            assert other.current(NAME) is None


def test_a_link_that_is_none_is_not_overwritten(three: Store) -> None:
    link = three.root / NAME / "current"
    link.unlink()
    link.mkdir()
    with pytest.raises(ImageError, match=r"current is no link\. Move it away"):
        three.current(NAME)


@pytest.mark.parametrize("target", ["gpu-box-v9.9.9", "../../etc", "elsewhere"])
def test_a_link_that_leads_to_no_version_is_none(three: Store, target: str) -> None:
    link = three.root / NAME / "current"
    link.unlink()
    link.symlink_to(target)
    assert three.current(NAME) is None
    assert three.make_current(NAME, Version(1, 2, 0))
    assert str(three.current(NAME)) == "1.2.0"
