# SPDX-License-Identifier: GPL-3.0-or-later
"""Does every GPU compute, and is what it computes right?

That PyTorch finds a GPU does not say that it has kernels for it: a wheel that is older than the card finds it and fails at the
first kernel. So one is launched, and a few operations are compared with what the CPU makes of the same numbers in float64.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import cards
import team
import workload

_NO_KERNELS = "no kernel image"


def _launches(card: cards.Card) -> bool:
    torch = card.torch
    try:
        numbers = torch.arange(4096, device=card.device, dtype=torch.float32)
        right = bool(((numbers * 2 + 1).cpu() == torch.arange(4096) * 2 + 1).all())
        card.wait()
    except RuntimeError as problem:
        if _NO_KERNELS not in str(problem):
            raise
        workload.figure("launch", False, gpu=card.index, says=team.explain(problem))
        return False
    workload.figure(
        "launch", right, gpu=card.index, **({} if right else {"says": "a kernel returned wrong numbers"})
    )
    return right


def _answers(card: cards.Card) -> None:
    torch = card.torch
    on = card.device
    functional = torch.nn.functional
    random = torch.Generator().manual_seed(20_000 + card.index)

    def numbers(*shape: int) -> Any:
        return torch.randn(*shape, generator=random)

    torch.set_float32_matmul_precision("highest")
    a, b = numbers(512, 512), numbers(512, 512)
    _tell(card, "matmul", cards.error_of(a.to(on) @ b.to(on), a.double() @ b.double()), 1e-5)

    images, filters = numbers(8, 16, 32, 32), numbers(32, 16, 3, 3)
    exact = functional.conv2d(images.double(), filters.double(), padding=1)
    # Convolutions use TF32 by default where the card has it.
    found = functional.conv2d(images.to(on), filters.to(on), padding=1)
    _tell(card, "convolution", cards.error_of(found, exact), 5e-3)

    many = torch.rand(1 << 20, generator=random)
    _tell(card, "reduction", cards.error_of(many.to(on).sum(), many.double().sum()), 1e-5)

    whole = torch.randint(-(1 << 40), 1 << 40, (1 << 18,), generator=random)
    ordered = whole.sort().values.cumsum(0)
    wrong = (whole.to(on).sort().values.cumsum(0).cpu() != ordered).sum().item()
    _tell(card, "integers", wrong / len(whole), 0.0)


def _tell(card: cards.Card, name: str, error: float, allowed: float) -> None:
    # JSON has no infinity: what is not even a number is told as null, which no judge takes for right.
    value = error if error != float("inf") else None
    workload.figure(name, value, "relative error", gpu=card.index, allowed=allowed)


def _work(torch: ModuleType, device: str, index: int) -> None:
    card = cards.Card(torch, device, index)
    card.describe()
    with workload.phase("kernels", index):
        if _launches(card):
            _answers(card)
            card.wait()
    workload.progress(1, f"{card.who} has computed")


def main() -> None:
    options = workload.parser(__doc__.splitlines()[0]).parse_args()
    torch = cards.torch_for(options.device)
    workload.begin("kernels", options, **cards.versions(torch))
    built = torch._C._cuda_getArchFlags() if options.device == "cuda" else ""
    workload.figure("architectures", built or "cpu")
    team.run(options.workers, options.device, lambda index: _work(torch, options.device, index))
    workload.end()


if __name__ == "__main__":
    main()
