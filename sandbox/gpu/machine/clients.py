# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that give the GPUs something to do. SIMULATED.

Each leaves a note of its own, so that none has to wait for another, and the note of one that was killed counts no more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .places import read_json, write_json

if TYPE_CHECKING:
    from .places import Machine


def load(machine: Machine, address: str) -> int:
    """What a GPU has to do for all of them, in percent."""
    return sum(int(note["percent"].get(address, 0)) for note in running(machine))


def running(machine: Machine) -> list[dict[str, Any]]:
    """The notes of those that are still there."""
    notes = []
    for path in sorted(_folder(machine).glob("*.json")):
        if path.stem.isdigit() and Path(f"/proc/{path.stem}").exists():
            note = read_json(path, {})
            if "percent" in note:
                notes.append({**note, "pid": int(path.stem)})
    return notes


@contextmanager
def working(machine: Machine, percent: Mapping[str, int]) -> Iterator[None]:
    """Be one of them for a while. Who may not write there leaves no trace: then nvidia-smi shows no work.

    Args:
        percent: how much each GPU has to do, by its address.
    """
    note = _folder(machine) / f"{os.getpid()}.json"
    try:
        write_json(note, {"percent": dict(percent)})
    except OSError:
        yield
        return
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _folder(machine: Machine) -> Path:
    return machine.root / "clients"
