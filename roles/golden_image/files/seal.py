# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a file system an image's: nothing of the machine it was built on, everything a new machine needs at its first boot.

It runs as root in a throw-away container of the highest layer, and writes the sealed file system as a tar to standard output.
Standard error has one line of JSON at its end: what was sealed. It refuses, with one sentence for each reason, where a trace of
the builder or a secret is left; those it does not remove by itself were not put there by a layer of ours.

usage: python3 - '{"name": "gpu-box", "fingerprint": "...", "epoch": 1764000000, "root_uuid": "...", "esp_id": "ABCD1234",
                   "files": {"first-boot": "...", ...}, ...}' < seal.py > root.tar
"""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# What differs between two builds of the same, what belongs to one machine, and what is only in the way. Folders stay.
REMOVED = (
    ".dockerenv",
    "etc/.pwd.lock",
    # The resolvers of the builder's network.
    "etc/.resolv.conf.systemd-resolved.bak",
    "etc/.updated",
    "etc/adjtime",
    "etc/apt/apt.conf.d/99gpumesh-image-build",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/cdi/nvidia.yaml",
    "etc/group-",
    "etc/gshadow-",
    "etc/iscsi/initiatorname.iscsi",
    "etc/machine-info",
    "etc/netplan/50-cloud-init.yaml",
    "etc/network/interfaces.d/50-cloud-init",
    "etc/passwd-",
    "etc/shadow-",
    "etc/ssh/authorized_keys.d/*",
    "etc/ssh/sshd_config.d/50-cloud-init.conf",
    "etc/ssh/ssh_host_*",
    "etc/subgid-",
    "etc/subuid-",
    "etc/systemd/system/*.d/*image-build*",
    "usr/sbin/policy-rc.d",
    "var/.updated",
    "var/backups/*",
    "var/cache/apparmor/*",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*",
    "var/cache/debconf/*-old",
    "var/cache/fontconfig/*",
    "var/cache/ldconfig/*",
    "var/cache/man/*",
    "var/crash/*",
    "var/lib/NetworkManager/*",
    "var/lib/apt/lists/*",
    "var/lib/apt/periodic/*",
    "var/lib/chrony/*",
    "var/lib/cloud/*",
    "var/lib/containerd/*",
    "var/lib/dbus/machine-id",
    "var/lib/dhcp/*",
    "var/lib/dhcpcd/*",
    "var/lib/docker/*",
    "var/lib/dpkg/*-old",
    "var/lib/dpkg/lock*",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/fail2ban/*",
    "var/lib/gpumesh/first-boot.json",
    "var/lib/gpumesh/image.json",
    "var/lib/logrotate/*",
    "var/lib/systemd/*.clock",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/linger/*",
    "var/lib/systemd/network/*",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/rfkill/*",
    "var/lib/systemd/timers/*",
    "var/lib/systemd/timesync/*",
    "var/lib/unattended-upgrades/*",
    "var/lib/update-notifier/*",
    "var/lib/zerotier-one/*",
    # The key that DKMS signed its modules with. They are signed; whoever has the key could sign others that machines would load
    # which trust it. DKMS makes a new one with the next kernel.
    "var/lib/dkms/mok.*",
    "var/lib/shim-signed/mok/*",
    "var/mail/*",
    "var/spool/cron/crontabs/root",
    "var/tmp/*",
)
# Records of what was done; those of DKMS name the kernel and the time of the build.
LOGS = ("var/lib/dkms/*/*/*/*/log/*", "var/lib/gpumesh/acceptance/runs/*", "var/log/journal/*")
# What programs leave in the home of whom they run for.
LITTER = (
    ".ansible",
    ".ansible_async",
    ".bash_history",
    ".cache",
    ".config/pip",
    ".config/uv",
    ".gnupg",
    ".lesshst",
    ".local/share/uv",
    ".local/state",
    ".node_repl_history",
    ".python_history",
    ".ssh",
    ".sudo_as_admin_successful",
    ".viminfo",
    ".wget-hsts",
)
# What may be in root's home: files of the package base-files, and the empty folders that others make.
AT_HOME = {".bashrc", ".profile", ".bash_logout"}
PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
BUILD_MARK = b"gpumesh.image.build"
PROXY = re.compile(
    r"^\s*(?:Acquire::\S*Proxy|(?:export\s+)?(?:https?|all|ftp)_proxy\s*=)", re.IGNORECASE | re.MULTILINE
)
SMALL = 1 << 20
# Kernel file systems and what is made at boot. The container engine mounts its own three files over those of /etc.
LEFT_OUT = ("dev/*", "proc/*", "run/*", "sys/*", "tmp/*", "etc/hostname", "etc/hosts", "etc/resolv.conf")
GPU_UNITS = ("nvidia-persistenced.service", "nvidia-cdi-refresh.service", "gpumesh-gpu-tuning.service")
ACCEPTANCE = "etc/systemd/system/multi-user.target.wants/gpumesh-first-acceptance.service"
HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"


class Refusal(Exception):
    """It cannot be sealed; one sentence."""


@dataclass
class Seal:
    """One file system that is sealed."""

    root: Path
    wanted: dict[str, Any]
    removed: int = 0
    # The public half of the key that the initramfs of an encrypted root shows at the first boot.
    unlock_host_key: str = ""

    def find(self, *patterns: str) -> Iterator[Path]:
        """Paths by patterns, in order; hidden ones, too, and links that lead nowhere."""
        for pattern in patterns:
            for name in sorted(glob.glob(pattern, root_dir=self.root, include_hidden=True)):
                yield self.root / name

    def remove(self, *patterns: str) -> None:
        """Remove files and folders."""
        for path in self.find(*patterns):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            self.removed += 1

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Write one file, with its folders."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def link(self, name: str, target: str) -> None:
        """Make one link."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def text(self, name: str) -> str:
        """What is in a file; nothing where there is none."""
        try:
            return (self.root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def homes(self) -> list[Path]:
        """The home folders that are there."""
        return [path for path in self.find("root", "home/*") if path.is_dir() and not path.is_symlink()]


def clean(seal: Seal) -> None:
    """Remove what belongs to the machine it was built on."""
    seal.remove(*REMOVED, *LOGS)
    for home in seal.homes():
        for name in LITTER:
            seal.remove(str((home / name).relative_to(seal.root)))
        for folder in (home / ".config", home / ".local/share", home / ".local"):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    for folder in ("tmp", "var/tmp"):
        seal.remove(f"{folder}/*")
    clean_logs(seal)
    for path in seal.find("etc/dpkg/dpkg.cfg.d/*"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if "unsafe-io" not in line]
        if kept != lines:
            path.write_text("".join(kept), encoding="utf-8") if any(
                line.strip() for line in kept
            ) else path.unlink()
    for folder in ("partial", "auxfiles"):
        (seal.root / "var/lib/apt/lists" / folder).mkdir(parents=True, exist_ok=True)
    (seal.root / "var/cache/apt/archives/partial").mkdir(parents=True, exist_ok=True)
    (seal.root / "var/cache/ldconfig").mkdir(mode=0o700, parents=True, exist_ok=True)
    shadow(seal)


def clean_logs(seal: Seal) -> None:
    """Remove them; what a program cannot make by itself because the folder is not its own stays, empty."""
    for folder, _folders, files in os.walk(seal.root / "var/log"):
        for name in files:
            path = Path(folder, name)
            if path.is_symlink():
                continue
            seal.removed += 1
            if name in ("wtmp", "btmp", "lastlog") or path.stat().st_uid != os.geteuid():
                os.truncate(path, 0)
            else:
                path.unlink()


def shadow(seal: Seal) -> None:
    """Accounts were not made on the day of the build."""
    path = seal.root / "etc/shadow"
    if not path.is_file():
        return
    day = seal.wanted["epoch"] // 86400
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split(":")
        if len(words) > 2 and words[2].isdigit() and int(words[2]) > day:
            words[2] = str(day)
        lines.append(":".join(words))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def identity(seal: Seal) -> None:
    """What the machine is made of, and the one id that a machine must not share with another."""
    # Empty, not missing: systemd makes one, and does not take the boot for the first of a system that has no presets yet.
    seal.write("etc/machine-id", "", 0o444)
    layers = facts(seal)
    about = {
        "name": seal.wanted["name"],
        "fingerprint": seal.wanted["fingerprint"],
        "epoch": seal.wanted["epoch"],
        "layers": seal.wanted.get("layers") or sorted(layers),
    }
    seal.write("etc/gpumesh/image.json", json.dumps(about, indent=2, sort_keys=True) + "\n")
    seal.write(
        "etc/motd.d/50-gpumesh-image",
        f"Golden image {about['name']}, {about['fingerprint'][:12]}: {', '.join(about['layers']) or 'no layer'}.\n",
    )


def facts(seal: Seal) -> dict[str, Any]:
    """The layers' facts; their time is the image's, because a layer that is reused and one that is rebuilt are the same."""
    path = seal.root / "etc/ansible/facts.d/gpumesh.fact"
    if not path.is_file():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    when = datetime.fromtimestamp(seal.wanted["epoch"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for entry in document["layers"].values():
        entry["when"] = when
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return dict(document["layers"])


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


def first_boot(seal: Seal) -> None:
    """What is made anew on each machine."""
    wanted, files = seal.wanted, seal.wanted["files"]
    cloud = (
        files["cloud.cfg"]
        .replace("DATASOURCES", json.dumps(wanted["datasources"]))
        .replace("ADMIN", wanted["admin"])
    )
    seal.write("etc/cloud/cloud.cfg.d/95-gpumesh-image.cfg", cloud)
    # Where no source is found it runs all the same, for a network by DHCP and the machine's own host keys.
    seal.write("etc/cloud/ds-identify.cfg", "policy: search,found=all,maybe=all,notfound=enabled\n")
    seal.write("usr/local/lib/gpumesh/first-boot", files["first-boot"], 0o755)
    for program in ("has-gpu", "no-gpu"):
        seal.write(f"usr/local/lib/gpumesh/{program}", files[program], 0o755)
    for unit in ("gpumesh-first-boot.service", "gpumesh-host-keys.service", "gpumesh-no-gpu.service"):
        seal.write(f"etc/systemd/system/{unit}", files[unit])
    enable(seal, "gpumesh-first-boot.service", "multi-user.target")
    enable(seal, "gpumesh-host-keys.service", "ssh.service", "ssh.socket")
    enable(seal, "gpumesh-no-gpu.service", "sysinit.target")
    for unit in GPU_UNITS:
        seal.write(f"etc/systemd/system/{unit}.d/50-gpumesh-image.conf", files["only-with-gpu.conf"])
    acceptance = os.path.lexists(seal.root / ACCEPTANCE)
    if wanted["first_boot_acceptance"] and not acceptance:
        raise Refusal(
            "golden_image_first_boot_acceptance is set, but the image does not have the unit gpumesh-first-acceptance.service; "
            "add 'validation' to golden_image_layers"
        )
    if acceptance:
        # It holds the id of the machine that must not run it, which is gone.
        seal.write("var/lib/gpumesh/first-acceptance", "the machine that the image was built on\n")
    network(seal)


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


def enable(seal: Seal, unit: str, *targets: str, at: str = "/etc/systemd/system") -> None:
    """As `systemctl enable` does, which needs no running systemd, either, but a systemd of the image's release."""
    for target in targets:
        seal.link(f"etc/systemd/system/{target}.wants/{unit}", f"{at}/{unit}")


def network(seal: Seal) -> None:
    """networkd runs what netplan generates, and resolved answers. Units that a release does not have are left out."""
    for unit, target in (
        ("systemd-networkd.service", "multi-user.target"),
        ("systemd-networkd.socket", "sockets.target"),
        ("systemd-networkd-wait-online.service", "network-online.target"),
        ("systemd-resolved.service", "sysinit.target"),
    ):
        if (seal.root / "usr/lib/systemd/system" / unit).exists():
            enable(seal, unit, target, at="/usr/lib/systemd/system")
    # D-Bus starts them by their alias.
    for name, unit in (("network1", "systemd-networkd.service"), ("resolve1", "systemd-resolved.service")):
        if (seal.root / "usr/lib/systemd/system" / unit).exists():
            seal.link(
                f"etc/systemd/system/dbus-org.freedesktop.{name}.service", f"/usr/lib/systemd/system/{unit}"
            )


def bytecode(seal: Seal) -> None:
    """Compiled Python names the time of its source. That becomes the image's, so the compiled file has to say the same."""
    epoch = seal.wanted["epoch"]
    for top in ("usr/lib/python3", "usr/local", "opt", "usr/share"):
        for folder, _folders, files in os.walk(seal.root / top):
            if not folder.endswith("/__pycache__"):
                continue
            for name in files:
                source = Path(folder).parent / f"{name.partition('.')[0]}.py"
                if not name.endswith(".pyc") or not source.is_file():
                    continue
                if source.stat().st_mtime <= epoch:
                    continue
                with open(os.path.join(folder, name), "r+b") as compiled:
                    head = compiled.read(12)
                    # Flags other than 0: the file goes by the content of its source.
                    if len(head) == 12 and head[4:8] == bytes(4) and head[8:12] != struct.pack("<I", epoch):
                        compiled.seek(8)
                        compiled.write(struct.pack("<I", epoch & 0xFFFFFFFF))


def look(seal: Seal) -> list[str]:
    """What must not be in an image, one sentence each."""
    found = []
    for name in ("etc", "home", "root", "var/lib", "usr/local/bin", "usr/local/lib/gpumesh", "opt/gpumesh"):
        for path in small_files(seal.root / name):
            content = path.read_bytes()
            shown = f"/{path.relative_to(seal.root)}"
            if PRIVATE_KEY.search(content) and path.suffix not in (".py", ".pyc", ".md"):
                found.append(
                    f"{shown} holds a private key, which every machine of the image would share. Remove it in the layer that puts it there"
                )
            if BUILD_MARK in content:
                found.append(
                    f"{shown} names the build ({BUILD_MARK.decode()}). Remove it in the layer that puts it there"
                )
    proxy = seal.wanted.get("proxy") or None
    for path in seal.find(
        "etc/apt/apt.conf",
        "etc/apt/apt.conf.d/*",
        "etc/environment",
        "etc/environment.d/*",
        "etc/profile.d/*",
        "etc/systemd/system/*.d/*.conf",
        "etc/default/docker",
        "root/.docker/config.json",
    ):
        if (
            path.is_file()
            and PROXY.search(text := path.read_text(encoding="utf-8", errors="replace"))
            and (proxy is None or proxy not in text)
        ):
            found.append(
                f"/{path.relative_to(seal.root)} names a proxy, which is the builder's and not the machine's. "
                "Give it to the build with golden_image_apt_proxy, or declare it for the machines with base_apt_proxy"
            )
    found += [
        f"/{path.relative_to(seal.root)} was left in root's home. Remove it in the layer that puts it there"
        for path in seal.find("root/*")
        if path.name not in AT_HOME
    ]
    found += [
        f"/{path.relative_to(seal.root)} lets a key in that is not the machine's own"
        for path in seal.find(
            "home/*/.ssh/authorized_keys*", "root/.ssh/authorized_keys*", "etc/ssh/authorized_keys.d/*"
        )
    ]
    for line in seal.text("etc/shadow").splitlines():
        words = line.split(":")
        if len(words) > 1 and words[1].startswith("$") and words[0] not in seal.wanted.get("passwords", []):
            found.append(
                f"The account {words[0]} has a password, which every machine of the image would share. "
                "Set it on the machines, not in the image"
            )
    return found


def small_files(top: Path) -> Iterator[Path]:
    """Regular files of which all can be read quickly."""
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file() and path.stat().st_size < SMALL:
                yield path


def archive(seal: Seal, side: Path = Path("/run/gpumesh-seal")) -> None:
    """All of it to standard output: sorted, and nothing newer than the image. The engine's own export could do neither, and it
    would have the engine's empty files in place of three of ours."""
    shutil.rmtree(side, ignore_errors=True)
    side.mkdir(parents=True)
    (side / "hosts").write_text(HOSTS, encoding="utf-8")
    (side / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    subprocess.run(
        [
            "tar", "--create", "--file=-", "--format=posix", "--sort=name", "--numeric-owner", "--xattrs",
            "--xattrs-include=security.capability", "--clamp-mtime", f"--mtime=@{seal.wanted['epoch']}",
            "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "--anchored",
            *(f"--exclude={name}" for name in LEFT_OUT), f"--transform=flags=r;s,^{side.name}/,etc/,",
            f"--directory={seal.root}", *sorted(set(os.listdir(seal.root)) - {".dockerenv"}),
            f"--directory={side.parent}", f"{side.name}/hosts", f"{side.name}/resolv.conf",
        ],
        check=True,
    )  # fmt: skip


def main() -> None:
    """Seal, look, and hand it over."""
    seal = Seal(Path("/"), json.loads(sys.argv[1]))
    try:
        clean(seal)
        identity(seal)
        boot(seal)
        first_boot(seal)
        if seal.wanted.get("luks_uuid"):
            luks(seal)
        bytecode(seal)
        problems = look(seal)
    except Refusal as refusal:
        problems = [str(refusal)]
    if problems:
        sys.exit("\n".join(problems))
    if seal.wanted.get("archive", True):
        archive(seal)
    print(json.dumps({"removed": seal.removed, "unlock_host_key": seal.unlock_host_key}), file=sys.stderr)


if __name__ == "__main__":
    main()
