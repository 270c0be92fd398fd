# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine of ours with dpkg, apt, DKMS and systemd, as far as the driver's layer asks them. With real ones: tests/hosts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.driver import paths, programs

KERNEL = "6.8.0-90-generic"
OLD = {
    "libnvidia-compute-580": "580.178.04-1ubuntu1",
    "nvidia-dkms-580-open": "580.178.04-1ubuntu1",
    "nvidia-utils-580": "580.178.04-1ubuntu1",
}
NEW = {
    "libnvidia-compute": "595.91.07-1ubuntu1",
    "nvidia-dkms-open": "595.91.07-1ubuntu1",
    "nvidia-utils": "595.91.07-1ubuntu1",
}
# What a trial installs.
TOOLS = dict.fromkeys(("dkms", "kmod", f"linux-headers-{KERNEL}"), "1-1")
PLACES = {
    "MEMORY": "memory",
    "HISTORY": "memory/history.json",
    "HOLDS": "memory/holds.json",
    "TRIAL": "memory/trial",
    "SNAPSHOT": "run/before.json",
    "SCRATCH": "scratch",
    "DKMS": "dkms",
    "NO_BUILD": "etc/dkms/no-autoinstall",
    "SOURCES": "src",
    "MODULES": "modules",
    "APT": "etc/apt",
    "APT_LISTS": "lists",
    "APT_MARKS": "extended_states",
    "DPKG_STATUS": "status",
    "DPKG_UPDATES": "updates",
    "UNITS": "units",
    "PACKAGED_UNITS": "packaged",
}


class Killed(BaseException):
    """The run is ended here by kill -KILL, which nothing catches."""


def full_disk(*_arguments: object, **_options: object) -> None:
    """What Python does where there is no room."""
    raise OSError(28, "No space left on device")


class Machine:
    """What the programs of the machine tell, and what they do to it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.packages = {"bash": "5.2-1"}
        # Packages in any other state than installed.
        self.residues: dict[str, str] = {}
        self.held: set[str] = set()
        self.automatic: set[str] = set()
        # Files that a package has, by their paths.
        self.owned: set[str] = set()
        # What the repositories have, the newest first.
        self.archive = {
            **{name: [version] for name, version in {**OLD, **NEW}.items()},
            **{name: ["1-1"] for name in (*TOOLS, "nvtop")},
        }
        # What else apt removes whenever it removes anything of a name.
        self.dependents: dict[str, str] = {}
        self.built: set[tuple[str, str, str]] = set()
        # Kernels that the module does not compile for.
        self.broken_kernels: set[str] = set()
        # Whether builds were held back during each transaction.
        self.builds_held_back: list[bool] = []
        self.ran: list[list[str]] = []
        # How long each of them might take, in seconds.
        self.limits: list[float | None] = []
        # Where the program that runs is, and where its warnings go.
        self.cwd: Path | None = None
        self.stderr = 0
        # Called before a program is run; may return what came of it.
        self.meanwhile: Callable[[list[str]], tuple[int, str] | None] = lambda words: None
        self.end: tuple[int, bool] | None = None
        self.no_build = ""
        # Whether a run was killed.
        self.died = False
        for name, place in PLACES.items():
            monkeypatch.setattr(paths, name, folder / place)
        monkeypatch.setattr(paths, "DKMS_KEYS", (folder / "dkms" / "mok.key",))
        for name in ("run", "etc/apt/sources.list.d", "lists", "updates"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        self.file = folder / "etc" / "apt" / "sources.list.d" / "gpumesh.sources"
        monkeypatch.setattr(programs.subprocess, "run", self.run)
        monkeypatch.setattr(
            shutil, "which", lambda name, path: f"/usr/sbin/{name}" if name == "dkms" and path else None
        )

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the layer."""
        return (str(self.file),)

    def has(self, *sets: dict[str, str]) -> None:
        """Only these packages, and those of every machine."""
        self.packages = {"bash": "5.2-1"}
        for one in sets:
            self.packages |= one

    def run(self, command: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess[str]:
        """The programs of the machine."""
        words, self.cwd, self.stderr = list(command), options["cwd"], options["stderr"]
        self.ran.append(words)
        self.limits.append(options["timeout"])
        self._kill(after=False)
        answer = self.meanwhile(words)
        if answer is None:
            tool = getattr(self, words[0].replace("-", "_"), None)
            answer = (
                tool([word for word in words[1:] if not word.startswith("--option")]) if tool else (0, "")
            )
        self._kill(after=True)
        return subprocess.CompletedProcess(words, answer[0], answer[1], "")

    def kill_at(self, number: int, *, after: bool) -> None:
        """Have the run killed at its so-manieth program, before or after that has done anything."""
        self.end = (len(self.ran) + number, after)

    def _kill(self, *, after: bool) -> None:
        if self.end == (len(self.ran), after):
            self.end = None
            self.no_build = paths.NO_BUILD.read_text() if paths.NO_BUILD.exists() else ""
            raise Killed

    @contextmanager
    def killed(self) -> Iterator[None]:
        """What is run in here may be killed, and then nothing that Python does in the end was done either."""
        try:
            yield
        except Killed:
            self.died = True
            if self.no_build:
                paths.NO_BUILD.parent.mkdir(exist_ok=True)
                paths.NO_BUILD.write_text(self.no_build)
            paths.SCRATCH.mkdir(exist_ok=True)
        self.end = None

    def did(self, *words: str) -> bool:
        """Whether a program was run with exactly these words, whatever options it got."""
        return any([word for word in ran if not word.startswith("--")] == list(words) for ran in self.ran)

    def dpkg_query(self, words: list[str]) -> tuple[int, str]:
        if words[0] == "-S":
            return (0, "") if words[1] in self.owned else (1, "")
        if words[-1] in ("linux-*",):
            return 0, ""
        if not words[-1].endswith("\\n"):
            version = self.packages.get(words[-1])
            return (0, f"installed {version}") if version else (1, "")
        rows = {name: f"{version}\tinstalled" for name, version in self.packages.items()}
        rows |= {name: f"1\t{state}" for name, state in self.residues.items()}
        return 0, "".join(f"{name}\t{row}\n" for name, row in rows.items())

    def dpkg(self, words: list[str]) -> tuple[int, str]:
        if words[0] == "--purge":
            for name in words[1:]:
                self.packages.pop(name, None)
                self.residues.pop(name, None)
        return 0, ""

    def apt_mark(self, words: list[str]) -> tuple[int, str]:
        match words[0], set(words[1:]):
            case "showhold", _:
                return 0, "\n".join(sorted(self.held))
            case "showmanual", _:
                return 0, "\n".join(sorted(set(self.packages) - self.automatic))
            case "showauto", _:
                return 0, "\n".join(sorted(self.automatic))
            case "hold", names:
                self.held |= names
            case "unhold", names:
                self.held -= names
            case "auto", names:
                self.automatic |= names
            case "manual", names:
                self.automatic -= names
        return 0, ""

    def apt_cache(self, words: list[str]) -> tuple[int, str]:
        words = [word for word in words if not word.startswith("--")]
        names = words[1:]
        if words[0] == "show":
            name, _, version = names[0].partition("=")
            return (0, f"Version: {version}\n") if name in self.archive else (100, "E: No packages found")
        if words[0] == "policy":
            return 0, "".join(
                f"{name}:\n  Installed: (none)\n  Candidate: {self.archive.get(name, ['(none)'])[0]}\n"
                for name in names
            )
        lines = [
            f" {name} | {version} | http://archive stable/main amd64 Packages\n"
            for name in names
            for version in self.archive.get(name, [])
        ]
        return 0, "".join(lines)

    def apt_get(self, words: list[str]) -> tuple[int, str]:
        simulated = "--simulate" in words or "--download-only" in words
        words = [word for word in words if not word.startswith("--")]
        if words[0] == "download" and self.cwd:
            for word in words[1:]:
                (self.cwd / f"{word.replace('=', '_')}.deb").touch()
        if words[0] not in ("install", "purge"):
            return 0, ""
        news, gone = {}, set()
        for word in words[1:]:
            name, _, version = word.partition("=")
            if words[0] == "purge" or word.endswith("-"):
                gone.add(name.removesuffix("-"))
                continue
            version = version or self.packages.get(name) or self.archive.get(name, [""])[0]
            if version not in self.archive.get(name, []) and self.packages.get(name) != version:
                return 100, f"E: Version '{version}' for '{name}' was not found\n"
            if self.packages.get(name) != version:
                news[name] = version
        gone &= set(self.packages)
        gone |= {self.dependents[name] for name in gone if name in self.dependents}
        if not simulated:
            self.builds_held_back.append(paths.NO_BUILD.exists())
            self.packages = {k: v for k, v in self.packages.items() if k not in gone} | news
            self.sources()
        said = [f"Inst {name} ({version})" for name, version in news.items()]
        return 0, "\n".join([*said, *(f"Remv {name}" for name in sorted(gone))]) + "\n"

    def sources(self) -> None:
        """The source trees of the modules that are installed; those that go take with them what was built of them."""
        shutil.rmtree(self.folder / "src", ignore_errors=True)
        for name, version in self.packages.items():
            if "-dkms" in name:
                self.source(version.split("-")[0])
        self.built = {one for one in self.built if (self.folder / "src" / f"{one[0]}-{one[1]}").is_dir()}

    def source(self, version: str, folder: Path | None = None) -> None:
        """The source tree of a module."""
        tree = (folder or self.folder / "src") / f"nvidia-{version}"
        tree.mkdir(parents=True, exist_ok=True)
        (tree / "dkms.conf").touch()

    def dkms(self, words: list[str]) -> tuple[int, str]:
        if words[0] == "status":
            lines = (f"{name}/{version}, {kernel}, x86_64: installed" for name, version, kernel in self.built)
            return 0, "\n".join(sorted(lines))
        options = dict(pairwise(words))
        name, version, kernel = options["-m"], options["-v"], options.get("-k", "")
        tree = next((word.split("=")[1] for word in words if word.startswith("--dkmstree=")), None)
        folder = Path(tree or paths.DKMS) / name / version
        if words[0] in ("build", "install") and kernel in self.broken_kernels:
            (folder / "build").mkdir(parents=True)
            (folder / "build" / "make.log").write_text("gcc -c nv.c\nnv.c:1:2: error: no such thing\n")
            return 10, "Error! Bad return status"
        if words[0] == "build":
            (folder / kernel / "x86_64" / "module").mkdir(parents=True)
            (folder / kernel / "x86_64" / "module" / "nvidia.ko").touch()
        if words[0] == "install":
            self.built.add((name, version, kernel))
        if words[0] == "remove":
            self.built = {
                one for one in self.built if one[:2] != (name, version) or kernel not in ("", one[2])
            }
        return 0, ""

    def dpkg_deb(self, words: list[str]) -> tuple[int, str]:
        name, version = Path(words[1]).stem.split("_")
        self.source(version.split("-")[0], Path(words[2]) / "usr" / "src")
        return 0, name

    def modinfo(self, _words: list[str]) -> tuple[int, str]:
        return 0, "580.178.04\n"

    def systemctl(self, words: list[str]) -> tuple[int, str]:
        return (3 if words[0].startswith("is-") else 0), ""
