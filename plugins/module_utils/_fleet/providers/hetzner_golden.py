# SPDX-License-Identifier: GPL-3.0-or-later
"""Which snapshot of a Hetzner Cloud project a golden image is, and whether a server can be made from it.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import errors
from ..images.reference import IMAGE_LABEL, OS_LABEL, GoldenReference, is_golden
from .hetzner_view import Json

if TYPE_CHECKING:
    from .hetzner_api import HetznerApi
    from .hetzner_models import HetznerMachine


class GoldenImages:
    """The golden images of a project, each looked for once. Safe to use from many threads."""

    def __init__(self, api: HetznerApi) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str], Json] = {}

    def check(self, machines: Sequence[HetznerMachine]) -> dict[str, str]:
        """The operating systems of the golden images of machines, by machine; empty where an image does not say.

        Raises:
            NotFound, Conflict, InvalidRequest: an image is not there, or there are several, or the server type is too
                small for it.
        """
        return {
            machine.name: str(
                self.image(machine.golden, machine.type, machine.name)["labels"].get(OS_LABEL, "")
            )
            for machine in machines
            if machine.golden
        }

    def wanted(self, image: str, server_type: str, machine: str) -> str | int:
        """What to give the API as the image of a new server."""
        if not is_golden(image):
            return image
        try:
            reference = GoldenReference.parse(image, latest=True)
        except ValueError as exc:
            raise errors.InvalidRequest(str(exc), machine=machine) from exc
        return int(self.image(reference, server_type, machine)["id"])

    def image(self, reference: GoldenReference, server_type: str, machine: str) -> Json:
        """The snapshot that is this golden image, for a server of that type."""
        with self._lock:
            key = (str(reference), server_type)
            if key not in self._found:
                self._found[key] = self._look(reference, server_type, machine)
            return self._found[key]

    def _look(self, reference: GoldenReference, server_type: str, machine: str) -> Json:
        kind = server_type_named(self._api, server_type, machine)
        found = [
            image
            for image in snapshots(self._api, reference, machine)
            if image["status"] == "available" and image["architecture"] == kind["architecture"]
        ]
        if reference.is_latest and found:
            newest = max(_parts(image) for image in found)
            found = [image for image in found if _parts(image) == newest]
        if not found:
            raise errors.NotFound(
                f"Hetzner Cloud has no snapshot that is {reference} for {kind['architecture']}; {self._there(reference)}",
                machine=machine,
                hint="Publish it with playbooks/image_publish.yml, or name one that is there",
            )
        if len(found) > 1:
            numbers = ", ".join(str(image["id"]) for image in found)
            raise errors.Conflict(
                f"{len(found)} snapshots of Hetzner Cloud claim to be {reference}: {numbers}",
                machine=machine,
                hint="Delete those that are wrong in the Hetzner console, or take their labels off",
            )
        [image] = found
        if image["disk_size"] > kind["disk"]:
            raise errors.InvalidRequest(
                f"the snapshot of {reference} needs a disk of {image['disk_size']} GB, and a {server_type} has {kind['disk']} GB",
                machine=machine,
                hint="Choose a larger server type",
            )
        return image

    def _there(self, reference: GoldenReference) -> str:
        """What there is instead, for the message."""
        others = {
            str(golden)
            for image in self._api.all(
                "/images", "images", "listing snapshots", {"type": "snapshot", "label_selector": IMAGE_LABEL}
            )
            if (golden := GoldenReference.of_labels(image["labels"]))
        }
        near = sorted(text for text in others if text.startswith(f"golden:{reference.name}@")) or sorted(
            others
        )
        return f"there is {', '.join(near[:8])}" if near else "there is no golden image in the project"


def _parts(image: Json) -> tuple[int, ...]:
    golden = GoldenReference.of_labels(image["labels"])
    return golden.parts if golden else ()


def snapshots(
    api: HetznerApi, reference: GoldenReference, machine: str | None = None
) -> list[dict[str, Any]]:
    """Every snapshot with the labels of a golden image, whole or still being made."""
    params = {"type": "snapshot", "label_selector": reference.hetzner_selector}
    doing = f"looking for the snapshot of {reference}"
    with api.reported(doing, machine):
        return [
            image
            for image in api.all("/images", "images", doing, params)
            if image["type"] == "snapshot" and image["labels"].get(IMAGE_LABEL) == reference.name
        ]


def server_type_named(api: HetznerApi, name: str, machine: str | None = None) -> dict[str, Any]:
    """What a server type is."""
    doing = f"looking for the server type {name}"
    answer = api.call("GET", "/server_types", doing, machine=machine, params={"name": name})
    with api.reported(doing, machine):
        found = next((kind for kind in answer["server_types"] if kind["name"] == name), None)
    if found is None:
        raise errors.InvalidRequest(
            f"Hetzner Cloud has no server type {name}",
            machine=machine,
            hint="Look at https://www.hetzner.com/cloud for those there are",
        )
    return dict(found)
