# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a container see every GPU?

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from ..._host.gpu_containers import ContainerError
from ..check import FULL, Check, Context, Group, Need
from ..container_checks import containers, counted, lacking, listed, plural, uuids
from ..verdicts import Result, failed, passed


def run(context: Context) -> Result:
    """Start a container in each way, and look into it."""
    wanted = uuids(context)
    figures, problems = [], []
    with containers(context) as (docker, ways):
        for way in ways:
            seen = 0
            try:
                look = docker.look(docker.start(way))
                seen, problem = len(look.uuids & wanted), lacking(look, wanted, context)
            except ContainerError as trouble:
                problem = str(trouble)
            if problem:
                problems.append(f"with {way.name}: {problem}")
            figures.append(
                counted(f"GPUs with {way.name}", seen, wanted, "nvidia-smi -L on the machine", problem)
            )
    if problems:
        return failed(
            f"a container does not see every GPU; {'; '.join(problems)}",
            "run 'systemctl restart nvidia-cdi-refresh' and the gate of role gpu_runtime (--tags gate), which says what is wrong",
            *figures,
        )
    return passed(
        f"a container of Docker sees and opens {plural(len(wanted))}, with {listed([way.name for way in ways])}",
        *figures,
    )


CHECK = Check(
    name="container_gpus",
    title="GPUs in a container",
    group=Group.CONTAINERS,
    about="A container that has nothing of NVIDIA's in its image sees every GPU by its UUID and can open each, in every way that Docker "
    "offers here.",
    expects="The UUIDs that nvidia-smi lists on the machine itself, MIG devices included.",
    fails="The CDI specification is older than the driver or was made before a card came, or the toolkit's configuration was changed: "
    "'systemctl restart nvidia-cdi-refresh', then the gate of role gpu_runtime.",
    run=run,
    suites=(FULL,),
    needs=(Need.GPU, Need.DRIVER, Need.DOCKER, Need.ROOT),
    seconds=15,
)
