# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that look for GPUs: made of the machine's own shell and libraries, run by Docker or Podman, and gone afterwards.

The image holds nothing of NVIDIA's, so whatever of a GPU is seen in a container was put there by the runtime; and it is made of
files that are here, so nothing is downloaded.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .gpu_programs import Ran

Run = Callable[[Sequence[str], float], Ran]

LABEL = "gpumesh.acceptance"
"""On everything that the acceptance suite makes here; its value is the process that made it."""
LIFETIME_S = 900
"""A container ends by itself, should nobody be left to remove it."""
_SECONDS = 120.0
_PROGRAMS = ("/bin/sh", "/bin/sleep")
_BESIDE = ("libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1")
"""What the real nvidia-smi loads beside the C library; stubs, since glibc 2.34."""
UUID = re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
# Every GPU is listed, and every node can be opened: what a container lost is listed on, but cannot be opened.
_LOOK = (
    "nvidia-smi -L; "
    'for node in /dev/nvidia[0-9]*; do : <"$node" || { echo "$node cannot be opened"; exit 1; }; done'
)


class ContainerError(Exception):
    """The engine did not do what it was asked; one sentence without a full stop.

    Attributes:
        ran: what it said, where it was asked at all.
    """

    def __init__(self, says: str, ran: Ran | None = None) -> None:
        super().__init__(says)
        self.ran = ran


@dataclass(frozen=True, slots=True)
class Route:
    """One way in which an engine gives a container its GPUs."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What a container sees.

    Attributes:
        uuids: of its GPUs.
        problem: what is wrong; empty: it can open every node.
        says: what it said last, whether or not something is wrong.
    """

    uuids: frozenset[str]
    problem: str = ""
    says: str = ""


def routes(info: Mapping[str, Any]) -> list[Route]:
    """The ways that a daemon offers.

    Args:
        info: what ``docker info`` says of it.
    """
    found = []
    if "nvidia" in (info.get("Runtimes") or {}):
        found.append(Route("runtime nvidia", ("--runtime=nvidia", "--env=NVIDIA_VISIBLE_DEVICES=all")))
    if any(_speaks_of_gpus(Path(folder)) for folder in info.get("CDISpecDirs") or []):
        found.append(Route("CDI", ("--device=nvidia.com/gpu=all",)))
    return found


def _speaks_of_gpus(folder: Path) -> bool:
    try:
        files = [file for file in folder.iterdir() if file.suffix in (".yaml", ".json")]
        return any("nvidia.com/gpu" in file.read_text(encoding="utf-8", errors="replace") for file in files)
    except OSError:
        return False


def last_line(ran: Ran) -> str:
    """What a program said last, which is its reason where it failed."""
    lines = f"{ran.out}\n{ran.err}".strip().splitlines()
    return lines[-1].strip()[:300] if lines else ran.says


def archive(run: Run) -> bytes:
    """The files of the image: a shell with what it needs to run."""
    libraries: set[str] = set()
    for program in _PROGRAMS:
        libraries |= set(re.findall(r"(/\S+\.so\S*) \(0x", run(["ldd", program], _SECONDS).out))
    for library in list(libraries):
        libraries |= {str(beside) for name in _BESIDE if (beside := Path(library).parent / name).exists()}
    kept = io.BytesIO()
    with tarfile.open(fileobj=kept, mode="w", dereference=True) as tar:
        for path in (*_PROGRAMS, *sorted(libraries)):
            tar.add(path, arcname=path.lstrip("/"))
        for name, text in (("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n"), ("tmp/.keep", "")):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return kept.getvalue()


class Containers:
    """Containers of our own. Whatever ends the ``with``, they and their image are removed, and nobody else's is touched.

    Args:
        run: runs a program.
        folder: where the archive of the image is put for a moment.
        pause: waits; for what was interrupted in the middle of its start.
        engine: ``docker`` or ``podman``.
        label: on everything that is made; names begin with it, too.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        pause: Callable[[float], None] = time.sleep,
        *,
        engine: str = "docker",
        label: str = LABEL,
    ) -> None:
        self._run = run
        self._folder = folder
        self._pause = pause
        self._engine = engine
        self._label = label
        self._mark = f"{label.replace('.', '-')}-{os.getpid()}"
        self._image = False
        self._begun: list[str] = []
        self._unsure: set[str] = set()

    def __enter__(self) -> Self:
        """Remove what a run left behind that was killed."""
        for listing, removal in (
            (["ps", "--all"], ["rm", "--force", "--volumes"]),
            (["image", "ls"], ["image", "rm", "--force"]),
        ):
            found = self._ask(*listing, f"--filter=label={self._label}", "--format={{.ID}}")
            for one in found.out.split():
                if not _alive(self._maker(one)):
                    self._ask(*removal, one)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove all of it."""
        for name in self._begun:
            self._remove(name)
        if self._image:
            self._ask("image", "rm", "--force", self._mark)

    def _ask(self, *words: str, seconds: float = _SECONDS) -> Ran:
        """What the engine says to a command."""
        return self._run([self._engine, *words], seconds)

    def _maker(self, what: str) -> str:
        # Containers and images both have their labels there.
        return self._ask(
            "inspect", f'--format={{{{index .Config.Labels "{self._label}"}}}}', what
        ).out.strip()

    def _remove(self, name: str) -> None:
        """One that was interrupted in its start may come into being only now."""
        for _try in range(5 if name in self._unsure else 1):
            ran = self._ask("rm", "--force", "--volumes", name)
            if name in ran.out or name not in self._unsure:
                return
            self._pause(1)

    def info(self) -> Mapping[str, Any]:
        """What Docker's daemon says of itself.

        Raises:
            ContainerError: it does not answer.
        """
        ran = self._ask("info", "--format={{json .}}")
        try:
            said = json.loads(ran.out)
        except ValueError:
            said = None
        if not isinstance(said, dict) or ran.status:
            raise ContainerError(f"Docker does not answer: {ran.says}", ran)
        return said

    def image(self) -> str:
        """The name of the image, which is made at the first call.

        Raises:
            ContainerError: it cannot be made.
        """
        if not self._image:
            file = self._folder / f"{self._mark}.tar"
            try:
                file.write_bytes(archive(self._run))
                self._image = True
                change = f"--change=LABEL {self._label}={os.getpid()}"
                ran = self._ask("import", change, str(file), self._mark)
            except OSError as problem:
                raise ContainerError(f"no image could be made: {problem}") from problem
            finally:
                file.unlink(missing_ok=True)
            if ran.status:
                raise ContainerError(f"no image could be made: {ran.says}", ran)
        return self._mark

    def start(
        self, route: Route, image: str = "", command: Sequence[str] = (), *, fetched: bool = False
    ) -> str:
        """Start a container with GPUs; its name.

        Args:
            image: another than our own, with the command to run in it.
            fetched: whether that image may come from a registry.

        Raises:
            ContainerError: it does not start.
        """
        what = image or self.image()
        name = f"{self._mark}-{len(self._begun)}"
        self._begun.append(name)
        self._unsure.add(name)
        words = list(command) or ["/bin/sleep", str(LIFETIME_S)]
        ran = self._ask(
            "run",
            "--detach",
            *([] if image else ["--rm"]),
            *([] if fetched else ["--pull=never"]),
            "--network=none",
            f"--name={name}",
            f"--label={self._label}={os.getpid()}",
            *route.options,
            f"--entrypoint={words[0]}",
            what,
            *words[1:],
        )
        self._unsure.discard(name)
        if ran.status:
            raise ContainerError(f"a container does not start with {route.name}: {ran.says}", ran)
        return name

    def look(self, name: str) -> Look:
        """What a running container sees."""
        ran = self._ask("exec", name, "/bin/sh", "-c", _LOOK)
        says = last_line(ran)
        return Look(frozenset(UUID.findall(f"{ran.out}\n{ran.err}")), says if ran.status else "", says)

    def running(self, names: Iterable[str]) -> bool:
        """Whether all of them run at this moment."""
        return all(
            self._ask("inspect", "--format={{.State.Running}}", name).out.strip() == "true" for name in names
        )

    def ended(self, name: str, seconds: float) -> tuple[int, str]:
        """Wait for the end of a container; its exit status and what it said last."""
        status = self._ask("wait", name, seconds=seconds).out.strip()
        return (int(status) if status.isdigit() else 124), last_line(self._ask("logs", name))

    def local_images(self) -> list[str]:
        """The names of all images that are here."""
        ran = self._ask("image", "ls", "--format={{.Repository}}:{{.Tag}}")
        return [name for name in ran.out.split() if "<none>" not in name]

    def in_danger(self) -> list[str]:
        """Other people's running containers that have GPUs in a way that a daemon-reload can take from them."""
        ids = self._ask("ps", "--quiet").out.split()
        if not ids:
            return []
        told = "{{.Name}} {{.HostConfig.Runtime}} {{json .HostConfig.DeviceRequests}}"
        found = []
        for line in self._ask("inspect", f"--format={told}", *ids).out.splitlines():
            name, _space, rest = line.strip().partition(" ")
            runtime, _space, requests = rest.partition(" ")
            name = name.lstrip("/")
            if name not in self._begun and (runtime == "nvidia" or '"gpu"' in requests):
                found.append(name)
        return found


def _alive(process: str) -> bool:
    """Whether a process is there; what is no number was not made here, and is let be."""
    return not process.isdigit() or Path("/proc", process).exists()
