# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealing, step by step."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .archive import archive
from .boot_files import boot
from .bytecode import bytecode
from .clean import clean
from .first_boot import first_boot
from .identity import identity
from .look import look
from .luks import luks
from .system import Refusal, Seal


def main() -> None:
    """Seal, look, and hand it over."""
    # A proxy may have a password, which nobody is to see among the words of a command.
    seal = Seal(Path("/"), json.loads(sys.stdin.read() if sys.argv[1] == "-" else sys.argv[1]))
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
