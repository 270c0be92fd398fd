# SPDX-License-Identifier: GPL-3.0-or-later
"""``/images``: the system images, and the snapshots that are made of servers."""

from __future__ import annotations

from typing import Any

from . import catalog
from .api import Answer, Call, Handler, chosen, page
from .errors import ApiError, invalid, not_found
from .labels import check_labels
from .project import Action, Project, Server, timestamp
from .servers import require_unlocked

_SIZE = 1.5
"""GB that a snapshot is said to take; how much it would, only a real disk could tell."""


async def listing(call: Call) -> Answer:
    everything = [*catalog.IMAGES.values(), *call.project.snapshots.values()]
    found = chosen(call, everything, type="type", status="status", architecture="architecture")
    return page(call, "images", found, dict)


async def get(call: Call) -> Answer:
    return {"image": _find(call)}


def _find(call: Call) -> dict[str, Any]:
    found = call.project.snapshots.get(call.id) or catalog.IMAGES.get(call.id)
    if not found:
        raise not_found("image", call.id)
    return found


def _own(call: Call) -> dict[str, Any]:
    found = _find(call)
    if found["type"] == "system":
        raise ApiError("forbidden", "system images cannot be changed")
    return found


async def update(call: Call) -> Answer:
    image = _own(call)
    labels = check_labels(call.body["labels"]) if call.body.get("labels") is not None else image["labels"]
    if (description := call.text("description")) is not None:
        image["description"] = description
    image["labels"] = labels
    return {"image": image}


async def delete(call: Call) -> Answer:
    image = _own(call)
    if image["protection"]["delete"]:
        raise ApiError("protected", "image deletion is protected")
    # Servers that were made from it go on naming it.
    image["deleted"] = timestamp(call.world.clock.time())
    del call.project.snapshots[image["id"]]
    return 204, None


async def create_image(call: Call) -> Answer:
    """A snapshot of a server's disk; the server is locked meanwhile."""
    project, server = call.project, call.project.server(call.id)
    require_unlocked(server)
    if call.body.get("type", "snapshot") != "snapshot":
        raise invalid("type", "only snapshots are made here")
    labels = check_labels(call.body.get("labels"))
    number = call.world.next_id("hetzner-image", first=300_000_001)
    image = {
        **server.image,
        "id": number,
        "type": "snapshot",
        "status": "creating",
        "name": None,
        "description": call.text("description") or f"snapshot {number}",
        "image_size": None,
        "disk_size": server.disk,
        "created": timestamp(call.world.clock.time()),
        "created_from": {"id": server.id, "name": server.name},
        "rapid_deploy": False,
        "deleted": None,
        "labels": labels,
        "architecture": server.type.architecture,
    }
    project.snapshots[number] = image
    action = project.action("create_image", ("server", server.id), ("image", number))
    server.locked = True
    call.world.spawn(_take(project, server, action, image))
    return 201, {"image": image, "action": project.show_actions([action])[0]}


async def _take(project: Project, server: Server, action: Action, image: dict[str, Any]) -> None:
    world, subject = project.world, server.subject("create_image")
    failure = world.faults.take("failed_operation", service="hetzner", subject=subject)

    async def work() -> None:
        """The back end keeps a machine's disk as long as the machine; a snapshot is a record."""

    if await project.carry_out(action, world.operation_seconds("hetzner", subject), failure, work):
        image["status"], image["image_size"] = "available", _SIZE
    else:
        project.snapshots.pop(image["id"], None)
    server.locked = False


STARTERS: dict[str, Handler] = {"create_image": create_image}
