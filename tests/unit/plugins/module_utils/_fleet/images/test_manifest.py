# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest, its published JSON Schema, and what is read of a gate and of an inventory."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import inventory, manifest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.versions import ImageError, Version

from tests import image_builds

ROOT = Path(__file__).parents[6]
PUBLISHED = ROOT / "docs" / "image-manifest.schema.json"
BILL = json.dumps(
    {"components": [{"purl": "pkg:deb/debian/bash@5.2"}, {"purl": "pkg:pypi/jax@0.10.2"}, {"name": "other"}]}
)


def written(folder: Path, junit: str = image_builds.JUNIT, boots: Any = image_builds.BOOTS) -> manifest.Tests:
    (folder / "junit.xml").write_text(junit)
    (folder / "boots.json").write_text(json.dumps(boots))
    return manifest.read_tests(folder / "junit.xml", folder / "boots.json")


@pytest.fixture
def made(tmp_path: Path) -> manifest.Made:
    wish = image_builds.options(tmp_path)
    return manifest.Made(
        identity=wish["identity"],
        inventory=image_builds.INVENTORY,
        disk={"format": "qcow2", "layout": "1", "filesystem": "ext4", "luks": False, **wish["disk"]},
        builder=wish["builder"],
        source=wish["source"],
        epoch=wish["epoch"],
        tests=written(tmp_path),
    )


@pytest.fixture
def whole(made: manifest.Made) -> dict[str, Any]:
    return build(made).model_dump(mode="json")


def build(made: manifest.Made) -> manifest.Manifest:
    return manifest.build(
        made,
        name="gpu-box",
        version=Version(1, 2, 0),
        built="2026-11-27T14:00:00Z",
        disk=(9, "a" * 64),
        sbom=(BILL, "b" * 64),
    )


def test_the_published_schema_is_current() -> None:
    assert json.loads(PUBLISHED.read_text()) == manifest.json_schema(), "run tools/image-schema"


def test_it_is_a_schema_and_a_manifest_is_valid_by_it(whole: dict[str, Any]) -> None:
    schema = json.loads(PUBLISHED.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(whole)


def test_every_field_is_described() -> None:
    schema = manifest.json_schema()
    bare = [
        f"{name}.{key}"
        for name, model in {"": schema, **schema["$defs"]}.items()
        for key, field in model["properties"].items()
        if "description" not in field and "$ref" not in field
    ]
    assert bare == []


def test_a_manifest_says_what_is_in_the_image(whole: dict[str, Any]) -> None:
    assert whole["file"] == {"name": "gpu-box-v1.2.0.qcow2", "sha256": "a" * 64, "size_bytes": 9}
    assert whole["sbom"] == {
        "file": "gpu-box-v1.2.0.cdx.json",
        "sha256": "b" * 64,
        "debian_packages": 1,
        "python_packages": 1,
    }
    assert whole["kernels"] == ["6.12.117+deb13-amd64"]
    assert (whole["driver"], whole["cuda"], whole["frameworks"], whole["simulated"]) == (
        None,
        None,
        [],
        False,
    )
    assert [each["layer"] for each in whole["identity"]["layers"]] == ["os", "base"]
    assert whole["tests"] == {
        "passed": 1,
        "failed": 0,
        "skipped": 1,
        "cases": [
            {"name": "test_boot::test_no_unit_failed", "outcome": "passed", "seconds": 0.25},
            {"name": "test_boot::test_driver", "outcome": "skipped", "seconds": 0.0},
        ],
        "boots": [
            {"firmware": "bios", "accelerator": "tcg", "seconds_to_ssh": 36.5},
            {"firmware": "uefi", "accelerator": "tcg", "seconds_to_ssh": 36.5},
        ],
    }


def test_what_is_written_is_read(made: manifest.Made, tmp_path: Path) -> None:
    (tmp_path / manifest.FILE).write_text(manifest.render(build(made)))
    assert manifest.read(tmp_path / manifest.FILE) == build(made)


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        *way, last = path.split(".")
        for step in way:
            data = data[int(step) if step.isdigit() else step]
        if value is None:
            del data[last]
        else:
            data[last] = value

    return change


BY_TYPE = [
    ("schema_version", 2),
    ("name", "GPU box"),
    ("version", "1.2"),
    ("built", "2026-11-27 14:00"),
    ("kernels", []),
    ("extra", "x"),
    ("os.id", None),
    ("disk.firmware", ["coreboot"]),
    ("disk.virtual_size_bytes", 0),
    ("file.sha256", "A" * 64),
    ("identity.layers", []),
    ("tests.cases.0.outcome", "lucky"),
]
BY_SENSE = [
    ("file.name", "../../etc/passwd"),
    ("sbom.file", "gpu-box-v1.1.0.cdx.json"),
    ("version", "1.2.1"),
    ("identity.fingerprint", "c" * 64),
    ("identity.layers.0.key", "other"),
    ("tests.passed", 2),
]


@pytest.mark.parametrize(("path", "value"), [*BY_TYPE, *BY_SENSE])
def test_a_manifest_that_is_not_as_it_should_be_is_refused(
    whole: dict[str, Any], tmp_path: Path, path: str, value: Any
) -> None:
    data = copy.deepcopy(whole)
    changed(path, value)(data)
    file = tmp_path / manifest.FILE
    file.write_text(json.dumps(data))
    with pytest.raises(
        ImageError, match=r"image-manifest\.json is no manifest of an image: .+ Fetch this version anew"
    ):
        manifest.read(file)
    valid = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text())).is_valid(data)
    assert valid == ((path, value) in BY_SENSE)


def test_a_manifest_that_is_cut_off_or_missing_is_told(tmp_path: Path) -> None:
    file = tmp_path / manifest.FILE
    with pytest.raises(ImageError, match=r"there is no .*image-manifest\.json"):
        manifest.read(file)
    file.write_text('{"schema_version": 1, "na')
    with pytest.raises(ImageError, match=r"image-manifest\.json is corrupted: it holds no JSON"):
        manifest.read(file)


@pytest.mark.parametrize("missing", ["os", "layers"])
def test_what_an_image_is_made_of_has_to_be_told(made: manifest.Made, missing: str) -> None:
    identity = {key: value for key, value in made.identity.items() if key != missing}
    with pytest.raises(ImageError, match=f"is not told as it should be: {missing}: Field required"):
        manifest.content(identity)


def test_many_problems_are_cut_short(made: manifest.Made) -> None:
    with pytest.raises(
        ImageError, match=r"the manifest of gpu-box-v1\.2\.0 would not be valid: .+; and \d+ more"
    ):
        build(manifest.Made(made.identity, {"os": {}}, {}, {}, {}, 0, made.tests))


def test_a_failed_test_and_an_error_both_count_as_failed(tmp_path: Path) -> None:
    error = image_builds.FAILED.replace("<skipped", "<error").replace("</skipped>", "</error>")
    error = error.replace('<error message="no driver" />', '<error message="no driver"/>')
    tests = written(tmp_path, error)
    assert (tests.passed, tests.failed, tests.skipped) == (0, 2, 0)


@pytest.mark.parametrize(
    ("junit", "boots", "says"),
    [
        (image_builds.JUNIT, image_builds.BOOTS, []),
        (image_builds.EMPTY, image_builds.BOOTS, ["no test of it passed"]),
        (image_builds.FAILED, image_builds.BOOTS, ["1 of its tests failed (test_boot::test_no_unit_failed)"]),
        (image_builds.JUNIT, image_builds.BOOTS[:1], ["it was not booted with uefi"]),
        (image_builds.JUNIT, {"boots": image_builds.BOOTS}, []),
        (image_builds.EMPTY, [], ["no test of it passed", "it was not booted with bios and uefi"]),
    ],
)
def test_only_what_was_proven_gets_a_version(tmp_path: Path, junit: str, boots: Any, says: list[str]) -> None:
    assert manifest.refusals(written(tmp_path, junit, boots), ["uefi", "bios"]) == says


@pytest.mark.parametrize(
    ("junit", "boots"),
    [
        ("<testsuites>", []),
        (image_builds.JUNIT, [{}]),
        (image_builds.JUNIT, ["bios"]),
        (image_builds.JUNIT, 1),
    ],
)
def test_a_gate_that_left_rubbish_is_told(tmp_path: Path, junit: str, boots: Any) -> None:
    with pytest.raises(ImageError, match=r"the gate left results that .+ Run the gate of the image"):
        written(tmp_path, junit, boots)


def test_a_gate_that_left_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"the gate left no .*junit\.xml"):
        manifest.read_tests(tmp_path / "junit.xml", tmp_path / "boots.json")


GPU_LAYERS = {
    "nvidia_driver": {
        "from": "gpumesh.fleet.nvidia_driver",
        "driver": {"version": "550.163.01", "flavour": "proprietary", "branch": "550"},
        "versions": {"driver": "", "cuda": ""},
        "simulated": False,
    },
    "ai_frameworks": {
        "versions": {
            "pytorch": {"torch": "2.13.0+cpu", "numpy": "2.4.0"},
            "jax": {"jax": "0.10.2", "jaxlib": "0.10.2"},
        },
        "environments": {"pytorch": "0123abcd", "jax": "4567cdef"},
        "simulated": True,
    },
}


def test_the_stack_is_what_the_layers_noted() -> None:
    found = {"layers": GPU_LAYERS, "packages": [{"name": "bash", "version": "5"}]}
    assert inventory.driver(found) == {"version": "550.163.01", "flavour": "proprietary"}
    assert inventory.cuda(found) is None
    assert inventory.frameworks(found) == [
        {"name": "jax", "version": "0.10.2", "environment": "4567cdef"},
        {"name": "pytorch", "version": "2.13.0+cpu", "environment": "0123abcd"},
    ]
    assert inventory.simulated(found)


def test_the_versions_of_frameworks_that_computed_nothing_yet_are_those_that_are_installed() -> None:
    layers = {"ai_frameworks": {"versions": {}, "environments": {"pytorch": "0123abcd", "vllm": "89ab"}}}
    place = "/opt/gpumesh/frameworks/envs/pytorch"
    python = [
        {"name": "torch", "version": "2.12.0", "environment": f"{place}/old"},
        {"name": "torch", "version": "2.13.0+cu126", "environment": f"{place}/0123abcd"},
    ]
    assert inventory.frameworks({"layers": layers, "python": python}) == [
        {"name": "pytorch", "version": "2.13.0+cu126", "environment": "0123abcd"},
        {"name": "vllm", "version": None, "environment": "89ab"},
    ]


def test_a_layer_that_was_taken_back_is_not_there() -> None:
    assert (
        inventory.driver({"layers": {"nvidia_driver": {"state": "absent", **GPU_LAYERS["nvidia_driver"]}}})
        is None
    )


@pytest.mark.parametrize(
    ("packages", "version"),
    [
        ({"cuda-toolkit-12-6": "12.6.3-1", "cuda-toolkit-12-10": "12.10.0-1"}, "12.10"),
        ({"cuda-toolkit-12-6-config-common": "12.6.77-1"}, None),
        ({"nvidia-cuda-toolkit": "12.4.131~12.4.1-2"}, "12.4.131"),
    ],
)
def test_the_toolkit_is_what_is_installed(packages: dict[str, str], version: str | None) -> None:
    listed = [{"name": name, "version": has} for name, has in packages.items()]
    assert (inventory.cuda({"packages": listed}) or {}).get("toolkit") == version


def test_the_cuda_of_the_driver_is_told_where_it_was_asked() -> None:
    layers = {"nvidia_driver": {"versions": {"cuda": "12.4"}}}
    assert inventory.cuda({"layers": layers}) == {"toolkit": None, "driver": "12.4"}
