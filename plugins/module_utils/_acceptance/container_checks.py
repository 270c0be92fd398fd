# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks of containers share: the GPUs of the machine, the ways into a container, and how a container's view is judged.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .._host.gpu_containers import UUID, ContainerError, Containers, Look, Route, routes
from .check import CannotLook, Context
from .verdicts import Figure, Verdict

NO_ROUTE = (
    "Docker knows neither the runtime nvidia nor a CDI specification of GPUs, so no container can have one",
    "install the NVIDIA Container Toolkit with role gpu_runtime",
)


@contextmanager
def containers(context: Context) -> Iterator[tuple[Containers, list[Route]]]:
    """Docker, and the ways in which it gives GPUs to a container.

    Raises:
        CannotLook: it offers none.
    """
    with Containers(context.run, context.folder) as docker:
        try:
            found = routes(docker.info())
        except ContainerError as problem:
            raise CannotLook(str(problem), "see 'journalctl -u docker'") from problem
        if not found:
            raise CannotLook(*NO_ROUTE)
        yield docker, found


def uuids(context: Context) -> frozenset[str]:
    """Those that the driver lists on the machine itself, of MIG devices as well.

    Raises:
        CannotLook: it lists none.
    """
    # With a lost card it fails, and lists the others.
    ran = context.run([context.profile.nvidia_smi, "-L"], 60)
    found = frozenset(UUID.findall(ran.out))
    if not found:
        raise CannotLook(
            f"the driver lists no GPU: {ran.says}", "mend the driver first; see the check driver_versions"
        )
    return found


def counted(name: str, seen: int, wanted: frozenset[str], source: str, problem: str) -> Figure:
    """How many of the GPUs a container sees; `problem` as `lacking` tells it."""
    verdict = Verdict.FAIL if problem else Verdict.PASS
    return Figure(name, seen, expected=str(len(wanted)), source=source, verdict=verdict)


def lacking(look: Look, wanted: frozenset[str], context: Context) -> str:
    """What a container does not see or may not open, in words; empty: it has every GPU."""
    if look.uuids == wanted:
        return look.problem
    numbers = {str(device.get("uuid")): device.get("index") for device in context.facts.get("devices") or []}
    lost = sorted(wanted - look.uuids)
    names = ", ".join(f"GPU {numbers[uuid]}" if numbers.get(uuid) is not None else uuid for uuid in lost)
    says_seen = f"it sees {len(look.uuids & wanted)} of {len(wanted)}"
    strange = len(look.uuids - wanted)
    parts = [
        says_seen,
        f"without {names}" if lost else "",
        f"and {strange} that the machine does not have" if strange else "",
    ]
    says = " ".join(part for part in parts if part)
    return f"{says}: {look.problem}" if look.problem else says


def plural(count: int) -> str:
    """So many GPUs."""
    return "the GPU" if count == 1 else f"all {count} GPUs"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
