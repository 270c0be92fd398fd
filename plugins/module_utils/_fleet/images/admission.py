# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a build: from what it left in its work folder to a version in the store, or a refusal.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import manifest as manifests
from . import sbom, signatures, work
from .store import GATE, KEEP, Admitted, Store, digest
from .versions import ImageError, Version, check_name, stem

DISK = "disk.qcow2"
INVENTORY = "inventory.json"
BOOTS = Path("gate") / "boots.json"


@dataclass(frozen=True)
class Build:
    """A build that has been through its gate.

    Args:
        folder: its work folder, with ``disk.qcow2``, ``inventory.json``, ``gate/junit.xml`` and ``gate/boots.json``.
        identity: what it was made of: ``os``, ``layout``, ``layers``.
        disk: what the manifest says of the disk.
        builder: what the manifest says of the builder.
        source: what the manifest says of the source.
        version: the version it is to have; the one that follows from the content by default.
        signing_key: the key to sign the manifest with.
        allowed_signers: whose signature counts. A version that would not count is not made.
        keep: how many versions to keep.
    """

    name: str
    folder: Path
    identity: Mapping[str, Any]
    disk: Mapping[str, Any]
    builder: Mapping[str, Any]
    source: Mapping[str, Any]
    epoch: int
    version: Version | None = None
    signing_key: Path | None = None
    allowed_signers: Path | None = None
    keep: int = KEEP


def admit(store: Store, build: Build, now: datetime) -> Admitted:
    """Give a build its version, and remove its work folder.

    A build whose content the store has already is thrown away. One that is refused stays where it is, to be looked at.
    """
    made = _read(store, build)
    disk = build.folder / DISK
    told = (disk.stat().st_size, digest(disk))
    built = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    content = manifests.content(build.identity)

    def write(version: Version, folder: Path) -> None:
        own = stem(build.name, version)
        bill = sbom.build(
            made.inventory,
            name=build.name,
            version=str(version),
            fingerprint=content.fingerprint,
            epoch=build.epoch,
        )
        checksum = hashlib.sha256(bill.encode()).hexdigest()
        text = manifests.render(
            manifests.build(
                made, name=build.name, version=version, built=built, disk=told, sbom=(bill, checksum)
            )
        )
        (folder / f"{own}.cdx.json").write_text(bill, encoding="utf-8")
        (folder / manifests.FILE).write_text(text, encoding="utf-8")
        if build.signing_key:
            signature = signatures.sign(text.encode(), build.signing_key)
            (folder / manifests.SIGNATURE).write_bytes(signature)
            if build.allowed_signers:
                signatures.verify(text.encode(), folder / manifests.SIGNATURE, build.allowed_signers)
        (folder / GATE.parent).mkdir()
        shutil.copyfile(build.folder / GATE, folder / GATE)

    admitted = store.add(build.name, content.identity(), disk, write, version=build.version, keep=build.keep)
    # It has its version. What cannot be removed, such as files of a container's root, the next sweep tells.
    with contextlib.suppress(OSError):
        work.discard(build.folder, store.work)
    return admitted


def foresee(store: Store, build: Build) -> Admitted:
    """What ``admit`` would do."""
    _read(store, build)
    wanted = manifests.content(build.identity).identity()
    return store.foresee(build.name, wanted, version=build.version, keep=build.keep)


def _read(store: Store, build: Build) -> manifests.Made:
    """What a build left, if it may have a version."""
    check_name(build.name)
    # It is removed in the end, and nothing else ever may be.
    if build.folder.resolve().parent != store.work.resolve():
        raise ImageError(
            f"{build.folder} is no work folder of the store {store.root}", hint="Open one with state opened"
        )
    if build.allowed_signers and not build.signing_key:
        raise ImageError(
            "signatures count, and there is no key to sign with",
            hint="Give a signing key, or no allowed signers",
        )
    hint = "Build the image again"
    if not (build.folder / DISK).is_file():
        raise ImageError(f"the build left no {build.folder / DISK}", hint=hint)
    try:
        inventory = json.loads((build.folder / INVENTORY).read_bytes())
    except FileNotFoundError as exc:
        raise ImageError(f"the build left no {exc.filename}", hint=hint) from exc
    except ValueError as exc:
        raise ImageError(f"{build.folder / INVENTORY} holds no JSON", hint=hint) from exc
    if not isinstance(inventory, dict):
        raise ImageError(f"{build.folder / INVENTORY} holds no inventory", hint=hint)
    tests = manifests.read_tests(build.folder / GATE, build.folder / BOOTS)
    made = manifests.Made(
        identity=build.identity,
        inventory=inventory,
        disk={"format": "qcow2", "layout": build.identity.get("layout"), **build.disk},
        builder=build.builder,
        source=build.source,
        epoch=build.epoch,
        tests=tests,
    )
    refusals = manifests.refusals(tests, tuple(made.disk.get("firmware") or ()))
    if refusals:
        raise ImageError(
            f"{build.name} gets no version: {'; '.join(refusals)}", hint=f"See {build.folder / GATE.parent}"
        )
    return made
