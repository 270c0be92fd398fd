# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that says which layers of an image must be built; with a little container engine and an archive on loopback."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import admission, layers
from ansible_collections.gpumesh.fleet.plugins.modules import image_plan
from ansible_collections.gpumesh.fleet.tests import image_builds
from ansible_collections.gpumesh.fleet.tests.little_images import LittleEngine
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module

ROOT = Path(__file__).parents[4]


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, *words: object) -> None:
        """Say nothing."""


class Archive:
    """An archive whose one list can be changed."""

    def __init__(self, folder: Path, base: str) -> None:
        self._file, self.url = folder / "InRelease", f"{base}/InRelease"

    def answer(self, text: str) -> None:
        """Answer this."""
        self._file.write_text(text)

    def publish(self, content: str) -> str:
        """Have other packages; the digest of the list."""
        line = f" {hashlib.sha256(content.encode()).hexdigest()} 12 main/binary-amd64/Packages\n"
        self.answer(f"SHA256:\n{line}")
        return image_plan.package_lists.parse(self._file.read_text())


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    folder = tmp_path / "archive"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Archive(folder, f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def engine(tmp_path: Path) -> LittleEngine:
    little = LittleEngine(tmp_path)
    assert little.program
    return little


GIVEN: dict[str, Any] = {
    "name": "gpu-box",
    "collection": str(ROOT),
    "os": "debian-13",
    "os_recipe": {"packages": ["linux-image-amd64"]},
    "layout": {"filesystem": "ext4"},
    "layers": [{"name": "base", "role": "base"}, {"name": "docker", "role": "gpumesh.fleet.docker"}],
}


def plan(engine: LittleEngine, **options: Any) -> dict[str, Any]:
    return run_module(
        image_plan.main,
        **{**GIVEN, "store": str(engine.folder / "store"), "engine": engine.program, **options},
    )


def build(engine: LittleEngine, planned: dict[str, Any], lists: dict[str, str]) -> list[str]:
    """Keep what a plan says is missing, as a build does; the keys."""
    parent = (planned["start_from"] or {}).get("key", "")
    keys = []
    for one in planned["missing"]:
        labels = layers.labels_of(one["layer"], one["recipe"], parent, lists, "debian-13", one["parts"])
        parent = labels["gpumesh.image.key"]
        engine.add_image(layers.image_name(parent), labels)
        keys.append(parent)
    return keys


def whys(planned: dict[str, Any]) -> dict[str, str]:
    return {one["layer"]: one["why"] for one in planned["layers"]}


def test_from_nothing_to_a_version(engine: LittleEngine, archive: Archive) -> None:
    first = plan(engine)
    assert (first["changed"], first["start_from"], first["identity"], first["bump"], first["same"]) == (False, None, None, None, False)  # fmt: skip
    assert whys(first) == {"os": "never built", "base": "never built", "docker": "never built"}
    assert [one["role"] for one in first["layers"]] == [None, "base", "gpumesh.fleet.docker"]
    keys = build(engine, first, {archive.url: archive.publish("one")})

    second = plan(engine)
    assert [one["key"] for one in second["layers"]] == keys
    assert second["missing"] == []
    assert second["start_from"] == {"layer": "docker", "key": keys[2], "image": layers.image_name(keys[2])}
    assert (second["bump"]["version"], second["bump"]["kind"], second["same"]) == ("1.0.0", "first", False)
    assert [one["key"] for one in second["identity"]["layers"]] == keys
    assert datetime.fromisoformat(second["layers"][0]["created"]).year == 2026


def test_what_the_store_has_already_is_not_made_again(engine: LittleEngine, archive: Archive) -> None:
    build(engine, plan(engine), {archive.url: archive.publish("one")})
    store = engine.folder / "store"
    made = image_builds.options(image_builds.build(store))
    done = admission.Build(
        "gpu-box",
        Path(made["folder"]),
        identity=plan(engine)["identity"],
        disk={**made["disk"], "filesystem": "ext4", "luks": False},
        builder=made["builder"],
        source=made["source"],
        epoch=made["epoch"],
    )
    admission.admit(image_plan.Store(store), done, datetime(2026, 11, 27, tzinfo=UTC))

    again = plan(engine)
    assert (again["same"], again["bump"]["version"], again["bump"]["kind"]) == (True, "1.0.0", "same")
    other = plan(engine, seal={"program": "changed"})
    assert (other["same"], other["bump"]["version"], other["missing"]) == (False, "1.1.0", [])
    assert plan(engine, layout={"filesystem": "xfs"})["bump"]["version"] == "2.0.0"
    assert plan(engine, version="1.0.0")["same"] is True
    assert "2.0.0" in plan(engine, layout={"filesystem": "xfs"}, version="2.0.0")["bump"]["version"]
    archive.publish("two")
    assert (plan(engine)["same"], plan(engine)["bump"]) == (False, None)
    build(engine, plan(engine), {archive.url: archive.publish("two")})
    assert plan(engine)["bump"]["version"] == "1.0.1"


def test_a_package_list_that_has_changed(engine: LittleEngine, archive: Archive) -> None:
    keys = build(engine, plan(engine), {archive.url: archive.publish("one")})
    archive.publish("two")
    changed = plan(engine)
    assert whys(changed) == {"os": f"package lists changed: {archive.url}", "base": "parent changed", "docker": "parent changed"}  # fmt: skip
    assert changed["identity"] is None
    assert plan(engine, lists="ignore")["missing"] == []
    # What this build has made while the archive went on.
    assert plan(engine, built=keys[-1:])["missing"] == []
    assert plan(engine, cache=False, built=keys)["missing"] == []
    assert set(whys(plan(engine, cache=False)).values()) == {"the cache is off"}


def test_a_variable_changes_its_layer_and_those_above(engine: LittleEngine, archive: Archive) -> None:
    build(engine, plan(engine), {archive.url: archive.publish("one")})
    assert whys(plan(engine, variables={"docker_users": ["me"]})) == {"os": "", "base": "", "docker": "variables changed"}  # fmt: skip
    assert whys(plan(engine, implied={"base_users": []}))["base"] == "variables changed"
    for name in ("validation_deferred", "base_of_a_later_release"):
        assert whys(plan(engine, implied={name: True}))["base"] == ""
    both = plan(engine, implied={"docker_users": ["you"]}, variables={"docker_users": ["me"]})
    assert both["layers"] == plan(engine, variables={"docker_users": ["me"]})["layers"]


def test_a_lock_of_the_users_own_changes_the_layer_that_is_made_from_it(
    engine: LittleEngine, archive: Archive, tmp_path: Path
) -> None:
    locks = tmp_path / "locks"
    given = {
        "layers": [*GIVEN["layers"], {"name": "ai_frameworks", "role": "ai_frameworks"}],
        "implied": {"ai_frameworks_locks_folder": str(locks)},
        "lock_folders": ["ai_frameworks_locks_folder"],
    }
    build(engine, plan(engine, **given), {archive.url: archive.publish("one")})
    # What the build itself has made of the index is no other declaration the next time.
    locks.mkdir()
    lock = locks / "pytorch-2.11.0-cpu.txt"
    lock.write_text("# Made on golden from: torch==2.11.0\ntorch==2.11.0\n")
    assert plan(engine, **given)["missing"] == []
    lock.write_text("torch==2.11.0 --hash=sha256:aa\n")
    assert whys(plan(engine, **given))["ai_frameworks"] == "variables changed"
    build(engine, plan(engine, **given), {archive.url: archive.publish("one")})
    assert plan(engine, **given)["missing"] == []
    # Where it is does not matter, and a declaration may say where.
    locks.rename(tmp_path / "elsewhere")
    moved = {**given, "variables": {"ai_frameworks_locks_folder": str(tmp_path / "elsewhere")}}
    assert plan(engine, **moved)["missing"] == []
    (tmp_path / "elsewhere" / lock.name).write_text("torch==2.11.0 --hash=sha256:bb\n")
    assert whys(plan(engine, **moved))["ai_frameworks"] == "variables changed"


def test_variables_that_no_layer_has_are_refused_all_at_once(engine: LittleEngine) -> None:
    result = plan(engine, variables={"base_firewal_enabled": True, "nvidia_driver_branch": "550"})
    assert result["failed"] is True
    assert "base_firewal_enabled (did you mean base_firewall_enabled?), nvidia_driver_branch" in result["msg"]


def test_a_role_that_is_not_there(engine: LittleEngine) -> None:
    result = plan(engine, layers=[{"name": "base", "role": "bse"}])
    assert "there is no role bse in" in result["msg"]
    assert "Did you mean base" in result["msg"]


def test_an_archive_that_cannot_be_used_is_told(engine: LittleEngine, archive: Archive) -> None:
    build(engine, plan(engine), {archive.url: archive.publish("one")})
    archive.answer("<html>Log in</html>")
    result = plan(engine)
    assert f"the package list {archive.url} cannot be used" in result["msg"]
    assert "a proxy or a login page" in result["msg"]
    assert plan(engine, lists="ignore")["missing"] == []


def test_labels_that_somebody_else_wrote_are_passed_over(engine: LittleEngine) -> None:
    engine.add_image("gpumesh/golden:0", {"gpumesh.image.key": "0", "gpumesh.image.lists": "{"})
    engine.add_image("gpumesh/golden:1", {"gpumesh.image.key": "1", "gpumesh.image.layer": "os"})
    assert set(whys(plan(engine)).values()) == {"never built"}


def test_no_engine(engine: LittleEngine) -> None:
    Path(engine.program).unlink()
    given = {**GIVEN, "store": str(engine.folder), "engine": f"{engine.folder}/engine"}
    assert "there is no program" in run_module(image_plan.main, **given)["msg"]
