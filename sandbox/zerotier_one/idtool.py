# SPDX-License-Identifier: GPL-3.0-or-later
"""The program ``zerotier-idtool``: makes and checks identities. SIMULATED: only their form is checked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .build import Build
from .identity import Identity, generate, read

_HELP = """\
ZeroTier One version {version} (SIMULATED)
Usage: zerotier-idtool <command> [<args>]

Commands:
  generate [<identity.secret>] [<identity.public>]
  validate <identity.secret/public>
  getpublic <identity.secret>
"""


def main(arguments: Sequence[str], build: Build) -> int:
    """Run it; the exit status."""
    match [argument for argument in arguments if argument != "-i"]:
        case ["generate", *files]:
            return _generate(files)
        case ["validate", text]:
            if not _find(text):
                return _invalid(text)
            print(f"{text} is a valid identity")
            return 0
        case ["getpublic", text]:
            found = _find(text)
            if not found:
                return _invalid(text)
            print(found.public, end="")
            return 0
        case _:
            print(_HELP.format(version=build.version), end="")
            return 1


def _generate(files: list[str]) -> int:
    """Write a new identity, over what is there and readable by all, as the real one does."""
    made = generate()
    if not files:
        print(made.secret, end="")
    for name, text in zip(files, (made.secret, made.public), strict=False):
        try:
            Path(name).write_text(text, "ascii")
        except OSError:
            print(f"Error writing to {name}", file=sys.stderr)
            return 1
        print(f"{name} written")
    return 0


def _find(text: str) -> Identity | None:
    """An identity given as it is or as the name of its file."""
    if len(text) > 32 and text[10:11] == ":":
        return read(text)
    try:
        return read(Path(text).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _invalid(text: str) -> int:
    print(f"Identity argument invalid or file unreadable: {text}", file=sys.stderr)
    return 1
