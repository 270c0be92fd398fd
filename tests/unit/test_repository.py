# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds the repository together: dependencies with reasons, the built artefact, the action groups."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import fragment_loader
from ansible.utils.plugin_docs import get_docstring

ROOT = Path(__file__).parent.parent.parent
REQUIREMENTS = ("meta/ee-requirements.txt", "requirements.txt", "requirements-dev.txt")
MODULES = sorted(path for path in (ROOT / "plugins/modules").glob("*.py") if path.stem != "__init__")

# What somebody who installs the collection gets, by the first part of the path.
SHIPPED = {
    "CHANGELOG.rst",
    "CONTRIBUTING.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "changelogs",
    "docs",
    "inventories",
    "meta",
    "packer",
    "playbooks",
    "plugins",
    "roles",
    "site.yml",
    "tests",
}


def requirements(file: str) -> list[tuple[str, str]]:
    """Name and version range of each line of a requirements file."""
    lines = (
        line.partition("#")[0].partition(";")[0].strip() for line in (ROOT / file).read_text().splitlines()
    )
    parsed = (
        re.fullmatch(r"([\w.-]+)(?:\[[\w-]+\])?(.*)", line)
        for line in lines
        if not line.startswith("-r") and line
    )
    return [(match[1], match[2]) for match in parsed if match]


def documentation(module: Path) -> dict[str, str]:
    """The module's DOCUMENTATION, EXAMPLES and RETURN, whichever it has."""
    return {
        target.id: ast.literal_eval(node.value)
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in {"DOCUMENTATION", "EXAMPLES", "RETURN"}
    }


def test_every_dependency_has_a_reason_and_every_reason_a_dependency() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Dependencies")[2]
    reasons = dict(re.findall(r"^\| `([\w.-]+)` \| (.+) \|$", text, re.MULTILINE))
    packages = {name for file in REQUIREMENTS for name, _ in requirements(file)}
    taken = re.search(r"collections=\((.*?)\)", (ROOT / "tools/venv").read_text(), re.DOTALL)
    assert taken
    assert set(reasons) == packages | set(taken[1].split())


@pytest.mark.parametrize("file", [*REQUIREMENTS, "requirements-collections.txt"])
def test_every_requirement_is_a_range_with_both_ends(file: str) -> None:
    open_ended = [
        name
        for name, versions in requirements(file)
        if ">=" not in versions or "<" not in versions.replace("<=", "")
    ]
    # cryptography has a major version twice a year and breaks nothing we use.
    assert set(open_ended) <= {"cryptography"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The paths in the collection as ansible-galaxy builds it."""
    folder = tmp_path_factory.mktemp("build")
    command = [sys.executable, "-m", "ansible", "galaxy", "collection", "build", "--output-path", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [artefact] = folder.glob("*.tar.gz")
    with tarfile.open(artefact) as archive:
        return {name.rstrip("/") for name in archive.getnames()}


def test_the_built_collection_holds_what_users_need_and_nothing_else(built: set[str]) -> None:
    assert {path.partition("/")[0] for path in built} <= SHIPPED


def test_of_the_tests_only_what_ansible_test_reads_is_built(built: set[str]) -> None:
    tests = {path for path in built if path.startswith("tests/")}
    assert {path for path in tests if not path.startswith("tests/sanity")} == {"tests/config.yml"}


def test_the_built_collection_has_no_inventory_of_the_sandbox_and_no_byte_code(built: set[str]) -> None:
    assert not [path for path in built if "sandbox" in path.split("/") or "__pycache__" in path]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_is_documented(module: Path) -> None:
    found = documentation(module)
    assert set(found) == {"DOCUMENTATION", "EXAMPLES", "RETURN"}
    assert yaml.safe_load(found["DOCUMENTATION"])["module"] == module.stem


def test_the_action_groups_are_those_that_the_modules_name() -> None:
    groups: dict[str, list[str]] = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]
    named: dict[str, set[str]] = {}
    for module in MODULES:
        document: dict[str, Any] = get_docstring(str(module), fragment_loader, plugin_type="module")[0]
        membership = document.get("attributes", {}).get("action_group", {}).get("membership", [])
        for group in membership:
            named.setdefault(group.removeprefix("gpumesh.fleet."), set()).add(module.stem)
    assert {group: set(modules) for group, modules in groups.items()} == named


def test_every_file_of_the_engine_is_excused_from_the_import_without_libraries() -> None:
    wanted: dict[Path, str] = runpy.run_path(str(ROOT / "tools/sanity-ignores"))["ignore_files"]()
    stale = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    assert not stale, "run tools/sanity-ignores"
