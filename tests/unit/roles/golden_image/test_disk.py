# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role golden_image takes out of a tar of a root file system, how it lays out a disk, and what it refuses."""

from __future__ import annotations

import io
import tarfile
import uuid
from pathlib import Path

import pytest

from roles.golden_image.files.disk.bootable import SHIM, needed
from roles.golden_image.files.disk.ids import Ids
from roles.golden_image.files.disk.pack import pack
from roles.golden_image.files.disk.programs import DiskError
from roles.golden_image.files.disk.root import Root
from roles.golden_image.files.disk.table import plan

EPOCH = 1_764_000_000
GIB = 1 << 30
BOOTABLE = {
    "boot/vmlinuz-6.12.9-amd64": b"kernel 9",
    "boot/initrd.img-6.12.9-amd64": b"initrd 9",
    "boot/vmlinuz-6.12.118-amd64": b"kernel 118",
    "boot/initrd.img-6.12.118-amd64": b"initrd 118",
    "boot/grub/grub.cfg": b"menu",
    "usr/lib/shim/shimx64.efi.signed.latest": b"shim",
    "usr/lib/shim/shimx64.efi.signed": "/etc/alternatives/shim",
    "etc/alternatives/shim": "/usr/lib/shim/shimx64.efi.signed.latest",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": b"grub",
}


def write(path: Path, files: dict[str, bytes | str], **fields: int) -> str:
    """A tar of files, and of links where there is text."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mtime = EPOCH
            for field, value in fields.items():
                setattr(member, field, value)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(path)


def written(root, names: list[str] | None = None, top: str = "") -> dict[str, tarfile.TarInfo]:
    """What goes into the file system, in its order."""
    into = io.BytesIO()
    root.write(list(root.members) if names is None else names, top, into)
    into.seek(0)
    with tarfile.open(fileobj=into) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_what_the_engine_leaves_behind_is_left_out(tmp_path):
    there = {
        ".dockerenv": b"",
        "dev/console": b"",
        "run/lock/x": b"",
        "tmp/x": b"x",
        "etc/x": b"x",
        "srv/dev/x": b"x",
    }
    root = Root(write(tmp_path / "root.tar", there), EPOCH)
    assert {"etc/x", "srv/dev/x"} <= set(root.members)
    assert not {".dockerenv", "dev/console", "run/lock/x", "tmp/x"} & set(root.members)


def test_what_the_engine_has_mounted_over_is_put_back(tmp_path):
    there = {"etc/resolv.conf": b"", "etc/hosts": b"", "etc/hostname": b""}
    root = Root(write(tmp_path / "root.tar", there), EPOCH)
    assert b"127.0.0.1\tlocalhost\n" in root.read("etc/hosts")
    assert root.read("etc/hostname") == b""
    assert root.members["etc/resolv.conf"].linkname == "../run/systemd/resolve/stub-resolv.conf"


def test_what_a_layer_has_written_there_stays(tmp_path):
    there = {"etc/resolv.conf": b"nameserver 192.0.2.1\n", "etc/hosts": b"192.0.2.1 x\n"}
    root = Root(write(tmp_path / "root.tar", there), EPOCH)
    assert root.read("etc/hosts") == b"192.0.2.1 x\n"
    assert root.read("etc/resolv.conf") == b"nameserver 192.0.2.1\n"


def test_nothing_is_newer_than_the_epoch_and_what_is_older_stays(tmp_path):
    root = Root(write(tmp_path / "new.tar", {"etc/x": b"x"}, mtime=EPOCH + 7), EPOCH)
    assert {member.mtime for member in written(root).values()} == {EPOCH}
    root = Root(write(tmp_path / "old.tar", {"etc/x": b"x"}, mtime=EPOCH - 7), EPOCH)
    assert written(root)["etc/x"].mtime == EPOCH - 7


def test_the_order_of_the_tar_does_not_count(tmp_path):
    there = {"usr/b": b"b", "usr/a": b"a", "etc/x": b"x", "usr/a.d/c": b"c"}
    one = Root(write(tmp_path / "one.tar", there), EPOCH)
    other = Root(write(tmp_path / "other.tar", dict(reversed(there.items()))), EPOCH)
    assert list(written(one)) == list(written(other))


def test_a_hard_link_comes_after_the_file_it_links_to(tmp_path):
    path = tmp_path / "root.tar"
    with tarfile.open(path, "w") as tar:
        file = tarfile.TarInfo("./usr/z")
        file.size, file.mode, file.uid = 1, 0o4711, 7
        tar.addfile(file, io.BytesIO(b"z"))
        link = tarfile.TarInfo("./usr/a")
        link.type, link.linkname = tarfile.LNKTYPE, "./usr/z"
        tar.addfile(link)
    found = written(Root(str(path), EPOCH))
    assert list(found).index("usr/z") < list(found).index("usr/a")
    assert found["usr/a"].linkname == "usr/z"
    # mke2fs gives the file what the last of its names says.
    assert (found["usr/a"].mode, found["usr/a"].uid) == (0o4711, 7)
    # A folder that the tar does not have is made, since mke2fs refuses a file without one.
    assert found["etc"].isdir()


def test_a_hard_link_to_what_is_not_there_is_refused(tmp_path):
    path = tmp_path / "root.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("usr/a")
        link.type, link.linkname = tarfile.LNKTYPE, "usr/z"
        tar.addfile(link)
    root = Root(str(path), EPOCH)
    with pytest.raises(DiskError, match="hard link usr/a to usr/z"):
        written(root)


def test_capabilities_of_a_file_are_kept(tmp_path):
    path = tmp_path / "root.tar"
    capability = b"\x01\x00\x00\x02\x00\x20\xff\x00".decode(errors="surrogateescape")
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        file = tarfile.TarInfo("./usr/bin/ping")
        file.pax_headers = {
            "SCHILY.xattr.security.capability": capability,
            "path": "./usr/bin/ping",
            "comment": "x",
        }
        tar.addfile(file)
    found = written(Root(str(path), EPOCH))
    assert found["usr/bin/ping"].pax_headers["SCHILY.xattr.security.capability"] == capability


def test_the_files_of_boot_can_be_a_file_system_of_their_own(tmp_path):
    root = Root(write(tmp_path / "root.tar", BOOTABLE), EPOCH)
    assert "grub/grub.cfg" in written(root, root.below("boot"), "boot/")


def test_the_newest_kernel_is_found_by_its_version(tmp_path):
    root = Root(write(tmp_path / "root.tar", BOOTABLE), EPOCH)
    assert needed(root) == ("boot/vmlinuz-6.12.118-amd64", "boot/initrd.img-6.12.118-amd64")


def test_a_file_is_found_through_absolute_links(tmp_path):
    assert Root(write(tmp_path / "root.tar", BOOTABLE), EPOCH).read(SHIM) == b"shim"


def test_links_in_a_circle_lead_nowhere(tmp_path):
    root = Root(write(tmp_path / "root.tar", {"a": "b", "b": "a"}), EPOCH)
    assert root.resolve("a") is None


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("boot/vmlinuz-", "a kernel (boot/vmlinuz-*)"),
        ("boot/initrd.img-", "an initrd for its kernel"),
        ("boot/grub/", "GRUB's menu (boot/grub/grub.cfg)"),
        ("usr/lib/shim/shimx64.efi.signed.latest", "shim (usr/lib/shim/shimx64.efi.signed)"),
        ("usr/lib/grub/", "GRUB's signed image"),
    ],
)
def test_what_would_not_boot_is_refused(tmp_path, gone, named):
    there = {name: content for name, content in BOOTABLE.items() if not name.startswith(gone)}
    with pytest.raises(DiskError) as refused:
        needed(Root(write(tmp_path / "root.tar", there), EPOCH))
    assert named in str(refused.value)


def test_all_that_is_missing_is_named_at_once(tmp_path):
    with pytest.raises(DiskError) as refused:
        needed(Root(write(tmp_path / "root.tar", {}), EPOCH))
    assert str(refused.value).count("(") == 4


def test_half_a_tar_is_refused(tmp_path):
    path = tmp_path / "root.tar"
    write(path, {"a": b"a" * 100_000, "b": b"b"})
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(DiskError, match="Cannot read the root file system"):
        Root(str(path), EPOCH)


def test_no_tar_is_refused(tmp_path):
    with pytest.raises(DiskError, match=r"missing\.tar"):
        Root(str(tmp_path / "missing.tar"), EPOCH)


@pytest.mark.parametrize(
    ("luks", "names"), [(False, ["bios", "esp", "root"]), (True, ["bios", "esp", "boot", "root"])]
)
def test_partitions_are_aligned_and_the_root_is_last(luks, names):
    total, found = plan(300 << 20, 9, Ids("f"), 0, luks)
    assert list(found) == names
    end = 0
    for part in found.values():
        assert part.offset % (1 << 20) == 0
        assert part.size % (1 << 20) == 0
        assert part.offset >= end
        end = part.offset + part.size
    # A MiB is left for the second table.
    assert end == total - (1 << 20)


@pytest.mark.parametrize(("used", "gib"), [(0, 1), (200 << 20, 1), (300 << 20, 2), (8 * GIB, 11)])
def test_the_disk_has_what_its_content_needs_in_whole_gib(used, gib):
    assert plan(used, 9, Ids("f"), 0, False)[0] == gib * GIB


def test_many_small_files_get_a_disk_with_inodes_for_all():
    assert plan(200_000 * 4096, 200_000, Ids("f"), 0, False)[0] == 4 * GIB


def test_a_disk_that_is_too_small_is_refused_with_the_size_that_does():
    with pytest.raises(DiskError, match=r"to have 4 GiB, .* need 6\. Raise golden_image_size_gb"):
        plan(4 * GIB, 9, Ids("f"), 4 * GIB, False)


def test_a_size_in_no_whole_gib_is_refused():
    with pytest.raises(DiskError, match="no whole GiB"):
        plan(0, 9, Ids("f"), GIB + 512, False)


def test_ids_follow_from_the_fingerprint_and_nothing_else():
    ids = Ids("f00d")
    assert ids.of("root") == str(uuid.uuid5(uuid.NAMESPACE_URL, "gpumesh-image:f00d:root"))
    assert ids.esp == ids.of("esp")[:8].upper()
    assert len({ids.of(what) for what in ("root", "boot", "disk", "part1", "part2")}) == 5
    assert Ids("beef").of("root") != ids.of("root")


def test_two_conversions_at_once_have_a_file_each(tmp_path, monkeypatch):
    tool = tmp_path / "qemu-img"
    tool.write_text(
        '#!/bin/sh\nif [ "$1" = info ]; then echo \'{"virtual-size": 4}\'; else for out; do :; done; printf disk >"$out"; fi\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    other = tmp_path / "disk.bin.part"
    other.write_text("of another run")
    assert pack({"image": "disk.qcow2", "raw": str(tmp_path / "disk.bin")})["size_bytes"] == 4
    assert other.read_text() == "of another run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.bin", "disk.bin.part", "qemu-img"]
