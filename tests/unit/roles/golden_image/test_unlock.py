# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that the gate unlocks an encrypted image with, with an ssh of ours. With a machine: tests/slow/test_luks_image.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[4] / "roles" / "golden_image" / "files" / "unlock.py"
SSH = """\
#!/bin/sh
printf '%s\\n' "$@" >"$SAID/words"
cat >"$SAID/stdin"
for word; do case "$word" in UserKnownHostsFile=*) cat "${word#*=}" >"$SAID/known" ;; esac; done
exit "$STATUS"
"""


@pytest.mark.parametrize("status", [0, 255])
def test_the_passphrase_is_said_to_the_machine_that_shows_the_host_key(tmp_path: Path, status: int) -> None:
    """On standard input and nowhere else, without the newline of its file; whether it was taken is the exit status."""
    (tmp_path / "passphrase").write_text("correct horse\n")
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    wanted = {"passphrase_file": str(tmp_path / "passphrase"), "host_key": "ssh-ed25519 AAAA root@builder"}

    done = subprocess.run(
        [sys.executable, str(PROGRAM), json.dumps(wanted)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SAID": str(tmp_path),
            "STATUS": str(status),
            "BOOT_ADDRESS": "192.0.2.7",
            "BOOT_PORT": "2222",
        },
    )

    assert done.returncode == status, done.stderr
    assert (tmp_path / "stdin").read_text() == "correct horse"
    assert (tmp_path / "known").read_text() == "unlock ssh-ed25519 AAAA\n"
    words = (tmp_path / "words").read_text().splitlines()
    assert words[-1] == "root@192.0.2.7"
    assert words[:2] == ["-p", "2222"]
    assert {"StrictHostKeyChecking=yes", "HostKeyAlias=unlock"} <= set(words)
    assert "correct horse" not in "".join(words)
