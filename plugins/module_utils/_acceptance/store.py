# SPDX-License-Identifier: GPL-3.0-or-later
"""Where runs are kept: a folder each, with run.json in it that is whole at every moment, and one lock a machine.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .._fleet.errors import FleetError
from .document import DocumentError, from_document, to_document
from .record import Run

RUN, SAMPLES, JUNIT, ERRORS, REPORT = "run.json", "samples.jsonl", "junit.xml", "errors.log", "report.html"
LATEST = "latest"


class StoreError(FleetError):
    """A run cannot be kept, or is not to be found."""


def new_folder(base: Path, suite: str, now: float) -> Path:
    """The folder of a new run; its name is the run's id."""
    stem = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{suite}"
    runs = base / "runs"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            folder = runs / (stem if number == 1 else f"{stem}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as problem:
        raise StoreError(
            f"{runs} cannot be written: {problem.strerror}", hint="Name another place with --folder"
        ) from problem
    raise StoreError(f"{runs} has a thousand runs of this second", hint="Name another place with --folder")


def write(folder: Path, run: Run) -> None:
    """Keep a run. Whoever reads at any moment, or after a loss of power, finds the old document or the new one."""
    write_text(
        folder / RUN, json.dumps(to_document(run), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole.

    Raises:
        StoreError: the disk is full, or the folder is gone.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as problem:
        raise StoreError(
            f"{path} cannot be written: {problem.strerror}",
            hint="Make room there, or name another place with --folder",
        ) from problem


def find(base: Path, named: str) -> Path:
    """The run.json of a run.

    Args:
        base: where runs are kept.
        named: an id, a folder, a file, or ``latest``.

    Raises:
        StoreError: there is none.
    """
    if named == LATEST:
        found = sorted(base.glob(f"runs/*/{RUN}"), key=lambda path: path.stat().st_mtime)
        if found:
            return found[-1]
        raise StoreError(f"there is no run in {base}", hint="Make one with `gpu-acceptance run`")
    for path in (Path(named), base / "runs" / named):
        if path.is_file():
            return path
        if (path / RUN).is_file():
            return path / RUN
    raise StoreError(
        f"there is no run {named}, neither as a folder nor in {base}/runs", hint=f"See `ls {base}/runs`"
    )


def read(path: Path) -> tuple[Run, Mapping[str, Any]]:
    """A run, and its document as it is.

    Raises:
        StoreError: it cannot be read, or is no run.
    """
    hint = "Name a folder or a run.json that gpu-acceptance wrote"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return from_document(document), document
    except OSError as problem:
        raise StoreError(f"{path} cannot be read: {problem.strerror}", hint=hint) from problem
    except DocumentError as problem:
        raise StoreError(f"{path}: {problem}", hint=hint) from problem
    except ValueError as problem:
        raise StoreError(f"{path} is no JSON: {problem}", hint=hint) from problem


def lock_file() -> Path:
    """The lock is one for the machine, whoever runs and wherever the run is kept, for they would share the GPUs."""
    named = os.environ.get("GPUMESH_ACCEPTANCE_LOCK")
    if named:
        return Path(named)
    folder = Path("/run/lock")
    return (folder if folder.is_dir() else Path(tempfile.gettempdir())) / "gpu-acceptance.lock"


@contextlib.contextmanager
def alone(path: Path | None = None) -> Iterator[None]:
    """Refuse to be the second run on this machine. The kernel takes the lock off a process that is killed.

    Raises:
        StoreError: another run is going on.
    """
    path = path or lock_file()
    try:
        handle = _open(path)
    except OSError as problem:
        raise StoreError(
            f"the lock {path} cannot be opened: {problem.strerror}",
            hint="Name another file with the variable GPUMESH_ACCEPTANCE_LOCK",
        ) from problem
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(handle, 20).decode("ascii", "replace").strip()
            raise StoreError(
                f"another run of gpu-acceptance is going on on this machine{f' (process {pid})' if pid else ''}",
                hint="Wait for its end; two at once would measure each other",
            ) from None
        _sign(path)
        yield
    finally:
        os.close(handle)


def _sign(path: Path) -> None:
    """Say who has the lock, for the message of whoever is refused. A file of somebody else cannot be written."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")


def _open(path: Path) -> int:
    """Reading is enough for a lock, so that the file may be another user's."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o644)
