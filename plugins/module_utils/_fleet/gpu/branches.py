# SPDX-License-Identifier: GPL-3.0-or-later
"""The branches of NVIDIA's driver, and how long each is supported. Data: a new branch is a new line.

Dates are NVIDIA's own (datacenter driver documentation, endoflife.date beside it), as of November 2026. The vendor keeps a list
for programs: docs.nvidia.com/datacenter/tesla/drivers/releases.json.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache

LTS = "lts"
PRODUCTION = "production"
FEATURE = "feature"
UNKNOWN = "unknown"

# The day of what is written here, and of the documentation made from it.
AS_OF = date(2026, 11, 20)

# R620 ships open kernel modules only.
CLOSED_LAST = 615


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch.

    Attributes:
        last_seen: its newest version that was seen.
        end_of_life: the last month it is supported in, as YYYY-MM; empty: not known.
        ended: support is over, though the month is not known.
    """

    name: str
    kind: str
    last_seen: str
    end_of_life: str = ""
    ended: bool = False
    note: str = ""

    def over(self, today: date) -> bool:
        """Whether its support is over on a day."""
        if not self.end_of_life:
            return self.ended
        year, month = map(int, self.end_of_life.split("-"))
        return (today.year, today.month) > (year, month)

    def ends(self) -> str:
        """Its end in words."""
        return self.end_of_life or ("some time ago" if self.ended else "not known")


BRANCHES: dict[str, Branch] = {
    one.name: one
    for one in (
        Branch("470", LTS, "", ended=True, note="the last one for Kepler"),
        Branch("535", LTS, "535.309.01", "2026-06", note="Debian 12's own driver"),
        Branch("550", PRODUCTION, "550.163.01", ended=True, note="Debian 13's own driver"),
        Branch("560", FEATURE, "", ended=True),
        Branch("565", FEATURE, "", ended=True),
        Branch("570", PRODUCTION, "570.211.01", "2026-01", note="the first one for Blackwell"),
        Branch("575", FEATURE, "575.57.08", ended=True),
        Branch("580", LTS, "580.178.04", "2028-06", note="the last one for Maxwell, Pascal and Volta"),
        Branch("590", FEATURE, "590.48.01", ended=True),
        Branch("595", PRODUCTION, "595.91.07", "2027-03"),
        Branch("610", FEATURE, "610.57.04", "2026-08", note="nvidia-smi renamed its version labels"),
        Branch("615", UNKNOWN, "615.71.09"),
        Branch("620", UNKNOWN, "", note="open kernel modules only"),
    )
}


def branch_of(version: str) -> str:
    """The branch of a full version."""
    return version.partition(".")[0]


@cache
def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers, to compare; ``580`` comes before ``580.65.06``."""
    return tuple(int(part) for part in version.split("."))


def runs_on(driver: str, floor: str) -> bool:
    """Whether a driver is not older than a floor."""
    return numbers(driver) >= numbers(floor)
