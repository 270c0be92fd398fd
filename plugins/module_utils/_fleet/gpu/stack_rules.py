# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules a stack has to keep: what is wrong with one candidate for one question, point by point.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import stack_software as software
from .branches import BRANCHES, CLOSED_LAST, numbers
from .catalog import CLOSED, OPEN
from .sources import DISTRIBUTION, DKMS, NVIDIA, Source, broken, kernel_numbers
from .sources import find as find_distribution
from .stack_request import AUTO, Group, Request, Violation, named

# Every rule there is, for the documentation; a test sees that each of them is in use.
RULES: dict[str, str] = {
    "gpu_known": "Every GPU is in the catalog.",
    "distribution_known": "The distribution has sources we know.",
    "generations": "One driver is for all GPUs of a machine: some need the open kernel modules, some the closed ones.",
    "flavour": "The kernel modules drive the GPU, and the branch has them.",
    "branch_offered": "The source has the branch.",
    "driver_offered": "The source still has the version: a distribution keeps only the newest of a branch.",
    "end_of_life": "The branch is supported, or allowed by name.",
    "driver_floor": "The driver knows the GPU.",
    "driver_last": "The branch still has the GPU's architecture.",
    "host_architecture": "The sources are for the machine's architecture.",
    "kernel_build": "The modules are not known to fail to build for the kernel.",
    "secure_boot": "Under Secure Boot the modules are signed with a key that the firmware knows.",
    "cuda_known": "The CUDA toolkit exists.",
    "cuda_min": "The toolkit makes code for the GPU.",
    "cuda_max": "The toolkit still makes code for the GPU.",
    "cuda_driver": "The driver runs the toolkit's programs.",
    "cuda_source": "The toolkit is in the source that the driver comes from: two sources are never mixed.",
    "cudnn_chip": "cuDNN has kernels for the GPU.",
    "cudnn_cuda": "cuDNN is packaged for the toolkit.",
    "cudnn_driver": "The driver runs cuDNN.",
    "wheel_exists": "The framework's version was published, and for that index.",
    "wheel_kernels": "The wheel has kernels for every GPU.",
    "wheel_driver": "The driver runs the wheel's CUDA runtime.",
    "power_limit": "The power limit is within the card's range.",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One driver from one source: what is weighed against a question."""

    source: Source
    branch: str
    version: str
    flavour: str

    @property
    def offered(self) -> bool:
        """Whether the source has the branch at all."""
        return self.branch in self.source.branches

    @property
    def driver(self) -> tuple[int, ...]:
        """The version as numbers."""
        return numbers(self.version)


def kernels_of(request: Request) -> tuple[str, ...]:
    """The kernels that modules are needed for; without an answer, the one the distribution is delivered with."""
    if request.kernels:
        return request.kernels
    distribution = find_distribution(request.distribution)
    return (distribution.kernel,) if distribution else ()


def source_name(source: Source) -> str:
    """A source in words."""
    if source.name == NVIDIA:
        return "NVIDIA's repository"
    return f"the archive of {'Ubuntu' if source.distribution.startswith('ubuntu') else 'Debian'}"


def violations(request: Request, candidate: Candidate) -> list[Violation]:
    """Every rule that a candidate breaks for a question, the driver's first; empty: it works."""
    return [
        *driver_violations(request, candidate),
        *software.violations(request, candidate.source, candidate.version),
    ]


def driver_violations(request: Request, candidate: Candidate) -> list[Violation]:
    """The rules that are about the driver alone."""
    return list(_driver(request, candidate))


def _driver(request: Request, candidate: Candidate) -> Iterator[Violation]:
    yield from _offered(request, candidate)
    yield from _support(request, candidate)
    yield from _chips(request, candidate)
    yield from _flavour(request, candidate)
    yield from _build(request, candidate)


def _offered(request: Request, candidate: Candidate) -> Iterator[Violation]:
    source = candidate.source
    about = "driver" if request.wishes.driver else "branch"
    if not candidate.offered:
        has = ", ".join(source.branches)
        yield Violation(
            "branch_offered",
            about,
            f"{_capital(source_name(source))} for {request.distribution} does not have branch {candidate.branch}; it has {has}.",
        )
    elif source.name == DISTRIBUTION and candidate.driver < numbers(source.branches[candidate.branch]):
        yield Violation(
            "driver_offered",
            about,
            f"{_capital(source_name(source))} keeps only the newest version of a branch, "
            f"which is {source.branches[candidate.branch]} or later; {candidate.version} is gone from it.",
        )


def _support(request: Request, candidate: Candidate) -> Iterator[Violation]:
    branch = BRANCHES.get(candidate.branch)
    allowed = candidate.branch in request.wishes.eol_allowed
    if branch and branch.over(request.today) and not allowed:
        ended = f"ended in {branch.end_of_life}" if branch.end_of_life else "has ended"
        last = f"; its last version is {branch.last_seen}" if branch.last_seen else ""
        yield Violation(
            "end_of_life",
            "driver" if request.wishes.driver else "branch",
            f"Support for branch {candidate.branch} {ended}{last}: it gets no more security fixes. "
            f"Name it in eol_allowed to take it all the same.",
        )


def _chips(request: Request, candidate: Candidate) -> Iterator[Violation]:
    about = "driver" if request.wishes.driver else "branch" if request.wishes.branch else "gpus"
    for group in _by_model(request.gpus):
        model = group.model
        floor = group.driver_floor
        name = named([group])
        if floor and candidate.driver < numbers(floor):
            why = f" ({model.driver_floor_why})" if model.driver_floor_why else ""
            yield Violation(
                "driver_floor",
                about,
                f"Driver {candidate.version} does not know the {name}: the first that does is {floor}{why}.",
            )
        last = model.generation.driver_last
        if last and int(candidate.branch) > int(last):
            yield Violation(
                "driver_last",
                about,
                f"Branch {candidate.branch} has dropped {model.architecture}: branch {last} is the last one for the {name}.",
            )
        if model.host_architecture != "x86_64":
            yield Violation(
                "host_architecture",
                "gpus",
                f"The {name} is built into {model.host_architecture} machines; the sources known here are for x86_64.",
            )


def _flavour(request: Request, candidate: Candidate) -> Iterator[Violation]:
    only = {OPEN: _only(request, OPEN), CLOSED: _only(request, CLOSED)}
    if only[OPEN] and only[CLOSED]:
        yield Violation(
            "generations",
            "gpus",
            f"No driver is for both: the {named(only[OPEN])} needs the open kernel modules and the {named(only[CLOSED])} "
            f"the closed ones, and one machine runs one of them. Put them into different machines.",
        )
        return
    other = CLOSED if candidate.flavour == OPEN else OPEN
    about = "flavour" if request.wishes.flavour != AUTO else "gpus"
    if only[other]:
        why = (
            "the closed ones find no device on it"
            if other == OPEN
            else "the open ones begin with Turing (compute capability 7.5)"
        )
        yield Violation(
            "flavour", about, f"The {named(only[other])} runs with the {other} kernel modules only: {why}."
        )
    if candidate.flavour == CLOSED and int(candidate.branch) > CLOSED_LAST:
        yield Violation(
            "flavour",
            about,
            f"Branch {candidate.branch} has no closed kernel modules any more; {CLOSED_LAST} was the last one.",
        )


def _build(request: Request, candidate: Candidate) -> Iterator[Violation]:
    if candidate.source.build != DKMS:
        return
    for kernel in kernels_of(request):
        pair = broken(candidate.source.distribution, candidate.branch, candidate.flavour, kernel)
        if pair and not request.wishes.build_allowed:
            yield Violation(
                "kernel_build",
                "kernel",
                f"The {candidate.flavour} modules of branch {candidate.branch} do not build for kernel {kernel}: it {pair.happens} "
                f"({pair.source}).",
            )
    if request.secure_boot and not request.wishes.mok:
        yield Violation(
            "secure_boot",
            "secure_boot",
            "Secure Boot is on, and it refuses modules built on the machine unless their key is enrolled, which needs a visit to "
            "the console (mokutil --import, reboot, confirm). Enrol one and say mok: true, or turn Secure Boot off.",
        )


def _only(request: Request, flavour: str) -> list[Group]:
    return [group for group in _by_model(request.gpus) if group.model.flavours == (flavour,)]


def _by_model(groups: Sequence[Group]) -> list[Group]:
    """One group a model; several cards of one model are told apart by what each needs."""
    return sorted(
        {(group.model.name, group.driver_floor): group for group in groups}.values(),
        key=lambda group: group.model.name,
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def prefers_595(request: Request) -> bool:
    """Kernel 7.0 came with branch 595; older branches were not seen to build there."""
    return any(kernel_numbers(kernel) >= (7, 0) for kernel in kernels_of(request))
