# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a running container keep its GPUs when systemd reads its files again?

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from ..._host.gpu_containers import ContainerError
from ..check import FULL, CannotLook, Check, Context, Group, Need
from ..container_checks import containers, counted, lacking, listed, plural, uuids
from ..verdicts import Result, failed, passed

SECONDS = 60.0


def run(context: Context) -> Result:
    """Start a container in each way, have systemd read its files again, and look into them once more."""
    wanted = uuids(context)
    figures, problems = [], []
    with containers(context) as (docker, ways):
        if others := docker.in_danger():
            raise CannotLook(
                f"{listed(others)} {'has' if len(others) == 1 else 'have'} GPUs now and could lose them to the daemon-reload that this "
                "check makes",
                "run it when no other container uses a GPU",
            )
        running = {}
        for way in ways:
            try:
                name = docker.start(way)
                before = lacking(docker.look(name), wanted, context)
            except ContainerError as trouble:
                before = str(trouble)
            if before:
                raise CannotLook(
                    f"with {way.name} a container does not have every GPU to begin with: {before}",
                    "see the check container_gpus",
                )
            running[way.name] = name
        ran = context.run(["systemctl", "daemon-reload"], SECONDS)
        if ran.status:
            raise CannotLook(
                f"systemd did not read its files again: {ran.says}",
                "run it on a machine with systemd, as root",
            )
        for way_name, name in running.items():
            look = docker.look(name)
            after = lacking(look, wanted, context)
            if after:
                problems.append(f"with {way_name}: {after}")
            figures.append(
                counted(
                    f"GPUs with {way_name}, after",
                    0 if look.problem else len(look.uuids & wanted),
                    wanted,
                    "the same container before",
                    after,
                )
            )
    if problems:
        return failed(
            f"a running container has lost its GPUs to 'systemctl daemon-reload'; {'; '.join(problems)}",
            "use CDI (--device nvidia.com/gpu=all), and see that the toolkit's runtime mode is auto or cdi: "
            "'nvidia-ctk config --in-place --set nvidia-container-runtime.mode=auto'",
            *figures,
        )
    return passed(
        f"a running container keeps {plural(len(wanted))} over a daemon-reload, with {listed(list(running))}",
        *figures,
    )


CHECK = Check(
    name="container_reload",
    title="GPUs in a container after a daemon-reload",
    group=Group.CONTAINERS,
    about="A running container still opens every GPU after 'systemctl daemon-reload', which every installation of a package may cause.",
    expects="The same GPUs as before, in every way that Docker offers here.",
    fails="The devices are not a part of the container's own configuration (legacy mode of the toolkit), so systemd takes them away: "
    "use CDI, or the runtime modes auto or cdi.",
    run=run,
    suites=(FULL,),
    needs=(Need.GPU, Need.DRIVER, Need.DOCKER, Need.ROOT),
    seconds=20,
)
