# SPDX-License-Identifier: GPL-3.0-or-later
"""The last run of `gpu-acceptance` on this machine, and whether it still holds: it was of this boot, these GPUs, this driver, and
what is declared now. Role validation asks it, and so does the unit of the first boot.

usage: last.py profile                  read the profile as a run does, and say what is wrong with it
       last.py look ROOT                what a run would have to be of, and the newest run that is of it
       last.py begin ORDER              begin a run as a unit of its own
       last.py follow SINCE SECONDS     wait for its end, about so long at most, and tell how far it is
       last.py stamp RUN FINGERPRINT    note at a run what it was of
       last.py pack RUN                 put a run into one archive
       last.py first-boot ORDER         a run that is waited for, and its verdict in the login message and the layer's facts

What it prints is JSON. An ORDER is JSON, too: suite, device, seconds (at most), root.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/gpumesh/acceptance")
PROFILE = Path("/etc/gpumesh/acceptance.json")
CURRENT = Path("/opt/gpumesh/acceptance/current")
FACTS = Path("/etc/ansible/facts.d/gpumesh.fact")
FRAMEWORKS = Path("/opt/gpumesh/frameworks")
MESSAGE = Path("/etc/motd.d/60-gpumesh-acceptance")
COMMAND = "/usr/local/bin/gpu-acceptance"
UNIT = "gpumesh-acceptance.service"
LOG = Path("/run/gpumesh-acceptance.log")
STAMP = ".holds-for"
SOURCE = "gpumesh.fleet.validation"
RELOADED = ", after a daemon-reload"
"""Ends the names of what the gate of gpu_runtime proves only where no other container could lose its GPUs by it."""
_SECONDS = 30
_TAIL = 600
_LONGEST_STEP = 600.0


def profile() -> dict[str, Any]:
    """Read the profile with the code that a run reads it with."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(CURRENT / "plugins"))
    load = importlib.import_module("module_utils._acceptance.run_command").load_profile
    try:
        load(PROFILE)
    except Exception as problem:
        sys.exit(str(problem))
    return {"ok": True}


def look(root: str) -> dict[str, Any]:
    """What holds now, and the newest complete run that was of it."""
    now = fingerprint(Path(root))
    for folder in newest_first():
        if read_text(folder / STAMP).strip() == now:
            found = summary(folder)
            if found["state"] == "complete":
                return {"fingerprint": now, "run": found}
    return {"fingerprint": now, "run": None}


def fingerprint(root: Path) -> str:
    """Of the boot, the GPUs that the driver answers for, the driver, what is declared, the program that checks it, and the layers
    that it checks: the GPU runtime and the frameworks."""
    parts = [
        read_text(root / "proc/sys/kernel/random/boot_id"),
        asked("nvidia-smi", "--query-gpu=driver_version,uuid,pci.bus_id", "--format=csv,noheader"),
        read_text(PROFILE),
        os.readlink(CURRENT) if CURRENT.is_symlink() else "",
        json.dumps(layers(), sort_keys=True),
        *(f"{link.name} {link.readlink()}" for link in sorted(FRAMEWORKS.glob("*")) if link.is_symlink()),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def layers() -> dict[str, Any]:
    """What the layers that a run checks have left of themselves, but for who wrote it, and when."""
    try:
        found = json.loads(read_text(FACTS))["layers"]
        return {
            name: {key: _lasting(value) for key, value in found[name].items() if key not in ("when", "from")}
            for name in ("gpu_runtime", "ai_frameworks")
            if name in found
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _lasting(value: Any) -> Any:
    """A fact, without the checks that were made or left out for the sake of who else had GPUs at the time."""
    if not isinstance(value, list):
        return value
    return [each for each in value if not (isinstance(each, str) and each.endswith(RELOADED))]


def asked(*command: str) -> str:
    """What a program answers; its failure is an answer, too."""
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return type(problem).__name__
    return f"{ran.returncode} {ran.stdout}"


def stamp(run: str, mark: str) -> dict[str, Any]:
    """Note what a run was of, so that nobody has to make it again."""
    folder = STATE / "runs" / run
    new = folder / f"{STAMP}.new"
    new.write_text(f"{mark}\n", encoding="ascii")
    new.replace(folder / STAMP)
    return summary(folder)


def begin(order: str) -> dict[str, Any]:
    """Start it detached: it goes on when the connection breaks, and systemd ends all of it when it is stopped. One that a play
    began before and left going is followed if it is of the same; no other is made beside it."""
    given = json.loads(order)
    # So a run that began before something changed is not taken for one of what is there now.
    about = f"gpu-acceptance: {given['suite']} on {given['device']}, of {fingerprint(Path(given['root']))}"
    if _is_active():
        if _unit("Description") != about:
            sys.exit(
                "a run that was started before is still going on; wait for its end, or "
                f"'systemctl stop {UNIT}' on the machine"
            )
        return {"since": float(_unit("ActiveEnterTimestamp").removeprefix("@"))}
    LOG.unlink(missing_ok=True)
    since = time.time()
    command = [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={UNIT}",
        f"--description={about}",
        f"--property=StandardOutput=file:{LOG}",
        f"--property=StandardError=file:{LOG}",
        f"--property=RuntimeMaxSec={given['seconds']}",
        "--",
        COMMAND,
        "run",
        f"--suite={given['suite']}",
        f"--device={given['device']}",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ran.returncode:
        sys.exit(f"the run cannot be started: {ran.stderr.strip()}")
    return {"since": since}


def follow(since: str, seconds: str) -> dict[str, Any]:
    """Wait for the end of the run."""
    until = time.monotonic() + step_of(time.time() - float(since), float(seconds))
    while (going := _is_active()) and time.monotonic() < until:
        time.sleep(0.5)
    run = newest(float(since))
    return {"going": going, "run": run, "line": _line(run, going), "tail": "" if going else _last_words()}


def step_of(elapsed: float, seconds: float) -> float:
    """The longer a run lasts the longer are the steps: a play can take no more than some 240 of them."""
    return min(max(seconds, elapsed / 15), _LONGEST_STEP)


def _is_active() -> bool:
    return _unit("ActiveState") in ("active", "activating")


def _unit(name: str) -> str:
    """A property of the unit; a time in seconds since the epoch."""
    return (
        asked("systemctl", "show", "--timestamp=unix", f"--property={name}", UNIT).strip().partition("=")[2]
    )


def _line(run: dict[str, Any] | None, going: bool) -> str:
    if run is None:
        return "looking at the machine" if going else "no run"
    if going:
        return f"{run['made']} of {run['of']} checks made, now {run['now'] or 'writing it down'}"
    return f"{run['verdict']['checks']}, {run['coverage']['says']}"


def _last_words() -> str:
    return " ".join(read_text(LOG)[-_TAIL:].split())


def first_boot(order: str) -> dict[str, Any]:
    """Make a run, wait for it, tell whoever logs in, and leave the layer's facts. Whatever happens, it says something."""
    given = json.loads(order)
    since = time.time()
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [COMMAND, "run", f"--suite={given['suite']}", f"--device={given['device']}"],
            timeout=float(given["seconds"]),
            check=False,
        )
    run = newest(since)
    if run is None or run["state"] != "complete":
        told(
            "UNKNOWN: the run did not come to its end; 'journalctl --unit gpumesh-first-acceptance' says why."
        )
        return {"run": None}
    stamp(run["id"], fingerprint(Path(given["root"])))
    told(
        f"{run['verdict']['checks']}: {run['verdict']['says']} ({run['coverage']['says']}).\n"
        f"'gpu-acceptance run' makes it again; {run['folder']} has what was measured."
    )
    try:
        recorded(run)
    except (OSError, ValueError, TypeError, AttributeError) as problem:
        # The journal keeps it. The unit does not fail by it, since the run is made and told.
        print(f"{FACTS} was left as it is: {problem}", file=sys.stderr)
    return {"run": run["id"]}


def recorded(run: dict[str, Any]) -> None:
    """Leave the layer's facts, as the role does with module layer_facts, so that its next run finds nothing to change."""
    present = json.loads(FACTS.read_text(encoding="utf-8")) if FACTS.is_file() else {}
    entry = {
        "from": SOURCE,
        "suite": run["suite"],
        "verdict": run["verdict"]["checks"],
        "hardware": run["verdict"]["hardware"],
        "label": run["label"],
        "coverage": run["coverage"]["says"],
        "run": run["id"],
        "versions": run["versions"],
        "warned": [check["name"] for check in run["warned"]],
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    document = {**present, "layers": {**present.get("layers", {}), "validation": entry}}
    FACTS.parent.mkdir(parents=True, exist_ok=True)
    # Ansible reads only what ends in .fact, so it never sees this one.
    new = FACTS.with_name(f"{FACTS.name}.new")
    new.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    new.chmod(0o644)
    new.replace(FACTS)


def told(says: str) -> None:
    """Write the login message."""
    MESSAGE.parent.mkdir(parents=True, exist_ok=True)
    MESSAGE.write_text(f"GPU acceptance at the first boot: {says}\n", encoding="utf-8")


def newest(since: float) -> dict[str, Any] | None:
    """The newest run, if it began after a moment."""
    for folder in newest_first():
        with contextlib.suppress(OSError, ValueError, KeyError):
            found = summary(folder)
            # The document tells milliseconds.
            return found if found["begun"] >= since - 0.001 else None
    return None


def newest_first() -> list[Path]:
    """The folders of all runs; their names begin with their time."""
    return sorted(
        (path.parent for path in STATE.glob("runs/*/run.json")), key=lambda path: path.name, reverse=True
    )


def summary(folder: Path) -> dict[str, Any]:
    """What a play has to know of a run."""
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    begun = datetime.fromisoformat(document["begin"]).timestamp()
    checks = document["checks"]
    made = [check for check in checks if check["begin"]]
    left = [check["name"] for check in checks if not check["begin"]]
    return {
        "id": document["id"],
        "folder": str(folder),
        "suite": document["suite"],
        "device": document["device"],
        "label": document["label"],
        "state": document["state"],
        "begun": begun,
        "age_s": round(time.time() - begun),
        "verdict": document["verdict"],
        "coverage": document["coverage"],
        "versions": document["versions"],
        "machine": {key: document["machine"].get(key) for key in ("driver", "gpus")},
        "made": len(made),
        "of": len(checks),
        "now": left[0] if left and document["state"] == "running" else "",
        "bad": [_bad(check) for check in checks if check["verdict"] in ("FAIL", "UNKNOWN") or _is_gap(check)],
        "proved": [
            {"name": check["name"], "ok": check["verdict"] in ("PASS", "WARN")}
            for check in checks
            # On the CPU what needs a GPU is a gap that nobody can close.
            if check["verdict"] != "SKIP" or (_is_gap(check) and document["device"] != "cpu")
        ],
        "warned": [_bad(check) for check in checks if check["verdict"] == "WARN"],
    }


def _is_gap(check: dict[str, Any]) -> bool:
    return bool(check["verdict"] == "SKIP" and check["applies"] and not check["waived"])


def _bad(check: dict[str, Any]) -> dict[str, str]:
    return {key: str(check[key]) for key in ("name", "verdict", "says", "advice")}


def pack(run: str) -> dict[str, str]:
    """All files of a run in one archive beside it."""
    os.umask(0o077)
    folder = STATE / "runs" / run
    archive = STATE / "runs" / f".{run}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if (
                path.is_file()
                and not path.is_symlink()
                and not any(part.startswith(".") for part in name.parts)
            ):
                tar.add(path, str(name))
    return {"path": str(archive)}


def read_text(path: Path) -> str:
    """What is in a file; nothing where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


COMMANDS: dict[str, Callable[..., Any]] = {
    "profile": profile,
    "look": look,
    "begin": begin,
    "follow": follow,
    "stamp": stamp,
    "pack": pack,
    "first-boot": first_boot,
}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](*sys.argv[2:])))
