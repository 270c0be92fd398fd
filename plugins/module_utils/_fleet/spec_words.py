# SPDX-License-Identifier: GPL-3.0-or-later
"""From the validation library's findings to sentences a person can act on.

Values are quoted only where they cannot be secrets.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic_core import ErrorDetails

from .spec import PATTERNS, did_you_mean
from .spec_yaml import Item, Path, written

_SECRET = re.compile(r"token|secret|pass(word|phrase)|private|credential")
_LONGEST_QUOTE = 60
_EXPONENT = re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$")
_ALSO_CALLED: dict[str, tuple[str, ...]] = {
    "address": ("address",),
    "cloud": ("provider",),
    "count": ("gpu",),
    "datacenter": ("location",),
    "disk_size": ("disk_gb",),
    "enable": ("enabled",),
    "fallback_locations": ("fallback_zones",),
    "fallback_zones": ("fallback_locations",),
    "flavor": ("type",),
    "gpu_count": ("gpu",),
    "gpu_model": ("gpu",),
    "host": ("address",),
    "hostname": ("address",),
    "ip": ("address",),
    "labels": ("tags",),
    "location": ("zone",),
    "machine_type": ("type",),
    "name": ("model",),
    "node": ("node_id",),
    "os": ("image",),
    "preemptible": ("spot",),
    "region": ("zone", "location"),
    "server_type": ("type",),
    "size": ("type",),
    "ssh_key": ("ssh_keys",),
    "type": ("model",),
    "username": ("user",),
    "variables": ("vars",),
    "zone": ("location",),
}
"""What people call a field that has another name here; the first that the model has is suggested."""

_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "decimal_type": "a number",
    "decimal_parsing": "a number",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "tuple_type": "a list",
    "list_type": "a list",
}
_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def sentence(
    error: ErrorDetails, model: type[BaseModel], item: Item | None, unset: Mapping[Path, str]
) -> tuple[Path, str]:
    """Say what one finding means.

    Args:
        error: what the validation library found.
        model: what was validated.
        item: the value that was validated, with its places.
        unset: by path below the item, environment variables that are not set and whose value was to stand there.

    Returns:
        The path of the field to blame, below the item, and what is wrong with it.
    """
    kind, context = error["type"], error.get("ctx", {})
    path = _blamed(tuple(error["loc"]), kind, item)
    if kind == "value_error":
        cause = context.get("error")
        field = getattr(cause, "field", "")
        message = str(cause) if cause is not None else error["msg"].removeprefix("Value error, ")
        if _is_secret(path, model) and not field:
            message = "this value cannot be used"
        if message.endswith(".") and not message.endswith(".."):
            message = message[:-1]
        return (*path, *(part for part in field.split(".") if part)), message
    if kind == "extra_forbidden":
        return path, _unknown_key(str(path[-1]), model, path[:-1])
    if kind == "missing":
        variable = unset.get(path)
        if variable:
            return path, f"it comes from the environment variable {variable}, which is not set"
        return path, f"it is missing{_described(model, path)}"
    found = item.at(path) if item and path == error["loc"] else None
    value = found.value if found else error.get("input")
    shown = "" if _is_secret(path, model) else _shown(value, found)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        hint = (
            did_you_mean(value, choices)
            if isinstance(value, str) and shown
            else f"; it is one of {', '.join(choices)}"
        )
        trap = _trap(value, found) if not isinstance(value, str) and shown else None
        return path, trap or f"{shown or 'this'} is not one of its values{hint}"
    if kind == "string_pattern_mismatch":
        rule = PATTERNS.get(str(context.get("pattern")), f"matches {context.get('pattern')}")
        return path, f"{shown or 'this'} does not fit: it {rule}"
    if kind in _LIMITS:
        key, word = _LIMITS[kind]
        return path, f"{shown or 'this'} is out of range: it is {word} {context.get(key)}"
    if kind in _WANTED:
        return path, _wrong_type(kind, value, found, shown)
    return path, f"{shown or 'this value'} cannot be used: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _blamed(loc: Path, kind: str, item: Item | None) -> Path:
    """The location, without what the library adds to it for unions."""
    if item is None or kind in ("missing", "extra_forbidden"):
        return loc
    while loc and item.at(loc) is None:
        loc = loc[:-1]
    return loc


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model of the mapping at a path below a model."""
    current: type[BaseModel] | None = model
    for part in path:
        if current is None or part not in current.model_fields:
            return None
        current = _inner_model(current.model_fields[str(part)].annotation)
    return current


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return next((model for model in map(_inner_model, get_args(annotation)) if model), None)
    return None


def _is_secret(path: Path, model: type[BaseModel]) -> bool:
    if any(isinstance(part, str) and _SECRET.search(part.lower()) for part in path):
        return True
    holder = _model_at(model, path[:-1]) if path else None
    field = holder.model_fields.get(str(path[-1])) if holder else None
    return field is not None and SecretStr in (field.annotation, *get_args(field.annotation))


def _unknown_key(key: str, model: type[BaseModel], path: Path) -> str:
    holder = _model_at(model, path)
    known = [name for name in holder.model_fields if name != "name"] if holder else []
    alias = next((name for name in _ALSO_CALLED.get(key.lower(), ()) if name in known), None)
    return f"unknown key{f'; did you mean {alias!r}?' if alias else did_you_mean(key, known)}"


def _described(model: type[BaseModel], path: Path) -> str:
    holder = _model_at(model, path[:-1])
    field = holder.model_fields.get(str(path[-1])) if holder else None
    text = (field.description or "").rstrip(".") if field else ""
    return f": {text[:1].lower()}{text[1:]}" if text else ""


def _shown(value: Any, item: Item | None) -> str:
    if isinstance(value, str):
        return f"'{value if len(value) <= _LONGEST_QUOTE else value[:_LONGEST_QUOTE] + '...'}'"
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if item is not None and item.raw:
        return item.raw
    return {None: "nothing", True: "true", False: "false"}.get(value, str(value))


def _trap(value: Any, item: Item | None) -> str | None:
    """For an unquoted scalar that is something else to YAML than to a reader."""
    if item is None or item.raw is None or isinstance(value, (dict, list, str)):
        return None
    if value is None:
        return "it has no value; remove the key, or give it text"
    return f"{written(item.raw, value)}; write '{item.raw}' in quotes"


def _wrong_type(kind: str, value: Any, item: Item | None, shown: str) -> str:
    wanted = _WANTED[kind]
    if wanted == "text" and (trap := _trap(value, item)):
        return trap if shown else "it is read by YAML as something other than text; write it in quotes"
    if wanted == "true or false" and isinstance(value, str) and shown:
        return f"{shown} is text; write true or false, without quotes"
    if "number" in wanted and isinstance(value, str) and shown:
        if item is not None and item.raw and _EXPONENT.fullmatch(value):
            return f"{value} is read by YAML as text; write the number out: {float(value):.0f}"
        return f"{shown} is text; write {wanted}, without quotes"
    return f"{shown or 'this'} is not {wanted}"
