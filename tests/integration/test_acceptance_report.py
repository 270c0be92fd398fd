# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of the acceptance suite in a real browser: it renders, the verdict is seen at once, nothing is asked of anybody.

The browser is Chromium without a window, with every name but the loopback's unresolvable. The pages are of runs that no machine
ever made (tests/report_runs.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import report

from tests import report_runs

pytestmark = pytest.mark.integration

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = (1280, 800), (500, 844)
"""Chromium's headless window is never narrower than 500 pixels."""

# Written into a copy of a page, which then tells its own measures; the report itself has no program and allows none.
_MEASURE = """
<script>
addEventListener("load", () => {
  const box = (one) => { const r = one.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom].map(Math.round); };
  const wide = [...document.querySelectorAll("body *")].filter((one) =>
    one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll, .icons, .jump")).map((one) => one.outerHTML.slice(0, 80));
  const hidden = [...document.querySelectorAll("td .cell, td .one, .badge, .tiles .number")].filter((one) =>
    one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0).map((one) => one.textContent);
  const told = {
    window: [innerWidth, innerHeight], page: document.documentElement.scrollWidth, wide, hidden,
    verdict: box(document.querySelector(".verdict")), title: box(document.querySelector(".verdict h2")),
    coverage: document.querySelector(".coverage") && box(document.querySelector(".coverage")),
    charts: [...document.querySelectorAll("figure svg")].map(box),
    texts: [...document.querySelectorAll("figure svg text")].filter((one) => {
      const r = one.getBoundingClientRect(), s = one.ownerSVGElement.getBoundingClientRect();
      return one.textContent.length < 60 && !/^(SIMULATED|CPU)$/.test(one.textContent) && (r.left < s.left - 2 || r.right > s.right + 2);
    }).map((one) => one.textContent),
  };
  document.documentElement.setAttribute("data-told", JSON.stringify(told));
});
</script>
"""


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    return found


class Browser:
    """Chromium, started anew for every question."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.folder = folder

    def run(self, *arguments: str, window: tuple[int, int] = DESKTOP) -> str:
        done = subprocess.run(
            [
                self.program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--no-first-run",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={self.folder / 'profile'}",
                f"--window-size={window[0]},{window[1]}",
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "HOME": str(self.folder)},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def measured(self, page: Path, window: tuple[int, int] = DESKTOP, *more: str) -> dict[str, Any]:
        """What a page tells of its own measures."""
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"<meta http-equiv=.Content-Security-Policy[^>]*>", "", text)
        copy = self.folder / "measured.html"
        copy.write_text(text.replace("</body>", f"{_MEASURE}</body>"), encoding="utf-8")
        dom = self.run("--dump-dom", *more, copy.as_uri(), window=window)
        found = re.search(r'data-told="([^"]*)"', dom)
        assert found, dom[:500]
        told: dict[str, Any] = json.loads(
            found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&amp;", "&")
        )
        return told

    def picture(self, page: Path, window: tuple[int, int] = DESKTOP, *more: str) -> Any:
        """The pixels of the first screen, as an array of rows of red, green and blue."""
        image = pytest.importorskip("matplotlib.image")
        target = self.folder / "page.png"
        self.run(f"--screenshot={target}", *more, page.as_uri(), window=window)
        return image.imread(target)[:, :, :3]


@pytest.fixture
def browser(chromium: str, tmp_path: Path) -> Browser:
    folder = tmp_path / "browser"
    folder.mkdir()
    return Browser(chromium, folder)


def page_of(build: Callable[[Path], Path], tmp_path: Path) -> Path:
    folder = build(tmp_path)
    report.make(folder)
    return folder / report_runs.PAGE


@pytest.mark.parametrize("kind", sorted(report_runs.RUNS))
def test_verdict_and_coverage_are_seen_without_scrolling(browser: Browser, tmp_path: Path, kind: str) -> None:
    told = browser.measured(page_of(report_runs.RUNS[kind], tmp_path))
    # The window has a frame, so what is seen of the page is less than 1280 x 800.
    width, height = told["window"]
    assert width == DESKTOP[0] and height <= DESKTOP[1]
    for part in ("verdict", "title", "coverage"):
        left, top, right, bottom = told[part]
        assert 0 <= left < right <= width and 0 <= top < bottom <= height, part
    assert told["title"][3] - told["title"][1] >= 32, "the verdict is to be read from afar"


@pytest.mark.parametrize("window", [DESKTOP, PHONE])
@pytest.mark.parametrize("kind", sorted(report_runs.RUNS))
def test_nothing_is_wider_than_the_window_and_no_text_is_cut(
    browser: Browser, tmp_path: Path, kind: str, window: tuple[int, int]
) -> None:
    told = browser.measured(page_of(report_runs.RUNS[kind], tmp_path), window)
    assert (told["page"], told["wide"], told["hidden"], told["texts"]) == (window[0], [], [], [])
    assert all(right > left and bottom > top for left, top, right, bottom in told["charts"])


def untold(folder: Path) -> Path:
    """A burn-in whose driver does not tell of one GPU whether it was slowed down."""
    run = report_runs.burned(folder, hours=1.0)
    path = run / "samples.jsonl"
    told = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for one in told:
        one["reasons"] += ["untold"] if one["gpu"] == 1 else []
    path.write_text("".join(json.dumps(one) + "\n" for one in told), encoding="utf-8")
    return run


@pytest.mark.parametrize("window", [DESKTOP, PHONE])
def test_what_was_not_told_is_shown_and_fits(
    browser: Browser, tmp_path: Path, window: tuple[int, int]
) -> None:
    page = page_of(untold, tmp_path)
    told = browser.measured(page, window)
    assert (told["page"], told["wide"], told["hidden"], told["texts"]) == (window[0], [], [], [])
    text = page.read_text(encoding="utf-8")
    assert "the driver did not tell whether heat or hardware held back GPU 1" in text
    assert "never held back" not in text


@pytest.mark.parametrize(("good", "colour"), [(True, (0x14, 0x73, 0x3F)), (False, (0xB3, 0x23, 0x1A))])
def test_the_band_has_the_colour_of_its_verdict(
    browser: Browser, tmp_path: Path, good: bool, colour: tuple[int, int, int]
) -> None:
    page = page_of(partial(report_runs.of_no_machine, good=good), tmp_path)
    assert share(browser.picture(page), colour) > 0.1


def test_a_simulated_run_has_no_band_of_a_verdict(browser: Browser, tmp_path: Path) -> None:
    picture = browser.picture(page_of(report_runs.whole, tmp_path))
    assert share(picture, (0x14, 0x73, 0x3F)) < 0.01
    assert share(picture, (0x4A, 0x3F, 0x8F)) > 0.005


def test_in_the_dark_the_page_is_dark(browser: Browser, tmp_path: Path) -> None:
    page = page_of(report_runs.failing, tmp_path)
    light = browser.picture(page, DESKTOP)
    dark = browser.picture(page, DESKTOP, "--blink-settings=preferredColorScheme=0")
    assert light.mean() > 0.85
    assert dark.mean() < 0.25


def share(picture: Any, colour: tuple[int, int, int]) -> float:
    """How much of a picture has a colour, or nearly."""
    near = abs(picture * 255 - colour).max(axis=2) < 6
    return float(near.mean())


def test_it_prints_on_few_pages_of_a4(browser: Browser, tmp_path: Path) -> None:
    page = page_of(report_runs.failing, tmp_path)
    target = browser.folder / "page.pdf"
    browser.run(f"--print-to-pdf={target}", "--no-pdf-header-footer", page.as_uri())
    content = target.read_bytes()
    assert content.startswith(b"%PDF")
    boxes = {tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox\s*\[([^\]]*)\]", content)}
    assert [(round(box[2]), round(box[3])) for box in boxes] == [(595, 842)]
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 16


class Asked(SimpleHTTPRequestHandler):
    """A server that notes what it is asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (Asked,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def requests_of(browser: Browser, folder: Path, name: str) -> tuple[list[str], list[str]]:
    """What the server of a page was asked for, and every address that the page itself asked for."""
    log = browser.folder / "net.json"
    with served(folder) as (origin, asked):
        browser.run(f"--log-net-log={log}", f"--screenshot={browser.folder / 'page.png'}", f"{origin}/{name}")
    # The log is one event a line.
    lines = [
        line.strip().rstrip(",")
        for line in log.read_text(encoding="utf-8").splitlines()
        if '"initiator"' in line
    ]
    events = [json.loads(line)["params"] for line in lines]
    return asked, [str(event["url"]) for event in events if event["initiator"] == origin]


@pytest.mark.parametrize("kind", ["failing", "burn-in"])
def test_the_page_asks_nobody_for_anything(browser: Browser, tmp_path: Path, kind: str) -> None:
    page = page_of(report_runs.RUNS[kind], tmp_path)
    asked, wanted = requests_of(browser, page.parent, page.name)
    assert [path for path in asked if path != "/favicon.ico"] == [f"/{page.name}"]
    assert [url for url in wanted if not url.endswith(("/favicon.ico", f"/{page.name}"))] == []


def test_a_page_that_asked_would_be_found_out(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<img src="https://example.org/x.png"><img src="here.png">', encoding="utf-8")
    asked, wanted = requests_of(browser, tmp_path, page.name)
    assert "/here.png" in asked
    assert "https://example.org/x.png" in wanted


@pytest.mark.parametrize("window", [DESKTOP, PHONE])
def test_two_runs_side_by_side_fit(browser: Browser, tmp_path: Path, window: tuple[int, int]) -> None:
    runs = [report_runs.whole(tmp_path / "one"), report_runs.on_cpu(tmp_path / "two")]
    documents = [json.loads((folder / "run.json").read_text(encoding="utf-8")) for folder in runs]
    told = browser.measured(
        report.compare_page(documents[0], documents[1], tmp_path / "compare.html"), window
    )
    assert (told["page"], told["wide"], told["hidden"]) == (window[0], [], [])
    if window == DESKTOP:
        assert told["verdict"][3] <= told["window"][1]
