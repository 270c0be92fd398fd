# SPDX-License-Identifier: GPL-3.0-or-later
"""One instance in Compute Engine, for people who want one machine and no fleet file.

It is made by the same provider as a fleet's, as the only machine of a fleet of its own, so it carries our labels, and
nothing that does not carry them is ever touched.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .. import errors
from ..clock import Clock
from ..firstboot import FirstBoot
from ..images.reference import GoldenReference, is_golden
from ..machines import FLEET_LABEL, MACHINE_LABEL, Instance, State
from ..spec import Defaults, FleetSpec, MachineName
from . import gcp_shapes
from .base import Operation
from .gcp import GcpProvider, connect
from .gcp_models import GcpMachine

Seen = dict[str, Any]

_SETTLED = {"started": State.RUNNING, "stopped": State.STOPPED}
_POLL_SECONDS = 2.0
_OURS = "gpumesh-"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the instance should be.

    Attributes:
        name, fleet: of the instance, and of the fleet it is labelled with.
        state: ``present``, ``absent``, ``started`` or ``stopped``.
        zones: where it may be, in order of preference.
        machine: everything else that is asked for, by the names of the fleet file; without ``type`` none can be made.
        labels: all of its labels, save those the collection keeps for itself; None leaves them alone.
        boot: what a new one is told.
        timeout: seconds to wait for each operation.
    """

    name: str
    fleet: str
    state: str
    zones: tuple[str, ...]
    machine: Mapping[str, Any]
    labels: Mapping[str, str] | None
    boot: FirstBoot
    timeout: float = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        before, after: what of the instance can be told beforehand; the same in check mode.
        instance: as it is now; in check mode as it was.
        notes: what the user should know, one sentence each.
    """

    before: Seen
    after: Seen
    instance: Instance | None
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Something was changed, or would be."""
        return self.before != self.after


def seen(instance: Instance | None) -> Seen:
    """Those properties of an instance that this file changes or compares."""
    if instance is None:
        return {"state": "absent"}
    return {
        "state": "stopped" if instance.state in (State.STOPPED, State.STOPPING) else "started",
        "type": instance.type,
        "zone": instance.zone,
        "gpu": f"{instance.gpu_count} x {instance.gpu_model}" if instance.gpu_model else None,
        "labels": dict(instance.labels),
    }


def declared(wish: Wish) -> GcpMachine | None:
    """The wish as a machine of a fleet file, held to the same rules. None if it names no type.

    Raises:
        InvalidRequest: it breaks one; all that are broken are told.
    """
    if not wish.machine.get("type"):
        return None
    given = {key: value for key, value in wish.machine.items() if value is not None}
    zone, *fallbacks = wish.zones
    try:
        return GcpMachine.model_validate(
            {
                **given,
                "name": wish.name,
                "zone": zone,
                "fallback_zones": tuple(fallbacks),
                "labels": dict(wish.labels or {}),
                "enabled": True,
                # The text itself is in `boot`; the model only asks whether the image can run any.
                "user_data": "user_data" if wish.boot.user_data is not None else None,
            }
        )
    except ValidationError as exc:
        raise errors.InvalidRequest(_told(exc), machine=wish.name) from exc


def _told(exc: ValidationError) -> str:
    """What pydantic found, in one sentence."""
    return "; ".join(
        ": ".join(
            filter(None, [".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")])
        )
        for problem in exc.errors(include_input=False, include_url=False)
    )


def predict(wish: Wish, machine: GcpMachine | None, before: Seen) -> Seen:
    """What the instance will be.

    Raises:
        InvalidRequest: that cannot be had by changing it, or not enough is known to make it.
    """
    if wish.state == "absent":
        return {"state": "absent"}
    state = wish.state if wish.state in _SETTLED else "started"
    if before["state"] == "absent":
        if machine is None:
            raise errors.InvalidRequest(
                "the instance does not exist, and type must be given to create it", machine=wish.name
            )
        if not wish.boot.authorized_keys:
            raise errors.InvalidRequest(
                "the instance does not exist, and without ssh_keys nobody could log in to it",
                machine=wish.name,
                hint="Give at least one public key in ssh_keys",
            )
        ours = {FLEET_LABEL: wish.fleet, MACHINE_LABEL: wish.name}
        return {
            **_shape(machine),
            "state": state,
            "zone": wish.zones[0],
            "labels": {
                **(wish.labels or {}),
                **(machine.golden.gcp_labels if machine.golden else {}),
                **ours,
            },
        }
    for field, wanted in (_shape(machine) if machine else {}).items():
        if wanted != before[field]:
            raise errors.InvalidRequest(
                f"its {field} is {before[field] or 'none'}, and {wanted or 'none'} is asked for; this module does not change that",
                machine=wish.name,
                hint="Delete it with state=absent and create it again, or ask for what it is",
            )
    kept = {key: value for key, value in before["labels"].items() if key.startswith(_OURS)}
    labels = before["labels"] if wish.labels is None else {**wish.labels, **kept}
    return {**before, "state": before["state"] if wish.state == "present" else state, "labels": labels}


def _shape(machine: GcpMachine) -> Seen:
    model, count = machine.gpus
    return {"type": machine.type, "gpu": f"{count} x {model}" if model else None}


def open_provider(
    wish: Wish, settings: Mapping[str, Any], clock: Clock, sources: Sequence[str] | None
) -> GcpProvider:
    """The provider of a fleet of one.

    Args:
        settings: ``project``, ``credentials_file``, ``endpoint``.
        sources: networks that may reach its SSH port; None for all.

    Raises:
        InvalidRequest: name, fleet, zones or sources are not what they should be.
    """
    if problem := next(filter(None, map(gcp_shapes.check_zone, wish.zones)), None):
        raise errors.InvalidRequest(problem, machine=wish.name)
    try:
        TypeAdapter(MachineName).validate_python(wish.name)
        spec = FleetSpec(
            fleet=wish.fleet,
            providers={},
            machines={},
            defaults=Defaults() if sources is None else Defaults(ssh_sources=tuple(sources)),
            base_dir="/",
            known_hosts="/",
        )
    except ValidationError as exc:
        raise errors.InvalidRequest(_told(exc), machine=wish.name) from exc
    return connect(spec, settings, clock)


def converge(provider: GcpProvider, wish: Wish, clock: Clock, *, check: bool) -> Outcome:
    """Make the instance what is wished, and wait until it is.

    Args:
        check: find out only what would change.
    """
    work = _Work(provider, wish, clock)
    present = work.look()
    wish = _with_version(provider, wish, present)
    machine = declared(wish)
    if present is None and machine is not None and machine.golden and wish.state != "absent":
        provider.golden([machine])
    before = seen(present)
    after = predict(wish, machine, before)
    notes: tuple[str, ...] = ()
    if check or before == after:
        return Outcome(before, after, present)
    if present is None and machine is not None:
        notes = provider.access([machine]).notes
        work.end(provider.prepare([machine]))
        present = work.create(machine)
        after = {**after, "zone": present.zone}
    elif present is not None and wish.state == "absent":
        work.end(provider.delete(present))
        return Outcome(before, after, None)
    if present is not None and wish.labels is not None and dict(present.labels) != after["labels"]:
        work.end(provider.relabel(present, after["labels"]))
    if present is not None and seen(present)["state"] != after["state"]:
        work.end(provider.start(present) if after["state"] == "started" else provider.stop(present))
    return Outcome(before, after, work.settle(_SETTLED[after["state"]]), notes)


def _with_version(provider: GcpProvider, wish: Wish, present: Instance | None) -> Wish:
    """The wish, with the version that is the newest where its image is ``golden:NAME@latest``."""
    image = str(wish.machine.get("image") or "")
    if not is_golden(image):
        return wish
    try:
        reference = GoldenReference.parse(image, latest=True)
    except ValueError as exc:
        raise errors.InvalidRequest(str(exc), machine=wish.name) from exc
    if not reference.is_latest:
        return wish
    if present is None and wish.state != "absent":
        reference = provider.newest(reference, wish.name)
    else:
        # Of no effect on an instance that exists, whichever it is.
        reference = replace(reference, version="0.0.0")
    return replace(wish, machine={**wish.machine, "image": str(reference)})


class _Work:
    """Requests and the waiting for them."""

    def __init__(self, provider: GcpProvider, wish: Wish, clock: Clock) -> None:
        self._provider = provider
        self._wish = wish
        self._clock = clock

    def look(self) -> Instance | None:
        """The instance, in whichever of the zones it is."""
        found = (self._provider.find_named(self._wish.name, zone) for zone in self._wish.zones)
        return next((instance for instance in found if instance is not None), None)

    def end(self, operation: Operation | None) -> None:
        """Wait until an operation has ended well."""
        if operation is None:
            return
        stop = self._clock.now() + self._wish.timeout
        while True:
            progress = self._provider.poll([operation]).get(operation.id)
            if progress is None or progress.done:
                break
            if self._clock.now() >= stop:
                raise errors.WaitTimeout(
                    f"to {operation.verb} it had not ended after {self._wish.timeout:.0f} s",
                    machine=self._wish.name,
                    hint="Run the same task again: it goes on from there",
                )
            self._clock.sleep(_POLL_SECONDS)
        if progress is not None and progress.error is not None:
            raise progress.error

    def create(self, machine: GcpMachine) -> Instance:
        """Make it in the first zone that has some left; adopt what a request of ours made whose answer was lost."""
        refused: errors.ProviderError | None = None
        for zone in self._wish.zones:
            try:
                self.end(self._provider.create(machine, zone, self._wish.boot))
            except (errors.OutOfStock, errors.QuotaExceeded) as exc:
                refused = exc
                continue
            except (errors.Conflict, errors.Unavailable):
                if self._provider.find_named(machine.name, zone) is None:
                    raise
            return self.settle(State.RUNNING)
        raise refused or errors.InvalidRequest("no zone is named", machine=machine.name)

    def settle(self, state: State) -> Instance:
        """The instance, once it is in that state: a stop that has ended may still be stopping."""
        stop = self._clock.now() + self._wish.timeout
        while True:
            found = self.look()
            if found is not None and found.state is state:
                keys = self._provider.host_keys(found) if state is State.RUNNING else ()
                return replace(found, host_keys=keys)
            if self._clock.now() >= stop:
                last = found.cloud_state if found else "nowhere"
                raise errors.WaitTimeout(
                    f"it was not {state} after {self._wish.timeout:.0f} s, but {last}",
                    machine=self._wish.name,
                    hint="Run the same task again: it goes on from there",
                )
            self._clock.sleep(_POLL_SECONDS)
