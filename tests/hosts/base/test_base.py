# SPDX-License-Identifier: GPL-3.0-or-later
"""The base layer on a real host, from inside and, above all, from outside."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.hosts.conftest import Machine, eventually

pytestmark = pytest.mark.docker


def test_passwords_and_root_are_refused(machine: Machine) -> None:
    for user in ("admin", "root", "emergency"):
        refused = machine.ssh(
            user=user,
            options=(
                "-o",
                "PubkeyAuthentication=no",
                "-o",
                "PreferredAuthentications=password,keyboard-interactive,none",
            ),
        )
        assert refused.returncode == 255
        assert "Permission denied (publickey)" in refused.stderr
    assert machine.ssh(user="root").returncode == 255
    assert machine.ssh(user="admin").returncode == 0


def test_a_declared_user_has_its_key_its_groups_and_its_sudo(machine: Machine, host: Any) -> None:
    assert machine.ssh(user="ada").returncode == 0
    assert {"video", "research"} <= set(host.user("ada").groups)
    assert "NOPASSWD" not in machine.ssh("sudo -n -l 2>&1", user="ada").stdout
    assert machine.ssh("sudo -n true", user="admin").returncode == 0


def test_an_absent_user_is_gone(host: Any) -> None:
    assert not host.user("games").exists


def test_the_emergency_account_has_its_password_and_no_way_in_over_ssh(machine: Machine, host: Any) -> None:
    with host.sudo():
        assert host.user("emergency").password.startswith("$6$gpumesh$")
        effective = host.check_output("sshd -T -C user=emergency,host=x,addr=192.0.2.1")
    assert "denyusers emergency" in effective
    assert machine.ssh(user="emergency").returncode == 255


def test_the_firewall_drops_what_is_not_declared_and_opens_what_is(machine: Machine) -> None:
    for port in (8000, 8001):
        machine.ssh(f"sudo systemd-run --quiet --unit=listener-{port} python3 -m http.server {port}")
    assert eventually(lambda: machine.reaches(8001), 20)
    assert not machine.reaches(8000)
    assert (
        machine.ssh(
            "curl -sf http://127.0.0.1:8000/ || python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:8000/\")'"
        ).returncode
        == 0
    )
    played = machine.play("--tags", "hardening", base_firewall_rules=[{"port": 8000}])
    assert played.returncode == 0, played.said
    assert machine.reaches(8000)
    assert not machine.reaches(8001)
    played = machine.play("--tags", "hardening")
    assert played.returncode == 0, played.said
    assert (machine.reaches(8000), machine.reaches(8001)) == (False, True)


def test_a_rule_typed_by_hand_survives(machine: Machine) -> None:
    machine.ssh("sudo ufw allow 7777/tcp")
    played = machine.play("--tags", "hardening")
    assert "changed=0" in played.said
    assert "7777/tcp" in machine.ssh("sudo ufw show added").stdout
    played = machine.play("--tags", "hardening", base_firewall_exclusive=True)
    assert played.returncode == 0, played.said
    assert "7777/tcp" not in machine.ssh("sudo ufw show added").stdout


def test_who_guesses_is_banned_and_can_be_pardoned(
    machine: Machine, neighbour: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    address = neighbour("hostname -I").stdout.split()[0]
    knock = f"bash -c 'exec 3<>/dev/tcp/{machine.address}/22; read -t 3 -u 3 line; echo $line'"
    assert "SSH-2.0" in neighbour(knock).stdout
    known = (machine.folder / "known_hosts").read_text(encoding="utf-8").strip()
    neighbour(f"printf '%s\\n' '{known}' > /tmp/known_hosts")
    guess = (
        "ssh -o BatchMode=yes -o UserKnownHostsFile=/tmp/known_hosts -o HostKeyAlias=machine -o StrictHostKeyChecking=yes "
        f"-o ConnectTimeout=3 guess$i@{machine.address} true"
    )
    tried = neighbour(f"for i in 1 2 3 4 5; do {guess}; done")
    assert "Permission denied (publickey)" in tried.stderr
    status = "sudo fail2ban-client status sshd"
    assert eventually(lambda: address in machine.ssh(status).stdout, 30)
    assert eventually(lambda: "SSH-2.0" not in neighbour(knock).stdout, 10)
    assert machine.ssh().returncode == 0
    assert machine.ssh(f"sudo fail2ban-client set sshd unbanip {address}").returncode == 0
    assert eventually(lambda: "SSH-2.0" in neighbour(knock).stdout, 10)


def test_a_ban_lasts_ten_minutes_after_five_tries(machine: Machine) -> None:
    assert machine.ssh("sudo fail2ban-client get sshd bantime").stdout.strip() == "600"
    assert machine.ssh("sudo fail2ban-client get sshd maxretry").stdout.strip() == "5"


def test_only_security_updates_are_installed_unattended(host: Any) -> None:
    with host.sudo():
        said = host.run("unattended-upgrade --dry-run --debug").stdout
    allowed = [line for line in said.splitlines() if line.startswith("Allowed origins are:")]
    assert len(allowed) == 1
    assert "security" in allowed[0]
    assert allowed[0].count("origin=") == 1


def test_time_zone_and_locale_are_as_declared(host: Any) -> None:
    assert host.check_output("date +%Z") in ("CET", "CEST")
    assert host.file("/etc/localtime").linked_to == "/usr/share/zoneinfo/Europe/Berlin"
    assert "LANG=C.UTF-8" in host.file("/etc/default/locale").content_string


def test_another_locale_is_generated(machine: Machine) -> None:
    played = machine.play("--tags", "base_preflight,base_install,base_configure", base_locale="de_DE.UTF-8")
    assert played.returncode == 0, played.said
    assert "de_DE.utf8" in machine.ssh("locale -a").stdout
    assert "LANG=de_DE.UTF-8" in machine.ssh("cat /etc/default/locale").stdout
    assert machine.play("--tags", "base_configure").returncode == 0


def test_what_would_lock_us_out_is_refused_and_all_of_it_at_once(machine: Machine) -> None:
    played = machine.play(
        base_ssh_allow_users=["ada"],
        base_ssh_ports=[2222],
        base_ssh_personal_keys=False,
        base_ssh_extra={"PermitRootLogin": "yes"},
        base_users=[{"name": "admin", "state": "absent"}],
        base_emergency_user="admin",
        base_timezone="Europe/Berln",
        base_undo_after=30,
    )
    assert played.returncode == 2
    assert "changed=0" in played.said
    for complaint in (
        "leaves out 'admin', the account that Ansible is connected with",
        "leaves out port 22, by which Ansible is connected",
        "has no authorised key in base_users",
        "'PermitRootLogin' is looked after by the role",
        "'admin' is to be absent",
        "name another",
        "no time zone 'Europe/Berln'",
        "30 seconds are too few to prove",
    ):
        assert complaint in played.said
    assert machine.ssh().returncode == 0


def test_a_firewall_that_would_shut_us_out_is_refused(machine: Machine) -> None:
    played = machine.play("--tags", "hardening", base_ssh_sources=["192.0.2.0/24"])
    assert played.returncode == 2
    assert "would shut out the connection in use" in played.said
    assert "changed=0" in played.said
    assert machine.ssh().returncode == 0


def test_a_file_that_sshd_refuses_never_becomes_effective(machine: Machine) -> None:
    before = machine.ssh("sudo cat /etc/ssh/sshd_config.d/00-gpumesh.conf").stdout
    played = machine.play("--tags", "hardening", base_ssh_extra={"NoSuchSetting": "yes"})
    assert played.returncode == 2
    assert "put back as they were" in played.said
    assert machine.ssh("sudo cat /etc/ssh/sshd_config.d/00-gpumesh.conf").stdout == before
    assert machine.ssh("systemctl is-active gpumesh-undo-ssh.timer").stdout.strip() == "inactive"


def test_a_lock_out_nobody_thought_of_is_undone_by_the_machine_itself(machine: Machine) -> None:
    played = machine.play("--tags", "hardening", base_ssh_extra={"DenyGroups": "admin"}, base_undo_after=60)
    assert played.returncode != 0
    assert "Prove that a new connection works" in played.said
    assert machine.ssh().returncode == 255
    assert eventually(lambda: machine.ssh().returncode == 0, 120)
    played = machine.play("--tags", "hardening")
    assert played.returncode == 0, played.said
    assert "DenyGroups" not in machine.ssh("sudo cat /etc/ssh/sshd_config.d/00-gpumesh.conf").stdout


def test_a_run_that_died_before_its_proof_is_made_up_for_by_the_next(machine: Machine) -> None:
    drop_in, timers = "/etc/ssh/sshd_config.d/00-gpumesh.conf", ("gpumesh-undo-ssh", "gpumesh-undo-firewall")
    for timer in timers:
        left = machine.ssh(f"sudo systemd-run --collect --unit={timer} --on-active=3600 rm {drop_in}")
        assert left.returncode == 0, left.stderr
        # What a run leaves of the state before it.
        machine.ssh(
            f"sudo mkdir -p /run/gpumesh/undo/{timer[13:]} && "
            f"echo 'rm {drop_in}' | sudo tee /run/gpumesh/undo/{timer[13:]}/undo.sh"
        )
    predicted = machine.play("--tags", "hardening", "--check")
    assert predicted.returncode == 0, predicted.said
    assert "changed=2" in predicted.said
    running = f"systemctl is-active {timers[0]}.timer {timers[1]}.timer"
    assert machine.ssh(running).stdout.split() == ["active", "active"]
    played = machine.play("--tags", "hardening")
    assert played.returncode == 0, played.said
    assert machine.ssh(running).stdout.split() == ["inactive", "inactive"]
    assert machine.ssh(f"sudo test -e {drop_in}").returncode == 0
    again = machine.play("--tags", "hardening")
    assert "changed=0" in again.said


def test_the_gate_finds_a_jail_that_was_not_restarted(machine: Machine) -> None:
    assert machine.ssh("sudo fail2ban-client set sshd bantime 60").returncode == 0
    played = machine.play("--tags", "gate")
    assert played.returncode == 2
    assert "fail2ban jail sshd, bantime: the jail is not live with 10m: 60" in played.said
    assert machine.ssh("sudo systemctl restart fail2ban").returncode == 0


def test_sshd_moves_to_another_port_by_way_of_both(machine: Machine) -> None:
    played = machine.play("--tags", "hardening", base_ssh_ports=[22, 2222])
    assert played.returncode == 0, played.said
    assert machine.ssh(port=2222).returncode == 0
    played = machine.play("--tags", "hardening", base_ssh_ports=[2222], ansible_port=2222)
    assert played.returncode == 0, played.said
    assert machine.ssh(port=2222).returncode == 0
    assert not machine.reaches(22)
    for ports in ([22, 2222], [22]):
        played = machine.play(
            "--tags", "hardening", base_ssh_ports=ports, ansible_port=2222 if 2222 in ports else 22
        )
        assert played.returncode == 0, played.said
    assert machine.ssh().returncode == 0


def test_the_gate_alone_changes_nothing_and_finds_what_is_broken(machine: Machine) -> None:
    played = machine.play("--tags", "gate")
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said
    machine.ssh("sudo systemctl stop fail2ban")
    played = machine.play("--tags", "gate")
    assert played.returncode == 2
    assert "fail2ban jail sshd, maxretry: the jail is not live" in played.said
    machine.ssh("sudo systemctl start fail2ban")


def test_the_layer_leaves_its_facts(machine: Machine) -> None:
    layer = json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh.fact").stdout)["layers"]["base"]
    assert layer["from"] == "gpumesh.fleet.base"
    assert {"ufw", "fail2ban", "openssh-server"} <= set(layer["versions"])
    assert "ssh keys only on port 22" in layer["checks"]


def test_no_password_hash_in_any_output(machine: Machine, host: Any) -> None:
    with host.sudo():
        secret = host.user("emergency").password
    played = machine.play("-vvvv", "--diff", "--check")
    assert played.returncode == 0, played.said
    assert secret not in played.said
