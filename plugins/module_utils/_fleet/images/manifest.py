# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in an image, what it was made of and how it was proven: ``image-manifest.json``, beside every image in a store.

Its JSON Schema is published as docs/image-manifest.schema.json. It says what the types say; that the parts fit each other (the
counts of tests, the fingerprint, the names of files) only ``read`` knows.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from xml.etree import ElementTree

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from . import inventory
from .versions import NAME, VERSION, Identity, ImageError, LayerId, Version, stem

FILE = "image-manifest.json"
SIGNATURE = f"{FILE}.sig"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Word = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Firmware = Literal["bios", "uefi"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Os(_Part):
    """The distribution."""

    id: Word = Field(description="What os-release calls it, such as debian.")
    version: Word = Field(description="Its release, such as 13.")
    codename: str = Field(description="Its release's other name, such as trixie.")
    pretty: Word = Field(description="Its name for people.")


class Driver(_Part):
    """The NVIDIA driver."""

    version: Word = Field(description="Its version.")
    flavour: str | None = Field(description="Which kernel modules it has: open or proprietary.")


class Cuda(_Part):
    """CUDA."""

    toolkit: str | None = Field(description="Version of the toolkit, where the image has it.")
    driver: str | None = Field(
        description="The newest CUDA that the driver said it runs, where it was asked."
    )


class Framework(_Part):
    """An AI framework."""

    name: Word = Field(description="What it is called, such as pytorch.")
    version: str | None = Field(description="Its version, where it is known.")
    environment: str | None = Field(description="Key of the environment that it is in.")


class Disk(_Part):
    """The disk."""

    format: Literal["qcow2"] = Field(description="Format of the file.")
    layout: Word = Field(description="What the disk is like, and the version of the code that lays it out.")
    firmware: tuple[Firmware, ...] = Field(min_length=1, description="The firmware that boots it.")
    filesystem: Word = Field(description="The root file system.")
    luks: bool = Field(description="Whether the root file system is encrypted.")
    virtual_size_bytes: int = Field(gt=0, description="Size of the disk that a machine sees.")


class File(_Part):
    """The image's file."""

    name: Word = Field(description="Its name, beside the manifest.")
    sha256: Sha256 = Field(description="Its checksum.")
    size_bytes: int = Field(gt=0, description="Its size.")


class Sbom(_Part):
    """The bill of materials, in CycloneDX JSON."""

    file: Word = Field(description="Its name, beside the manifest.")
    sha256: Sha256 = Field(description="Its checksum.")
    debian_packages: Count = Field(description="Debian packages in it.")
    python_packages: Count = Field(description="Python packages in it.")


class Layer(_Part):
    """A layer as it was built."""

    layer: Word = Field(description="Its name.")
    role: str | None = Field(description="The role that made it, where one did.")
    recipe: Word = Field(description="Digest of how it is made: role, variables, and the recipes below it.")
    key: Word = Field(description="Digest of the recipe and of what the package lists offered.")
    parent: str | None = Field(description="Key of the layer below.")
    lists: dict[str, str] = Field(description="Digest of each package list that it was built from, by URL.")


class Content(_Part):
    """What the image was made of. Two images with one fingerprint have the same content."""

    fingerprint: Sha256 = Field(description="Digest of all below.")
    os: Word = Field(description="The operating system that was asked for, such as debian-13.")
    layout: Word = Field(description="The layout that was asked for.")
    layers: tuple[Layer, ...] = Field(min_length=1, description="From the lowest up.")

    def identity(self) -> Identity:
        """The same, to compare."""
        layers = tuple(LayerId(each.layer, each.recipe, each.key) for each in self.layers)
        return Identity(self.os, self.layout, layers)


class Builder(_Part):
    """What it was made with."""

    ansible: Word = Field(description="Version of ansible-core.")
    collection: Word = Field(description="Version of gpumesh.fleet.")
    tools: dict[str, str] = Field(description="Versions of the tools that made the disk.")
    accelerator: Word = Field(description="What the virtual machines ran on: kvm or tcg.")


class Source(_Part):
    """Where the roles came from."""

    revision: str | None = Field(description="Revision of the source, where it is known.")
    dirty: bool | None = Field(description="Whether there were changes that were not committed.")


class Case(_Part):
    """A test."""

    name: Word = Field(description="Its name.")
    outcome: Literal["passed", "failed", "skipped"] = Field(description="What came of it.")
    seconds: Seconds = Field(description="How long it took.")


class Boot(_Part):
    """A boot of the image in a virtual machine."""

    firmware: Firmware = Field(description="The firmware that booted it.")
    accelerator: Word = Field(description="What the virtual machine ran on: kvm or tcg.")
    seconds_to_ssh: Seconds = Field(description="Time until SSH answered.")


class Tests(_Part):
    """How it was proven. A test is skipped where the image has not what it is about."""

    passed: Count = Field(description="Tests that passed.")
    failed: Count = Field(description="Tests that failed.")
    skipped: Count = Field(description="Tests that were skipped.")
    cases: tuple[Case, ...] = Field(description="Every test.")
    boots: tuple[Boot, ...] = Field(description="Every boot.")


class Manifest(_Part):
    """What is in an image, what it was made of and how it was proven."""

    schema_version: Literal[1] = Field(description="Version of this format.")
    name: str = Field(pattern=NAME, description="Name of the image.")
    version: str = Field(pattern=VERSION, description="Its version.")
    built: str = Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
        description="When it was admitted, in UTC.",
    )
    simulated: bool = Field(description="Whether any layer was proven with simulated hardware.")
    os: Os = Field(description="The distribution.")
    kernels: tuple[Word, ...] = Field(min_length=1, description="The kernels it can boot.")
    driver: Driver | None = Field(description="The NVIDIA driver, where it has one.")
    cuda: Cuda | None = Field(description="CUDA, where it is known.")
    frameworks: tuple[Framework, ...] = Field(description="The AI frameworks in it.")
    disk: Disk = Field(description="The disk.")
    file: File = Field(description="The image's file.")
    sbom: Sbom = Field(description="The bill of materials.")
    identity: Content = Field(description="What it was made of.")
    builder: Builder = Field(description="What it was made with.")
    source: Source = Field(description="Where the roles came from.")
    epoch: Count = Field(description="Seconds since 1970 that no file in it is newer than.")
    tests: Tests = Field(description="How it was proven.")

    @model_validator(mode="after")
    def _fits(self) -> Manifest:
        """That its parts fit each other."""
        own = stem(self.name, Version.parse(self.version))
        cases = [case.outcome for case in self.tests.cases]
        for fits, problem in (
            (self.file.name == f"{own}.qcow2", f"file.name: it is not {own}.qcow2"),
            (self.sbom.file == f"{own}.cdx.json", f"sbom.file: it is not {own}.cdx.json"),
            (
                self.identity.fingerprint == self.identity.identity().fingerprint,
                "identity.fingerprint: it is not that of the layers",
            ),
            (
                (self.tests.passed, self.tests.failed, self.tests.skipped)
                == (cases.count("passed"), cases.count("failed"), cases.count("skipped")),
                "tests: the counts are not those of the cases",
            ),
        ):
            if not fits:
                raise ValueError(problem)
        return self


@dataclass(frozen=True)
class Made:
    """What a build has to tell of itself, as plain data.

    Args:
        identity: ``os``, ``layout`` and ``layers``, as in ``Content``.
        inventory: what ``inventory.py`` found in the image.
        disk: as in ``Disk``.
        builder: as in ``Builder``.
        source: as in ``Source``.
    """

    identity: Mapping[str, Any]
    inventory: Mapping[str, Any]
    disk: Mapping[str, Any]
    builder: Mapping[str, Any]
    source: Mapping[str, Any]
    epoch: int
    tests: Tests


def content(identity: Mapping[str, Any]) -> Content:
    """What an image was made of, from plain data without the fingerprint."""
    with _told("what the image is made of is not told as it should be"):
        unsigned = Content.model_validate({**identity, "fingerprint": "0" * 64})
    return unsigned.model_copy(update={"fingerprint": unsigned.identity().fingerprint})


def build(
    made: Made, *, name: str, version: Version, built: str, disk: tuple[int, str], sbom: tuple[str, str]
) -> Manifest:
    """The manifest of an image.

    Args:
        built: the time, RFC 3339 in UTC.
        disk: size and sha256 of the image's file.
        sbom: the bill of materials, and its sha256.
    """
    own = stem(name, version)
    size, sha256 = disk
    text, text_sha256 = sbom
    with _told(f"the manifest of {own} would not be valid"):
        return Manifest.model_validate(
            {
                "schema_version": 1,
                "name": name,
                "version": str(version),
                "built": built,
                "simulated": inventory.simulated(made.inventory),
                "os": made.inventory.get("os"),
                "kernels": made.inventory.get("kernels"),
                "driver": inventory.driver(made.inventory),
                "cuda": inventory.cuda(made.inventory),
                "frameworks": inventory.frameworks(made.inventory),
                "disk": made.disk,
                "file": {"name": f"{own}.qcow2", "sha256": sha256, "size_bytes": size},
                "sbom": {
                    "file": f"{own}.cdx.json",
                    "sha256": text_sha256,
                    **inventory.packages_of(text),
                },
                "identity": content(made.identity).model_dump(),
                "builder": made.builder,
                "source": made.source,
                "epoch": made.epoch,
                "tests": made.tests.model_dump(),
            }
        )


def render(manifest: Manifest) -> str:
    """The text of its file."""
    return json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"


def read(path: Path) -> Manifest:
    """The manifest in a file."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        raise ImageError(f"there is no {path}", hint=_ANEW) from exc
    except ValueError as exc:
        raise ImageError(f"{path} is corrupted: it holds no JSON", hint=_ANEW) from exc
    with _told(f"{path} is no manifest of an image", _ANEW):
        return Manifest.model_validate(data)


def json_schema() -> dict[str, Any]:
    """The schema of the file."""
    schema = Manifest.model_json_schema()
    for model in (schema, *schema["$defs"].values()):
        # Made up by the library from the names of fields.
        for each in model["properties"].values():
            each.pop("title", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "The manifest of a golden image of gpumesh.fleet",
    }


def read_tests(junit: Path, boots: Path) -> Tests:
    """How an image was proven, from what the gate left: its tests as JUnit, its boots as JSON."""
    hint = "Run the gate of the image, and then this again"
    try:
        # Written by the pytest that we ran.
        root = ElementTree.parse(junit).getroot()  # noqa: S314
        booted = json.loads(boots.read_bytes())
    except FileNotFoundError as exc:
        raise ImageError(f"the gate left no {exc.filename}", hint=hint) from exc
    except (ElementTree.ParseError, ValueError) as exc:
        raise ImageError(f"the gate left results that cannot be read: {junit}, {boots}", hint=hint) from exc
    cases = [_case(each) for each in root.iter("testcase")]
    outcomes = [case["outcome"] for case in cases]
    told = booted.get("boots") if isinstance(booted, dict) else booted
    with _told(f"the gate left results that are not as they should be: {junit}, {boots}", hint):
        return Tests.model_validate(
            {
                **{outcome: outcomes.count(outcome) for outcome in ("passed", "failed", "skipped")},
                "cases": cases,
                "boots": [_boot(each) for each in told] if isinstance(told, list) else told,
            }
        )


def refusals(tests: Tests, firmware: Sequence[str]) -> list[str]:
    """Why an image that was proven like this gets no version.

    Args:
        firmware: what it must have booted with.
    """
    failed = [case.name for case in tests.cases if case.outcome == "failed"]
    unbooted = sorted(set(firmware) - {boot.firmware for boot in tests.boots})
    said = []
    if failed:
        said.append(f"{len(failed)} of its tests failed ({', '.join(failed[:5])})")
    elif not tests.passed:
        said.append("no test of it passed")
    if unbooted:
        said.append(f"it was not booted with {' and '.join(unbooted)}")
    return said


_ANEW = "Fetch this version anew, or remove its folder and build the image again"


def _case(element: ElementTree.Element) -> dict[str, Any]:
    tags = {child.tag for child in element}
    outcome = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
    name = "::".join(filter(None, (element.get("classname"), element.get("name"))))
    return {"name": name, "outcome": outcome, "seconds": element.get("time", "0")}


def _boot(told: Any) -> Any:
    """What the manifest keeps of a boot."""
    return {key: told.get(key) for key in Boot.model_fields} if isinstance(told, dict) else told


@contextmanager
def _told(what: str, hint: str | None = None) -> Iterator[None]:
    """Turn what the library says of data into one sentence."""
    try:
        yield
    except ValidationError as exc:
        said = [
            f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
            if each["loc"]
            else each["msg"].removeprefix("Value error, ")
            for each in exc.errors()
        ]
        more = f"; and {len(said) - 5} more" if len(said) > 5 else ""
        raise ImageError(f"{what}: {'; '.join(said[:5])}{more}", hint=hint) from exc
