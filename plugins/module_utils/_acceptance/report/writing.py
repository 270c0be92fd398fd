# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the files of a report.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import charts, page, reading, view
from .chart_style import Chart
from .reading import ReportError

PAGE, JUNIT = "report.html", "junit.xml"
NO_CHARTS = "matplotlib was not installed where this page was made, so there are no charts: python3 -m pip install matplotlib"


def make(folder: Path) -> list[Path]:
    """Write ``junit.xml`` and ``report.html`` into the folder of a run, from its ``run.json`` and ``samples.jsonl``.

    Raises:
        ReportError: there is no run, or a file cannot be written.
        MissingLibrary: jinja2 is not installed; ``junit.xml`` is written even so.
    """
    from .. import junit

    found = reading.read(folder)
    written = [_write(folder / JUNIT, junit.xml(found.run))]
    drawn: list[Chart] = charts.draw(found) if charts.available() else []
    shown = view.page(found) | {"charts": drawn, "no_charts": "" if charts.available() else NO_CHARTS}
    written.insert(0, _write(folder / PAGE, page.render("page.html.j2", shown)))
    return written


def compare_page(before: Mapping[str, Any], after: Mapping[str, Any], path: Path) -> Path:
    """Write a page that shows two runs side by side.

    Raises:
        ReportError: a document cannot be used, or the file cannot be written.
        MissingLibrary: jinja2 is not installed.
    """
    from . import compare_view

    runs = (reading.run_of(before, "the first run"), reading.run_of(after, "the second run"))
    return _write(path, page.render("compare.html.j2", compare_view.page(*runs)))


def _write(path: Path, content: str) -> Path:
    """In one step: nobody ever reads half a file."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(content, encoding="utf-8")
        os.replace(new, path)
    except OSError as exc:
        raise ReportError(
            f"{path} cannot be written ({exc.strerror or exc})", hint="Copy the run to a folder that is yours"
        ) from exc
    return path
