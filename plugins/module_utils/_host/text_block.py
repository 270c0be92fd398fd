# SPDX-License-Identifier: GPL-3.0-or-later
"""One marked block in a text file that belongs to others. Pure: bytes in, bytes out.

Every byte outside the block stays as it is, and taking the block out gives the file as it was before. What it takes to
know that (no newline at the end, no file at all) is noted in the block itself. A block that somebody has damaged is
refused, because nobody can tell any more which lines are ours.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*( [A-Za-z0-9._-]+)+$")
_LINES = re.compile(rb"[^\n]*\n|[^\n]+")
_UNENDED = b"# (there was no newline at the end of the file before this block)"
_MADE = b"# (the file was made for this block)"


class BlockError(Exception):
    """The file was left as it is, because its block cannot be told from the rest."""


@dataclass(frozen=True)
class _Markers:
    """The lines a block is known by, and those of its relatives, whose names begin with the same word."""

    begin: bytes
    end: bytes
    relatives: re.Pattern[bytes]

    @classmethod
    def of(cls, name: str) -> _Markers:
        if not _NAME.match(name):
            raise BlockError(
                f"'{name}' cannot name a block: it is two words or more of letters, digits, dots and dashes"
            )
        family = re.escape(name.split(" ")[0].encode())
        return cls(
            f"# {name} begin".encode(),
            f"# {name} end".encode(),
            re.compile(rb"^# " + family + rb" .+ (begin|end)$"),
        )


@dataclass(frozen=True)
class _Parts:
    """A file taken apart: the lines before the block, its notes, and the lines behind it."""

    before: tuple[bytes, ...]
    notes: tuple[bytes, ...]
    after: tuple[bytes, ...]


def place(present: bytes | None, name: str, content: str, *, top: bool = False) -> bytes:
    """The file with the block in it.

    Args:
        present: the file as it is, None if there is none.
        name: the block's name: a word that all blocks of one kind begin with, and what tells this one from the others.
        content: the lines of the block.
        top: it stands above all lines that are neither empty, nor comments, nor of blocks of its kind. Otherwise it
            stays where it is, and a new one goes to the end.

    Raises:
        BlockError: the block is damaged.
    """
    markers = _Markers.of(name)
    body = [line.encode() for line in content.splitlines()]
    if any(markers.relatives.match(line.strip()) for line in body):
        raise BlockError(f"the block '{name}' cannot hold a line that begins or ends a block")
    if present is None:
        return _block(markers, (_MADE,), body)
    parts = _take_apart(present, markers)
    if parts and top and not _on_top(parts.before, markers):
        made = tuple(note for note in parts.notes if note == _MADE)
        return _block(markers, made, body) + _without(parts)
    if parts:
        return b"".join((*parts.before, _block(markers, parts.notes, body), *parts.after))
    if top:
        return _block(markers, (), body) + present
    if present and not present.endswith(b"\n"):
        return present + b"\n" + _block(markers, (_UNENDED,), body)
    return present + _block(markers, (), body)


def remove(present: bytes | None, name: str) -> bytes | None:
    """The file without the block; None if there is to be no file, because it was made for the block and is empty now.

    Raises:
        BlockError: the block is damaged.
    """
    parts = _take_apart(present, _Markers.of(name)) if present is not None else None
    if parts is None:
        return present
    rest = _without(parts)
    return None if _MADE in parts.notes and not rest else rest


def present_in(present: bytes, name: str) -> bool:
    """Whether the file has the block.

    Raises:
        BlockError: the block is damaged.
    """
    return _take_apart(present, _Markers.of(name)) is not None


def _block(markers: _Markers, notes: Sequence[bytes], body: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in (markers.begin, *notes, *body, markers.end))


def _take_apart(present: bytes, markers: _Markers) -> _Parts | None:
    """The parts of a file; None if it has no such block."""
    lines = _LINES.findall(present)
    begins = [number for number, line in enumerate(lines) if line.strip() == markers.begin]
    ends = [number for number, line in enumerate(lines) if line.strip() == markers.end]
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise BlockError(
            f"{_where(markers.begin, begins)} and {_where(markers.end, ends)}. Each belongs there once, in this order: "
            "take out what is too much, or all of these lines and what is between them, and run this again"
        )
    inside = lines[begins[0] + 1 : ends[0]]
    if strangers := [line for line in inside if markers.relatives.match(line.strip())]:
        raise BlockError(
            f"'{strangers[0].decode(errors='replace').strip()}' is inside the block that '{markers.begin.decode()}' begins. "
            "Take one of the two out, and run this again"
        )
    notes = tuple(note for note in (_UNENDED, _MADE) if note in {line.strip() for line in inside})
    return _Parts(tuple(lines[: begins[0]]), notes, tuple(lines[ends[0] + 1 :]))


def _where(marker: bytes, numbers: Sequence[int]) -> str:
    places = ", ".join(str(number + 1) for number in numbers)
    return f"'{marker.decode()}' is " + (f"on line {places}" if numbers else "not there")


def _without(parts: _Parts) -> bytes:
    rest = b"".join(parts.before)
    # What somebody has put behind the block since then needs the newline.
    if _UNENDED in parts.notes and not parts.after:
        return rest.removesuffix(b"\n")
    return rest + b"".join(parts.after)


def _on_top(before: Sequence[bytes], markers: _Markers) -> bool:
    """Whether nothing that counts comes before."""
    inside = False
    for line in before:
        if found := markers.relatives.match(line.strip()):
            inside = found[1] == b"begin"
        elif not inside and line.strip() and not line.lstrip().startswith(b"#"):
            return False
    return True
