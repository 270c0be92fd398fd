# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate of the frameworks finds what does not compute, names it with what to do, and passes nothing that it did not see.

The frameworks are played by small programs that speak the protocol of the workloads; the gate runs them as it runs the real ones.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GATE = Path(__file__).parents[3] / "roles" / "ai_frameworks" / "files" / "gate.py"
TITLES = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX", "vllm": "vLLM"}

# What a sound framework says, with places where a test may change it.
SOUND = """
import json, sys, time
def say(event, **values): print(json.dumps({"event": event, **values}), flush=True)
workers = int(next(word for word in sys.argv if word.startswith("--workers=")).partition("=")[2])
say("begin", workload="step", versions={"torch": "2.13.0"}, simulated=False)
say("figure", name="devices", value=workers)
for gpu in range(workers):
    say("figure", name="wrong elements", gpu=gpu, value=0)
say("progress", done=0.6, says="waits for the others")
sys.stdin.readline()
begin = time.time()
time.sleep(0.5)
say("phase", name="step", begin=begin, end=time.time())
for gpu in range(workers):
    say("figure", name="step difference", gpu=gpu, value=1e-7)
say("end")
"""


class Gate:
    """A machine with frameworks that say what a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "frameworks"
        self.wanted: dict[str, Any] = {
            "device": "cuda", "folder": str(self.folder), "environments": [], "programs": {}, "workers": 2, "expected": 2,
            "share": 0.4, "unsupported": [], "unlocked": [], "deferred": False, "simulated": False,
        }  # fmt: skip

    def has(self, framework: str, program: str = SOUND) -> None:
        """A framework in use, whose Python is the one that runs this."""
        key = "1.0-cpu-0123456789ab"
        environment = self.folder / "envs" / framework / key
        (environment / "bin").mkdir(parents=True)
        (environment / "bin" / "python").symlink_to(sys.executable)
        (environment / "gpumesh.json").write_text("{}")
        (self.folder / framework).symlink_to(Path("envs", framework, key))
        self.wanted["environments"].append(
            {"framework": framework, "title": TITLES[framework], "key": key, "program": f"{framework}.py"}
        )
        self.wanted["programs"][f"{framework}.py"] = program

    def run(self) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", GATE.read_text(encoding="utf-8")],
            input=json.dumps(self.wanted), check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return dict(json.loads(done.stdout))

    def fails(self) -> dict[str, str]:
        """What is said of each check that failed, by its name."""
        return {one["name"]: one["says"] for one in self.run()["checks"] if not one["ok"]}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_what_computes_right_is_proved_and_named(gate: Gate) -> None:
    gate.has("pytorch")
    gate.has("jax")
    evidence = gate.run()
    assert [one["name"] for one in evidence["checks"] if not one["ok"]] == []
    names = [one["name"] for one in evidence["checks"]]
    for title in ("PyTorch", "JAX"):
        assert {f"{title} loads", f"{title} sees every GPU", f"{title} computes right on every GPU"} <= set(
            names
        )
    assert "all frameworks at the same time" in names
    assert evidence["versions"]["pytorch"] == {"torch": "2.13.0"}
    assert evidence["says"][0] == "PyTorch, JAX compute right on 2 GPUs, all at the same time."


def test_on_the_cpu_and_simulated_it_says_so(gate: Gate) -> None:
    gate.has("jax", SOUND.replace("simulated=False", "simulated=True"))
    evidence = gate.run()
    assert evidence["simulated"]
    assert evidence["says"][0].startswith("SIMULATED: ")
    gate.wanted |= {"device": "cpu", "workers": 1, "expected": 1}
    gate.wanted["programs"]["jax.py"] = SOUND
    assert gate.run()["says"][0].startswith("CPU: ")


def test_a_device_that_is_there_and_has_no_kernels_is_caught(gate: Gate) -> None:
    gate.has(
        "pytorch",
        SOUND.replace("gpu=gpu, value=0)", 'gpu=gpu, value=None if gpu else 0, says="no kernel image")'),
    )
    fails = gate.fails()
    assert (
        "GPU 1: no kernel image; where it has no kernels for the card"
        in fails["PyTorch computes right on every GPU"]
    )


def test_a_wrong_answer_is_caught(gate: Gate) -> None:
    gate.has("jax", SOUND.replace("gpu=gpu, value=0)", "gpu=gpu, value=7)"))
    assert "GPU 0: 7 off; GPU 1: 7 off" in gate.fails()["JAX computes right on every GPU"]


def test_wrong_weights_of_all_together_are_caught(gate: Gate) -> None:
    gate.has("jax", SOUND.replace("value=1e-7", "value=0.1"))
    assert list(gate.fails()) == ["JAX computes right on all together"]


def test_one_that_sees_too_few_is_caught(gate: Gate) -> None:
    gate.has("jax", SOUND.replace('name="devices", value=workers', 'name="devices", value=1, says="hidden"'))
    assert "it sees 1 of 2: hidden" in gate.fails()["JAX sees every GPU"]


def test_one_that_does_not_say_has_proved_nothing(gate: Gate) -> None:
    gate.has("jax", SOUND.replace('say("figure", name="wrong elements", gpu=gpu, value=0)', "pass"))
    assert "GPU 0: it did not say; GPU 1: it did not say" in gate.fails()["JAX computes right on every GPU"]


def test_one_that_does_not_load_says_why(gate: Gate) -> None:
    gate.has("pytorch", "import sys; print('libcudart.so.13: cannot open', file=sys.stderr); sys.exit(1)")
    gate.has("jax")
    fails = gate.fails()
    assert "libcudart.so.13: cannot open; run the role again" in fails["PyTorch loads"]
    assert "JAX loads" not in fails


def test_one_that_ends_half_way_is_caught(gate: Gate) -> None:
    gate.has("jax", SOUND.replace('say("end")', "print('killed', file=sys.stderr); sys.exit(3)"))
    assert "it ended with status 3 and said: killed" in gate.fails()["JAX computes right on all together"]


def test_one_after_the_other_is_not_at_the_same_time(gate: Gate) -> None:
    gate.has("pytorch", SOUND.replace("begin = time.time()", "time.sleep(2); begin = time.time()"))
    gate.has("jax")
    assert list(gate.fails()) == ["all frameworks at the same time"]


def test_vllm_has_to_load_beside_its_pytorch(gate: Gate) -> None:
    gate.has("vllm")
    assert "No module named 'vllm'" in gate.fails()["vLLM loads"]


def test_another_environment_in_use_than_declared_is_caught(gate: Gate) -> None:
    gate.has("jax")
    gate.wanted["environments"][0]["key"] = "2.0-cpu-0123456789ab"
    says = gate.fails()["JAX is the declared one"]
    assert "1.0-cpu-0123456789ab is in use and 2.0-cpu-0123456789ab is declared" in says


def test_a_gpu_that_the_driver_has_lost_is_not_passed_over(gate: Gate) -> None:
    gate.has("jax")
    gate.wanted["expected"] = 3
    assert "2 of 3 do" in gate.fails()["every GPU answers the driver"]


def test_what_was_not_tried_is_named_and_does_not_fail(gate: Gate) -> None:
    gate.has("jax")
    gate.wanted["unsupported"] = [
        {"framework": "tensorflow", "title": "TensorFlow", "says": "No wheel has kernels."}
    ]
    evidence = gate.run()
    assert all(one["ok"] for one in evidence["checks"])
    assert evidence["says"][-1] == "TensorFlow was not tried: No wheel has kernels."


@pytest.mark.parametrize("deferred", [False, True])
def test_a_declared_one_without_a_lock_is_not_passed_over(gate: Gate, deferred: bool) -> None:
    gate.has("jax")
    gate.wanted |= {"unlocked": ["PyTorch"], "deferred": deferred}
    fails = gate.fails()
    assert list(fails) == ["PyTorch is the declared one"]
    assert (
        "there is no lock of it on the control machine; run '--tags frameworks'"
        in fails["PyTorch is the declared one"]
    )


def test_one_that_proves_nothing_of_what_is_declared_fails(gate: Gate) -> None:
    gate.wanted |= {"device": "cpu", "workers": 1, "expected": 1}
    assert gate.fails() == {}
    gate.wanted["unsupported"] = [{"framework": "vllm", "title": "vLLM", "says": "It is not of the project."}]
    assert "of those that are declared (vLLM) none can be had" in gate.fails()["a framework computes"]


def test_a_gpu_that_answers_is_no_proof_of_any_framework(gate: Gate) -> None:
    assert gate.fails() == {}
    gate.wanted["unsupported"] = [{"framework": "jax", "title": "JAX", "says": "No wheel has kernels."}]
    assert list(gate.fails()) == ["a framework computes"]


def test_deferred_it_computes_nothing_and_claims_nothing(gate: Gate) -> None:
    gate.has("jax", "raise SystemExit(1)")
    gate.wanted |= {"deferred": True, "workers": 0}
    evidence = gate.run()
    assert [one["name"] for one in evidence["checks"]] == ["JAX is the declared one"]
    assert evidence["says"][0] == "Nothing was computed."
