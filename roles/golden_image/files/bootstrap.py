# SPDX-License-Identifier: GPL-3.0-or-later
"""Bootstrap a Debian or Ubuntu with mmdebstrap and import it into the container engine, unless it has that image.

It runs on the control machine. What it is told comes on standard input, since a mirror or a proxy may have a password.
The image gets its name last, so that there is never half an image under it; two at once wait for each other.

usage: python3 bootstrap.py <<< '{"image": "gpumesh/image-tools:0123", "lock": "/home/me/.cache/gpumesh/tools.lock", ...}'
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import look

SHOWN_LINES = 15


class BootstrapError(Exception):
    """What is told to the user, in one sentence or with the last lines of a program."""


def engine(wanted: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask the container engine."""
    return subprocess.run(
        [wanted["engine"], *arguments], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def check_engine(wanted: dict[str, Any]) -> None:
    """Refuse to start without a container engine."""
    if look.programs([wanted["engine"]]):
        raise BootstrapError(
            f"There is no command '{wanted['engine']}' on the control machine. "
            "Install a container engine (sudo apt-get install docker.io), or name yours in golden_image_engine"
        )
    if look.engine(wanted["engine"]):
        raise BootstrapError(
            f"No container engine answers '{wanted['engine']} version'. "
            "Start it (sudo systemctl start docker), or let this account use it"
        )


def check_programs(wanted: dict[str, Any]) -> None:
    """Refuse to bootstrap where something is missing on the control machine."""
    missing = ["mmdebstrap", "uidmap"] if look.programs(["mmdebstrap"]) else []
    missing += look.keyrings({key["path"]: key["package"] for key in wanted["keyrings"]}).values()
    if missing:
        raise BootstrapError(
            f"The control machine lacks {' and '.join(missing)}, which bootstrap images. "
            f"Run: sudo apt-get install {' '.join(missing)}"
        )


def lines_of(sources: list[dict[str, Any]]) -> str:
    """The sources as mmdebstrap reads them."""
    return "".join(
        f"deb [signed-by={source['signed_by']}] {source['uri']} {suite} {' '.join(source['components'])}\n"
        for source in sources
        for suite in source["suites"]
    )


def changes_of(wanted: dict[str, Any]) -> list[str]:
    """What docker import notes in the image."""
    labels = [f"LABEL {quoted(name)}={quoted(value)}" for name, value in sorted(wanted["labels"].items())]
    return [argument for change in (*wanted["changes"], *labels) for argument in ("--change", change)]


def quoted(text: str) -> str:
    """A string of a Dockerfile: JSON's, but for the dollar."""
    return json.dumps(text).replace("$", "\\$")


def cache_hooks(folder: str) -> list[str]:
    """Take fetched packages from a folder, and leave them there; see CACHING in mmdebstrap(1)."""
    if not folder:
        return []
    Path(folder).mkdir(parents=True, exist_ok=True)
    quoted_folder = shlex.quote(folder)
    return [
        "--skip=essential/unlink",
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
        f"--setup-hook=sync-in {quoted_folder} /var/cache/apt/archives",
        f"--customize-hook=sync-out /var/cache/apt/archives {quoted_folder}",
    ]


def command_of(wanted: dict[str, Any], options: Path) -> list[str]:
    """How mmdebstrap is called. Its tar goes to standard output."""
    return [
        "mmdebstrap",
        "--quiet",
        "--format=tar",
        "--variant=minbase",
        f"--architectures={wanted['architecture']}",
        f"--include={','.join(wanted['packages'])}",
        f"--aptopt={options}",
        *(f"--dpkgopt={option}" for option in wanted["dpkg_options"]),
        *(f"--skip={step}" for step in wanted["skip"]),
        *cache_hooks(wanted.get("cache") or ""),
        *([f"--customize-hook={wanted['customize']}"] if wanted["customize"] else []),
        wanted["suite"],
        "-",
        "-",
    ]


def tail(text: str) -> str:
    """The last lines of what a program said, without passwords of mirrors or proxies."""
    shown = "\n".join([line for line in text.splitlines() if line.strip()][-SHOWN_LINES:])
    return re.sub(r"://[^/@\s]+@", "://", shown)


def bootstrap(wanted: dict[str, Any]) -> str:
    """Make the image, and answer its id."""
    with (
        tempfile.TemporaryDirectory(prefix="gpumesh-bootstrap-") as folder,
        tempfile.TemporaryFile("w+") as log,
    ):
        options = Path(folder) / "apt.conf"
        options.touch(mode=0o600)
        options.write_text("".join(f"{line};\n" for line in wanted["apt_options"]), encoding="utf-8")
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        if wanted["epoch"]:
            environment["SOURCE_DATE_EPOCH"] = str(wanted["epoch"])
        sources = Path(folder) / "sources"
        sources.touch(mode=0o600)
        sources.write_text(lines_of(wanted["sources"]), encoding="utf-8")
        with (
            sources.open("rb") as lines,
            subprocess.Popen(
                command_of(wanted, options), stdin=lines, stdout=subprocess.PIPE, stderr=log, env=environment
            ) as made,
        ):
            taken = subprocess.run(
                [wanted["engine"], "import", *changes_of(wanted), "-"],
                stdin=made.stdout,
                capture_output=True,
                check=False,
                text=True,
            )
            if made.stdout is not None:
                made.stdout.close()
        identity = taken.stdout.strip()
        if made.returncode == 0 and taken.returncode == 0:
            return identity
        # The engine takes half a tar as well as a whole one.
        if identity:
            engine(wanted, "image", "rm", identity)
        log.seek(0)
        said = log.read()
    # Either may have failed because of the other.
    reasons = (
        [f"mmdebstrap failed to bootstrap {wanted['suite']}. Its last lines:\n{tail(said)}"]
        if made.returncode
        else []
    )
    if taken.returncode != 0:
        reasons.append(f"The container engine refused to import {wanted['image']}: {tail(taken.stderr)}")
    raise BootstrapError("\n".join(reversed(reasons)))


def main() -> None:
    """Make the image if it is missing, and print what came of it as one JSON object."""
    wanted = json.load(sys.stdin)
    check_engine(wanted)
    lock = Path(wanted["lock"])
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        there = engine(wanted, "image", "inspect", "--format", "{{.Id}}", wanted["image"])
        start = time.monotonic()
        changed = there.returncode != 0
        identity = there.stdout.strip()
        if changed:
            check_programs(wanted)
            identity = bootstrap(wanted)
            named = engine(wanted, "tag", identity, wanted["image"])
            if named.returncode != 0:
                raise BootstrapError(
                    f"The container engine refused the name {wanted['image']}: {tail(named.stderr)}"
                )
    print(
        json.dumps(
            {
                "changed": changed,
                "id": identity,
                "image": wanted["image"],
                "seconds": round(time.monotonic() - start, 1),
            }
        )
    )


if __name__ == "__main__":
    try:
        main()
    except BootstrapError as error:
        sys.exit(str(error))
