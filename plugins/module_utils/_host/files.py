# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files that belong together: compare, write, check, and put everything back when the check fails.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Run = Callable[[list[str]], tuple[int, str, str]]
"""Runs a command and gives its exit status and what it printed: ``AnsibleModule.run_command``."""

_CHECK_SECONDS = 60


class FilesError(Exception):
    """The files were refused, and everything is as it was."""


@dataclass(frozen=True)
class Wanted:
    """One file, link, or absence."""

    path: Path
    content: str | None = None
    link: str | None = None
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    absent: bool = False


@dataclass(frozen=True)
class Present:
    """What is at a path now; `content` is None for what is neither a regular file nor a link."""

    exists: bool
    content: bytes | None = None
    link: str | None = None
    uid: int = 0
    gid: int = 0
    mode: int = 0


@dataclass(frozen=True)
class Change:
    """One difference between what is and what is wanted."""

    wanted: Wanted
    present: Present


def look(path: Path) -> Present:
    """Read one path without following a link at its end."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Present(exists=False)
    if stat.S_ISLNK(found.st_mode):
        return Present(exists=True, link=os.readlink(path))
    content = path.read_bytes() if stat.S_ISREG(found.st_mode) else None
    return Present(True, content, None, found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))


def _id(name: str, group: bool) -> int | None:
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid if group else pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def same(wanted: Wanted, present: Present) -> bool:
    """Whether nothing is to be done. An owner that does not exist yet (check mode) counts as a difference."""
    if wanted.absent:
        return not present.exists
    if wanted.link is not None:
        return present.link == wanted.link
    return (
        present.content == (wanted.content or "").encode()
        and present.mode == wanted.mode
        and present.uid == _id(wanted.owner, group=False)
        and present.gid == _id(wanted.group, group=True)
    )


def compare(wanted: list[Wanted]) -> list[Change]:
    """The files that differ, in the order given."""
    pairs = [(item, look(item.path)) for item in wanted]
    for item, present in pairs:
        if present.exists and present.content is None and present.link is None:
            raise FilesError(
                f"{item.path} is a directory or a device, not a file; move it away and run this again"
            )
    return [Change(item, present) for item, present in pairs if not same(item, present)]


def _text(item: Wanted | Present) -> str:
    if item.link is not None:
        return f"-> {item.link}\n"
    if isinstance(item, Wanted):
        return "" if item.absent else item.content or ""
    return (item.content or b"").decode(errors="replace")


def _attributes(item: Wanted | Present) -> str:
    if item.link is not None:
        return "link"
    if isinstance(item, Wanted):
        return "absent" if item.absent else f"{item.owner}:{item.group} {item.mode:04o}"
    return f"{item.uid}:{item.gid} {item.mode:04o}" if item.exists else "absent"


def diff(changes: list[Change]) -> list[dict[str, str]]:
    """The differences as Ansible prints them."""
    return [
        {
            "before": _text(change.present),
            "after": _text(change.wanted),
            "before_header": f"{change.wanted.path} ({_attributes(change.present)})",
            "after_header": f"{change.wanted.path} ({_attributes(change.wanted)})",
        }
        for change in changes
    ]


def _replace(path: Path, content: bytes, uid: int, gid: int, mode: int) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, each of which everybody may read, whatever the umask."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    path.chmod(0o755)


def _link(path: Path, target: str) -> None:
    spare = path.with_name(f".{path.name}.gpumesh")
    spare.unlink(missing_ok=True)
    os.symlink(target, spare)
    os.replace(spare, path)


def write(change: Change) -> None:
    """Carry one change out, atomically for whoever reads the file."""
    wanted = change.wanted
    if wanted.absent:
        wanted.path.unlink(missing_ok=True)
        return
    _make_folder(wanted.path.parent)
    if wanted.link is not None:
        _link(wanted.path, wanted.link)
        return
    uid, gid = _id(wanted.owner, group=False), _id(wanted.group, group=True)
    if uid is None or gid is None:
        raise FilesError(
            f"{wanted.path} should belong to {wanted.owner}:{wanted.group}, and one of them does not exist"
        )
    _replace(wanted.path, (wanted.content or "").encode(), uid, gid, wanted.mode)


def restore(change: Change) -> None:
    """Put back what was there before."""
    path, present = change.wanted.path, change.present
    if not present.exists:
        path.unlink(missing_ok=True)
    elif present.link is not None:
        _link(path, present.link)
    else:
        _replace(path, present.content or b"", present.uid, present.gid, present.mode)


def apply(changes: list[Change], validate: list[list[str]], run: Run) -> None:
    """Write all files, run the checks on them in place, and put all of them back if one check fails."""
    try:
        for change in changes:
            write(change)
        for command in validate:
            if shutil.which(command[0]) is None:
                raise FilesError(
                    f"the check {command[0]} is not installed; the files were put back as they were"
                )
            status, out, err = run(["timeout", str(_CHECK_SECONDS), *command])
            if status != 0:
                said = (err + out).strip() or f"it ended with {status} and said nothing"
                raise FilesError(
                    f"'{' '.join(command)}' refuses the new files, so they were put back as they were: {said}"
                )
    except BaseException:
        for change in reversed(changes):
            restore(change)
        raise
