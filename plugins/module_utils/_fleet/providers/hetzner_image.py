# SPDX-License-Identifier: GPL-3.0-or-later
"""A golden image as a snapshot in Hetzner Cloud: what there is, what is wished, and what that takes.

Hetzner Cloud takes no uploads, so a snapshot is made of a temporary server; see :mod:`hetzner_image_build`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import errors
from ..images.reference import OS_LABEL, GoldenReference
from .hetzner import read_tariff
from .hetzner_image_build import CONTENT_LABEL, Json, Wish, Workshop
from .hetzner_models import check_labels
from .raw_source import RawSource

if TYPE_CHECKING:
    from ..clock import Clock
    from .hetzner_api import HetznerApi

_OURS = "gpumesh-"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        before, after: what can be told beforehand; the same in check mode.
        image: the snapshot as it is now; None where there is none.
        costs: of the temporary server and of the snapshot.
        server: name of the temporary server, where it was kept.
        notes: what the user should know, one sentence each.
    """

    before: Json
    after: Json
    image: Json | None
    costs: Json
    server: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Something was changed, or would be."""
        return self.before != self.after


def to_image(snapshot: Mapping[str, Any]) -> Json:
    """A snapshot in our words."""
    golden = GoldenReference.of_labels(snapshot["labels"])
    return {
        "id": str(snapshot["id"]),
        "image": str(golden) if golden else None,
        "description": snapshot["description"],
        "status": snapshot["status"],
        "os": snapshot["labels"].get(OS_LABEL),
        "size_gb": snapshot["image_size"],
        "disk_gb": snapshot["disk_size"],
        "architecture": snapshot["architecture"],
        "created": snapshot["created"],
        "labels": dict(snapshot["labels"]),
    }


def converge(api: HetznerApi, clock: Clock, wish: Wish, folder: Path, *, check: bool) -> Outcome:
    """Make the snapshot what is wished.

    Args:
        folder: for files that are needed meanwhile, a private key among them; only we may look into it.
        check: find out only what would change.
    """
    return _Image(api, clock, wish, folder).converge(check=check)


class _Image:
    def __init__(self, api: HetznerApi, clock: Clock, wish: Wish, folder: Path) -> None:
        self._api = api
        self._clock = clock
        self._wish = wish
        self._workshop = Workshop(api, clock, wish, folder)
        self._source: RawSource | None = None
        try:
            check_labels(dict(wish.labels or {}) | ({OS_LABEL: wish.os} if wish.os else {}))
        except ValueError as exc:
            raise errors.InvalidRequest(str(exc)) from exc
        for key in wish.labels or ():
            if key.startswith(_OURS):
                raise errors.InvalidRequest(
                    f"the label {key} begins with {_OURS}, which is kept for our own labels",
                    hint="Choose another name",
                )

    def converge(self, *, check: bool) -> Outcome:
        wish = self._wish
        snapshot = self._workshop.snapshot()
        server, keys = self._workshop.leftovers()
        before = self._seen(snapshot, server, keys)
        after = self._predict(snapshot, before)
        if not check and before != after:
            if wish.state == "absent":
                self._workshop.clear(server, keys)
                if snapshot:
                    self._workshop.delete(snapshot)
                snapshot = None
            else:
                snapshot = self._make(snapshot, server, keys)
        return Outcome(
            before,
            after,
            to_image(snapshot) if snapshot else None,
            self._costs(snapshot),
            wish.server_name if after["temporary"] else None,
            self._workshop.forgotten(),
        )

    def _seen(self, snapshot: Json | None, server: Json | None, keys: list[Json]) -> Json:
        temporary = [self._wish.server_name] if server else []
        temporary += [f"SSH key {key['name']}" for key in keys]
        if snapshot is None:
            return {"state": "absent", "temporary": temporary}
        # One that is being made was begun after its disk was read back, so it will be whole, and need only be waited for.
        state = {"available": "present", "unavailable": "failed"}.get(snapshot["status"], "being made")
        return {"state": state, "labels": dict(snapshot["labels"]), "temporary": temporary}

    def _predict(self, snapshot: Json | None, before: Json) -> Json:
        wish = self._wish
        kept = [name for name in before["temporary"] if wish.keep_server and name == wish.server_name]
        if wish.state == "absent":
            return {"state": "absent", "temporary": []}
        if snapshot is None:
            labels = {**(wish.labels or {}), **self._workshop.labels(self._content())}
            return {
                "state": "present",
                "labels": labels,
                "temporary": [wish.server_name] if wish.keep_server else [],
            }
        there = snapshot["labels"].get(CONTENT_LABEL)
        if (wish.content or wish.source) and there != (content := self._content()):
            raise errors.Conflict(
                f"Hetzner Cloud has {wish.reference} already with another content: {there or 'an unknown one'}, not {content}",
                hint="Publish it under a new version, or delete the snapshot first with state: absent",
            )
        ours = {key: value for key, value in snapshot["labels"].items() if key.startswith(_OURS)}
        ours |= {OS_LABEL: wish.os} if wish.os else {}
        labels = {**(snapshot["labels"] if wish.labels is None else wish.labels), **ours}
        return {"state": "present", "labels": labels, "temporary": kept}

    def _content(self) -> str:
        return (self._wish.content or self._raw().measured.sha256)[:40]

    def _raw(self) -> RawSource:
        if self._wish.source is None:
            raise errors.InvalidRequest(
                f"Hetzner Cloud has no snapshot of {self._wish.reference} yet, and there is no source to make it from",
                hint="Give source: a raw disk image packed by zstd, xz or gzip",
            )
        self._source = self._source or RawSource(self._wish.source)
        return self._source

    def _make(self, snapshot: Json | None, server: Json | None, keys: list[Json]) -> Json:
        wish = self._wish
        if server:
            self._workshop.hands_off(server)
        if snapshot is None:
            snapshot = self._workshop.build(server, keys, self._raw(), self._content())
        elif snapshot["status"] != "available":
            snapshot = self._workshop.available(snapshot["id"])
        wanted = self._predict(snapshot, self._seen(snapshot, None, []))["labels"]
        if snapshot["labels"] != wanted:
            snapshot = self._workshop.relabel(snapshot, wanted)
        server, keys = self._workshop.leftovers()
        if server and wish.keep_server:
            self._workshop.used(server)
        self._workshop.clear(None if wish.keep_server else server, keys)
        return snapshot

    def _costs(self, snapshot: Json | None) -> Json:
        """What the temporary server has cost or would, and what the snapshot costs each month."""
        wish, tariff = self._wish, read_tariff(self._api, self._clock)
        price = tariff.price(wish.server_type, wish.location)
        hours = (
            math.ceil((self._clock.now() - self._workshop.begun) / 3600)
            if self._workshop.begun is not None
            else 0
        )
        size = snapshot["image_size"] if snapshot else None
        monthly = None
        if tariff.snapshot is not None and size is not None:
            monthly = str(round(tariff.snapshot * round(size * 1000) / 1000, 4))
        return {
            "currency": tariff.currency,
            "source": tariff.source,
            "server_type": wish.server_type,
            "server_hourly": None if price.hourly is None else str(price.hourly),
            "server_hours": hours,
            "snapshot_gb_month": None if tariff.snapshot is None else str(tariff.snapshot),
            "snapshot_gb": size,
            "snapshot_monthly": monthly,
        }
