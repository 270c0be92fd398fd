# SPDX-License-Identifier: GPL-3.0-or-later
"""``instances.set...``: labels, metadata, tags, machine type, GPUs, scheduling, protection.

Where the API has a fingerprint it is held against the current one when the request comes and again when the operation's
turn comes, so that of two clients that read the same state only one succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import catalog, rules
from .call import Call, Handler
from .errors import Json, OperationError, bad_request, condition_not_met, required
from .instances import one, simulated
from .operations import begin, condition_failed, gone
from .store import Instance, fingerprint, gpu_of

_STALE_LABELS = "Labels fingerprint either invalid or resource labels have changed"
_STALE = "Supplied fingerprint does not match current {} fingerprint."


def _change(
    call: Call,
    kind: str,
    instance: Instance,
    apply: Callable[[], None],
    *,
    current: Callable[[], str] = lambda: "",
    given: str = "",
    stale: str = "",
) -> Json:
    """Start an operation that changes an instance, if the fingerprint given is (still) the current one."""
    if given != current():
        raise condition_not_met(stale)

    async def work(seconds: float) -> OperationError | None:
        await call.world.clock.sleep(seconds)
        if instance.leaving:
            return gone(instance)
        if given != current():
            return condition_failed(stale)
        apply()
        return None

    return begin(call, kind, instance.resource, instance.subject(kind), work, instance=instance)


async def set_labels(call: Call) -> Json:
    """``instances.setLabels``."""
    instance, labels = one(call), dict(call.body.get("labels") or {})
    rules.check_labels(labels)

    def apply() -> None:
        instance.resource |= {"labels": labels, "labelFingerprint": fingerprint([labels, call.body])}
        if not labels:
            del instance.resource["labels"]

    return _change(
        call, "setLabels", instance, apply, stale=_STALE_LABELS,
        current=lambda: str(instance.resource["labelFingerprint"]), given=call.body.get("labelFingerprint") or "",
    )  # fmt: skip


async def set_metadata(call: Call) -> Json:
    """``instances.setMetadata``. A running machine of the sandbox does not see the change; the real agent would."""
    return _set_items(call, "metadata", "setMetadata", rules.check_metadata)


async def set_tags(call: Call) -> Json:
    """``instances.setTags``."""
    return _set_items(call, "tags", "setTags", lambda body: rules.check_tags(body.get("items", ())))


def _set_items(call: Call, member: str, kind: str, check: Callable[[Json], Any]) -> Json:
    instance, items = one(call), list(call.body.get("items") or ())
    check(call.body)

    def apply() -> None:
        old: Json = instance.resource[member]
        instance.resource[member] = {
            **{key: value for key, value in old.items() if key != "items"},
            "fingerprint": fingerprint([items, old["fingerprint"]]),
            **({"items": items} if items else {}),
        }

    return _change(
        call, kind, instance, apply, stale=_STALE.format(member),
        current=lambda: str(instance.resource[member]["fingerprint"]), given=call.body.get("fingerprint") or "",
    )  # fmt: skip


def _stopped(instance: Instance) -> None:
    if instance.leaving or instance.status != "TERMINATED":
        raise bad_request(
            f"Instance is in {instance.status} state. It must be stopped (TERMINATED) for this operation."
        )


def _reshape(call: Call, kind: str, shape: catalog.Shape, given: list[Json]) -> Json:
    """Change machine type or GPUs of a stopped instance."""
    instance = one(call)
    gpus = rules.accelerators(call.project, instance.zone, shape, given)
    rules.scheduling(instance.resource["scheduling"], gpus=bool(gpus))
    gpu, count = gpu_of(gpus)
    spot = instance.resource["scheduling"]["provisioningModel"] == "SPOT"
    address = "IN_USE_ADDRESSES" in instance.used

    def apply() -> None:
        call.project.count(instance, -1)
        instance.used = catalog.usage(shape, gpu, count, spot=spot, address=address)
        for member in ("guestAccelerators", "statusMessage"):
            instance.resource.pop(member, None)
        instance.resource["machineType"] = call.project.link(
            f"zones/{instance.zone}/machineTypes/{shape.name}"
        )
        if gpus:
            instance.resource |= {"guestAccelerators": gpus, "statusMessage": simulated(gpus)}
        call.project.count(instance, 1)

    return _change(call, kind, instance, apply)


async def set_machine_type(call: Call) -> Json:
    """``instances.setMachineType``."""
    instance = one(call)
    if not call.body.get("machineType"):
        raise required("resource.machineType")
    shape = rules.machine_type(call.project, instance.zone, call.body["machineType"])
    _stopped(instance)
    old = catalog.shape(instance.resource["machineType"].rpartition("/")[2], instance.zone)
    built_in = bool(old and old.gpu)
    return _reshape(
        call, "setMachineType", shape, [] if built_in else instance.resource.get("guestAccelerators", [])
    )


async def set_machine_resources(call: Call) -> Json:
    """``instances.setMachineResources``: the GPUs of an n1 instance."""
    instance = one(call)
    _stopped(instance)
    shape = rules.machine_type(call.project, instance.zone, instance.resource["machineType"])
    return _reshape(call, "setMachineResources", shape, call.body.get("guestAccelerators") or [])


async def set_scheduling(call: Call) -> Json:
    """``instances.setScheduling``."""
    instance = one(call)
    has_gpus = bool(instance.resource.get("guestAccelerators"))
    old = instance.resource["scheduling"]
    model = {"provisioningModel": old["provisioningModel"], "preemptible": old["preemptible"]}
    if call.body.get("provisioningModel", model["provisioningModel"]) != model["provisioningModel"]:
        _stopped(instance)
    schedule = rules.scheduling(model | call.body, gpus=has_gpus)
    return _change(call, "setScheduling", instance, lambda: instance.resource.update(scheduling=schedule))


async def set_deletion_protection(call: Call) -> Json:
    """``instances.setDeletionProtection``; without the parameter it is switched on."""
    instance = one(call)
    wanted = call.query.get("deletionProtection", "true") == "true"
    return _change(
        call, "setDeletionProtection", instance, lambda: instance.resource.update(deletionProtection=wanted)
    )


HANDLERS: dict[str, Handler] = {
    "instances.setLabels": set_labels,
    "instances.setMetadata": set_metadata,
    "instances.setTags": set_tags,
    "instances.setMachineType": set_machine_type,
    "instances.setMachineResources": set_machine_resources,
    "instances.setScheduling": set_scheduling,
    "instances.setDeletionProtection": set_deletion_protection,
}
