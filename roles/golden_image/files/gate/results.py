# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of an image found, as JSON. Tests that looked at nothing prove nothing, and that is a failure.

usage: results.py gate/junit.xml
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree


def read(path: Path) -> dict[str, Any]:
    """Counts, cases, and a sentence for each failure."""
    try:
        # Written by the pytest that we ran.
        root = ElementTree.parse(path).getroot()  # noqa: S314
    except (OSError, ElementTree.ParseError) as problem:
        sys.exit(f"{path}: {problem}")
    cases: list[dict[str, Any]] = []
    failures: list[str] = []
    for element in root.iter("testcase"):
        name = element.get("name", "")
        outcome = "passed"
        for child in element:
            if child.tag in ("failure", "error"):
                outcome = "failed"
                failures.append(f"{name}: {sentence(child)}")
            elif child.tag == "skipped":
                outcome = "skipped"
        cases.append({"name": name, "outcome": outcome, "seconds": float(element.get("time", "0"))})
    counts = {
        kind: sum(case["outcome"] == kind for case in cases) for kind in ("passed", "failed", "skipped")
    }
    if not counts["passed"] and not counts["failed"]:
        sys.exit(f"{path}: not one test was made, so nothing is proved")
    return {**counts, "cases": cases, "failures": failures}


def sentence(element: ElementTree.Element) -> str:
    """What the test says is wrong, without what pytest makes of it."""
    said = element.get("message") or element.text or "it failed"
    said = re.sub(r'^(failed on setup with ")?((AssertionError|Failed): )?', "", said)
    return re.split(r"\n *assert ", said)[0].strip().rstrip('"')


if __name__ == "__main__":
    print(json.dumps(read(Path(sys.argv[1]))))
