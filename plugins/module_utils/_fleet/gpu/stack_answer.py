# SPDX-License-Identifier: GPL-3.0-or-later
"""An answer about a stack as plain data, with its reasons and with what is unverified in it.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from . import sources, stack_frameworks, stack_software
from .branches import BRANCHES
from .sources import DKMS, NVIDIA
from .stack import Refusal, Stack, consents
from .stack_reasons import package_names, reasons, unverified, wishes_kept
from .stack_request import AUTO, FRAMEWORKS, PYTORCH, Request, Wishes
from .wheels import minor_release

UTILITIES = ("nvtop",)


def plain(answer: Stack | Refusal) -> dict[str, Any]:
    """The answer in JSON's types."""
    if isinstance(answer, Stack):
        return {
            "ok": True,
            **_stack(answer),
            "accepted": [],
            "refusals": [],
            "judged": None,
            "nearest": None,
            "instead": None,
        }
    judged = answer.judged
    instead = _stack(answer.instead) if answer.instead else None
    return {
        "ok": False,
        "asked": _asked(answer.request),
        "gpus": _gpus(answer.request),
        "driver": None,
        "refusals": [
            {
                "rule": one.rule,
                "about": one.about,
                "says": one.says,
                "nearest": _point(one.about, answer, instead),
            }
            for one in answer.violations
        ],
        "judged": judged
        and {
            "source": judged.source.name,
            "branch": judged.branch,
            "version": judged.version,
            "flavour": judged.flavour,
        },
        "accepted": _accepted(answer),
        "nearest": None if answer.nearest is None else wishes(answer.nearest),
        "instead": instead,
        "reasons": list(_about_refusal(answer)),
        "unverified": [],
    }


def wishes(made: Wishes) -> dict[str, Any]:
    """Wishes as they are given; what is no wish is left out."""
    result: dict[str, Any] = {
        "branch": "" if made.driver else made.branch,
        "driver": made.driver,
        "flavour": "" if made.flavour == AUTO else made.flavour,
        "source": "" if made.source == AUTO else made.source,
        "eol_allowed": list(made.eol_allowed),
        "cuda": made.cuda,
        "cudnn": made.cudnn,
        **{name: made.frameworks.get(name) or "" for name in FRAMEWORKS},
        "power_limit_w": made.power_limit_w
        if isinstance(made.power_limit_w, int)
        else dict(made.power_limit_w),
        "build_allowed": made.build_allowed,
        "mok": made.mok,
    }
    refused = {name: False for name in FRAMEWORKS if made.frameworks.get(name, "") is None}
    return {name: value for name, value in result.items() if value} | refused


# --- a stack ---


def _stack(stack: Stack) -> dict[str, Any]:
    request, driver = stack.request, stack.driver
    branch = BRANCHES[driver.branch]
    packages = _packages(stack)
    lowest, highest = stack_software.cuda_range(request.gpus, driver.version)
    return {
        "asked": _asked(request),
        "gpus": _gpus(request),
        "driver": {
            "source": driver.source.name,
            "branch": driver.branch,
            "version": driver.version,
            "exact": bool(request.wishes.driver),
            "flavour": driver.flavour,
            "build": driver.source.build,
            "type": branch.kind,
            "end_of_life": branch.end_of_life,
            "ended": branch.over(request.today),
        },
        "repository": {
            **asdict(driver.source.repository),
            "components": list(driver.source.repository.components),
        },
        "packages": packages,
        "cuda": {
            "toolkit": request.wishes.cuda,
            "min": lowest,
            "max": highest,
            "native": stack_software.native(driver.version),
        },
        "frameworks": stack_frameworks.frameworks(request, driver.version),
        "power": stack_software.power(request),
        "reasons": list(reasons(stack)),
        "unverified": list(dict.fromkeys(unverified(stack))),
    }


def _asked(request: Request) -> dict[str, Any]:
    return {
        "distribution": request.distribution,
        "kernels": list(request.kernels),
        "secure_boot": request.secure_boot,
        "wishes": wishes(request.wishes),
    }


def _gpus(request: Request) -> list[dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for group in request.gpus:
        model = group.model
        one = result.setdefault(
            model.name,
            {
                "model": model.name,
                "full_name": model.full_name,
                "count": 0,
                "pci_ids": [],
                "compute_capability": model.compute_capability,
                "architecture": model.architecture,
                "unverified": list(model.all_unverified),
            },
        )
        one["count"] += group.count
        one["pci_ids"] += [card.pci_id for card in group.cards if card.pci_id not in one["pci_ids"]]
    return list(result.values())


def _packages(stack: Stack) -> dict[str, Any]:
    request, driver = stack.request, stack.driver
    names = package_names(stack)
    cuda: list[str] = []
    if request.wishes.cuda:
        minor = minor_release(request.wishes.cuda).replace(".", "-")
        cuda = [f"cuda-toolkit-{minor}" if driver.source.name == NVIDIA else "nvidia-cuda-toolkit"]
    cudnn: list[str] = []
    if request.wishes.cudnn:
        major = stack_software.cudnn_major(request.gpus, driver.version, request.wishes.cuda)
        cudnn = [f"cudnn9-cuda-{major}" if driver.source.name == NVIDIA else "nvidia-cudnn"]
    return {
        "pin": list(names.pin),
        "headers": list(names.headers),
        "driver": list(names.driver),
        "cuda": cuda,
        "cudnn": cudnn,
        "utilities": list(UTILITIES),
        "module": names.modules[0],
        "modules": list(names.modules),
        # A prebuilt module's package has the version of its kernel.
        "module_versions": f"{driver.version}-*" if driver.source.build == DKMS else "",
        "hold_patterns": list(sources.HOLD_PATTERNS),
    }


# --- a refusal ---


def _point(about: str, refusal: Refusal, instead: Mapping[str, Any] | None) -> Any:
    """What to ask for instead, for one point."""
    if refusal.nearest is None or instead is None:
        return None
    near = wishes(refusal.nearest)
    if about in ("driver", "branch"):
        return instead["driver"]["version"] if about == "driver" else instead["driver"]["branch"]
    if about in ("flavour", "source"):
        return instead["driver"][about]
    if about == "secure_boot":
        return "mok: true" if refusal.nearest.mok else instead["driver"]["source"]
    if about in ("kernel", "gpus", "distribution"):
        return f"{instead['driver']['flavour']} {instead['driver']['version']}"
    return near.get(about, "none" if about in ("cuda", "cudnn") else None)


def _accepted(refusal: Refusal) -> list[dict[str, str]]:
    """The wishes that no rule is broken by, and that the nearest stack keeps."""
    broken = {one.about for one in refusal.violations}
    before = wishes(refusal.request.wishes)
    after = wishes(refusal.nearest) if refusal.nearest else before
    return [
        {"about": about, "says": says}
        for about, says in wishes_kept(refusal.request)
        if about not in broken and before[about] == after.get(about)
    ]


def _about_refusal(refusal: Refusal) -> Iterator[str]:
    """What else there is to say."""
    rules = {one.rule for one in refusal.violations}
    if "gpu_known" in rules or "distribution_known" in rules:
        return
    if refusal.nearest is None:
        alone = "; each of them alone may have one" if "generations" in rules else ""
        yield f"No stack works for these GPUs on this distribution{alone}."
    elif consents(refusal.nearest) != consents(refusal.request.wishes):
        before, after = refusal.request.wishes, refusal.nearest
        if after.mok != before.mok:
            yield "The nearest stack needs a key of the machine's own, enrolled at its console; say mok: true once it is."
        if more := set(after.eol_allowed) - set(before.eol_allowed):
            branch = ", ".join(sorted(more))
            yield f"The nearest stack needs branch {branch}, which gets no more security fixes; agree to it by name in eol_allowed."
    if refusal.elsewhere:
        names = " and ".join(sources.DISTRIBUTIONS[name].full_name for name in refusal.elsewhere)
        yield f"On {names} the same question has an answer."
    if refusal.unasked:
        driver = refusal.unasked.driver
        made = stack_frameworks.frameworks(refusal.unasked.request, driver.version)[PYTORCH]
        torch = f" and PyTorch {made['version']} from {made['index']}" if made["supported"] else ""
        yield f"Without any wish the answer is driver {driver.version} ({driver.flavour} kernel modules){torch}."
