# SPDX-License-Identifier: GPL-3.0-or-later
"""A run as JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import junit
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import (
    Figure,
    Label,
    Verdict,
)
from hypothesis import given

from tests.acceptance_runs import entry, run, runs


def suite_of(one):
    return ElementTree.fromstring(junit.xml(one).encode())[0]  # noqa: S314  # it is our own


ALL = run(
    entry("good", figures=[Figure("bf16", 254.1, "TFLOPS", 0, ">= 226.8", "catalog", Verdict.PASS)]),
    entry("slow", Verdict.WARN, "GPU 1 is slow", advice="clean it"),
    entry("broken", Verdict.FAIL, "GPU 2 is lost", advice="reseat it"),
    entry("unclear", Verdict.UNKNOWN, "no reading", advice="run it again"),
    entry("left", Verdict.SKIP, "Docker does not answer"),
)


def test_each_verdict_has_its_element():
    suite = suite_of(ALL)
    children = {case.get("name"): case[0] for case in suite.iter("testcase")}

    assert {name: child.tag for name, child in children.items()} == {
        "good": "system-out",
        "slow": "system-out",
        "broken": "failure",
        "unclear": "error",
        "left": "skipped",
    }
    assert children["broken"].get("message") == "GPU 2 is lost"
    assert "What to do: reseat it" in children["broken"].text
    assert children["slow"].text.startswith("WARN: GPU 1 is slow")
    assert children["left"].get("message") == "Docker does not answer"
    assert "bf16 of GPU 0: 254.1 TFLOPS, expected >= 226.8 (catalog): PASS" in children["good"].text
    assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["5", "1", "1", "1"]


def test_what_it_was_made_on_is_in_the_properties():
    suite = suite_of(ALL)
    properties = {one.get("name"): one.get("value") for one in suite.find("properties")}

    assert properties["verdict"] == properties["hardware_verdict"] == "FAIL"
    assert properties["coverage"] == "4 of 5 checks ran"
    assert properties["gpu.1"] == "NVIDIA GeForce RTX 5090 GPU-2 1650123000002"
    assert suite.get("name") == "gpu-acceptance quick"


@pytest.mark.parametrize("label", [Label.CPU, Label.SIMULATED])
def test_a_label_is_seen_everywhere(label):
    suite = suite_of(run(entry(label=label), entry("b", Verdict.FAIL, "bad", label=label), label=label))
    properties = {one.get("name"): one.get("value") for one in suite.find("properties")}

    assert suite.get("name") == f"gpu-acceptance quick ({label})"
    assert (properties["label"], properties["hardware_verdict"]) == (label, "")
    assert suite.find("testcase/failure").get("message") == f"{label}: bad"


def test_a_message_can_hold_what_xml_cannot():
    suite = suite_of(run(entry("log", Verdict.FAIL, "\x1b[31mXid\x00 <79> & \ud800")))

    assert suite.find("testcase/failure").get("message") == "�[31mXid� <79> & �"


@given(runs())
def test_every_run_can_be_written(one):
    suite = suite_of(one)
    cases = list(suite.iter("testcase"))

    assert len(cases) == len(one.entries) == int(suite.get("tests"))
    for case, made in zip(cases, one.entries, strict=True):
        passes = case.find("failure") is None and case.find("error") is None and case.find("skipped") is None
        assert passes == (made.result.verdict in (Verdict.PASS, Verdict.WARN))
