# SPDX-License-Identifier: GPL-3.0-or-later
"""One consistent GPU stack for a machine, or a refusal that names every rule that is broken and the nearest stack that works.

Candidates are weighed in the order of our preferences against the same rules: the first that breaks none is the answer. A refusal
judges the candidate that breaks the fewest. This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from . import catalog, stack_frameworks, stack_software
from .branches import BRANCHES, LTS, branch_of
from .catalog import CLOSED, OPEN
from .sources import DISTRIBUTION, DISTRIBUTIONS, NVIDIA, Source
from .sources import find as find_distribution
from .stack_request import AUTO, FRAMEWORKS, Request, Violation, Wishes
from .stack_rules import Candidate, driver_violations, prefers_595, violations


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that works."""

    request: Request
    driver: Candidate


@dataclass(frozen=True, slots=True)
class Refusal:
    """No stack as it was asked for.

    Attributes:
        judged: the candidate whose broken rules these are; None: the question itself is at fault.
        nearest: the wishes that work, changed as little as can be; None: none do.
        instead: the stack of those.
        unasked: the stack without any wish but consents; None: there is none.
        elsewhere: distributions on which the same question has an answer, looked at where this one has none without a new consent.
    """

    request: Request
    violations: tuple[Violation, ...]
    judged: Candidate | None = None
    nearest: Wishes | None = None
    instead: Stack | None = None
    unasked: Stack | None = None
    elsewhere: tuple[str, ...] = ()


def resolve(request: Request) -> Stack | Refusal:
    """The stack for a question, or why there is none."""
    if wrong := tuple(_question(request)):
        return Refusal(request, wrong)
    judged: list[tuple[list[Violation], Candidate]] = []
    for candidate in candidates(request):
        found = violations(request, candidate)
        if not found:
            return Stack(request, candidate)
        judged.append((found, candidate))
    broken, closest = min(judged, key=lambda entry: len(entry[0]))
    nearest = _nearest(request)
    asks_consent = nearest is None or consents(nearest) != consents(request.wishes)
    return Refusal(
        request,
        tuple(broken),
        closest,
        nearest,
        instead=_stack(replace(request, wishes=nearest)) if nearest else None,
        unasked=_stack(replace(request, wishes=_only_consents(request.wishes))),
        elsewhere=_elsewhere(request) if asks_consent else (),
    )


def _stack(request: Request) -> Stack | None:
    for candidate in candidates(request):
        if not violations(request, candidate):
            return Stack(request, candidate)
    return None


def consents(wishes: Wishes) -> tuple[object, ...]:
    """What a user has agreed to."""
    return (wishes.eol_allowed, wishes.build_allowed, wishes.mok)


def _only_consents(wishes: Wishes) -> Wishes:
    return Wishes(eol_allowed=wishes.eol_allowed, build_allowed=wishes.build_allowed, mok=wishes.mok)


def _elsewhere(request: Request) -> tuple[str, ...]:
    others = (name for name in DISTRIBUTIONS if name != request.distribution)
    return tuple(name for name in others if _stack(replace(request, distribution=name, kernels=())))


def _question(request: Request) -> Iterator[Violation]:
    if find_distribution(request.distribution) is None:
        known = ", ".join(DISTRIBUTIONS)
        yield Violation(
            "distribution_known",
            "distribution",
            f"No sources are known for {request.distribution}; there are {known}.",
        )
    for name in request.strangers:
        near = difflib.get_close_matches(name.lower(), catalog.names(), 3, 0.5)
        hint = f"; perhaps {' or '.join(near)}" if near else ""
        yield Violation("gpu_known", "gpus", f"The catalog has no GPU {name}{hint}.")
    if not request.gpus and not request.strangers:
        yield Violation("gpu_known", "gpus", "No GPU was named.")


def candidates(request: Request) -> Iterator[Candidate]:
    """Every driver that is as the wishes have it, in the order of our preferences."""
    wishes = request.wishes
    for source in _sources(request):
        if wishes.source not in (AUTO, source.name):
            continue
        for branch in [wishes.branch] if wishes.branch else _branches(request, source):
            version = wishes.driver or source.branches.get(branch) or _last_seen(branch)
            for flavour in (OPEN, CLOSED):
                if wishes.flavour in (AUTO, flavour):
                    yield Candidate(source, branch, version, flavour)


def _last_seen(branch: str) -> str:
    known = BRANCHES.get(branch)
    return known.last_seen if known and known.last_seen else branch


def _sources(request: Request) -> list[Source]:
    """Under Secure Boot, prebuilt and signed modules come first; else NVIDIA's repository, which has more branches."""
    distribution = find_distribution(request.distribution)
    if distribution is None:
        return []
    signed = request.secure_boot and distribution.name.startswith("ubuntu")
    first = DISTRIBUTION if signed else NVIDIA
    return sorted(distribution.sources, key=lambda source: source.name != first)


def _branches(request: Request, source: Source) -> list[str]:
    """The long-term branch first, on kernel 7.0 and later branch 595; then the newest that is supported; then by their end."""

    def rank(name: str) -> tuple[int, int]:
        branch = BRANCHES[name]
        if branch.over(request.today):
            return (3, -int(branch.end_of_life.replace("-", "") or 0))
        if prefers_595(request) and name == "595":
            return (0, 0)
        return (1 if branch.kind == LTS else 2, -int(name))

    return sorted(source.branches, key=rank)


def _nearest(request: Request) -> Wishes | None:
    """The wishes of the stack that is nearest: as few changed as can be, consents that were not given asked for last."""
    moks = (False, True) if request.secure_boot else (False,)
    for eol, mok in itertools.product((False, True), moks):
        best: tuple[int, Wishes] | None = None
        for candidate in _all_candidates(request):
            made = replace(request, wishes=_adjusted(request, candidate, mok=mok, eol=eol))
            if driver_violations(made, candidate):
                continue
            wishes = _software(made, candidate)
            if violations(replace(request, wishes=wishes), candidate):
                continue
            cost = changes(request.wishes, wishes)
            if best is None or cost < best[0]:
                best = (cost, wishes)
        if best:
            return best[1]
    return None


def _all_candidates(request: Request) -> Iterator[Candidate]:
    """What the sources have, whatever was wished for, and the wished version where it is of a branch they have."""
    wished = request.wishes.driver
    for source in _sources(request):
        for branch in _branches(request, source):
            versions = [source.branches[branch]]
            if wished and branch_of(wished) == branch and wished not in versions:
                versions.insert(0, wished)
            for version in versions:
                for flavour in (OPEN, CLOSED):
                    yield Candidate(source, branch, version, flavour)


def _adjusted(request: Request, candidate: Candidate, *, mok: bool, eol: bool) -> Wishes:
    """The wishes for the driver, so that a candidate is what they ask for."""
    wishes = request.wishes
    changed: dict[str, str] = {}
    if wishes.source not in (AUTO, candidate.source.name):
        changed["source"] = candidate.source.name
    if wishes.flavour not in (AUTO, candidate.flavour):
        changed["flavour"] = candidate.flavour
    if wishes.driver not in ("", candidate.version):
        changed |= {"driver": "", "branch": candidate.branch}
    elif wishes.branch not in ("", candidate.branch):
        changed["branch"] = candidate.branch
    over = BRANCHES[candidate.branch].over(request.today)
    allowed = (candidate.branch,) if eol and over and candidate.branch not in wishes.eol_allowed else ()
    return replace(
        wishes,
        **changed,  # type: ignore[arg-type]
        mok=wishes.mok or mok,
        eol_allowed=(*wishes.eol_allowed, *allowed),
    )


def _software(request: Request, candidate: Candidate) -> Wishes:
    """The wishes for the software, each changed as little as can be for a candidate."""
    wishes = request.wishes
    cuda = stack_software.nearest_cuda(request, candidate.source, candidate.version)
    made = replace(request, wishes=replace(wishes, cuda=cuda))
    return replace(
        made.wishes,
        cudnn=wishes.cudnn
        and not list(stack_software.cudnn_violations(made, candidate.source, candidate.version)),
        frameworks={name: stack_frameworks.nearest(name, made, candidate.version) for name in FRAMEWORKS},
        power_limit_w=stack_software.nearest_power(made),
    )


def changes(before: Wishes, after: Wishes) -> int:
    """How many wishes differ."""
    return sum(
        (
            before.source != after.source,
            (before.branch, before.driver) != (after.branch, after.driver),
            before.flavour != after.flavour,
            before.cuda != after.cuda,
            before.cudnn != after.cudnn,
            before.power_limit_w != after.power_limit_w,
            *(before.frameworks.get(name) != after.frameworks.get(name) for name in FRAMEWORKS),
        )
    )


def flavours_in_common(request: Request) -> Sequence[str]:
    """The kernel modules that drive every GPU there is."""
    return [one for one in (OPEN, CLOSED) if all(one in group.model.flavours for group in request.gpus)]
