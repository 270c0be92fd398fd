# SPDX-License-Identifier: GPL-3.0-or-later
"""What a watch found, as two pictures: the pairs' latency over time, and the whole mesh at a glance.

They need matplotlib, which nothing else here does. The same samples give the same files, byte for byte.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingLibrary
from . import watch_overview, watch_panels, watch_style
from .watch_report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")

_UNDATED: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {"Software": None}}


def draw(found: Report, folder: Path, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Write ``latency`` and ``overview`` in each format; nothing where there is no sample.

    Args:
        folder: is there already.

    Raises:
        MissingLibrary: matplotlib is not installed.
        OSError: a file could not be written.
    """
    try:
        import matplotlib
    except ImportError as exc:
        raise MissingLibrary(
            f"a plot needs the Python library {exc.name or 'matplotlib'} on the control machine",
            hint="Install it with: python3 -m pip install matplotlib",
        ) from exc
    if found.first is None or not found.pairs:
        return []
    written = []
    with matplotlib.rc_context(dict(watch_style.RC)):
        pictures: dict[str, Figure] = {
            "latency": watch_panels.figure(found),
            "overview": watch_overview.figure(found),
        }
        for name, picture in pictures.items():
            for ending in formats:
                path = folder / f"{name}.{ending}"
                picture.savefig(path, dpi=150, facecolor="white", metadata=_UNDATED[ending])
                written.append(path)
    return written
