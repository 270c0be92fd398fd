# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-ins for GPU packages: their relations, what they hold, and that the resolver's names are among them."""

from __future__ import annotations

import ast
import ctypes
import fnmatch
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu import sources

from sandbox.debian import File, Link, Package
from sandbox.gpu import archives, extras, kernels, repositories
from sandbox.gpu.hardware import DISTRIBUTIONS
from sandbox.gpu.machine import modules
from sandbox.gpu.sources import elf, make, sign_file
from sandbox.openpgp import SigningKey

KEY = SigningKey(bytes(range(32)), "Somebody <somebody@example.com>")
NOW = 1_790_000_000
SOURCES = Path(elf.__file__).parent
CUDA = {
    "ubuntu-24.04": repositories.cuda_ubuntu(),
    "debian-12": repositories.cuda_debian("debian12"),
    "debian-13": repositories.cuda_debian("debian13"),
}
DEBIAN_KERNELS = (*kernels.DEBIAN_12, *kernels.DEBIAN_13, *kernels.DEBIAN_13_BACKPORTS)
ARCHIVES = {"ubuntu": repositories.ubuntu(), "debian": repositories.debian(*DEBIAN_KERNELS)}
TOOLKIT = extras.container_toolkit()
ALL = {**CUDA, **ARCHIVES, "toolkit": TOOLKIT}
OF_THE_DISTRIBUTION = {"dkms", "init-system-helpers", "kmod", "openssl", "python3"}
RELATION = re.compile(r"^([a-z0-9+.-]+)(?: \(([<>=]+) ([^)]+)\))?$")
FLAVOURS = ("open", "closed")


def relations(package: Package, field: str) -> list[list[tuple[str, str, str]]]:
    """The alternatives of each relation: name, operator, version."""
    found = []
    for group in filter(None, package.fields.get(field, "").split(", ")):
        words = [RELATION.match(word.strip()) for word in group.split("|")]
        assert all(words), group
        found.append([(word[1], word[2] or "", word[3] or "") for word in words if word])
    return found


def named(packages: list[Package], name: str) -> list[Package]:
    return [package for package in packages if package.name == name]


def files(package: Package) -> dict[str, bytes]:
    return {item.path: item.content for item in package.contents if isinstance(item, File)}


def unpacked(packages: list[Package], folder: Path) -> Path:
    for package in packages:
        for path, content in files(package).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
    return folder


@pytest.mark.parametrize("place", ALL)
def test_every_package_says_that_it_is_simulated(place: str) -> None:
    assert not [package.name for package in ALL[place] if "SIMULATED" not in package.description]


@pytest.mark.parametrize("place", ALL)
def test_what_a_package_needs_is_beside_it_in_the_version_it_asks_for(place: str) -> None:
    there = {(package.name, package.version) for package in ALL[place]}
    names = {name for name, _ in there}
    for package in ALL[place]:
        for group in relations(package, "Depends"):
            assert any(
                name in OF_THE_DISTRIBUTION
                or (name in names and (operator != "=" or (name, version) in there))
                for name, operator, version in group
            ), (package.name, package.version, group)


@pytest.mark.parametrize("place", ALL)
def test_no_two_packages_that_fit_together_hold_the_same_file(place: str) -> None:
    """Else dpkg refuses the second of them."""
    holders: dict[str, list[Package]] = {}
    for package in ALL[place]:
        for item in package.contents:
            holders.setdefault(item.path, []).append(package)

    def apart(one: Package, other: Package) -> bool:
        conflicts = {name for group in relations(one, "Conflicts") for name, *_ in group}
        offers = {other.name, *(name for group in relations(other, "Provides") for name, *_ in group)}
        return one.name == other.name or bool(conflicts & offers)

    for path, found in holders.items():
        for one in found:
            for other in found:
                assert apart(one, other) or apart(other, one), (path, one.name, other.name)


@pytest.mark.parametrize("distribution", CUDA)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_resolver_finds_what_it_names_in_nvidias_repository(distribution: str, flavour: str) -> None:
    known = sources.find(distribution)
    assert known
    source = next(one for one in known.sources if one.name == sources.NVIDIA)
    there = {(package.name, package.version) for package in CUDA[distribution]}
    names = {name for name, _ in there}
    branches = {version.split(".")[0]: version for version in source.branches.values()}
    offered = {branch for branch in branches if f"nvidia-driver-pinning-{branch}" in names}
    assert {"595", "610"} <= offered
    # NVIDIA has no 580 for Debian 13.
    assert ("nvidia-driver-pinning-580" in names) is (distribution != "debian-13")
    for branch in offered:
        for exact in ("", branches[branch]):
            wanted = sources.packages(source, branch, flavour, ["6.8.0-90-generic"], exact)
            assert set(wanted.pin) <= names
            for name in wanted.driver:
                assert any(
                    one == name and version.startswith(f"{branches[branch]}-") for one, version in there
                ), name


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_resolver_finds_what_it_names_in_ubuntus_archive(flavour: str) -> None:
    known = sources.find("ubuntu-24.04")
    assert known
    source = next(one for one in known.sources if one.name == sources.DISTRIBUTION)
    names = {package.name for package in ARCHIVES["ubuntu"]}
    wanted = sources.packages(source, "580", flavour, ["6.8.0-90-generic"])
    assert set(wanted.driver) <= names


def test_there_is_a_kernel_and_its_headers_for_every_simulated_machine() -> None:
    names = {package.name for packages in ARCHIVES.values() for package in packages}
    for kernel in DISTRIBUTIONS.values():
        assert {f"linux-image-{kernel}", f"linux-headers-{kernel}"} <= names


@pytest.mark.parametrize(
    "name", ["nvidia-dkms-580-open", "nvidia-utils-580", "libnvidia-compute-580", "libnvidia-cfg1-580"]
)
def test_names_with_a_branch_and_names_without_exclude_each_other(name: str) -> None:
    old = named(CUDA["ubuntu-24.04"], name)[0]
    new = named(CUDA["ubuntu-24.04"], name.replace("-580", ""))[0]
    only = {name for group in relations(new, "Conflicts") for name, *_ in group}
    assert only & {name for group in relations(old, "Provides") for name, *_ in group}


@pytest.mark.parametrize(
    ("pin", "kept", "let_go"),
    [
        (
            "nvidia-driver-pinning-580",
            ["580.178.04-1ubuntu1", "580.173.02-1ubuntu1"],
            ["595.91.07-1ubuntu1", "580-2ubuntu1"],
        ),
        ("nvidia-driver-pinning-580.173.02", ["580.173.02-1ubuntu1"], ["580.178.04-1ubuntu1"]),
    ],
)
def test_a_pin_prefers_its_own_versions_and_outlives_a_removal(
    pin: str, kept: list[str], let_go: list[str]
) -> None:
    package = named(CUDA["ubuntu-24.04"], pin)[0]
    path = f"etc/apt/preferences.d/{pin}"
    assert package.conffiles == (path,)
    fields = dict(line.split(": ", 1) for line in files(package)[path].decode().splitlines() if ": " in line)
    assert fields["Pin-Priority"] == "1000"
    glob = fields["Pin"].removeprefix("version ")
    assert all(fnmatch.fnmatch(version, glob) for version in kept)
    assert not any(fnmatch.fnmatch(version, glob) for version in let_go)
    assert any(fnmatch.fnmatch("nvidia-dkms-580-open", name) for name in fields["Package"].split())


def test_the_repositories_are_the_same_when_made_again() -> None:
    first = repositories.files(KEY, NOW)
    assert repositories.files(KEY, NOW) == first
    for path in (
        "cuda/ubuntu2404/x86_64",
        "cuda/debian12/x86_64",
        "cuda/debian13/x86_64",
        "container-toolkit/stable/deb/amd64",
    ):
        assert {f"{path}/InRelease", f"{path}/Packages"} <= set(first)
    for path in ("ubuntu/dists/noble/restricted", "debian/dists/trixie/main", "debian/dists/bookworm/main"):
        assert f"{path}/binary-amd64/Packages" in first
    index = first["debian/dists/trixie/main/binary-amd64/Packages"].decode()
    assert "linux-image-6.12.117+deb13-amd64" in index
    assert "6.1.0-" not in index


@pytest.mark.parametrize("place", ALL)
def test_the_maintainers_scripts_are_shell(place: str) -> None:
    for package in ALL[place]:
        for name, script in package.scripts.items():
            done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
            assert not done.stderr, (package.name, name, done.stderr)
            assert "{" not in re.sub(r"\$\{[^}]*\}|\{\}", "", script), (package.name, name)


# What is in them


def test_a_module_says_what_it_is() -> None:
    content = elf.kernel_module([("version", "580.1"), ("license", "NVIDIA"), ("vermagic", "6.8 SMP ")])
    assert modules.modinfo(content) == {"version": "580.1", "license": "NVIDIA", "vermagic": "6.8 SMP "}


@pytest.mark.skipif(not shutil.which("modinfo"), reason="needs modinfo")
def test_modinfo_reads_a_module(tmp_path: Path) -> None:
    (tmp_path / "it.ko").write_bytes(elf.kernel_module([("version", "580.1"), ("license", "NVIDIA")]))
    shown = subprocess.run(
        ["modinfo", "-F", "version", tmp_path / "it.ko"], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "580.1\n"


def test_a_library_can_be_opened_and_has_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "libit.so.1").write_bytes(elf.shared_library("libit.so.1"))
    library = ctypes.CDLL(str(tmp_path / "libit.so.1"))
    with pytest.raises(AttributeError, match="nvmlInit"):
        library.nvmlInit  # noqa: B018 - looking it up is the test


def test_the_version_of_a_driver_is_in_the_name_of_its_library() -> None:
    package = next(
        one
        for one in named(CUDA["ubuntu-24.04"], "libnvidia-compute-580")
        if one.version.startswith("580.178.04")
    )
    assert {item.path for item in package.contents} >= {
        "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.178.04",
        "usr/lib/x86_64-linux-gnu/libcuda.so.580.178.04",
    }
    assert Link("usr/lib/x86_64-linux-gnu/libcuda.so.1", "libcuda.so.580.178.04") in package.contents


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    made = [package for kernel in kernels.UBUNTU_24_04 for package in kernel.packages()]
    return unpacked(named(made, "linux-headers-6.8.0-90-generic"), tmp_path / "kernel")


def build(
    tmp_path: Path, name: str, version: str, kernel: str, headers: Path
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run what dkms.conf says, as dkms does: bash reads the file and runs the command in a copy of the sources."""
    package = next(
        one for place in CUDA.values() for one in named(place, name) if one.version.startswith(f"{version}-")
    )
    source = unpacked([package], tmp_path / "sources") / f"usr/src/nvidia-{version}"
    script = '. ./dkms.conf; echo "$PACKAGE_NAME/$PACKAGE_VERSION ${BUILT_MODULE_NAME[*]}"; eval "${MAKE[0]}"'
    words = {
        **os.environ,
        "kernelver": kernel,
        "kernel_source_dir": str(headers),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        ["bash", "-ec", script], cwd=source, env=words, capture_output=True, text=True, check=False
    )
    return done, source


@pytest.mark.parametrize(
    ("name", "license_"),
    [("nvidia-kernel-source-580-open", "Dual MIT/GPL"), ("nvidia-kernel-source-580", "NVIDIA")],
)
def test_dkms_builds_modules_of_the_flavour(tmp_path: Path, headers: Path, name: str, license_: str) -> None:
    kernel = "6.8.0-90-generic"
    done, source = build(tmp_path, name, "580.178.04", kernel, headers / f"usr/src/linux-headers-{kernel}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "nvidia/580.178.04 nvidia nvidia-modeset nvidia-drm nvidia-uvm nvidia-peermem\n"
    )
    assert sorted(path.stem for path in source.glob("*.ko")) == sorted(make.MODULES)
    found = modules.modinfo((source / "nvidia.ko").read_bytes())
    assert (found["version"], found["license"], found["name"]) == ("580.178.04", license_, "nvidia")
    assert found["vermagic"].startswith(f"{kernel} SMP ")


def test_without_headers_nothing_compiles(tmp_path: Path, headers: Path) -> None:
    kernel = "6.8.0-90-generic"
    folder = headers / f"usr/src/linux-headers-{kernel}"
    (folder / "include/generated/autoconf.h").unlink()
    done, source = build(tmp_path, "nvidia-kernel-source-580-open", "580.178.04", kernel, folder)
    assert done.returncode == 2
    assert "fatal error: generated/autoconf.h: No such file or directory" in done.stderr
    assert not list(source.glob("*.ko"))


def test_headers_of_another_kernel_do_not_do(tmp_path: Path, headers: Path) -> None:
    folder = headers / "usr/src/linux-headers-6.8.0-90-generic"
    done, _ = build(tmp_path, "nvidia-kernel-source-580-open", "580.178.04", "6.8.0-94-generic", folder)
    assert done.returncode == 2
    assert "not of 6.8.0-94-generic" in done.stderr


@pytest.mark.parametrize(("version", "code"), [("590.48.01", 2), ("595.91.07", 0)])
def test_590_does_not_compile_for_a_kernel_7(tmp_path: Path, version: str, code: int) -> None:
    kernel = kernels.DEBIAN_13_BACKPORTS[0]
    folder = unpacked(named(kernel.packages(), f"linux-headers-{kernel.release}"), tmp_path)
    done, _ = build(
        tmp_path,
        "nvidia-kernel-open-dkms",
        version,
        kernel.release,
        folder / f"usr/src/linux-headers-{kernel.release}",
    )
    assert done.returncode == code
    assert bool(re.search(r"^\S+:\d+:\d+: error: ", done.stderr, re.MULTILINE)) is bool(code)


def test_ubuntus_modules_are_built_for_their_kernel_and_signed() -> None:
    package = named(ARCHIVES["ubuntu"], "linux-modules-nvidia-580-server-open-6.8.0-90-generic")[0]
    path, content = next(
        (path, content) for path, content in files(package).items() if path.endswith("/nvidia.ko")
    )
    assert path.startswith("usr/lib/modules/6.8.0-90-generic/kernel/")
    assert content.endswith(modules.SIGNATURE)
    assert modules.modinfo(content)["vermagic"].startswith("6.8.0-90-generic ")


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_a_module_is_signed_as_the_kernel_signs(tmp_path: Path) -> None:
    key, certificate, module = tmp_path / "mok.key", tmp_path / "mok.pub", tmp_path / "it.ko"
    command = [
        "openssl",
        "req",
        "-new",
        "-x509",
        "-nodes",
        "-subj",
        "/CN=nobody",
        "-newkey",
        "rsa:2048",
        "-outform",
        "DER",
    ]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    module.write_bytes(elf.kernel_module([("version", "1")]))
    bare = module.read_bytes()
    done = subprocess.run(
        [sys.executable, sign_file.__file__, "sha256", key, certificate, module], check=False
    )
    assert done.returncode == 0
    signature = module.read_bytes()[len(bare) : -len(modules.SIGNATURE) - 12]
    assert module.read_bytes().endswith(modules.SIGNATURE)
    (tmp_path / "it").write_bytes(bare)
    (tmp_path / "signature").write_bytes(signature)
    pem = subprocess.run(
        ["openssl", "x509", "-inform", "DER", "-in", certificate], check=True, capture_output=True
    ).stdout
    (tmp_path / "pem").write_bytes(pem)
    verify = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "signature", "-content", "it"]
    verified = subprocess.run(
        [*verify, "-certfile", "pem", "-CAfile", "pem", "-purpose", "any", "-out", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


def daemon(root: Path, **words: str) -> subprocess.Popen[str]:
    package = named(CUDA["debian-13"], "nvidia-persistenced")[0]
    program = root.parent / "nvidia-persistenced"
    text = files(package)["usr/bin/nvidia-persistenced"].decode()
    program.write_text(text.replace("/var/lib/gpumesh-simulated-gpus/root", str(root)))
    return subprocess.Popen(
        [sys.executable, program, "--verbose"],
        env={**os.environ, **words},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_persistence_daemon_fails_where_no_driver_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    process = daemon(tmp_path / "root")
    assert process.wait(timeout=20) == 1
    assert process.stderr
    assert "Failed to query NVIDIA devices" in process.stderr.read()


def test_the_persistence_daemon_holds_the_driver_until_it_is_stopped(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    (root / "proc/driver/nvidia/version").write_text("NVRM version\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        process = daemon(root, NOTIFY_SOCKET=str(tmp_path / "notify"))
        try:
            assert systemd.recv(100) == b"READY=1"
            assert (root / "persistenced.pid").read_text() == f"{process.pid}\n"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
    assert not (root / "persistenced.pid").exists()


def test_a_host_has_only_pythons_own_library() -> None:
    """And what a package brings must not name the rest of the sandbox."""
    for source in SOURCES.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level < 2, source
                names = [] if node.level else [str(node.module)]
            else:
                continue
            assert all(name.partition(".")[0] in sys.stdlib_module_names for name in names), (source, names)


# The kernel of a machine


def test_the_package_that_follows_the_newest_kernel_is_offered_for_each() -> None:
    followers = named(ARCHIVES["ubuntu"], "linux-image-generic")
    assert [package.fields["Depends"] for package in followers] == [
        f"linux-image-6.8.0-{abi}-generic (= {package.version})"
        for abi, package in zip((90, 94), followers, strict=True)
    ]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_script_that_gives_a_machine_its_kernel(distribution: str) -> None:
    kernel = DISTRIBUTIONS[distribution]
    script = archives.script(distribution, kernel, "http://192.0.2.1/", ["it; reboot"])
    done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
    assert not done.stderr
    assert f"install_kernel {kernel}\n" in script
    assert "'it; reboot'" in script
    assert "http://192.0.2.1/key.asc" in script
    flavour = {"ubuntu-24.04": "generic"}.get(distribution, "amd64")
    assert f'"linux-image-{flavour}=$version"' in script
