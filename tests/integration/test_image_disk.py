# SPDX-License-Identifier: GPL-3.0-or-later
"""A small disk made with the real tools out of a small tar: its table, its file systems, what starts it, and that it is made the same twice."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.docker]

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "roles" / "golden_image" / "files" / "disk"
EPOCH = 1_764_000_000
MIB = 1 << 20
FINGERPRINT = "f00d"
FILES = {
    "boot/vmlinuz-6.12.9-amd64": b"kernel" * 1000,
    "boot/initrd.img-6.12.9-amd64": b"initrd" * 1000,
    "boot/grub/grub.cfg": b"menu",
    "usr/lib/shim/shimx64.efi.signed": b"shim" * 5000,
    "usr/lib/shim/mmx64.efi.signed": b"keys" * 5000,
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": b"grub" * 5000,
    "etc/hosts": b"",
    "dev/console": b"",
    ".dockerenv": b"",
    "srv/\u00e4pfel": b"x",
}
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  tasks:
    - ansible.builtin.include_role: {name: gpumesh.fleet.golden_image, tasks_from: tools, public: true}
    - ansible.builtin.copy: {content: "{{ __golden_image_tools_image }}", dest: "{{ dest }}", mode: "0600"}
"""


def identity(what: str) -> str:
    """The UUID that something has to have."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"gpumesh-image:{FINGERPRINT}:{what}"))


@pytest.fixture(scope="module")
def tools(tmp_path_factory) -> str:
    """The image of tools, made by the role's own tasks where it is missing."""
    folder = tmp_path_factory.mktemp("tools")
    (folder / "play.yml").write_text(PLAY)
    subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "--inventory=localhost,",
            f"--extra-vars=dest={folder / 'name'}",
            str(folder / "play.yml"),
        ],
        check=True,
        cwd=ROOT,
    )
    return (folder / "name").read_text()


class Workshop:
    """A folder, and the tools to work on what is in it."""

    def __init__(self, tools: str, folder: Path) -> None:
        self.tools = tools
        self.folder = folder

    def run(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Run a program of the tools."""
        return subprocess.run(
            [
                "docker",
                "run",
                "--rm",
                "--network=none",
                "--read-only",
                "--tmpfs=/tmp",
                f"--volume={PROGRAM}:/program/disk:ro",
                f"--volume={self.folder}:/work",
                "--workdir=/work",
                self.tools,
                *command,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def said(self, *command: str) -> bytes:
        """What a program says, which has to succeed."""
        done = self.run(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def disk(self, **wanted: object) -> subprocess.CompletedProcess[bytes]:
        """Run the role's program."""
        return self.run("python3", "/program/disk", json.dumps(wanted))

    def made(self, **changes: object) -> dict:
        """Make a disk, which has to succeed."""
        plain = {"tar": "root.tar", "out": "disk.qcow2", "fingerprint": FINGERPRINT, "epoch": EPOCH}
        done = self.disk(**{**plain, **changes})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def write_root(path: Path, files: dict[str, bytes], later: int = 0) -> None:
    """A tar with files that root owns, one with a capability, and a hard link."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), 0o640, EPOCH + later
            tar.addfile(member, io.BytesIO(content))
        program = tarfile.TarInfo("usr/bin/ping")
        capability = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
        program.mode, program.mtime = 0o4755, EPOCH + later
        program.pax_headers = {"SCHILY.xattr.security.capability": capability.decode()}
        tar.addfile(program)
        link = tarfile.TarInfo("usr/bin/ping4")
        link.type, link.linkname, link.mtime = tarfile.LNKTYPE, "usr/bin/ping", EPOCH + later
        tar.addfile(link)


@pytest.fixture(scope="module")
def workshop(tools, tmp_path_factory) -> Workshop:
    """With a disk that is made, and taken apart again."""
    shop = Workshop(tools, tmp_path_factory.mktemp("disk"))
    write_root(shop.folder / "root.tar", FILES)
    (shop.folder / "told.json").write_text(json.dumps(shop.made(raw_checksum=True)))
    shop.said("qemu-img", "convert", "-O", "raw", "disk.qcow2", "taken.raw")
    for part in told(shop)["partitions"]:
        with (shop.folder / "taken.raw").open("rb") as disk:
            disk.seek(part["start"] * 512)
            (shop.folder / f"{part['name']}.part").write_bytes(disk.read(part["sectors"] * 512))
    return shop


def told(shop: Workshop) -> dict:
    """What the program said of its disk."""
    return json.loads((shop.folder / "told.json").read_text())


def look(shop: Workshop, request: str, image: str = "root.part") -> str:
    """What debugfs finds in a file system."""
    done = shop.run("debugfs", "-R", request, image)
    # It says its own version first.
    return (done.stdout + b"".join(done.stderr.splitlines(keepends=True)[1:])).decode()


def test_the_table_has_the_partitions_and_their_ids(workshop):
    table = json.loads(workshop.said("sfdisk", "--json", "taken.raw"))["partitiontable"]
    assert (table["label"], table["id"].lower()) == ("gpt", identity("disk"))
    assert [part["name"] for part in table["partitions"]] == ["bios", "esp", "root"]
    assert [part["uuid"].lower() for part in table["partitions"]] == [identity(f"part{n}") for n in (1, 2, 3)]
    assert [part["type"] for part in table["partitions"]] == [
        part["type"] for part in told(workshop)["partitions"]
    ]
    assert b"No errors detected" in workshop.said("sfdisk", "--verify", "taken.raw")


def test_the_file_is_as_told(workshop):
    image = workshop.folder / "disk.qcow2"
    assert told(workshop)["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert told(workshop)["size_bytes"] == image.stat().st_size
    info = json.loads(workshop.said("qemu-img", "info", "--output=json", "disk.qcow2"))
    assert info["virtual-size"] == told(workshop)["virtual_size_bytes"] == 1 << 30
    assert info["format-specific"]["data"]["compression-type"] == "zstd"
    workshop.said("qemu-img", "check", "disk.qcow2")


def test_nothing_but_the_image_is_left(workshop):
    left = {path.name for path in workshop.folder.iterdir()}
    assert left - {"taken.raw", "told.json"} == {
        "root.tar",
        "disk.qcow2",
        "bios.part",
        "esp.part",
        "root.part",
    }


def test_bios_starts_grub_which_finds_the_root(workshop):
    with (workshop.folder / "taken.raw").open("rb") as disk:
        first = disk.read(512)
    core = (workshop.folder / "bios.part").read_bytes()
    start = told(workshop)["partitions"][0]["start"]
    assert struct.unpack("<Q", first[0x5C:0x64]) == (start,)
    assert first[0x66:0x68] == b"\x90\x90"
    assert first[510:] == b"\x55\xaa"
    assert struct.unpack("<Q", core[0x1F4:0x1FC]) == (start + 1,)
    assert b"loading" in core[:512]
    assert len(core.rstrip(b"\0")) > 50_000


def test_uefi_starts_shim_which_starts_grub_which_finds_the_root(workshop):
    for name, content in (
        ("BOOT/BOOTX64.EFI", FILES["usr/lib/shim/shimx64.efi.signed"]),
        ("BOOT/grubx64.efi", FILES["usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"]),
        ("BOOT/mmx64.efi", FILES["usr/lib/shim/mmx64.efi.signed"]),
    ):
        assert workshop.said("mtype", "-i", "esp.part", f"::EFI/{name}") == content
    config = workshop.said("mtype", "-i", "esp.part", "::EFI/debian/grub.cfg").decode()
    assert f"search.fs_uuid {identity('root')} root\n" in config
    assert "configfile $prefix/grub.cfg" in config
    serial = identity("esp")[:8].upper()
    assert f"Serial Number is {serial[:4]}-{serial[4:]}".encode() in workshop.said(
        "mdir", "-i", "esp.part", "::"
    )
    workshop.said("fsck.vfat", "-n", "esp.part")


def test_the_root_has_the_files_as_they_were(workshop):
    workshop.said("e2fsck", "-f", "-n", "root.part")
    assert look(workshop, "cat /boot/vmlinuz-6.12.9-amd64").endswith(
        FILES["boot/vmlinuz-6.12.9-amd64"].decode()
    )
    assert "Mode:  0640" in look(workshop, "stat /boot/grub/grub.cfg")
    assert f"mtime: 0x{EPOCH:08x}:00000000" in look(workshop, "stat /boot/grub/grub.cfg")
    assert "Mode:  04755" in look(workshop, "stat /usr/bin/ping4")
    assert "Links: 2" in look(workshop, "stat /usr/bin/ping")
    assert "security.capability (20)" in look(workshop, "ea_list /usr/bin/ping")
    assert "Type: regular" in look(workshop, "stat /srv/\u00e4pfel")
    assert identity("root") in look(workshop, "show_super_stats -h")


def test_the_root_has_no_trace_of_the_engine(workshop):
    for name in ("/.dockerenv", "/dev/console"):
        assert "File not found" in look(workshop, f"stat {name}")
    assert "127.0.0.1\tlocalhost" in look(workshop, "cat /etc/hosts")
    assert "resolve/stub-resolv.conf" in look(workshop, "stat /etc/resolv.conf")


def test_modules_of_grub_are_there_for_a_menu_that_is_made_later(workshop):
    assert "Type: regular" in look(workshop, "stat /boot/grub/i386-pc/gfxterm.mod")


def test_the_same_files_make_the_same_disk_bit_for_bit(workshop, tmp_path):
    # Another order, and a run that was later, as another container's export would have it.
    write_root(tmp_path / "root.tar", dict(reversed(FILES.items())), later=500)
    again = Workshop(workshop.tools, tmp_path).made(raw_checksum=True)
    for what in ("raw_sha256", "sha256", "size_bytes"):
        assert again[what] == told(workshop)[what]


def test_another_fingerprint_makes_another_disk(workshop, tmp_path):
    write_root(tmp_path / "root.tar", FILES)
    assert Workshop(workshop.tools, tmp_path).made(fingerprint="beef")["sha256"] != told(workshop)["sha256"]


def test_luks_gets_a_root_of_its_own_and_a_boot_that_can_be_read(workshop, tmp_path):
    shop = Workshop(workshop.tools, tmp_path)
    write_root(tmp_path / "root.tar", FILES)
    answer = shop.made(luks=True)
    assert [part["name"] for part in answer["partitions"]] == ["bios", "esp", "boot", "root"]
    assert answer["luks"]["partition"] == 4
    boot, root = answer["partitions"][2:]
    assert (
        (tmp_path / "root.img").stat().st_size
        == answer["luks"]["root_bytes"]
        == root["sectors"] * 512 - 16 * MIB
    )
    with (tmp_path / "disk.raw").open("rb") as disk:
        disk.seek(boot["start"] * 512)
        (tmp_path / "boot.part").write_bytes(disk.read(boot["sectors"] * 512))
        disk.seek(root["start"] * 512)
        assert disk.read(64 * MIB).strip(b"\0") == b""
    assert look(shop, "cat /grub/grub.cfg", "boot.part").endswith("menu")
    assert identity("boot") in look(shop, "show_super_stats -h", "boot.part")
    assert "Type: directory" in look(shop, "stat /boot", "root.img")
    assert "File not found" in look(shop, "stat /boot/grub", "root.img")
    assert (tmp_path / "vmlinuz").read_bytes() == FILES["boot/vmlinuz-6.12.9-amd64"]
    assert (tmp_path / "initrd.img").read_bytes() == FILES["boot/initrd.img-6.12.9-amd64"]


def test_what_does_not_boot_makes_no_disk(workshop, tmp_path):
    shop = Workshop(workshop.tools, tmp_path)
    write_root(tmp_path / "root.tar", {"etc/hosts": b"x"})
    done = shop.disk(tar="root.tar", out="disk.qcow2", fingerprint=FINGERPRINT, epoch=EPOCH)
    assert done.returncode == 1
    assert done.stderr.startswith(b"root.tar would not boot, it lacks a kernel")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["root.tar"]


def test_google_gets_a_sparse_tar_of_disk_raw(workshop):
    done = workshop.disk(image="disk.qcow2", gcp_tar="gcp.tar.gz")
    assert done.returncode == 0, done.stderr
    path = workshop.folder / "gcp.tar.gz"
    with tarfile.open(path) as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.size) == ("disk.raw", 1 << 30)
        assert member.issparse()
        file = tar.extractfile(member)
        assert file is not None
        assert hashlib.file_digest(file, "sha256").hexdigest() == told(workshop)["raw_sha256"]
    assert json.loads(done.stdout)["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()


@pytest.mark.parametrize(("name", "unpack"), [("x.raw.zst", "zstd"), ("x.raw.xz", "xz")])
def test_others_get_a_packed_raw_disk(workshop, name, unpack):
    done = workshop.disk(image="disk.qcow2", raw=name)
    assert done.returncode == 0, done.stderr
    raw = workshop.said("sh", "-c", f"{unpack} -dc {name} | sha256sum").split()[0].decode()
    assert raw == told(workshop)["raw_sha256"]
    (workshop.folder / name).unlink()


def test_an_image_that_is_none_is_refused(workshop):
    (workshop.folder / "none.qcow2").write_bytes(b"nothing")
    done = workshop.disk(image="none.qcow2", gcp_tar="none.tar.gz")
    (workshop.folder / "none.qcow2").unlink()
    assert done.returncode == 1
    assert b"Google takes whole GiB" in done.stderr
