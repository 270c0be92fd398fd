# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML with a memory: plain data, and for each value the line it stands on and how it was written.

PyYAML's own loader drops the positions, keeps the last of two equal keys without a word, and turns ``no`` into false
and ``010`` into eight. Here each of these becomes a problem with a line, and the data that comes out is plain JSON.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import yaml

Path: TypeAlias = "tuple[str | int, ...]"
"""Keys and list indexes from the top of a document to a value."""

_TAG = "tag:yaml.org,2002:"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_READ_AS = {"bool": "a boolean", "int": "a number", "float": "a number", "null": "nothing"}
_QUOTED = ("'", '"', "|", ">")
_LONGEST_INT_BITS = 256
_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong with the text itself, before anything is known about its meaning."""

    path: Path
    line: int
    message: str


@dataclass(slots=True)
class Item:
    """A value with its place.

    Attributes:
        value: plain data: None, bool, int, float, str, list or dict with text keys.
        line: where it begins, counted from 1.
        raw: the text of an unquoted scalar, else None.
        children: the items of a list by index or of a mapping by key.
        key_lines: the line of each key of a mapping.
    """

    value: Any
    line: int
    raw: str | None = None
    children: dict[str | int, Item] = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)

    def at(self, path: Path) -> Item | None:
        """The item at a path below this one, or None."""
        item: Item | None = self
        for part in path:
            item = item.children.get(part) if item else None
        return item

    def line_of(self, path: Path) -> int:
        """The line of the deepest key on the path that is there."""
        item, line = self, self.line
        for part in path:
            child = item.children.get(part)
            if child is None:
                break
            line = item.key_lines.get(part, child.line) if isinstance(part, str) else child.line
            item = child
        return line

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Item]]:
        """Every scalar below, with its path."""
        if not self.children:
            yield path, self
        for part, child in self.children.items():
            yield from child.walk((*path, part))


def read(text: str) -> tuple[Item | None, list[Flaw]]:
    """Read one YAML document.

    Returns:
        The document, or None where its syntax is broken or it is empty, and everything wrong with it.
    """
    if _depth(text) > _DEEPEST:
        return None, [Flaw((), 1, f"lists and mappings are nested more than {_DEEPEST} deep")]
    try:
        node = yaml.compose(text, Loader=_LOADER)
        if node is None:
            return None, [Flaw((), 1, "the file is empty")]
        reader = _Reader()
        return reader.item(node, ()), reader.flaws
    except yaml.YAMLError as exc:
        return None, [_syntax_flaw(exc, text)]
    except UnicodeError:
        return None, [Flaw((), 1, "it holds a character that is not valid Unicode")]


def _depth(text: str) -> int:
    """No less than how deep the document nests. Asked first, because libyaml's composer overruns the C stack on nonsense."""
    deepest = depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if bracket in "[{" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    return deepest + max(
        (len(lead.replace("  ", " ")) for lead in re.findall(r"^[ ?:-]+", text, re.MULTILINE)), default=0
    )


def written(raw: str, value: Any) -> str:
    """How YAML reads an unquoted scalar that was meant as text: ``no is read as a boolean (false)``."""
    kind = (
        "bool"
        if isinstance(value, bool)
        else "null"
        if value is None
        else "int"
        if isinstance(value, int)
        else "float"
    )
    shown = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    meaning = _READ_AS[kind] if value is None or shown == raw else f"{_READ_AS[kind]} ({shown})"
    return f"{raw or 'an empty value'} is read by YAML as {meaning}"


def _syntax_flaw(exc: yaml.YAMLError, text: str) -> Flaw:
    # The mark's snippet is left out on purpose: it quotes the line, and a line may hold a token.
    mark = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
    line = mark.line + 1 if mark else 1
    problem = str(getattr(exc, "problem", None) or getattr(exc, "reason", None) or "it cannot be read")
    context = str(getattr(exc, "context", None) or "")
    if "undefined alias" in problem:
        problem = "a value begins with * and so refers to an anchor that does not exist; put it in quotes if it is text"
    elif "another document" in problem or "single document" in context:
        problem = "it holds more than one YAML document; remove the second ---"
    elif "mapping values are not allowed" in problem:
        problem = "a colon stands where none is expected; check the indentation, or put the text in quotes"
    elif "cannot start any token" in problem and re.match(r" *\t", text.split("\n")[line - 1]):
        problem = "a tab is used for indentation; use spaces"
    return Flaw((), line, f"not valid YAML: {problem}")


class _Reader:
    """Turns nodes into items. One per document."""

    def __init__(self) -> None:
        self.flaws: list[Flaw] = []
        self._scalars = yaml.constructor.SafeConstructor()
        self._done: dict[int, Item] = {}
        self._open: set[int] = set()

    def item(self, node: yaml.Node, path: Path) -> Item:
        if id(node) in self._done:
            return self._done[id(node)]
        line = node.start_mark.line + 1
        if id(node) in self._open:
            self.flaws.append(Flaw(path, line, "an anchor refers to itself"))
            return Item(None, line)
        self._open.add(id(node))
        if isinstance(node, yaml.MappingNode):
            item = self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            self._check_tag(node, path, "seq")
            parts = [self.item(child, (*path, index)) for index, child in enumerate(node.value)]
            item = Item([part.value for part in parts], line, children=dict(enumerate(parts)))
        else:
            item = self._scalar(cast(yaml.ScalarNode, node), path)
        self._open.discard(id(node))
        self._done[id(node)] = item
        return item

    def _check_tag(self, node: yaml.Node, path: Path, *expected: str) -> bool:
        if node.tag in {_TAG + kind for kind in expected}:
            return True
        tag = node.tag.replace(_TAG, "!!")
        hint = (
            "; take the secret from the environment: \"{{ lookup('env', 'NAME') }}\""
            if tag == "!vault"
            else ""
        )
        self.flaws.append(Flaw(path, node.start_mark.line + 1, f"the tag {tag} has no meaning here{hint}"))
        return False

    def _mapping(self, node: yaml.MappingNode, path: Path) -> Item:
        self._check_tag(node, path, "map")
        item = Item({}, node.start_mark.line + 1)
        merged: list[Item] = []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _TAG + "merge":
                merged += self._merged(value_node, path)
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in item.key_lines:
                first = item.key_lines[key]
                self.flaws.append(
                    Flaw((*path, key), line, f"it is written twice; it stands on line {first} already")
                )
                continue
            item.children[key] = self.item(value_node, (*path, key))
            item.key_lines[key] = line
        for source in merged:
            for name, child in source.children.items():
                item.children.setdefault(name, child)
        item.value = {name: child.value for name, child in item.children.items()}
        return item

    def _merged(self, node: yaml.Node, path: Path) -> list[Item]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if all(isinstance(part, yaml.MappingNode) for part in parts):
            return [self.item(part, path) for part in parts]
        self.flaws.append(Flaw(path, node.start_mark.line + 1, "<< takes a mapping, or a list of mappings"))
        return []

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.ScalarNode):
            hint = (
                "; is it a {{ }} expression? Put it in quotes" if isinstance(node, yaml.MappingNode) else ""
            )
            self.flaws.append(Flaw(path, line, f"a key is text, not a list or a mapping{hint}"))
            return None
        item = self._scalar(node, (*path, node.value))
        if isinstance(item.value, str):
            return item.value
        text = node.value or "null"
        self.flaws.append(
            Flaw((*path, text), line, f"{written(node.value, item.value)}; write '{text}' in quotes")
        )
        return text

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Item:
        line = node.start_mark.line + 1
        raw = node.value if node.style not in _QUOTED else None
        kind = node.tag.removeprefix(_TAG)
        if kind not in ("str", "bool", "int", "float", "null", "timestamp", "value", "merge"):
            self._check_tag(node, path)
            return Item(None, line)
        value: Any = node.value
        try:
            if kind in ("bool", "int", "float", "null"):
                value = self._scalars.construct_object(node)
            value = _plain(value)
        except (ValueError, KeyError, OverflowError):
            self.flaws.append(Flaw(path, line, "this value cannot be read; put it in quotes if it is text"))
            return Item(None, line)
        return Item(value, line, raw=raw)


def _plain(value: Any) -> Any:
    """The value, if JSON can carry it.

    Raises:
        ValueError: it cannot.
    """
    if isinstance(value, str):
        value.encode()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not finite")
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT_BITS:
        raise ValueError("too long")
    return value
