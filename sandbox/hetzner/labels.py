# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels and label selectors, by the grammar of the Hetzner Cloud API. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import invalid

_NAME = r"[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_PREFIX = r"(?:[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_KEY = rf"(?:{_PREFIX}/)?{_NAME}"
_FULL_KEY = re.compile(_KEY)
_VALUE = re.compile(rf"(?:{_NAME})?")
_TERM = re.compile(
    rf"""\s*(?:
        (?P<absent>!)\s*(?P<absent_key>{_KEY})
      | (?P<set_key>{_KEY})\s+(?P<set_op>in|notin)\s*\((?P<set>[^()]*)\)
      | (?P<key>{_KEY})(?:\s*(?P<op>==|=|!=)\s*(?P<value>(?:{_NAME})?))?
    )\s*(?P<end>,|$)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Term:
    """One requirement.

    Attributes:
        wanted: the values one of which the label must have (or must not have); None asks only whether it is there.
        negate: the requirement is that it does not hold. A label that is missing has no value, so it is not any.
    """

    key: str
    wanted: frozenset[str] | None = None
    negate: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.wanted is None:
            return (self.key in labels) is not self.negate
        return (labels.get(self.key) in self.wanted) is not self.negate


def parse_selector(text: str) -> tuple[Term, ...]:
    """The requirements of a selector; all must hold. An empty selector has none.

    Raises:
        ApiError: it is malformed.
    """
    if not text.strip():
        return ()
    terms, at, more = [], 0, True
    while more:
        match = _TERM.match(text, at)
        if not match:
            raise invalid("label_selector", "label selector is malformed")
        if match["absent"]:
            terms.append(Term(match["absent_key"], negate=True))
        elif match["set_key"]:
            values = frozenset(value.strip() for value in match["set"].split(","))
            if not all(_VALUE.fullmatch(value) for value in values):
                raise invalid("label_selector", "label selector is malformed")
            terms.append(Term(match["set_key"], values, negate=match["set_op"] == "notin"))
        elif match["op"]:
            terms.append(Term(match["key"], frozenset({match["value"]}), negate=match["op"] == "!="))
        else:
            terms.append(Term(match["key"]))
        at, more = match.end(), match["end"] == ","
    return tuple(terms)


def matches(terms: tuple[Term, ...], labels: Mapping[str, str]) -> bool:
    """Whether labels meet all requirements."""
    return all(term.matches(labels) for term in terms)


def check_labels(given: object) -> dict[str, str]:
    """Labels as they may be set.

    Raises:
        ApiError: they may not.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise invalid("labels", "must be an object")
    for key, value in given.items():
        prefix = key.rpartition("/")[0]
        if not _FULL_KEY.fullmatch(key) or len(prefix) > 253 or prefix == "hetzner.cloud":
            raise invalid("labels", f"label key '{key}' is not correctly formatted")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise invalid("labels", f"label value of '{key}' is not correctly formatted")
    return dict(given)
