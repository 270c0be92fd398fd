# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON documents on a host that have more than one author. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
from typing import Any

Document = dict[str, Any]


def three_way(present: Document, last: Document, declared: Document) -> Document:
    """Merge what is declared into what is there, and take back what was declared before and no longer is.

    A key that we wrote last time and that still has the value we wrote goes when it is no longer declared. One that
    somebody has changed since then is theirs now, and stays.

    Args:
        present: the document as it is.
        last: what was declared the last time.
        declared: what is declared now.
    """
    merged: Document = {}
    for key in [*present, *(key for key in declared if key not in present)]:
        here, before, now = present.get(key), last.get(key), declared.get(key)
        if key in declared:
            if isinstance(now, dict) and isinstance(here, dict):
                merged[key] = three_way(here, before if isinstance(before, dict) else {}, now)
            else:
                merged[key] = now
        elif key in last and isinstance(before, dict) and isinstance(here, dict):
            rest = three_way(here, before, {})
            if rest:
                merged[key] = rest
        elif key not in last or here != before:
            merged[key] = here
    return merged


def render(document: Document) -> str:
    """The document as a file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def with_layer(present: Document, layer: str, facts: Document, source: str, now: str) -> Document:
    """The machine's facts with those of one layer; `when` moves only if something else did.

    Args:
        layer: the layer's name.
        facts: what the layer found to be true, such as versions.
        source: where it comes from, such as the collection's version.
        now: the time, ISO 8601.
    """
    layers = dict(present.get("layers", {}))
    before = layers.get(layer, {})
    entry = {"from": source, **facts}
    if {key: value for key, value in before.items() if key != "when"} != entry:
        layers[layer] = {**entry, "when": now}
    return {**present, "layers": layers}
