# SPDX-License-Identifier: GPL-3.0-or-later
"""One server in Hetzner Cloud, for people who want one machine and no fleet file.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import errors
from ..machines import Instance, State
from .hetzner import SHUTDOWN_GRACE, instance_of, read_tariff
from .hetzner_golden import GoldenImages
from .hetzner_models import check_labels

if TYPE_CHECKING:
    from ..clock import Clock
    from .hetzner_api import HetznerApi

Seen = dict[str, Any]

_RUNNING = {"started": True, "stopped": False}
_FIXED = ("type", "location")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the server should be. ``None`` leaves alone what is there.

    Attributes:
        state: ``present``, ``absent``, ``started`` or ``stopped``.
        labels: all of its labels, save those the collection keeps for itself (``gpumesh-...``).
        public_keys: for its first boot, as ``ssh-ed25519 AAAA...``.
        user_data: for its first boot.
        timeout: seconds to wait for each operation.
    """

    name: str
    state: str = "present"
    type: str | None = None
    location: str | None = None
    image: str | None = None
    labels: Mapping[str, str] | None = None
    public_keys: tuple[str, ...] = ()
    user_data: str | None = None
    ipv4: bool = True
    timeout: float = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        before, after: what of the server can be told beforehand; the same in check mode.
        server: as it is now; in check mode as it was.
    """

    before: Seen
    after: Seen
    server: Instance | None

    @property
    def changed(self) -> bool:
        """Something was changed, or would be."""
        return self.before != self.after


def seen(instance: Instance | None) -> Seen:
    """Those properties of a server that this file changes or compares."""
    if instance is None:
        return {"state": "absent"}
    return {
        "state": "stopped" if instance.state in (State.STOPPED, State.STOPPING) else "started",
        "type": instance.type,
        "location": instance.zone,
        "image": instance.image,
        "labels": dict(instance.labels),
    }


def predict(wish: Wish, before: Seen) -> Seen:
    """What the server will be.

    Raises:
        InvalidRequest: that cannot be had by changing it.
    """
    if wish.state == "absent":
        return {"state": "absent"}
    if wish.labels is not None:
        try:
            check_labels(dict(wish.labels))
        except ValueError as exc:
            raise errors.InvalidRequest(str(exc), machine=wish.name) from exc
    state = wish.state if wish.state in _RUNNING else "started"
    if before["state"] == "absent":
        missing = [field for field in ("type", "location", "image") if not getattr(wish, field)]
        if missing:
            raise errors.InvalidRequest(
                f"the server does not exist, and {', '.join(missing)} must be given to create it",
                machine=wish.name,
            )
        if not wish.public_keys:
            raise errors.InvalidRequest(
                "the server does not exist, and without ssh_keys Hetzner would send a root password by mail",
                machine=wish.name,
                hint="Give at least one public key in ssh_keys",
            )
        return {
            "state": state,
            "type": wish.type,
            "location": wish.location,
            "image": wish.image,
            "labels": dict(wish.labels or {}),
        }
    for field in _FIXED:
        wanted = getattr(wish, field)
        if wanted and wanted != before[field]:
            raise errors.InvalidRequest(
                f"its {field} is {before[field]}, and {wanted} is asked for; this module does not change that",
                machine=wish.name,
                hint="Delete it with state=absent and create it again, or ask for what it is",
            )
    kept = {key: value for key, value in before["labels"].items() if key.startswith("gpumesh-")}
    labels = before["labels"] if wish.labels is None else {**wish.labels, **kept}
    return {**before, "state": before["state"] if wish.state == "present" else state, "labels": labels}


def converge(api: HetznerApi, clock: Clock, wish: Wish, *, check: bool) -> Outcome:
    """Make the server what is wished, and wait until it is.

    Args:
        check: find out only what would change.
    """
    tariff = read_tariff(api, clock)

    def look() -> Instance | None:
        server = api.server_named(wish.name)
        return instance_of(server, tariff) if server else None

    present = look()
    if present is not None and present.state is State.DELETING:
        present = None if check else _when_gone(look, present, clock, wish)
    before = seen(present)
    after = predict(wish, before)
    if check or before == after:
        return Outcome(before, after, present)
    if after["state"] == "absent":
        if present is not None:
            api.wait([api.delete_server(present.id, wish.name)], "the delete", wish.name, clock, wish.timeout)
        return Outcome(before, after, None)
    if present is None:
        _create(api, clock, wish)
    else:
        if before["labels"] != after["labels"]:
            api.set_labels(present.id, after["labels"], wish.name)
        if before["state"] != after["state"] == "started":
            api.wait([api.act(present.id, "poweron", wish.name)], "the start", wish.name, clock, wish.timeout)
        elif before["state"] != after["state"]:
            _stop(api, clock, wish, present.id)
    return Outcome(before, after, look())


def _when_gone(
    look: Callable[[], Instance | None], leaving: Instance, clock: Clock, wish: Wish
) -> Instance | None:
    """What has that name once the server that is being deleted is gone."""
    end = clock.now() + wish.timeout
    while (found := look()) is not None and found.id == leaving.id:
        if clock.now() >= end:
            raise errors.WaitTimeout(
                f"it was being deleted already, and still was after {wish.timeout:.0f} s",
                machine=wish.name,
                hint="Run the same task again later",
            )
        clock.sleep(1.0)
    return found


def _create(api: HetznerApi, clock: Clock, wish: Wish) -> None:
    body = {
        "name": wish.name,
        "server_type": wish.type,
        "image": GoldenImages(api).wanted(wish.image or "", wish.type or "", wish.name),
        "location": wish.location,
        "ssh_keys": api.ssh_keys(wish.public_keys),
        "labels": dict(wish.labels or {}),
        "public_net": {"enable_ipv4": wish.ipv4, "enable_ipv6": True},
        "start_after_create": wish.state != "stopped",
    }
    if wish.user_data is not None:
        body["user_data"] = wish.user_data
    _dummy, actions = api.create_server(body, wish.name)
    api.wait(actions, "the create", wish.name, clock, wish.timeout)


def _stop(api: HetznerApi, clock: Clock, wish: Wish, server_id: str) -> None:
    """Ask the guest to shut down; switch the server off if it has not after a while."""
    api.wait([api.act(server_id, "shutdown", wish.name)], "the shutdown", wish.name, clock, wish.timeout)
    end = clock.now() + min(SHUTDOWN_GRACE, wish.timeout)
    while clock.now() < end:
        server = api.server_named(wish.name)
        if server is None or server["status"] == "off":
            return
        clock.sleep(1.0)
    api.wait([api.act(server_id, "poweroff", wish.name)], "the power-off", wish.name, clock, wish.timeout)
