# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that can be injected into every cloud of the sandbox.

Two sorts. *Transport* faults hit a request whoever handles it, and are carried out by :mod:`sandbox.middleware`; a cloud
module need not know of them. *Semantic* faults change what a cloud does; its handlers ask for them by
:meth:`Faults.take`, which counts a hit::

    if rule := world.faults.take("stockout", service="gce", subject=Subject(name=name, labels=labels, zone=zone)):
        ...  # this create ends in ZONE_RESOURCE_POOL_EXHAUSTED

``stockout``, ``quota`` and ``failed_operation`` are taken once for each create (or other operation), ``list_lag`` once
for each object created: it stays out of lists for ``rule.seconds``, though asked by name it is there. ``unreachable`` is
taken by a list over all zones, once for each zone: the list does without the zones it hits, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

TRANSPORT = frozenset(
    {"rate_limit", "error", "unavailable", "reset", "reset_after", "hang", "slow", "duplicate"}
)
"""``rate_limit`` 429, ``error`` 500 (or ``status``), ``unavailable`` 503: instead of handling the request.
``reset``: the TCP connection is reset instead of handling it. ``reset_after``: it is handled, then the connection reset.
``hang``: no answer for ``seconds`` (default: for ever), then a reset. ``slow``: the answer comes ``seconds`` late.
``duplicate``: it is handled twice, the client gets the second answer."""

SEMANTIC = frozenset({"stockout", "quota", "slow_operation", "failed_operation", "list_lag", "unreachable"})

_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request or an operation is about, as far as is known.

    Attributes:
        zone: GCE zone or Hetzner location.
        verb: the operation: ``create``, ``delete``, ``start``, ``stop``, or the cloud's own word for others.
    """

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    zone: str = ""
    type: str = ""
    verb: str = ""


@dataclass(slots=True)
class Rule:
    """One fault: what it does, what it hits, how often.

    Attributes:
        service, method: exactly these; any if empty.
        path: regular expression searched in the request path (transport faults only).
        name, zone, type, verb: regular expressions that the whole word must match.
        labels: labels the object must carry.
        nth: the first matching request or operation it hits, counted from 1.
        every: from then on it hits every so-many-th one.
        times: how often it hits before it is spent; 0 means without end.
        seconds: how long, for the kinds that take time. For ``hang`` 0 means for ever.
        retry_after: seconds, sent as Retry-After by ``rate_limit`` and ``unavailable``; none if negative.
        status: HTTP status for ``error``.
        code, message: the cloud's error code and text, for ``stockout``, ``quota`` and ``failed_operation``; each cloud
            has its usual one where these are empty.
        seen, hits: counters.
    """

    kind: str
    id: int = 0
    service: str = ""
    method: str = ""
    path: str = ""
    name: str = ""
    zone: str = ""
    type: str = ""
    verb: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    nth: int = 1
    every: int = 1
    times: int = 1
    seconds: float = 0.0
    retry_after: float = -1.0
    status: int = 500
    code: str = ""
    message: str = ""
    seen: int = 0
    hits: int = 0

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Rule:
        """A rule from JSON.

        Raises:
            ValueError: with a sentence that says what would be right.
        """
        known = {f.name: f.type for f in fields(cls) if f.name not in ("id", "seen", "hits")}
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"unknown fields {', '.join(unknown)}; known are {', '.join(known)}")
        rule = cls(**{"kind": "", **given})
        if rule.kind not in TRANSPORT | SEMANTIC:
            raise ValueError(f"kind must be one of {', '.join(sorted(TRANSPORT | SEMANTIC))}")
        for key, kind in known.items():
            if type(getattr(rule, key)) not in _TYPES.get(str(kind), (dict,)):
                raise ValueError(f"{key} must be of type {kind}")
        for key in ("path", "name", "zone", "type", "verb"):
            try:
                re.compile(getattr(rule, key))
            except re.error as error:
                raise ValueError(f"{key} is no regular expression: {error}") from error
        if (
            rule.nth < 1
            or rule.every < 1
            or rule.times < 0
            or rule.seconds < 0
            or not 400 <= rule.status <= 599
        ):
            raise ValueError(
                "nth and every must be 1 or more, times and seconds 0 or more, status 400 to 599"
            )
        return rule

    def as_json(self) -> dict[str, Any]:
        """The rule with its counters."""
        return asdict(self)

    @property
    def spent(self) -> bool:
        return 0 < self.times <= self.hits

    def matches(self, service: str, subject: Subject) -> bool:
        """Whether it is about this service and object."""
        if self.service and self.service != service:
            return False
        for pattern, value in (
            (self.name, subject.name),
            (self.zone, subject.zone),
            (self.type, subject.type),
            (self.verb, subject.verb),
        ):
            if pattern and not re.fullmatch(pattern, value):
                return False
        return all(subject.labels.get(key) == value for key, value in self.labels.items())

    def strike(self) -> bool:
        """Count one match, and say whether the fault hits this one."""
        self.seen += 1
        if self.spent or self.seen < self.nth or (self.seen - self.nth) % self.every:
            return False
        self.hits += 1
        return True


class Faults:
    """The rules in force."""

    def __init__(self) -> None:
        self.rules: dict[int, Rule] = {}
        self._last_id = 0

    def add(self, rule: Rule) -> Rule:
        """Put a rule in force and give it its id."""
        self._last_id += 1
        rule.id = self._last_id
        self.rules[rule.id] = rule
        return rule

    def remove(self, rule_id: int) -> bool:
        """End a rule; False if there is none of that id."""
        return self.rules.pop(rule_id, None) is not None

    def clear(self) -> None:
        """End them all."""
        self.rules.clear()

    def take(self, kind: str, *, service: str, subject: Subject | None = None) -> Rule | None:
        """The semantic fault of that kind that hits this operation, counted as a hit.

        The first rule that hits ends the search, so rules of one kind take their turns in the order they were made.
        """
        about = subject or Subject()
        for rule in self.rules.values():
            if rule.kind == kind and rule.matches(service, about) and rule.strike():
                return rule
        return None

    def lasting(self, kind: str, *, service: str, subject: Subject) -> bool:
        """Whether a rule without end hits every such operation; counts nothing."""
        return any(
            rule.kind == kind and not rule.times and rule.every == 1 and rule.matches(service, subject)
            for rule in self.rules.values()
        )

    def transport(self, *, service: str, method: str, path: str, subject: Subject) -> Rule | None:
        """The transport fault that hits this request, counted as a hit."""
        for rule in self.rules.values():
            if (
                rule.kind in TRANSPORT
                and (not rule.method or rule.method.upper() == method)
                and (not rule.path or re.search(rule.path, path))
                and rule.matches(service, subject)
                and rule.strike()
            ):
                return rule
        return None
