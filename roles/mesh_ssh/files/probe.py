# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role has to know about a machine before it may change it, as one JSON object. Reads only, as root.

usage: python3 - NAME_OF_THE_BLOCK A_HOSTS_FILE... < probe.py
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

CONFIG = Path("/etc/ssh/ssh_config")
DROP_INS = "/etc/ssh/ssh_config.d/"


def text(path: Path) -> str:
    """The content of a file; empty where it is missing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def reads_drop_ins() -> bool:
    """Whether every connection reads the drop-ins: an Include behind a Host line is for that host only."""
    for line in text(CONFIG).splitlines():
        words = line.split()
        if words and words[0].lower() in ("host", "match"):
            return False
        if words and words[0].lower() == "include" and any(word.startswith(DROP_INS) for word in words[1:]):
            return True
    return False


def hosts_file(path: str, block: str) -> dict[str, object]:
    """How a hosts file stands with our block, and whether it is made anew at every boot from a template."""
    content = text(Path(path))
    lines = [line.strip() for line in content.splitlines()]
    markers = [line for line in lines if line in (f"# {block} begin", f"# {block} end")]
    return {
        "there": Path(path).exists(),
        "ours": bool(markers),
        "damaged": markers not in ([], [f"# {block} begin", f"# {block} end"]),
        # What cloud-init writes at the head of the file where it is told to keep it.
        "kept_by_cloud_init": bool(re.search(r"configured 'manage_etc_hosts' as True", content)),
    }


def main() -> None:
    """Print what is."""
    block, *paths = sys.argv[1:]
    print(
        json.dumps(
            {
                "ssh": shutil.which("ssh", path="/usr/bin:/bin:/usr/local/bin") is not None,
                "drop_ins": reads_drop_ins(),
                "hosts": {path: hosts_file(path, block) for path in paths},
            }
        )
    )


if __name__ == "__main__":
    main()
