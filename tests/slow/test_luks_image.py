# SPDX-License-Identifier: GPL-3.0-or-later
"""A golden image with an encrypted root, booted from its disk and unlocked over SSH.

It takes an image that has been built with golden_image_luks, and minutes where there is no KVM:

    GPUMESH_LUKS_IMAGE=gpu-box-v1.0.0.qcow2 GPUMESH_LUKS_PASSPHRASE_FILE=passphrase GPUMESH_LUKS_KEY=~/.ssh/unlock \\
      GPUMESH_LUKS_HOST_KEY='ssh-ed25519 AAAA...' GPUMESH_TOOLS_IMAGE=gpumesh/image-tools:... \\
      pytest tests/slow/test_luks_image.py

GPUMESH_LUKS_KEY is the private half of one of golden_image_luks_unlock_keys, GPUMESH_LUKS_HOST_KEY what the build said.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

NAMES = ("IMAGE", "PASSPHRASE_FILE", "KEY", "HOST_KEY")
GIVEN = {name: os.environ.get(f"GPUMESH_LUKS_{name}", "") for name in NAMES}
TOOLS = os.environ.get("GPUMESH_TOOLS_IMAGE", "")
LONGEST_S = 900

pytestmark = pytest.mark.skipif(
    not all(GIVEN.values()) or not TOOLS,
    reason="needs an encrypted image: GPUMESH_TOOLS_IMAGE, "
    + ", ".join(f"GPUMESH_LUKS_{name}" for name in NAMES),
)

QEMU = """\
set -eu
cd /tmp
qemu-img create -q -f qcow2 -b /image -F qcow2 overlay.qcow2
qemu-img resize -q overlay.qcow2 +1G
truncate -s 1M seed.img
mkfs.vfat -n CIDATA seed.img >/dev/null
mcopy -i seed.img /seed/meta-data /seed/user-data ::
exec qemu-system-x86_64 -machine q35,accel=tcg -cpu max -smp 2 -m 1024 -display none -monitor none -serial file:/seed/console \\
    -device virtio-rng-pci -drive file=overlay.qcow2,if=virtio,cache=unsafe,discard=unmap \\
    -drive file=seed.img,if=virtio,format=raw,readonly=on \\
    -nic user,model=virtio-net-pci,hostfwd=tcp::2222-:22
"""


@dataclass
class Machine:
    """It, and how to talk to it."""

    folder: Path
    port: int
    seconds: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def ssh(
        self, name: str, user: str, key: Path, *words: str, stdin: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Say something to it; `name` is which of its host keys it has to show."""
        options = {
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "HostKeyAlias": name,
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "10",
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
        }
        return subprocess.run(
            ["ssh", "-F", "none", "-i", str(key), "-p", str(self.port)]
            + [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
            + [f"{user}@127.0.0.1", *words],
            input="" if stdin is None else stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def unlock(self, passphrase: str) -> subprocess.CompletedProcess[str]:
        """Say a passphrase to the initramfs."""
        return self.ssh("unlock", "root", Path(GIVEN["KEY"]).expanduser(), stdin=passphrase)

    def run(self, *words: str) -> str:
        """Have a command run by the system."""
        done = self.ssh("system", "admin", self.folder / "key", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_for(self, name: str, port_open: str) -> None:
        """Until it shows one of its two host keys."""
        while True:
            asked = subprocess.run(
                ["ssh-keyscan", "-T", "5", "-t", "ed25519", "-p", str(self.port), "127.0.0.1"],
                capture_output=True,
                text=True,
                check=False,
            )
            if port_open in asked.stdout:
                break
            assert time.monotonic() - self.begun < LONGEST_S, (self.folder / "console").read_text(
                errors="replace"
            )[-3000:]
            time.sleep(1)
        self.seconds[name] = round(time.monotonic() - self.begun, 1)


def make_key(path: Path) -> str:
    """A key pair; its public half."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)], check=True
    )
    return " ".join(path.with_name(f"{path.name}.pub").read_text().split()[:2])


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The image, started and waiting for its passphrase."""
    folder = tmp_path_factory.mktemp("luks")
    login, host_key = make_key(folder / "key"), make_key(folder / "host-key")
    user_data = {
        "ssh_keys": {"ed25519_private": (folder / "host-key").read_text(), "ed25519_public": host_key},
        "ssh_authorized_keys": [login],
    }
    (folder / "user-data").write_text(f"#cloud-config\n{json.dumps(user_data)}\n")
    (folder / "meta-data").write_text(json.dumps({"instance-id": "luks-1", "local-hostname": "locked"}))
    unlock = " ".join(GIVEN["HOST_KEY"].split()[:2])
    (folder / "known_hosts").write_text(f"unlock {unlock}\nsystem {host_key}\n")
    started = subprocess.run(
        [
            *("docker", "run", "--detach", "--rm", "--pull=never", "--publish=127.0.0.1::2222"),
            *(f"--volume={folder}:/seed", f"--volume={Path(GIVEN['IMAGE']).absolute()}:/image:ro"),
            *(TOOLS, "sh", "-c", QEMU),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    try:
        port = subprocess.run(
            ["docker", "port", started, "2222/tcp"], check=True, capture_output=True, text=True
        ).stdout
        made = Machine(folder, int(port.splitlines()[0].rpartition(":")[2]))
        made.wait_for("initramfs", unlock.split()[1])
        yield made
        print(f"seconds until: {made.seconds}")
    finally:
        with contextlib.suppress(OSError):
            print((folder / "console").read_text(errors="replace")[-1500:])
        subprocess.run(["docker", "rm", "--force", started], check=False, capture_output=True)


def test_a_wrong_passphrase_does_not_open_it(machine: Machine) -> None:
    """The initramfs says so and goes on asking."""
    passphrase = Path(GIVEN["PASSPHRASE_FILE"]).expanduser().read_text().rstrip("\n")
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = machine.ssh(
            "unlock", "root", Path(GIVEN["KEY"]).expanduser(), stdin=f"{passphrase}x", timeout=60
        )
        assert done.returncode != 0, done.stdout

    console = (machine.folder / "console").read_text(errors="replace")
    assert "No key available with this passphrase" in console
    assert "set up successfully" not in console


def test_the_passphrase_over_ssh_opens_it_and_it_comes_up(machine: Machine) -> None:
    """From a mapping that is encrypted, with the host key that the seed planted."""
    passphrase = Path(GIVEN["PASSPHRASE_FILE"]).expanduser().read_text().rstrip("\n")
    done = machine.unlock(passphrase)
    assert done.returncode == 0, done.stdout + done.stderr
    planted = (machine.folder / "host-key.pub").read_text().split()[1]
    machine.wait_for("system", planted)

    assert machine.run("findmnt", "--noheadings", "--output", "SOURCE", "/").strip() == "/dev/mapper/root"
    status = machine.run("sudo", "cryptsetup", "status", "root")
    assert "type:    LUKS2" in status
    assert "cipher:  aes-xts-plain64" in status


def test_the_root_file_system_has_grown_with_the_disk(machine: Machine) -> None:
    """The partition before it was opened, and the file system after."""
    mib = 1 << 20
    disk, mapping, size = (
        int(machine.run(*words))
        for words in (
            ("lsblk", "--bytes", "--nodeps", "--noheadings", "--output", "SIZE", "/dev/vda"),
            ("lsblk", "--bytes", "--nodeps", "--noheadings", "--output", "SIZE", "/dev/mapper/root"),
            ("findmnt", "--bytes", "--noheadings", "--output", "SIZE", "/"),
        )
    )
    before = int(
        json.loads(
            subprocess.run(
                [
                    *(
                        "docker",
                        "run",
                        "--rm",
                        "--volume",
                        f"{Path(GIVEN['IMAGE']).absolute()}:/image:ro",
                        TOOLS,
                    ),
                    *("qemu-img", "info", "--output=json", "/image"),
                ],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )["virtual-size"]
    )

    assert disk == before + 1024 * mib
    # Beside it are the partitions to boot from (1154 MiB), LUKS's header and the second partition table.
    assert mapping > disk - 1200 * mib
    assert size > mapping * 0.9


def test_it_gets_a_host_key_of_its_own_for_unlocking(machine: Machine) -> None:
    """Not the image's, which every machine of it has at its first boot; and it is in the initramfs."""
    machine.run("sudo", "systemctl", "start", "gpumesh-unlock-key.service")

    shown = machine.run(
        *("sudo", "dropbearkey", "-y", "-f", "/etc/dropbear/initramfs/dropbear_ed25519_host_key")
    )
    assert GIVEN["HOST_KEY"].split()[1] not in shown
    machine.run("test", "-e", "/var/lib/gpumesh/unlock-key")


def test_nothing_of_the_root_is_in_the_image_in_plain_text(machine: Machine, tmp_path: Path) -> None:
    """A piece of a program of the root is nowhere in the image; a piece of the kernel, which must be readable, is."""
    secret = base64.b64decode(
        machine.run("sh", "-c", "'tail -c 6000 /usr/bin/python3 | head -c 64 | base64 -w 0'")
    )
    kernel = base64.b64decode(
        machine.run("sudo", "sh", "-c", "'tail -c 60000 /boot/vmlinuz-* | head -c 64 | base64 -w 0'")
    )
    looked = subprocess.run(
        [
            *(
                "docker",
                "run",
                "--rm",
                "--interactive",
                "--volume",
                f"{Path(GIVEN['IMAGE']).absolute()}:/image:ro",
            ),
            *("--volume", f"{tmp_path}:/out", TOOLS),
            *("qemu-img", "convert", "-O", "raw", "/image", "/out/raw"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert looked.returncode == 0, looked.stderr
    found = {"secret": False, "kernel": False}
    kept = b""
    with (tmp_path / "raw").open("rb") as raw:
        while piece := raw.read(1 << 24):
            window = kept + piece
            found["secret"] |= secret in window
            found["kernel"] |= kernel in window
            kept = window[-64:]

    assert found == {"secret": False, "kernel": True}
