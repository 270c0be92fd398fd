# SPDX-License-Identifier: GPL-3.0-or-later
"""How machines of an image are booted: their seeds, what their consoles say, and what becomes of one that does not come up. The
container engine is a program that answers from a file; a real boot is the gate of a real build."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roles.golden_image.files.boot import kvm
from roles.golden_image.files.boot.console import ESCAPES, LOST, keys_on
from roles.golden_image.files.boot.engine import BootError
from roles.golden_image.files.boot.login import banner, boot_all
from roles.golden_image.files.boot.machine import image_format, stop
from roles.golden_image.files.boot.order import Order, order_of
from roles.golden_image.files.boot.seed import make_key, write_seed

FILES = Path(__file__).parents[4] / "roles" / "golden_image" / "files"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK+mvTdxlhfZ7+qPe9mmAZDzH35Uova7GpG5UWlgicLD"
PRINTED = f"""\
[   41.2] cloud-init[412]: done\r
-----BEGIN SSH HOST KEY KEYS-----\r
ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBG8= root@gate\r
{KEY} root@gate\r
-----END SSH HOST KEY KEYS-----\r
"""

needs_keygen = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A container engine: it notes what it is asked, and the machine that it runs says on its console what a file has."""
    program = tmp_path / "engine"
    program.write_text(
        f"""#!{sys.executable}
import json, pathlib, sys
here = pathlib.Path({str(tmp_path)!r})
with (here / "asked").open("a") as out:
    out.write(json.dumps(sys.argv[1:]) + "\\n")
what = sys.argv[1]
if what == "run" and "--detach" in sys.argv:
    for firmware in ("bios", "uefi"):
        if f"--env=FIRMWARE={{firmware}}" in sys.argv:
            (here / f"gate/console-{{firmware}}.log").write_text((here / "console").read_text())
            (here / f"gate/qemu-{{firmware}}.log").write_text("qemu: no such machine")
elif what == "run" and (here / "firmware").exists():
    print((here / "firmware").read_text())
elif what == "port":
    print("127.0.0.1:1")
elif what == "inspect":
    print((here / "running").read_text())
elif what == "ps":
    print("c0ffee")
""",
        encoding="utf-8",
    )
    program.chmod(0o755)
    (tmp_path / "console").write_text("SeaBIOS\n", encoding="utf-8")
    (tmp_path / "running").write_text("true", encoding="utf-8")
    (tmp_path / "disk.qcow2").write_bytes(b"QFI\xfb\0\0\0\3")
    return program


def order(engine: Path, **more: Any) -> Order:
    """An order for it."""
    folder = engine.parent
    return order_of(
        {
            "image": str(folder / "disk.qcow2"),
            "folder": str(folder / "gate"),
            "tools": "tools:1",
            "build": "box-1",
            "engine": str(engine),
            "timeout": 5,
            **more,
        }
    )


def asked(engine: Path) -> list[list[str]]:
    """What it was asked, in order."""
    return [json.loads(line) for line in (engine.parent / "asked").read_text().splitlines()]


def test_host_keys_are_taken_from_the_console_only_when_all_are_there() -> None:
    console = ESCAPES.sub("", PRINTED)
    assert keys_on(console)[-1] == KEY
    assert len(keys_on(console)) == 2
    assert keys_on(console.partition("-----END")[0]) == []
    assert keys_on("") == []


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("[ 1.0] Kernel panic - not syncing: VFS", True),
        ("Gave up waiting for root file system device.", True),
        ("BusyBox v1.37\n(initramfs) ", True),
        ("error: no such device: 1111.\nEntering rescue mode...\ngrub rescue> ", True),
        ("error: no such device: 1111.", True),
        ("Boot failed: not a bootable disk", True),
        ("[ OK ] Reached target multi-user.target", False),
        ("unpacking (initramfs) image", False),
    ],
)
def test_a_console_that_nothing_more_comes_of_is_known(said: str, lost: bool) -> None:
    assert bool(LOST.search(said)) is lost


@pytest.mark.parametrize(("start", "kind"), [(b"QFI\xfb\0\0\0\3", "qcow2"), (b"\xeb\x63\x90", "raw")])
def test_the_format_is_that_of_the_file(tmp_path: Path, start: bytes, kind: str) -> None:
    (tmp_path / "disk").write_bytes(start)
    assert image_format(tmp_path / "disk") == kind


def test_an_image_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="cannot be read: No such file"):
        image_format(tmp_path / "disk")


@needs_keygen
def test_the_seed_plants_a_host_key_and_is_its_owners_alone(tmp_path: Path) -> None:
    public = make_key(tmp_path / "host-key", "gate")
    write_seed(tmp_path / "seed", "bios", [KEY], tmp_path / "host-key")
    head, _newline, body = (tmp_path / "seed/user-data").read_text().partition("\n")
    user = json.loads(body)
    assert head == "#cloud-config"
    assert user["ssh_authorized_keys"] == [KEY]
    assert user["ssh_keys"]["ed25519_public"] == public
    assert user["ssh_keys"]["ed25519_private"] == (tmp_path / "host-key").read_text()
    modes = [
        path.stat().st_mode & 0o777
        for path in (tmp_path / "seed", tmp_path / "seed/user-data", tmp_path / "host-key")
    ]
    assert modes == [0o700, 0o600, 0o600]


def test_a_machine_without_a_planted_key_makes_its_own(tmp_path: Path) -> None:
    write_seed(tmp_path / "seed", "uefi", [KEY], None)
    assert "ssh_keys" not in json.loads((tmp_path / "seed/user-data").read_text().partition("\n")[2])


@needs_keygen
def test_no_boot_has_the_key_of_another(tmp_path: Path) -> None:
    assert make_key(tmp_path / "key", "gate") != make_key(tmp_path / "key", "gate")


@needs_keygen
def test_a_machine_that_panics_is_told_with_its_console_and_nothing_is_left_running(engine: Path) -> None:
    (engine.parent / "console").write_text("\x1b[0mGRUB\r\n[ 1.0] Kernel panic - not syncing: VFS\n")
    with pytest.raises(BootError) as told:
        boot_all(order(engine, firmware=["bios"]))
    assert "booted by BIOS does not come up: Kernel panic" in str(told.value)
    assert str(told.value).endswith("GRUB\n[ 1.0] Kernel panic - not syncing: VFS")
    assert asked(engine)[-1] == ["rm", "--force", "--volumes", "c0ffee"]
    assert not (engine.parent / "gate/boots.json").exists()


@needs_keygen
def test_the_end_of_a_console_is_shown_not_all_of_it(engine: Path) -> None:
    (engine.parent / "console").write_text(
        "".join(f"line {number}\n" for number in range(100)) + "Kernel panic\n"
    )
    with pytest.raises(BootError) as told:
        boot_all(order(engine, firmware=["bios"]))
    assert "line 98" in str(told.value)
    assert "line 60" not in str(told.value)


@needs_keygen
def test_qemu_that_stops_says_why(engine: Path) -> None:
    (engine.parent / "running").write_text("")
    with pytest.raises(BootError, match="stopped by itself; QEMU said: qemu: no such machine"):
        boot_all(order(engine, firmware=["uefi"]))


@needs_keygen
def test_a_machine_that_lets_nobody_in_is_given_up(engine: Path) -> None:
    with pytest.raises(BootError, match="let nobody in within 0 s"):
        boot_all(order(engine, firmware=["bios", "uefi"], timeout=0))
    assert asked(engine)[-1][0] == "rm"


@needs_keygen
def test_the_image_is_only_read_and_no_right_is_given(engine: Path) -> None:
    with pytest.raises(BootError):
        boot_all(order(engine, firmware=["bios"], timeout=0))
    run = next(words for words in asked(engine) if "--detach" in words)
    assert f"--volume={engine.parent}/disk.qcow2:/image:ro" in run
    assert f"--user={os.getuid()}:{os.getgid()}" in run
    assert "--env=RESTRICT=restrict=on," in run
    assert "--label=gpumesh.image.build=box-1" in run
    assert not [word for word in run if word in ("--privileged",) or word.startswith("--cap-add")]


def test_an_engine_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="There is no command"):
        stop(str(tmp_path / "none"), "box-1")


def test_a_refusal_is_one_message_and_no_traceback(tmp_path: Path) -> None:
    wanted = {"build": "box-1", "engine": str(tmp_path / "none")}
    ran = subprocess.run(
        [sys.executable, str(FILES / "boot"), "stop", json.dumps(wanted)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("group", "firmware", "expected"),
    [(None, "BdsDxe", ("tcg", None)), (7, "", ("tcg", None)), (7, "BdsDxe", ("kvm", 7))],
)
def test_kvm_is_used_where_a_firmware_comes_up_with_it(
    engine: Path, monkeypatch: pytest.MonkeyPatch, group: int | None, firmware: str, expected: Any
) -> None:
    (engine.parent / "firmware").write_text(firmware)
    monkeypatch.setattr(kvm, "kvm_group", lambda: group)
    assert kvm.accelerator(str(engine), "tools:1") == expected
    # A device that does not work is not even tried.
    assert (engine.parent / "asked").exists() is (group is not None)


def test_an_engine_that_does_not_answer_the_trial_has_no_kvm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvm, "kvm_group", lambda: 7)
    assert kvm.accelerator(str(tmp_path / "none"), "tools:1") == ("tcg", None)


@pytest.fixture
def answers() -> Iterator[tuple[int, list[bytes]]]:
    """A server on loopback that greets with what it is given."""
    greeting: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _address = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(greeting[0])

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], greeting


@pytest.mark.parametrize(
    ("greets", "there"), [(b"SSH-2.0-x\r\n", True), (b"", False), (b"220 mail\r\n", False)]
)
def test_only_an_ssh_server_answers(answers: tuple[int, list[bytes]], greets: bytes, there: bool) -> None:
    port, greeting = answers
    greeting.append(greets)
    # QEMU takes the connection and closes it while the machine has no server yet.
    assert banner("127.0.0.1", port) is there
