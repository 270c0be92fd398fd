# SPDX-License-Identifier: GPL-3.0-or-later
"""The profile's file, /etc/gpumesh/acceptance.json, as a `Profile`, and back.

Pure. Every problem is told at once, each with the key it is at; a key that is not known is refused with those that are, for
a threshold that was written wrongly and ignored would judge by the wrong one.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from typing import Any

from .._fleet.gpu import catalog
from .._fleet.gpu.health_words import Expected, ExpectedError
from .check import JAX, PYTORCH, TENSORFLOW, VLLM
from .limits import SHARES
from .profile import Profile, Targets

FRAMEWORKS = (PYTORCH, TENSORFLOW, JAX, VLLM)
_SHARES_OF_TARGETS = ("scaling_efficiency", "utilization")


class ProfileError(ValueError):
    """The file cannot be used. Carries every problem, one sentence without a full stop each."""

    def __init__(self, problems: Collection[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class _Reader:
    """Takes values of the kind that is asked for, and keeps what is wrong with the others."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, key: str, what: str) -> None:
        self.problems.append(f"{key}: {what}")

    def unknown(self, given: Collection[str], known: Collection[str], above: str = "") -> None:
        for key in sorted(set(given) - set(known)):
            near = difflib.get_close_matches(key, known, n=1)
            meant = f", {near[0]} perhaps" if near else ""
            self.wrong(f"{above}{key}", f"there is no such key{meant} (known: {', '.join(sorted(known))})")

    def text(self, given: Mapping[str, Any], key: str, default: str) -> str:
        value = given.get(key, default)
        if isinstance(value, str) and "\0" not in value:
            return value
        self.wrong(key, f"{_shown(value)} is no text")
        return default

    def path(self, given: Mapping[str, Any], key: str, default: str) -> str:
        value = self.text(given, key, default)
        if value and not value.startswith("/"):
            self.wrong(key, f"{value!r} does not begin with /")
        return value

    def number(self, key: str, value: Any, *, least: float = 0, most: float = math.inf) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            self.wrong(key, f"{_shown(value)} is no number")
        elif not least <= value <= most:
            upper = "" if math.isinf(most) else f" and at most {most:g}"
            self.wrong(key, f"{value:g} is not at least {least:g}{upper}")
        else:
            return float(value)
        return least

    def mapping(self, given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = given.get(key, {})
        if isinstance(value, Mapping):
            return value
        self.wrong(key, f"{_shown(value)} is no object with keys")
        return {}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse(
    text: str, *, checks: Collection[str] | None = None, limits: Collection[str] | None = None
) -> Profile:
    """What a profile's file declares.

    Args:
        text: what is in it.
        checks: the names that `waived` may have; None: any.
        limits: the names that `limits` may have; None: any.

    Raises:
        ProfileError: with everything that is wrong.
    """
    try:
        given = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as problem:
        raise ProfileError([f"line {problem.lineno}: it is no JSON ({problem.msg})"]) from problem
    except RecursionError as problem:
        raise ProfileError(["it is nested too deeply"]) from problem
    except ValueError as problem:
        raise ProfileError([str(problem)]) from problem
    if not isinstance(given, Mapping):
        raise ProfileError(["it is no JSON object with keys"])
    reader = _Reader()
    reader.unknown(given, [field.name for field in fields(Profile)])
    profile = Profile(
        machine=reader.text(given, "machine", ""),
        gpus=_gpus(reader, given),
        bare_metal=_bare_metal(reader, given),
        expected=_expected(reader, given),
        interpreters=_interpreters(reader, given),
        targets=_targets(reader, given),
        limits=_limits(reader, given, limits),
        waived=_waived(reader, given, checks),
        stop_margin_c=reader.number(
            "stop_margin_c", given.get("stop_margin_c", Profile().stop_margin_c), most=100
        ),
        model_path=reader.path(given, "model_path", ""),
        root=reader.path(given, "root", "/") or "/",
        kernel_log=reader.path(given, "kernel_log", ""),
        nvidia_smi=reader.text(given, "nvidia_smi", "nvidia-smi") or "nvidia-smi",
    )
    if reader.problems:
        raise ProfileError(reader.problems)
    return profile


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key that is there twice would silently have the value of the last."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key}: it is there twice")
        found[key] = value
    return found


def _gpus(reader: _Reader, given: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, count in reader.mapping(given, "gpus").items():
        model = catalog.find(name)
        if model is None:
            known = ", ".join(sorted(catalog.names()))
            reader.wrong(f"gpus.{name}", f"the catalog has no such model (known: {known})")
        elif isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 256:
            reader.wrong(f"gpus.{name}", f"{_shown(count)} is no number of GPUs")
        else:
            found[model.name] = found.get(model.name, 0) + count
    return found


def _bare_metal(reader: _Reader, given: Mapping[str, Any]) -> bool | None:
    value = given.get("bare_metal")
    if value is None or isinstance(value, bool):
        return value
    reader.wrong("bare_metal", f"{_shown(value)} is neither true, false nor null")
    return None


def _expected(reader: _Reader, given: Mapping[str, Any]) -> Mapping[str, object]:
    value = reader.mapping(given, "expected")
    try:
        Expected.of(value)
    except ExpectedError as problem:
        reader.wrong("expected", str(problem))
    return value


def _interpreters(reader: _Reader, given: Mapping[str, Any]) -> dict[str, str]:
    value = reader.mapping(given, "interpreters")
    reader.unknown(value, FRAMEWORKS, "interpreters.")
    found: dict[str, str] = {}
    for name, path in value.items():
        if not isinstance(path, str) or not path.startswith("/"):
            reader.wrong(f"interpreters.{name}", f"{_shown(path)} is no path that begins with /")
        else:
            found[name] = path
    return found


def _targets(reader: _Reader, given: Mapping[str, Any]) -> Targets:
    value = reader.mapping(given, "targets")
    known = [field.name for field in fields(Targets)]
    reader.unknown(value, known, "targets.")
    found = {
        name: reader.number(
            f"targets.{name}", value[name], most=1 if name in _SHARES_OF_TARGETS else math.inf
        )
        for name in known
        if name in value
    }
    return Targets(**found)


def _limits(reader: _Reader, given: Mapping[str, Any], known: Collection[str] | None) -> dict[str, float]:
    value = reader.mapping(given, "limits")
    if known is not None:
        reader.unknown(value, known, "limits.")
    return {
        name: reader.number(f"limits.{name}", one, most=1 if name in SHARES else math.inf)
        for name, one in value.items()
    }


def _waived(reader: _Reader, given: Mapping[str, Any], known: Collection[str] | None) -> dict[str, str]:
    value = reader.mapping(given, "waived")
    if known is not None:
        reader.unknown(value, known, "waived.")
    found: dict[str, str] = {}
    for name, reason in value.items():
        if not isinstance(reason, str) or not reason.strip():
            reader.wrong(f"waived.{name}", "a waiver has a reason, which the report shows")
        else:
            found[name] = " ".join(reason.split())
    return found


def as_data(profile: Profile) -> dict[str, Any]:
    """A profile as its file has it, with all keys."""
    return asdict(profile)
