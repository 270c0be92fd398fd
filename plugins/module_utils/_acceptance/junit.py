# SPDX-License-Identifier: GPL-3.0-or-later
"""A run as JUnit XML, for whatever collects test results.

Pure. A check is a test case: FAIL is a failure, UNKNOWN an error, SKIP a skip with its reason; WARN passes, with the warning in
its output. What the run was made on is in the suite's properties, and a label in its name, so that no collector shows a simulated
result as one of hardware.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from .document import moment
from .judgement import coverage, judge
from .record import Entry, Run
from .verdicts import Figure, Verdict

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, even escaped: a kernel's log has such characters."""


def xml(run: Run) -> str:
    """The document."""
    suite = ElementTree.Element("testsuite", _suite(run))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(run).items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": _clean(value)})
    for entry in run.entries:
        _case(suite, entry)
    root = ElementTree.Element("testsuites", {"name": "gpu-acceptance"})
    root.append(suite)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _clean(text: object) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(text))


def _suite(run: Run) -> dict[str, str]:
    found = [entry.result.verdict for entry in run.entries]
    label = f" ({run.label})" if run.label else ""
    return {
        "name": f"gpu-acceptance {run.suite}{label}",
        "hostname": _clean(run.machine.get("hostname") or ""),
        "timestamp": moment(run.begin),
        "time": f"{sum(entry.seconds for entry in run.entries):.3f}",
        "tests": str(len(found)),
        "failures": str(found.count(Verdict.FAIL)),
        "errors": str(found.count(Verdict.UNKNOWN)),
        "skipped": str(found.count(Verdict.SKIP)),
    }


def _properties(run: Run) -> dict[str, str]:
    judged = judge(run.entries, run.label)
    return {
        "id": run.id,
        "suite": run.suite,
        "device": run.device,
        "label": str(run.label),
        "state": str(run.state),
        "verdict": str(judged.checks),
        "hardware_verdict": str(judged.hardware or ""),
        "says": judged.says,
        "coverage": coverage(run.entries).says,
        "machine": str(run.machine.get("name") or ""),
        "driver": str(run.machine.get("driver") or ""),
        **{f"version.{name}": version for name, version in run.versions.items()},
        **{
            f"gpu.{gpu.get('index')}": " ".join(
                str(gpu[key]) for key in ("name", "uuid", "serial") if gpu.get(key)
            )
            for gpu in run.machine.get("gpus") or []
        },
    }


def _case(suite: ElementTree.Element, entry: Entry) -> None:
    result = entry.result
    case = ElementTree.SubElement(
        suite,
        "testcase",
        {"name": entry.name, "classname": f"gpu-acceptance.{entry.group}", "time": f"{entry.seconds:.3f}"},
    )
    label = f"{entry.label}: " if entry.label else ""
    says = _clean(f"{label}{result.says}")
    whole = _clean("\n".join(_text(entry)))
    kind = {Verdict.FAIL: "failure", Verdict.UNKNOWN: "error", Verdict.SKIP: "skipped"}.get(result.verdict)
    if kind:
        child = ElementTree.SubElement(case, kind, {"message": says})
        child.text = whole
        if kind != "skipped":
            child.set("type", str(result.verdict))
    else:
        prefix = "WARN: " if result.verdict is Verdict.WARN else ""
        ElementTree.SubElement(case, "system-out").text = f"{prefix}{says}\n{whole}"


def _text(entry: Entry) -> list[str]:
    """What to do, and the figures."""
    advice = [f"What to do: {entry.result.advice}"] if entry.result.advice else []
    return [*advice, f"Expected: {entry.expects}", *map(_figure, entry.result.figures)]


def _figure(figure: Figure) -> str:
    gpu = "" if figure.gpu is None else f" of GPU {figure.gpu}"
    value = "no reading" if figure.value is None else f"{figure.value} {figure.unit}".strip()
    expected = f", expected {figure.expected}" if figure.expected else ""
    source = f" ({figure.source})" if figure.source else ""
    verdict = f": {figure.verdict}" if figure.verdict else ""
    return f"{figure.name}{gpu}: {value}{expected}{source}{verdict}"
