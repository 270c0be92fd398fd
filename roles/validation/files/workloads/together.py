# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the steps of several frameworks at the same time on the same GPUs, each under its own interpreter.

Each computes alone first and then waits; when the last one is ready, all go on at once. What they print is passed on, with the
framework beside each figure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import workload

PROGRAMS = {"pytorch": "torch_step", "tensorflow": "tensorflow_step", "jax": "jax_step"}


class Child:
    """The workload of one framework."""

    def __init__(self, name: str, interpreter: str, options: argparse.Namespace) -> None:
        self.name = name
        self.lines: list[dict[str, Any]] = []
        self.begun, self.ready = threading.Event(), threading.Event()
        self.process = subprocess.Popen(
            [
                interpreter,
                str(Path(__file__).with_name(f"{PROGRAMS[name]}.py")),
                f"--device={options.device}",
                f"--workers={options.workers}",
                f"--size={options.size}",
                f"--share={0.8 / len(options.run):.2f}",
                f"--seconds={options.seconds}",
                "--wait",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            try:
                told = json.loads(line)
            except ValueError:
                continue
            self.lines.append(told)
            self.begun.set()
            if told.get("event") == "progress" and "waits" in str(told.get("says")):
                self.ready.set()
        # At its end nobody needs to wait for it any more.
        self.begun.set()
        self.ready.set()

    def go(self) -> None:
        """Let it go on. One that has ended already does not hear it."""
        if self.process.stdin:
            try:
                self.process.stdin.write("\n")
                self.process.stdin.close()
            except OSError:
                pass

    def of(self, event: str) -> list[dict[str, Any]]:
        """What it printed of a kind."""
        return [line for line in self.lines if line.get("event") == event]

    def problem(self) -> str:
        """Why it did not come to its end; empty: it did."""
        if errors := self.of("error"):
            return str(errors[0]["says"])
        return "" if self.of("end") else f"it ended with status {self.process.returncode}"


def overlap(children: list[Child]) -> float:
    """The seconds in which all of them were stepping."""
    spans = [phase for child in children for phase in child.of("phase") if phase["name"] == "step"]
    if len(spans) < len(children):
        return 0.0
    first_end: float = min(span["end"] for span in spans)
    last_begin: float = max(span["begin"] for span in spans)
    return max(0.0, first_end - last_begin)


def main() -> None:
    """Print the figures that the check ``coexistence`` judges."""
    parser = workload.parser(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=10, help="how long they step")
    parser.add_argument(
        "--with",
        dest="run",
        action="append",
        required=True,
        metavar="FRAMEWORK=PYTHON",
        help="one of pytorch, tensorflow, jax, with its interpreter",
    )
    options = parser.parse_args()
    named = [one.partition("=") for one in options.run]
    if unknown := [name for name, _equals, _python in named if name not in PROGRAMS]:
        parser.error(f"there is no framework {unknown[0]}")
    family: list[Child] = []
    try:
        for name, _equals, interpreter in named:
            family.append(Child(name, interpreter, options))
        follow(family, options)
    except OSError as problem:
        workload.fail(f"{problem.filename} cannot be run: {problem.strerror}")
    finally:
        for child in family:
            child.process.kill()


def follow(family: list[Child], options: argparse.Namespace) -> None:
    """Have them begin at once, and pass on what they print."""
    for child in family:
        child.begun.wait()
    begins = [line for child in family for line in child.of("begin")]
    workload.say(
        "begin",
        workload="together",
        device=options.device,
        gpus=list(range(options.workers)),
        simulated=any(line.get("simulated") for line in begins),
        versions={name: version for line in begins for name, version in line.get("versions", {}).items()},
    )
    for number, child in enumerate(family):
        workload.progress(0.5 * number / len(family), f"{child.name} gets ready")
        child.ready.wait()
    workload.progress(0.5, f"{len(family)} frameworks compute at the same time")
    for child in family:
        child.go()
    for child in family:
        child.reader.join()
        child.process.wait()
    for child in family:
        for line in child.of("figure"):
            workload.say(**line, framework=child.name)
    if problems := [f"{child.name}: {child.problem()}" for child in family if child.problem()]:
        workload.fail("; ".join(problems))
    workload.figure("overlap", round(overlap(family), 2), "s")
    workload.end()


if __name__ == "__main__":
    main()
