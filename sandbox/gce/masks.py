# SPDX-License-Identifier: GPL-3.0-or-later
"""Partial responses: the ``fields`` parameter, ``items/*(warning/code,instances(id,name)),nextPageToken``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from .errors import ApiError, Json

Tree = dict[str, "Tree | None"]
"""Selected children by name; ``None`` means the whole of it."""

_TOKEN = re.compile(r"\s*([A-Za-z0-9_.\-]+|[*/(),])")
WHOLE = "*"


def compile_mask(text: str, schemas: dict[str, Json], root: str) -> Callable[[Json], Json]:
    """What applies the mask to an answer of the schema ``root``.

    Raises:
        ApiError: it cannot be parsed, or names a field the schema does not have.
    """
    tokens = list(_tokens(text))
    tree, rest = _parse_list(text, tokens)
    if rest:
        raise _refused(text)
    _check(tree, {"$ref": root}, schemas)
    return lambda answer: _apply(tree, answer)


def _refused(what: str) -> ApiError:
    return ApiError(
        400,
        "invalidParameter",
        f"Invalid field selection {what}",
        extra={"location": "fields", "locationType": "parameter"},
    )


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if not match:
            raise _refused(text)
        yield match[1]
        position = match.end()


def _parse_list(text: str, tokens: list[str]) -> tuple[Tree, list[str]]:
    tree: Tree = {}
    while True:
        names, selected, tokens = _parse_one(text, tokens)
        _merge(tree, names, selected)
        if not tokens or tokens[0] != ",":
            return tree, tokens
        tokens = tokens[1:]


def _parse_one(text: str, tokens: list[str]) -> tuple[list[str], Tree | None, list[str]]:
    """One entry of a list: ``a/b/c`` or ``a/b(c,d)``."""
    names: list[str] = []
    while True:
        if not tokens or tokens[0] in "/(),":
            raise _refused(text)
        names.append(tokens[0])
        tokens = tokens[1:]
        if not tokens or tokens[0] != "/":
            break
        tokens = tokens[1:]
    if not tokens or tokens[0] != "(":
        return names, None, tokens
    below, tokens = _parse_list(text, tokens[1:])
    if not tokens or tokens[0] != ")":
        raise _refused(text)
    return names, below, tokens[1:]


def _merge(tree: Tree, names: list[str], below: Tree | None) -> None:
    name, *more = names
    if name in tree and tree[name] is None:
        return
    if not more and below is None:
        tree[name] = None
        return
    child = tree.setdefault(name, {})
    if child is None:
        return
    if more:
        _merge(child, more, below)
    else:
        for key, value in (below or {}).items():
            if value is None:
                child[key] = None
            else:
                _merge(child, [key], value)


def _check(tree: Tree, schema: Json, schemas: dict[str, Json]) -> None:
    while "$ref" in schema or schema.get("type") == "array":
        schema = schemas[schema["$ref"]] if "$ref" in schema else schema["items"]
    properties: dict[str, Json] = schema.get("properties", {})
    extra: Json | None = schema.get("additionalProperties")
    for name, below in tree.items():
        children = (
            [*properties.values(), *([extra] if extra else [])]
            if name == WHOLE
            else [child for child in (properties.get(name, extra),) if child is not None]
        )
        if not children:
            raise _refused(name)
        if below is not None:
            # After a star it is enough that the rest fits one of the children.
            problems: list[ApiError] = []
            for child in children:
                try:
                    _check(below, child, schemas)
                except ApiError as problem:
                    problems.append(problem)
            if len(problems) == len(children):
                raise problems[0]


def _apply(tree: Tree, value: Any) -> Any:
    if isinstance(value, list):
        return [_apply(tree, item) for item in value]
    if not isinstance(value, dict):
        return value
    star = tree.get(WHOLE, ...)
    kept: Json = {}
    for key, item in value.items():
        below = tree.get(key, star)
        if below is None:
            kept[key] = item
        elif isinstance(below, dict):
            kept[key] = _apply(below, item)
    return kept
