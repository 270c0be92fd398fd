# SPDX-License-Identifier: GPL-3.0-or-later
"""Files SSH host keys that were learnt over a verified connection, in the fleet's known_hosts and where the cloud vouches.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from . import known_hosts, live, spec_file
from .clock import Clock
from .errors import FleetError, InvalidRequest
from .live import Live
from .machines import Instance, State
from .providers.base import Kind
from .provision import Request
from .spec import FleetSpec


def record_host_keys(
    request: Request,
    kinds: Mapping[str, Kind],
    environ: Mapping[str, str],
    clock: Clock,
    *,
    host_keys: Mapping[str, str],
    announce: bool,
    write: bool = True,
) -> tuple[bool, dict[str, FleetError]]:
    """File these host keys, each for itself.

    Announced, a key is good besides the present one. Otherwise it is the only one from now on. Both may be repeated,
    so a run that was killed between the two is healed by the next.

    Args:
        host_keys: by machine.
        write: False only tells whether it would change something.

    Returns:
        Whether that changes anything; and by machine, why its key was not filed.

    Raises:
        SpecError: the fleet file cannot be used.
    """
    spec = spec_file.load(request.fleet_file, kinds, environ)
    needed = {spec.machines[name].provider for name in host_keys if name in spec.machines}
    some = {name: kind for name, kind in kinds.items() if name in needed}
    seen = live.look(spec, some, clock, overrides=request.credentials)
    change = _KeyChange(spec, seen, request.known_hosts or spec.known_hosts, announce=announce, write=write)
    for name in sorted(host_keys):
        change.admit(name, host_keys[name])
    # Both are trusted here before the cloud says so, and the old one is dropped there before it is dropped here: whenever
    # a run ends, this file and the labels know every key the machine may show.
    if announce:
        change.file()
    change.publish(kinds)
    if not announce:
        change.file()
    return change.changed, change.failures


class _KeyChange:
    """One step for many machines. A machine that fails is left out of what follows."""

    def __init__(self, spec: FleetSpec, seen: Live, path: str, *, announce: bool, write: bool) -> None:
        self._spec = spec
        self._seen = seen
        self._path = path
        self._announce = announce
        self._write = write
        self._todo: dict[str, tuple[Instance, str]] = {}
        self.changed = False
        self.failures: dict[str, FleetError] = {}

    def admit(self, name: str, key: str) -> None:
        """Take a machine in, once it is clear that it exists and that this is a key."""
        try:
            instance = self._instance(name)
            known_hosts.merge("", self._spec.fleet, {name: (instance.provider, (key,))})
        except FleetError as error:
            self._fail(name, error)
        except ValueError as error:
            self._fail(name, InvalidRequest(str(error), hint="Give keys as `ssh-ed25519 AAAA...`"))
        else:
            self._todo[name] = (instance, key)

    def _instance(self, name: str) -> Instance:
        declared = self._spec.machines.get(name)
        if declared and (error := self._seen.sick.get(declared.provider)):
            raise error
        return _one(name, self._seen.instances)

    def file(self) -> None:
        """Bring the known_hosts file to it."""
        if not self._todo:
            return
        try:
            self.changed |= known_hosts.update(self._path, self._merged, write=self._write)
        except FleetError as error:
            for name in list(self._todo):
                self._fail(name, error)

    def _merged(self, text: str) -> str:
        entries = {}
        for name, (instance, key) in self._todo.items():
            alias = known_hosts.alias(self._spec.fleet, name, instance.id)
            on_file = known_hosts.filed(text, self._spec.fleet, alias)
            before = (*instance.host_keys, *on_file) if self._announce else ()
            entries[alias] = (instance.provider, (*before, key))
        return known_hosts.merge(text, self._spec.fleet, entries)

    def publish(self, kinds: Mapping[str, Kind]) -> None:
        """Bring the clouds to it that vouch for the keys they are given."""
        for name, (instance, key) in list(self._todo.items()):
            if not kinds[instance.provider].plants_host_key:
                continue
            try:
                self.changed |= self._publish(instance, key)
            except FleetError as error:
                self._fail(name, error)

    def _publish(self, instance: Instance, key: str) -> bool:
        provider = self._seen.providers[instance.provider]
        vouched = provider.host_keys(instance)
        if key in vouched if self._announce else vouched == (key,) and not instance.host_keys_planted:
            return False
        if self._write:
            provider.publish_host_key(instance, key, pending=self._announce)
        return True

    def _fail(self, name: str, error: FleetError) -> None:
        self._todo.pop(name, None)
        # A copy, because one error may be the end of many machines, and each says its own name.
        mine = copy.copy(error)
        mine.machine = name
        self.failures[name] = mine


def _one(name: str, instances: Sequence[Instance]) -> Instance:
    found = [i for i in instances if i.machine == name and i.state is not State.DELETING]
    if len(found) != 1:
        raise InvalidRequest(
            f"{len(found)} instances are this machine, so no host key can be recorded",
            machine=name,
            hint="Provision it first" if not found else "Remove the ones that are wrong",
        )
    return found[0]
