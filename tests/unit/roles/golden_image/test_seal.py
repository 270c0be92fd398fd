# SPDX-License-Identifier: GPL-3.0-or-later
"""What sealing takes away, what it puts in, and what it refuses, on a small root file system."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import runpy
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from roles.golden_image.files.seal import look as looking
from roles.golden_image.files.seal.boot_files import boot
from roles.golden_image.files.seal.bytecode import bytecode
from roles.golden_image.files.seal.clean import clean
from roles.golden_image.files.seal.first_boot import ACCEPTANCE, first_boot
from roles.golden_image.files.seal.identity import identity
from roles.golden_image.files.seal.look import look
from roles.golden_image.files.seal.luks import luks
from roles.golden_image.files.seal.system import Refusal, Seal

FILES = Path(__file__).parents[4] / "roles" / "golden_image" / "files"
EPOCH = 1764000000
ROOT_UUID = "11111111-2222-3333-4444-555555555555"
# Not a key; only its first line is looked for.
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


def put(root: Path, name: str, text: str = "x\n") -> Path:
    """A file, with its folders."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As little of a system as can be sealed."""
    for name in ("boot/vmlinuz-6.12.9-amd64", "boot/vmlinuz-6.12.10-amd64", "boot/initrd.img-6.12.10-amd64"):
        put(tmp_path, name)
    put(tmp_path, "etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="iommu=pt"\nGRUB_CMDLINE_LINUX="quiet"\n')
    put(tmp_path, "etc/shadow", "root:*:20784:0:99999:7:::\nadmin:!:19000:0:99999:7:::\n")
    put(tmp_path, "root/.bashrc")
    (tmp_path / "var/log/journal").mkdir(parents=True)
    for unit in ("systemd-networkd.service", "systemd-resolved.service"):
        put(tmp_path, f"usr/lib/systemd/system/{unit}")
    return tmp_path


def seal_of(root: Path, **wanted: Any) -> Seal:
    """What seals it."""
    files = {path.name: path.read_text(encoding="utf-8") for path in (FILES / "first_boot").iterdir()}
    return Seal(
        root,
        {
            "name": "gpu-box",
            "fingerprint": "ab" * 32,
            "epoch": EPOCH,
            "root_uuid": ROOT_UUID,
            "esp_id": "abcd1234",
            "datasources": ["NoCloud", "None"],
            "first_boot_acceptance": False,
            "admin": "boss",
            "files": files,
            **wanted,
        },
    )


def sealed(root: Path, **wanted: Any) -> list[str]:
    """Seal it, but for the archive; what is found in the way."""
    seal = seal_of(root, **wanted)
    clean(seal)
    identity(seal)
    boot(seal)
    first_boot(seal)
    bytecode(seal)
    return look(seal)


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Everything in it, by name."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else "",
        )
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize(
    "name",
    [
        ".dockerenv",
        "etc/.resolv.conf.systemd-resolved.bak",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/ssh/authorized_keys.d/admin",
        "etc/apt/apt.conf.d/99gpumesh-image-build",
        "home/admin/.ssh/authorized_keys",
        "home/admin/.bash_history",
        "root/.ssh/known_hosts",
        "root/.cache/uv/archive/x",
        "root/.cache/pip/x",
        "root/.ansible/tmp/x",
        "var/cache/apt/archives/x.deb",
        "var/cache/ldconfig/aux-cache",
        "var/crash/x",
        "var/lib/apt/lists/deb.debian.org_debian_dists_trixie_InRelease",
        "var/lib/cloud/instance/user-data.txt",
        "var/lib/dhcpcd/eth0.lease",
        "var/lib/dkms/mok.key",
        "var/lib/dkms/nvidia-current/550.1/6.12.10-amd64/x86_64/log/make.log",
        "var/lib/docker/engine-id",
        "var/lib/systemd/random-seed",
        "var/lib/zerotier-one/identity.secret",
        "var/log/apt/history.log",
        "var/log/journal/0123/system.journal",
        "tmp/x",
        "var/tmp/.x",
        "usr/sbin/policy-rc.d",
    ],
)
def test_what_is_the_builders_is_taken_away(root: Path, name: str) -> None:
    put(root, name, PRIVATE if "key" in name else "x\n")
    assert sealed(root) == []
    assert not (root / name).exists()


def test_what_every_machine_needs_stays(root: Path) -> None:
    kept = [
        "etc/passwd",
        "var/cache/debconf/config.dat",
        "var/lib/dpkg/status",
        "var/lib/apt/extended_states",
    ]
    kept += ["var/lib/dkms/nvidia-current/550.1/6.12.10-amd64/x86_64/module/nvidia.ko", "root/.bashrc"]
    for name in kept:
        put(root, name)
    assert sealed(root) == []
    assert [name for name in kept if not (root / name).exists()] == []
    assert (root / "var/lib/apt/lists/partial").is_dir()
    assert (root / "var/log/journal").is_dir()


def test_logs_of_logins_stay_empty(root: Path) -> None:
    put(root, "var/log/wtmp")
    sealed(root)
    assert (root / "var/log/wtmp").stat().st_size == 0


def test_sealing_twice_is_sealing_once(root: Path) -> None:
    sealed(root)
    first = tree(root)
    sealed(root)
    assert tree(root) == first


def test_the_machine_id_is_an_empty_file(root: Path) -> None:
    put(root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    sealed(root)
    # Missing, it would be the first boot of a system without presets, and sshd would make keys before cloud-init takes the planted.
    assert (root / "etc/machine-id").read_text() == ""


def test_grub_starts_the_newest_kernel_with_the_layers_arguments(root: Path) -> None:
    put(
        root, "etc/default/grub.d/70-layer.cfg", 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX mitigations=auto"\n'
    )
    sealed(root)
    lines = (root / "boot/grub/grub.cfg").read_text().splitlines()
    linux = next(line for line in lines if line.strip().startswith("linux"))
    assert linux.split() == [
        "linux",
        "/boot/vmlinuz-6.12.10-amd64",
        f"root=UUID={ROOT_UUID}",
        "ro",
        "console=tty0",
        "console=ttyS0,115200",
        "mitigations=auto",
        "iommu=pt",
    ]
    assert f"search --no-floppy --fs-uuid --set=root {ROOT_UUID}" in lines


def test_file_systems_are_found_by_their_ids(root: Path) -> None:
    sealed(root)
    fields = [line.split() for line in (root / "etc/fstab").read_text().splitlines()]
    assert [(words[0], words[1]) for words in fields] == [
        (f"UUID={ROOT_UUID}", "/"),
        ("UUID=ABCD-1234", "/boot/efi"),
    ]
    assert "x-systemd.growfs" in fields[0][3]
    assert "umask=0077" in fields[1][3]


def test_a_boot_of_its_own_has_names_without_boot(root: Path) -> None:
    sealed(root, boot_uuid="22222222-2222-3333-4444-555555555555")
    config = (root / "boot/grub/grub.cfg").read_text()
    assert "linux /vmlinuz-6.12.10-amd64" in config
    assert "--set=root 22222222" in config
    assert " /boot ext4 " in (root / "etc/fstab").read_text()


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("boot/vmlinuz-*", "There is no kernel in /boot"),
        ("boot/initrd*", "no /boot/initrd.img-6.12.10-amd64"),
    ],
)
def test_what_could_not_boot_is_refused(root: Path, missing: str, says: str) -> None:
    for path in root.glob(missing):
        path.unlink()
    with pytest.raises(Refusal, match=says):
        sealed(root)


def test_cloud_init_gets_sources_keys_and_user(root: Path) -> None:
    sealed(root)
    text = (root / "etc/cloud/cloud.cfg.d/95-gpumesh-image.cfg").read_text()
    assert 'datasource_list: ["NoCloud", "None"]' in text
    assert "name: boss" in text
    assert "ssh_deletekeys: true" in text
    assert "notfound=enabled" in (root / "etc/cloud/ds-identify.cfg").read_text()


def test_units_of_the_first_boot_are_enabled(root: Path) -> None:
    sealed(root)
    system = root / "etc/systemd/system"
    links = {
        str(path.relative_to(system)): os.readlink(path) for path in system.rglob("*") if path.is_symlink()
    }
    assert (
        links["sysinit.target.wants/gpumesh-no-gpu.service"] == "/etc/systemd/system/gpumesh-no-gpu.service"
    )
    assert (
        links["multi-user.target.wants/gpumesh-first-boot.service"]
        == "/etc/systemd/system/gpumesh-first-boot.service"
    )
    assert (
        links["multi-user.target.wants/systemd-networkd.service"]
        == "/usr/lib/systemd/system/systemd-networkd.service"
    )
    assert (
        links["dbus-org.freedesktop.resolve1.service"] == "/usr/lib/systemd/system/systemd-resolved.service"
    )
    assert os.access(root / "usr/local/lib/gpumesh/first-boot", os.X_OK)
    # Of this small system, whose release has no such socket.
    assert "sockets.target.wants/systemd-networkd.socket" not in links


def test_acceptance_at_the_first_boot_needs_its_layer(root: Path) -> None:
    with pytest.raises(Refusal, match="add 'validation' to golden_image_layers"):
        sealed(root, first_boot_acceptance=True)


def test_acceptance_at_the_first_boot_forgets_the_builder(root: Path) -> None:
    put(root, ACCEPTANCE)
    mark = put(root, "var/lib/gpumesh/first-acceptance", "0123456789abcdef0123456789abcdef")
    assert sealed(root, first_boot_acceptance=True) == []
    assert "0123456789abcdef" not in mark.read_text()


def test_facts_have_the_images_time(root: Path) -> None:
    facts = {"layers": {"base": {"from": "gpumesh.fleet.base", "when": "2026-11-27T12:00:00Z"}}}
    path = put(root, "etc/ansible/facts.d/gpumesh.fact", json.dumps(facts))
    sealed(root)
    assert json.loads(path.read_text())["layers"]["base"] == {
        "from": "gpumesh.fleet.base",
        "when": "2025-11-24T16:00:00Z",
    }
    assert json.loads((root / "etc/gpumesh/image.json").read_text())["layers"] == ["base"]
    assert "abababababab: base" in (root / "etc/motd.d/50-gpumesh-image").read_text()


def test_accounts_are_not_younger_than_the_image(root: Path) -> None:
    sealed(root)
    days = [line.split(":")[2] for line in (root / "etc/shadow").read_text().splitlines()]
    assert days == [str(EPOCH // 86400), "19000"]


def test_bytecode_of_a_source_that_is_clamped_stays_valid(root: Path) -> None:
    source = put(root, "opt/app/lib/python3.13/site-packages/a.py", "x = 1\n")
    compiled = put(root, "opt/app/lib/python3.13/site-packages/__pycache__/a.cpython-313.pyc")
    compiled.write_bytes(b"\xf3\r\r\n" + struct.pack("<III", 0, EPOCH + 99, 6) + b"code")
    os.utime(source, (EPOCH + 99, EPOCH + 99))
    older = put(root, "opt/app/lib/python3.13/site-packages/b.py")
    kept = put(root, "opt/app/lib/python3.13/site-packages/__pycache__/b.cpython-313.pyc")
    kept.write_bytes(b"\xf3\r\r\n" + struct.pack("<III", 0, EPOCH - 99, 6) + b"code")
    os.utime(older, (EPOCH - 99, EPOCH - 99))
    sealed(root)
    assert struct.unpack("<III", compiled.read_bytes()[4:16]) == (0, EPOCH, 6)
    assert struct.unpack("<III", kept.read_bytes()[4:16]) == (0, EPOCH - 99, 6)


def test_unsafe_writing_of_packages_ends_with_the_build(root: Path) -> None:
    only = put(root, "etc/dpkg/dpkg.cfg.d/98fast", "force-unsafe-io\n")
    mixed = put(root, "etc/dpkg/dpkg.cfg.d/97own", "path-exclude=/usr/share/doc/*\nforce-unsafe-io\n")
    sealed(root)
    assert not only.exists()
    assert mixed.read_text() == "path-exclude=/usr/share/doc/*\n"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("etc/ssl/private/machine.key", PRIVATE, "/etc/ssl/private/machine.key holds a private key"),
        ("home/admin/id", PRIVATE.replace("OPENSSH ", "RSA "), "/home/admin/id holds a private key"),
        ("etc/x.conf", "label=gpumesh.image.build=1\n", "/etc/x.conf names the build"),
        ("root/notes.txt", "x\n", "/root/notes.txt was left in root's home"),
        ("etc/apt/apt.conf.d/01proxy", 'Acquire::http::Proxy "http://cache:3142";\n', "/etc/apt/apt.conf.d/01proxy names a proxy"),
        ("etc/apt/apt.conf", 'Acquire {\n  https {\n    Proxy "http://cache:3142/";\n  };\n};\n', "/etc/apt/apt.conf names a proxy"),
        ("etc/environment", "https_proxy=http://cache:3128\n", "/etc/environment names a proxy"),
        ("etc/environment", "no_proxy=a.example\nALL_PROXY=cache:3128\n", "/etc/environment names a proxy"),
        ("etc/profile.d/site.sh", "export http_proxy='http://u:p@cache'\n", "/etc/profile.d/site.sh names a proxy"),
        (
            "etc/systemd/system/docker.service.d/proxy.conf",
            '[Service]\nEnvironment="NO_PROXY=a.example" "HTTP_PROXY=http://u:p@cache:3128"\n',
            "/etc/systemd/system/docker.service.d/proxy.conf names a proxy",
        ),
        ("etc/docker/daemon.json", '{"proxies": {"http-proxy": "http://cache:3128"}}', "/etc/docker/daemon.json names a proxy"),
        ("etc/shadow", "boss:$y$j9T$x:19000:::::\n", "The account boss has a password"),
    ],
)  # fmt: skip
def test_a_trace_or_secret_is_refused(root: Path, name: str, text: str, says: str) -> None:
    put(root, name, text)
    found = sealed(root)
    assert len(found) == 1
    assert says in found[0]


def test_what_names_no_proxy_is_no_trace(root: Path) -> None:
    put(root, "etc/apt/apt.conf.d/50direct", 'Acquire::http::Proxy::deb.example "DIRECT";\n// Acquire::http::Proxy "http://a:1";\n')  # fmt: skip
    put(root, "etc/environment", "# http_proxy=http://a:1\nno_proxy=localhost,10.0.0.0/8\nhttp_proxy=\n")
    put(root, "etc/profile.d/site.sh", 'if [ -n "${http_proxy:-}" ]; then unset http_proxy https_proxy; fi\n')
    put(root, "etc/docker/daemon.json", '{"proxies": {"no-proxy": "a.example"}}')
    assert sealed(root) == []


def test_a_declared_proxy_excuses_no_other(root: Path) -> None:
    both = 'Acquire::http::Proxy "http://cache.example:3142";\nAcquire::https::Proxy "http://builder:3142";\n'
    put(root, "etc/apt/apt.conf.d/52gpumesh", both)
    assert len(sealed(root, proxy="http://cache.example:3142")) == 1


def test_a_key_that_came_with_a_wheel_is_no_secret(root: Path) -> None:
    """tornado, which the kernels of Jupyter need, has one for its own tests."""
    site = "opt/gpumesh/frameworks/envs/a/lib/python3.13/site-packages"
    key = put(root, f"{site}/tornado/test/test.key", PRIVATE)
    put(root, f"{site}/other-1.0.dist-info/RECORD", "other/__init__.py,,\n")
    assert "tornado/test/test.key holds a private key" in sealed(root)[0]
    digest = base64.urlsafe_b64encode(hashlib.sha256(key.read_bytes()).digest()).rstrip(b"=").decode()
    put(root, f"{site}/tornado-6.5.dist-info/RECORD", f"tornado/test/test.key,sha256={digest},1704\n")
    assert sealed(root) == []
    key.write_text(PRIVATE + "another\n")
    assert "tornado/test/test.key holds a private key" in sealed(root)[0]


def test_the_gate_looks_for_proxies_as_the_seal_does() -> None:
    gate = runpy.run_path(str(FILES / "gate" / "probe.py"), run_name="probe")
    assert (gate["PROXY"], gate["PROXY_FILES"]) == (looking.PROXY, looking.PROXY_FILES)
    text = 'a\n# http_proxy=http://b:1\nhttp_proxy=http://c:1/ HTTPS_PROXY="d:2"\n'
    assert gate["proxies"](text) == looking.proxies(text) == ["http://c:1", "d:2"]


def test_what_is_declared_is_no_trace(root: Path) -> None:
    put(root, "etc/apt/apt.conf.d/52gpumesh", 'Acquire::http::Proxy "http://cache.example:3142";\n')
    put(root, "etc/shadow", "emergency:$y$j9T$x:19000:::::\n")
    assert sealed(root, proxy="http://cache.example:3142", passwords=["emergency"]) == []


def test_an_encrypted_root_needs_its_packages(root: Path) -> None:
    with pytest.raises(Refusal, match="cryptsetup-initramfs and dropbear-initramfs"):
        luks(seal_of(root, luks_uuid=ROOT_UUID, ssh_unlock_keys=[]))


def archived(root: Path, program: Path) -> bytes:
    """The archive of it, written by the program that is in this folder or file."""
    code = (
        "import pathlib, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from seal.main import Seal, archive\n"
        "archive(Seal(pathlib.Path(sys.argv[2]), {'epoch': int(sys.argv[3])}), pathlib.Path(sys.argv[4]))\n"
    )
    side = root.parent / f"{root.name}-side"
    words = [sys.executable, "-B", "-c", code, str(program), str(root), str(EPOCH), str(side)]
    return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout


def test_the_archive_is_sorted_owned_and_no_newer_than_the_image(root: Path) -> None:
    sealed(root)
    put(root, "etc/hosts", "the engine's\n")
    put(root, "proc/1/status")
    os.utime(root / "root/.bashrc", (EPOCH - 99, EPOCH - 99))
    (root / "etc/resolv.conf").write_text("the engine's\n")
    made = root.parent / f"{root.name}.tar"
    made.write_bytes(archived(root, FILES))
    with tarfile.open(made) as tar:
        members = {member.name: member for member in tar}
        hosts = tar.extractfile(members["etc/hosts"])
        assert hosts is not None
        assert b"127.0.0.1\tlocalhost" in hosts.read()
    assert members["etc/resolv.conf"].linkname == "../run/systemd/resolve/stub-resolv.conf"
    assert max(member.mtime for member in members.values()) <= EPOCH
    assert members["root/.bashrc"].mtime == EPOCH - 99
    assert "proc/1" not in members
    assert "proc" in members
    assert "etc/fstab" in members


def test_what_is_packed_into_one_file_is_the_same_program(root: Path) -> None:
    sealed(root)
    packed = root.parent / f"{root.name}.pyz"
    said = subprocess.run(
        [sys.executable, str(FILES / "zipped.py"), "seal"], capture_output=True, check=True
    ).stdout
    packed.write_bytes(base64.b64decode(said))
    with zipfile.ZipFile(packed) as opened:
        names = set(opened.namelist())
        assert opened.read("__main__.py").endswith(b"\nimport seal.main\nseal.main.main()\n")
    assert names - {"__main__.py"} == {f"seal/{path.name}" for path in (FILES / "seal").glob("*.py")}
    assert archived(root, packed) == archived(root, FILES)
