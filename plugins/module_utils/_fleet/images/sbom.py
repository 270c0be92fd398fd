# SPDX-License-Identifier: GPL-3.0-or-later
"""The bill of materials of an image: every Debian and every Python package in it, as CycloneDX 1.6 in JSON.

The same content gives the same text, byte for byte: the serial number follows from the fingerprint, the time is the image's epoch.

https://cyclonedx.org/docs/1.6/json/ and, for the addresses of packages, https://github.com/package-url/purl-spec

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from ..errors import FleetError, MissingLibrary

if TYPE_CHECKING:
    from cyclonedx.model.component import Component


def build(inventory: Mapping[str, Any], *, name: str, version: str, fingerprint: str, epoch: int) -> str:
    """The text of the bill.

    Args:
        inventory: what ``inventory.py`` found in the image.
        name: of the image.
        version: of the image.
        fingerprint: of what it was made of.
        epoch: seconds since 1970, the time that it bears.

    Raises:
        MissingLibrary: cyclonedx-python-lib is not installed.
        FleetError: the inventory is not whole.
    """
    try:
        from cyclonedx.model import Property
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as exc:
        raise MissingLibrary(
            "the bill of materials of an image needs the Python package cyclonedx-python-lib",
            hint="Install it for the Python that runs Ansible: pip install 'cyclonedx-python-lib>=9,<12'",
        ) from exc
    try:
        system = inventory["os"]
        components = [*_debian(inventory["packages"], system), *_python(inventory["python"])]
        bill = Bom(
            serial_number=uuid5(NAMESPACE_URL, f"gpumesh-image:{fingerprint}:sbom"), components=components
        )
        bill.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
        bill.metadata.component = Component(
            type=ComponentType.OPERATING_SYSTEM,
            name=name,
            version=version,
            bom_ref=f"{name}-v{version}",
            description=system["pretty"],
            properties=[Property(name="gpumesh:image:fingerprint", value=fingerprint)],
        )
    except (KeyError, TypeError) as exc:
        raise FleetError(
            f"the inventory of the image is not whole: {exc}", hint="Build the image again"
        ) from exc
    bill.register_dependency(bill.metadata.component, components)
    return JsonV1Dot6(bill).output_as_string(indent=2) + "\n"


def _debian(packages: list[dict[str, str]], system: Mapping[str, str]) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    for one in packages:
        qualifiers = {"arch": one["architecture"], "distro": f"{system['id']}-{system['version']}"}
        source, source_version = one.get("source") or one["name"], one.get("source_version") or one["version"]
        if (source, source_version) != (one["name"], one["version"]):
            # What scanners know of vulnerabilities, they know of source packages.
            qualifiers["upstream"] = (
                source if source_version == one["version"] else f"{source}@{source_version}"
            )
        address = PackageURL("deb", system["id"], one["name"], one["version"], qualifiers)
        yield Component(
            type=ComponentType.LIBRARY,
            name=one["name"],
            version=one["version"],
            purl=address,
            bom_ref=address.to_string(),
        )


def _python(packages: list[dict[str, str]]) -> Iterator[Component]:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    for one in packages:
        name = re.sub(r"[-_.]+", "-", one["name"]).lower()
        address = PackageURL("pypi", None, name, one["version"])
        where = one.get("environment") or "system"
        yield Component(
            type=ComponentType.LIBRARY,
            name=one["name"],
            version=one["version"],
            purl=address,
            # The same package may be in several environments, and each is there.
            bom_ref=f"{address.to_string()}#{where}",
            properties=[Property(name="gpumesh:python:environment", value=where)],
        )
