# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a container look like a cloud's rescue system. SIMULATED: its disk is a file, for a container has none.

``/dev/sda`` is a link to that file, which lies on a volume of its own, and a few programs stand in for those that need
a block device. What is written to the disk is really written, and what is read back is really read. Until it is
overwritten or discarded the disk "holds" the files of the machine's own system that matter: its SSH keys and what
cloud-init keeps.
"""

from __future__ import annotations

import io
import tarfile

FOLDER = "/sandbox"
"""Where the volume with the disk is mounted."""

SYSTEM = f"{FOLDER}/system"
"""The files of the system on the disk."""

KEPT = ("/etc/ssh", "/var/lib/cloud")
"""Folders of a machine that its disk shows in the rescue system."""

_DISK = f"{FOLDER}/disk.img"
_BYTES = 40 * 2**30
_MARK = "SANDBOX-SYSTEM"
"""What the disk begins with while it holds the machine's own system."""

_TOP = "#!/bin/sh\n# SIMULATED: stands in for {name}, since a container has no block device.\nset -eu\n"
_STAND_INS = {
    "lsblk": """\
case "$*" in
  -dnrpo*) echo "/dev/sda disk" ;;
  *) if [ "$(head -c {length} {disk})" = {mark} ]; then echo "/dev/sda1 ext4"; fi ;;
esac
""",
    "mount": """\
mode=rw
if [ "$1" = -o ]; then mode=$2; shift 2; fi
if [ "$(head -c {length} {disk})" != {mark} ]; then
  echo "mount: $2: wrong fs type, bad option, bad superblock on $1" >&2
  exit 32
fi
/usr/bin/mount --bind {system} "$2"
if [ "$mode" = ro ]; then /usr/bin/mount -o remount,bind,ro "$2"; fi
""",
    "blockdev": """\
if [ "$1" = --getsize64 ]; then stat -c %s {disk}; fi
""",
    "blkdiscard": """\
truncate -s 0 {disk}
truncate -s {bytes} {disk}
""",
}
_PREPARE = """\
#!/bin/sh
# SIMULATED: the disk of this rescue system is a file.
set -eu
if [ ! -e {disk} ]; then
  printf %s {mark} >{disk}
  truncate -s {bytes} {disk}
fi
ln -sf {disk} /dev/sda
"""
_UNIT = """\
[Unit]
Description=Disk of the rescue system (sandbox, SIMULATED)
Before=ssh.service cloud-init-local.service
DefaultDependencies=no

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/sandbox-disk
"""


def archive() -> bytes:
    """A tar archive to be unpacked at ``/`` of the rescue system before it starts."""
    words = {
        "disk": _DISK,
        "mark": _MARK,
        "length": len(_MARK),
        "bytes": _BYTES,
        "system": SYSTEM,
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:

        def file(path: str, text: str, mode: int) -> None:
            entry, data = tarfile.TarInfo(path), text.encode()
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))

        for name, text in _STAND_INS.items():
            file(f"usr/local/sbin/{name}", _TOP.format(name=name) + text.format(**words), 0o755)
        file("usr/local/sbin/sandbox-disk", _PREPARE.format(**words), 0o755)
        file("etc/systemd/system/sandbox-disk.service", _UNIT, 0o644)
        link = tarfile.TarInfo("etc/systemd/system/sysinit.target.wants/sandbox-disk.service")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/systemd/system/sandbox-disk.service"
        tar.addfile(link)
        for folder in (SYSTEM, *(f"{SYSTEM}{kept.rpartition('/')[0]}" for kept in KEPT)):
            entry = tarfile.TarInfo(folder.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700
            tar.addfile(entry)
    return stream.getvalue()
