# SPDX-License-Identifier: GPL-3.0-or-later
"""A little container engine behind the command line of ``docker``, with images and containers in one JSON file.

It has what the modules for layers of images ask of an engine, and answers as Docker 20 and 28 do.
`tests/integration/test_image_layers.py` holds the real one against the same code.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LittleEngine:
    """The engine in a folder, as a program and for a test to look into."""

    folder: Path

    @property
    def program(self) -> str:
        """The client."""
        path = self.folder / "engine"
        if not path.exists():
            self.write({"images": [], "containers": [], "outputs": {}, "refuses": {}})
            path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {self.state} "$@"\n')
            path.chmod(0o755)
        return str(path)

    @property
    def state(self) -> Path:
        """Where all of it is."""
        return self.folder / "engine.json"

    def read(self) -> dict[str, Any]:
        """All of it."""
        return dict(json.loads(self.state.read_text()))

    def write(self, state: dict[str, Any]) -> None:
        """Have it be this."""
        self.state.write_text(json.dumps(state))

    def change(self, **what: Any) -> None:
        """Have a part of it be this."""
        self.write({**self.read(), **what})

    def add_image(
        self, name: str, labels: dict[str, str], created: str = "2026-11-27T12:00:00.123456789Z"
    ) -> None:
        """An image more."""
        images = self.read()["images"]
        one = {
            "Id": f"sha256:{len(images):064x}",
            "RepoTags": [name],
            "Created": created,
            "Config": {"Labels": labels},
        }
        self.change(images=[*images, one])

    def add_container(
        self, name: str, labels: dict[str, str], created: str = "2026-11-27T12:00:00.1Z"
    ) -> None:
        """A container more, which runs."""
        containers = self.read()["containers"]
        one = {"Id": f"{len(containers):064x}", "Name": f"/{name}", "Created": created, "Config": {"Labels": labels}, "State": {"Running": True}}  # fmt: skip
        self.change(containers=[*containers, one])

    def image_names(self) -> list[str]:
        """What it has."""
        return [name for one in self.read()["images"] for name in one["RepoTags"]]

    def container_names(self) -> list[str]:
        """What it has."""
        return [one["Name"][1:] for one in self.read()["containers"]]


class Refusal(Exception):
    """What the engine says and does not do."""


def _has(one: dict[str, Any], words: list[str]) -> bool:
    wanted = [word.partition("label=")[2] for word in words if word.startswith("--filter=label=")]
    labels = (one["Config"] or {}).get("Labels") or {}
    return all(labels.get(name) == value if sign else name in labels for name, sign, value in (each.partition("=") for each in wanted))  # fmt: skip


def _named(one: dict[str, Any], name: str) -> bool:
    return name in (one["Id"], one.get("Name", "/")[1:], *one.get("RepoTags", []))


def _inspect(found: list[dict[str, Any]], kind: str, names: list[str]) -> str:
    there = [one for name in names for one in found if _named(one, name)]
    missing = [name for name in names if not any(_named(one, name) for one in found)]
    print(json.dumps(there))
    if missing:
        raise Refusal(f"Error response from daemon: No such {kind}: {missing[0]}")
    return ""


def _labels(words: list[str]) -> dict[str, str]:
    pairs = [word.removeprefix("--label=") for word in words if word.startswith("--label=")]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def answer(state: dict[str, Any], words: list[str]) -> str:
    """Do it, and answer what is printed."""
    match words:
        case ["image", "ls", *rest]:
            return "".join(f"{one['Id']}\n" for one in state["images"] if _has(one, rest))
        case ["ps", *rest]:
            return "".join(f"{one['Id']}\n" for one in state["containers"] if _has(one, rest))
        case [("image" | "container") as kind, "inspect", *names]:
            return _inspect(state[f"{kind}s"], kind, names)
        case ["run", *rest]:
            image = next(word for word in rest if not word.startswith("--"))
            if not any(_named(one, image) for one in state["images"]):
                raise Refusal(
                    f"docker: Error response from daemon: No such image: {image}.\nSee 'docker run --help'."
                )
            name = next(word for word in rest if word.startswith("--name=")).removeprefix("--name=")
            state["containers"].append({"Id": f"{len(name):064x}", "Name": f"/{name}", "Created": datetime.now(UTC).isoformat(), "Config": {"Labels": _labels(rest)}, "State": {"Running": True}})  # fmt: skip
            return "c0ffee\n"
        case ["exec", _user, name, *command]:
            if not any(_named(one, name) for one in state["containers"]):
                raise Refusal(f"Error response from daemon: No such container: {name}")
            return str(state["outputs"].get(" ".join(command), ""))
        case ["commit", *rest]:
            container, name = (word for word in rest if not word.startswith("--"))
            if not any(_named(one, container) for one in state["containers"]):
                raise Refusal(f"Error response from daemon: No such container: {container}")
            changes = [word.removeprefix("--change=") for word in rest if word.startswith("--change=")]
            pairs = [re.fullmatch(r'LABEL "(.*?)"=(.*)', change) for change in changes]
            labels = {pair[1]: json.loads(pair[2].replace("\\$", "$")) for pair in pairs if pair}
            identity = f"sha256:{len(state['images']):064x}"
            state["images"].append({"Id": identity, "RepoTags": [name], "Created": datetime.now(UTC).isoformat(), "Config": {"Labels": labels}, "Changes": changes})  # fmt: skip
            return f"{identity}\n"
        case ["rm", *rest]:
            state["containers"] = [one for one in state["containers"] if not _named(one, rest[-1])]
            return ""
        case ["image", "rm", name]:
            state["images"] = [one for one in state["images"] if not _named(one, name)]
            return ""
    raise Refusal(f"unknown command: docker {' '.join(words)}")


def main() -> int:
    """Read, do, write."""
    path, *words = sys.argv[1:]
    state = json.loads(Path(path).read_text())
    refusals = [said for start, said in state["refuses"].items() if " ".join(words).startswith(start)]
    if refusals:
        sys.stderr.write(f"{refusals[0]}\n")
        return 1
    try:
        sys.stdout.write(answer(state, words))
    except Refusal as refusal:
        sys.stderr.write(f"{refusal}\n")
        return 1
    Path(path).write_text(json.dumps(state))
    return 0


if __name__ == "__main__":
    sys.exit(main())
