# SPDX-License-Identifier: GPL-3.0-or-later
"""Small problems with their right answers in plain Python: what a framework's answers are compared with.

The numbers of the product are whole and small, so that every arithmetic from TF32 up gives them exactly: an element that is not
equal is wrong, and no tolerance can hide it.
"""

from __future__ import annotations

import math
import random

SIDE = 48
FEATURES = 8
ROWS = 16
RATE = 0.05
STEPS = 3

Matrix = list[list[float]]


def factors() -> tuple[Matrix, Matrix]:
    """Two square matrices of whole numbers from -8 to 8."""
    numbers = random.Random(2304)
    return tuple(  # type: ignore[return-value]
        [[float(numbers.randint(-8, 8)) for _column in range(SIDE)] for _row in range(SIDE)] for _one in "ab"
    )


def answer(tiles: int) -> Matrix:
    """The greater of 0 and 3 x product - 7, where both factors are laid out `tiles` x `tiles` times: one block of the result.

    All blocks of the result are equal, so that a large product has an answer that is known without computing it.
    """
    left, right = factors()
    columns = list(zip(*right, strict=True))
    return [
        [max(0.0, 3 * tiles * sum(a * b for a, b in zip(row, column, strict=True)) - 7) for column in columns]
        for row in left
    ]


def samples(workers: int) -> list[tuple[Matrix, list[float]]]:
    """What each worker learns a linear function from: its inputs and outputs."""
    numbers = random.Random(816)
    truth = [numbers.uniform(-1, 1) for _feature in range(FEATURES)]
    shares = []
    for _worker in range(workers):
        inputs = [[numbers.uniform(-1, 1) for _feature in range(FEATURES)] for _row in range(ROWS)]
        outputs = [sum(x * w for x, w in zip(row, truth, strict=True)) + 0.25 for row in inputs]
        shares.append((inputs, outputs))
    return shares


def learned(workers: int) -> list[float]:
    """The weights after `STEPS` steps down the gradient of the mean squared error of all workers' samples, from zero."""
    rows = [pair for inputs, outputs in samples(workers) for pair in zip(inputs, outputs, strict=True)]
    weights = [0.0] * FEATURES
    for _step in range(STEPS):
        slopes = [0.0] * FEATURES
        for row, output in rows:
            miss = sum(x * w for x, w in zip(row, weights, strict=True)) - output
            for place, x in enumerate(row):
                slopes[place] += 2 * miss * x / len(rows)
        weights = [weight - RATE * slope for weight, slope in zip(weights, slopes, strict=True)]
    return weights


def difference(found: list[float], expected: list[float]) -> float:
    """The largest distance from what is expected, as a share of the largest that is expected; infinite where one is no number."""
    if len(found) != len(expected) or any(math.isnan(value) for value in found):
        return float("inf")
    largest = max(abs(value) for value in expected)
    return max(abs(one - other) for one, other in zip(found, expected, strict=True)) / largest
