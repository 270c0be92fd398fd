# SPDX-License-Identifier: GPL-3.0-or-later
"""A little Docker daemon behind the command line of ``docker``, for tests of what gives containers their GPUs.

It answers the commands that gpu_containers uses, as Docker 29 does, and keeps containers and images. Its faults are set by
attributes. `tests/integration/test_gpu_containers.py` holds the real Docker against the same code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._host import gpu_programs
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.gpu_programs import Ran

LABEL = "gpumesh.acceptance"


@dataclass
class LittleContainer:
    """One container."""

    name: str
    image: str
    maker: str = ""
    runtime: str = "runc"
    requests: str = "null"
    legacy: bool = False
    running: bool = True
    says: str = ""
    status: int = 0
    device: str = ""


@dataclass
class LittleDocker:
    """The daemon with its containers.

    Attributes:
        uuids: of the machine's GPUs.
        hidden: of these, those that containers do not get; by the number of the container, or `None` for all.
        legacy: containers lose their GPUs at a daemon-reload.
        refuses: containers do not start, and this is why.
        computes: what a program in a container of a framework's image prints.
        interrupted_at: the command at which a Ctrl-C comes; the daemon carries it out all the same.
    """

    uuids: Sequence[str]
    cdi_folder: str = ""
    runtimes: Sequence[str] = ("runc", "nvidia")
    hidden: dict[int | None, set[str]] = field(default_factory=dict)
    legacy: bool = False
    refuses: str = ""
    answers: bool = True
    systemd: bool = True
    dies: bool = False
    computes: Sequence[str] = ()
    images: dict[str, str] = field(default_factory=dict)
    containers: dict[str, LittleContainer] = field(default_factory=dict)
    interrupted_at: str = ""
    reloaded: bool = False
    made: int = 0
    commands: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, command: Sequence[str], seconds: float) -> Ran:
        """Run a program of the machine."""
        self.commands.append(tuple(command))
        if command[0] == "nvidia-smi":
            return Ran(0, "".join(f"GPU: (UUID: {uuid})\n" for uuid in self.uuids), "")
        if command[0] == "systemctl":
            self.reloaded = self.systemd
            return Ran(0, "", "") if self.systemd else Ran(1, "", "System has not been booted with systemd")
        if command[0] != "docker":
            return gpu_programs.run(command, seconds)
        if not self.answers:
            return Ran(1, "", "Cannot connect to the Docker daemon")
        words = list(command[1:])
        if words[0] == "image":
            words = [f"image {words[1]}", *words[2:]]
        answer: Ran = getattr(self, f"_{words[0].replace(' ', '_')}")(words[1:])
        if words[0] == self.interrupted_at:
            self.interrupted_at = ""
            raise KeyboardInterrupt
        return answer

    def _info(self, _words: list[str]) -> Ran:
        said = {
            "Runtimes": {name: {} for name in self.runtimes},
            "CDISpecDirs": [self.cdi_folder] if self.cdi_folder else [],
        }
        return Ran(0, json.dumps(said) + "\n", "")

    def _import(self, words: list[str]) -> Ran:
        change, _file, name = words
        self.images[name] = change.rpartition("=")[2]
        return Ran(0, "sha256:1\n", "")

    def _run(self, words: list[str]) -> Ran:
        options = {word.partition("=")[0]: word.partition("=")[2] for word in words if word.startswith("--")}
        if self.refuses:
            return Ran(125, "", f"docker: Error response from daemon: {self.refuses}")
        image = next(word for word in words if not word.startswith("--"))
        if image not in self.images:
            return Ran(125, "", f"docker: Error response from daemon: No such image: {image}")
        name = options["--name"]
        self.containers[name] = LittleContainer(
            name,
            image,
            maker=options["--label"].partition("=")[2],
            runtime=options.get("--runtime", "runc"),
            legacy=self.legacy,
            running=not self.dies,
            says=self.computes[self.made % len(self.computes)] if self.computes else "",
            device=options.get("--device", ""),
        )
        self.made += 1
        return Ran(0, "c0ffee\n", "")

    def _exec(self, words: list[str]) -> Ran:
        number = int(words[0].rpartition("-")[2])
        lost = self.hidden.get(number, set()) | self.hidden.get(None, set())
        one = self.containers[words[0]].device.rpartition("=")[2]
        given = [self.uuids[int(one)]] if one.isdigit() else self.uuids
        said = "".join(f"GPU: (UUID: {uuid})\n" for uuid in given if uuid not in lost)
        if self.reloaded and self.containers[words[0]].legacy:
            return Ran(2, said, "/bin/sh: 1: cannot open /dev/nvidia0: Operation not permitted")
        return Ran(0, said, "")

    def _ps(self, words: list[str]) -> Ran:
        ours = any(word.startswith("--filter") for word in words)
        found = [one.name for one in self.containers.values() if (one.maker or not ours)]
        return Ran(0, "".join(f"{name}\n" for name in found), "")

    def _image_ls(self, words: list[str]) -> Ran:
        ours = any(word.startswith("--filter") for word in words)
        return Ran(0, "".join(f"{name}\n" for name, maker in self.images.items() if maker or not ours), "")

    def _inspect(self, words: list[str]) -> Ran:
        form, names = words[0], words[1:]
        lines = []
        for name in names:
            one: Any = self.containers.get(name)
            if "Labels" in form:
                lines.append(one.maker if one else self.images.get(name, ""))
            elif "Running" in form:
                lines.append(str(one.running).lower())
            else:
                lines.append(f"/{one.name} {one.runtime} {one.requests}")
        return Ran(0, "".join(f"{line}\n" for line in lines), "")

    def _wait(self, words: list[str]) -> Ran:
        return Ran(0, f"{self.containers[words[0]].status}\n", "")

    def _logs(self, words: list[str]) -> Ran:
        return Ran(0, f"loading\n{self.containers[words[0]].says}\n", "")

    def _rm(self, words: list[str]) -> Ran:
        there = self.containers.pop(words[-1], None)
        return Ran(0, f"{words[-1]}\n" if there else "", "" if there else "No such container")

    def _image_rm(self, words: list[str]) -> Ran:
        self.images.pop(words[-1], None)
        return Ran(0, "", "")
