# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of a mesh's members share: the local API of a daemon, and a second machine that is a controller."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import ROOT, Machine, eventually

IDENTITIES = ROOT / "tests/fixtures/zerotier/identities"
HOME = "/var/lib/zerotier-one"
OWN_NETWORK = "94813887030000aa"

# Runs on the machine as root, since nobody else may read the token.
API = """
import json, sys, urllib.request
home = "/var/lib/zerotier-one/"
method, path, body = json.loads(sys.stdin.read())
try:
    request = urllib.request.Request(
        "http://127.0.0.1:" + open(home + "zerotier-one.port").read().strip() + path, method=method,
        headers={"X-ZT1-Auth": open(home + "authtoken.secret").read().strip(), "Content-Type": "application/json"},
        data=None if body is None else json.dumps(body).encode())
    print(json.dumps(json.load(urllib.request.urlopen(request, timeout=10))))
except OSError:
    print(json.dumps(None))
"""


def ask(command: list[str], method: str, path: str, body: Any = None) -> Any:
    """What a daemon's local API answers; None for what it does not know, and where nothing answers."""
    done = subprocess.run(
        [*command, "python3", "-c", API],
        input=json.dumps([method, path, body]), check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return json.loads(done.stdout)


def api(machine: Machine, method: str, path: str, body: Any = None) -> Any:
    """The same of the machine under test, past its SSH, which a test may just have cut."""
    return ask(
        ["docker", "exec", "--interactive", f"gpumesh-molecule-{machine.scenario}"], method, path, body
    )


@dataclass(frozen=True)
class Neighbour:
    """Another machine of the fleet that is a network's controller, and in it."""

    name: str
    address: str
    node: str
    network: str

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """A shell command there, as root."""
        return subprocess.run(
            ["docker", "exec", self.name, "sh", "-c", command],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Its daemon's local API."""
        return ask(["docker", "exec", "--interactive", self.name], method, path, body)

    @property
    def mesh_address(self) -> str:
        """Its address in its network."""
        return rfc4193(self.network, self.node)

    def variables(self, machine: Machine) -> dict[str, Any]:
        """What the inventory would tell a machine of a fleet that has this one for its controller."""
        return {
            "fleet_file": str(machine.folder / "neighbour.yml"),
            "fleet_mesh": {
                "network": self.network, "controller": "cobalt", "domain": "zt", "addressing": "rfc4193", "name": "machine.zt",
            },
        }  # fmt: skip


def rfc4193(network: str, node: str) -> str:
    """Arithmetic of its own, for the code under test must not vouch for itself."""
    digits = f"fd{network}9993{node}"
    groups = [f"{int(digits[at : at + 4], 16):x}" for at in range(0, 32, 4)]
    return str(ipaddress.ip_address(":".join(groups)))


@pytest.fixture(scope="module")
def cobalt(machine: Machine) -> Iterator[Neighbour]:
    """A second machine, made like the first, with the same keys; its daemon is the root of both."""
    name = f"gpumesh-molecule-{machine.scenario}-neighbour"
    made = subprocess.run(
        [sys.executable, "-m", "sandbox.zerotier_one", f"--deb={machine.folder}/deb"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    image = f"gpumesh/host:{os.environ.get('GPUMESH_PLATFORM', 'debian-13')}"
    subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)
    subprocess.run(
        [
            "docker", "run", "--detach", f"--name={name}", "--hostname=cobalt",
            f"--label=gpumesh.molecule=gpumesh-molecule-{machine.scenario}", "--cgroupns=host",
            "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cap-add=NET_RAW", "--security-opt=seccomp=unconfined",
            "--security-opt=apparmor=unconfined", "--security-opt=systempaths=unconfined", "--tmpfs=/run", "--tmpfs=/run/lock",
            "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw", f"--volume={machine.folder}/seed:/var/lib/cloud/seed/nocloud:ro",
            "--stop-signal=SIGRTMIN+3", image,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    inspected = subprocess.run(
        ["docker", "inspect", "--format", "{{.NetworkSettings.IPAddress}}", name],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    node = (IDENTITIES / "node.public").read_text(encoding="utf-8").partition(":")[0]
    found = Neighbour(name, inspected.stdout.strip(), node, f"{node}0000bb")
    for half in ("secret", "public"):
        subprocess.run(
            ["docker", "exec", "--interactive", name, "sh", "-c", f"umask 077; mkdir -p {HOME}; cat > {HOME}/identity.{half}"],
            input=(IDENTITIES / f"node.{half}").read_bytes(), check=True,
        )  # fmt: skip
    planet = json.dumps({"roots": [f"{found.address}:9993"]})
    found.run(f"printf '%s' '{planet}' > {HOME}/planet")
    package = Path(made.stdout.strip())
    subprocess.run(["docker", "cp", str(package), f"{name}:/root/"], check=True, capture_output=True)
    assert eventually(
        lambda: found.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"), 60
    )
    installed = found.run(f"dpkg --install /root/{package.name}")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert eventually(lambda: found.run(f"test -e {HOME}/zerotier-one.port").returncode == 0, 20)
    network = {
        "private": True,
        "name": "other",
        "v6AssignMode": {"rfc4193": True, "6plane": False, "zt": False},
    }
    found.api("POST", f"/controller/network/{found.network}", network)
    found.api(
        "POST", f"/controller/network/{found.network}/member/{node}", {"authorized": True, "name": "cobalt"}
    )
    found.api("POST", f"/network/{found.network}", {})
    assert eventually(lambda: found.api("GET", f"/network/{found.network}")["status"] == "OK", 30)
    declare(machine, found)
    # The machine under test finds others through the same root.
    machine.ssh(f"printf '%s' '{planet}' | sudo tee {HOME}/planet; sudo systemctl restart zerotier-one")
    yield found
    subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)


def declare(machine: Machine, cobalt: Neighbour) -> None:
    """A fleet of both machines, in a file beside the scenario's own."""
    key = " ".join((machine.folder / "host_key.pub").read_text(encoding="utf-8").split()[:2])
    known = machine.folder / "fleet_known_hosts"
    line = f"gpumesh-molecule-cobalt-baremetal {key}\n"
    if line not in known.read_text(encoding="utf-8"):
        known.write_text(known.read_text(encoding="utf-8") + line, encoding="utf-8")
    machines = {
        name: {"provider": "baremetal", "address": address, "host_keys": [key]}
        for name, address in (("machine", machine.address), ("cobalt", cobalt.address))
    }
    fleet = {
        "plugin": "gpumesh.fleet.fleet",
        "fleet": "molecule",
        "mesh": {"network": cobalt.network, "controller": "cobalt"},
        "known_hosts": "fleet_known_hosts",
        "defaults": {"user": "admin", "ssh_keys": ["key.pub"]},
        "machines": machines,
    }
    (machine.folder / "neighbour.yml").write_text(json.dumps(fleet), encoding="utf-8")
