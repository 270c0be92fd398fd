# SPDX-License-Identifier: GPL-3.0-or-later
"""From nothing to an image in the store, and what comes after: each test goes on where the one before it ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, Builder, Run, never_built

NAME = "proof"
KILLS = int(os.environ.get("GPUMESH_IMAGE_KILLS", "2"))


def manifest(folder: Path) -> Any:
    return json.loads((folder / "image-manifest.json").read_text())


def containers() -> list[str]:
    """What builds have running, or left over."""
    said = subprocess.run(
        ["docker", "ps", "--all", "--filter=label=gpumesh.image.build", "--format={{.Names}}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return said.stdout.split()


def whole(builder: Builder) -> list[str]:
    """The versions in the store, each of them proven: there are no halves."""
    kept = []
    for folder in sorted((builder.store / NAME).iterdir()):
        if folder.name.startswith(".") or folder.is_symlink():
            continue
        said = manifest(folder)
        image = folder / said["file"]["name"]
        assert hashlib.sha256(image.read_bytes()).hexdigest() == said["file"]["sha256"], image
        kept.append(said["version"])
    return kept


def family(pid: int) -> list[int]:
    """A process and all that it has started: Ansible's workers are in sessions of their own."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def another() -> dict[str, Any]:
    """A declaration of which only the lowest layer is kept; its image is booted by one firmware."""
    return {"golden_image_variables": never_built(), "golden_image_gate_firmware": ["bios"]}


@pytest.fixture(scope="module")
def first(builder: Builder) -> Run:
    return builder.build()


def test_check_mode_builds_nothing(builder: Builder) -> None:
    run = builder.build("--check")
    assert run.status == 0, run.text
    assert "In check mode nothing is built" in run.said
    assert not (builder.store / NAME).exists()
    assert containers() == []


def test_an_image_is_built_booted_and_kept(builder: Builder, first: Run) -> None:
    assert first.status == 0, first.text
    folder = builder.folder(NAME, "1.0.0")
    assert sorted(path.name for path in folder.iterdir()) == [
        "gate", "image-manifest.json", f"{NAME}-v1.0.0.cdx.json", f"{NAME}-v1.0.0.qcow2",
    ]  # fmt: skip
    assert builder.current(NAME) == "1.0.0"
    assert containers() == []
    assert [path.name for path in (builder.store / ".work").iterdir()] == []


def test_the_manifest_is_what_the_published_schema_says(builder: Builder, first: Run) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    said = manifest(builder.folder(NAME, "1.0.0"))
    jsonschema.validate(said, json.loads((ROOT / "docs" / "image-manifest.schema.json").read_text()))
    assert [layer["layer"] for layer in said["identity"]["layers"]] == ["os", "base", "docker", "seal"]
    assert said["tests"]["failed"] == 0
    assert said["tests"]["passed"] > 15
    assert {boot["firmware"] for boot in said["tests"]["boots"]} == {"bios", "uefi"}


def test_the_image_is_a_disk_that_the_manifest_describes(builder: Builder, first: Run) -> None:
    folder = builder.folder(NAME, "1.0.0")
    said = manifest(folder)["file"]
    image = folder / said["name"]
    assert image.read_bytes()[:4] == b"QFI\xfb"
    assert (image.stat().st_size, hashlib.sha256(image.read_bytes()).hexdigest()) == (
        said["size_bytes"],
        said["sha256"],
    )


def test_the_bill_of_materials_lists_every_package(builder: Builder, first: Run) -> None:
    folder = builder.folder(NAME, "1.0.0")
    said = json.loads((folder / f"{NAME}-v1.0.0.cdx.json").read_text())
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.6")
    listed = {
        (component["purl"].split("/")[0], component["name"])
        for component in said["components"]
        if "purl" in component
    }
    # Asked of the layers themselves, and not of what the build wrote down.
    top = manifest(folder)["identity"]["layers"][-2]["key"]
    there = subprocess.run(
        ["docker", "run", "--rm", "--pull=never", f"gpumesh/golden:{top[:24]}", "dpkg-query", "--show", "--showformat=${Package}\n"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert len(there) > 200
    assert {name for kind, name in listed if kind == "pkg:deb"} == set(there)
    assert "cloud-init" in {name for kind, name in listed if kind == "pkg:pypi"}


def test_nothing_is_built_where_nothing_changed(builder: Builder, first: Run) -> None:
    run = builder.build()
    assert (run.status, run.changed) == (0, 0), run.text
    assert "1.0.0 is in" in run.said
    assert whole(builder) == ["1.0.0"]


def test_only_the_layer_that_changed_is_built(builder: Builder, first: Run) -> None:
    # Booted by one firmware alone, since that the other works was shown above.
    run = builder.build(
        golden_image_variables={"docker_log_max_size": "7m"}, golden_image_gate_firmware=["uefi"]
    )
    assert run.status == 0, run.text
    assert len(run.built) == 1, run.text
    old, new = (
        manifest(builder.folder(NAME, version))["identity"]["layers"] for version in ("1.0.0", "1.1.0")
    )
    assert [layer["layer"] for layer, was in zip(new, old, strict=True) if layer["key"] != was["key"]] == [
        "docker",
        "seal",
    ]
    assert builder.current(NAME) == "1.1.0"


def test_the_version_before_comes_back(builder: Builder, first: Run) -> None:
    wanted = {"golden_image_name": NAME, "golden_image_to": "1.0.0"}
    assert builder.play("image_rollback.yml", "--check", **wanted).status == 0
    assert builder.current(NAME) == "1.1.0"
    run = builder.play("image_rollback.yml", **wanted)
    assert run.status == 0, run.text
    assert builder.current(NAME) == "1.0.0"
    assert builder.play("image_rollback.yml", **wanted).changed == 0


def test_a_corrupted_image_does_not_come_back(builder: Builder, first: Run) -> None:
    image = builder.folder(NAME, "1.1.0") / f"{NAME}-v1.1.0.qcow2"
    image.chmod(0o600)
    with image.open("r+b") as file:
        file.seek(image.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    run = builder.play("image_rollback.yml", golden_image_name=NAME, golden_image_to="1.1.0")
    assert run.status != 0
    assert image.name in run.said
    assert "Traceback" not in run.text
    assert builder.current(NAME) == "1.0.0"
    with image.open("r+b") as file:
        file.seek(image.stat().st_size // 2)
        file.write(byte)


def test_a_build_that_is_killed_leaves_the_store_whole(builder: Builder, first: Run) -> None:
    """At random tasks of those that the first build had, up to the boots of the gate; then one goes through.

    At tasks and not at seconds, since no time is in the midst of a build on every machine. Each build has a declaration that no build
    had before, or what an earlier one kept would leave little to build.
    """
    chance = random.Random(6)
    before = whole(builder)
    steps = [
        task.removeprefix("gpumesh.fleet.golden_image : ")
        for task in first.tasks
        if " : os | " not in task and " : os_kept | " not in task
    ]
    steps = steps[
        steps.index("begin | Make the folder of this build") : steps.index("gate | Prove it from outside")
    ]
    for _round in range(KILLS):
        step = chance.choice(sorted(set(steps)))
        process = subprocess.Popen(
            builder.command("image.yml", **another()),
            cwd=ROOT, env=builder.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        hung = threading.Timer(1800, process.kill)
        # Where an assertion fails, the end of the tests does not wait for it.
        hung.daemon = True
        hung.start()
        said = []
        for line in process.stdout:
            said.append(line)
            if f"{step}] **" in line:
                break
        time.sleep(chance.uniform(0, 5))
        assert hung.is_alive(), "".join(said)
        # What runs in containers goes on for a while, as after a real kill.
        for pid in family(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "".join(said)
        process.stdout.close()
        hung.cancel()
        assert whole(builder) == before
    run = builder.build(**another())
    assert run.status == 0, run.text
    assert whole(builder) == [*before, "1.2.0"]
    assert [path.name for path in (builder.store / ".work").iterdir()] == []
    assert containers() == []


def test_impossible_declarations_are_refused_all_at_once(builder: Builder) -> None:
    run = builder.build(
        golden_image_layers=["docker", "nvidia_drivers", "validation", "nvidia_driver"],
        golden_image_mirror="https://reader:sesame@mirror.example/debian",
        golden_image_luks=True,
        golden_image_variables={"base_timezon": "Etc/UTC"},
    )
    assert run.status != 0
    for sentence in (
        "'docker' needs base below it",
        "there is no layer 'nvidia_drivers'",
        "'validation' goes by the driver, so it comes after nvidia_driver",
        "golden_image_mirror: there is a login in it",
        "golden_image_luks_passphrase_file",
        "golden_image_luks_unlock_keys",
    ):
        assert sentence in run.said
    assert "sesame" not in run.text
    assert "Traceback" not in run.text


def test_a_misspelt_variable_of_a_layer_is_refused(builder: Builder) -> None:
    run = builder.build(golden_image_variables={"base_timezon": "Etc/UTC"})
    assert run.status != 0
    assert "base_timezon" in run.said
    assert "base_timezone" in run.said
