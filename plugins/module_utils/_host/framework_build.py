# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a virtual environment from a lock with hashes, and make such locks; by uv, and uv's own environment by pip.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .framework_environments import (
    BEGUN,
    MARKER,
    SCHEMA,
    EnvironmentsError,
    Place,
    begin,
    distrust,
    marker,
    remove,
    write,
)

LOCK = "gpumesh.lock"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# What a lock holds for: every Python that the distributions bring.
PYTHONS = ">=3.11,<3.14"
MACHINES = "sys_platform == 'linux' and platform_machine == 'x86_64'"


@dataclass(frozen=True)
class Sources:
    """Where wheels come from.

    Attributes:
        index_url: the default index.
        extra_index_urls: asked before it; the first that has a package is the only one for it.
        wheels: folder or page with wheels that are taken into account as well; empty: none.
        offline: whether nothing but that is asked.
    """

    index_url: str
    extra_index_urls: tuple[str, ...] = ()
    wheels: str = ""
    offline: bool = False

    def options(self) -> list[str]:
        """As pip and uv understand them."""
        wheels = [f"--find-links={self.wheels}"] if self.wheels else []
        if self.offline:
            return ["--no-index", *wheels]
        return [
            f"--index-url={self.index_url}",
            *(f"--extra-index-url={url}" for url in self.extra_index_urls),
            *wheels,
        ]

    def trusted(self) -> list[str]:
        """What pip wants to be told besides, of an index that is not behind TLS. Its files are known by the lock's hashes."""
        urls = (self.index_url, *self.extra_index_urls, self.wheels)
        hosts = {urlsplit(url).netloc for url in urls if url.startswith("http://")}
        return [f"--trusted-host={host}" for host in sorted(hosts)]


@dataclass(frozen=True)
class Wanted:
    """An environment as it is to be.

    Attributes:
        version: that of the interpreter.
        tool: `uv` or `pip`, which installs; pip is for uv itself.
    """

    name: str
    lock: str
    python: str
    version: str
    tool: str
    uv: Path
    sources: Sources

    @property
    def key(self) -> str:
        """Its folder: another Python gets another, so that the one in use stays until the new one is whole."""
        # As in the role's templates/keys.json.j2; a test compares.
        digest = hashlib.sha256(f"{minor(self.version)} {self.lock}".encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"

    @property
    def digest(self) -> str:
        """That of its lock."""
        return hashlib.sha256(self.lock.encode()).hexdigest()


def python_version(python: str) -> str:
    """The version of an interpreter."""
    try:
        asked = subprocess.run(
            [python, "-I", "-c", "import platform; print(platform.python_version())"],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise EnvironmentsError(
            f"{python} cannot be run: {problem}; install it, or choose another interpreter"
        ) from problem
    if asked.returncode != 0:
        raise EnvironmentsError(
            f"{python} says: {_last(asked.stderr)}; mend it, or choose another interpreter"
        )
    return asked.stdout.strip()


def minor(version: str) -> str:
    """3.11.2 is of 3.11: an environment lives as long as that."""
    return ".".join(version.split(".")[:2])


def is_whole(place: Place, wanted: Wanted) -> bool:
    """Whether the wanted environment is there, and its Python as well."""
    folder = place.environment(wanted.key)
    return marker(folder).get("lock") == wanted.digest and (folder / "bin" / "python").exists()


def build(place: Place, wanted: Wanted, now: str) -> None:
    """Build it where it will stay, and write its marker last."""
    folder = place.environment(wanted.key)
    distrust(place.root)
    begin(place.root)
    remove(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    steps = _by_pip if wanted.tool == "pip" else _by_uv
    lock = place.folder / f".{wanted.key}.txt"
    lock.write_text(wanted.lock, encoding="utf-8")
    try:
        for command in steps(wanted, folder, lock, place.framework):
            done = started(place, command, place.root)
            if done.returncode != 0:
                raise EnvironmentsError(
                    explained(place.framework, wanted, command, done.stderr or done.stdout)
                )
    finally:
        lock.unlink(missing_ok=True)
    # uv leaves one that anybody may write.
    (folder / ".lock").unlink(missing_ok=True)
    (folder / LOCK).write_text(wanted.lock, encoding="utf-8")
    # A marker that outlives a loss of power must not speak of files that did not.
    subprocess.run(["sync", "--file-system", str(folder)], check=False, capture_output=True)
    write(
        folder / MARKER,
        json.dumps(
            {
                "schema": SCHEMA,
                "framework": place.framework,
                "key": wanted.key,
                "lock": wanted.digest,
                "python": wanted.version,
                "packages": packages(folder),
                "built": now,
            },
            indent=2,
        )
        + "\n",
    )
    # What is on the disk by now includes all of the cache.
    (place.root / "cache" / BEGUN).unlink(missing_ok=True)


def _by_uv(wanted: Wanted, folder: Path, lock: Path, framework: str) -> Iterator[list[str]]:
    uv = str(wanted.uv)
    yield [uv, "venv", "--quiet", f"--python={wanted.python}", f"--prompt={framework}", str(folder)]
    yield [
        uv, "pip", "install", "--quiet", f"--python={folder / 'bin' / 'python'}", "--require-hashes", "--no-build",
        "--compile-bytecode", *wanted.sources.options(), f"--requirement={lock}",
    ]  # fmt: skip


def _by_pip(wanted: Wanted, folder: Path, lock: Path, framework: str) -> Iterator[list[str]]:
    yield [wanted.python, "-m", "venv", f"--prompt={framework}", str(folder)]
    certificates = [f"--cert={CERTIFICATES}"] if Path(CERTIFICATES).exists() else []
    yield [
        str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--isolated", "--disable-pip-version-check", "--no-cache-dir",
        "install", "--require-hashes", "--no-deps", "--only-binary=:all:", *certificates,
        *wanted.sources.options(), *wanted.sources.trusted(), f"--requirement={lock}",
    ]  # fmt: skip


def started(place: Place, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that ends when we are ended."""
    try:
        return subprocess.run(
            ["setpriv", "--pdeathsig=KILL", "--", *command],
            check=False,
            capture_output=True,
            text=True,
            env=environment(place.root),
            cwd=folder,
            pass_fds=(place.guard,) if place.guard >= 0 else (),
        )
    except OSError as problem:
        raise EnvironmentsError(f"{command[0]} cannot be run: {problem}") from problem


def environment(root: Path) -> dict[str, str]:
    """What the programs we start see: nothing of a user's own settings, and everything below the root."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV"))
    }
    return {
        **kept,
        "LC_ALL": "C.UTF-8",
        "UV_CACHE_DIR": str(root / "cache"),
        "UV_LINK_MODE": "hardlink",
        "UV_NO_CONFIG": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_SYSTEM_CERTS": "1",
        "NO_COLOR": "1",
    }


def explained(framework: str, wanted: Wanted, command: list[str], said: str) -> str:
    """An error in words, with what to do."""
    text = _plain(said)
    what = f"the environment {wanted.key} of {framework} could not be built, and nothing that was in use has changed"
    lower = text.lower()
    if "hash" in lower and ("mismatch" in lower or "do not match" in lower):
        advice = (
            "a wheel is not the one that the lock names: either it was changed on its way, or the lock was made from "
            "another index; make the lock anew only if you trust this index"
        )
    elif "no solution" in lower or "not found in the" in lower or "no matching distribution" in lower:
        advice = "the index has not all that the lock names; see that the mirror is whole, or that this is the right index"
    elif "ensurepip" in lower:
        advice = "install the package python3-venv"
    elif "no space left" in lower:
        advice = "make room on the file system, and run this again"
    else:
        advice = "see that the machine reaches the index, and run this again"
    return f"{what}: {advice}. {Path(command[0]).name} says: {text[-1500:] or 'nothing'}"


def _plain(said: str) -> str:
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", said).split())


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[-1]


def packages(folder: Path) -> dict[str, str]:
    """What is installed in an environment, by the names of the folders that wheels leave."""
    found = {}
    for entry in folder.glob("lib/python3*/site-packages/*.dist-info"):
        name, _unused, version = entry.name.removesuffix(".dist-info").partition("-")
        found[name.lower().replace("_", "-")] = version
    return dict(sorted(found.items()))


def make_lock(place: Place, uv: Path, requirements: Sequence[str], sources: Sources, before: str = "") -> str:
    """Resolve requirements, for every Python that there is, to versions with hashes.

    Args:
        before: a lock whose versions are kept where that is possible.
    """
    with tempfile.TemporaryDirectory(prefix="gpumesh-lock-") as name:
        folder = Path(name)
        (folder / "pyproject.toml").write_text(
            f'[project]\nname = "environment"\nversion = "0"\nrequires-python = "{PYTHONS}"\n'
            f'[tool.uv]\nenvironments = ["{MACHINES}"]\n',
            encoding="utf-8",
        )
        (folder / "requirements.in").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        if before:
            (folder / LOCK).write_text(before, encoding="utf-8")
        # An index that cannot hand out a part of a wheel has uv unpack all of it already for this.
        if (place.root / "cache").is_dir():
            begin(place.root)
        done = started(
            place,
            [
                str(uv), "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate",
                f"--python-version={PYTHONS[2:6]}", "--no-build", f"--output-file={LOCK}", *sources.options(),
                "requirements.in",
            ],
            folder,
        )  # fmt: skip
        if done.returncode == 0:
            return (folder / LOCK).read_text(encoding="utf-8")
    raise EnvironmentsError(
        f"no lock could be made for {', '.join(requirements)} of {place.framework}, and nothing has changed: see that the "
        f"index has these versions for Python {PYTHONS}, or declare another version. uv says: {_plain(done.stderr)[-1500:]}"
    )
