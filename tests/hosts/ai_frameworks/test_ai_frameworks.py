# SPDX-License-Identifier: GPL-3.0-or-later
"""Three real frameworks side by side on a machine, seen from outside: what is there, where, and what it shares."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.hosts.conftest import Machine

pytestmark = pytest.mark.docker

ROOT = "/opt/gpumesh/frameworks"
COMPUTES = {
    "pytorch": "import torch; print(torch.__version__, int((torch.ones(8, 8) @ torch.ones(8, 8)).sum()))",
    "tensorflow": "import tensorflow as tf; print(tf.__version__, int(tf.reduce_sum(tf.matmul(tf.ones((8, 8)), tf.ones((8, 8))))))",
    "jax": "import jax; print(jax.__version__, int((jax.numpy.ones((8, 8)) @ jax.numpy.ones((8, 8))).sum()))",
}
VERSIONS = {"pytorch": "2.13.0+cpu", "tensorflow": "2.21.0", "jax": "0.10.1"}


def says(machine: Machine, framework: str, code: str) -> str:
    """What the framework's launcher says, for somebody who is not root."""
    done = machine.ssh(f"python-{framework} -c {shlex.quote(code)}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("framework", COMPUTES)
def test_each_framework_computes_right_by_its_launcher(machine: Machine, framework: str) -> None:
    assert says(machine, framework, COMPUTES[framework]) == f"{VERSIONS[framework]} 512"


def test_no_framework_sees_another_and_the_system_has_none(machine: Machine) -> None:
    for framework, other in (("pytorch", "jax"), ("tensorflow", "torch"), ("jax", "tensorflow")):
        assert (
            says(machine, framework, f"import importlib.util as u; print(u.find_spec({other!r}))") == "None"
        )
    for name in ("torch", "tensorflow", "jax", "numpy"):
        assert machine.ssh(f"/usr/bin/python3 -c 'import {name}'").returncode == 1
    assert machine.ssh("ls -A /usr/local/lib/python3.11/dist-packages").stdout == ""
    assert (
        machine.ssh(
            "grep -rlE 'LD_LIBRARY_PATH|cuda' /etc/environment /etc/profile.d /etc/ld.so.conf.d"
        ).stdout
        == ""
    )


def test_torchrun_is_pytorchs(machine: Machine) -> None:
    code = "import os; print('rank', os.environ['RANK'])"
    machine.ssh(f"printf %s {shlex.quote(code)} >/tmp/rank.py")
    done = machine.ssh("torchrun --nproc-per-node=1 /tmp/rank.py")
    assert done.stdout.strip() == "rank 0", done.stderr


def test_what_several_have_is_stored_once(machine: Machine) -> None:
    inodes = machine.ssh(
        f"for name in pytorch tensorflow jax; do stat -Lc %i {ROOT}/$name/lib/python3.11/site-packages/numpy/__init__.py; done"
    ).stdout.split()
    assert len(inodes) == 3
    assert len(set(inodes)) == 1
    apparent, actual = (
        int(machine.ssh(f"sudo du -s {options} {ROOT} | cut -f1").stdout) for options in ("--count-links", "")
    )
    # Environments and cache, each counted by itself, against what is on the disk.
    print(f"{apparent / 1e6:.2f} GB in files, {actual / 1e6:.2f} GB on the disk")
    assert actual < 0.65 * apparent


def test_locks_were_made_once_and_are_kept_on_the_control_machine(machine: Machine) -> None:
    locks = sorted(path.name for path in (machine.folder / "locks").iterdir())
    assert [name.split("-")[0] for name in locks] == ["jax", "pytorch"]
    text = (machine.folder / "locks" / "jax-0.10.1-cpu.txt").read_text()
    assert text.startswith("# Made on machine from: jax==0.10.1\n")
    assert "--hash=sha256:" in text


def test_who_logs_in_is_told(machine: Machine) -> None:
    message = machine.ssh("run-parts /etc/update-motd.d").stdout
    assert "PyTorch     2.13.0-cpu         python-pytorch, torchrun" in message
    assert "JAX         0.10.1-cpu         python-jax" in message
    assert "vLLM" not in message


def test_the_facts_say_what_was_proved_on_what(machine: Machine) -> None:
    facts = json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh.fact").stdout)["layers"]["ai_frameworks"]
    assert facts["device"] == "cpu"
    assert facts["gpus"] == 0
    assert facts["versions"]["jax"]["jax"] == "0.10.1"
    assert "all frameworks at the same time" in facts["checks"]
    assert "vllm" in facts["unsupported"]
    assert sorted(facts["environments"]) == ["jax", "pytorch", "tensorflow"]


def test_nobody_but_root_can_change_an_environment(machine: Machine) -> None:
    assert machine.ssh(f"find -L {ROOT} -maxdepth 6 -writable -not -type l -print -quit").stdout == ""
