# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role is made of: every file of the collection that has a say in what the role does to a machine.

These are the role's own files, the roles it includes, the modules, filters, lookups and other plugins that it names, and whatever
Python those import from the collection. A digest over them changes when any of it does, and stays when anything else changes.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..errors import FleetError

NAMESPACE = "gpumesh.fleet"

BESIDE = {
    # Packs the whole suite, and the version of the collection.
    "validation": ("plugins/module_utils/_acceptance", "galaxy.yml", "MANIFEST.json"),
    # Installs the programs that prove a framework.
    "ai_frameworks": ("roles/validation/files/workloads",),
}
"""What a role uses without naming it as a plugin: it goes by the path."""

_UTILS = PurePosixPath("plugins/module_utils")
_SINGLE = ("modules", "action", "connection", "become", "strategy", "callback", "vars")
"""Kinds of plugins where a file holds one, with its name."""
_MANY = ("filter", "test", "lookup")
"""Kinds where a file may hold several, or one under the name of the file."""
_READ = frozenset({".yml", ".yaml", ".j2", ".json"})
"""Files of a role in which plugins and roles are named."""
_IGNORED = frozenset({"README.md"})


MADE = b"# Made on "
"""How a lock begins that role ai_frameworks has made itself."""


def own_locks(folder: Path) -> dict[str, str]:
    """The locks of the user's own in a folder of locks: a digest of each, by its name.

    A lock that a build has made is left out. It came out of that build, which would not be the same any more the next time.

    Args:
        folder: need not be there; ``~`` is the home of whoever asks.
    """
    found = {}
    for path in sorted(folder.expanduser().glob("*.txt")):
        content = path.read_bytes()
        if not content.startswith(MADE):
            found[path.name] = hashlib.sha256(content).hexdigest()
    return found


class Collection:
    """The files of a collection, each read once.

    Args:
        root: the collection's folder.
        namespace: how its plugins are named.
    """

    def __init__(self, root: Path, namespace: str = NAMESPACE) -> None:
        self.root = root
        self._named = re.compile(rf"\b{re.escape(namespace)}\.([a-z_][a-z0-9_]*)")
        self._roles = re.compile(
            rf"^\s*(?:-\s+)?(?:(?:name|role):\s*)?[\"']?{re.escape(namespace)}\.([a-z_][a-z0-9_]*)[\"']?\s*$",
            re.MULTILINE,
        )
        self._bytes: dict[PurePosixPath, bytes] = {}
        self._imports: dict[PurePosixPath, frozenset[PurePosixPath]] = {}
        self._plugins: dict[str, frozenset[PurePosixPath]] | None = None

    def roles(self) -> list[str]:
        """The names of all roles."""
        return sorted(path.parent.name for path in self.root.glob("roles/*/tasks"))

    def digest(self, role: str) -> str:
        """A digest over the paths and contents of :meth:`files`."""
        total = hashlib.sha256()
        for path in sorted(self.files(role)):
            content = self._read(path)
            total.update(f"{path}\0{len(content)}\0".encode() + content)
        return total.hexdigest()

    def files(self, role: str) -> frozenset[PurePosixPath]:
        """What the role is made of, by the path in the collection.

        Raises:
            FleetError: there is no such role.
        """
        if role not in self.roles():
            near = difflib.get_close_matches(role, self.roles(), n=1)
            raise FleetError(
                f"there is no role {role} in {self.root}",
                hint=f"Did you mean {near[0]}" if near else f"There are {', '.join(self.roles())}",
            )
        found: set[PurePosixPath] = set()
        done: set[str] = set()
        left = [role]
        while left:
            name = left.pop()
            done.add(name)
            own = set(self._below(PurePosixPath("roles", name)))
            for beside in BESIDE.get(name, ()):
                own |= set(self._below(PurePosixPath(beside)))
            found |= own
            for path in own:
                # Its descriptions are for people and name a lot that they only point to.
                if path.suffix not in _READ or path.name == "argument_specs.yml":
                    continue
                text = self._read(path).decode("utf-8", errors="replace")
                for plugin in set(self._named.findall(text)):
                    found |= self._plugin_files().get(plugin, frozenset())
                left += [other for other in self._included(text) if other not in done]
        return frozenset(found | self._imported(path for path in found if path.suffix == ".py"))

    def _included(self, text: str) -> Iterator[str]:
        for other in self._roles.findall(text):
            if (self.root / "roles" / other / "tasks").is_dir():
                yield other

    def _below(self, path: PurePosixPath) -> Iterator[PurePosixPath]:
        if (self.root / path).is_file():
            yield path
        for file in (self.root / path).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts and file.name not in _IGNORED:
                yield PurePosixPath(file.relative_to(self.root).as_posix())

    def _plugin_files(self) -> dict[str, frozenset[PurePosixPath]]:
        """The files that make a plugin, by its name without the collection's."""
        if self._plugins is None:
            made: dict[str, set[PurePosixPath]] = {}
            for kind in (*_SINGLE, *_MANY):
                for path in (self.root / "plugins" / kind).glob("*.py"):
                    file = PurePosixPath("plugins", kind, path.name)
                    for name in (path.stem, *(self._offered(file) if kind in _MANY else ())):
                        made.setdefault(name, set()).add(file)
            self._plugins = {name: frozenset(files) for name, files in made.items()}
        return self._plugins

    def _offered(self, path: PurePosixPath) -> Iterator[str]:
        """The names in the mapping that a file of filters or tests gives to Ansible."""
        for node in ast.walk(self._tree(path)):
            if isinstance(node, ast.FunctionDef) and node.name in ("filters", "tests"):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                        yield inner.value

    def _imported(self, start: Iterator[PurePosixPath]) -> set[PurePosixPath]:
        found: set[PurePosixPath] = set()
        left = list(start)
        while left:
            for other in self._imports_of(left.pop()) - found:
                found.add(other)
                left.append(other)
        return found

    def _imports_of(self, path: PurePosixPath) -> frozenset[PurePosixPath]:
        if path not in self._imports:
            self._imports[path] = frozenset(self._find_imports(path))
        return self._imports[path]

    def _find_imports(self, path: PurePosixPath) -> Iterator[PurePosixPath]:
        content = self._read(path)
        # Most files of a role are programs for the machine, with nothing of the collection in them.
        if b"module_utils" not in content and not re.search(rb"(?m)^\s*from \.", content):
            return
        for node in ast.walk(self._tree(path)):
            if isinstance(node, ast.ImportFrom):
                base = self._base(path, node)
                if base is not None:
                    for target in (base, *(base / alias.name for alias in node.names)):
                        yield from self._module(target)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if (inside := _inside(alias.name)) is not None:
                        yield from self._module(inside)

    def _base(self, path: PurePosixPath, node: ast.ImportFrom) -> PurePosixPath | None:
        if not node.level:
            return _inside(node.module or "")
        if node.level > len(path.parents):
            return None
        base = path.parents[node.level - 1]
        return base.joinpath(*node.module.split(".")) if node.module else base

    def _module(self, path: PurePosixPath) -> Iterator[PurePosixPath]:
        """The file of a module or package, and those that make the folders above it packages."""
        for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if (self.root / candidate).is_file():
                yield candidate
                for folder in candidate.parents:
                    if folder == _UTILS or _UTILS not in folder.parents:
                        break
                    if (self.root / folder / "__init__.py").is_file():
                        yield folder / "__init__.py"

    def _tree(self, path: PurePosixPath) -> ast.AST:
        try:
            return ast.parse(self._read(path))
        except SyntaxError as exc:
            raise FleetError(f"{self.root / path}:{exc.lineno} is no Python", hint="Repair the file") from exc

    def _read(self, path: PurePosixPath) -> bytes:
        if path not in self._bytes:
            self._bytes[path] = (self.root / path).read_bytes()
        return self._bytes[path]


def _inside(module: str) -> PurePosixPath | None:
    """Where a module that is named in full is in the collection."""
    parts = module.split(".")
    if parts[0] == "ansible_collections" and parts[3:4] == ["plugins"]:
        return PurePosixPath(*parts[3:])
    return None


class Roles:
    """Roles of this collection and of others, by the names that a playbook gives them.

    Args:
        root: this collection's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._collections: dict[Path, Collection] = {}

    def digest(self, role: str, path: Path | None = None) -> str:
        """A digest over all that a role is made of.

        Args:
            role: its name, in full or without that of this collection.
            path: its folder, where it is not in a collection beside this one.

        Raises:
            FleetError: there is no such role.
        """
        root, namespace, name = self._place(role, path)
        if root not in self._collections:
            self._collections[root] = Collection(root, namespace)
        return self._collections[root].digest(name)

    def options(self, role: str, path: Path | None = None) -> frozenset[str] | None:
        """The variables a role declares; none where it does not say."""
        # Part of the control machine's requirements, like Ansible.
        import yaml

        root, _namespace, name = self._place(role, path)
        try:
            text = (root / "roles" / name / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
        except OSError:
            return None
        entries = (yaml.safe_load(text) or {}).get("argument_specs", {})
        return frozenset(option for entry in entries.values() for option in entry.get("options") or {})

    def _place(self, role: str, path: Path | None) -> tuple[Path, str, str]:
        """The folder that has ``roles``, how the plugins there are named, and the role's own name there."""
        namespace, _dot, name = role.rpartition(".")
        if path is not None:
            return path.parent.parent, namespace or NAMESPACE, path.name
        if namespace in ("", NAMESPACE):
            return self._root, NAMESPACE, name
        return self._root.parent.parent.joinpath(*namespace.split(".")), namespace, name


def digest(root: Path, role: str) -> str:
    """A digest over all that a role of this collection is made of."""
    return Collection(root).digest(role)
