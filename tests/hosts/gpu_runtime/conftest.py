# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the GPU runtime share: the machine's GPUs, and an image that has nothing of NVIDIA's in it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.hosts.conftest import Machine

UUID = re.compile(r"GPU-[0-9a-f-]{36}")
# A shell and what it needs, by its names in the machine.
IMAGE = (
    "tar -C / --dereference -c bin/sh lib64/ld-linux-x86-64.so.2 lib/x86_64-linux-gnu/libc.so.6 "
    "| docker import - probe:1"
)


def uuids(text: str) -> set[str]:
    """The GPUs that a text names."""
    return set(UUID.findall(text))


@pytest.fixture(scope="module")
def gpus(machine: Machine) -> list[str]:
    """The UUIDs of the machine's four GPUs, in their order."""
    found = UUID.findall(machine.ssh("nvidia-smi -L").stdout)
    assert len(found) == 4
    return found


@pytest.fixture(scope="module")
def image(machine: Machine) -> Iterator[str]:
    """The image's name."""
    made = machine.ssh(IMAGE)
    assert made.returncode == 0, made.stderr
    yield "probe:1"
    machine.ssh("docker rm --force probe; docker image rm --force probe:1")
