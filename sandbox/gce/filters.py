# SPDX-License-Identifier: GPL-3.0-or-later
"""The ``filter`` parameter of list methods.

Two languages that cannot be mixed in one request. AIP-160: ``labels.fleet = "minerals" AND (status != TERMINATED)``
with ``= != < <= > >= :``, ``AND``, ``OR``, ``NOT``, ``-``, parentheses; terms side by side are joined by AND, and OR
binds more tightly than AND, as AIP-160 has it. And the older ``name eq 'web.*'`` with ``eq`` and ``ne``, whose value
is a regular expression that must match the whole field; more than one must each be in parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .errors import Json, invalid

Predicate = Callable[[Json], bool]

_TOKEN = re.compile(
    r"""\s*(?: (?P<quoted> "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' )
          | (?P<sign> [()] | != | <= | >= | = | < | > | : )
          | (?P<word> [^\s()=!<>:"']+ ) )""",
    re.VERBOSE,
)
_OPERATORS = frozenset({"=", "!=", "<", "<=", ">", ">=", ":"})
_REGEX_TERM = re.compile(r"([A-Za-z][\w.\-]*)\s+(eq|ne)\s+(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Token:
    """``kind`` is ``quoted``, ``sign`` or ``word``; a quoted text is without its quotes."""

    kind: str
    text: str


def compile_filter(text: str, has_field: Callable[[list[str]], bool] = lambda path: True) -> Predicate:
    """What says whether a resource passes the filter; everything passes an empty one.

    Args:
        has_field: whether such resources can be filtered by the field at that path.

    Raises:
        ApiError: it is not of either language, or names a field they do not have.
    """
    if not text.strip():
        return lambda resource: True
    try:
        if re.search(r"(?:^|[\s(])[A-Za-z][\w.\-]*\s+(?:eq|ne)\s", text):
            return _regex_filter(text, has_field)
        return _Parser(text, has_field).parse()
    except (ValueError, re.error) as error:
        raise invalid("filter", text, "Invalid list filter expression.") from error


def _regex_filter(text: str, has_field: Callable[[list[str]], bool]) -> Predicate:
    """``name eq x`` or ``(name eq x) (status ne y)``."""
    terms = [text]
    if text.lstrip().startswith("("):
        terms = re.findall(r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)", text)
        if re.sub(r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)", "", text).strip():
            raise ValueError("text between the terms")
    tests = [_regex_term(term.strip(), has_field) for term in terms]
    return lambda resource: all(test(resource) for test in tests)


def _regex_term(term: str, has_field: Callable[[list[str]], bool]) -> Predicate:
    match = _REGEX_TERM.fullmatch(term)
    if not match or not has_field(match[1].split(".")):
        raise ValueError(term)
    path, negate, literal = match[1].split("."), match[2] == "ne", match[3].strip()
    if literal[0] in "'\"":
        if len(literal) < 2 or literal[-1] != literal[0]:
            raise ValueError("an open quote")
        literal = literal[1:-1]
    elif re.search(r"\s", literal):
        raise ValueError("more than one value")
    pattern = re.compile(literal)
    return lambda resource: (
        any(pattern.fullmatch(_text(value)) for value in _values(resource, path)) is not negate
    )


class _Parser:
    """Recursive descent over AIP-160."""

    def __init__(self, text: str, has_field: Callable[[list[str]], bool]) -> None:
        self._has_field = has_field
        self._tokens: list[Token] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if not match or match.lastgroup is None:
                raise ValueError(text)
            raw = match[match.lastgroup]
            if match.lastgroup == "quoted":
                raw = re.sub(r"\\(.)", r"\1", raw[1:-1])
            self._tokens.append(Token(match.lastgroup, raw))
            position = match.end()
        self._next = 0

    def parse(self) -> Predicate:
        result = self._conjunction()
        if self._peek() is not None:
            raise ValueError("more than one expression")
        return result

    def _peek(self) -> Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self) -> Token:
        token = self._peek()
        if token is None:
            raise ValueError("the end comes too early")
        self._next += 1
        return token

    def _keyword(self, word: str) -> bool:
        """Take the word if it is next."""
        if self._peek() == Token("word", word):
            self._next += 1
            return True
        return False

    def _conjunction(self) -> Predicate:
        parts = [self._disjunction()]
        while (token := self._peek()) is not None and token != Token("sign", ")"):
            self._keyword("AND")
            parts.append(self._disjunction())
        return parts[0] if len(parts) == 1 else lambda resource: all(part(resource) for part in parts)

    def _disjunction(self) -> Predicate:
        parts = [self._term()]
        while self._keyword("OR"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else lambda resource: any(part(resource) for part in parts)

    def _term(self) -> Predicate:
        if self._keyword("NOT"):
            inner = self._term()
            return lambda resource: not inner(resource)
        token = self._take()
        if token == Token("sign", "("):
            inner = self._conjunction()
            if self._take() != Token("sign", ")"):
                raise ValueError("an open parenthesis")
            return inner
        if token.kind != "word" or token.text in ("AND", "OR"):
            raise ValueError(token.text)
        if token.text.startswith("-"):
            negated = self._comparison(token.text[1:])
            return lambda resource: not negated(resource)
        return self._comparison(token.text)

    def _comparison(self, field: str) -> Predicate:
        operator, value = self._take(), self._take()
        if operator.kind != "sign" or operator.text not in _OPERATORS or value.kind == "sign":
            raise ValueError(field)
        path = field.split(".")
        if not re.fullmatch(r"[A-Za-z][\w\-]*(\.[\w\-]+)*", field) or not self._has_field(path):
            raise ValueError(field)
        return _comparison(path, operator.text, value)


def _comparison(path: list[str], operator: str, value: Token) -> Predicate:
    match operator:
        case ":" if value == Token("word", "*"):
            return lambda resource: bool(_values(resource, path))
        case ":":
            return lambda resource: any(
                value.text.lower() in _text(found).lower() for found in _values(resource, path)
            )
        case "=":
            return _equality(path, value.text)
        case "!=":
            equal = _equality(path, value.text)
            return lambda resource: not equal(resource)
    return lambda resource: any(
        _ordered(_text(found), operator, value.text) for found in _values(resource, path)
    )


def _equality(path: list[str], wanted: str) -> Predicate:
    """Equal, where a ``*`` in the value stands for any text."""
    if "*" in wanted:
        pattern = re.compile(".*".join(re.escape(part) for part in wanted.split("*")))
        return lambda resource: any(pattern.fullmatch(_text(value)) for value in _values(resource, path))
    return lambda resource: any(_text(value) == wanted for value in _values(resource, path))


def _ordered(found: str, operator: str, wanted: str) -> bool:
    left: float | str
    right: float | str
    try:
        left, right = float(found), float(wanted)
    except ValueError:
        left, right = found, wanted
    order = (left > right) - (left < right)  # type: ignore[operator]  # both are of one type
    return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[operator]


def _values(resource: Any, path: Iterable[str]) -> list[Any]:
    """What stands at the path; of a list, what stands there in each of its items."""
    found = [resource]
    for name in path:
        found = [item for value in found for item in (value if isinstance(value, list) else [value])]
        found = [value[name] for value in found if isinstance(value, dict) and name in value]
    return [item for value in found for item in (value if isinstance(value, list) else [value])]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
