# SPDX-License-Identifier: GPL-3.0-or-later
"""The golden images that a fleet's machines on Compute Engine are to be made from. Only reads.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import errors
from ..images.reference import IMAGE_LABEL, OS_LABEL, GoldenReference
from .gcp_models import IMAGES, GcpMachine

if TYPE_CHECKING:
    from .gcp_api import Compute

_FIELDS = "name,status,labels,diskSizeGb,architecture,deprecated/state"
_REFUSED = frozenset({"OBSOLETE", "DELETED"})


def find(api: Compute, machines: Sequence[GcpMachine]) -> dict[str, str]:
    """Look for the images of these machines, each once.

    Returns:
        By machine, the operating system of its image, as a fleet file names it; empty where the image does not say.

    Raises:
        NotFound: one is not in the project.
        Conflict: one is not ready, or is somebody else's.
        InvalidRequest: a machine cannot be made from its image.
    """
    images: dict[GoldenReference, Mapping[str, Any]] = {}
    found: dict[str, str] = {}
    for machine in machines:
        reference = machine.golden
        if reference is None:
            continue
        if reference not in images:
            images[reference] = _image(api, reference, machine.name)
        found[machine.name] = _fitting(images[reference], reference, machine)
    return found


def newest(api: Compute, reference: GoldenReference, machine: str) -> GoldenReference:
    """The newest version of an image that is not deprecated: the one its family stands for.

    Raises:
        NotFound: there is none.
    """
    family = f"global/images/family/{reference.gcp_family}"
    try:
        image = api.get(family, f"looking for the newest {reference.name}", fields=_FIELDS)
    except errors.NotFound as exc:
        raise errors.NotFound(
            f"there is no version of the image {reference.name} in the project {api.project} that is not deprecated",
            machine=machine,
            hint=f"Publish one: ansible-playbook playbooks/image_publish.yml -e golden_image_name={reference.name}",
            code=exc.code,
        ) from exc
    found = GoldenReference.of_labels(image.get("labels") or {})
    if found is None or found.name != reference.name:
        raise errors.Conflict(
            f"the image {image.get('name')} is the newest of the family {reference.gcp_family}, and no golden image",
            machine=machine,
            hint="Take it out of that family, or name a version",
        )
    return found


def advice(reference: GoldenReference) -> str:
    """What to do where an image is not in the project."""
    return (
        "Publish it: ansible-playbook playbooks/image_publish.yml "
        f"-e golden_image_name={reference.name} -e golden_image_version={reference.version}"
    )


def _image(api: Compute, reference: GoldenReference, machine: str) -> Mapping[str, Any]:
    try:
        return api.get(
            f"global/images/{reference.gcp_name}", f"looking for the image {reference}", fields=_FIELDS
        )
    except errors.NotFound as exc:
        raise errors.NotFound(
            f"the image {reference} is not in the project {api.project}, where it would be called {reference.gcp_name}",
            machine=machine,
            hint=advice(reference),
            code=exc.code,
        ) from exc


def _fitting(image: Mapping[str, Any], reference: GoldenReference, machine: GcpMachine) -> str:
    """The image's operating system, if a machine can be made from it."""
    labels = image.get("labels") or {}
    name = f"the image {reference}"
    if labels.get(IMAGE_LABEL) != reference.name:
        raise errors.Conflict(
            f"the image {reference.gcp_name} of the project is not {reference}: its labels do not say so",
            machine=machine.name,
            hint="Rename or remove that one, then publish yours",
        )
    state = (image.get("deprecated") or {}).get("state")
    if image.get("status") != "READY" or state in _REFUSED:
        raise errors.Conflict(
            f"{name} cannot be used: it is {state if state in _REFUSED else image.get('status')}",
            machine=machine.name,
            hint="Wait until it is READY, or publish it again",
        )
    if machine.disk_gb < int(image.get("diskSizeGb") or 0):
        raise errors.InvalidRequest(
            f"{name} has a disk of {image['diskSizeGb']} GB, and the machine one of {machine.disk_gb} GB",
            machine=machine.name,
            hint=f"Set disk_gb to {image['diskSizeGb']} or more",
        )
    if image.get("architecture", "X86_64") != ("ARM64" if machine.is_arm else "X86_64"):
        raise errors.InvalidRequest(
            f"{name} is for {image['architecture']}, and {machine.type} is not",
            machine=machine.name,
            hint="Take another machine type, or an image for its architecture",
        )
    written = str(labels.get(OS_LABEL) or "")
    # A label has no dots.
    return next((system for system in IMAGES if system.replace(".", "-") == written), written)
