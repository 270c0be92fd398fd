# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast does every GPU multiply matrices, in each precision it has, and does it do so correctly?

All GPUs at the same time, as they have to work. Random data: constant data needs less power and flatters a card. Fixed shapes,
a warm-up, the median of many rounds. A block of the result is compared with float64 on the CPU, and the whole of the last
result with the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cards
import team
import workload


@dataclass(frozen=True)
class Precision:
    """How a precision is made.

    Attributes:
        capability: the least compute capability that has it in hardware.
        kind: the name of the torch type of the inputs.
        allowed: of a right result, the largest difference from float64 as a share of the largest value.
    """

    name: str
    capability: tuple[int, int]
    kind: str
    allowed: float
    float32: str = "highest"


PRECISIONS = (
    Precision("fp32", (0, 0), "float32", 2e-5),
    Precision("tf32", (8, 0), "float32", 3e-3, "high"),
    Precision("fp16", (6, 0), "float16", 5e-3),
    Precision("bf16", (8, 0), "bfloat16", 1e-2),
    Precision("fp8", (8, 9), "float8_e4m3fn", 3e-2),
)
_SLOW_HALF = ((6, 1), (6, 2))
"""Pascal cards whose half precision is there for compatibility alone."""
_REFUSED = ("CUBLAS_STATUS_NOT_SUPPORTED", "CUBLAS_STATUS_INVALID_VALUE")
"""What cuBLAS says of a multiplication that it does not have. It has not begun it, and the card is as it was."""
_ON_THE_CPU = ("fp32", "bf16")
_SAMPLED = 64


def _why_not(card: cards.Card, precision: Precision) -> str:
    if not card.cuda:
        return "" if precision.name in _ON_THE_CPU else "not measured on a CPU"
    missing = card.capability < precision.capability
    if missing or (precision.name == "fp16" and card.capability in _SLOW_HALF):
        return f"the card has no {precision.name}"
    if precision.name == "fp8" and not (
        hasattr(card.torch, precision.kind) and hasattr(card.torch, "_scaled_mm")
    ):
        return f"PyTorch {card.torch.__version__} has no fp8"
    return ""


def _cannot(precision: Precision, problem: Exception) -> bool:
    """Whether it is PyTorch that cannot: torch._scaled_mm is private, has changed before, and is not for every card."""
    says = str(problem)
    return precision.name == "fp8" and (
        "CUDA error" not in says or any(status in says for status in _REFUSED)
    )


def _multiplication(torch: ModuleType, precision: Precision, a: Any, b: Any) -> Callable[[], Any]:
    if precision.name != "fp8":
        out = torch.empty(a.shape[0], b.shape[1], dtype=a.dtype, device=a.device)
        return lambda: torch.matmul(a, b, out=out)
    one = torch.ones((), device=a.device)
    # The hardware wants the second one stored by columns.
    by_columns = b.t().contiguous().t()

    def multiply() -> Any:
        made = torch._scaled_mm(
            a, by_columns, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
        )
        # Until PyTorch 2.4 it came with the largest value.
        return made[0] if isinstance(made, tuple) else made

    return multiply


def _error(torch: ModuleType, result: Any, a: Any, b: Any) -> float:
    """Of a block of rows and columns from all over."""
    size = a.shape[0]
    random = torch.Generator().manual_seed(7)
    rows, columns = (torch.randperm(size, generator=random)[:_SAMPLED] for _round in range(2))
    exact = a.float().cpu()[rows].double() @ b.float().cpu()[:, columns].double()
    return cards.error_of(result.float().cpu()[rows][:, columns], exact)


def _measure(card: cards.Card, precision: Precision, size: int, seconds: float) -> None:
    torch = card.torch
    torch.set_float32_matmul_precision(precision.float32)
    random = torch.Generator(card.device).manual_seed(1000 + card.index)
    kind = getattr(torch, precision.kind)
    a, b = (torch.randn(size, size, device=card.device, generator=random).to(kind) for _round in range(2))
    multiply = _multiplication(torch, precision, a, b)
    first = multiply().clone()
    calls = card.warm_up(multiply, seconds / 4)
    with workload.phase(precision.name, card.index):
        rounds = card.measure(multiply, seconds, calls)
    last = multiply()
    error = _error(torch, last, a, b)
    largest = first.float().abs().max()
    # What is no number differs from everything, itself included.
    same = (last.float() - first.float()).abs() <= precision.allowed * largest
    changed = same.numel() - int(same.sum().item())
    workload.figure(
        precision.name,
        2 * size**3 / rounds.median / 1e12,
        "TFLOPS",
        gpu=card.index,
        **rounds.more,
        shape=[size, size, size],
        error=None if error == float("inf") else error,
        allowed=precision.allowed,
        changed=changed,
    )


def _work(torch: ModuleType, device: str, small: bool, index: int) -> None:
    card = cards.Card(torch, device, index)
    size = 8192 if card.cuda else 768
    seconds = (6.0 if small else 12.0) if card.cuda else 0.6
    card.describe()
    for done, precision in enumerate(PRECISIONS):
        workload.progress(done / len(PRECISIONS), f"{precision.name} on {card.who}")
        why = _why_not(card, precision)
        if not why:
            try:
                _measure(card, precision, size, seconds)
            except (RuntimeError, TypeError) as problem:
                # The other precisions are to be told all the same.
                if not _cannot(precision, problem):
                    raise
                why = f"PyTorch {torch.__version__} cannot: {team.explain(problem)}"
        if why:
            workload.figure(precision.name, None, "TFLOPS", gpu=index, why=why)
    workload.progress(1, f"{card.who} is done")


def main() -> None:
    options = workload.parser(__doc__.splitlines()[0]).parse_args()
    torch = cards.torch_for(options.device)
    workload.begin("matmul", options, **cards.versions(torch))
    small = options.size == "small"
    team.run(options.workers, options.device, lambda index: _work(torch, options.device, small, index))
    workload.end()


if __name__ == "__main__":
    main()
