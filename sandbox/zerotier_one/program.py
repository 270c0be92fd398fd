# SPDX-License-Identifier: GPL-3.0-or-later
"""One program under three names, as with the real one: the daemon, ``zerotier-cli`` and ``zerotier-idtool``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .build import installed


def main(arguments: Sequence[str]) -> int:
    """Run what the name or the first switch asks for; the exit status."""
    name, words = Path(arguments[0]).name, arguments[1:]
    build = installed()
    # Each is loaded when it is needed: the daemon starts in a fraction of a second, and the tools in less.
    if name == "zerotier-cli" or words[:1] == ["-q"]:
        from . import cli

        return cli.main(words, build)
    if name == "zerotier-idtool" or words[:1] == ["-i"]:
        from . import idtool

        return idtool.main(words, build)
    from . import daemon

    return daemon.main(words, build)
