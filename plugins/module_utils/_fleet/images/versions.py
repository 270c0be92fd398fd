# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is made of, and so which version it is: the same content is the same version, and what differs from the newest
image says which part of the number moves.

* OS or disk layout differ: major.
* The layers, their order or how one is made (its role, its variables) differ: minor.
* Only what the package lists offered differs: patch.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ..errors import FleetError

NAME = r"^[a-z]([a-z0-9-]{0,39}[a-z0-9])?$"
VERSION = r"^(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})$"

Kind = Literal["first", "same", "major", "minor", "patch"]


class ImageError(FleetError):
    """A golden image cannot be made, kept or used as asked."""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """MAJOR.MINOR.PATCH."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """The version a text names.

        >>> Version.parse("1.2.3") < Version.parse("1.10.0")
        True
        """
        if not re.fullmatch(VERSION, text):
            raise ImageError(
                f"'{text}' is no version of an image", hint="A version is three numbers, such as 1.2.0"
            )
        return cls(*(int(part) for part in text.split(".")))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


FIRST = Version(1, 0, 0)


def check_name(name: str) -> str:
    """The name, if an image may have it: one that a file, a GCP image and a label of either cloud can have."""
    if not re.fullmatch(NAME, name):
        raise ImageError(
            f"'{name}' is no name for an image",
            hint="Use small letters, digits and dashes: a letter first, no dash last, at most 41 in all",
        )
    return name


def stem(name: str, version: Version) -> str:
    """What the files of an image are called, without an ending.

    >>> stem("gpu-box", Version(1, 2, 3))
    'gpu-box-v1.2.3'
    """
    return f"{name}-v{version}"


@dataclass(frozen=True, slots=True)
class LayerId:
    """A layer as it was built.

    Args:
        layer: its name.
        recipe: digest of how it is made: role, variables, and the recipes below it.
        key: digest of the recipe and of what the package lists offered when it was made.
    """

    layer: str
    recipe: str
    key: str


@dataclass(frozen=True)
class Identity:
    """What an image is made of. Two images with the same identity have the same content.

    Args:
        os: the distribution and its release: debian-13.
        layout: what the disk is like: firmware, file system, encryption, and the version of the code that lays it out.
        layers: from the lowest up; the first is the operating system itself.
    """

    os: str
    layout: str
    layers: tuple[LayerId, ...]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all of it."""
        layers = [[layer.layer, layer.recipe, layer.key] for layer in self.layers]
        text = json.dumps(["gpumesh-image", 1, self.os, self.layout, layers], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Bump:
    """The version that a content is or gets.

    Args:
        kind: ``same`` where an image with this content is there already.
        reason: one sentence without a full stop.
    """

    version: Version
    kind: Kind
    reason: str


def next_version(earlier: Mapping[Version, Identity], wanted: Identity) -> Bump:
    """The version an image with this content has, given all images of its name that there are."""
    same = [version for version, identity in earlier.items() if identity.fingerprint == wanted.fingerprint]
    if same:
        return Bump(max(same), "same", f"version {max(same)} has this very content")
    if not earlier:
        return Bump(FIRST, "first", "there is no earlier image of this name")
    newest = max(earlier)
    kind, reason = _difference(earlier[newest], wanted)
    return Bump(_raised(newest, kind), kind, f"{reason} since version {newest}")


def version_for(earlier: Mapping[Version, Identity], wanted: Identity, asked: Version | None) -> Bump:
    """The version an image with this content has, where one may be asked for by its number."""
    if asked is None:
        return next_version(earlier, wanted)
    if asked not in earlier:
        return Bump(asked, _step(max(earlier), asked) if earlier else "first", "it was asked for")
    if earlier[asked].fingerprint == wanted.fingerprint:
        return Bump(asked, "same", f"version {asked} has this very content")
    raise ImageError(
        f"version {asked} exists with other content",
        hint=f"Leave the version out, and it is {next_version(earlier, wanted).version}; what exists is never overwritten",
    )


def _step(newest: Version, version: Version) -> Kind:
    if newest.major != version.major:
        return "major"
    return "minor" if newest.minor != version.minor else "patch"


def _difference(before: Identity, after: Identity) -> tuple[Kind, str]:
    if before.os != after.os:
        return "major", f"the operating system changed from {before.os} to {after.os}"
    if before.layout != after.layout:
        return "major", f"the layout of the disk changed from {before.layout} to {after.layout}"
    names_before, names_after = ([each.layer for each in side.layers] for side in (before, after))
    if names_before != names_after:
        return "minor", f"the layers changed from {_listed(names_before)} to {_listed(names_after)}"
    pairs = list(zip(before.layers, after.layers, strict=True))
    recipes = [new.layer for old, new in pairs if old.recipe != new.recipe]
    if recipes:
        # Those above are made another way only because they stand on it.
        return "minor", f"how layer {recipes[0]} is made changed"
    keys = [new.layer for old, new in pairs if old.key != new.key]
    return "patch", f"the package lists of layer {keys[0]} changed"


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _raised(version: Version, kind: Kind) -> Version:
    if kind == "major":
        return Version(version.major + 1, 0, 0)
    if kind == "minor":
        return Version(version.major, version.minor + 1, 0)
    return Version(version.major, version.minor, version.patch + 1)
