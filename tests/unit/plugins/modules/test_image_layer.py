# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that keeps a layer, and removes old ones; with a little container engine."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import layers
from ansible_collections.gpumesh.fleet.plugins.modules import image_layer
from ansible_collections.gpumesh.fleet.tests.little_images import LittleEngine
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module

URL = "http://archive/dists/x/InRelease"
TARGETS = "apt-get indextargets --format $(BASE_URI) $(FILENAME) Created-By: Packages"
INRELEASE = f"SHA256:\n {hashlib.sha256(b'x').hexdigest()} 12 main/binary-amd64/Packages\n"
OUTPUTS = {
    TARGETS: "http://archive/dists/x/ /lists/archive_dists_x_main_binary-amd64_Packages\n",
    "ls /lists": "archive_dists_x_InRelease\narchive_dists_x_main_binary-amd64_Packages\nlock\n",
    "cat /lists/archive_dists_x_InRelease": INRELEASE,
}
PARTS = {"role": "r", "variables": "v", "parent": 'p"$HOME'}


@pytest.fixture
def engine(tmp_path: Path) -> LittleEngine:
    little = LittleEngine(tmp_path)
    assert little.program
    little.change(outputs=OUTPUTS)
    return little


def keep(engine: LittleEngine, **options: Any) -> dict[str, Any]:
    given = {
        "layer": "base",
        "role": "base",
        "recipe": "recipe",
        "parent": "below",
        "os": "debian-13",
        "parts": PARTS,
    }
    return run_module(image_layer.main, **{**given, **options}, engine=engine.program)


def prune(engine: LittleEngine, **options: Any) -> dict[str, Any]:
    return run_module(image_layer.main, state="pruned", engine=engine.program, **options)


def test_a_layer_is_kept_under_its_key(engine: LittleEngine) -> None:
    engine.add_container("work", {"gpumesh.image.build": "b1"})
    result = keep(engine, container="work")
    assert result["changed"] is True
    assert list(result["lists"]) == [URL]
    assert result["key"] == layers.full_key("recipe", "below", result["lists"])
    assert engine.image_names() == [result["image"]] == [layers.image_name(result["key"])]
    [image] = engine.read()["images"]
    found = layers.Cached.read("x", image["Config"]["Labels"], datetime.now(UTC))
    assert found is not None
    assert (found.key, found.parent, found.os, found.lists) == (
        result["key"],
        "below",
        "debian-13",
        result["lists"],
    )
    assert found.parts == layers.Parts("r", "v", 'p"$HOME')
    assert (
        image["Config"]["Labels"]["gpumesh.image.build"]
        == image["Config"]["Labels"]["gpumesh.image.store"]
        == ""
    )
    assert 'CMD ["/sbin/init"]' in image["Changes"]


def test_a_second_time_nothing_changes(engine: LittleEngine) -> None:
    engine.add_container("work", {})
    first = keep(engine, container="work")
    second = keep(engine, container="work")
    assert (first.pop("changed"), second.pop("changed")) == (True, False)
    assert first.pop("diff") == {"before": {"image": None}, "after": {"image": first["image"]}}
    assert second.pop("diff")["before"] == {"image": first["image"]}
    first.pop("invocation"), second.pop("invocation")
    assert first == second


def test_another_image_that_has_the_name_is_not_taken_for_it(engine: LittleEngine) -> None:
    engine.add_container("work", {})
    key = keep(engine, container="work")["key"]
    engine.change(images=[])
    engine.add_image(layers.image_name(key), {"gpumesh.image.key": "another"})
    assert keep(engine, container="work")["changed"] is True


def test_check_mode_keeps_nothing(engine: LittleEngine) -> None:
    engine.add_container("work", {})
    result = keep(engine, container="work", check=True)
    assert result["changed"] is True
    assert engine.image_names() == []


def test_an_image_is_read_in_a_container_that_is_gone_afterwards(engine: LittleEngine) -> None:
    engine.add_image("gpumesh/os:raw", {})
    result = keep(engine, image="gpumesh/os:raw", layer="os", parent="", build="b1")
    assert engine.container_names() == []
    assert engine.image_names() == ["gpumesh/os:raw", result["image"]]


def test_it_is_gone_too_if_it_cannot_be_read(engine: LittleEngine) -> None:
    engine.add_image("gpumesh/os:raw", {})
    engine.change(outputs={})
    result = keep(engine, image="gpumesh/os:raw", layer="os", parent="")
    assert result["failed"] is True
    assert "layer os: there are no package lists in it" in result["msg"]
    assert engine.container_names() == []


@pytest.mark.parametrize(
    ("refuses", "told"),
    [
        ("Error response from daemon: No such container: work", "Somebody removed the build's container"),
        ("Error response from daemon: Container 0123 is not running", "is not running. Start it"),
        ("permission denied while trying to connect to the Docker daemon socket", "group docker"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "systemctl start docker"),
        ("Error response from daemon: write /x: no space left on device", "the disk is full"),
        ("Error response from daemon: something new", "running apt-get in container work: something new"),
    ],
)
def test_what_the_engine_refuses_is_told_with_what_to_do(
    engine: LittleEngine, refuses: str, told: str
) -> None:
    engine.change(refuses={"exec": refuses})
    result = keep(engine, container="work")
    assert told in result["msg"]
    assert result["failure"]["message"] in result["msg"]


def test_no_engine(tmp_path: Path) -> None:
    result = run_module(image_layer.main, layer="a", recipe="b", container="c", engine=str(tmp_path / "none"))
    assert "there is no program" in result["msg"]
    assert "apt-get install docker.io" in result["msg"]


@pytest.mark.parametrize("options", [{"layer": "a"}, {"layer": "a", "recipe": "b"}, {"layer": "a", "recipe": "b", "image": "i", "container": "c"}])  # fmt: skip
def test_what_does_not_go_together(options: dict[str, str]) -> None:
    assert run_module(image_layer.main, **options)["failed"] is True


def ago(**time: float) -> str:
    return (datetime.now(UTC) - timedelta(**time)).isoformat().replace("+00:00", "Z")


def add_layer(engine: LittleEngine, name: str, parent: str, days: float) -> None:
    engine.add_image(f"gpumesh/golden:{name}", {"gpumesh.image.key": name, "gpumesh.image.parent": parent, "gpumesh.image.build": ""}, ago(days=days))  # fmt: skip


def test_layers_that_have_outlived_their_use_are_removed(engine: LittleEngine) -> None:
    for name, parent, days in (
        ("os", "", 90), ("base", "os", 60), ("young", "base", 2),
        ("old-base", "os", 50), ("old-top", "old-base", 40), ("orphan", "gone", 31),
    ):  # fmt: skip
        add_layer(engine, name, parent, days)
    would = prune(engine, days=30, check=True)
    assert engine.image_names() == [f"gpumesh/golden:{name}" for name in ("os", "base", "young", "old-base", "old-top", "orphan")]  # fmt: skip
    result = prune(engine, days=30)
    # What stands on another goes first.
    assert result["removed"] == would["removed"] == [f"gpumesh/golden:{name}" for name in ("orphan", "old-top", "old-base")]  # fmt: skip
    assert result["diff"] == {"before": {"left": result["removed"]}, "after": {"left": []}}
    assert engine.image_names() == [f"gpumesh/golden:{name}" for name in ("os", "base", "young")]
    again = prune(engine, days=30)
    assert (again["changed"], again["removed"]) == (False, [])


def test_what_a_build_stands_on_stays_however_old_it_is(engine: LittleEngine) -> None:
    for name, parent, days in (("os", "", 90), ("base", "os", 60), ("other", "os", 50)):
        add_layer(engine, name, parent, days)
    assert prune(engine, keep=["base"])["removed"] == ["gpumesh/golden:other"]


def test_tools_of_an_earlier_month_are_removed(engine: LittleEngine) -> None:
    for month, days in (("this", 30), ("earlier", 32)):
        engine.add_image(f"gpumesh/image-tools:{month}", {"gpumesh.image.tools": month}, ago(days=days))
    assert prune(engine, days=1)["removed"] == ["gpumesh/image-tools:earlier"]
    assert engine.image_names() == ["gpumesh/image-tools:this"]


@pytest.mark.parametrize("used", ["gpumesh/image-tools:pinned", "mirror/tools:1", "id"])
def test_the_tools_that_the_build_uses_stay_however_old_they_are(engine: LittleEngine, used: str) -> None:
    engine.add_image("gpumesh/image-tools:pinned", {"gpumesh.image.tools": "old"}, ago(days=90))
    [image] = engine.read()["images"]
    engine.change(images=[{**image, "RepoTags": [*image["RepoTags"], "mirror/tools:1"]}])
    used = image["Id"].removeprefix("sha256:")[:12] if used == "id" else used
    assert prune(engine, tools=used)["removed"] == []
    assert len(prune(engine, tools="another:1")["removed"]) == 2


def test_what_is_known_to_be_dead_is_removed_at_once(engine: LittleEngine) -> None:
    for name in ("killed", "just begun"):
        engine.add_container(name, {"gpumesh.image.build": name}, ago(seconds=20))
    assert prune(engine, builds_dead=["killed"])["removed"] == ["killed"]
    assert engine.container_names() == ["just begun"]


def test_builds_for_another_store_are_left_alone(engine: LittleEngine, tmp_path: Path) -> None:
    for name, store in (("ours", "here"), ("theirs", "there")):
        labels = {"gpumesh.image.build": name, "gpumesh.image.store": str(tmp_path / store)}
        engine.add_container(name, labels, ago(minutes=60))
        engine.add_image(f"os:{name}", labels, ago(minutes=60))
    engine.add_container("nobody's", {"gpumesh.image.build": "old"}, ago(minutes=60))
    assert prune(engine, store=str(tmp_path / "here"))["removed"] == ["ours", "os:ours"]
    assert prune(engine)["removed"] == ["theirs", "nobody's", "os:theirs"]


def test_a_layer_that_a_container_uses_stays(engine: LittleEngine) -> None:
    add_layer(engine, "old", "", 40)
    engine.change(refuses={"image rm": "Error response from daemon: conflict: unable to remove repository reference (must force) - container 1 is using its referenced image 2"})  # fmt: skip
    assert prune(engine)["removed"] == []


def test_what_somebody_else_has_just_removed_is_no_failure(engine: LittleEngine) -> None:
    add_layer(engine, "old", "", 40)
    engine.add_container("dead", {"gpumesh.image.build": "b1"}, ago(minutes=60))
    engine.change(
        refuses={
            "image rm": "Error response from daemon: No such image: gpumesh/golden:old",
            "rm": "Error response from daemon: No such container: dead",
        }
    )
    assert prune(engine)["removed"] == ["dead", "gpumesh/golden:old"]


def test_what_dead_builds_left_is_removed(engine: LittleEngine) -> None:
    for name, build, minutes in (
        ("dead", "b1", 60),
        ("alive", "b2", 60),
        ("just begun", "b3", 1),
        ("no build's", "", 60),
    ):
        engine.add_container(name, {"gpumesh.image.build": build}, ago(minutes=minutes))
        engine.add_image(f"os:{build or 'none'}", {"gpumesh.image.build": build}, ago(minutes=minutes))
    engine.add_container("a stranger's", {}, ago(minutes=60))
    result = prune(engine, builds_alive=["b2"])
    assert result["removed"] == ["dead", "os:b1"]
    assert engine.container_names() == ["alive", "just begun", "no build's", "a stranger's"]
    assert engine.image_names() == ["os:b2", "os:b3", "os:none"]
