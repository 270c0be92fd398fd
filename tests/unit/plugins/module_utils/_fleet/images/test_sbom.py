# SPDX-License-Identifier: GPL-3.0-or-later
"""The bill of materials: valid by the library's own schema, whole, and the same for the same content."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError, MissingLibrary
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import sbom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def debian(
    name: str, version: str, source: str = "", source_version: str = "", arch: str = "amd64"
) -> dict[str, str]:
    return {"name": name, "version": version, "architecture": arch, "source": source or name, "source_version": source_version or version}  # fmt: skip


INVENTORY: dict[str, Any] = {
    "os": {"id": "debian", "version": "13", "codename": "trixie", "pretty": "Debian GNU/Linux 13 (trixie)"},
    "kernels": ["6.12.57+deb13-amd64"],
    "packages": [
        debian("libc6", "2.41-12", source="glibc"),
        debian("libc6", "2.41-12", source="glibc", arch="i386"),
        debian("bash", "5.2.37-2+b5", source_version="5.2.37-2"),
        debian("docker-ce", "5:29.1.1-1~debian.13~trixie"),
        debian("tzdata", "2025b-4+deb13u1", arch="all"),
    ],
    "python": [
        {"name": "torch", "version": "2.13.0+cu130", "environment": "pytorch"},
        {"name": "Jinja2", "version": "3.1.6", "environment": "pytorch"},
        {"name": "Jinja2", "version": "3.1.6", "environment": "jax"},
        {"name": "ruamel.yaml_clib", "version": "0.2.12", "environment": "system"},
    ],
}
EPOCH = 1764230400


def build(inventory: dict[str, Any] = INVENTORY, **options: Any) -> str:
    given = {"name": "gpu-box", "version": "1.2.0", "fingerprint": "f" * 64, "epoch": EPOCH}
    return sbom.build(inventory, **{**given, **options})


def test_it_is_valid_by_the_schema() -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(build()) is None
    assert validator.validate_str(build().replace('"library"', '"libary"')) is not None


def test_every_package_is_in_it_with_its_address() -> None:
    bill = json.loads(build())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert {one["purl"] for one in bill["components"]} == {
        "pkg:deb/debian/bash@5.2.37-2%2Bb5?arch=amd64&distro=debian-13&upstream=bash%405.2.37-2",
        "pkg:deb/debian/docker-ce@5:29.1.1-1~debian.13~trixie?arch=amd64&distro=debian-13",
        "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13&upstream=glibc",
        "pkg:deb/debian/libc6@2.41-12?arch=i386&distro=debian-13&upstream=glibc",
        "pkg:deb/debian/tzdata@2025b-4%2Bdeb13u1?arch=all&distro=debian-13",
        "pkg:pypi/jinja2@3.1.6",
        "pkg:pypi/ruamel-yaml-clib@0.2.12",
        "pkg:pypi/torch@2.13.0%2Bcu130",
    }
    assert len(bill["components"]) == len(INVENTORY["packages"]) + len(INVENTORY["python"])
    assert sorted((one["name"], one["properties"][0]["value"]) for one in bill["components"] if "properties" in one) == [
        ("Jinja2", "jax"), ("Jinja2", "pytorch"), ("ruamel.yaml_clib", "system"), ("torch", "pytorch"),
    ]  # fmt: skip
    [image] = [one for one in bill["dependencies"] if one["ref"] == "gpu-box-v1.2.0"]
    assert sorted(image["dependsOn"]) == sorted(one["bom-ref"] for one in bill["components"])


def test_the_image_is_named_in_it() -> None:
    told = json.loads(build())["metadata"]
    assert told["timestamp"] == "2025-11-27T08:00:00+00:00"
    assert (told["component"]["name"], told["component"]["version"]) == ("gpu-box", "1.2.0")
    assert told["component"]["description"] == "Debian GNU/Linux 13 (trixie)"


def test_the_same_content_gives_the_same_bytes() -> None:
    turned = INVENTORY | {name: INVENTORY[name][::-1] for name in ("packages", "python")}
    assert build(turned) == build()


def test_other_content_has_another_number() -> None:
    numbers = {json.loads(build(fingerprint=letter * 64))["serialNumber"] for letter in "ab"}
    assert len(numbers) == 2


def test_ubuntu_has_addresses_of_its_own() -> None:
    system = {"id": "ubuntu", "version": "24.04", "codename": "noble", "pretty": "Ubuntu 24.04.3 LTS"}
    addresses = [one["purl"] for one in json.loads(build(INVENTORY | {"os": system}))["components"]]
    assert "pkg:deb/ubuntu/tzdata@2025b-4%2Bdeb13u1?arch=all&distro=ubuntu-24.04" in addresses


def test_an_image_without_python_packages() -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(build(INVENTORY | {"python": []})) is None


@pytest.mark.parametrize("missing", ["os", "packages", "python"])
def test_an_inventory_that_is_not_whole_is_refused(missing: str) -> None:
    with pytest.raises(FleetError, match=f"inventory of the image is not whole: '{missing}'"):
        build({name: value for name, value in INVENTORY.items() if name != missing})


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyclonedx.model.bom", None)
    with pytest.raises(MissingLibrary, match="pip install 'cyclonedx-python-lib"):
        build()
