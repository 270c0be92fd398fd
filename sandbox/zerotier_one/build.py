# SPDX-License-Identifier: GPL-3.0-or-later
"""What this copy of the stand-in was built as: its version, whether it has a controller, its built-in planet."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

VERSION = "1.14.2"
"""The vendor's last whose packages have a controller. It answers as the recorded 1.14.1 does."""
WITHOUT_CONTROLLER = "1.16.0"
"""The vendor's first whose packages have none."""
FILE = "build.json"
OWN_ROOT = ("127.0.0.1:9993",)
"""A planet of the node itself: a lone host is online, and is its own controller."""
_LAST_WITH_CONTROLLER = (1, 15)


@dataclass(frozen=True, slots=True)
class Build:
    """Kept beside the modules as ``build.json``.

    Attributes:
        version: what it says it is.
        controller: whether ``/controller`` is served; the vendor's packages have none from 1.16.0 on.
        roots: ``host:port`` of the built-in planet's roots.
    """

    version: str = VERSION
    controller: bool = True
    roots: tuple[str, ...] = OWN_ROOT

    @classmethod
    def of(cls, version: str, roots: tuple[str, ...] = OWN_ROOT) -> Build:
        """The build of that version: with a controller if the vendor's package of it has one."""
        major, minor = (int(part) for part in version.split(".")[:2])
        return cls(version, (major, minor) <= _LAST_WITH_CONTROLLER, roots)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """The version as major, minor, revision."""
        major, minor, revision = (int(part) for part in self.version.split("."))
        return major, minor, revision

    def as_json(self) -> str:
        """The text of ``build.json``."""
        return json.dumps(asdict(self), indent=1) + "\n"


def installed(folder: Path | None = None) -> Build:
    """What is written beside the modules; the defaults where nothing is, as in the work tree."""
    try:
        found = json.loads(((folder or Path(__file__).parent) / FILE).read_text("utf-8"))
    except FileNotFoundError:
        return Build()
    return Build(found["version"], found["controller"], tuple(found["roots"]))
