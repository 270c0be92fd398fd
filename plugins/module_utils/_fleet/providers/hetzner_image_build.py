# SPDX-License-Identifier: GPL-3.0-or-later
"""The temporary server that becomes a snapshot: made, started into its rescue system, written, taken, removed.

Whoever runs this may be killed at any moment and run again: the server and the SSH key say by their labels what they
are for and who is at it, a finished disk is marked as such, and a snapshot that is being made is waited for.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import errors
from ..firstboot import FirstBoot, new_host_key
from ..images.reference import OS_LABEL, GoldenReference
from . import rescue
from .hetzner_golden import server_type_named, snapshots
from .hetzner_holder import Holder
from .raw_source import RawSource

if TYPE_CHECKING:
    from ..clock import Clock
    from .hetzner_api import HetznerApi

Json = dict[str, Any]

CONTENT_LABEL = "gpumesh-image-content"
"""The label that says what is in a snapshot, or is to be: the first 40 digits of a checksum."""

BUILD_LABEL = "gpumesh-image-build"
"""The label of what is only there while an image is being published, with the image's name and version."""

STEP_LABEL = "gpumesh-image-step"
"""The label of the server: ``written`` once it is off with the whole image on its disk, which was read back."""

_SYSTEM = "debian-13"
_USER = "gpumesh"
_PAUSE = 2.0
_DELETE_IT = "Delete that snapshot in the Hetzner console, then run the same task again"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    Attributes:
        state: ``present`` or ``absent``.
        source: of the disk image, raw and packed; needed where there is no snapshot yet.
        content: a checksum in hexadecimal that stands for the content; None takes the disk image's own.
        labels: further ones of the snapshot; None leaves alone what is there.
        os: what the image holds, ``debian-13``.
        location, server_type: of the temporary server.
        keep_server: do not delete it.
        timeout: seconds to wait for each operation and each start.
        transfer_timeout: seconds for writing the image, and again for reading it back.
    """

    reference: GoldenReference
    state: str = "present"
    source: Path | None = None
    content: str | None = None
    labels: Mapping[str, str] | None = None
    os: str | None = None
    location: str = "fsn1"
    server_type: str = "cx23"
    keep_server: bool = False
    timeout: float = 600.0
    transfer_timeout: float = 7200.0

    @property
    def build(self) -> str:
        """What the labels of temporary things say."""
        return self.reference.stem

    @property
    def server_name(self) -> str:
        """The name of the temporary server."""
        name = f"gpumesh-{self.reference.gcp_name}"
        return name if len(name) <= 63 else f"gpumesh-{hashlib.sha256(name.encode()).hexdigest()[:24]}"


class Workshop:
    """Everything that is done in the cloud to publish one image.

    Args:
        folder: for files that are needed meanwhile, a private key among them; only we may look into it.

    Attributes:
        begun: when work with a temporary server began; None where none was needed.
    """

    def __init__(self, api: HetznerApi, clock: Clock, wish: Wish, folder: Path) -> None:
        self._api = api
        self._clock = clock
        self._wish = wish
        self._folder = folder
        self._holder = Holder.me()
        self.begun: float | None = None

    def snapshot(self) -> Json | None:
        """The snapshot, whole or still being made.

        Raises:
            Conflict: there are several.
        """
        found = snapshots(self._api, self._wish.reference)
        if len(found) > 1:
            numbers = ", ".join(str(image["id"]) for image in found)
            raise errors.Conflict(
                f"{len(found)} snapshots of Hetzner Cloud claim to be {self._wish.reference}: {numbers}",
                hint="Delete those that are wrong in the Hetzner console, or take their labels off",
            )
        return found[0] if found else None

    def leftovers(self) -> tuple[Json | None, list[Json]]:
        """The temporary server and the SSH keys of an earlier run, or of another one that is at it now."""
        name = self._wish.server_name
        server = self._api.server_named(name)
        if server and server["labels"].get(BUILD_LABEL) != self._wish.build:
            raise errors.Conflict(
                f"Hetzner Cloud has a server {name} already, which is not for publishing {self._wish.reference}",
                hint="Rename it, for the temporary server needs that name",
            )
        return server, self._api.ssh_keys_of(f"{BUILD_LABEL}=={self._wish.build}")

    def build(self, server: Json | None, keys: list[Json], source: RawSource, content: str) -> Json:
        """The snapshot, made from a disk image.

        Args:
            server, keys: left by an earlier run.
            content: for the label.
        """
        self._check_type(source)
        self.begun = self._clock.now()
        if server and self._is_written(server, content):
            labels = {**server["labels"], **self._claim()}
            server = self._api.set_labels(str(server["id"]), labels, self._wish.server_name)
            return self._take(server, content)
        self.clear(server, keys)
        try:
            made = self._write(content, source)
        except BaseException as error:
            # What cannot go on costs money for nothing; the next run would begin with a new one anyway.
            if not self._wish.keep_server and not self._tidy() and isinstance(error, errors.FleetError):
                error.hint = (
                    f"{error.hint or 'Run the same task again'}; the temporary server {self._wish.server_name} could not be "
                    "deleted and may still cost, so delete it in the Hetzner console or with state: absent if you give up"
                )
            raise
        return self._take(made, content)

    def _claim(self) -> dict[str, str]:
        """Labels that keep other runs off the server for as long as this one may take."""
        wish = self._wish
        return self._holder.labels(
            self._clock.utc().timestamp() + 12 * wish.timeout + 2 * wish.transfer_timeout
        )

    def used(self, server: Json) -> None:
        """Note that the disk of a server that is kept may be changed from now on, so that no run takes it for the image."""
        labels = {key: value for key, value in server["labels"].items() if key != STEP_LABEL}
        if labels != server["labels"]:
            self._api.set_labels(str(server["id"]), labels, self._wish.server_name)

    def forgotten(self) -> tuple[str, ...]:
        """What to say of temporary servers for other images that nobody is at any more, one sentence each."""
        now, ours = self._clock.utc(), self._wish.build
        return tuple(
            f"The temporary server {server['name']} was left by a run that published {build}, and costs until it is deleted: "
            "publish that version again, or delete the server in the Hetzner console"
            for server in self._api.servers(BUILD_LABEL)
            if (build := server["labels"].get(BUILD_LABEL, "")) != ours
            and not self._holder.keeps_us_off(server["labels"], now)
        )

    def _check_type(self, source: RawSource) -> None:
        """Whether the image fits on a server of that type, before one is bought."""
        wish = self._wish
        kind, raw = server_type_named(self._api, wish.server_type), source.measured
        if kind["architecture"] != "x86":
            raise errors.InvalidRequest(
                f"{wish.server_type} has processors of the architecture {kind['architecture']}, and golden images are for x86",
                hint="Choose another server_type, such as cx23",
            )
        if raw.size > kind["disk"] * 10**9:
            raise errors.InvalidRequest(
                f"the image needs a disk of {math.ceil(raw.size / 10**9)} GB, and a {wish.server_type} has {kind['disk']} GB",
                hint="Choose a larger server_type",
            )

    def _is_written(self, server: Json, content: str) -> bool:
        self.hands_off(server)
        # One that runs was started since, and has changed its disk.
        labels, off = server["labels"], server["status"] == "off"
        return off and (labels.get(STEP_LABEL), labels.get(CONTENT_LABEL)) == ("written", content)

    def hands_off(self, server: Json) -> None:
        """Leave the server to another run that is at it.

        Raises:
            Conflict: there is one.
        """
        if until := self._holder.keeps_us_off(server["labels"], self._clock.utc()):
            raise errors.Conflict(
                f"another run is publishing {self._wish.reference} by way of the server {server['name']}",
                hint=f"Wait for it; if it was cut off, its server is free from {until} on, or delete the server now",
            )

    def _write(self, content: str, source: RawSource) -> Json:
        """A server whose disk is the image."""
        wish, name = self._wish, self._wish.server_name
        planted, us = new_host_key(), rescue.new_identity(self._folder)
        [key] = self._api.ssh_keys([us.public], {BUILD_LABEL: wish.build})
        boot = FirstBoot(_USER, (us.public,), planted)
        labels = {BUILD_LABEL: wish.build, CONTENT_LABEL: content, **self._claim()}
        body = {
            "name": name,
            "server_type": wish.server_type,
            "image": _SYSTEM,
            "location": wish.location,
            "ssh_keys": [key],
            "user_data": boot.cloud_config(),
            "labels": labels,
            "public_net": {"enable_ipv4": True, "enable_ipv6": True},
            "start_after_create": True,
        }
        server = self._create(body)
        address, number = server["public_net"]["ipv4"]["ip"], str(server["id"])
        system = rescue.Remote(self._folder, name, address, _USER, planted.public, us)
        # What is not on the disk yet is gone with the reset.
        words = ["sh", "-c", "cloud-init status --wait >/dev/null; sudo -n sync"]
        system.wait(self._clock, "reaching the temporary server", words, wish.timeout)
        self._wait([self._rescue(number, key)], "preparing its rescue system")
        self._wait([self._api.act(number, "reset", name)], "its restart into the rescue system")
        shown = rescue.await_rescue(self._clock, name, address, planted.public, wish.timeout)
        there = rescue.Remote(self._folder, name, address, "root", shown, us)
        there.wait(self._clock, "reaching the rescue system", ["true"], wish.timeout)
        programs = rescue.prove(there, name, planted.public, self._folder)
        rescue.write(there, name, source, programs, wish.transfer_timeout)
        # Its next start would be from that disk, and change it.
        self._wait([self._api.act(number, "poweroff", name)], "switching the temporary server off")
        self._reaches(number, "off")
        return self._api.set_labels(number, {**labels, STEP_LABEL: "written"}, name)

    def _create(self, body: Json) -> Json:
        """Ask for the server; where no answer comes, look whether it is there."""
        name = body["name"]
        try:
            server, actions = self._api.create_server(body, name)
        except (errors.Unavailable, errors.Conflict):
            found = self._api.server_named(name)
            if found is None or found["labels"] != body["labels"]:
                raise
            server, actions = found, []
        self._wait(actions, "creating the temporary server")
        return self._reaches(str(server["id"]), "running")

    def _rescue(self, number: str, key: int) -> int:
        return self._api.act(
            number, "enable_rescue", self._wish.server_name, {"type": "linux64", "ssh_keys": [key]}
        )

    def _take(self, server: Json, content: str) -> Json:
        """The snapshot of a server whose disk is the image."""
        try:
            return self._taken(server, content)
        except errors.FleetError as error:
            first = _DELETE_IT if error.hint == _DELETE_IT else "Run the same task again"
            error.hint = (
                f"{first}, which goes on with the server {server['name']} whose disk is finished, or with "
                "state: absent to delete it; it costs until then"
            )
            raise

    def _taken(self, server: Json, content: str) -> Json:
        wish, number, name = self._wish, str(server["id"]), self._wish.server_name
        # Another try of ours may have begun it and got no answer.
        snapshot = self.snapshot()
        if snapshot is None:
            labels = {**(wish.labels or {}), **self.labels(content)}
            body = {"type": "snapshot", "description": str(wish.reference), "labels": labels}
            doing = "taking the snapshot"
            answer = self._api.call(
                "POST", f"/servers/{number}/actions/create_image", doing, machine=name, json=body
            )
            with self._api.reported(doing, name):
                snapshot, action = answer["image"], answer["action"]["id"]
            self._wait([action], doing)
        return self.available(snapshot["id"])

    def _wait(self, actions: list[int], doing: str) -> None:
        if actions:
            self._api.wait(actions, doing, self._wish.server_name, self._clock, self._wish.timeout)

    def _reaches(self, number: str, status: str) -> Json:
        name, end = self._wish.server_name, self._clock.now() + self._wish.timeout
        while True:
            server = self._api.server_named(name)
            if server and str(server["id"]) == number and server["status"] == status:
                return server
            if self._clock.now() >= end:
                seen = server["status"] if server else "gone"
                raise errors.WaitTimeout(
                    f"it was not {status} after {self._wish.timeout:.0f} s, but {seen}",
                    machine=name,
                    hint="Run the same task again",
                )
            self._clock.sleep(_PAUSE)

    def available(self, number: int) -> Json:
        """The snapshot, once it is finished."""
        end = self._clock.now() + self._wish.timeout
        while True:
            answer = self._api.call("GET", f"/images/{number}", "reading the snapshot")
            with self._api.reported("reading the snapshot"):
                image: Json = dict(answer["image"])
                status = image["status"]
            if status == "available":
                return image
            if status == "unavailable":
                raise errors.OperationFailed(
                    f"the snapshot {number} of {self._wish.reference} has failed at Hetzner", hint=_DELETE_IT
                )
            if self._clock.now() >= end:
                raise errors.WaitTimeout(
                    f"the snapshot of {self._wish.reference} was not finished after {self._wish.timeout:.0f} s",
                    hint="Run the same task again, which goes on waiting",
                )
            self._clock.sleep(_PAUSE)

    def relabel(self, snapshot: Json, labels: Mapping[str, str]) -> Json:
        """Give the snapshot exactly these labels."""
        doing = "labelling the snapshot"
        answer = self._api.call("PUT", f"/images/{snapshot['id']}", doing, json={"labels": dict(labels)})
        with self._api.reported(doing):
            return dict(answer["image"])

    def delete(self, snapshot: Json) -> None:
        """Delete the snapshot."""
        try:
            self._api.call("DELETE", f"/images/{snapshot['id']}", "deleting the snapshot")
        except errors.NotFound:
            return

    def clear(self, server: Json | None, keys: list[Json]) -> None:
        """Remove temporary things, and wait until the server is gone."""
        if server:
            self.hands_off(server)
            try:
                action = self._api.delete_server(str(server["id"]), self._wish.server_name)
                self._wait([action], "deleting the temporary server")
            except errors.NotFound:
                pass
        for key in keys:
            self._api.delete_ssh_key(key["id"])

    def _tidy(self) -> bool:
        """Remove temporary things after a failure, which is the one to be told; whether they are gone."""
        try:
            self.clear(*self.leftovers())
        except errors.FleetError:
            return False
        return True

    def labels(self, content: str) -> dict[str, str]:
        """Our own labels of the snapshot."""
        labels = {**self._wish.reference.hetzner_labels, CONTENT_LABEL: content}
        return labels | ({OS_LABEL: self._wish.os} if self._wish.os else {})
