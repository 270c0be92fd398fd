# SPDX-License-Identifier: GPL-3.0-or-later
"""Which locks come with the collection: of every environment that somebody could get unasked, and that PyPI has.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import catalog, frameworks, frameworks_cpu, stack_frameworks
from .branches import AS_OF
from .frameworks import Environment
from .stack import Stack, resolve
from .stack_request import FRAMEWORKS, Group, Request

UV_VERSION = "0.13.9"


def environments() -> tuple[Environment, ...]:
    """Each once, by the name of its lock. What needs an index beside PyPI is locked by the machine that needs it first."""
    found = {one.lock: one for one in _all() if not one.index_urls}
    return tuple(found[name] for name in sorted(found))


def _all() -> Iterator[Environment]:
    nothing = dict.fromkeys(FRAMEWORKS, "")
    for name, chosen in frameworks_cpu.answers(nothing, third_party=False).items():
        if chosen["supported"]:
            yield frameworks.environment(name, chosen)
    for model in catalog.MODELS:
        answer = resolve(Request((Group(model, 1),), "ubuntu-24.04", AS_OF))
        if isinstance(answer, Stack):
            made = stack_frameworks.frameworks(answer.request, answer.driver.version)
            for name, one in made.items():
                if one["supported"]:
                    yield frameworks.environment(name, one)
