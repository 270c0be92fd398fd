# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in repositories have every package that the resolver names for what they offer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack import resolve
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack_answer import plain
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack_request import (
    Request,
    read_gpus,
    read_wishes,
)

from sandbox.debian import Package
from sandbox.gpu import repositories

KERNEL = "6.8.0-90-generic"


@pytest.mark.parametrize(
    ("made", "distribution", "gpu", "wishes"),
    [
        (repositories.cuda_ubuntu, "ubuntu-24.04", "rtx5090", {"cuda": "13.0", "cudnn": True}),
        (repositories.cuda_ubuntu, "ubuntu-24.04", "v100", {}),
        (repositories.cuda_ubuntu, "ubuntu-24.04", "rtx5090", {"branch": "595"}),
        (repositories.cuda_ubuntu, "ubuntu-24.04", "rtx5090", {"driver": "580.173.02"}),
        (repositories.ubuntu, "ubuntu-24.04", "rtx5090", {"source": "distribution"}),
        (lambda: repositories.cuda_debian("debian12"), "debian-12", "t4", {}),
        (lambda: repositories.cuda_debian("debian12"), "debian-12", "v100", {}),
        (lambda: repositories.cuda_debian("debian13"), "debian-13", "t4", {}),
        (
            lambda: repositories.cuda_debian("debian13"),
            "debian-13",
            "t4",
            {"branch": "590", "eol_allowed": ["590"]},
        ),
    ],
)
def test_they_are_there(
    made: Callable[[], list[Package]], distribution: str, gpu: str, wishes: dict[str, object]
) -> None:
    groups, _strangers = read_gpus(gpu)
    kernels = (KERNEL,) if distribution.startswith("ubuntu") else ()
    request = Request(groups, distribution, date(2026, 11, 27), kernels, wishes=read_wishes(wishes))
    packages = plain(resolve(request))["packages"]
    wanted = {*packages["pin"], *packages["driver"], *packages["cuda"], *packages["cudnn"]}
    there = {package.name for package in made()}
    assert wanted - there == set()
