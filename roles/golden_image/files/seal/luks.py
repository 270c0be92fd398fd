# SPDX-License-Identifier: GPL-3.0-or-later
"""What an encrypted root needs in the image, beside the encryption itself (files/luks.py)."""

from __future__ import annotations

import os
import subprocess

from .clean import clean_logs
from .first_boot import enable
from .system import Refusal, Seal


def luks(seal: Seal) -> None:
    """An initramfs that is let in over SSH and unlocks the root, grows it, and gives the machine a host key of its own later on."""
    wanted, files = seal.wanted, seal.wanted["files"]
    dropbear = "etc/dropbear/initramfs"
    if (
        not (seal.root / dropbear).is_dir()
        or not (seal.root / "usr/share/initramfs-tools/hooks/cryptroot").exists()
    ):
        raise Refusal(
            "An encrypted root needs the packages cryptsetup-initramfs and dropbear-initramfs in the image, which its lowest layer does not have"
        )
    seal.write("etc/crypttab", f"root UUID={wanted['luks_uuid']} none luks,discard,initramfs\n")
    seal.write("etc/initramfs-tools/conf.d/gpumesh-luks", "IP=dhcp\nUMASK=0077\n")
    seal.write(f"{dropbear}/dropbear.conf", 'DROPBEAR_OPTIONS="-s -j -k -I 300"\n')
    only = 'no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="/bin/cryptroot-unlock"'
    seal.write(
        f"{dropbear}/authorized_keys", "".join(f"{only} {key}\n" for key in wanted["ssh_unlock_keys"]), 0o600
    )
    seal.write("etc/initramfs-tools/hooks/gpumesh-grow", files["hook"], 0o755)
    seal.write(
        "etc/initramfs-tools/scripts/init-premount/gpumesh-grow",
        files["grow"].replace("LUKS_UUID", wanted["luks_uuid"]),
        0o755,
    )
    seal.write("usr/local/sbin/gpumesh-unlock-key", files["unlock-key"], 0o755)
    seal.write("etc/systemd/system/gpumesh-unlock-key.service", files["unlock-key.service"])
    enable(seal, "gpumesh-unlock-key.service", "multi-user.target")
    # The initramfs has grown the partition by then; cloud-init could not, because the mapping is as large as what was opened.
    seal.write(
        "etc/cloud/cloud.cfg.d/96-gpumesh-image-luks.cfg", 'growpart: {mode: "off"}\nresize_rootfs: false\n'
    )
    seal.remove("var/lib/gpumesh/unlock-key", f"{dropbear}/dropbear_*_host_key*")
    key = f"/{dropbear}/dropbear_ed25519_host_key"
    asked("make a host key for unlocking", "dropbearkey", "-t", "ed25519", "-f", key)
    said = asked("read the host key for unlocking", "dropbearkey", "-y", "-f", key)
    seal.unlock_host_key = next((line for line in said.splitlines() if line.startswith("ssh-")), "")
    asked("make the initramfs", "update-initramfs", "-u", "-k", "all")
    clean_logs(seal)


def asked(what: str, *command: str) -> str:
    """What a program of the image says."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode:
        raise Refusal(f"The image cannot {what}: {' '.join((ran.stderr or ran.stdout).split())[-600:]}")
    return ran.stdout
