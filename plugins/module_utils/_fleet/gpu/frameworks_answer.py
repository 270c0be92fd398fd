# SPDX-License-Identifier: GPL-3.0-or-later
"""The environments for a machine: from its GPUs, its driver and the wishes, with what cannot be had and why.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import frameworks, frameworks_cpu, stack, stack_frameworks, stack_request
from .stack_request import FRAMEWORKS, Request, WishError, Wishes

CUDA = "cuda"


@dataclass(frozen=True, slots=True)
class Question:
    """What the environments are for.

    Attributes:
        request: GPUs, distribution, kernels, and wishes for driver and frameworks.
        device: `cuda` or `cpu`.
        driver: the driver's version; empty: none is up yet, and the one that would be chosen counts.
        index_urls: by framework, an index to ask first.
        companions: by framework, what else to install.
        jupyter: whether they are to be Jupyter kernels.
        third_party: whether builds that are not of the framework's own project may be taken.
        libcuda: folder of the driver's CUDA library.
    """

    request: Request
    device: str
    driver: str
    index_urls: Mapping[str, str]
    companions: Mapping[str, Sequence[str]]
    jupyter: bool
    third_party: bool
    libcuda: str


def read_wishes(given: Mapping[str, Any], device: str) -> dict[str, str | None]:
    """Versions by framework: empty for our choice, None for what is not wanted."""
    if strange := [str(name) for name in given if name not in FRAMEWORKS]:
        raise WishError(f"wishes: {', '.join(strange)} is no framework; there are {', '.join(FRAMEWORKS)}")
    asked = {name: given.get(name) for name in FRAMEWORKS}
    local = {
        name: str(wish).removesuffix("+cpu")
        if device == frameworks_cpu.INDEX and isinstance(wish, str)
        else wish
        for name, wish in asked.items()
    }
    return dict(stack_request.read_wishes(local).frameworks)


def answer(question: Question) -> dict[str, Any]:
    """The environments in the order of the frameworks, what is not supported, and wishes that are impossible."""
    driver, problems = question.driver, []
    wishes = question.request.wishes.frameworks
    if question.device == frameworks_cpu.INDEX:
        problems = frameworks_cpu.problems(wishes)
        answers = {} if problems else frameworks_cpu.answers(wishes, question.third_party)
    else:
        driver, problems = _driver(question)
        if not problems:
            problems = list(_impossible(question.request, driver))
        answers = {} if problems else stack_frameworks.frameworks(question.request, driver)
    return {
        "device": question.device,
        "driver": driver,
        "environments": [
            frameworks.plain(
                frameworks.environment(
                    name,
                    answers[name],
                    index_url=question.index_urls.get(name, ""),
                    companions=question.companions.get(name),
                    jupyter=question.jupyter,
                    libcuda=question.libcuda,
                )
            )
            for name in FRAMEWORKS
            if name in answers and answers[name]["supported"]
        ],
        "unsupported": frameworks.unsupported(answers),
        "problems": problems,
    }


def _driver(question: Question) -> tuple[str, list[str]]:
    """The driver that is up, or the one that the layer below would install."""
    request = question.request
    if request.strangers:
        return "", [
            f"No GPU is known as {', '.join(request.strangers)}, so nobody can say which wheels have kernels for it."
        ]
    if question.driver:
        return question.driver, []
    resolved = stack.resolve(
        replace(request, wishes=replace(request.wishes, frameworks=dict.fromkeys(FRAMEWORKS)))
    )
    if isinstance(resolved, stack.Stack):
        return resolved.driver.version, []
    says = " ".join(one.says for one in resolved.violations)
    return "", [
        f"There is no driver, and none can be chosen: {says} Mend that first (--tags nvidia-drivers --check)."
    ]


def _impossible(request: Request, driver: str) -> list[str]:
    """A version that somebody asked for is refused, not left out."""
    found = []
    for name in FRAMEWORKS:
        for violation in stack_frameworks.violations(name, request, driver):
            if not request.wishes.frameworks.get(name):
                continue
            nearest = stack_frameworks.nearest(name, request, driver)
            advice = (
                f"Take {nearest}."
                if nearest
                else f"Instead: {stack_frameworks.instead_of(name)}; false leaves it out."
            )
            found.append(f"{name}: {violation.says} {advice}")
    return found


def plain_wishes(driver_wishes: Mapping[str, Any], frameworks_wished: Mapping[str, str | None]) -> Wishes:
    """Wishes for the driver, as they are declared for its layer, and for the frameworks."""
    kept = {name: value for name, value in driver_wishes.items() if value not in (None, "")}
    return replace(stack_request.read_wishes(kept), frameworks=dict(frameworks_wished))
