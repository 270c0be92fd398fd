# SPDX-License-Identifier: GPL-3.0-or-later
"""A golden image by its name and version, as a fleet file says it, and what each cloud calls it. Pure.

``golden:gpu-box@1.2.0`` is one version and stays that one. ``golden:gpu-box@latest`` is the newest at the moment it is
asked for; it is for people at a prompt, and no fleet file takes it, for a machine made from it could not be compared
with what is declared.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .versions import NAME, VERSION

PREFIX = "golden:"
"""What an image of ours begins with, wherever a cloud's own image could stand as well."""

LATEST = "latest"
"""The version that means the newest there is."""

IMAGE_LABEL = "gpumesh-image"
"""The label that says which golden image a cloud's copy is."""

VERSION_LABEL = "gpumesh-image-version"
"""The label with its version, as ``1.2.0``; with dashes where a cloud's labels have no dots."""

OS_LABEL = "gpumesh-image-os"
"""The label with the operating system it holds, in the words of a fleet file: ``debian-13``."""

_NAME = re.compile(NAME)
_VERSION = re.compile(VERSION)
_FORM = "it is written golden:NAME@VERSION, as in golden:gpu-box@1.2.0"


@dataclass(frozen=True, slots=True)
class GoldenReference:
    """One golden image.

    Attributes:
        name: ``gpu-box``.
        version: ``1.2.0``, or ``latest``.
    """

    name: str
    version: str

    @classmethod
    def parse(cls, text: str, *, latest: bool = False) -> GoldenReference:
        """The image that a text names.

        Args:
            latest: ``@latest`` will do.

        Raises:
            ValueError: it names none, in a sentence.
        """
        if not is_golden(text):
            raise ValueError(f"{text} is no golden image; {_FORM}")
        name, at, version = text.removeprefix(PREFIX).partition("@")
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{text} has no valid name: 1 to 41 of a-z 0-9 -, a letter first and no dash last; {_FORM}"
            )
        if not at:
            raise ValueError(f"{text} has no version; {_FORM}")
        if version == LATEST:
            if not latest:
                raise ValueError(
                    f"{text} would be another image tomorrow; name the version, as in {PREFIX}{name}@1.2.0"
                )
        elif not _VERSION.fullmatch(version):
            near = version.removeprefix("v").removeprefix("V").replace("-", ".")
            advice = f"did you mean {PREFIX}{name}@{near}?" if _VERSION.fullmatch(near) else _FORM
            raise ValueError(f"{text} has no valid version; {advice}")
        return cls(name, version)

    @classmethod
    def of_labels(cls, labels: Mapping[str, str]) -> GoldenReference | None:
        """The image that a cloud's labels name; None where they name none."""
        name, version = labels.get(IMAGE_LABEL, ""), labels.get(VERSION_LABEL, "").replace("-", ".")
        return cls(name, version) if _NAME.fullmatch(name) and _VERSION.fullmatch(version) else None

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}@{self.version}"

    @property
    def is_latest(self) -> bool:
        """It names the newest version, whichever that is."""
        return self.version == LATEST

    @property
    def parts(self) -> tuple[int, ...]:
        """The version as numbers, to be put in order; empty for the newest."""
        return () if self.is_latest else tuple(int(part) for part in self.version.split("."))

    @property
    def stem(self) -> str:
        """How its files are called: ``gpu-box-v1.2.0``."""
        return f"{self.name}-v{self.version}"

    @property
    def gcp_name(self) -> str:
        """The name of its copy in Google Cloud: ``gpu-box-v1-2-0``."""
        return self.stem.replace(".", "-")

    @property
    def gcp_family(self) -> str:
        """The image family of its copies in Google Cloud."""
        return self.name

    @property
    def gcp_labels(self) -> dict[str, str]:
        """The labels of its copy in Google Cloud, whose values have no dots."""
        return {IMAGE_LABEL: self.name, VERSION_LABEL: self.version.replace(".", "-")}

    @property
    def hetzner_labels(self) -> dict[str, str]:
        """The labels of its snapshot in Hetzner Cloud."""
        return {IMAGE_LABEL: self.name, VERSION_LABEL: self.version}

    @property
    def hetzner_selector(self) -> str:
        """The label selector that finds its snapshot in Hetzner Cloud; all versions of it, for the newest."""
        wanted = {IMAGE_LABEL: self.name} if self.is_latest else self.hetzner_labels
        return ",".join(f"{key}=={value}" for key, value in wanted.items())


def is_golden(text: str) -> bool:
    """Whether a text means a golden image, well written or not."""
    return text.startswith(PREFIX)
