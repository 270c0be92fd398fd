# SPDX-License-Identifier: GPL-3.0-or-later
"""Real golden images, built as a user builds them, in a store of their own.

Run by `make image` (`tools/test image`): it takes minutes, a container engine and mmdebstrap. Every run declares a layer base that no
run before it had: the engine keeps layers, and what a test finds built must not depend on them. All but the lowest go in the end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the tools there is nothing to test."""
    missing = [program for program in ("docker", "mmdebstrap") if shutil.which(program) is None]
    if missing:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"needs {' and '.join(missing)}"))


@dataclass(frozen=True)
class Run:
    """What came of a playbook."""

    status: int
    text: str

    @property
    def said(self) -> str:
        """Everything it printed on one line, without the quoting of YAML."""
        return " ".join(self.text.split()).replace("''", "'")

    @property
    def changed(self) -> int:
        """How many tasks changed something, on all hosts together."""
        return sum(map(int, re.findall(r"changed=(\d+)", self.text)))

    @property
    def tasks(self) -> list[str]:
        """The names of its tasks, in the order in which they began."""
        return re.findall(r"^TASK \[(.+?)\] ", self.text, re.MULTILINE)

    @property
    def built(self) -> list[str]:
        """The layers that were built."""
        return re.findall(r"^TASK \[.*layer \| Keep it\]", self.text, re.MULTILINE)


def never_built() -> dict[str, str]:
    """Variables of layers that make the layer base differ from every other."""
    return {"base_fail2ban_bantime": f"{uuid.uuid4().int % 10**8}s"}


@dataclass(frozen=True)
class Builder:
    """Builds images into one store."""

    store: Path
    home: Path
    variables: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)
    """Variables of layers; those of a command come on top."""

    def command(self, playbook: str, *arguments: str, **variables: Any) -> list[str]:
        layers = {**self.layers, **variables.pop("golden_image_variables", {})}
        wanted = {
            **self.variables,
            "golden_image_store": str(self.store),
            "golden_image_variables": layers,
            **variables,
        }
        return [
            str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-e", json.dumps(wanted), *arguments,
            str(ROOT / "playbooks" / playbook),
        ]  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "NO_COLOR": "1",
        }

    def play(self, playbook: str, *arguments: str, **variables: Any) -> Run:
        """Run a playbook to its end."""
        done = subprocess.run(
            self.command(playbook, *arguments, **variables),
            cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=3000, check=False,
        )  # fmt: skip
        return Run(done.returncode, done.stdout + done.stderr)

    def build(self, *arguments: str, **variables: Any) -> Run:
        """Build the image."""
        return self.play("image.yml", *arguments, **variables)

    def folder(self, name: str, version: str) -> Path:
        """Where a version is kept."""
        return self.store / name / f"{name}-v{version}"

    def current(self, name: str) -> str:
        """The version that is current."""
        return os.readlink(self.store / name / "current").removeprefix(f"{name}-v")


def layers(which: str) -> set[str]:
    """The layers that the engine keeps, by name; all of them, or those of a role."""
    said = subprocess.run(
        ["docker", "images", f"--filter=label={which}", "--format={{.Repository}}:{{.Tag}}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return set(said.stdout.split())


@pytest.fixture(scope="session")
def layers_go() -> Iterator[None]:
    """Layers of these tests are of use to nobody else, but for the lowest one."""
    before = layers("gpumesh.image.layer")
    yield
    gone = layers("gpumesh.image.layer") - layers("gpumesh.image.layer=os") - before
    if gone:
        # Where a test has failed, a container may still be in the way of one.
        subprocess.run(["docker", "image", "rm", *gone], check=False, capture_output=True)


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory, layers_go: None) -> Builder:
    """A store of its own; $GPUMESH_IMAGE_STORE names one to keep."""
    kept = os.environ.get("GPUMESH_IMAGE_STORE", "")
    store = Path(kept) if kept else tmp_path_factory.mktemp("images")
    return Builder(
        store,
        tmp_path_factory.mktemp("home"),
        {"golden_image_name": "proof", "golden_image_kernel": "cloud"},
        never_built(),
    )
