# SPDX-License-Identifier: GPL-3.0-or-later
"""What the chain leaves: hosts seen over SSH and through the sandbox's ground truth, not through Ansible's reports."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests
import testinfra
from testinfra.host import Host

from sandbox.private import read_token

ROOT = Path(__file__).parents[3]
FLEET = ROOT / "molecule/chain/fleet.yml"
STATE = ROOT / ".cache/chain"
# The key is named here as well, since testinfra does not fill in what the fleet's variables say of it; without, it gets in only by
# a connection that Ansible has left open.
HOST = f"ansible://{{}}?ansible_inventory={FLEET}&ssh_identity_file={STATE / 'id_ed25519'}"
SANDBOX = "http://127.0.0.1:8481"
ENABLED = ("onyx", "opal")


def asked(path: str) -> Any:
    """What the sandbox answers its owner."""
    headers = {"Authorization": f"Bearer {read_token(STATE)}"}
    return requests.get(f"{SANDBOX}/{path}", headers=headers, timeout=30).json()


def truth(path: str) -> Any:
    """What the sandbox knows, whatever its clouds' APIs say."""
    return asked(f"admin/{path}")


def inventory() -> dict[str, Any]:
    """What ansible-inventory prints of the fleet."""
    done = subprocess.run(
        ["ansible-inventory", "-i", str(FLEET), "--list"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module", params=ENABLED)
def machine(request: pytest.FixtureRequest) -> Host:
    """One machine, over the connection the inventory describes."""
    return testinfra.get_host(HOST.format(request.param))


def test_exactly_the_enabled_machines_exist() -> None:
    assert sorted(machine["hostname"] for machine in truth("machines")["machines"]) == sorted(ENABLED)


def test_the_inventory_tells_running_from_disabled() -> None:
    found = inventory()
    assert sorted(found["running"]["hosts"]) == sorted(ENABLED)
    assert found["disabled"]["hosts"] == ["ruby"]
    assert "hosts" not in found.get("missing", {})


def test_a_machine_is_what_was_declared(machine: Host) -> None:
    distribution = {"onyx": "13", "opal": "12"}[machine.backend.host]
    assert machine.system_info.release.split(".")[0] == distribution
    assert machine.check_output("hostname") == machine.backend.host


def test_no_machine_still_shows_its_planted_host_key() -> None:
    """The key in the user data may be known to others; what onyx shows must be another, and the label must say so."""
    [server] = asked("hetzner/v1/servers?name=onyx")["servers"]
    assert server["labels"]["gpumesh-hostkey"].startswith("own.")
    assert "gpumesh-hostkey-next" not in server["labels"]


def test_known_hosts_has_just_the_keys_the_machines_show() -> None:
    known = [
        line.split(" ", 1)
        for line in (STATE / "known_hosts").read_text().splitlines()
        if line and line[0] != "#"
    ]
    hosts = inventory()["_meta"]["hostvars"]
    for name in ENABLED:
        match = re.search(r"HostKeyAlias=(\S+)", hosts[name]["ansible_ssh_common_args"])
        assert match
        scan = subprocess.run(
            ["ssh-keyscan", hosts[name]["ansible_host"]], check=True, capture_output=True, text=True
        ).stdout
        shown = {line.split(" ", 1)[1] for line in scan.splitlines() if line and line[0] != "#"}
        # Behind the kind and the key there may be a comment, which is no part of what is trusted.
        trusted = {" ".join(key.split()[:2]) for alias, key in known if alias == match[1].strip("'")}
        assert trusted
        assert trusted <= shown


def test_every_layer_left_its_facts(machine: Host) -> None:
    facts = json.loads(machine.check_output("sudo cat /etc/ansible/facts.d/gpumesh.fact"))
    assert {"base", "docker", "zerotier", "mesh_ssh"} <= set(facts["layers"])


def test_ssh_takes_keys_and_nothing_else(machine: Host) -> None:
    effective = machine.check_output("sudo sshd -T").splitlines()
    assert "passwordauthentication no" in effective
    assert "permitrootlogin no" in effective


def test_docker_runs_a_container(machine: Host) -> None:
    machine.check_output("sudo sh -c 'tar -C / -c bin/busybox | docker import - chain-test'")
    assert machine.check_output("sudo docker run --rm --network none chain-test /bin/busybox echo up") == "up"


def test_both_machines_are_in_the_mesh_and_reached_through_it() -> None:
    found = inventory()
    assert sorted(found["mesh_online"]["hosts"]) == [*ENABLED, "operator"]
    for name in ENABLED:
        its = found["_meta"]["hostvars"][name]
        network, node = its["fleet_mesh"]["network"], its["fleet_mesh_node_id"]
        address = ipaddress.IPv6Address(bytes.fromhex(f"fd{network}9993{node}"))
        assert its["ansible_host"] == its["fleet_mesh_ip"] == str(address)
        assert its["fleet_mesh_ip"] != its["fleet_public_ip"]
    assert found["_meta"]["hostvars"]["onyx"]["fleet_mesh_node_id"] == "9481388703"


def test_a_laptop_that_was_never_on_is_admitted_already() -> None:
    found = inventory()
    member = found["_meta"]["hostvars"]["laptop"]["fleet_mesh_member"]
    assert member["authorized"] and not member["online"]
    assert not found.get("mesh_undeclared", {}).get("hosts")


def test_a_machine_has_its_address_on_an_interface_of_its_own(machine: Host) -> None:
    its = inventory()["_meta"]["hostvars"][machine.backend.host]
    [interface] = [name for name in machine.interface.names() if name.partition("@")[0].startswith("zt")]
    assert its["fleet_mesh_ip"] in machine.interface(interface.partition("@")[0]).addresses


@pytest.mark.parametrize("name", ENABLED)
def test_ssh_by_name_needs_no_question(name: str) -> None:
    """As a user who has never been there: no known_hosts but the fleet's, and strict."""
    done = subprocess.run(
        ["ssh", "-F", str(STATE / "ssh/config"), "-o", "BatchMode=yes", f"{name}.zt", "hostname"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, name), done.stderr
    effective = subprocess.run(
        ["ssh", "-G", "-F", str(STATE / "ssh/config"), f"{name}.zt"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "stricthostkeychecking true" in effective


def test_the_machines_know_each_other_by_name_and_host_key() -> None:
    onyx = testinfra.get_host(HOST.format("onyx"))
    assert "ping statistics" in onyx.check_output("ping -c 1 -W 5 opal.zt")
    # It has no key of opal's accounts, and is told so by the opal it expected. Testinfra takes ssh's own status for its own.
    refused = onyx.run("ssh -o BatchMode=yes admin@opal.zt true || true")
    assert "Permission denied" in refused.stderr and "verification failed" not in refused.stderr
