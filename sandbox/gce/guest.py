# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image's guest agent does with the metadata, and what it tells: host keys, by way of guest attributes."""

from __future__ import annotations

import json
import re
from datetime import datetime

from ..backends.base import Machine
from . import catalog
from .call import Call, Handler
from .errors import ApiError, Json
from .store import Instance, gpu_of

_TRUE = frozenset({"true", "y", "yes", "1"})
_GOOGLE_SSH = "google-ssh "


def metadata_of(resource: Json) -> dict[str, str]:
    """The metadata as a mapping."""
    return {item["key"]: item.get("value") or "" for item in resource.get("metadata", {}).get("items", ())}


def is_true(value: str | None) -> bool:
    """Whether a metadata value switches something on."""
    return (value or "").strip().lower() in _TRUE


def machine(instance: Instance, now: float) -> Machine:
    """What the back end makes of an instance.

    User data is for cloud-init, which of the public images here only Ubuntu's has, and every image of a project's own.
    SSH keys of the metadata become accounts with sudo, unless OS Login is on, which switches the agent's own account
    keeping off.
    """
    metadata = metadata_of(instance.resource)
    keys = {} if is_true(metadata.get("enable-oslogin")) else ssh_users(metadata.get("ssh-keys", ""), now)
    gpu, count = gpu_of(instance.resource.get("guestAccelerators", []))
    return Machine(
        key=instance.key,
        hostname=instance.name,
        image=instance.image.machine,
        user_data=metadata.get("user-data", "") if instance.image.cloud_init else "",
        startup_script=metadata.get("startup-script", ""),
        ssh_users=keys,
        guest_agent=instance.image.guest_agent,
        gpu_model=gpu,
        gpu_count=count,
    )


def ssh_users(text: str, now: float) -> dict[str, tuple[str, ...]]:
    """The accounts of an ``ssh-keys`` value, lines of ``user:key``; lines that are no such thing are passed over.

    Args:
        now: time by which a key ``google-ssh {"expireOn": ...}`` may have expired.
    """
    users: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        user, _, key = line.strip().partition(":")
        if not re.fullmatch(r"[a-z_][a-z0-9_.-]{0,31}", user) or len(key.split()) < 2 or _expired(key, now):
            continue
        users[user] = (*users.get(user, ()), key)
    return users


def _expired(key: str, now: float) -> bool:
    _, found, rest = key.partition(_GOOGLE_SSH)
    if not found:
        return False
    try:
        return datetime.fromisoformat(json.loads(rest)["expireOn"]).timestamp() < now
    except (ValueError, KeyError, TypeError):
        return True


async def get_guest_attributes(call: Call) -> Json:
    """``instances.getGuestAttributes``: what the agent has published, which is nothing until it has started.

    Nothing published and nothing allowed look the same: the attribute was not found.
    """
    instance = call.project.instance(call.path["zone"], call.path["instance"])
    if (
        is_true(metadata_of(instance.resource).get("enable-guest-attributes"))
        and instance.status == "RUNNING"
    ):
        for kind, body in await call.world.backend.host_keys(instance.key):
            instance.guest_attributes["hostkeys", kind] = body
    key = call.query.get("variableKey", "")
    asked = key or call.query.get("queryPath", "")
    namespace, _, name = asked.partition("/")
    found = [
        {"namespace": space, "key": attribute, "value": value}
        for (space, attribute), value in sorted(instance.guest_attributes.items())
        if namespace in ("", space) and name in ("", attribute)
    ]
    if not found:
        raise ApiError(404, "notFound", f"The resource '{asked}' of type 'Guest Attribute' was not found.")
    answer: Json = {
        "kind": "compute#guestAttributes",
        "selfLink": f"{instance.resource['selfLink']}/guestAttributes/{asked}",
    }
    if key:
        return answer | {"variableKey": key, "variableValue": found[0]["value"]}
    return answer | {"queryPath": asked, "queryValue": {"items": found}}


async def get_serial_port_output(call: Call) -> Json:
    """``instances.getSerialPortOutput``: the sandbox's own notes on the instance; port 1 has them all."""
    instance = call.project.instance(call.path["zone"], call.path["instance"])
    text = "".join(f"{line}\r\n" for line in instance.log) if call.query.get("port", "1") == "1" else ""
    start = max(0, min(int(call.query.get("start", 0)), len(text)))
    return {
        "kind": "compute#serialPortOutput",
        "selfLink": f"{instance.resource['selfLink']}/serialPort",
        "contents": text[start:],
        "start": str(start),
        "next": str(len(text)),
    }


def note(instance: Instance, text: str) -> None:
    """Write a line to the instance's serial port."""
    instance.log.append(f"[{catalog.SIMULATED} serial port] {instance.name}: {text}")


HANDLERS: dict[str, Handler] = {
    "instances.getGuestAttributes": get_guest_attributes,
    "instances.getSerialPortOutput": get_serial_port_output,
}
