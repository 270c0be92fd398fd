# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast is the memory of every GPU, and does it keep what is written to it?

Part bandwidth: copy and triad over arrays far larger than any cache. Part pattern: most of the free memory is filled before any of
it is read again, so that a cell that loses its content, and an address line that reaches two cells, are both found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import cards
import team
import workload

_GIB = 1 << 30
_SHARE = 0.90
"""Of the free memory."""
_SPARE = 4
"""Blocks that stay free: what making and comparing a block takes, and some for the libraries."""
_MOST_PLACES = 8
_WORD = 4


# Bandwidth.


def _triad(card: cards.Card, seconds: float) -> None:
    torch = card.torch
    free = torch.cuda.mem_get_info(card.device)[0] if card.cuda else _GIB
    count = min(_GIB, free // 8 if card.cuda else 1 << 25) // _WORD
    index = torch.arange(count, device=card.device, dtype=torch.int32)
    # Whole numbers below 2^24: float32 holds them, and their sum, exactly.
    b, c = (index % 997).float(), (index % 499).float()
    a = torch.empty_like(b)
    expected = b + 3 * c
    for name, moved, work in (
        ("copy", 2, lambda: a.copy_(b)),
        ("triad", 3, lambda: torch.add(b, c, alpha=3, out=a)),
    ):
        workload.progress(0.5 * (name == "triad"), f"{name} on {card.who}")
        calls = card.warm_up(work, seconds / 4)
        with workload.phase(name, card.index):
            rounds = card.measure(work, seconds, calls)
        right = b if name == "copy" else expected
        workload.figure(
            name,
            moved * count * _WORD / rounds.median / 1e9,
            "GB/s",
            gpu=card.index,
            **rounds.more,
            bytes=moved * count * _WORD,
            wrong=int((a != right).sum().item()),
        )


# Patterns.


class _Pattern:
    """What a block is to hold, made anew whenever it is asked for."""

    def __init__(self, name: str, make: Callable[[int, int], Any]) -> None:
        self.name = name
        self.make = make


def _patterns(card: cards.Card, passes: int) -> Iterator[_Pattern]:
    torch = card.torch
    on = card.device

    def constant(value: int) -> Callable[[int, int], Any]:
        return lambda block, words: torch.full((words,), value, dtype=torch.int32, device=on)

    def addresses(block: int, words: int) -> Any:
        """Each word holds its own number: one that is reached by two addresses can hold only one of them."""
        first = block * words & 0xFFFFFFFF
        return torch.arange(words, device=on, dtype=torch.int32) + (first - (first >> 31 << 32))

    def walking(shift: int) -> Callable[[int, int], Any]:
        def make(block: int, words: int) -> Any:
            bit = torch.arange(words, device=on, dtype=torch.int32).add_(shift).bitwise_and_(31)
            return torch.bitwise_left_shift(torch.ones_like(bit), bit)

        return make

    def random(seed: int) -> Callable[[int, int], Any]:
        def make(block: int, words: int) -> Any:
            generator = torch.Generator(on).manual_seed(seed * 1_000_003 + block)
            return torch.empty(words, dtype=torch.int32, device=on).random_(generator=generator)

        return make

    yield _Pattern("zeros", constant(0))
    yield _Pattern("ones", constant(-1))
    yield _Pattern("0x55555555", constant(0x55555555))
    yield _Pattern("0xaaaaaaaa", constant(~0x55555555))
    yield _Pattern("addresses", addresses)
    for number in range(passes):
        yield _Pattern(f"walking bit {number}", walking(number * 7 + card.index))
        yield _Pattern(f"random {number}", random(number * 31 + card.index + 1))


def _take(card: cards.Card) -> list[Any]:
    """Most of the free memory, in blocks."""
    torch = card.torch
    if not card.cuda:
        return [torch.empty(1 << 22, dtype=torch.int32) for _round in range(4)]
    free, _unused = torch.cuda.mem_get_info(card.device)
    size = min(_GIB, max(1 << 26, free // 16))
    blocks: list[Any] = []
    while (len(blocks) + 1) * size <= min(free * _SHARE, free - _SPARE * size):
        try:
            blocks.append(torch.empty(size // _WORD, dtype=torch.int32, device=card.device))
        except RuntimeError as problem:
            # Another process has taken some meanwhile.
            if "out of memory" not in str(problem) or not blocks:
                raise
            break
    return blocks


def _places(block: Any, number: int, expected: Any, name: str, most: int) -> tuple[int, list[dict[str, Any]]]:
    """How many words of a block are wrong, and where the first of them are."""
    differs = block != expected
    count = int(differs.sum().item())
    if not count or most <= 0:
        return count, []
    words = len(block)
    places = []
    for at in differs.nonzero().flatten()[:most].tolist():
        wrote, read = (int(one[at].item()) & 0xFFFFFFFF for one in (expected, block))
        offset = at * _WORD
        places.append(
            {
                "pattern": name,
                "offset": hex(number * words * _WORD + offset),
                "address": hex(block.data_ptr() + offset),
                "wrote": f"0x{wrote:08x}",
                "read": f"0x{read:08x}",
                "bits": (wrote ^ read).bit_count(),
            }
        )
    return count, places


def _fill_and_compare(card: cards.Card, passes: int) -> None:
    total = card.torch.cuda.get_device_properties(card.device).total_memory if card.cuda else None
    patterns = list(_patterns(card, passes))
    wrong = 0
    places: list[dict[str, Any]] = []
    with workload.phase("pattern", card.index):
        blocks = _take(card)
        if not blocks:
            workload.fail(f"{card.who}: has no free memory to test", gpu=card.index)
        for done, pattern in enumerate(patterns):
            workload.progress(done / len(patterns), f"{pattern.name} on {card.who}")
            for number, block in enumerate(blocks):
                block.copy_(pattern.make(number, len(block)))
            for number, block in enumerate(blocks):
                expected = pattern.make(number, len(block))
                found, where = _places(block, number, expected, pattern.name, _MOST_PLACES - len(places))
                wrong += found
                places += where
        card.wait()
    tested = sum(len(block) for block in blocks) * _WORD
    workload.figure(
        "tested",
        tested / _GIB,
        "GiB",
        gpu=card.index,
        share=round(tested / total, 4) if total else None,
        passes=passes,
        patterns=[pattern.name for pattern in patterns],
    )
    workload.figure("mismatches", wrong, gpu=card.index, places=places)


def _work(torch: ModuleType, options: Any, index: int) -> None:
    card = cards.Card(torch, options.device, index)
    small = options.size == "small"
    card.describe()
    if options.part == "bandwidth":
        _triad(card, (2.0 if small else 5.0) if card.cuda else 0.5)
    else:
        _fill_and_compare(card, 1 if small else 4)
    workload.progress(1, f"{card.who} is done")


def main() -> None:
    parser = workload.parser(__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("bandwidth", "pattern"), required=True)
    options = parser.parse_args()
    torch = cards.torch_for(options.device)
    workload.begin("memory", options, **cards.versions(torch))
    team.run(options.workers, options.device, lambda index: _work(torch, options, index))
    workload.end()


if __name__ == "__main__":
    main()
