# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a controller keeps its records: one file each under ``controller.d``, or only in memory."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Protocol

from .values import Json, dump


class Store(Protocol):
    """What a controller does with its records."""

    def load(self) -> dict[str, tuple[Json, dict[str, Json]]]:
        """All networks by id, each with its members by id."""

    def put_network(self, network: Json) -> None:
        """Keep a network's record."""

    def put_member(self, network: str, node: str, member: Json) -> None:
        """Keep a member's record."""

    def drop_network(self, network: str) -> None:
        """Forget a network and its members."""

    def drop_member(self, network: str, node: str) -> None:
        """Forget a member."""


class Memory:
    """Keeps nothing."""

    def load(self) -> dict[str, tuple[Json, dict[str, Json]]]:
        return {}

    def put_network(self, network: Json) -> None:
        pass

    def put_member(self, network: str, node: str, member: Json) -> None:
        pass

    def drop_network(self, network: str) -> None:
        pass

    def drop_member(self, network: str, node: str) -> None:
        pass


class Folder:
    """``controller.d`` of a home directory, with the names the daemon uses."""

    def __init__(self, path: Path) -> None:
        self._networks = path / "network"

    def load(self) -> dict[str, tuple[Json, dict[str, Json]]]:
        found: dict[str, tuple[Json, dict[str, Json]]] = {}
        for file in sorted(self._networks.glob("*.json")):
            network = _read(file)
            if network is not None:
                records = (
                    (member.stem.lower(), _read(member)) for member in self._members(file.stem).glob("*.json")
                )
                found[file.stem] = network, {node: record for node, record in records if record is not None}
        return found

    def put_network(self, network: Json) -> None:
        _write(self._networks / f"{network['id']}.json", network)

    def put_member(self, network: str, node: str, member: Json) -> None:
        _write(self._members(network) / f"{node}.json", member)

    def drop_network(self, network: str) -> None:
        (self._networks / f"{network}.json").unlink(missing_ok=True)
        shutil.rmtree(self._networks / network, ignore_errors=True)

    def drop_member(self, network: str, node: str) -> None:
        (self._members(network) / f"{node}.json").unlink(missing_ok=True)

    def _members(self, network: str) -> Path:
        return self._networks / network / "member"


def _read(file: Path) -> Json | None:
    """A record; None for a file that holds none, as one may that was cut off in the writing."""
    try:
        record = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _write(file: Path, record: Json) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = file.with_suffix(".new")
    with os.fdopen(
        os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as stream:
        stream.write(dump(record))
    os.replace(temporary, file)
