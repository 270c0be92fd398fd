# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet file, from its text to a :class:`spec.FleetSpec`; or every problem in it, with file, line, machine and field.

:func:`load` reads files, :func:`parse` is pure. Nobody here knows a provider: their models come in as ``kinds``.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from . import spec_mesh
from .errors import Problem, SpecError
from .spec import RESERVED_NAMES, FleetFile, FleetSpec, MachineBase, ProviderSettings, did_you_mean
from .spec_words import sentence
from .spec_yaml import Flaw, Item, Path, read, written

if TYPE_CHECKING:
    from .providers.base import Kind

M = TypeVar("M", bound=BaseModel)

_ENDINGS = (".yml", ".yaml")
_ENV = re.compile(
    r"""^\{\{-?\s*lookup\(\s*(['"])(?:ansible\.builtin\.)?env\1\s*,\s*(['"])([A-Za-z_][A-Za-z0-9_]*)\2\s*\)\s*-?\}\}$"""
)
_OCTAL = re.compile(r"^[-+]?0[0-7_]+$")
_SIXTIES = re.compile(r"^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$")


@dataclass(frozen=True, slots=True)
class Document:
    """A file's text and what to call it in messages."""

    path: str
    text: str


def load(path: str, kinds: Mapping[str, Kind], environ: Mapping[str, str]) -> FleetSpec:
    """Read a fleet file, and the files of its ``machines_dir``.

    Raises:
        SpecError: with every problem in every file.
    """
    return parse(documents(path), kinds, environ)


def documents(path: str) -> list[Document]:
    """The fleet file and one file for each machine of its ``machines_dir``, by name.

    Raises:
        SpecError: a file cannot be read.
    """
    first = _read_file(path, path)
    if "machines_dir" not in first.text:
        return [first]
    top, _flaws = read(first.text)
    folder = top.at(("machines_dir",)) if top else None
    if top is None or folder is None or not isinstance(folder.value, str):
        return [first]
    where = os.path.join(os.path.dirname(os.path.abspath(path)), os.path.expanduser(folder.value))
    try:
        names = sorted(
            name for name in os.listdir(where) if name.endswith(_ENDINGS) and not name.startswith(".")
        )
    except OSError as exc:
        message = f"the folder {where} cannot be read: {_reason(exc)}"
        raise SpecError(
            [Problem(path, top.line_of(("machines_dir",)), None, "machines_dir", message)]
        ) from exc
    shown = os.path.join(os.path.dirname(path), folder.value)
    return [first, *(_read_file(os.path.join(where, name), os.path.join(shown, name)) for name in names)]


def parse(documents: Sequence[Document], kinds: Mapping[str, Kind], environ: Mapping[str, str]) -> FleetSpec:
    """Check a fleet file.

    Args:
        documents: the fleet file, then the files of its ``machines_dir``.
        kinds: every provider there is, by name.
        environ: where ``{{ lookup('env', 'NAME') }}`` is looked up. A variable that is not set leaves its field out.

    Raises:
        SpecError: with every problem.
    """
    return _Parser(documents, kinds, environ).spec()


def _read_file(path: str, shown: str) -> Document:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return Document(shown, file.read())
    except OSError as exc:
        raise SpecError([Problem(shown, 0, None, "", f"it cannot be read: {_reason(exc)}")]) from exc
    except UnicodeDecodeError as exc:
        raise SpecError([Problem(shown, 0, None, "", "it is not UTF-8 text")]) from exc


def _reason(exc: OSError) -> str:
    return (exc.strerror or type(exc).__name__).lower()


@dataclass
class _Part:
    """A piece of the input that one model describes.

    Attributes:
        document: path of the file it stands in.
        item: the value with its places.
        at: path of the piece in its document.
        line: where the piece begins: the line of its key.
        machine: the machine it declares, if it does.
        unset: paths whose value was to come from an environment variable that is not set, and that variable.
        bad: paths about which something was said already.
    """

    document: str
    item: Item
    at: Path
    line: int
    machine: str | None = None
    unset: dict[Path, str] = field(default_factory=dict)
    bad: set[Path] = field(default_factory=set)


class _Parser:
    def __init__(
        self, documents: Sequence[Document], kinds: Mapping[str, Kind], environ: Mapping[str, str]
    ) -> None:
        self._documents = documents
        self._kinds = kinds
        self._environ = environ
        self._problems: list[Problem] = []
        self._lines: dict[str, tuple[str, int]] = {}

    def spec(self) -> FleetSpec:
        main = self._documents[0]
        top = self._read(main, ())
        if top is None:
            raise SpecError(self._problems)
        if not isinstance(top.item.value, dict):
            self._add(top, (), "a fleet file is a mapping; it begins with plugin: gpumesh.fleet.fleet")
            raise SpecError(self._problems)
        file = self._validate(top, FleetFile, skip=("providers", "machines"))
        providers = self._providers(top)
        machines = self._machines(top)
        self._cross_check(top, providers, machines)
        if self._problems or file is None:
            raise SpecError(self._problems)
        base_dir = os.path.dirname(os.path.abspath(main.path))
        known_hosts = file.known_hosts or f"~/.ssh/gpumesh/{file.fleet}.known_hosts"
        return FleetSpec(
            fleet=file.fleet,
            budget=file.budget,
            providers=providers,
            mesh=file.mesh,
            defaults=file.defaults,
            machines=machines,
            base_dir=base_dir,
            known_hosts=os.path.normpath(os.path.join(base_dir, os.path.expanduser(known_hosts))),
            inventory_options=file.model_dump(include=set(FleetFile.inventory_options()), exclude_none=True),
        )

    def _read(self, document: Document, prefix: Path) -> _Part | None:
        item, flaws = read(document.text)
        part = _Part(document.path, item or Item(None, 1), (), 1, str(prefix[1]) if prefix else None)
        for flaw in [*flaws, *(_traps(item) if item else ())]:
            self._flaw(part, flaw, prefix)
        if item is None:
            return None
        return part

    def _flaw(self, part: _Part, flaw: Flaw, prefix: Path) -> None:
        machine, field_path = _whose((*prefix, *flaw.path))
        part.bad.add(flaw.path)
        self._problems.append(Problem(part.document, flaw.line, machine, _dotted(field_path), flaw.message))

    def _add(self, part: _Part, path: Path, message: str, line: int | None = None) -> None:
        machine, field_path = (part.machine, path) if part.machine else _whose((*part.at, *path))
        if line is None:
            line = part.item.line_of(path) if part.item.at(path[:1]) else part.line
        self._problems.append(Problem(part.document, line, machine, _dotted(field_path), message))

    def _validate(
        self, part: _Part, model: type[M], *, skip: Sequence[str] = (), extra: Mapping[str, Any] | None = None
    ) -> M | None:
        data = self._resolved(part, part.item, (), skip)
        if not isinstance(data, dict):
            self._add(part, (), f"{part.at[-1] if part.at else 'it'} is not a mapping of names to values")
            return None
        try:
            return model.model_validate({**data, **(extra or {})})
        except ValidationError as exc:
            said: set[Path] = set()
            for error in exc.errors(include_url=False):
                path, message = sentence(error, model, part.item, part.unset)
                if path not in said and path not in part.bad:
                    said.add(path)
                    self._add(part, path, message)
            return None

    def _resolved(self, part: _Part, item: Item, path: Path, skip: Sequence[str] = ()) -> Any:
        """The value with environment look-ups done; what is not set is left out and noted."""
        if isinstance(item.value, dict):
            result = {}
            for key, child in item.children.items():
                if key in skip or (not path and key in _passed_through(part)):
                    if key not in skip:
                        result[key] = child.value
                    continue
                value = self._resolved(part, child, (*path, key))
                if (*path, key) not in part.unset:
                    result[key] = value
            return result
        if isinstance(item.value, list):
            # The models are strict and immutable: their lists are tuples.
            return tuple(
                self._resolved(part, child, (*path, index)) for index, child in item.children.items()
            )
        if not isinstance(item.value, str) or ("{{" not in item.value and "{%" not in item.value):
            return item.value
        match = _ENV.fullmatch(item.value.strip())
        if match is None:
            if path not in part.bad:
                part.bad.add(path)
                message = (
                    "the only expression understood here is {{ lookup('env', 'NAME') }}, alone in its quotes"
                )
                self._add(part, path, message)
            return ""
        value = self._environ.get(match[3]) or None
        if value is None:
            part.unset[path] = match[3]
        return value

    def _below(self, top: _Part, key: str) -> list[tuple[str, _Part]]:
        """The parts of a mapping of the fleet file, one for each of its keys."""
        section = top.item.at((key,))
        if section is None or section.value is None:
            return []
        if not isinstance(section.value, dict):
            self._add(top, (key,), f"it is a mapping of names to {key}")
            return []
        parts = []
        for name, child in section.children.items():
            item = Item({}, child.line) if child.value is None else child
            line = section.key_lines.get(str(name), child.line)
            bad = {path[2:] for path in top.bad if path[:2] == (key, name) and len(path) > 2}
            machine = str(name) if key == "machines" else None
            parts.append((str(name), _Part(top.document, item, (key, name), line, machine, bad=bad)))
        return parts

    def _providers(self, top: _Part) -> dict[str, ProviderSettings]:
        known = [name for name, kind in self._kinds.items() if kind.settings_model]
        settings: dict[str, ProviderSettings] = {}
        for name, part in self._below(top, "providers"):
            kind = self._kinds.get(name)
            if kind is None:
                self._add(part, (), f"there is no provider '{name}'{did_you_mean(name, known)}")
            elif kind.settings_model is None:
                self._add(part, (), f"{name} has nothing to set; remove this block")
            elif checked := self._validate(part, kind.settings_model):
                settings[name] = checked
        return settings

    def _machines(self, top: _Part) -> dict[str, MachineBase]:
        parts = self._below(top, "machines")
        for document in self._documents[1:]:
            name = PurePath(document.path).stem
            if part := self._read(document, ("machines", name)):
                part.machine = name
                parts.append((name, part))
        machines: dict[str, MachineBase] = {}
        for name, part in parts:
            if name in self._lines:
                path, line = self._lines[name]
                self._add(
                    part, (), f"this machine is declared twice; it is in {path}:{line} already", part.line
                )
                continue
            self._lines[name] = (part.document, part.line)
            if name in RESERVED_NAMES:
                self._add(
                    part, (), f"a machine cannot be called '{name}', which is a group or a host of Ansible's"
                )
            declared = part.item.at(("provider",))
            kind = self._kind(part, declared, top)
            if kind and (machine := self._validate(part, kind.machine_model, extra={"name": name})):
                machines[name] = machine
        return machines

    def _kind(self, part: _Part, declared: Item | None, top: _Part) -> Kind | None:
        """The provider a machine names, and whether the fleet file has the block it needs."""
        if not isinstance(part.item.value, dict):
            self._add(part, (), "a machine is a mapping; it begins with provider")
            return None
        if ("provider",) in part.bad:
            return None
        if "name" in part.item.children:
            self._add(part, ("name",), "unknown key; a machine's name is its key, or the name of its file")
        if declared is None:
            self._add(part, ("provider",), f"it is missing; it is one of {', '.join(self._kinds)}")
            return None
        name = declared.value
        if not isinstance(name, str):
            meaning = written(declared.raw, name) if declared.raw and name is not None else "it is not text"
            self._add(part, ("provider",), f"{meaning}; it is one of {', '.join(self._kinds)}")
            return None
        kind = self._kinds.get(name)
        if kind is None:
            self._add(part, ("provider",), f"there is no provider '{name}'{did_you_mean(name, self._kinds)}")
        elif kind.settings_model and top.item.at(("providers", name)) is None:
            self._add(
                part, ("provider",), f"the fleet file has no block for it; add '{name}:' under 'providers:'"
            )
        return kind

    def _cross_check(
        self, top: _Part, providers: Mapping[str, ProviderSettings], machines: Mapping[str, MachineBase]
    ) -> None:
        """What no model sees alone."""
        if top.item.at(("machines",)) is None and top.item.at(("machines_dir",)) is None:
            self._add(
                top, ("machines",), "it is missing: name your machines, or a folder of them as machines_dir"
            )
        nodes = self._nodes(machines)
        controller, network = (top.item.at(("mesh", key)) for key in ("controller", "network"))
        if top.item.at(("mesh",)) is None:
            for born, its in machines.items():
                if getattr(its, "mesh_birth", False):
                    self._problem_of(
                        born, "mesh_birth", "there is no mesh to be born into; add 'mesh:' to the file"
                    )
        if controller is None:
            return
        for field_path, machine, message in spec_mesh.problems(
            controller.value, network.value if network else None, machines, self._lines, nodes
        ):
            if machine:
                self._problem_of(machine, field_path, message)
            else:
                self._add(top, ("mesh", field_path), message)

    def _nodes(self, machines: Mapping[str, MachineBase]) -> dict[str, str]:
        """The machines by their ZeroTier nodes."""
        seen: dict[str, str] = {}
        for name, machine in machines.items():
            node_id = machine.node_id
            if node_id is None:
                continue
            if node_id in seen:
                message = f"{node_id} is the node of {seen[node_id]} as well; a node is one machine"
                self._problem_of(name, "node_id", message)
            else:
                seen[node_id] = name
        return seen

    def _problem_of(self, machine: str, field_name: str, message: str) -> None:
        path, line = self._lines[machine]
        self._problems.append(Problem(path, line, machine, field_name, message))


def _passed_through(part: _Part) -> frozenset[str]:
    """Keys whose values are somebody else's to template: a machine's variables, Ansible's own inventory options."""
    return frozenset({"vars"}) if part.at or part.machine else FleetFile.inventory_options()


def _traps(top: Item) -> list[Flaw]:
    """Unquoted numbers that are not what they look like, outside the user's own variables."""
    flaws = []
    for path, item in top.walk():
        if item.raw is None or isinstance(item.value, (str, bool)) or "vars" in path:
            continue
        if _OCTAL.fullmatch(item.raw):
            message = f"{item.raw} is read by YAML as octal, which is {item.value}; write it without the leading 0, or in quotes"
        elif _SIXTIES.fullmatch(item.raw):
            message = f"{item.raw} is read by YAML as a number to base 60, which is {item.value}; write '{item.raw}' in quotes"
        else:
            continue
        flaws.append(Flaw(path, top.line_of(path), message))
    return flaws


def _whose(path: Path) -> tuple[str | None, Path]:
    """Split the path of a value into the machine it belongs to and its field there."""
    if len(path) > 1 and path[0] == "machines":
        return str(path[1]), path[2:]
    return None, path


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)
