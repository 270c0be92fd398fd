# SPDX-License-Identifier: GPL-3.0-or-later
"""The workloads of the frameworks, as far as they run without one: the right answers, the order of things, several at once."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
WORKLOADS = ROOT / "roles/validation/files/workloads"


def said(text: str) -> list[dict[str, Any]]:
    """Lines of the protocol."""
    return [json.loads(line) for line in text.splitlines()]


def python(program: str, *arguments: str) -> list[dict[str, Any]]:
    """Run a program beside the workloads; what it prints by their protocol."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        env={**os.environ, "PYTHONPATH": str(WORKLOADS)},
        check=True,
        capture_output=True,
        text=True,
    )
    return said(done.stdout)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(WORKLOADS))
    import reference as module

    yield module
    del sys.modules["reference"]


def test_the_answer_is_that_of_the_product(reference):
    left, right = reference.factors()
    side = range(reference.SIDE)

    for column in side:
        product = sum(left[3][place] * right[place][column] for place in side)
        assert reference.answer(1)[3][column] == max(0.0, 3 * product - 7)


def test_a_product_of_many_tiles_is_as_many_times_greater(reference):
    left, right = reference.factors()
    row = [*left[7], *left[7]]

    for column in range(reference.SIDE):
        found = sum(one * right[place % reference.SIDE][column] for place, one in enumerate(row))
        assert reference.answer(2)[7][column] == max(0.0, 3 * found - 7)


def test_the_numbers_are_exact_in_single_precision_and_in_tf32(reference):
    left, right = reference.factors()

    assert max(abs(number) for row in left + right for number in row) <= 8
    assert max(number for row in reference.answer(32) for number in row) < 2**24


def test_the_answer_has_zeros_and_others(reference):
    numbers = [number for row in reference.answer(1) for number in row]

    assert 0.2 < sum(number == 0 for number in numbers) / len(numbers) < 0.8


def test_what_is_learned_lowers_the_error(reference):
    rows = [pair for share in reference.samples(2) for pair in zip(*share, strict=True)]

    def error(weights: list[float]) -> float:
        return sum((sum(x * w for x, w in zip(row, weights, strict=True)) - y) ** 2 for row, y in rows)

    assert error(reference.learned(2)) < error([0.0] * reference.FEATURES)


def test_what_is_learned_depends_on_every_worker(reference):
    assert reference.difference(reference.learned(1), reference.learned(2)) > 0.01


@pytest.mark.parametrize("found", [[1.0, math.nan], [1.0]])
def test_what_is_no_answer_is_infinitely_far(reference, found):
    assert reference.difference(found, [1.0, 2.0]) == math.inf


def test_the_distance_is_a_share_of_the_largest(reference):
    assert reference.difference([1.0, 3.0], [1.0, 2.0]) == 0.5


STEP = """
    import argparse, sys
    import stepping
    given = argparse.Namespace(wait=False, seconds=0)
    calls = []

    def alone(index):
        if index == int(sys.argv[1]):
            raise RuntimeError("CUDA error: no kernel image is available\\nCompile with TORCH_USE_CUDA_DSA")
        return {"value": 0, "of": 4}

    def learn():
        calls.append(1)
        if len(calls) == int(sys.argv[2]):
            raise RuntimeError("NCCL error: unhandled system error")
        return [1e-7, 2e-7]

    if stepping.each(2, alone):
        stepping.all_together(2, lambda: learn, given)
"""


def figures(lines: list[dict[str, Any]], name: str) -> list[Any]:
    return [
        (line["value"], line.get("says", ""))
        for line in lines
        if line.get("name") == name and "value" in line
    ]


def test_every_device_computes_alone_and_then_together():
    lines = python(STEP, "-1", "-1")

    assert figures(lines, "wrong elements") == [(0, ""), (0, "")]
    assert figures(lines, "step difference") == [(1e-7, ""), (2e-7, "")]
    assert figures(lines, "steps") == [(3, "")]


def test_one_that_cannot_compute_does_not_keep_the_others_from_it():
    lines = python(STEP, "0", "-1")

    assert figures(lines, "wrong elements") == [(None, "CUDA error: no kernel image is available"), (0, "")]
    assert figures(lines, "step difference") == []


@pytest.mark.parametrize("call", ["1", "2"])
def test_a_step_that_fails_is_told_for_every_device(call):
    lines = python(STEP, "-1", call)

    assert figures(lines, "step difference") == [(None, "NCCL error: unhandled system error")] * 2


LLM = """
    import llm, workload
    workload.say(
        "llm",
        bytes=llm.weights(llm.SHAPES["llama-2-7b"], 2),
        p95=[llm.p95([7.0]), llm.p95(range(1, 31)), llm.p95(range(1, 101))],
        vocabulary=llm.config("llama-2-7b", "float16")["vocab_size"],
    )
"""


def test_the_shape_is_that_of_llama_2_7b():
    [told] = python(LLM)

    # 6 738 415 616 parameters in 16 bits, as published.
    assert told["bytes"] == 2 * 6_738_415_616
    assert told["vocabulary"] == 32000


def test_of_30_values_two_are_above_the_95th_percentile():
    assert python(LLM)[0]["p95"] == [7.0, 29, 95]


GOOD = """
    import json, sys, time
    def say(**line): print(json.dumps(line), flush=True)
    name = sys.argv[1].rpartition("/")[2]
    say(event="begin", simulated=SIMULATED, versions={name: "1"})
    say(event="progress", done=0.6, says="waits for the others")
    sys.stdin.readline()
    begin = time.time()
    time.sleep(0.3)
    say(event="phase", name="step", gpu=None, begin=begin, end=time.time())
    say(event="figure", name="steps", value=3, unit="", gpu=None)
    say(event="end")
"""


def pretended(path: Path, program: str, simulated: bool = False) -> Path:
    """An interpreter that does as if it ran a workload."""
    program = textwrap.dedent(program).replace("SIMULATED", str(simulated))
    path.write_text(f"#!{sys.executable}\n{program}")
    path.chmod(0o755)
    return path


def together(*pairs: str) -> tuple[int, list[dict[str, Any]]]:
    """Run frameworks at the same time."""
    asked = [word for pair in pairs for word in ("--with", pair)]
    done = subprocess.run(
        [
            sys.executable,
            str(WORKLOADS / "together.py"),
            "--device=cpu",
            "--workers=2",
            "--seconds=1",
            *asked,
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, said(done.stdout)


def test_frameworks_wait_for_each_other_and_their_figures_are_told_apart(tmp_path):
    one, other = (
        pretended(tmp_path / "a", GOOD),
        pretended(tmp_path / "b", f"\n    import time\n    time.sleep(1){GOOD}"),
    )
    status, lines = together(f"pytorch={one}", f"jax={other}")

    assert status == 0
    assert lines[0]["versions"] == {"torch_step.py": "1", "jax_step.py": "1"}
    assert lines[0]["simulated"] is False
    told = {line["framework"]: line["value"] for line in lines if line.get("name") == "steps"}
    assert told == {"pytorch": 3, "jax": 3}
    assert next(line["value"] for line in lines if line.get("name") == "overlap") > 0
    assert lines[-1] == {"event": "end"}


def test_one_that_is_simulated_makes_the_whole_simulated(tmp_path):
    one, other = pretended(tmp_path / "a", GOOD), pretended(tmp_path / "b", GOOD, simulated=True)

    assert together(f"pytorch={one}", f"jax={other}")[1][0]["simulated"] is True


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("raise SystemExit(7)", "jax: it ended with status 7"),
        (
            """print('{"event": "error", "says": "no memory"}'); raise SystemExit(1)""",
            "jax: no memory",
        ),
    ],
)
def test_one_that_breaks_is_named_and_holds_up_nobody(tmp_path, program, says):
    one, other = pretended(tmp_path / "a", GOOD), pretended(tmp_path / "b", program)
    status, lines = together(f"pytorch={one}", f"jax={other}")

    assert status == 1
    assert lines[-1] == {"event": "error", "says": says, "gpu": None}
    assert [line["framework"] for line in lines if line.get("name") == "steps"] == ["pytorch"]


def test_a_framework_that_nobody_knows_is_refused():
    status, lines = together("caffe=/usr/bin/python3")

    assert (status, lines) == (2, [])


def test_an_interpreter_that_is_not_there_is_named(tmp_path):
    status, lines = together(f"pytorch={pretended(tmp_path / 'a', GOOD)}", "jax=/none/python")

    assert status == 1
    assert lines[-1]["says"] == "/none/python cannot be run: No such file or directory"
