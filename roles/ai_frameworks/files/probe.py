# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role has to know about a machine before it may change it, as one JSON object. Reads only, as root.

usage: python3 - '{"root": ..., "names": [...], "python": ..., "launchers": [...], "files": [...], "mark": ..., "history": ..., "packages": [...]}' < probe.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

MARKER = "gpumesh.json"
# What an environment is called: its version, its build, and a digest of its lock and Python.
KEY = re.compile(r".+-[0-9a-f]{12}")
# Folders of the system; what is below them may be a place for environments.
SYSTEM = {
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root", "/run",
    "/sbin", "/srv", "/sys", "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/local", "/usr/local/bin", "/usr/local/lib",
    "/usr/local/sbin", "/usr/local/share", "/usr/sbin", "/usr/share", "/usr/src", "/var", "/var/cache", "/var/lib", "/var/log",
    "/var/spool",
    "/tmp", "/var/tmp",  # noqa: S108
}  # fmt: skip


def output(*command: str) -> str:
    """What a command says; empty where it is missing or does not answer."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout


def read(path: Path) -> str:
    """A file; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def python_version(python: str) -> str:
    """The version of an interpreter; empty where it does not run."""
    found = re.match(
        r"\d+\.\d+\.\d+", output(python, "-I", "-c", "import platform; print(platform.python_version())")
    )
    return found[0] if found else ""


def free_gib(root: Path) -> float:
    """Room on the file system that the root is on, or will be."""
    there = next(one for one in (root, *root.parents) if one.exists())
    return round(shutil.disk_usage(there).free / 2**30, 1)


def environments(root: Path) -> dict[str, dict[str, Any]]:
    """The whole environments of each framework, the one in use, and whether something else is in the place of its link."""
    found: dict[str, dict[str, Any]] = {}
    for folder in sorted((root / "envs").glob("*")):
        whole = sorted(one.parent.name for one in folder.glob(f"*/{MARKER}"))
        found[folder.name] = {"whole": whole, "current": "", "foreign": False}
    for link in sorted(root.glob("*")):
        if link.is_symlink():
            entry = found.setdefault(link.name, {"whole": [], "current": "", "foreign": False})
            entry["current"] = Path(os.readlink(link)).name
    for name, entry in found.items():
        entry["foreign"] = (root / name).exists() and not (root / name).is_symlink()
    return found


def empty(folder: Path) -> bool:
    """Whether it is a folder, and has nothing in it."""
    return folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())


def is_link_of_ours(path: Path) -> bool:
    """Whether it leads to where this role's environments are."""
    words = Path(os.readlink(path)).parts if path.is_symlink() else ()
    return len(words) == 3 and words[0] == "envs" and bool(KEY.fullmatch(words[2]))


def belongings(root: Path, names: list[str]) -> tuple[list[Path], list[Path]]:
    """What this role may have put into its folder, in the order in which to take it away, and what is of somebody else.

    This goes by names and kinds, so it holds only where something proves that the folder is the role's.
    """
    cache, envs, guard = root / "cache", root / "envs", root / ".guard"
    own = [path for path in (cache, guard) if path.is_dir() is (path is cache) and os.path.lexists(path)]
    halves = {f".{name}.new": name for name in names}
    links = [
        path
        for path in sorted(root.iterdir())
        if is_link_of_ours(path) and halves.get(path.name, path.name) in names
    ]
    inner = [envs / name for name in names if (envs / name).is_dir()]
    # Environments that somebody has made beside the role's stay.
    if envs.is_dir() and not envs.is_symlink() and sorted(inner) == sorted(envs.iterdir()):
        inner = [envs]
    # The links are a proof, so they go last: whoever is ended half-way still knows what is to go.
    own += inner + links
    return own, [path for path in sorted(root.iterdir()) if path not in own and path.name != "lost+found"]


def folder_of(given: str, names: list[str]) -> dict[str, Any]:
    """Whether the folder may be the role's, what in it is the role's, and what else is there."""
    root = Path(given)
    found: dict[str, Any] = {
        "absolute": root.is_absolute(), "system": os.path.realpath(root) in SYSTEM, "ours": [], "others": [], "empties": False,
    }  # fmt: skip
    if not root.is_absolute() or not os.path.lexists(root):
        return found
    if not root.is_dir():
        return found | {"others": [root.name]}
    own, others = belongings(root, names)
    envs = root / "envs"
    if not any(envs.glob(f"*/*/{MARKER}")) and not any(map(is_link_of_ours, root.iterdir())):
        # Nothing proves that it is the role's. A first run that was killed has left no more than this.
        begun = [
            path for path in envs.glob("*/*") if not KEY.fullmatch(path.name.strip(".").removesuffix(".txt"))
        ]
        if begun and envs in own:
            others.append(envs)
        if os.path.lexists(root / "cache") and not empty(root / "cache") and not (root / ".guard").is_file():
            others.append(root / "cache")
        if others:
            own = []
    found["ours"] = [str(path) for path in own]
    found["others"] = sorted({path.name for path in others})
    # Nobody can take away a mount point, nor would that be ours to do.
    found["empties"] = not (others or found["system"] or os.path.ismount(root) or root.is_symlink())
    return found


def libcuda() -> str:
    """The folder of the driver's CUDA library, as the loader finds it."""
    found = re.search(
        r"libcuda\.so\.1 \([^)]*x86-64[^)]*\) => (\S+)/libcuda\.so\.1", output("ldconfig", "-p")
    )
    return found[1] if found else ""


def installed(names: list[str]) -> list[str]:
    """Those packages that are installed."""
    lines = output("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names).splitlines()
    return sorted({words[0] for words in map(str.split, lines) if words[1:] == ["installed"]})


def main() -> None:
    """Look, and print."""
    asked = json.loads(sys.argv[1])
    root = Path(asked["root"])
    texts = {
        path: read(Path(path)) for path in [*asked["launchers"], *asked["files"]] if os.path.lexists(path)
    }
    print(
        json.dumps(
            {
                "machine": os.uname().machine,
                "python": python_version(asked["python"]),
                "free_gib": free_gib(root),
                "environments": environments(root),
                "folder": folder_of(asked["root"], asked["names"]),
                "libcuda": libcuda(),
                "foreign": sorted(path for path, text in texts.items() if asked["mark"] not in text),
                "ours": sorted(path for path, text in texts.items() if asked["mark"] in text),
                "history": json.loads(read(Path(asked["history"])) or "[]"),
                "installed": installed(asked["packages"]),
                "python_apt": importlib.util.find_spec("apt") is not None,
                "package_lists": any(Path("/var/lib/apt/lists").glob("*_Packages*")),
            }
        )
    )


if __name__ == "__main__":
    main()
