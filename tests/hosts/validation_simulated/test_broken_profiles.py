# SPDX-License-Identifier: GPL-3.0-or-later
"""Each thing that can be broken makes the check fail that is made for it, with advice for it, and no other. SIMULATED."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.hosts.conftest import Machine
from tests.hosts.validation_simulated.conftest import made, of_verdict, pace, root

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("mended")]

FAST = 0.3


@dataclass(frozen=True)
class Broken:
    """What is broken, which checks have to fail and which may, and words of the first one's sentence and advice."""

    kind: str
    fails: tuple[str, ...]
    says: str
    advice: str
    may: tuple[str, ...] = ()


CASES = (
    Broken("wrong --device 3", ("kernels", "pytorch"), "GPU 3 computes a wrong matmul", "must be replaced"),
    Broken("xid --device 0", ("kernel_log",), "Xid 119 on 0000:01:00.0", "switch the machine off and on"),
    Broken(
        "slow-all-reduce", ("all_reduce",), "6.2 GB/s over SHM, less than 10", "host_device_bandwidth first"
    ),
    Broken("lost --device 3", ("gpus_seen", "kernel_log"), "1 of 4 GPUs is lost: 0000:61:00.0", "reseat it"),
    Broken("memory --device 1", ("memory",), "(GPU 1, rtx5090) has 30559 MiB", "is broken"),
    Broken("persistence-off --device 0", ("persistence",), "GPU 0, rtx5090) has persistence off", "daemon"),
    Broken(
        "x8 --device 1",
        ("pcie_link",),
        "GPU 1, rtx5090) is on x8, declared is x16",
        "reseat",
        ("pcie_under_load",),
    ),
    Broken("mismatch", ("driver_versions",), "595.65.06", "reboot the machine"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_the_right_check_fails_with_the_right_advice(machine: Machine, case: Broken) -> None:
    pace(machine, FAST)
    root(machine, f"gpumesh-simulated-gpus break {case.kind}")
    document = made(machine)
    failed = of_verdict(document, "FAIL")
    assert set(case.fails) <= set(failed) <= {*case.fails, *case.may}
    assert document["status"] == 1
    assert document["verdict"]["checks"] == "FAIL"
    assert document["verdict"]["hardware"] is None
    first = failed[case.fails[0]]
    assert case.says in first["says"]
    assert case.advice in first["advice"]
    assert first["advice"]


def test_a_build_without_kernels_for_the_card_is_named_as_that(machine: Machine) -> None:
    pace(machine, FAST)
    root(machine, "gpumesh-simulated-gpus break no-kernels")
    document = made(machine)
    failed = of_verdict(document, "FAIL")
    assert {"kernels", "pytorch"} <= set(failed)
    # Whatever computes fails by it, and each says that it is the build and not the card.
    for check in failed.values():
        assert "no kernel image is available" in check["says"]
        assert "ai_frameworks" in check["advice"]


AT_WORK = {
    "slow --device 2": ("matmul", "GPU 2 reaches 84% of what its siblings do", "throttle_reasons"),
    "weak-link --device 1": ("pcie_under_load", "GPU 1 runs at generation 4 under load", "reseat"),
    "hot --device 3": ("aftermath", "(GPU 3, rtx5090) reached its own temperature limit", "fans"),
}


def test_what_shows_at_work_alone_is_told_apart_by_card(machine: Machine) -> None:
    # Judged by what the sensors read at work, so this one takes its time.
    for kind in AT_WORK:
        root(machine, f"gpumesh-simulated-gpus break {kind}")
    document = made(machine)
    failed = of_verdict(document, "FAIL")
    assert set(failed) == {name for name, _says, _advice in AT_WORK.values()}
    for name, says, advice in AT_WORK.values():
        assert says in failed[name]["says"]
        assert advice in failed[name]["advice"]
        sound = {f"GPU {index}" for index in range(4) if f"GPU {index}" not in says}
        assert [gpu for gpu in sound if gpu in failed[name]["says"]] == []
