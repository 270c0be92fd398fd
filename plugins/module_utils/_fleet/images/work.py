# SPDX-License-Identifier: GPL-3.0-or-later
"""Work folders of builds, in a store's ``.work``: each belongs to a process, and is swept once that is gone.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

RECORD = "build.json"
IDLE_SECONDS = 24 * 3600
"""A folder of which nobody here can tell whose it is, is left alone for so long after the last change in it."""
_PLAYBOOK = re.compile(rb"(?:^|[\0/])\.?ansible-playbook[^\0/]*\0|\0-m\0ansible(?:\.cli\.|\0)playbook\0")
"""In the words of a command, each ended by a zero; some distributions wrap the program, and Python runs it as a module, too."""
_GONE = ".gone-"
"""Begin of the name of a folder that is being removed."""
_NEW = ".new-"
"""Begin of the name of a folder that nobody has said the owner of yet; the number of who makes it follows."""


def open_folder(root: Path, name: str, pid: int | None = None) -> Path:
    """A new work folder.

    Args:
        root: the folder of all work folders.
        name: name of the image.
        pid: the process that it is for; this one by default.
    """
    pid = os.getpid() if pid is None else pid
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = root / f"{name}-{secrets.token_hex(6)}"
    fresh = root / f"{_NEW}{os.getpid()}-{folder.name}"
    fresh.mkdir(mode=0o700)
    record = {"pid": pid, "start_ticks": start_ticks(pid), "name": name, **_here()}
    (fresh / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    return fresh.rename(folder)


def sweep(root: Path) -> tuple[list[str], list[str]]:
    """Remove what builds left that are no more.

    Returns:
        The folders removed, and why others could not be.
    """
    if not root.is_dir():
        return [], []
    swept, left = [], []
    for folder in sorted(each for each in root.iterdir() if each.is_dir() and not each.is_symlink()):
        if not (folder.name.startswith(_GONE) or _is_unmade(folder) or _is_stale(folder)):
            continue
        try:
            discard(folder, root)
        except OSError as problem:
            left.append(f"{folder} could not be removed: {problem.strerror}")
        else:
            swept.append(folder.name)
    return swept, left


def discard(folder: Path, root: Path) -> None:
    """Remove a folder so that nobody ever meets half of it under its name."""
    gone = folder
    if not (folder.parent == root and folder.name.startswith(_GONE)):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            gone = folder.rename(root / f"{_GONE}{folder.name}-{secrets.token_hex(4)}")
        except FileNotFoundError:
            # Somebody else swept it just now.
            return
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(gone)


def start_ticks(pid: int) -> int | None:
    """When a process began, in ticks since the boot; None where there is none. A number is used again, not both.

    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in ("Z", "X") else int(fields[18])


def builder() -> int:
    """The process that a build belongs to: the outermost ansible-playbook that this is run by.

    Where there is none by a name that we know, the outermost process: what is left over then stays for longer, and no build that
    goes on is taken for dead.
    """
    found = None
    outermost = os.getppid()
    for pid in _ancestors():
        outermost = pid
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            break
        if _PLAYBOOK.search(command):
            found = pid
    return found or outermost


def _ancestors() -> Iterator[int]:
    pid = os.getppid()
    while pid > 1:
        yield pid
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        pid = int(text.rpartition(")")[2].split()[1])


def _here() -> dict[str, str]:
    """What numbers of processes are good for: this boot of this machine, and this container."""
    return {
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        "processes": os.readlink("/proc/self/ns/pid"),
    }


def _is_unmade(folder: Path) -> bool:
    pid = folder.name.removeprefix(_NEW).partition("-")[0]
    return folder.name.startswith(_NEW) and pid.isdecimal() and start_ticks(int(pid)) is None


def _is_stale(folder: Path) -> bool:
    try:
        record = json.loads((folder / RECORD).read_bytes())
        pid, ticks = int(record["pid"]), record["start_ticks"]
    except (OSError, ValueError, KeyError, TypeError):
        return _is_idle(folder)
    if any(record.get(key, value) != value for key, value in _here().items()):
        return _is_idle(folder)
    return start_ticks(pid) != ticks or ticks is None


def _is_idle(folder: Path) -> bool:
    """Whether nothing in it changed for long."""
    try:
        newest = max(each.lstat().st_mtime for each in (folder, *folder.iterdir()))
    except OSError:
        return False
    return time.time() - newest > IDLE_SECONDS
