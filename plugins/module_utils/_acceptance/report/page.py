# SPDX-License-Identifier: GPL-3.0-or-later
"""A page of HTML from a template of role validation. Everything a page shows is escaped, but for our own style and drawings.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._fleet.errors import MissingLibrary
from .. import files
from . import words


def render(template: str, shown: Mapping[str, Any]) -> str:
    """The page.

    Raises:
        MissingLibrary: jinja2 is not installed.
    """
    try:
        import jinja2
        import markupsafe
    except ImportError as exc:
        raise MissingLibrary(
            f"a report needs the Python library {exc.name or 'jinja2'} where it is made",
            hint="Install it with: apt-get install python3-jinja2 python3-matplotlib, or: python3 -m pip install jinja2 matplotlib",
        ) from exc
    folder = files.shipped("report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = words.count
    environment.filters["code"] = lambda text: markupsafe.Markup("").join(
        markupsafe.Markup("<code>{}</code>").format(part) if odd else markupsafe.escape(part)
        for part, odd in words.marked(text)
    )
    # Trusted: our own file, and drawings in which matplotlib has escaped every text.
    style = markupsafe.Markup((folder / "page.css").read_text(encoding="utf-8"))  # noqa: S704
    charts = [(chart, markupsafe.Markup(chart.svg)) for chart in shown.get("charts", ())]  # noqa: S704
    content = environment.get_template(template).render(**{**shown, "charts": charts, "style": style})
    return content if content.endswith("\n") else f"{content}\n"
