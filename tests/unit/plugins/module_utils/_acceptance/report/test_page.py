# SPDX-License-Identifier: GPL-3.0-or-later
"""The page as it is written: whole, alone, deterministic, and nothing in it but what we put there."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import report
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.report.reading import ReportError
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import MissingLibrary

from tests import report_runs

RECORDED = Path(report_runs.__file__).parent / "fixtures" / "acceptance" / "runs"
_VOID = {"meta", "col", "br", "hr", "img", "input", "link"}
_MOST = 2_000_000

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>alert(2)</script>",
    "</svg></td></table><iframe src=https://example.org>",
    "{{ 7 * 191 }} {% raw %} ${jndi:ldap://example.org}",
    "$\\frac{1}{2}$ url(https://example.org/x.png)",
    "`<b>` javascript:alert(3)",
    "\u202egnirts\u0000\u0007\ud800",
    "x" * 6000,
    "",
]


class Page(HTMLParser):
    """The elements of a page; an unbalanced one fails."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def having(self, name: str) -> list[str]:
        """The values of an attribute, wherever it stands."""
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def made(folder: Path) -> Page:
    report.make(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    nothing_foreign(page, text)
    return page


def nothing_foreign(page: Page, text: str) -> None:
    """No program, nothing that is loaded, every reference answered in the page itself."""
    tags = Counter(tag for tag, _ in page.elements)
    for tag in (
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "video",
        "audio",
        "image",
    ):
        assert tags[tag] == 0, tag
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    ids = page.having("id")
    assert [one for one, count in Counter(ids).items() if count > 1] == []
    for reference in [*page.having("href"), *page.having("xlink:href")]:
        assert reference.startswith("#") and reference[1:] in ids, reference
    assert page.having("src") == page.having("srcset") == []
    styles = "".join([*page.having("style"), *page.having("fill"), *page.having("clip-path"), *_styles(text)])
    for reference in re.findall(r"url\(([^)]*)\)", styles):
        assert reference.startswith("#") and reference[1:] in ids, reference
    assert "@import" not in styles and "#fe0" not in text
    assert len(text.encode()) < _MOST


def _styles(text: str) -> list[str]:
    return re.findall(r"<style>(.*?)</style>", text, re.DOTALL)


@pytest.mark.parametrize("kind", sorted(report_runs.RUNS))
def test_every_kind_of_run_becomes_a_whole_page(tmp_path: Path, kind: str) -> None:
    page = made(report_runs.RUNS[kind](tmp_path))
    label = "CPU" if kind == "cpu" else "SIMULATED"
    verdict = page.words.index(f"{label} : no verdict on hardware")
    assert verdict < page.words.index("Needs attention")
    assert not re.search(r"\bNaN\b|\bnan\b|\binf\b", page.words)


def test_a_run_that_was_really_made_becomes_a_page(tmp_path: Path) -> None:
    """Suite quick on two cores of a container, PyTorch 2.13.0 on the CPU, 2026-11-27; names and paths were replaced."""
    folder = tmp_path / "run"
    shutil.copytree(RECORDED / "quick-on-cpu", folder)
    page = made(folder)
    assert "CPU : no verdict on hardware" in page.words
    assert "5 of 29 checks ran" in page.words
    assert "process 0 13.2" in page.words


@pytest.mark.parametrize(("good", "word"), [(True, "PASS"), (False, "FAIL")])
def test_a_run_without_a_label_shows_its_verdict_and_no_mark(tmp_path: Path, good: bool, word: str) -> None:
    page = made(report_runs.of_no_machine(tmp_path, good=good))
    [verdict] = [
        attributes for _, attributes in page.elements if attributes.get("class", "").startswith("verdict")
    ]
    assert verdict["class"] == f"verdict k-{word}"
    assert "no verdict on hardware" not in page.words.partition("How to read")[0]


@pytest.mark.parametrize("kind", ["whole", "burn-in", "cpu"])
def test_no_chart_goes_without_the_mark_of_its_run(tmp_path: Path, kind: str) -> None:
    folder = report_runs.RUNS[kind](tmp_path)
    report.make(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    label = "CPU" if kind == "cpu" else "SIMULATED"
    drawings = re.findall(r"<svg [^>]*role=\"img\".*?</svg>", text, re.DOTALL)
    assert drawings
    assert all(f">{label}</text>" in drawing for drawing in drawings)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = report_runs.failing(tmp_path)
    first = [path.read_bytes() for path in report.make(folder)]
    assert [path.read_bytes() for path in report.make(folder)] == first


def test_the_files_are_named_and_nothing_is_left_beside_them(tmp_path: Path) -> None:
    folder = report_runs.on_cpu(tmp_path)
    assert [path.name for path in report.make(folder)] == ["report.html", "junit.xml"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "junit.xml",
        "report.html",
        "run.json",
        "samples.jsonl",
    ]
    assert "<testsuites" in (folder / "junit.xml").read_text(encoding="utf-8")


def test_a_burn_in_shows_its_gap(tmp_path: Path) -> None:
    page = made(report_runs.burned(tmp_path, hours=6.0))
    assert "no readings for 35 min: the machine was restarted" in page.words
    assert "2026-11-27 12:25:24 UTC 2026-11-27 13:00:24 UTC 35 min The machine was restarted." in page.words


def poisoned(value: Any, poison: str, keep: Callable[[str], bool]) -> Any:
    """The same document with poison for every text that is free."""
    if isinstance(value, dict):
        return {key: one if keep(key) else poisoned(one, poison, keep) for key, one in value.items()}
    if isinstance(value, list):
        return [poisoned(one, poison, keep) for one in value]
    return poison if isinstance(value, str) else value


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_whatever_stands_in_a_run_is_text_and_nothing_else(tmp_path: Path, number: int) -> None:
    folder = report_runs.failing(tmp_path)
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    fixed = {"verdict", "label", "state", "begin", "end", "suite", "device", "shares", "coverage"}
    poison = HOSTILE[number]
    # The names of some checks and figures stay, or there would be no chart to poison.
    spoiled = poisoned(document, poison, lambda key: key in fixed)
    for before, after in zip(document["checks"], spoiled["checks"], strict=True):
        after["name"] = before["name"]
        for one, other in zip(before["figures"], after["figures"], strict=True):
            other |= {"name": one["name"], "unit": one["unit"], "expected": one["expected"]}
    (folder / "run.json").write_text(json.dumps(spoiled), encoding="utf-8")
    page = made(folder)
    assert "1337" not in page.words
    if poison.startswith("<script>"):
        assert page.words.count(poison) > 50


def test_poison_in_names_and_in_readings_is_text_too(tmp_path: Path) -> None:
    folder = report_runs.burned(tmp_path, hours=4.0)
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    document = poisoned(
        document, HOSTILE[3], lambda key: key in {"verdict", "label", "state", "begin", "end", "suite"}
    )
    document["burn_in"]["gaps"][0]["why"] = HOSTILE[0] + HOSTILE[5]
    document["profile"] = {HOSTILE[2]: HOSTILE[1]}
    (folder / "run.json").write_text(json.dumps(document), encoding="utf-8")
    with (folder / "samples.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(
            json.dumps({"at": report_runs.BEGAN + 5, "gpu": 900, "power_w": 5, "reasons": HOSTILE}) + "\n"
        )
    words = made(folder).words
    assert HOSTILE[0] in words
    # In the table, and in the drawing, where a dollar sign begins no formula.
    assert words.count(HOSTILE[0] + "$\\frac{1}{2}$") == 2


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_without_matplotlib_there_is_a_page_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "matplotlib", "matplotlib.figure")
    page = made(report_runs.whole(tmp_path))
    assert "matplotlib was not installed where this page was made" in page.words
    assert not [tag for tag, _ in page.elements if tag == "figure"]
    assert "236.4" in page.words


def test_without_jinja2_it_is_said_what_to_install_and_junit_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "jinja2")
    folder = report_runs.on_cpu(tmp_path)
    with pytest.raises(
        MissingLibrary, match=r"jinja2 where it is made. Install it with: apt-get install python3-jinja2"
    ):
        report.make(folder)
    assert (folder / "junit.xml").exists() and not (folder / "report.html").exists()


def test_nothing_of_it_is_loaded_before_a_report_is_made() -> None:
    import subprocess

    script = (
        "import sys; from module_utils._acceptance import report; "
        "sys.exit(sorted({'matplotlib', 'jinja2', 'numpy', 'ansible'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(Path(report_runs.__file__).parents[1] / "plugins")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_is_not_ours_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = report_runs.on_cpu(tmp_path)
    (folder / ".junit.xml.new").mkdir()
    with pytest.raises(ReportError, match=r"junit\.xml cannot be written .*Copy the run"):
        report.make(folder)


def documents(tmp_path: Path, *kinds: str) -> list[dict[str, Any]]:
    found = []
    for kind in kinds:
        folder = report_runs.RUNS[kind](tmp_path / kind)
        found.append(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    return found


def compared(before: dict[str, Any], after: dict[str, Any], path: Path) -> Page:
    assert report.compare_page(before, after, path) == path
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    nothing_foreign(page, text)
    return page


def test_what_makes_two_runs_incomparable_comes_first(tmp_path: Path) -> None:
    words = compared(*documents(tmp_path, "whole", "cpu"), tmp_path / "compare.html").words
    differ = words.index("The two runs are not of the same thing")
    assert differ < words.index("on simulated GPUs, the second on the CPU") < words.index("regressions Worse")
    assert "SIMULATED and CPU: no verdict on hardware." in words


def test_regressions_are_counted_and_shown(tmp_path: Path) -> None:
    words = compared(*documents(tmp_path, "whole", "failing"), tmp_path / "compare.html").words
    assert "25 regressions" in words
    assert "Matrix multiplication bf16, GPU 2 233.9 TFLOPS 167.2 TFLOPS −28.5 %" in words
    assert "The two runs are not of the same thing" not in words


def test_what_another_suite_does_not_have_is_shown_and_no_regression(tmp_path: Path) -> None:
    [full] = documents(tmp_path, "whole")
    demo = {**full, "suite": "demo", "checks": [one for one in full["checks"] if one["name"] != "all_reduce"]}
    words = compared(full, demo, tmp_path / "compare.html").words
    assert "No regression" in words
    assert "another suite: full, then demo".lower() in words.lower()
    assert "The second run has no such check; it is of another suite." in words


def test_a_run_against_itself_has_no_regression(tmp_path: Path) -> None:
    [one] = documents(tmp_path, "whole")
    words = compared(one, one, tmp_path / "compare.html").words
    assert "No regression" in words and "0 better, 0 changed otherwise" in words


@pytest.mark.parametrize("poison", HOSTILE)
def test_poison_in_a_comparison_is_text(tmp_path: Path, poison: str) -> None:
    before, after = documents(tmp_path, "whole", "failing")
    keep = {"verdict", "label", "state", "begin", "end", "suite", "device", "better"}
    compared(before, poisoned(after, poison, keep.__contains__), tmp_path / "compare.html")


def test_what_is_no_document_is_not_compared(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="the second run is not usable"):
        report.compare_page(documents(tmp_path, "cpu")[0], {"schema": 9}, tmp_path / "compare.html")
