# SPDX-License-Identifier: GPL-3.0-or-later
"""One version of the driver in one repository: what its packages (:mod:`.drivers`) and their files (:mod:`.contents`) are named by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Driver:
    """One driver version in one repository.

    Attributes:
        version: the driver's, ``580.178.04``.
        revision: what the repository adds to it: ``-1ubuntu1``.
        kind: of its packages, a key of :data:`.drivers.KINDS`.
        server: whether the names say so, as in Ubuntu's archive.
    """

    version: str
    revision: str
    kind: str
    server: bool = False

    @property
    def branch(self) -> str:
        return self.version.split(".")[0]

    @property
    def module(self) -> str:
        """What dkms knows its sources as."""
        return "nvidia-srv" if self.server else "nvidia"

    def words(self, flavour: str) -> dict[str, str]:
        """For the templates."""
        return {
            "b": f"{self.branch}-server" if self.server else self.branch,
            "branch": self.branch,
            "v": self.version,
            "d": f"{self.version}{self.revision}",
            "f": "-open" if flavour == "open" else "",
            "o": "open-" if flavour == "open" else "",
        }
