# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a driver: CUDA toolkit and cuDNN; and the power limit. The rules for each, and the nearest that keeps them.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from . import stack_frameworks, wheels
from .branches import numbers, runs_on
from .catalog import UNVERIFIED
from .sources import NVIDIA, Source
from .stack_request import AUTO, FRAMEWORKS, Group, Request, Violation, capabilities, named


def violations(request: Request, source: Source, driver: str) -> list[Violation]:
    """Every rule that the wished software breaks on a driver."""
    return [
        *_cuda(request, source, driver),
        *cudnn_violations(request, source, driver),
        *(problem for name in FRAMEWORKS for problem in stack_frameworks.violations(name, request, driver)),
        *_power(request),
    ]


# --- CUDA ---


def cuda_range(groups: Sequence[Group], driver: str) -> tuple[str, str]:
    """The first and the last toolkit that the GPUs and the driver take; empty where there is none."""
    legal = [
        one
        for one in wheels.TOOLKITS
        if not list(_cuda_chips(groups, one))
        and runs_on(driver, wheels.toolkit_floor(one))
        and one not in wheels.UNVERIFIED_TOOLKITS
    ]
    return (legal[0], legal[-1]) if legal else ("", "")


def native(driver: str) -> str:
    """The newest toolkit that came with this driver or an older one: what nvidia-smi shows."""
    return max(
        (one for one, floor in wheels.TOOLKITS.items() if runs_on(driver, floor)), key=numbers, default=""
    )


def _minor(toolkit: str) -> str:
    return wheels.minor_release(toolkit)


def _cuda_chips(groups: Sequence[Group], toolkit: str) -> Iterator[Violation]:
    for group in {group.model.name: group for group in groups}.values():
        model = group.model
        name = named([group])
        if numbers(toolkit) < numbers(model.cuda_min):
            yield Violation(
                "cuda_min",
                "cuda",
                f"CUDA {toolkit} makes no code for compute capability {model.compute_capability} (the {name}): "
                f"{model.cuda_min} is the first that does.",
            )
        last = model.generation.cuda_max
        if last and numbers(toolkit) > numbers(last):
            yield Violation(
                "cuda_max",
                "cuda",
                f"CUDA {toolkit} has dropped compute capability {model.compute_capability} (the {name}): {last} is the last for it.",
            )


def _cuda(request: Request, source: Source, driver: str) -> Iterator[Violation]:
    wished = request.wishes.cuda
    if not wished:
        return
    toolkit = _minor(wished)
    if toolkit not in wheels.TOOLKITS:
        yield Violation(
            "cuda_known",
            "cuda",
            f"No CUDA toolkit {wished} is known; there are {', '.join(wheels.TOOLKITS)}.",
        )
        return
    yield from _cuda_chips(request.gpus, toolkit)
    floor = wheels.toolkit_floor(toolkit)
    if not runs_on(driver, floor):
        yield Violation(
            "cuda_driver",
            "cuda",
            f"Programs of CUDA {toolkit} need driver {floor} or later; this is {driver}.",
        )
    if source.name != NVIDIA and toolkit != source.cuda:
        yield Violation(
            "cuda_source",
            "cuda",
            f"CUDA {toolkit} is in NVIDIA's repository only; the distribution has {source.cuda}. The driver is to come from the "
            f"distribution here{_signed(request)}, and the two sources are never mixed.",
        )


def _signed(request: Request) -> str:
    """Why the driver comes from the distribution, and how it need not."""
    if not request.secure_boot or request.wishes.source != AUTO:
        return ""
    return " because of Secure Boot, unless a key of one's own is enrolled (mok: true)"


def nearest_cuda(request: Request, source: Source, driver: str) -> str:
    """The legal toolkit nearest to the wished one, later rather than earlier; empty: none."""
    wished = request.wishes.cuda
    if not wished:
        return ""
    legal = [
        one
        for one in wheels.TOOLKITS
        if not list(_cuda_chips(request.gpus, one))
        and runs_on(driver, wheels.toolkit_floor(one))
        and (source.name == NVIDIA or one == source.cuda)
        and (one not in wheels.UNVERIFIED_TOOLKITS or one in (source.cuda, _minor(wished)))
    ]
    later = [one for one in legal if numbers(one) >= numbers(_minor(wished))]
    if _minor(wished) in legal:
        return wished
    return later[0] if later else legal[-1] if legal else ""


# --- cuDNN ---


def cudnn_major(groups: Sequence[Group], driver: str, toolkit: str) -> int:
    """The CUDA version that cuDNN is to be for."""
    if toolkit:
        return numbers(toolkit)[0]
    new = all(one >= wheels.CUDNN_CAPABILITY for one in capabilities(groups)) and runs_on(
        driver, wheels.MAJOR_FLOOR[13]
    )
    return 13 if new else 12


def cudnn_violations(request: Request, source: Source, driver: str) -> Iterator[Violation]:
    if not request.wishes.cudnn:
        return
    old = [group for group in request.gpus if group.model.capability < wheels.CUDNN_CAPABILITY]
    if old:
        yield Violation(
            "cudnn_chip",
            "cudnn",
            f"cuDNN 9.10.2 was the last for the {named(old)}, and the packages are newer. The wheels bring one that works.",
        )
    if source.name != NVIDIA:
        young = [group for group in request.gpus if numbers(group.model.cuda_min) > numbers(source.cuda)]
        if young:
            yield Violation(
                "cudnn_chip",
                "cudnn",
                f"The distribution's cuDNN is for CUDA {source.cuda}, which makes no code for the {named(young)}.",
            )
        return
    major = cudnn_major(request.gpus, driver, request.wishes.cuda)
    if major not in (12, 13):
        yield Violation(
            "cudnn_cuda", "cudnn", f"The packages of cuDNN are for CUDA 12 and 13, and not for {major}."
        )
    elif not runs_on(driver, wheels.MAJOR_FLOOR[major]):
        floor = wheels.MAJOR_FLOOR[major]
        yield Violation(
            "cudnn_driver",
            "cudnn",
            f"cuDNN for CUDA {major} needs driver {floor} or later; this is {driver}.",
        )


# --- power ---


def _power(request: Request) -> Iterator[Violation]:
    wishes = request.wishes
    for group in request.gpus:
        wished = wishes.power_of(group.model.name)
        its = group.power
        if not wished or clamped(group, wished) == wished:
            continue
        wanted = f"{wished} W is outside of what the {named([group])} takes"
        doubt = " (unverified)" if group.model.known("power") == UNVERIFIED else ""
        span = _span(its.minimum, its.maximum)
        yield Violation("power_limit", "power_limit_w", f"{wanted}: {span}{doubt}.")
    if not isinstance(wishes.power_limit_w, int):
        present = {group.model.name for group in request.gpus}
        for name in wishes.power_limit_w:
            if name not in present:
                yield Violation(
                    "power_limit",
                    "power_limit_w",
                    f"A limit is given for {name}, which is not among the GPUs.",
                )


def _span(minimum: int | None, maximum: int | None) -> str:
    if minimum is None:
        return f"at most {maximum} W"
    return f"{minimum} to {maximum} W" if maximum is not None else f"at least {minimum} W"


def clamped(group: Group, watts: int) -> int:
    """The nearest limit that a card takes, as far as its range is known."""
    its = group.power
    low = watts if its.minimum is None else max(watts, its.minimum)
    return low if its.maximum is None else min(low, its.maximum)


def nearest_power(request: Request) -> int | dict[str, int]:
    """The wished limits, each brought into the range of its cards."""
    wishes = request.wishes
    if not list(_power(request)):
        return wishes.power_limit_w if isinstance(wishes.power_limit_w, int) else dict(wishes.power_limit_w)
    limits: dict[str, int] = {}
    for group in request.gpus:
        if wished := wishes.power_of(group.model.name):
            limits[group.model.name] = clamped(group, limits.get(group.model.name, wished))
    values = set(limits.values())
    return values.pop() if isinstance(wishes.power_limit_w, int) and len(values) == 1 else limits


def power(request: Request) -> dict[str, dict[str, Any]]:
    """Per model: the range of its limit in watts, and the wished one."""
    result: dict[str, dict[str, Any]] = {}
    for group in request.gpus:
        its = group.power
        wished = request.wishes.power_of(group.model.name) or None
        result[group.model.name] = {
            "min_w": its.minimum,
            "default_w": its.default,
            "max_w": its.maximum,
            "wished_w": wished,
            "clamped_w": wished and clamped(group, wished),
            "known": group.model.known("power"),
            "notes": list(dict.fromkeys(card.note for card in group.cards if card.note)),
        }
    return result
