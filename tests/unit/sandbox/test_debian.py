# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages and repositories made without Debian's tools, as those tools see them where they are there."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from sandbox.debian import Archive, File, Link, Package, write, write_key
from sandbox.openpgp import SigningKey

NOW = 1_790_000_000
KEY = SigningKey(bytes(range(32)), "Somebody <somebody@example.com>")
PACKAGE = Package(
    "one",
    "2:1.0-1",
    "the first (SIMULATED)\nMore of it.\n\nAnd more.",
    contents=(
        File("etc/one.conf", b"x = 1\n"),
        File("usr/bin/one", b"#!/bin/sh\n", 0o755),
        Link("usr/bin/uno", "one"),
    ),
    architecture="amd64",
    fields={"Depends": "two (>= 3)", "Recommends": ""},
    scripts={"postinst": "#!/bin/sh\nexit 0\n"},
    conffiles=("etc/one.conf",),
)


def archive(*packages: Package, folder: str = "") -> Archive:
    return Archive(packages, KEY, NOW, origin="Somewhere", folder=folder)


def test_a_control_file_has_no_empty_field_and_a_description_of_many_lines() -> None:
    assert PACKAGE.control() == (
        "Package: one\nVersion: 2:1.0-1\nArchitecture: amd64\nMaintainer: nobody <nobody@example.com>\nInstalled-Size: 1\n"
        "Depends: two (>= 3)\nDescription: the first (SIMULATED)\n More of it.\n .\n And more.\n"
    )
    assert PACKAGE.file_name == "one_1.0-1_amd64.deb"


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_dpkg_unpacks_what_was_put_in(tmp_path: Path) -> None:
    (tmp_path / "one.deb").write_bytes(PACKAGE.deb())
    subprocess.run(["dpkg-deb", "--raw-extract", tmp_path / "one.deb", tmp_path / "root"], check=True)
    root = tmp_path / "root"
    assert (root / "DEBIAN/conffiles").read_text() == "/etc/one.conf\n"
    assert (root / "DEBIAN/postinst").stat().st_mode & 0o777 == 0o755
    assert (root / "etc/one.conf").read_text() == "x = 1\n"
    assert (root / "usr/bin/one").stat().st_mode & 0o777 == 0o755
    assert (root / "usr/bin/uno").readlink() == Path("one")


def test_a_flat_repository_names_its_packages_from_where_its_index_is() -> None:
    files = archive(PACKAGE).files()
    assert sorted(files) == ["InRelease", "Packages", "one_1.0-1_amd64.deb"]
    assert "Filename: ./one_1.0-1_amd64.deb\n" in files["Packages"].decode()
    digest = hashlib.sha256(files["Packages"]).hexdigest()
    release = files["InRelease"].decode()
    assert f" {digest} {len(files['Packages'])} Packages\n" in release
    # A flat one has no suite: apt would miss the folder of that name.
    assert "Suite:" not in release
    assert "Origin: Somewhere\n" in release


def test_a_suite_has_its_components() -> None:
    made = Archive(
        [PACKAGE], KEY, NOW, origin="Somewhere", folder="pool/x", components=("main", "restricted")
    )
    files = made.files("noble")
    assert sorted(files) == [
        "dists/noble/InRelease",
        "dists/noble/main/binary-all/Packages",
        "dists/noble/main/binary-amd64/Packages",
        "dists/noble/restricted/binary-all/Packages",
        "dists/noble/restricted/binary-amd64/Packages",
        "pool/x/one_1.0-1_amd64.deb",
    ]
    assert "Components: main restricted\n" in files["dists/noble/InRelease"].decode()


def test_two_packages_of_one_name_and_version_are_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"one_1\.0-1_amd64\.deb"):
        archive(PACKAGE, PACKAGE)


def test_the_files_are_written_with_the_key_beside_them(tmp_path: Path) -> None:
    write(tmp_path / "flat", archive(PACKAGE).files())
    write_key(tmp_path, KEY)
    assert (tmp_path / "flat/one_1.0-1_amd64.deb").read_bytes() == PACKAGE.deb()
    assert (tmp_path / "fingerprint").read_text() == f"{KEY.fingerprint}\n"
    assert (tmp_path / "key.asc").read_text() == KEY.public()
