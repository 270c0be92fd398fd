# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to the machine that the image was built on, and goes."""

from __future__ import annotations

import os
from pathlib import Path

from .system import Seal

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
