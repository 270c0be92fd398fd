# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a run: one HTML page that needs nothing beside it, and JUnit's XML.

The page needs jinja2, its charts matplotlib; both are loaded when a page is made, and nowhere else in the suite. Without
matplotlib the page is made with tables alone and says so; without jinja2 there is none, and `MissingLibrary` says what to install.

This package is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .writing import compare_page, make

__all__ = ["compare_page", "make"]
