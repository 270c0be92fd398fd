# SPDX-License-Identifier: GPL-3.0-or-later
"""A member of a mesh that is its own controller, on a real host with a stand-in daemon (SIMULATED)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import Machine, eventually
from tests.hosts.zerotier.conftest import HOME, IDENTITIES, OWN_NETWORK, api, rfc4193

pytestmark = pytest.mark.docker

NODE = OWN_NETWORK[:10]
SOURCE = "/etc/apt/sources.list.d/gpumesh-zerotier.sources"
KEYRING = "/etc/apt/keyrings/gpumesh-zerotier.asc"
OPENINGS = {
    "ufw allow 9993/udp comment 'gpumesh zerotier: ZeroTier'",
    "ufw allow in on zt+ to any port 22 proto tcp comment 'gpumesh zerotier: SSH over the mesh'",
}
# Notes what is in the command line of every process, as anybody on a machine may.
WATCH = """
import glob, os, time
seen = set()
end = time.monotonic() + 120
while time.monotonic() < end and not os.path.exists("/run/watched.enough"):
    for name in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            seen.add(open(name, "rb").read())
        except OSError:
            pass
    with open("/run/watched", "wb") as file:
        file.write(b"\\n".join(seen))
    time.sleep(0.005)
"""


@pytest.fixture
def stopped(machine: Machine) -> Iterator[None]:
    """The daemon, for a while."""
    machine.ssh("sudo systemctl stop zerotier-one")
    yield
    machine.ssh("sudo systemctl start zerotier-one")
    assert eventually(
        lambda: (api(machine, "GET", f"/network/{OWN_NETWORK}") or {}).get("status") == "OK", 30
    )


def link(machine: Machine) -> dict[str, Any]:
    """The interface of the network, as the kernel has it."""
    links = json.loads(machine.ssh("ip -json address").stdout)
    found: dict[str, Any] = next(entry for entry in links if entry["ifname"].startswith("zt"))
    return found


def openings(machine: Machine) -> set[str]:
    """The rules of ufw that are this role's."""
    shown = machine.ssh("sudo ufw show added").stdout.splitlines()
    return {line for line in shown if "gpumesh zerotier:" in line}


def started(machine: Machine) -> str:
    """When the daemon was."""
    return machine.ssh("systemctl show --property=ActiveEnterTimestampMonotonic zerotier-one").stdout


def test_the_interface_has_the_address_that_was_known_beforehand(machine: Machine) -> None:
    found = link(machine)
    addresses = [entry["local"] for entry in found["addr_info"] if entry["scope"] == "global"]
    assert addresses == [rfc4193(OWN_NETWORK, NODE)]
    assert "UP" in found["flags"]


def test_it_was_admitted_in_the_same_run_under_its_name(machine: Machine) -> None:
    member = api(machine, "GET", f"/controller/network/{OWN_NETWORK}/member/{NODE}")
    assert (member["authorized"], member["name"]) == (True, "machine")
    assert api(machine, "GET", f"/controller/network/{OWN_NETWORK}")["private"] is True


def test_the_daemon_is_the_vendors_and_comes_back_after_a_reboot(machine: Machine, host: Any) -> None:
    service = host.service("zerotier-one")
    assert (service.is_running, service.is_enabled) == (True, True)
    assert f"Signed-By: {KEYRING}" in machine.ssh(f"cat {SOURCE}").stdout
    assert machine.ssh(
        "ls /etc/apt/trusted.gpg.d /etc/apt/trusted.gpg | grep -v debian-archive"
    ).stdout.split() == ["/etc/apt/trusted.gpg.d:"]


def test_a_controller_stays_at_the_version_that_has_one(machine: Machine, host: Any) -> None:
    assert host.package("zerotier-one").version == "1.14.2"
    assert "1.16.0" in machine.ssh("apt-cache madison zerotier-one").stdout
    said = machine.ssh("sudo apt-get --simulate dist-upgrade").stdout
    assert "Calculating upgrade" in said
    assert "Inst zerotier-one" not in said


def test_secrets_are_for_the_daemon_alone(host: Any) -> None:
    with host.sudo():
        for name in ("identity.secret", "authtoken.secret"):
            assert host.file(f"{HOME}/{name}").mode == 0o600
        assert host.check_output(f"cat {HOME}/identity.secret") == secret("controller").strip()
        assert host.check_output(f"cat {HOME}/identity.public") == secret("controller").rpartition(":")[0]


def secret(name: str) -> str:
    """A throw-away identity."""
    return Path(IDENTITIES / f"{name}.secret").read_text(encoding="utf-8")


def test_no_secret_is_in_any_command_line_nor_in_what_is_printed(machine: Machine, host: Any) -> None:
    with host.sudo():
        token = host.check_output(f"cat {HOME}/authtoken.secret")
        # So that it is put in its place once more.
        host.check_output(f"truncate --size=0 {HOME}/identity.secret; rm {HOME}/identity.public")
    subprocess.run(
        ["docker", "exec", "--detach", f"gpumesh-molecule-{machine.scenario}", "python3", "-c", WATCH],
        check=True,
    )
    played = machine.play("--tags", "zerotier", "-vvv", zerotier_identity_replace_allowed=True)
    assert played.returncode == 0, played.said
    with host.sudo():
        watched = host.run("touch /run/watched.enough; cat /run/watched").stdout
        assert host.check_output(f"cat {HOME}/identity.secret") == secret("controller").strip()
    assert "probe" in watched
    assert "latency_warn_ms" in watched
    for word in (token, secret("controller").strip().rpartition(":")[2]):
        assert len(word) > 20
        assert word not in watched
        assert word not in played.said


def test_settings_and_rules_are_as_declared_and_nothing_is_restarted_for_them(machine: Machine) -> None:
    before = json.loads(machine.ssh(f"sudo cat {HOME}/local.conf").stdout)
    assert before["settings"] == {
        "primaryPort": 9993,
        "portMappingEnabled": False,
        "allowTcpFallbackRelay": False,
    }
    assert openings(machine) == OPENINGS
    theirs = {**before, "physical": {"192.0.2.0/24": {"blacklist": True}}}
    machine.ssh(f"printf '%s' '{json.dumps(theirs)}' | sudo tee {HOME}/local.conf")
    began = started(machine)
    played = machine.play(
        "--tags", "zerotier",
        zerotier_settings={"softwareUpdate": "disable", "portMappingEnabled": False},
        zerotier_firewall_rules=[{"port": 8001, "interface": "zt+", "comment": "web"}],
    )  # fmt: skip
    assert played.returncode == 0, played.said
    after = json.loads(machine.ssh(f"sudo cat {HOME}/local.conf").stdout)
    assert after["physical"] == theirs["physical"]
    assert after["settings"] == {
        "primaryPort": 9993,
        "portMappingEnabled": False,
        "softwareUpdate": "disable",
    }
    assert "ufw allow in on zt+ to any port 8001 proto tcp comment 'gpumesh zerotier: web'" in openings(
        machine
    )
    assert not any("port 22" in line for line in openings(machine))
    # That of the role base is none of ours.
    assert "22/tcp" in machine.ssh("sudo ufw show added").stdout
    assert started(machine) == began


def test_another_port_is_listened_on_and_opened_and_given_back(machine: Machine) -> None:
    began = started(machine)
    # The fleet file would have to say where the controller's API is now (mesh.endpoint).
    played = machine.play("--tags", "zerotier", zerotier_port=29993, zerotier_admit=False)
    assert played.returncode == 0, played.said
    assert started(machine) != began
    assert any("29993/udp" in line for line in openings(machine))
    assert not any(" 9993/udp" in line for line in openings(machine))
    played = machine.play("--tags", "zerotier")
    assert played.returncode == 0, played.said
    assert openings(machine) == OPENINGS


def test_the_gate_alone_changes_nothing_and_is_recorded_as_simulated(machine: Machine) -> None:
    played = machine.play("--tags", "gate")
    assert played.returncode == 0, played.said
    assert "changed=0" in played.said
    layer = json.loads(machine.ssh("cat /etc/ansible/facts.d/gpumesh.fact").stdout)["layers"]["zerotier"]
    assert (layer["node"], layer["network"], layer["simulated"]) == (NODE, OWN_NETWORK, True)
    assert layer["versions"] == {"zerotier-one": "1.14.2"}
    assert {"addresses", "mtu", "controller", "firewall IPv4", "firewall IPv6"} <= set(layer["checks"])


def test_the_gate_finds_a_daemon_that_is_stopped(machine: Machine, stopped: None) -> None:
    played = machine.play("--tags", "zerotier_verify", zerotier_wait=5)
    assert played.returncode == 2
    assert "zerotier-one.service: it is not running and enabled (ActiveState=inactive" in played.said
    assert "local API: it does not answer" in played.said
    assert "Traceback" not in played.said


def test_the_run_starts_it_again(machine: Machine, host: Any, stopped: None) -> None:
    played = machine.play("--tags", "zerotier")
    assert played.returncode == 0, played.said
    assert host.service("zerotier-one").is_running


def test_the_gate_finds_an_address_and_an_opening_that_are_gone(machine: Machine) -> None:
    device = link(machine)["ifname"]
    machine.ssh(
        f"sudo ip address delete {rfc4193(OWN_NETWORK, NODE)}/88 dev {device}; sudo ufw delete allow 9993/udp"
    )
    played = machine.play("--tags", "zerotier_verify", zerotier_wait=1)
    assert played.returncode == 2
    assert f"addresses: {device} has none, and lacks {rfc4193(OWN_NETWORK, NODE)}" in played.said
    assert "firewall IPv4: these ways in are declared and are not in the kernel: udp 9993" in played.said
    machine.ssh("sudo systemctl restart zerotier-one")
    played = machine.play("--tags", "zerotier")
    assert played.returncode == 0, played.said
    assert openings(machine) == OPENINGS


def test_one_that_is_shut_out_is_told_so_and_let_in_again_by_the_next_run(machine: Machine) -> None:
    member = f"/controller/network/{OWN_NETWORK}/member/{NODE}"
    api(machine, "POST", member, {"authorized": False})
    # A node notices by itself after a minute, and at once when it starts.
    machine.ssh("sudo systemctl restart zerotier-one")
    played = machine.play("--tags", "zerotier_verify", zerotier_wait=6)
    assert played.returncode == 2
    assert (
        "its status is ACCESS_DENIED: the controller does not let it in: authorise node 9481388703"
        in played.said
    )
    played = machine.play("--tags", "zerotier")
    assert played.returncode == 0, played.said
    assert api(machine, "GET", member)["authorized"] is True


def test_a_fleet_without_a_mesh_is_left_alone(machine: Machine) -> None:
    played = machine.play("--tags", "zerotier", fleet_mesh={})
    assert played.returncode == 0, played.said
    assert "The fleet file declares no mesh, so this machine joins none" in played.said
    assert "changed=0" in played.said
    assert "Prove the layer" not in played.said


def test_all_that_cannot_work_is_told_at_once_and_before_anything_is_changed(machine: Machine) -> None:
    played = machine.play(
        "--tags", "zerotier",
        zerotier_network="8056c2e21c",
        zerotier_identity_secret="a0c848c379:0:abc",
        zerotier_port=70000,
        zerotier_settings={"primaryPort": 1},
        zerotier_one_time_identity=True,
        zerotier_undo_after=5,
        zerotier_version="1.14.1",
        fleet_machine={"node_id": "a0c848c379"},
    )  # fmt: skip
    assert played.returncode == 2
    assert "changed=0" in played.said
    for says in (
        "'8056c2e21c' is no network id, which has 16 hexadecimal digits",
        "zerotier_identity_secret: it is no secret identity",
        "zerotier_port: 70000 is no port",
        "use zerotier_port, so that the firewall is opened as well",
        "so its identity cannot be replaced",
        "the new identity has to be admitted before the first one goes",
        "the fleet file declares node_id a0c848c379, which would not hold any more",
        "5 seconds are too few to prove an identity",
        "1.14.2 is installed, and 1.14.1 is older; say zerotier_downgrade_allowed: true",
    ):
        assert says in played.said


def test_a_network_and_a_node_that_do_not_belong_together_are_refused(machine: Machine) -> None:
    played = machine.play(
        "--tags", "zerotier", zerotier_network="a0c848c3790000bb", fleet_machine={"node_id": "a0c848c379"}
    )
    assert played.returncode == 2
    assert (
        "belongs to the controller a0c848c379, and this machine, which is to be the controller, is node"
        in played.said
    )
    assert f"the fleet file says that this machine is node a0c848c379, and it is node {NODE}" in played.said


def test_another_identity_is_not_put_in_its_place_without_consent(machine: Machine, host: Any) -> None:
    played = machine.play(
        "--tags", "zerotier", zerotier_identity_secret=secret("node"), zerotier_controller=False
    )
    assert played.returncode == 2
    assert f"it is of node a0c848c379, and this machine is node {NODE} already" in played.said
    assert "changed=0" in played.said
    assert secret("node").strip().rpartition(":")[2] not in played.said


def test_a_version_without_a_controller_is_told_as_that(machine: Machine, host: Any) -> None:
    played = machine.play(
        "--tags", "zerotier", zerotier_version="1.16.0", zerotier_admit=False, zerotier_wait=3
    )
    assert played.returncode == 2
    assert host.package("zerotier-one").version == "1.16.0"
    assert "zerotier-one 1.16.0 has no network controller" in played.said
    assert "declare zerotier_version: 1.14.2" in played.said
    played = machine.play("--tags", "zerotier", zerotier_downgrade_allowed=True)
    assert played.returncode == 0, played.said
    assert host.package("zerotier-one").version == "1.14.2"


def test_a_key_that_is_not_the_pinned_one_does_not_take_its_place(machine: Machine) -> None:
    before = machine.ssh(f"cat {KEYRING} {SOURCE}").stdout
    played = machine.play("--tags", "zerotier", zerotier_repository_key_fingerprint="0" * 40)
    assert played.returncode == 2
    assert f"{'0' * 40} is pinned, so nothing was added" in played.said
    assert machine.ssh(f"cat {KEYRING} {SOURCE}").stdout == before
