# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stack is asked for: the GPUs, the distribution, and the wishes, read from plain data.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from . import catalog
from .branches import branch_of, numbers
from .catalog import CLOSED, OPEN, GpuCard, GpuModel, Power
from .sources import DISTRIBUTION, NVIDIA

AUTO = "auto"
PYTORCH = "pytorch"
TENSORFLOW = "tensorflow"
JAX = "jax"
VLLM = "vllm"
FRAMEWORKS = (PYTORCH, TENSORFLOW, JAX, VLLM)


class WishError(ValueError):
    """A question that cannot be read."""


@dataclass(frozen=True, slots=True)
class Group:
    """GPUs of one model in one machine; ``card`` where the PCI id is known."""

    model: GpuModel
    count: int
    card: GpuCard | None = None

    @property
    def cards(self) -> tuple[GpuCard, ...]:
        """The cards it may be."""
        return (self.card,) if self.card else self.model.cards

    @property
    def driver_floor(self) -> str:
        """The first driver that knows every card it may be; empty: any."""
        floors = [card.driver_floor or self.model.driver_floor for card in self.cards] or [
            self.model.driver_floor
        ]
        return max(floors, key=lambda floor: numbers(floor) if floor else ())

    @property
    def power(self) -> Power:
        """The range of its power limit, as wide as that of any card it may be; None where that is not known."""
        minima = [card.power.minimum for card in self.cards]
        maxima = [card.power.maximum for card in self.cards]
        defaults = {card.power.default for card in self.cards}
        return Power(
            None if None in minima else min((one for one in minima if one is not None), default=None),
            defaults.pop() if len(defaults) == 1 else None,
            # The board with the most power is the one whose limit is known.
            max((one for one in maxima if one is not None), default=None),
        )

    def __str__(self) -> str:
        """Its number and its name."""
        return f"{self.count}x {self.model.name}" if self.count > 1 else self.model.name


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants of the stack; what is left at its default is the resolver's choice.

    Attributes:
        frameworks: a version; empty: the resolver's choice; None: not wanted.
        power_limit_w: one limit for all GPUs, or one a model; 0 or none: as it is.
        build_allowed: modules may be built that are known not to build.
        mok: a key of the machine's own is enrolled, so Secure Boot accepts modules built there.
    """

    branch: str = ""
    driver: str = ""
    flavour: str = AUTO
    source: str = AUTO
    eol_allowed: tuple[str, ...] = ()
    cuda: str = ""
    cudnn: bool = False
    frameworks: Mapping[str, str | None] = field(default_factory=lambda: dict.fromkeys(FRAMEWORKS, ""))
    power_limit_w: int | Mapping[str, int] = 0
    build_allowed: bool = False
    mok: bool = False

    def power_of(self, model: str) -> int:
        """The wished limit of a model; 0: none."""
        if isinstance(self.power_limit_w, int):
            return self.power_limit_w
        return self.power_limit_w.get(model, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """A question for a stack. ``strangers`` are GPUs that the catalog does not have."""

    gpus: tuple[Group, ...]
    distribution: str
    today: date
    kernels: tuple[str, ...] = ()
    secure_boot: bool = False
    wishes: Wishes = field(default_factory=Wishes)
    strangers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that is broken: its name, the wish or thing it is about, and why in words."""

    rule: str
    about: str
    says: str


def capabilities(groups: Sequence[Group]) -> list[tuple[int, int]]:
    """The compute capabilities there are."""
    return sorted({group.model.capability for group in groups})


def named(groups: Sequence[Group]) -> str:
    """The models in words."""
    names = list(dict.fromkeys(group.model.full_name.removeprefix("NVIDIA ") for group in groups))
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"


def read_gpus(given: Any) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """The GPUs of a question, equal ones together, and those that nobody knows.

    Args:
        given: ``rtx5090x4``, a list of names and PCI ids, or a list of mappings with model or pci_id, and count.
    """
    counts: dict[tuple[str, str], int] = {}
    found: dict[tuple[str, str], tuple[GpuModel, GpuCard | None]] = {}
    strangers: dict[str, None] = {}
    for text, count in _entries(given):
        card = None
        model = catalog.find(text)
        if model is None and (card := catalog.by_pci_id(text)) is not None:
            model = catalog.model_of(card)
        if model is None:
            strangers[text] = None
            continue
        key = (model.name, card.pci_id if card else "")
        counts[key] = counts.get(key, 0) + count
        found[key] = (model, card)
    groups = tuple(Group(model, counts[key], card) for key, (model, card) in found.items())
    return groups, tuple(strangers)


def _entries(given: Any) -> Iterable[tuple[str, int]]:
    if isinstance(given, Mapping):
        given = [given]
    elif isinstance(given, str):
        given = [part for part in re.split(r"[,;]", given) if part.strip()]
    elif not isinstance(given, Iterable):
        raise WishError(f"gpus: give names or PCI ids, not {given!r}")
    for one in given:
        if isinstance(one, Mapping):
            if strange := [str(key) for key in one if key not in ("model", "pci_id", "count")]:
                raise WishError(f"gpus: {', '.join(strange)}: an entry has model or pci_id, and count")
            text = str(one.get("pci_id") or one.get("model") or "")
            if not text.strip():
                raise WishError(f"gpus: an entry names neither model nor pci_id: {dict(one)!r}")
            count = _count(one.get("count", 1))
        else:
            text, count = _short(str(one))
        if count:
            yield text.strip(), count


def _short(text: str) -> tuple[str, int]:
    """``rtx5090x4``, ``4x rtx5090`` and plain names; ``rtx5091`` is not 5091 pieces of an rt."""
    plain = text.strip()
    if not plain:
        raise WishError("gpus: a name is empty")
    if not _known(plain):
        for pattern, name, count in ((r"(.+?)\s*[x*]\s*(\d+)", 1, 2), (r"(\d+)\s*[x*]\s*(.+)", 2, 1)):
            found = re.fullmatch(pattern, plain, re.IGNORECASE)
            if found and _known(found[name]):
                return found[name], _count(found[count])
    return plain, 1


def _known(name: str) -> bool:
    return catalog.find(name) is not None or catalog.by_pci_id(name) is not None


def _count(given: Any) -> int:
    try:
        count = int(given)
    except (TypeError, ValueError):
        count = -1
    if isinstance(given, bool) or not 0 <= count <= 64:
        raise WishError(f"gpus: {given!r} is no count of GPUs in one machine")
    return count


KEYS = (
    "branch", "driver", "flavour", "source", "eol_allowed", "cuda", "cudnn", *FRAMEWORKS, "power_limit_w", "build_allowed", "mok",
)  # fmt: skip


def read_wishes(given: Any) -> Wishes:
    """The wishes of plain data; what is empty is no wish."""
    if not isinstance(given, Mapping):
        raise WishError("wishes: give a mapping")
    if strange := [str(key) for key in given if key not in KEYS]:
        raise WishError(f"wishes: {', '.join(strange)} is none; there are {', '.join(KEYS)}")
    driver = _version("driver", given.get("driver"), r"\d{3}\.\d+(\.\d+)?")
    branch = _version("branch", given.get("branch"), r"\d{3}")
    if driver and branch and branch_of(driver) != branch:
        raise WishError(f"wishes: driver {driver} is not of branch {branch}")
    allowed = given.get("eol_allowed") or ()
    if isinstance(allowed, (str, int)):
        allowed = str(allowed).split(",")
    return Wishes(
        branch=branch or (branch_of(driver) if driver else ""),
        driver=driver,
        flavour=_choice("flavour", given.get("flavour"), (AUTO, OPEN, CLOSED)),
        source=_choice("source", given.get("source"), (AUTO, NVIDIA, DISTRIBUTION)),
        eol_allowed=tuple(dict.fromkeys(_version("eol_allowed", one, r"\d{3}") for one in allowed)),
        cuda=_version("cuda", given.get("cuda"), r"\d+\.\d+(\.\d+)?"),
        cudnn=read_flag("cudnn", given.get("cudnn")),
        frameworks={name: _framework(name, given.get(name)) for name in FRAMEWORKS},
        power_limit_w=_power(given.get("power_limit_w")),
        build_allowed=read_flag("build_allowed", given.get("build_allowed")),
        mok=read_flag("mok", given.get("mok")),
    )


_VERSION = r"\d+(\.\d+){1,3}((a|b|rc)\d+)?(\+cu\d{3})?"


def _framework(name: str, given: Any) -> str | None:
    if given is False or (isinstance(given, str) and given.strip().lower() in ("false", "no", "none")):
        return None
    if given is True or given is None:
        return ""
    if isinstance(given, float):
        # 2.10 would be 2.1, and nobody could tell.
        raise WishError(f"wishes: {name}: write the version in quotation marks, as '{given}'")
    return _version(name, given, _VERSION)


def _version(name: str, given: Any, pattern: str) -> str:
    if given is None or given == "":
        return ""
    text = str(given).strip()
    if isinstance(given, bool) or not re.fullmatch(pattern, text):
        raise WishError(f"wishes: {name}: {given!r} is no version of it")
    return text


def _choice(name: str, given: Any, choices: tuple[str, ...]) -> str:
    chosen = str(given or AUTO).strip().lower()
    if chosen not in choices:
        raise WishError(f"wishes: {name}: {given!r} is none of {', '.join(choices)}")
    return chosen


def read_flag(name: str, given: Any) -> bool:
    """A yes or no, as a boolean or as a command line has it."""
    if isinstance(given, str):
        lower = given.strip().lower()
        if lower in ("", "false", "no", "off", "0"):
            return False
        if lower in ("true", "yes", "on", "1"):
            return True
    elif given is None or isinstance(given, bool):
        return bool(given)
    raise WishError(f"{name}: {given!r} is neither true nor false")


def _power(given: Any) -> int | dict[str, int]:
    if given is None or given == "":
        return 0
    if not isinstance(given, Mapping):
        return _watts(given)
    limits: dict[str, int] = {}
    for name, watts in given.items():
        model = catalog.find(str(name))
        if model is None:
            raise WishError(f"wishes: power_limit_w: no GPU is known as {name}")
        limits[model.name] = _watts(watts)
    return {name: watts for name, watts in limits.items() if watts}


def _watts(given: Any) -> int:
    text = str(given).strip().removesuffix("W").strip()
    if isinstance(given, bool) or not re.fullmatch(r"\d{1,4}", text):
        raise WishError(f"wishes: power_limit_w: {given!r} is no number of watts")
    return int(text)
