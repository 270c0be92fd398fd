# SPDX-License-Identifier: GPL-3.0-or-later
"""A framework goes to a newer version and back by its link, refuses what is not of its lock, and all go without a trace."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.hosts.conftest import Machine

pytestmark = pytest.mark.docker

ROOT = "/opt/gpumesh/frameworks"


def in_use(machine: Machine, framework: str) -> str:
    """The environment that the link leads to."""
    return machine.ssh(f"readlink {ROOT}/{framework}").stdout.strip().rpartition("/")[2]


def version(machine: Machine, framework: str = "jax") -> str:
    code = f"import importlib.metadata as m; print(m.version({framework!r}))"
    return machine.ssh(f"python-{framework} -c {shlex.quote(code)}").stdout.strip()


def test_check_mode_shows_an_upgrade_and_makes_none(machine: Machine) -> None:
    before = in_use(machine, "jax")
    played = machine.play("--check", "--diff", ai_frameworks_jax=True)
    assert played.returncode == 0, played.said
    assert f"-{before}" in played.said
    assert "+0.10.2-cpu-" in played.said
    assert in_use(machine, "jax") == before


def test_a_newer_version_beside_the_old_and_back_by_the_link(machine: Machine) -> None:
    before, others = in_use(machine, "jax"), [in_use(machine, name) for name in ("pytorch", "tensorflow")]
    # Somebody is at work in the old one the whole time.
    machine.ssh("nohup python-jax -c 'import time; time.sleep(600)' >/dev/null 2>&1 & echo $! >/tmp/worker")
    played = machine.play(ai_frameworks_jax=True)
    assert played.returncode == 0, played.said
    assert version(machine) == "0.10.2"
    assert in_use(machine, "jax").startswith("0.10.2-cpu-")
    assert [in_use(machine, name) for name in ("pytorch", "tensorflow")] == others
    assert (
        machine.ssh(f"test -e {ROOT}/envs/jax/{before}/bin/python && kill -0 $(cat /tmp/worker)").returncode
        == 0
    )
    shown = machine.play("--check", playbook="rollback.yml")
    assert shown.returncode == 0, shown.said
    assert f"would be replaced by {before}" in shown.said
    played = machine.play(playbook="rollback.yml")
    assert played.returncode == 0, played.said
    assert f"JAX {'0.10.2-cpu'}-" in played.said
    assert "To keep it, declare ai_frameworks_jax: '0.10.1'" in played.said
    assert (version(machine), in_use(machine, "jax")) == ("0.10.1", before)
    assert [in_use(machine, name) for name in ("pytorch", "tensorflow")] == others
    machine.ssh("kill $(cat /tmp/worker)")
    again = machine.play("--check")
    assert "changed=0" in again.said, again.said


def test_a_wheel_that_is_not_of_the_lock_is_refused_and_nothing_moves(machine: Machine) -> None:
    lock: Path = machine.folder / "locks" / "jax-0.10.0-cpu.txt"
    made = (machine.folder / "locks" / "jax-0.10.1-cpu.txt").read_text()
    lock.write_text(made.replace("jax==0.10.1", "jax==0.10.0").replace("jaxlib==0.10.1", "jaxlib==0.10.0"))
    before = in_use(machine, "jax")
    try:
        played = machine.play(ai_frameworks_jax="0.10.0")
    finally:
        lock.unlink()
    assert played.returncode == 2
    assert "a wheel is not the one that the lock names" in played.said
    assert "nothing that was in use has changed" in played.said
    assert in_use(machine, "jax") == before
    assert version(machine) == "0.10.1"


def test_what_cannot_work_is_refused_at_once_before_anything_changes(machine: Machine) -> None:
    machine.ssh("printf '#!/bin/sh\\necho mine\\n' | sudo tee /usr/local/bin/vllm >/dev/null")
    try:
        played = machine.play(
            ai_frameworks_third_party_allowed=True,
            ai_frameworks_lock_missing="refuse",
            ai_frameworks_jax="0.10.2+cu130",
        )
        assert "jax: '0.10.2+cu130' is no version of a build for the CPU" in played.said
        played = machine.play(
            ai_frameworks_third_party_allowed=True,
            ai_frameworks_lock_missing="refuse",
            ai_frameworks_python="/usr/bin/python3.9",
            ai_frameworks_index_url="https://me:secret@mirror.example/simple",
        )
    finally:
        kept = machine.ssh("cat /usr/local/bin/vllm; sudo rm /usr/local/bin/vllm").stdout
    assert played.returncode == 2
    assert "/usr/bin/python3.9 is not there or does not run" in played.said
    assert "/usr/local/bin/vllm is not of this role and was left as it is" in played.said
    assert "there is no lock vllm-0.32.0-cpu.txt" in played.said
    assert "put it into /root/.netrc" in played.said
    assert "changed=0" in played.said
    assert "echo mine" in kept


def test_a_machine_without_a_gpu_is_skipped_with_one_line(machine: Machine) -> None:
    played = machine.play(ai_frameworks_device="cuda")
    assert played.returncode == 0, played.said
    assert "This machine has no NVIDIA GPU and none is declared, so it gets no frameworks" in played.said
    assert "changed=0" in played.said


def test_one_that_is_not_wanted_any_more_goes_with_its_launcher_and_comes_back(machine: Machine) -> None:
    before = in_use(machine, "tensorflow")
    played = machine.play(ai_frameworks_tensorflow=False)
    assert played.returncode == 0, played.said
    left = machine.ssh(f"ls -d {ROOT}/tensorflow {ROOT}/envs/tensorflow/* /usr/local/bin/python-tensorflow")
    assert left.stdout == f"{ROOT}/envs/tensorflow/{before}\n"
    assert "TensorFlow" not in machine.ssh("run-parts /etc/update-motd.d").stdout
    again = machine.play("--check", ai_frameworks_tensorflow=False)
    assert "changed=0" in again.said, again.said
    played = machine.play(playbook="rollback.yml")
    assert played.returncode == 0, played.said
    assert in_use(machine, "tensorflow") == before
    assert machine.ssh("python-tensorflow -c 'import numpy'").returncode == 0


def test_one_that_is_not_wanted_any_more_goes_for_good_where_nothing_is_kept(machine: Machine) -> None:
    played = machine.play(ai_frameworks_tensorflow=False, ai_frameworks_keep=0)
    assert played.returncode == 0, played.said
    left = machine.ssh(
        f"ls -d {ROOT}/tensorflow {ROOT}/envs/tensorflow /usr/local/bin/python-tensorflow; ls {ROOT}/cache/archive-v0 | wc -l"
    )
    assert "tensorflow" not in left.stdout
    assert "TensorFlow" not in machine.ssh("run-parts /etc/update-motd.d").stdout
    found = machine.ssh(f"sudo find {ROOT}/cache -name 'libtensorflow*' -print -quit").stdout
    assert found == ""
    # Its environment is gone, so there is no way back to it, and that is said before anything is touched.
    played = machine.play(playbook="rollback.yml")
    assert played.returncode == 2
    assert "TensorFlow: the environment 2.21.0-cpu-" in played.said
    assert "is not kept any more" in played.said


def test_the_gate_misses_a_framework_that_is_broken(machine: Machine) -> None:
    site = f"{ROOT}/jax/lib/python3.11/site-packages"
    machine.ssh(f"sudo mv {site}/jaxlib {site}/jaxlib.away")
    try:
        played = machine.play("--tags", "gate", ai_frameworks_tensorflow=False)
        assert played.returncode == 2
        assert "JAX loads: " in played.said
        assert "PyTorch loads: " not in played.said
        assert "changed=0" in played.said
    finally:
        machine.ssh(f"sudo mv {site}/jaxlib.away {site}/jaxlib")


def test_a_gate_without_a_lock_on_the_control_machine_proves_nothing(machine: Machine) -> None:
    played = machine.play("--tags", "gate", ai_frameworks_locks_folder="/nonexistent")
    assert played.returncode == 2
    assert "PyTorch is the declared one: nobody can say, for there is no lock of it" in played.said


def test_a_folder_with_something_of_somebody_else_is_refused(machine: Machine) -> None:
    assert machine.ssh("sudo mkdir /srv/data && sudo touch /srv/data/accounts.db").returncode == 0
    played = machine.play(ai_frameworks_folder="/srv/data")
    assert played.returncode == 2
    assert "/srv/data has something of somebody else in it" in played.said
    assert machine.ssh("ls -A /srv/data").stdout == "accounts.db\n"


def test_all_go_without_a_trace(machine: Machine) -> None:
    machine.ssh(f"sudo touch {ROOT}/notes.txt")
    played = machine.play(playbook="rollback.yml", ai_frameworks_rollback_to="none")
    assert played.returncode == 0, played.said
    # What somebody else has put there stays, and is all that does.
    assert "notes.txt stays" in played.said
    assert machine.ssh(f"ls -A {ROOT}").stdout == "notes.txt\n"
    machine.ssh(f"sudo rm -r {ROOT}")
    left = machine.ssh(
        f"ls -d {ROOT} /var/lib/gpumesh/ai_frameworks /etc/update-motd.d/*gpumesh*; ls /usr/local/bin; "
        "sudo find / -xdev -path /proc -prune -o \\( -name '*pytorch*' -o -name 'jax*' \\) -print | grep -v ^/tmp"
    ).stdout
    assert left == ""
    facts = json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh.fact").stdout)["layers"]["ai_frameworks"]
    assert facts["state"] == "absent"
    played = machine.play(playbook="rollback.yml", ai_frameworks_rollback_to="none")
    assert "changed=0" in played.said, played.said
