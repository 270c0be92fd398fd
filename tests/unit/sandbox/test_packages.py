# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's Debian package and its repository, as Debian's and GnuPG's own tools see them where they are there."""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from sandbox.openpgp import SigningKey
from sandbox.packages import Repository, package, signing_key
from sandbox.zerotier_one.build import Build

NOW = 1_790_000_000
KEY = SigningKey(bytes(range(32)), "Somebody <somebody@example.com>")
SOURCES = Path(__file__).parents[3] / "sandbox" / "zerotier_one"


def members(content: bytes) -> dict[str, bytes]:
    """The files of an ``ar`` archive."""
    assert content.startswith(b"!<arch>\n")
    found, place = {}, 8
    while place < len(content):
        head = content[place : place + 60].decode()
        assert head.endswith("`\n")
        length = int(head[48:58])
        found[head[:16].strip()] = content[place + 60 : place + 60 + length]
        place += 60 + length + length % 2
    return found


def archive(content: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(gzip.decompress(content)))


def text(tar: tarfile.TarFile, name: str) -> str:
    file = tar.extractfile(name)
    assert file
    return file.read().decode()


def test_the_package_has_the_vendors_names_and_says_that_it_is_simulated() -> None:
    files = members(package(Build()))
    assert list(files) == ["debian-binary", "control.tar.gz", "data.tar.gz"]
    control, data = archive(files["control.tar.gz"]), archive(files["data.tar.gz"])
    assert "Package: zerotier-one\nVersion: 1.14.2\n" in text(control, "./control")
    assert "SIMULATED" in text(control, "./control")
    for script in ("./postinst", "./prerm", "./postrm"):
        assert control.getmember(script).mode == 0o755
    assert data.getmember("./usr/sbin/zerotier-one").mode == 0o755
    assert data.getmember("./usr/sbin/zerotier-cli").linkname == "zerotier-one"
    assert data.getmember("./usr/sbin/zerotier-idtool").linkname == "zerotier-one"
    assert "ExecStart=/usr/sbin/zerotier-one\n" in text(data, "./usr/lib/systemd/system/zerotier-one.service")
    assert all(entry.uid == entry.gid == 0 for tar in (control, data) for entry in tar)
    assert "./usr/share/zerotier-one/zerotier_one/__main__.py" not in data.getnames()


def test_the_same_build_makes_the_same_package(monkeypatch: pytest.MonkeyPatch) -> None:
    first = package(Build())
    monkeypatch.setattr(time, "time", lambda: 1.0)
    assert package(Build()) == first
    assert package(Build()) != package(Build(roots=("192.0.2.1:9993",)))


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_dpkg_reads_it_and_its_programs_run_from_there(tmp_path: Path) -> None:
    (tmp_path / "it.deb").write_bytes(package(Build.of("1.16.0", ("192.0.2.1:9993",))))
    shown = subprocess.run(
        ["dpkg-deb", "--field", tmp_path / "it.deb", "Version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "1.16.0\n"
    subprocess.run(["dpkg-deb", "--extract", tmp_path / "it.deb", tmp_path / "root"], check=True)
    program = (
        (tmp_path / "root/usr/sbin/zerotier-one")
        .read_text()
        .replace("/usr/share", f"{tmp_path}/root/usr/share")
    )
    (tmp_path / "zerotier-cli").write_text(program)
    # -I: nothing of the work tree helps it.
    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "zerotier-cli", "-v"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1.16.0 SIMULATED\n"


def test_a_host_has_only_pythons_own_library() -> None:
    """And what is installed must not name the rest of the sandbox."""
    for source in SOURCES.glob("*.py"):
        if source.name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level < 2, source
                names = [] if node.level else [str(node.module)]
            else:
                continue
            assert all(name.partition(".")[0] in sys.stdlib_module_names for name in names), (source, names)


def test_versions_without_a_controller_are_those_of_the_vendors_packages() -> None:
    assert [Build.of(version).controller for version in ("1.14.1", "1.14.2", "1.16.0", "2.0.0")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_suite_of_any_name_lists_every_package_under_its_digest() -> None:
    repository = Repository([Build(), Build.of("1.16.0")], KEY, NOW)
    for root in ("debian", "debian/trixie"):
        release = (repository.file(f"{root}/dists/forky/InRelease") or b"").decode()
        assert "Codename: forky\n" in release
        index = repository.file(f"{root}/dists/forky/main/binary-arm64/Packages") or b""
        digest = hashlib.sha256(index).hexdigest()
        assert f" {digest} {len(index)} main/binary-arm64/Packages\n" in release
        entries = [
            dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line)
            for entry in index.decode().split("\n\n")
        ]
        assert [entry["Version"] for entry in entries] == ["1.14.2", "1.16.0"]
        for entry in entries:
            content = repository.file(f"{root}/{entry['Filename']}") or b""
            assert entry["SHA256"] == hashlib.sha256(content).hexdigest()
            assert entry["Size"] == str(len(content))
            # Else apt would offer the same version as an upgrade of itself.
            control = text(archive(members(content)["control.tar.gz"]), "./control")
            known = dict(line.split(": ", 1) for line in control.splitlines() if ": " in line)
            assert {name: entry[name] for name in known} == known
    for path in (
        "",
        "debian",
        "debian/dists/trixie/Release",
        "debian/pool/other.deb",
        "debian/dists/../key.asc",
    ):
        assert repository.file(path) is None, path


def test_a_repository_on_disk_has_what_a_served_one_has(tmp_path: Path) -> None:
    repository = Repository([Build()], KEY, NOW)
    repository.write(tmp_path)
    for path in (
        "key.asc",
        "debian/dists/noble/InRelease",
        "debian/bookworm/dists/bookworm/main/binary-all/Packages",
    ):
        assert (tmp_path / path).read_bytes() == repository.file(path)
    repository.write(tmp_path)  # again, over itself


def test_a_sandbox_keeps_its_key_where_only_its_owner_reads_it(tmp_path: Path) -> None:
    first, second = signing_key(tmp_path), signing_key(tmp_path)
    assert first.fingerprint == second.fingerprint
    assert [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()] == [0o600]


@pytest.mark.skipif(not shutil.which("gpg"), reason="needs gpg")
def test_gnupg_accepts_the_key_and_the_signature_and_no_other_text(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "key.asc").write_text(KEY.public())

    def gpg(*words: str | Path) -> subprocess.CompletedProcess[str]:
        # No agent: nothing here is secret.
        command = ["gpg", "--homedir", tmp_path, "--batch", "--no-autostart", "--status-fd=1", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shown = gpg("--with-colons", "--show-keys", tmp_path / "key.asc").stdout
    assert f"fpr:::::::::{KEY.fingerprint}:" in shown
    assert "Somebody <somebody@example.com>" in shown
    assert gpg("--import", tmp_path / "key.asc").returncode == 0
    signed = KEY.clearsign("first line \n- a dash\n\nlast\n", NOW)
    for content, good in ((signed, True), (signed.replace("last", "lost"), False)):
        (tmp_path / "it").write_text(content)
        done = gpg("--verify", tmp_path / "it")
        assert (f"VALIDSIG {KEY.fingerprint}" in done.stdout) is good
        assert "invalid" not in done.stderr, done.stderr
