# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd's files should be, by the toolkit's own word; or what they were before. Changes nothing, as root.

usage: python3 - configure|restore '{"memory": PATH, "default": false}' < containerd.py

Prints {"files": [...]} as the module host_files takes them. One of them is the memory: the main file from before us.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

MAIN = Path("/etc/containerd/config.toml")
DROP_IN = Path("/etc/containerd/conf.d/99-nvidia.toml")
# From this version on containerd reads CDI specifications.
FIRST_WITH_CDI = (1, 7)


def text_of(path: Path) -> str | None:
    """A file's text, None where there is no file."""
    return path.read_text(encoding="utf-8") if path.exists() else None


def reads_cdi() -> bool:
    """Whether the containerd that is installed does."""
    done = subprocess.run(["containerd", "--version"], check=True, capture_output=True, text=True, timeout=30)
    found = re.search(r"\bv?(\d+)\.(\d+)", done.stdout.removeprefix("containerd "))
    return found is not None and (int(found[1]), int(found[2])) >= FIRST_WITH_CDI


def generated(default: bool) -> tuple[str, str]:
    """The main file and the drop-in, as the toolkit makes them out of the main file that is there."""
    with tempfile.TemporaryDirectory() as folder:
        main, drop_in = Path(folder) / MAIN.name, Path(folder) / "conf.d" / DROP_IN.name
        drop_in.parent.mkdir()
        # The tool writes an import of the folder it is given, and knows it again by its name.
        if MAIN.exists():
            text = MAIN.read_text(encoding="utf-8")
            main.write_text(text.replace(f"{MAIN.parent}/", f"{folder}/"), encoding="utf-8")
        command = ["nvidia-ctk", "--quiet", "runtime", "configure", "--runtime=containerd"]
        command += [f"--config={main}", f"--drop-in-config={drop_in}"]
        command += ["--cdi.enabled"] if reads_cdi() else []
        command += ["--nvidia-set-as-default"] if default else []
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            sys.exit(f"'{' '.join(command)}' fails: {done.stderr.strip()}")
        made = [(text_of(path) or "").replace(f"{folder}/", f"{MAIN.parent}/") for path in (main, drop_in)]
    return made[0], made[1]


def same(one: str, other: str) -> bool:
    """Whether two texts say the same; where one is no TOML, whether they are the same."""
    try:
        return tomllib.loads(one) == tomllib.loads(other)
    except ValueError:
        return one == other


def configure(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """The files as they should be. A main file that already says so keeps its text, comments and all."""
    before = text_of(MAIN)
    main, drop_in = generated(wanted["default"])
    if before is not None and same(before, main):
        main = before
    files = [{"path": str(DROP_IN), "content": drop_in}, {"path": str(MAIN), "content": main}]
    memory = Path(wanted["memory"])
    if not memory.exists():
        kept = json.dumps({"before": before, "written": main}, indent=4) + "\n"
        files.append({"path": str(memory), "content": kept, "mode": "0600"})
    return files


def restore(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """The files as they were. What somebody else has changed since stays, less the import of our drop-in's folder."""
    kept = json.loads(Path(wanted["memory"]).read_text(encoding="utf-8"))
    files: list[dict[str, Any]] = [{"path": str(DROP_IN), "state": "absent"}]
    now = text_of(MAIN)
    if now == kept["written"]:
        if kept["before"] is None:
            files.append({"path": str(MAIN), "state": "absent"})
        elif now != kept["before"]:
            files.append({"path": str(MAIN), "content": kept["before"]})
    elif now is not None and [path for path in DROP_IN.parent.glob("*.toml") if path != DROP_IN] == []:
        pattern = re.compile(r'(,\s*)?"' + re.escape(f"{DROP_IN.parent}/*.toml") + r'"')
        files.append({"path": str(MAIN), "content": pattern.sub("", now, count=1)})
    return files


def main() -> None:
    """Print the files."""
    action, wanted = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps({"files": configure(wanted) if action == "configure" else restore(wanted)}))


if __name__ == "__main__":
    main()
