# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH over the mesh on a real host and for its operator: strict for whoever comes, and not a byte of others touched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.conftest import Machine

pytestmark = pytest.mark.docker

HOSTS = "/etc/hosts"
TEMPLATE = "/etc/cloud/templates/hosts.debian.tmpl"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGK1YMtbvcH7ZLDWXxlGMvm8CY5OwhMWyRgAFl2iWlM1"


def root(machine: Machine, command: str) -> str:
    """What a command says that root runs on the machine."""
    done = machine.ssh(f"sudo sh -c '{command}'")
    assert done.returncode == 0, done.stderr
    return done.stdout


def edit_hosts(machine: Machine, script: str) -> None:
    """Change the hosts file with sed; not in place, for it is mounted by itself."""
    root(machine, f'sed "{script}" /etc/hosts > /root/edited; cp /root/edited /etc/hosts')


def same(machine: Machine, one: str, other: str) -> bool:
    """Whether two files on the machine are the same to the byte."""
    return machine.ssh(f"sudo cmp {one} {other}").returncode == 0


def by_name(machine: Machine, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Connect from the operator's machine as somebody with no other configuration, and no answers to questions."""
    config = machine.folder / "operator" / "config"
    return subprocess.run(
        ["ssh", "-F", str(config), *options, name, "hostname"],
        check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )  # fmt: skip


@pytest.fixture
def converged(machine: Machine) -> Iterator[None]:
    """Whatever a test does, the next one finds what is declared."""
    yield
    root(machine, "cp /root/hosts.before /etc/hosts")
    played = machine.play()
    assert played.returncode == 0, played.said


@pytest.fixture(scope="module")
def fresh(machine: Machine) -> str:
    """An account on the machine that has never used ssh, with a key that lets it in as admin."""
    root(machine, "id fresh 2>/dev/null || useradd --create-home fresh")
    key = (machine.folder / "key").read_text()
    subprocess.run(
        ["docker", "exec", "-i", f"gpumesh-molecule-{machine.scenario}", "sh", "-c", "umask 077; cat > /home/fresh/key"],
        input=key, text=True, check=True,
    )  # fmt: skip
    root(machine, "chown fresh /home/fresh/key; rm -rf /home/fresh/.ssh")
    return "fresh"


def test_the_operator_connects_by_name_without_a_question(machine: Machine) -> None:
    for name in ("machine.zt", "machine"):
        done = by_name(machine, name)
        assert (done.returncode, done.stdout.strip()) == (0, "machine"), done.stderr


def test_the_operator_is_warned_of_another_host_key(machine: Machine) -> None:
    known = machine.folder / "fleet.known_hosts"
    right = known.read_text()
    known.write_text(f"gpumesh-molecule-machine-1 {OTHER_KEY} gpumesh:molecule/hetzner\n")
    try:
        done = by_name(machine, "machine.zt")
    finally:
        known.write_text(right)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_the_operators_own_settings_hold_for_all_other_hosts(machine: Machine) -> None:
    read = subprocess.run(
        ["ssh", "-G", "-F", str(machine.folder / "operator" / "config"), "nas"],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    assert {"user me", "port 7"} <= set(read)


def test_bare_metal_is_met_under_the_operators_own_key_for_it(machine: Machine) -> None:
    config = (machine.folder / "operator" / "gpumesh" / "molecule.conf").read_text()
    block = config[config.index("Host bench.zt") :].partition("\n\n")[0]
    assert "HostKeyAlias 192.0.2.10\n" in block
    assert "KnownHostsFile" not in block
    assert "laptop" not in config


def test_a_fresh_account_on_a_machine_connects_by_name_without_a_question(
    machine: Machine, fresh: str
) -> None:
    for name in ("machine.zt", "machine"):
        done = machine.ssh(f"sudo -u {fresh} ssh -n -i /home/fresh/key {name} hostname")
        assert (done.returncode, done.stdout.strip()) == (0, "machine"), done.stderr
    assert root(machine, "ls -A /home/fresh/.ssh 2>/dev/null || true") == ""


def test_a_machine_without_a_known_key_is_refused_and_not_asked_about(machine: Machine, fresh: str) -> None:
    """ore is declared, and nobody has told its key: shown one, a machine must not ask whether to trust it."""
    address = machine.address
    done = machine.ssh(f"sudo -u {fresh} ssh -n -o HostName={address} ore.zt true")
    assert done.returncode == 255
    assert "host key is known for gpumesh-molecule-ore-1" in done.stderr


def test_names_are_resolved_and_a_machine_keeps_its_own(machine: Machine) -> None:
    assert machine.ssh("getent hosts laptop.zt").stdout.startswith("fd00::4 ")
    assert machine.ssh("getent hosts machine.zt").stdout.startswith(f"{machine.address} ")
    assert machine.ssh("getent hosts machine").stdout.startswith("127.0.1.1 ")


def test_only_declared_machines_are_in_known_hosts(machine: Machine) -> None:
    text = root(machine, "cat /etc/ssh/gpumesh-molecule.known_hosts")
    assert [line.split(" ")[0] for line in text.splitlines()] == ["gpumesh-molecule-machine-1"]
    assert oct(int(machine.ssh("stat -c %a /etc/ssh/gpumesh-molecule.known_hosts").stdout, 8)) == "0o644"


def test_the_names_outlive_a_boot_of_a_machine_whose_hosts_file_cloud_init_makes(
    machine: Machine, converged: None
) -> None:
    root(machine, "cloud-init single --name update_etc_hosts --frequency always")
    assert "10.0.0.1 nas" not in root(machine, "cat -v /etc/hosts")
    assert machine.ssh("getent hosts laptop.zt").stdout.startswith("fd00::4 ")
    played = machine.play("--check")
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said


def test_a_machine_that_is_gone_is_gone_everywhere(machine: Machine, converged: None) -> None:
    played = machine.play(test_ore="")
    assert played.returncode == 0, played.said
    assert "ore.zt" not in root(machine, "cat -v /etc/hosts /etc/ssh/ssh_config.d/50-gpumesh-molecule.conf")
    assert "ore.zt" not in (machine.folder / "operator" / "gpumesh" / "molecule.conf").read_text()
    assert "ore.zt" not in (machine.folder / "operator" / "hosts").read_text()


def test_a_control_plane_that_does_not_answer_changes_nothing(machine: Machine) -> None:
    played = machine.play(test_members_known=False, test_ore="")
    assert played.returncode == 0, played.said
    assert "did not tell its members" in played.said
    assert "changed=0" in played.said and "changed=1" not in played.said
    assert "ore.zt" in root(machine, "cat -v /etc/hosts")


def test_absent_leaves_everything_as_it_was_to_the_byte(machine: Machine, converged: None) -> None:
    root(machine, "cp /root/hosts.before /etc/hosts")
    assert machine.play().returncode == 0
    assert not same(machine, HOSTS, "/root/hosts.before")
    played = machine.play(mesh_ssh_state="absent")
    assert played.returncode == 0, played.said
    assert same(machine, HOSTS, "/root/hosts.before")
    assert same(machine, TEMPLATE, "/root/template.before")
    assert root(machine, "ls /etc/ssh /etc/ssh/ssh_config.d | grep gpumesh || true") == ""
    operator = machine.folder / "operator"
    assert (operator / "config").read_bytes() == (operator / "config.before").read_bytes()
    assert (operator / "config").stat().st_mode & 0o777 == 0o640
    assert (operator / "hosts").read_text() == "127.0.0.1 localhost\n"
    assert list((operator / "gpumesh").iterdir()) == []
    again = machine.play(mesh_ssh_state="absent")
    assert again.returncode == 0, again.said
    assert "changed=1" not in again.said


def test_an_operator_without_a_configuration_gets_a_private_one(machine: Machine, converged: None) -> None:
    played = machine.play("--tags", "operator", test_config="new/config")
    assert played.returncode == 0, played.said
    config = machine.folder / "operator" / "new" / "config"
    assert config.stat().st_mode & 0o777 == 0o600
    assert config.read_text().splitlines()[0] == "# gpumesh molecule begin"
    played = machine.play("--tags", "operator", test_config="new/config", mesh_ssh_state="absent")
    assert played.returncode == 0, played.said
    assert not config.exists()


def test_a_damaged_block_is_refused_before_anything_is_changed(machine: Machine, converged: None) -> None:
    edit_hosts(machine, "/gpumesh molecule end/d")
    before = root(machine, "cat -v /etc/hosts")
    played = machine.play("--limit", "machine", test_ore="fd00::22")
    assert played.returncode == 2
    assert (
        "/etc/hosts: the block between '# gpumesh molecule begin' and '# gpumesh molecule end' is damaged"
        in played.said
    )
    assert root(machine, "cat -v /etc/hosts") == before
    assert "fd00::22" not in root(machine, "cat /etc/ssh/ssh_config.d/50-gpumesh-molecule.conf")


def gate(machine: Machine, **variables: object) -> str:
    """What the gate says of a machine that it has to fail."""
    played = machine.play("--limit", "machine", "--tags", "gate", **variables)
    assert played.returncode == 2, played.said
    return played.said


def test_the_gate_finds_checking_that_somebody_switched_off(machine: Machine) -> None:
    weak = "/etc/ssh/ssh_config.d/10-weak.conf"
    root(machine, f'printf "Host *\\n StrictHostKeyChecking no\\n" > {weak}')
    try:
        said = gate(machine)
    finally:
        root(machine, f"rm {weak}")
    assert "SSH configuration: for machine.zt its stricthostkeychecking is false and not true" in said


def test_the_gate_finds_a_key_that_the_fleet_does_not_know(machine: Machine) -> None:
    file = "/etc/ssh/gpumesh-molecule.known_hosts"
    root(machine, f"cp -p {file} /root/kept; echo gpumesh-molecule-machine-1 {OTHER_KEY} x >> {file}")
    try:
        said = gate(machine)
    finally:
        root(machine, f"cp -p /root/kept {file}")
    assert "known host keys: for machine.zt it has 2 keys that are not the fleet's 1" in said


def test_the_gate_finds_a_machine_that_shows_another_key(machine: Machine, converged: None) -> None:
    wrong: Path = machine.folder / "wrong.known_hosts"
    wrong.write_text(f"gpumesh-molecule-machine-1 {OTHER_KEY} gpumesh:molecule/hetzner\n")
    played = machine.play("--limit", "machine", test_known_hosts=str(wrong))
    assert played.returncode == 2
    assert "machine.zt shows another key than the known one" in played.said


def test_the_gate_finds_a_name_that_something_else_answers(machine: Machine, converged: None) -> None:
    edit_hosts(machine, "s/^fd00::4 /10.9.9.9 /")
    assert "names: laptop.zt is 10.9.9.9 and not fd00::4" in gate(machine)


def test_the_gate_tells_whose_key_is_not_on_file_yet(machine: Machine) -> None:
    played = machine.play("--limit", "machine", "--tags", "gate")
    assert played.returncode == 0, played.said
    assert "No host key is on file for ore, so SSH refuses to connect there" in played.said


def test_the_layer_left_its_facts(machine: Machine) -> None:
    facts = json.loads(root(machine, "cat /etc/ansible/facts.d/gpumesh.fact"))
    assert "host keys shown over the mesh" in facts["layers"]["mesh_ssh"]["checks"]
