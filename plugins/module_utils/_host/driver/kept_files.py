# SPDX-License-Identifier: GPL-3.0-or-later
"""Files as they are noted for a way back, and put back from the note; and notes as files.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

# A link, or content and mode; None stands for a file that is not there.
Kept: TypeAlias = "dict[str, Any] | None"


def kept(path: str) -> Kept:
    """A file as it is."""
    place = Path(path)
    if place.is_symlink():
        return {"link": str(place.readlink())}
    if not place.is_file():
        return None
    return {"content": base64.b64encode(place.read_bytes()).decode(), "mode": place.stat().st_mode & 0o7777}


def keep(paths: Iterable[str]) -> dict[str, Kept]:
    """Several files as they are."""
    return {path: kept(path) for path in paths}


def content(was: Kept) -> bytes:
    """What was in a file; nothing where there was none."""
    return base64.b64decode((was or {}).get("content", ""))


def put(path: str, was: Kept) -> bool:
    """Make a file as it was; whether that changed anything."""
    if kept(path) == was:
        return False
    place = Path(path)
    place.unlink(missing_ok=True)
    if was is None:
        return True
    place.parent.mkdir(parents=True, exist_ok=True)
    if "link" in was:
        place.symlink_to(was["link"])
        return True
    place.write_bytes(content(was))
    place.chmod(was["mode"])
    return True


# -- notes -------------------------------------------------------------------------------------------------------------


def write_note(path: Path, note: Any) -> None:
    """In one step, so that a killed run leaves the old or the new one.

    The files that it tells of may hold what only root may read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600, exist_ok=False)
    new.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def read_note(path: Path) -> Any:
    """What was noted in a file; None where there is none, or one that was cut off."""
    return parsed(path.read_bytes()) if path.exists() else None


def parsed(text: bytes) -> Any:
    """What a note says; None where it is empty or was cut off."""
    try:
        return json.loads(text)
    except ValueError:
        return None
