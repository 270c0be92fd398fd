# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that has an image's root file system encrypted, up to the virtual machine. With one: tests/slow/test_luks_image.py."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[4] / "roles" / "golden_image" / "files" / "luks.py"


@pytest.fixture(scope="module")
def luks() -> ModuleType:
    """The program, as a module."""
    spec = importlib.util.spec_from_file_location("golden_image_luks", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # Where Python looks when the program is run by its path.
        patch.syspath_prepend(PROGRAM.parent)
        spec.loader.exec_module(module)
    return module


def secret(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    """A file with a passphrase."""
    path = folder / "passphrase"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [b"correct horse", b"correct horse\n", b"correct horse\r\n"])
def test_the_passphrase_is_what_a_person_would_type(luks: ModuleType, tmp_path: Path, content: bytes) -> None:
    """The newline that an editor adds is no part of it."""
    assert luks.passphrase_of(secret(tmp_path, content)) == b"correct horse"


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        (b"correct horse", 0o640, "others may read {path}. Run: chmod 600 {path}"),
        (b"correct horse", 0o604, "others may read {path}. Run: chmod 600 {path}"),
        (b"", 0o600, "has to have 8 to 512 bytes"),
        (b"\n", 0o600, "has to have 8 to 512 bytes"),
        (b"short", 0o600, "has to have 8 to 512 bytes"),
        (b"x" * 513, 0o600, "has to have 8 to 512 bytes"),
        (b"correct\nhorse", 0o600, "one line without control characters"),
        (b"correct\0horse", 0o600, "one line without control characters"),
    ],
)
def test_a_passphrase_that_is_no_secret_or_cannot_be_typed_is_refused(
    luks: ModuleType, tmp_path: Path, content: bytes, mode: int, expected: str
) -> None:
    """In one sentence, with the name of the variable and without the passphrase."""
    path = secret(tmp_path, content, mode)

    with pytest.raises(luks.LuksError) as caught:
        luks.passphrase_of(path)

    assert str(caught.value).startswith("golden_image_luks_passphrase_file: ")
    assert expected.format(path=path) in str(caught.value)
    assert "horse" not in str(caught.value)


def test_a_passphrase_file_that_is_not_there_is_refused(luks: ModuleType, tmp_path: Path) -> None:
    """Nor may it be a folder."""
    with pytest.raises(luks.LuksError, match="cannot be read: No such file"):
        luks.passphrase_of(tmp_path / "missing")
    with pytest.raises(luks.LuksError, match="cannot be read: Is a directory"):
        luks.passphrase_of(tmp_path)


def test_the_passphrase_is_handed_over_in_memory_only(luks: ModuleType, tmp_path: Path) -> None:
    """The file system that a folder is on decides, and it may be mounted anywhere above it."""
    memory, disk = tmp_path / "memory" / "user", tmp_path / "disk"
    memory.mkdir(parents=True)
    disk.mkdir()
    mounts = f"/dev/sda1 / ext4 rw 0 0\ntmpfs {tmp_path}/memory tmpfs rw 0 0\n"

    assert luks.in_memory(mounts, [str(disk), str(memory)]) == memory
    assert luks.in_memory(mounts, [str(disk), "/nowhere"]) is None


def test_the_key_disk_is_read_back_as_the_virtual_machine_reads_it(luks: ModuleType) -> None:
    """The length in the first sector, and whole sectors, or QEMU takes no notice of the rest."""
    disk = luks.key_disk("pass phrase é".encode())

    length = int(disk[:512].split(b"\n")[0])
    assert disk[512 : 512 + length].decode() == "pass phrase é"
    assert len(disk) % 512 == 0


def test_only_what_is_in_use_is_copied(luks: ModuleType) -> None:
    """Free blocks as dumpe2fs lists them, in MiB that are rounded so that no block in use is left out."""
    dumped = (
        "Block count:              1024\nFree blocks:              769\nBlock size:               4096\n\n"
        "Group 0: (Blocks 0-511)\n  Free blocks: 100, 256-511\n"
        "Group 1: (Blocks 512-1023)\n  Free blocks: 512-1020\n  Free inodes: 12-20\n"
    )

    # Blocks 0 to 255 but for one, and the last three: the first MiB and the last of four.
    assert luks.extents_of(dumped, 4 << 20) == [(0, 1), (3, 1)]


def test_the_blocks_of_a_real_file_system_are_all_copied(luks: ModuleType, tmp_path: Path) -> None:
    """Copied to a disk full of something else, the file system is sound and its files are whole."""
    if not Path("/usr/sbin/mke2fs").exists():
        pytest.skip("needs mke2fs (package e2fsprogs)")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "zeros").write_bytes(bytes(3 << 20))
    (tree / "text").write_bytes(b"content\n" * 300_000)
    plain, copied = tmp_path / "plain", tmp_path / "copied"
    subprocess.run(
        ["/usr/sbin/mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(plain), "64M"], check=True, env={}
    )
    dumped = subprocess.run(
        ["/usr/sbin/dumpe2fs", str(plain)], check=True, capture_output=True, text=True, env={}
    ).stdout

    extents = luks.extents_of(dumped, plain.stat().st_size)
    copied.write_bytes(b"\xa5" * plain.stat().st_size)
    with plain.open("rb") as source, copied.open("r+b") as target:
        for start, count in extents:
            source.seek(start << 20)
            target.seek(start << 20)
            target.write(source.read(count << 20))

    assert sum(count for _start, count in extents) < 64
    subprocess.run(["/usr/sbin/e2fsck", "-fn", str(copied)], check=True, capture_output=True)
    for name in ("zeros", "text"):
        subprocess.run(
            ["/usr/sbin/debugfs", "-R", f"dump /{name} {tmp_path / name}", str(copied)],
            check=True,
            capture_output=True,
        )
        assert (tmp_path / name).read_bytes() == (tree / name).read_bytes()
    assert luks.digest(copied, extents) == luks.digest(plain, extents)


def members(content: bytes) -> dict[str, tuple[int, bytes]]:
    """What the kernel finds in a cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    found, at = {}, 0
    while True:
        assert content[at : at + 6] == b"070701"
        fields = [int(content[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = content[at + 110 : at + 110 + fields[11] - 1].decode()
        at = (at + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], content[at : at + fields[6]])
        at = (at + fields[6] + 3) & ~3


def test_what_is_added_to_the_initramfs_is_an_archive_of_its_own(luks: ModuleType) -> None:
    """It begins at a multiple of four, or the kernel does not find it."""
    together = luks.initramfs(b"image", "#!/bin/sh\n", {"uuid": "u-1", "partition": 4}, [(0, 3), (9, 1)])

    assert together.startswith(b"image" + bytes(3) + b"070701")
    found = members(together[8:])
    assert found["gpumesh"][0] == stat.S_IFDIR | 0o700
    assert found["gpumesh/init"] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")
    assert found["gpumesh/parameters"][1] == b"uuid=u-1\npartition=4\n"
    assert found["gpumesh/extents"][1] == b"0 3\n9 1\n"


CONSOLE = """\
[    7.30] Run /gpumesh/init as init process\r
gpumesh-luks: format\r
gpumesh-luks: dump Cipher=aes-xts-plain64\r
gpumesh-luks: dump PBKDF=argon2id\r
gpumesh-luks: dump Time cost=4\r
gpumesh-luks: dump Memory=65536\r
gpumesh-luks: dump Threads=1\r
gpumesh-luks: copy\r
gpumesh-luks: read\r
gpumesh-luks: done\r
"""


def test_what_was_read_back_and_how_it_is_opened_is_told(luks: ModuleType) -> None:
    """As cryptsetup says it has written it."""
    assert luks.verdict(CONSOLE) == {
        "cipher": "aes-xts-plain64",
        "pbkdf": "argon2id",
        "iterations": 4,
        "memory_kib": 65536,
        "threads": 1,
    }


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        (
            CONSOLE.partition("gpumesh-luks: copy")[0] + "gpumesh-luks: failed: luksFormat\r\n",
            "(failed: luksFormat)",
        ),
        (CONSOLE.partition("gpumesh-luks: done")[0] + "Kernel panic\r\n", "it ended after 'read'"),
        ("Kernel panic - not syncing: No working init found.\r\n", "it ended after 'nothing'"),
        ("", "it ended after 'nothing'"),
    ],
)
def test_a_machine_that_did_not_get_through_is_no_success(
    luks: ModuleType, console: str, expected: str
) -> None:
    """The last that was heard of it is told."""
    with pytest.raises(luks.LuksError) as caught:
        luks.verdict(console)

    assert expected in str(caught.value)


def test_no_passphrase_is_on_a_command_line(luks: ModuleType) -> None:
    """It is a disk that can only be read."""
    command = luks.machine("tcg", *luks.DISKS)

    assert "id=key,if=none,format=raw,file=/key/disk,readonly=on" in command
    assert not [word for word in command if "passphrase" in word]


ENGINE = """\
#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
*dumpe2fs*) printf 'Block count: 512\\nBlock size: 4096\\nGroup 0:\\n  Free blocks: 256-511\\n' ;;
*virtio-blk*)
    folder=$(echo "$*" | sed 's/.*--volume=\\([^ ]*\\):\\/key:ro.*/\\1/')
    stat -c '%a %n' "$folder" "$folder/disk" >>"$LOG"
    [ -n "$BROKEN" ] || cp "$WORK/root.img" "$WORK/back.img"
    echo 'gpumesh-luks: done'
    ;;
*qemu-img*) printf image >"$WORK/disk.qcow2" ;;
esac
"""


def wanted(folder: Path) -> dict[str, str]:
    """What the program is told, with an engine that answers like a tools image would."""
    work = folder / "work"
    work.mkdir()
    (work / "root.img").write_bytes(b"plain\n" + bytes((2 << 20) - 6))
    for name in ("disk.raw", "vmlinuz", "initrd.img"):
        (work / name).write_bytes(b"x")
    engine = folder / "engine"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    return {
        "engine": str(engine),
        "tools": "tools:1",
        "work": str(work),
        "build": "b-1",
        "init": "#!/bin/sh\n",
        "passphrase_file": str(secret(folder, b"correct horse\n")),
        "luks_uuid": "u-1",
        "out": "disk.qcow2",
    }


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The whole program."""
    return subprocess.run(
        [sys.executable, "-B", str(PROGRAM), json.dumps(wanted(folder))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LOG": str(folder / "log"), "WORK": str(folder / "work"), **environment},
    )


@pytest.mark.parametrize(("speed", "group"), [("kvm", 7), ("tcg", None)])
def test_the_machine_is_as_fast_as_those_of_the_gate(
    luks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: str, group: int | None
) -> None:
    """Whether KVM works is found out in one place, and only a machine that uses it gets the device."""
    monkeypatch.setattr(luks, "accelerator", lambda _engine, _tools: (speed, group))
    for name, value in (("LOG", tmp_path / "log"), ("WORK", tmp_path / "work"), ("BROKEN", "")):
        monkeypatch.setenv(name, str(value))

    made = luks.encrypt(wanted(tmp_path), b"correct horse")

    ran = next(line for line in (tmp_path / "log").read_text().splitlines() if "virtio-blk" in line)
    assert made["accelerator"] == speed
    assert f"q35,accel={speed}" in ran
    assert ("--device=/dev/kvm --group-add=7 " in ran) is (speed == "kvm")
    assert ("kvm" in ran) is (speed == "kvm")


def test_nothing_in_plain_text_is_left(tmp_path: Path) -> None:
    """Neither the file system nor the passphrase, which was its owner's alone while it lay in memory."""
    done = run(tmp_path, BROKEN="")

    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["changed"] is True
    assert answer["file"] == {"sha256": hashlib.sha256(b"image").hexdigest(), "size_bytes": 5}
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["disk.qcow2"]
    log = (tmp_path / "log").read_text()
    modes = [line.split() for line in log.splitlines() if line[:4] in ("700 ", "600 ")]
    assert [mode for mode, _path in modes] == ["700", "600"]
    assert not any(Path(path).exists() for _mode, path in modes)
    assert "horse" not in log + done.stdout + done.stderr


def test_a_failure_is_one_sentence_and_leaves_no_passphrase(tmp_path: Path) -> None:
    """And no image."""
    done = run(tmp_path, BROKEN="yes")

    assert done.returncode == 1
    assert done.stderr.startswith("What is read back from the encrypted file system (sha256 ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "work" / "disk.qcow2").exists()
    folders = [
        line.split()[1] for line in (tmp_path / "log").read_text().splitlines() if line.startswith("700 ")
    ]
    assert folders
    assert not any(Path(path).exists() for path in folders)
