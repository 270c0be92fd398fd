#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh_watch_report
short_description: Sum up and draw what the samplers of a mesh watch found
description:
  - Reads the samples that the role P(gpumesh.fleet.mesh_watch#role) has fetched, and writes what they say together. There is
    C(report.txt), a table of every pair, what happened, and how the samplers fared; C(report.json), all of it for programs;
    C(dropouts.csv), every drop-out; and, where matplotlib is installed, C(latency) and C(overview) as SVG and PNG.
  - A drop-out is so many lost samples in a row, see O(dropout_samples). Drop-outs with one explanation at one time are one
    incident. A machine was down, was cut off from all others, or one pair did not reach each other.
  - A gap, in which a sampler took no samples, is neither loss nor drop-out. Clocks that were set, and lines that a crash cut
    in half, bend no figure; they are reported.
  - Everything that was measured in a sandbox is marked SIMULATED, in tables, data and pictures.
  - Runs on the control machine and connects to nothing.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer
  - matplotlib, for the pictures alone
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is written. Whether the pictures would change is not told.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  name:
    description: Name of the watch.
    type: str
    required: true
  samples:
    description: Folder with the samples of each machine, as C(MACHINE.jsonl) or C(MACHINE.jsonl.gz).
    type: path
    required: true
  folder:
    description: Folder for the results. It is made if it is not there.
    type: path
    required: true
  dropout_samples:
    description: So many lost samples in a row are a drop-out.
    type: int
    default: 3
  plot:
    description: Draw the pictures.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Sum up a watch that was collected, with another idea of a drop-out
  gpumesh.fleet.mesh_watch_report:
    name: mesh
    samples: mesh-watch/mesh-20261117T0000Z/samples
    folder: mesh-watch/mesh-20261117T0000Z
    dropout_samples: 5
  delegate_to: localhost
"""

RETURN = r"""
table:
  description: The tables, as lines of text; of many pairs and incidents the worst only.
  returned: success
  type: list
  elements: str
notes:
  description: What was written where, and why there are no pictures if there are none.
  returned: success
  type: list
  elements: str
files:
  description: Every file of the results.
  returned: success
  type: list
  elements: str
simulated:
  description: Whether any of it was measured in a sandbox.
  returned: success
  type: bool
incidents:
  description: What happened, in the order it began, each with C(kind), C(what), C(start), C(end), C(seconds) and C(machines).
  returned: success
  type: list
  elements: dict
loss_percent:
  description: Lost samples, in per cent of all.
  returned: success
  type: float
"""

import gzip
import json
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._fleet.errors import MissingLibrary
from ..module_utils._fleet.mesh import watch_log, watch_plot, watch_report, watch_table

ENDINGS = (".jsonl.gz", ".jsonl")
MOST_BYTES = 1 << 30
"""A file that unpacks to more than this was not written by a sampler of ours."""


class ReportError(Exception):
    """Why there is no report, in one sentence."""


def lines(path: Path) -> Iterator[str]:
    """The lines of a file of samples, packed or not."""
    with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else file as raw:
        read = 0
        for line in raw:
            read += len(line)
            if read > MOST_BYTES:
                raise ReportError(f"{path} holds more than {MOST_BYTES >> 20} MiB, which no sampler writes")
            yield line.decode("utf-8", errors="replace")


def read(folder: Path) -> list[watch_log.Log]:
    """The logs of all machines in a folder."""
    found: dict[str, Path] = {}
    for ending in ENDINGS:
        for path in sorted(folder.glob(f"*{ending}")):
            found.setdefault(path.name.removesuffix(ending), path)
    if not found:
        raise ReportError(f"there are no samples in {folder}; collect them: -e watch_action=collect")
    logs = []
    for name, path in sorted(found.items()):
        try:
            logs.append(watch_log.read(name, lines(path)))
        except (OSError, EOFError, zlib.error) as problem:
            raise ReportError(f"{path} cannot be read ({problem}); collect it once more") from problem
    return logs


def write(path: Path, content: bytes, check: bool) -> bool:
    """Have a file hold this; whether it held something else."""
    if path.is_file() and path.read_bytes() == content:
        return False
    if not check:
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_bytes(content)
        fresh.replace(path)
    return True


def pictures(found: watch_report.Report) -> tuple[dict[str, bytes], str]:
    """The pictures by file name; or none, and why."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            drawn = watch_plot.draw(found, Path(scratch))
        except MissingLibrary as missing:
            return {}, f"No pictures: {missing}"
        return {path.name: path.read_bytes() for path in drawn}, ""


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Read, sum up, write."""
    if params["dropout_samples"] < 1:
        raise ReportError("a drop-out has at least one lost sample: dropout_samples")
    found = watch_report.report(params["name"], read(Path(params["samples"])), params["dropout_samples"])
    data = watch_report.to_json(found)
    files = {
        "report.txt": "\n".join([*watch_table.lines(found, None), ""]).encode(),
        "report.json": f"{json.dumps(data, indent=1)}\n".encode(),
        "dropouts.csv": watch_report.dropouts_csv(found).encode(),
    }
    note = ""
    if params["plot"] and not check:
        drawn, note = pictures(found)
        files |= drawn
    folder = Path(params["folder"])
    if not check:
        folder.mkdir(parents=True, exist_ok=True)
    changed = [write(folder / name, content, check) for name, content in files.items()]
    samples, lost = sum(pair.samples for pair in found.pairs), sum(pair.lost for pair in found.pairs)
    verb = "would be" if check else "are"
    return {
        "changed": any(changed),
        "table": watch_table.lines(found),
        "notes": [f"{', '.join(files)} {verb} in {folder}.", *([note] if note else [])],
        "files": [str(folder / name) for name in files],
        "simulated": found.simulated,
        "incidents": data["incidents"],
        "loss_percent": round(100.0 * lost / samples, 4) if samples else 0.0,
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "samples": {"type": "path", "required": True},
            "folder": {"type": "path", "required": True},
            "dropout_samples": {"type": "int", "default": 3},
            "plot": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module.params, module.check_mode))
    except (ReportError, OSError) as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
