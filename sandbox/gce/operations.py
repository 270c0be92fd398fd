# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations: work that goes on after the request is answered, PENDING, RUNNING, DONE."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from ..backends.base import BackendError
from ..faults import Subject
from ..world import World
from .call import Call, Handler, aggregated, listed
from .errors import Json, OperationError, not_found
from .store import Instance, Operation, new_id, timestamp

Work = Callable[[float], Awaitable[OperationError | None]]
"""Does the work within these seconds, and says why if it could not."""

WAIT_SECONDS = 120.0
"""How long ``wait`` waits at most."""
_PENDING_SHARE = 0.1


def begin(
    call: Call,
    kind: str,
    target: Json,
    subject: Subject,
    work: Work,
    *,
    undo: Callable[[], Awaitable[None]] | None = None,
    instance: Instance | None = None,
    doomed: OperationError | None = None,
) -> Json:
    """Start an operation and answer it as it stands.

    Args:
        kind: its ``operationType``, such as ``insert``.
        target: the resource it is about.
        undo: puts things back after a failure that ``work`` has not seen.
        instance: the operation waits for others on the same instance.
        doomed: why it will fail, when that is known beforehand.
    """
    world, project = call.world, call.project
    now = timestamp(world)
    zone = call.path.get("zone", "")
    scope = f"zones/{zone}" if zone else "global"
    name = f"operation-{int(world.clock.time() * 1000)}-{secrets.token_hex(7)[:13]}-{secrets.token_hex(4)}-{secrets.token_hex(4)}"
    resource: Json = {
        "kind": "compute#operation",
        "id": new_id(world),
        "name": name,
        "operationType": kind,
        "targetLink": target["selfLink"],
        "targetId": target["id"],
        "status": "PENDING",
        "user": call.user,
        "progress": 0,
        "insertTime": now,
        "selfLink": project.link(f"{scope}/operations/{name}"),
    }
    if zone:
        resource["zone"] = project.link(scope)
    if request_id := call.query.get("requestId"):
        resource["clientOperationId"] = request_id
    operation = Operation(resource, subject)
    project.operations[scope, name] = operation
    if request_id:
        project.requests[call.method.verb, call.url_path, request_id] = operation
    if doomed is None and (rule := world.faults.take("failed_operation", service="gce", subject=subject)):
        doomed = OperationError(
            rule.code or "INTERNAL_ERROR",
            rule.message or "Internal error. Please try again or contact Google Support.",
            503,
        )
    seconds = world.operation_seconds("gce", subject)
    world.spawn(_run(world, operation, seconds, work, undo, instance, doomed))
    return resource


async def _run(
    world: World,
    operation: Operation,
    seconds: float,
    work: Work,
    undo: Callable[[], Awaitable[None]] | None,
    instance: Instance | None,
    doomed: OperationError | None,
) -> None:
    try:
        await world.clock.sleep(seconds * _PENDING_SHARE)
        async with instance.lock if instance else asyncio.Lock():
            operation.resource |= {"status": "RUNNING", "startTime": timestamp(world)}
            error = doomed
            if doomed:
                await world.clock.sleep(seconds * (1 - _PENDING_SHARE))
            else:
                try:
                    error = await work(seconds * (1 - _PENDING_SHARE))
                except BackendError as failure:
                    error = OperationError("INTERNAL_ERROR", str(failure), 503)
            if error and undo:
                await undo()
    except Exception:
        # A mistake of ours must not leave a client waiting; the log has the rest.
        finish(world, operation, OperationError("INTERNAL_ERROR", "The sandbox itself has failed.", 503))
        raise
    finish(world, operation, error)


def finish(world: World, operation: Operation, error: OperationError | None) -> None:
    """End an operation."""
    now = timestamp(world)
    operation.resource |= {"status": "DONE", "progress": 100, "endTime": now}
    operation.resource.setdefault("startTime", now)
    if error:
        operation.resource |= error.members()
    operation.done.set()


def condition_failed(message: str) -> OperationError:
    """A fingerprint that was good when the request came, and is not any more."""
    return OperationError("CONDITION_NOT_MET", message, 412)


def gone(instance: Instance) -> OperationError:
    """It was deleted before its turn came."""
    path = instance.resource["selfLink"].partition("/compute/v1/")[2]
    return OperationError("RESOURCE_NOT_FOUND", f"The resource '{path}' was not found", 404)


def _scope(call: Call) -> str:
    if "zone" in call.path:
        return f"zones/{call.path['zone']}"
    return f"regions/{call.path['region']}" if "region" in call.path else "global"


def _find(call: Call) -> Operation:
    name = call.path["operation"]
    scope = _scope(call)
    found = call.project.operations.get((scope, name))
    if not found and name.isdigit():
        found = next((one for one in call.project.operations.values() if one.resource["id"] == name), None)
    if not found:
        raise not_found(f"projects/{call.project.name}/{scope}/operations/{name}")
    return found


async def get(call: Call) -> Json:
    """``{zone,region,global}Operations.get``."""
    return _find(call).resource


async def wait(call: Call) -> Json:
    """Like get, but first waits for the end, for two minutes at most."""
    operation = _find(call)
    if not operation.done.is_set():
        waits = {
            asyncio.ensure_future(operation.done.wait()),
            asyncio.ensure_future(call.world.clock.sleep(WAIT_SECONDS)),
        }
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
    return operation.resource


async def list_operations(call: Call) -> Json:
    """Those of one scope."""
    scope = _scope(call)
    return listed(
        call, "compute#operationList", "Operation", f"{scope}/operations",
        (one.resource for (where, _), one in call.project.operations.items() if where == scope),
    )  # fmt: skip


async def list_all(call: Call) -> Json:
    """``globalOperations.aggregatedList``."""
    entries = ((where, one.resource) for (where, _), one in call.project.operations.items())
    return aggregated(
        call, "compute#operationAggregatedList", "Operation", "operations", entries, extra=("global",)
    )


HANDLERS: dict[str, Handler] = {
    "globalOperations.aggregatedList": list_all,
    **{f"{kind}Operations.get": get for kind in ("zone", "region", "global")},
    **{f"{kind}Operations.wait": wait for kind in ("zone", "region", "global")},
    **{f"{kind}Operations.list": list_operations for kind in ("zone", "region", "global")},
}
