# SPDX-License-Identifier: GPL-3.0-or-later
"""A container engine, through its command line: what images and containers there are, and how one is made of the other.

The only place that knows Docker's words. Another engine with the same command line (podman) is another program name.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import Conflict, FleetError, NotFound

Run = Callable[[Sequence[str], float], "subprocess.CompletedProcess[str]"]

_SECONDS = 120.0
_COMMIT_SECONDS = 3600.0
"""A layer with frameworks has gigabytes, and a slow disk takes its time."""

_PREFIX = re.compile(r"^(docker: )?Error( response from daemon)?: ")
_ADVICE = re.compile(r"(See|Run) '\S+ \w+ --help'")


@dataclass(frozen=True, slots=True)
class Image:
    """An image, as the engine keeps it."""

    id: str
    names: tuple[str, ...]
    labels: Mapping[str, str]
    created: datetime


@dataclass(frozen=True, slots=True)
class Container:
    """A container, running or not."""

    id: str
    name: str
    labels: Mapping[str, str]
    created: datetime
    running: bool


def run_program(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a program of the control machine, in no language but English."""
    return subprocess.run(  # noqa: S603
        command,
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=seconds,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


class Engine:
    """Docker, or what has its command line.

    Args:
        program: its name or path.
        run: runs a program; for tests.
    """

    def __init__(self, program: str = "docker", run: Run = run_program) -> None:
        self.program = program
        self._run = run

    def images(self, label: str) -> list[Image]:
        """All images with a label, ``name`` or ``name=value``."""
        ids = self._say("listing images", "image", "ls", "--quiet", "--no-trunc", f"--filter=label={label}")
        return [_image(one) for one in self._inspect("image", ids.split())]

    def containers(self, label: str) -> list[Container]:
        """All containers with a label, ``name`` or ``name=value``."""
        ids = self._say(
            "listing containers", "ps", "--all", "--quiet", "--no-trunc", f"--filter=label={label}"
        )
        return [_container(one) for one in self._inspect("container", ids.split())]

    def image(self, name: str) -> Image | None:
        """One image, or none."""
        found = self._inspect("image", [name])
        return _image(found[0]) if found else None

    def container(self, name: str) -> Container | None:
        """One container, or none."""
        found = self._inspect("container", [name])
        return _container(found[0]) if found else None

    def create(self, image: str, name: str, labels: Mapping[str, str], command: Sequence[str]) -> None:
        """Start a container that runs one command; nothing is fetched from a registry."""
        words = [f"--label={key}={value}" for key, value in labels.items()]
        self._say(
            f"starting a container of {image}",
            *("run", "--detach", "--pull=never", "--network=none", f"--name={name}", *words),
            *(image, *command),
        )

    def execute(self, container: str, command: Sequence[str]) -> str:
        """What a command in a running container prints. One that fails is an error."""
        return self._say(
            f"running {command[0]} in container {container}", "exec", "--user=0", container, *command
        )

    def commit(self, container: str, name: str, labels: Mapping[str, str], command: Sequence[str]) -> str:
        """Make an image of what a container has on its disk, and answer its id."""
        changes = [f"LABEL {json.dumps(key)}={_quoted(value)}" for key, value in labels.items()]
        changes.append(f"CMD {json.dumps(list(command))}")
        words = [f"--change={change}" for change in changes]
        return self._say(
            f"keeping container {container} as {name}",
            *("commit", *words, container, name),
            seconds=_COMMIT_SECONDS,
        ).strip()

    def remove_container(self, container: str) -> None:
        """Stop and remove one, with its anonymous volumes. One that is gone is no error."""
        self._gone(f"removing container {container}", "rm", "--force", "--volumes", container)

    def remove_image(self, image: str) -> bool:
        """Remove one, unless something still stands on it; whether it is gone."""
        return self._gone(f"removing image {image}", "image", "rm", image)

    def _inspect(self, kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
        if not names:
            return []
        # What was removed since it was listed is left out of the answer, with a complaint that is none of ours.
        done = self._ask(f"looking at an {kind}", _SECONDS, kind, "inspect", *dict.fromkeys(names))
        if done.returncode != 0 and not _absent(done.stderr):
            raise self._failure(f"looking at {' '.join(names)}", done.stderr)
        return list(json.loads(done.stdout or "[]"))

    def _gone(self, doing: str, *words: str) -> bool:
        done = self._ask(doing, _SECONDS, *words)
        if done.returncode == 0 or _absent(done.stderr):
            return True
        if re.search(r"(?i)conflict|in use|being used|dependent child", done.stderr):
            return False
        if "already in progress" in done.stderr:
            return True
        raise self._failure(doing, done.stderr)

    def _say(self, doing: str, *words: str, seconds: float = _SECONDS) -> str:
        done = self._ask(doing, seconds, *words)
        if done.returncode != 0:
            raise self._failure(doing, done.stderr or done.stdout)
        return done.stdout

    def _ask(self, doing: str, seconds: float, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return self._run([self.program, *words], seconds)
        except FileNotFoundError as exc:
            raise FleetError(
                f"{doing}: there is no program {self.program} on the control machine",
                hint="Install a container engine, on Debian: sudo apt-get install docker.io",
            ) from exc
        except PermissionError as exc:
            raise FleetError(
                f"{doing}: {self.program} may not be run by this user",
                hint="Name the engine's client in golden_image_engine",
            ) from exc
        except subprocess.TimeoutExpired as exc:
            raise FleetError(
                f"{doing}: {self.program} did not end within {seconds:.0f} s",
                hint=f"See whether the engine answers: {self.program} info",
            ) from exc

    def _failure(self, doing: str, said: str) -> FleetError:
        lines = [line for line in said.splitlines() if line.strip() and not _ADVICE.match(line)]
        reason = _PREFIX.sub("", lines[-1]).strip() if lines else "it said nothing"
        if re.search(r"(?i)permission denied.*(sock|daemon)", said):
            return FleetError(
                f"{doing}: this user may not talk to the container engine",
                hint="Add the user to the group docker and log in again, or run as one that may",
            )
        if re.search(r"(?i)cannot connect to the docker daemon|is the docker daemon running", said):
            return FleetError(
                f"{doing}: no container engine answers",
                hint="Start it: sudo systemctl start docker",
            )
        if re.search(r"(?i)no such image|unable to find image|image not known", said):
            return NotFound(f"{doing}: {reason}", hint="Build again: what is missing is made anew")
        if _absent(said):
            return NotFound(
                f"{doing}: {reason}", hint="Somebody removed the build's container: run the build again"
            )
        if re.search(r"(?i)is not running|is paused", said):
            return FleetError(f"{doing}: {reason}", hint=f"Start it: {self.program} start CONTAINER")
        if re.search(r"(?i)no space left", said):
            return FleetError(f"{doing}: the disk is full", hint=f"Make room: {self.program} system df")
        if re.search(r"(?i)conflict|already in use", said):
            return Conflict(f"{doing}: {reason}", hint="Another build does the same: wait until it has ended")
        return FleetError(f"{doing}: {reason}", hint=f"See whether the engine is well: {self.program} info")


def _absent(said: str) -> bool:
    return bool(re.search(r"(?i)no such (image|container|object)|image not known|no container with", said))


def _quoted(value: str) -> str:
    """A value in a change that is read like a line of a Dockerfile, where $ begins a variable."""
    return json.dumps(value).replace("$", "\\$")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", text).replace("Z", "+00:00"))


def _image(found: Mapping[str, Any]) -> Image:
    labels = (found.get("Config") or {}).get("Labels") or {}
    return Image(found["Id"], tuple(found.get("RepoTags") or ()), labels, _time(found["Created"]))


def _container(found: Mapping[str, Any]) -> Container:
    return Container(
        found["Id"],
        found["Name"].lstrip("/"),
        (found.get("Config") or {}).get("Labels") or {},
        _time(found["Created"]),
        bool(found["State"]["Running"]),
    )
