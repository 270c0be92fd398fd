# SPDX-License-Identifier: GPL-3.0-or-later
"""Which layers and images of tools have outlived their use, and what dead builds left in the container engine. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from .engine import Container, Image
from .layers import LABEL

Thing = TypeVar("Thing", Image, Container)

TOOLS_LIFETIME = timedelta(days=31)
"""The month is in the key of an image of tools, so no build asks for one that is older."""


def left_over(
    things: Iterable[Thing],
    alive: Collection[str],
    before: datetime,
    store: str = "",
    dead: Collection[str] = (),
) -> list[Thing]:
    """What belongs to a build that is no more.

    Args:
        things: containers or images.
        alive: ids of the builds that go on.
        before: what is younger is left alone, since its build may have begun after somebody looked which go on.
        store: the folder that the builds are for; those for another are left alone. All of them if there is none.
        dead: ids of builds that are known to be no more, whatever the age of what they left.
    """
    return [
        one
        for one in things
        if (build := one.labels.get(f"{LABEL}.build"))
        and build not in alive
        and (one.created < before or build in dead)
        and (not store or one.labels.get(f"{LABEL}.store") == store)
    ]


def outlived(images: Sequence[Image], before: datetime, keep: Collection[str] = ()) -> list[Image]:
    """Layers made before a time on which none made later stands; those that stand on others come first.

    Args:
        images: of all layers.
        before: the time.
        keep: keys of layers that stay whatever their age, with those below.
    """
    parents = {one.labels.get(f"{LABEL}.key", ""): one.labels.get(f"{LABEL}.parent", "") for one in images}
    kept: set[str] = set()
    for one in images:
        key = one.labels.get(f"{LABEL}.key", "")
        if one.created < before and key not in keep:
            continue
        while key and key not in kept:
            kept.add(key)
            key = parents.get(key, "")
    old = [one for one in images if one.labels.get(f"{LABEL}.key", "") not in kept]
    return sorted(old, key=lambda one: one.created, reverse=True)


def past_tools(images: Iterable[Image], now: datetime, used: str = "") -> list[Image]:
    """Images of tools that no build will ask for again.

    Args:
        images: of all tools.
        now: the time.
        used: the name or id of the one that this build uses; it may be an old one, by the user's wish.
    """
    return [
        one
        for one in images
        if one.created < now - TOOLS_LIFETIME
        and used not in one.names
        and not (used and one.id.removeprefix("sha256:").startswith(used.removeprefix("sha256:")))
    ]
