# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a stack is as it is, and what of it is unverified, in sentences.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import sources, stack_frameworks, stack_software
from .branches import BRANCHES, numbers
from .catalog import CLOSED, OPEN, UNVERIFIED, VENDOR
from .sources import DISTRIBUTION, DKMS, NVIDIA, kernel_numbers
from .stack import Stack, flavours_in_common
from .stack_request import AUTO, FRAMEWORKS, PYTORCH, Request, capabilities, named
from .stack_rules import kernels_of, prefers_595, source_name
from .wheels import UNVERIFIED_TOOLKITS, minor_release

_FORGOTTEN = "a reboot or a reload of the driver forgets it, so it has to be applied at every boot"


def package_names(stack: Stack) -> sources.Packages:
    """The packages of its driver."""
    driver = stack.driver
    return sources.packages(
        driver.source, driver.branch, driver.flavour, stack.request.kernels, stack.request.wishes.driver
    )


def reasons(stack: Stack) -> Iterator[str]:
    """Why it is this stack."""
    request, driver = stack.request, stack.driver
    yield from _why_branch(stack)
    yield _why_flavour(stack)
    yield _why_source(stack)
    if not request.kernels:
        kernel = ", ".join(kernels_of(request))
        yield f"No kernel was named, so {kernel} was taken, which the distribution is delivered with."
    if driver.branch in request.wishes.eol_allowed and BRANCHES[driver.branch].over(request.today):
        yield f"Branch {driver.branch} gets no more security fixes; it is taken because eol_allowed names it."
    yield _why_cuda(stack)
    yield from _why_pytorch(stack)
    for about, says in wishes_kept(request):
        if about == "power_limit_w":
            yield says


def _why_branch(stack: Stack) -> Iterator[str]:
    request, driver = stack.request, stack.driver
    branch = BRANCHES[driver.branch]
    until = f", supported until {branch.end_of_life}" if branch.end_of_life else ""
    kind = {
        "lts": "the long-term branch",
        "production": "a production branch",
        "feature": "a feature branch",
    }.get(branch.kind, "a branch of a kind that is not known")
    if request.wishes.branch:
        yield f"Branch {driver.branch} was asked for: {kind}{until}."
        return
    yield f"Branch {driver.branch} is {kind}{until}."
    last = {group.model.generation.driver_last for group in request.gpus} - {""}
    if driver.branch in last:
        old = [group for group in request.gpus if group.model.generation.driver_last == driver.branch]
        yield f"It is the last one for the {named(old)}."
    elif driver.branch == "595" and prefers_595(request):
        yield "Kernel 7.0 and later: branch 595 is the first that was seen to build there."
    elif (
        driver.branch != "580" and driver.source.distribution == "debian-13" and driver.source.name == NVIDIA
    ):
        yield "NVIDIA's repository for Debian 13 begins at branch 590: it has no 580."
    floors = {group.driver_floor: group for group in request.gpus if group.driver_floor}
    for floor, group in sorted(floors.items()):
        yield f"The {named([group])} is known to drivers from {floor} on."


def _why_flavour(stack: Stack) -> str:
    request, driver = stack.request, stack.driver
    common = flavours_in_common(request)
    if len(common) == 1:
        why = (
            "the closed ones find no device" if driver.flavour == OPEN else "the open ones begin with Turing"
        )
        only = [group for group in request.gpus if group.model.flavours == (driver.flavour,)]
        return f"{_modules(driver.flavour)}: the {named(only)} runs with no others, {why}."
    if request.wishes.flavour != AUTO:
        return f"{_modules(driver.flavour)} were asked for."
    for kernel in kernels_of(request):
        if driver.flavour == CLOSED and (
            pair := sources.broken(driver.source.distribution, driver.branch, OPEN, kernel)
        ):
            return f"{_modules(CLOSED)}: the open flavour {pair.happens}."
    if driver.flavour == OPEN:
        return f"{_modules(OPEN)}: they drive every GPU here, and branch 620 has no others any more."
    return f"{_modules(CLOSED)}."


def _modules(flavour: str) -> str:
    return f"{flavour.capitalize()} kernel modules"


def _why_source(stack: Stack) -> str:
    request, driver = stack.request, stack.driver
    name = source_name(driver.source)
    how = (
        "modules are built on the machine by DKMS for every kernel"
        if driver.source.build == DKMS
        else "modules come prebuilt and signed with the kernel"
    )
    text = f"From {name}: {how}."
    if driver.source.name == DISTRIBUTION and request.secure_boot and driver.source.build != DKMS:
        text += " Secure Boot accepts them without a key of one's own."
    if driver.source.build == DKMS and request.secure_boot:
        text += " Secure Boot is on, and the machine's own key is enrolled, as was said."
    return text


def _why_cuda(stack: Stack) -> str:
    wishes = stack.request.wishes
    native = stack_software.native(stack.driver.version)
    if not wishes.cuda:
        return (
            f"No CUDA toolkit: wheels bring their own runtime, and a toolkit is needed to compile only. "
            f"The driver's own version is {native}."
        )
    return f"CUDA toolkit {wishes.cuda} was asked for and can be used; the driver's own version is {native}."


def _why_pytorch(stack: Stack) -> Iterator[str]:
    made = stack_frameworks.frameworks(stack.request, stack.driver.version).get(PYTORCH)
    if not made or not made["supported"]:
        return
    which = ", ".join(f"{major}.{minor}" for major, minor in capabilities(stack.request.gpus))
    yield (
        f"PyTorch {made['version']} from {made['index']}: it has kernels for compute capability {which} "
        f"and runs on driver {stack.driver.version}."
    )


def unverified(stack: Stack) -> Iterator[str]:
    """What it rests on and was not read in a source of the vendor or the project."""
    request, driver = stack.request, stack.driver
    source = driver.source
    for group in request.gpus:
        model = group.model
        if fields := [name.replace("_", " ") for name in model.all_unverified]:
            yield f"Of the {named([group])}: {', '.join(fields)}."
        if fields := [name.replace("_", " ") for name in model.all_community]:
            yield f"Of the {named([group])}, from a single report: {', '.join(fields)}."
        if request.wishes.power_of(model.name) and model.known("power") == UNVERIFIED:
            yield f"The range of the power limit of the {named([group])}: the card itself is asked before it is set."
    yield from package_names(stack).unverified
    if driver.branch in source.unverified:
        yield f"That {source_name(source)} has branch {driver.branch} for {source.distribution}, and in which version."
    seen = source.branches.get(driver.branch)
    if seen and numbers(driver.version) > numbers(seen):
        yield f"Driver {driver.version} is newer than any that was seen."
    yield from source.warnings
    if source.repository.key_fingerprint_known != VENDOR:
        yield (
            f"The fingerprint of the key of {source_name(source)}, {source.repository.key_fingerprint}: "
            f"its end is the vendor's, the whole of it was read in a public project."
        )
    if any(kernel_numbers(kernel) >= (7, 0) for kernel in kernels_of(request)) and int(driver.branch) < 590:
        yield f"That branch {driver.branch} builds for kernel 7.0 and later."
    toolkit = minor_release(request.wishes.cuda) if request.wishes.cuda else ""
    if toolkit in UNVERIFIED_TOOLKITS:
        yield f"CUDA {toolkit} and the driver it comes with."
    if toolkit and source.cuda_first and numbers(toolkit) < numbers(source.cuda_first):
        yield f"That NVIDIA's repository for {source.distribution} has CUDA {toolkit}."
    if request.wishes.cudnn and source.distribution == "debian-13" and source.name == NVIDIA:
        yield "That NVIDIA's repository for Debian 13 has cuDNN: it had none in December 2025."
    for made in stack_frameworks.frameworks(request, driver.version).values():
        if doubt := made.get("unverified"):
            yield doubt


def wishes_kept(request: Request) -> Iterator[tuple[str, str]]:
    """What there is to say of wishes that can be fulfilled, by the wish."""
    its = request.wishes
    if its.source != AUTO:
        yield "source", f"The driver from the source {its.source} can be had."
    if its.cuda:
        yield "cuda", f"CUDA {its.cuda} can be used."
    for name in FRAMEWORKS:
        if version := its.frameworks.get(name):
            yield name, f"{name} {version} can be used."
    for group in request.gpus:
        wished = its.power_of(group.model.name)
        if not wished:
            continue
        power = group.power
        low = "?" if power.minimum is None else power.minimum
        high = "?" if power.maximum is None else power.maximum
        start = f", from the factory {power.default} W" if power.default else ""
        yield (
            "power_limit_w",
            f"{wished} W is within the range of the {named([group])}, {low} to {high} W{start}; {_FORGOTTEN}.",
        )
