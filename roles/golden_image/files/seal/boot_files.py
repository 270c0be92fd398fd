# SPDX-License-Identifier: GPL-3.0-or-later
"""What the boot reads: fstab, and the menu of GRUB."""

from __future__ import annotations

import re
import shlex
import subprocess

from .system import Refusal, Seal


def boot(seal: Seal) -> None:
    """How its file systems are found and its kernel is started, by its own GRUB from the first boot on."""
    wanted = seal.wanted
    root = "/dev/mapper/root" if wanted.get("luks_uuid") else f"UUID={wanted['root_uuid']}"
    lines = [f"{root} / ext4 defaults,errors=remount-ro,x-systemd.growfs 0 1"]
    if wanted.get("boot_uuid"):
        lines.append(f"UUID={wanted['boot_uuid']} /boot ext4 defaults 0 2")
    esp = wanted["esp_id"].replace("-", "").upper()
    lines.append(f"UUID={esp[:4]}-{esp[4:]} /boot/efi vfat umask=0077,shortname=winnt,nofail 0 0")
    seal.write("etc/fstab", "".join(f"{line}\n" for line in lines))
    (seal.root / "boot/efi").mkdir(parents=True, exist_ok=True)
    seal.write(
        "etc/default/grub.d/60-gpumesh-image.cfg",
        "# update-grub keeps the image's two consoles. GRUB_CMDLINE_LINUX_DEFAULT stays the machine's own.\n"
        "GRUB_TIMEOUT=2\n"
        'GRUB_TERMINAL="console serial"\n'
        'GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n'
        'GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"\n'
        "GRUB_DISABLE_OS_PROBER=true\n",
    )
    seal.write("boot/grub/grub.cfg", grub_config(seal, root))


def kernel_arguments(seal: Seal) -> str:
    """What GRUB's own files say, those of the layers among them."""
    files = [seal.root / "etc/default/grub", *seal.find("etc/default/grub.d/*.cfg")]
    script = "".join(f". {shlex.quote(str(path))}; " for path in files if path.is_file())
    said = subprocess.run(
        ["sh", "-c", f'{script} echo "$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT"'],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    if said.returncode:
        raise Refusal(f"/etc/default/grub cannot be read by a shell: {said.stderr.strip()}")
    return " ".join(said.stdout.split())


def grub_config(seal: Seal, root: str) -> str:
    """The first one; update-grub replaces it when the kernel does. It has no module that the boot loader has not built in."""
    folder = seal.root / "boot"
    kernels = sorted((path.name[len("vmlinuz-") :] for path in folder.glob("vmlinuz-*")), key=version_key)
    if not kernels:
        raise Refusal(
            "There is no kernel in /boot, so that no machine could boot the image; the lowest layer has to install one"
        )
    release = kernels[-1]
    if not (folder / f"initrd.img-{release}").is_file():
        raise Refusal(
            f"There is no /boot/initrd.img-{release}, so that the kernel would not find its disk; run 'update-initramfs -c -k {release}' in the lowest layer"
        )
    # A file system of its own for /boot has the names without it.
    where = "" if seal.wanted.get("boot_uuid") else "/boot"
    search = seal.wanted.get("boot_uuid") or seal.wanted["root_uuid"]
    return (
        "# The image's own; the machine's next update-grub replaces it.\n"
        "set default=0\n"
        "set timeout=1\n"
        "if serial --unit=0 --speed=115200; then\n"
        "  terminal_input console serial\n"
        "  terminal_output console serial\n"
        "fi\n"
        f"search --no-floppy --fs-uuid --set=root {search}\n"
        f'menuentry "{seal.wanted["name"]}, Linux {release}" {{\n'
        f"  linux {where}/vmlinuz-{release} root={root} ro {kernel_arguments(seal)}\n"
        f"  initrd {where}/initrd.img-{release}\n"
        "}\n"
    )


def version_key(release: str) -> list[tuple[int, str]]:
    """6.12.9 comes before 6.12.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", release) if part]
