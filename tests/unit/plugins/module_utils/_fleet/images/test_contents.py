# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role is made of: whatever it uses changes its digest, and nothing else does."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import contents

ROOT = Path(__file__).parents[6]

USED = {
    "base": [
        "roles/base/files/gate.py",
        "roles/base/tasks/main.yml",
        "roles/base/templates/sshd.conf.j2",
        "roles/base/vars/Debian.yml",
        "roles/base/meta/argument_specs.yml",
        "plugins/modules/host_files.py",
        "plugins/modules/firewall_openings.py",
        "plugins/module_utils/_host/files.py",
        "plugins/module_utils/_host/undo.py",
        "plugins/module_utils/_host/__init__.py",
    ],
    "docker": ["plugins/modules/json_merge.py", "plugins/module_utils/_host/documents.py"],
    "nvidia_driver": [
        "plugins/filter/gpu_stack.py",
        "plugins/module_utils/_fleet/gpu/catalog.py",
        "plugins/module_utils/_fleet/gpu/stack.py",
        "plugins/module_utils/_host/gpu_programs.py",
    ],
    "gpu_runtime": ["plugins/module_utils/_host/gpu.py", "plugins/module_utils/_fleet/gpu/smi.py"],
    "ai_frameworks": [
        "plugins/modules/framework_environment.py",
        "plugins/filter/framework_environments.py",
        "roles/validation/files/workloads/matmul.py",
    ],
    "validation": [
        "plugins/module_utils/_acceptance/checks/__init__.py",
        "plugins/module_utils/_acceptance/cli.py",
        "plugins/action/show.py",
        "roles/validation/files/report/page.css",
        "galaxy.yml",
    ],
}
UNUSED = {
    "base": [
        "plugins/module_utils/_fleet/providers/hetzner.py",
        "plugins/module_utils/_fleet/gpu/catalog.py",
        "plugins/modules/hetzner_server.py",
        "plugins/module_utils/_acceptance/cli.py",
        "roles/docker/tasks/main.yml",
        "roles/base/README.md",
        "galaxy.yml",
    ],
    "docker": ["plugins/module_utils/_fleet/providers/hetzner.py", "roles/base/tasks/main.yml"],
    "nvidia_driver": ["plugins/module_utils/_fleet/providers/gcp.py", "roles/gpu_runtime/tasks/main.yml"],
    "validation": ["plugins/module_utils/_fleet/providers/hetzner.py"],
}


def pairs(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(role, path) for role, paths in table.items() for path in paths]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, to be changed at will."""
    root = tmp_path_factory.mktemp("collection")
    for folder in ("roles", "plugins"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "galaxy.yml", root)
    return root


@pytest.fixture(scope="module")
def before(copied: Path) -> dict[str, str]:
    """The digests of all roles."""
    collection = contents.Collection(copied)
    return {role: collection.digest(role) for role in collection.roles()}


@pytest.fixture
def touched(copied: Path, path: str) -> Iterator[Path]:
    """The collection with one byte more in one file."""
    file = copied / path
    content = file.read_bytes()
    file.write_bytes(content + b"\n")
    yield copied
    file.write_bytes(content)


@pytest.mark.parametrize(("role", "path"), pairs(USED))
def test_what_a_role_uses_changes_it(touched: Path, role: str, path: str, before: dict[str, str]) -> None:
    assert contents.digest(touched, role) != before[role]


@pytest.mark.parametrize(("role", "path"), pairs(UNUSED))
def test_what_it_does_not_use_does_not(touched: Path, role: str, path: str, before: dict[str, str]) -> None:
    assert contents.digest(touched, role) == before[role]


def test_the_same_files_elsewhere_are_the_same(copied: Path, before: dict[str, str]) -> None:
    assert {role: contents.digest(ROOT, role) for role in USED} == {role: before[role] for role in USED}


def test_a_role_that_leaves_its_folder_is_in_the_table() -> None:
    leaving = {
        path.relative_to(ROOT / "roles").parts[0]
        for path in (ROOT / "roles").rglob("*")
        if path.suffix in (".yml", ".j2")
        and re.search(r"role_path\b[^\n]*(/\.\./|dirname)", path.read_text())
    }
    # What a build of images reads outside of its folder goes into no layer.
    assert leaving - {"golden_image"} == set(contents.BESIDE)
    assert all((ROOT / path).exists() for paths in contents.BESIDE.values() for path in paths if path != "MANIFEST.json")  # fmt: skip


def test_a_role_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(FleetError, match=r"no role basse in .*Did you mean base"):
        contents.digest(ROOT, "basse")


FILES = {
    "roles/app/tasks/main.yml": '- my.own.thing:\n    x: "{{ y | my.own.second }}"\n- ansible.builtin.include_role:\n    name: my.own.other\n',
    "roles/app/meta/argument_specs.yml": "argument_specs:\n  main:\n    options:\n      app_port: {description: See P(my.own.unrelated#module).}\n",
    "roles/app/tasks/record.yml": "- my.own.thing:\n    source: my.own.silent\n",
    "roles/other/tasks/main.yml": "- my.own.lookup_only:\n",
    "roles/silent/tasks/main.yml": "- my.own.unrelated:\n",
    "plugins/modules/thing.py": "from ansible_collections.my.own.plugins.module_utils.deep.engine import run\n",
    "plugins/modules/lookup_only.py": "def late():\n    from ..module_utils import late\n",
    "plugins/modules/unrelated.py": "",
    "plugins/module_utils/deep/__init__.py": "from . import start\n",
    "plugins/module_utils/deep/engine.py": "",
    "plugins/module_utils/deep/start.py": "import ansible_collections.my.own.plugins.module_utils.plain\n",
    "plugins/module_utils/deep/idle.py": "",
    "plugins/module_utils/late.py": "",
    "plugins/module_utils/plain.py": "",
    "plugins/filter/words.py": "class FilterModule:\n    def filters(self):\n        return {'first': 1, 'second': 2}\n",
    "plugins/filter/numbers.py": "class FilterModule:\n    def filters(self):\n        return {'third': 1}\n",
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A small collection of somebody, beside this one."""
    root = tmp_path / "ansible_collections" / "my" / "own"
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_it_is_the_role_what_it_names_and_what_that_imports(own: Path) -> None:
    found = {str(path) for path in contents.Collection(own, "my.own").files("app")}
    left_out = {
        "plugins/modules/unrelated.py",
        "plugins/module_utils/deep/idle.py",
        "plugins/filter/numbers.py",
    }
    assert set(FILES) - found == left_out | {"roles/silent/tasks/main.yml"}


def test_a_new_name_for_a_file_counts(own: Path) -> None:
    before = contents.Collection(own, "my.own").digest("app")
    (own / "roles/app/tasks/record.yml").rename(own / "roles/app/tasks/recorded.yml")
    assert contents.Collection(own, "my.own").digest("app") != before


def test_byte_code_and_readme_do_not_count(own: Path) -> None:
    before = contents.Collection(own, "my.own").digest("app")
    (own / "roles/app/README.md").write_text("read me")
    (own / "roles/app/files/__pycache__").mkdir(parents=True)
    (own / "roles/app/files/__pycache__/gate.pyc").write_bytes(b"1")
    assert contents.Collection(own, "my.own").digest("app") == before


def test_a_file_that_is_no_python_is_named(own: Path) -> None:
    (own / "plugins/modules/thing.py").write_text("from .. import (\n")
    with pytest.raises(FleetError, match=r"thing\.py:1 is no Python"):
        contents.Collection(own, "my.own").digest("app")


def test_a_role_of_another_collection_is_found_beside_this_one(own: Path, tmp_path: Path) -> None:
    roles = contents.Roles(tmp_path / "ansible_collections" / "gpumesh" / "fleet")
    assert roles.digest("my.own.app") == contents.Collection(own, "my.own").digest("app")
    assert roles.options("my.own.app") == {"app_port"}
    assert roles.options("my.own.other") is None


def test_a_role_of_a_project_is_found_where_it_is_said_to_be(tmp_path: Path) -> None:
    folder = tmp_path / "project" / "roles" / "app"
    for path in ("tasks/main.yml", "meta/argument_specs.yml"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(FILES[f"roles/app/{path}"])
    roles = contents.Roles(ROOT)
    assert roles.options("app", folder) == {"app_port"}
    before = roles.digest("app", folder)
    (folder / "tasks/main.yml").write_text("[]\n")
    assert contents.Roles(ROOT).digest("app", folder) != before


def test_a_role_of_this_collection_goes_by_both_names() -> None:
    roles = contents.Roles(ROOT)
    assert roles.digest("gpumesh.fleet.docker") == roles.digest("docker") == contents.digest(ROOT, "docker")
    assert "base_firewall_enabled" in (roles.options("base") or ())
