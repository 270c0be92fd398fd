# SPDX-License-Identifier: GPL-3.0-or-later
"""PyTorch, TensorFlow, JAX and vLLM on a driver: the rules for a wished version, the nearest that keeps them, and what to install.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from . import wheels
from .branches import numbers, runs_on
from .stack_request import JAX, PYTORCH, TENSORFLOW, VLLM, Group, Request, Violation, capabilities, named

PYPI = "https://pypi.org/simple"


def _spelled(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel: its version, and the index or extra it is taken from."""

    version: str
    index: str


def _split(wish: str) -> Wheel:
    version, _plus, index = wish.partition("+")
    return Wheel(version, index)


@cache
def _catalog(name: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Version, index, chips, for a framework."""
    if name == PYTORCH:
        return {one.version: one.indexes for one in wheels.TORCH.values()}
    if name == TENSORFLOW:
        return {
            one.version: {f"cu{one.cuda.replace('.', '')}": one.architectures}
            for one in wheels.TENSORFLOW.values()
        }
    return {
        version: {index: wheels.TORCH[wheels.minor_release(torch)].indexes[index]}
        for version, (torch, index) in wheels.VLLM.items()
    }


def _titles(name: str) -> str:
    return {PYTORCH: "PyTorch", TENSORFLOW: "TensorFlow", VLLM: "vLLM", JAX: "JAX"}[name]


def _release(name: str, version: str) -> str | None:
    """The entry of a version; None: it is not known."""
    known = _catalog(name)
    if name == VLLM:
        return next((one for one in reversed(known) if one == version or one.startswith(f"{version}.")), None)
    minor = wheels.minor_release(version)
    return minor if minor in known else None


def _legal(name: str, groups: Sequence[Group], driver: str) -> list[Wheel]:
    """Every wheel that has kernels for all GPUs and runs on the driver, the oldest first."""
    return [
        Wheel(version, index)
        for version, indexes in _catalog(name).items()
        for index, chips in indexes.items()
        if all(_runs(name, one, chips) for one in capabilities(groups))
        and runs_on(driver, _index_floor(index))
    ]


def _runs(name: str, capability: tuple[int, int], chips: tuple[str, ...]) -> bool:
    return wheels.runs(capability, chips) and not (name == VLLM and capability < wheels.VLLM_CAPABILITY)


def _index_floor(index: str) -> str:
    return wheels.MAJOR_FLOOR[wheels.index_major(index)]


def violations(name: str, request: Request, driver: str) -> Iterator[Violation]:
    """Every rule that the wished version of a framework breaks."""
    wish = request.wishes.frameworks.get(name)
    if not wish:
        return
    title = _titles(name)
    if name == JAX:
        if _jax_extra(request.gpus, driver) is None:
            yield Violation(
                "wheel_kernels", JAX, f"JAX has no wheels for the {named(request.gpus)} on driver {driver}."
            )
        return
    wheel = _split(wish)
    release = _release(name, wheel.version)
    known = _catalog(name)
    if release is None:
        yield Violation(
            "wheel_exists", name, f"{title} {wheel.version} is not known; there are {', '.join(known)}."
        )
        return
    indexes = known[release]
    if wheel.index and wheel.index not in indexes:
        first = next((one for one, of in known.items() if wheel.index in of), None)
        came = f" {wheel.index} came with {first}." if first and numbers(first) > numbers(release) else ""
        yield Violation(
            "wheel_exists",
            name,
            f"There never was a {title} {wheel.version} for {wheel.index}: {release} has {' and '.join(indexes)}.{came}",
        )
    considered = {wheel.index: indexes[wheel.index]} if wheel.index in indexes else indexes
    for capability in capabilities(request.gpus):
        if not any(_runs(name, capability, chips) for chips in considered.values()):
            gpus = [group for group in request.gpus if group.model.capability == capability]
            yield Violation(
                "wheel_kernels",
                name,
                f"{title} {wish} has no kernels for compute capability {_spelled(capability)} (the {named(gpus)}): it would find "
                f"the GPU and fail at the first operation.",
            )
    having = [
        index
        for index, chips in considered.items()
        if all(_runs(name, one, chips) for one in capabilities(request.gpus))
    ]
    if having and not any(runs_on(driver, _index_floor(index)) for index in having):
        floor = min((_index_floor(index) for index in having), key=numbers)
        yield Violation(
            "wheel_driver", name, f"{title} {wish} needs driver {floor} or later; this is {driver}."
        )
    if (
        not having
        and len(capabilities(request.gpus)) > 1
        and all(
            any(_runs(name, one, chips) for chips in considered.values())
            for one in capabilities(request.gpus)
        )
    ):
        yield Violation(
            "wheel_kernels",
            name,
            f"No single wheel of {title} {wish} has kernels for all of the {named(request.gpus)}.",
        )


def _jax_extra(groups: Sequence[Group], driver: str) -> str | None:
    for extra, first in wheels.JAX.items():
        if all(one >= first for one in capabilities(groups)) and runs_on(
            driver, wheels.MAJOR_FLOOR[wheels.index_major(extra)]
        ):
            return extra
    return None


def _chosen(name: str, request: Request, driver: str) -> Wheel | None:
    """The wheel to take: of the wished version, or else of the newest sound one; None: there is none."""
    legal = _legal(name, request.gpus, driver)
    wish = request.wishes.frameworks.get(name)
    if wish:
        wheel = _split(wish)
        release = _release(name, wheel.version)
        legal = [one for one in legal if one.version == release and wheel.index in ("", one.index)]
        if not legal:
            return None
        exact = wheel.version if name == PYTORCH else release or ""
        if name == TENSORFLOW:
            exact = wheel.version
        return Wheel(_full(exact), _index(name, legal))
    if name == PYTORCH:
        legal = [one for one in legal if not wheels.TORCH[one.version].unverified]
    if not legal:
        return None
    newest = [one for one in legal if one.version == legal[-1].version]
    return Wheel(_full(newest[0].version), _index(name, newest))


def _full(version: str) -> str:
    return version if version.count(".") > 1 else f"{version}.0"


def _index(name: str, legal: Sequence[Wheel]) -> str:
    """PyPI's index where it is legal, the newest of the others where not."""
    indexes = [one.index for one in legal]
    if name == PYTORCH and (default := wheels.TORCH[legal[0].version].default) in indexes:
        return default
    return indexes[-1]


def nearest(name: str, request: Request, driver: str) -> str | None:
    """The wish for a framework, changed as little as can be; None: it cannot be had."""
    wish = request.wishes.frameworks.get(name)
    if not wish:
        return wish
    if not list(violations(name, request, driver)):
        return wish
    legal = [] if name == JAX else _legal(name, request.gpus, driver)
    if not legal:
        return None
    wheel = _split(wish)
    later = [one for one in legal if numbers(one.version) >= numbers(wheels.minor_release(wheel.version))]
    version = (later or legal[-1:])[0].version
    of_it = [one for one in legal if one.version == version]
    index = wheel.index if wheel.index in [one.index for one in of_it] else _index(name, of_it)
    return f"{_full(version)}+{index}" if name == PYTORCH else version


def frameworks(request: Request, driver: str) -> dict[str, dict[str, Any]]:
    """Each framework that is wanted: what to install, or why there is nothing, and what to take instead."""
    result: dict[str, dict[str, Any]] = {}
    for name, wish in request.wishes.frameworks.items():
        if wish is not None:
            result[name] = _framework(name, wish, request, driver)
    return result


def _framework(name: str, wish: str, request: Request, driver: str) -> dict[str, Any]:
    if name == JAX:
        return _jax(wish, request, driver)
    wheel = _chosen(name, request, driver)
    if wheel is None:
        return _unsupported(name, request)
    torch = wheels.VLLM[wheel.version][0] if name == VLLM else ""
    package = {
        PYTORCH: f"torch=={wheel.version}+{wheel.index}",
        TENSORFLOW: f"tensorflow[and-cuda]=={wheel.version}",
        VLLM: f"vllm=={wheel.version}",
    }
    doubts = {
        PYTORCH: wheels.TORCH[wheels.minor_release(wheel.version)].unverified if name == PYTORCH else "",
        TENSORFLOW: "The list of chips that TensorFlow's wheels have kernels for.",
        VLLM: "The first chip that vLLM has kernels for, compute capability 7.0."
        + (f" That vLLM {wheel.version} was built for {wheel.index}." if wheel.index == "cu128" else ""),
    }
    return {
        "supported": True,
        "version": wheel.version,
        "index": wheel.index,
        "package": package[name],
        "wheel_index_url": wheels.TORCH_URL.format(index=wheel.index) if name == PYTORCH else PYPI,
        "note": f"It pins PyTorch {torch}." if torch else "",
        "unverified": doubts[name],
        **({"torch": torch} if torch else {}),
    }


def _jax(wish: str, request: Request, driver: str) -> dict[str, Any]:
    extra = _jax_extra(request.gpus, driver)
    if extra is None:
        return _unsupported(JAX, request)
    new = "The first driver and the first chip for JAX on CUDA 13." if extra == "cuda13" else ""
    which = f"Whether JAX {wish} has the extra {extra}." if wish else ""
    return {
        "supported": True,
        "version": wish,
        "index": extra,
        "package": f"jax[{extra}]=={wish}" if wish else f"jax[{extra}]",
        "wheel_index_url": PYPI,
        "note": "",
        "unverified": " ".join(filter(None, (new, which))),
    }


def instead_of(name: str) -> str:
    """What to take where there is no wheel of a framework."""
    return wheels.TENSORFLOW_INSTEAD if name == TENSORFLOW else "a wheel built for the chip by oneself"


def _unsupported(name: str, request: Request) -> dict[str, Any]:
    return {
        "supported": False,
        "says": f"No official wheel of {_titles(name)} has kernels for the {named(request.gpus)} on this driver.",
        "instead": instead_of(name),
    }
