# SPDX-License-Identifier: GPL-3.0-or-later
"""Can several containers use the same GPUs at the same time?

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json

from ..._host.gpu_containers import ContainerError, Containers, Route
from ..check import FULL, Check, Context, Group, Need
from ..container_checks import containers, counted, lacking, plural, uuids
from ..verdicts import Figure, Result, Verdict, failed, passed, unknown

MANY = 3
IMAGES = ("pytorch/pytorch", "nvcr.io/nvidia/pytorch", "vllm/vllm-openai", "nvcr.io/nvidia/vllm")
"""Images that are known to hold PyTorch. None is ever fetched."""
COMPUTE_S = 600.0

# Whole numbers, so that every precision gives them exactly; for some seconds, so that the containers meet.
COMPUTE = """
import json, time, torch
torch.manual_seed(3)
wrong, rounds, until = 0, 0, time.time() + 10
while time.time() < until:
    for index in range(torch.cuda.device_count()):
        a, b = (torch.randint(-8, 9, (512, 512)).float() for _ in "ab")
        found = (a.cuda(index) @ b.cuda(index)).cpu()
        wrong += int((found != (a.double() @ b.double()).float()).sum())
        rounds += 1
print(json.dumps({"gpus": torch.cuda.device_count(), "rounds": rounds, "wrong": wrong}))
"""


def run(context: Context) -> Result:
    """Start several at once, look into each, and compute in each where an image with a framework is here."""
    wanted = uuids(context)
    with containers(context) as (docker, ways):
        way = ways[-1]
        names, figures, problems = [], [], []
        try:
            names = [docker.start(way) for _one in range(MANY)]
        except ContainerError as trouble:
            return failed(
                f"{len(names)} of {MANY} containers start at the same time: {trouble}",
                "see the checks container_gpus and compute_mode",
            )
        for number, name in enumerate(names, 1):
            look = docker.look(name)
            problem = lacking(look, wanted, context)
            if problem:
                problems.append(f"container {number}: {problem}")
            figures.append(
                counted(
                    f"GPUs in container {number}",
                    0 if look.problem else len(look.uuids & wanted),
                    wanted,
                    "nvidia-smi -L on the machine",
                    problem,
                )
            )
        if problems:
            return failed(
                f"containers do not share the GPUs; {'; '.join(problems)}",
                "see the check container_gpus",
                *figures,
            )
        if not docker.running(names):
            return unknown(
                "a container ended while the others were looked into, so they were not there at the same time",
                "see 'journalctl -u docker'",
                *figures,
            )
        shared = f"{MANY} containers at the same time see and open {plural(len(wanted))}, with {way.name}"
        image = next((one for one in docker.local_images() if _has_pytorch(one)), "")
        if not image:
            return passed(
                f"{shared}; nothing was computed in them, because no image with PyTorch is here ({', '.join(IMAGES[:2])})",
                *figures,
            )
        return compute(docker, way, image, shared, wanted, figures)


def _has_pytorch(image: str) -> bool:
    return any(image.rpartition(":")[0] == known for known in IMAGES)


def compute(
    docker: Containers, way: Route, image: str, shared: str, wanted: frozenset[str], figures: list[Figure]
) -> Result:
    """Multiply in several containers of an image at the same time."""
    problems = []
    # A program sees a single MIG device, however many there are.
    least = 1 if any(uuid.startswith("MIG-") for uuid in wanted) else len(wanted)
    try:
        names = [docker.start(way, image, ("python3", "-c", COMPUTE)) for _one in range(MANY)]
    except ContainerError as trouble:
        return failed(f"{shared}, but {trouble}", "see the checks container_gpus and compute_mode", *figures)
    for number, name in enumerate(names, 1):
        status, last = docker.ended(name, COMPUTE_S)
        told = _read(last)
        good = status == 0 and told is not None and told["wrong"] == 0 and told["gpus"] >= least
        figures.append(
            Figure(
                f"wrong elements in container {number}",
                told["wrong"] if told else None,
                expected="0",
                source="the same product on the CPU",
                verdict=Verdict.PASS if good else Verdict.FAIL,
                better="lower",
            )
        )
        if not good:
            says = (
                last
                if told is None
                else f"{told['wrong']} elements are wrong, and {told['gpus']} of {least} GPUs were seen"
            )
            problems.append(f"container {number}: {says}")
    if problems:
        return failed(
            f"{shared}, but they do not compute right in {image}; {'; '.join(problems)}",
            "see the checks kernels and compute_mode, and whether the image has kernels for these GPUs",
            *figures,
        )
    return passed(
        f"{shared}, and {MANY} containers of {image} compute right on them at the same time", *figures
    )


def _read(line: str) -> dict[str, int] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    keys = ("gpus", "rounds", "wrong")
    if not isinstance(told, dict) or not all(isinstance(told.get(key), int) for key in keys):
        return None
    return {key: told[key] for key in keys}


CHECK = Check(
    name="container_sharing",
    title="Several containers on the same GPUs",
    group=Group.CONTAINERS,
    about="Three containers at the same time see and open every GPU; where an image with PyTorch is on the machine, three containers of it "
    "compute at the same time.",
    expects="All of them see every GPU, and every product is right. Without such an image only the first is proved, and the check says so.",
    fails="The compute mode lets a single program in (see compute_mode), or the way into the container is broken (see container_gpus).",
    run=run,
    suites=(FULL,),
    needs=(Need.GPU, Need.DRIVER, Need.DOCKER, Need.ROOT),
    seconds=30,
)
