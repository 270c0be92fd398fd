# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroTier on the sandbox's hosts: the package from the sandbox's repository, Central as the controller, real traffic."""

from __future__ import annotations

import base64
import hashlib
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import hcloud
import pytest
import requests
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import addresses
from hcloud.images import Image
from hcloud.server_types import ServerType

from sandbox import zerotier_operator
from sandbox.backends.container import ContainerBackend
from sandbox.testing import Sandbox, serve

pytestmark = [pytest.mark.integration, pytest.mark.docker]
NAME = f"zt{uuid.uuid4().hex[:8]}"
"""Of the sandbox; its containers are named after it."""
OPERATOR = "8046d53400"
PORT = 22
"""Every host listens on it, on all its addresses."""
INSTALL = """
set -eu
python3 - <<'PYTHON'
import urllib.request
open("/etc/apt/keyrings/zerotier.asc", "wb").write(urllib.request.urlopen("{url}/key.asc").read())
PYTHON
rm -f /etc/apt/sources.list.d/*
echo "deb [signed-by=/etc/apt/keyrings/zerotier.asc] {url}/debian trixie main" >/etc/apt/sources.list.d/zerotier.list
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update >/dev/null
apt-get -qq install zerotier-one=1.14.2 >/dev/null
for try in $(seq 100); do zerotier-cli info 2>/dev/null | grep ONLINE && exit; sleep 0.1; done
exit 1
"""


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=180)
    assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout.strip()


def wait(condition: Callable[[], object], seconds: float, what: str) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@dataclass
class Host:
    """A host with the package installed."""

    container: str
    node: str = ""
    network: str = ""

    def run(self, *words: str, check: bool = True) -> str:
        return docker("exec", self.container, *words, check=check)

    @property
    def address(self) -> str:
        return str(addresses.rfc4193(self.network, self.node).ip)

    def status(self) -> str:
        return self.run("zerotier-cli", "get", self.network, "status")

    def wait_for(self, status: str) -> None:
        """A node looks around every 5 s."""
        wait(lambda: self.status() == status, 15, f"{self.container} is {status}")

    def reaches(self, address: str) -> bool:
        """Whether it can open a connection to that address."""
        program = f"import socket; socket.create_connection(({address!r}, {PORT}), 1)"
        return (
            docker("exec", self.container, "python3", "-c", f"{program}; print('yes')", check=False) == "yes"
        )


def reached(address: str) -> bool:
    """Whether this machine can open a connection to that address."""
    try:
        socket.create_connection((address, PORT), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    try:
        docker("image", "inspect", "gpumesh/host:debian-13")
    except (OSError, AssertionError):
        pytest.skip("needs a Docker engine and the image gpumesh/host:debian-13: tools/host-image")
    with serve(ContainerBackend(NAME)) as running:
        yield running


@pytest.fixture(scope="module")
def hosts(sandbox: Sandbox) -> list[Host]:
    """Two of them, with ZeroTier from the sandbox's repository."""
    cloud = hcloud.Client(
        sandbox.hetzner_token, api_endpoint=sandbox.hetzner, poll_interval=0.05, timeout=120
    )
    for name in ("one", "two"):
        created = cloud.servers.create(name, ServerType(name="cx23"), Image(name="debian-13"))
        created.action.wait_until_finished()
    found = {machine["hostname"]: Host(f"gpumesh-{NAME}-{machine['key']}") for machine in sandbox.machines()}
    port = int(sandbox.url.rpartition(":")[2]) + 10
    script = INSTALL.format(url=f"http://10.77.0.1:{port}/zerotier")

    def install(host: Host) -> None:
        host.run("systemctl", "is-system-running", "--wait", check=False)
        host.node = host.run("bash", "-c", script).split()[2]

    with ThreadPoolExecutor() as pool:
        list(pool.map(install, found.values()))
    return [found["one"], found["two"]]


class Central:
    """A network of the sandbox's account, which no other sandbox on the same bridge has, in API v1."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"token {sandbox.zerotier_token}"
        config = {"private": True, "v6AssignMode": {"rfc4193": True, "6plane": False, "zt": False}}
        answer = self._session.post(f"{sandbox.zerotier}/network", json={"config": config}, timeout=10)
        self.id = str(answer.json()["id"])
        self._url = f"{sandbox.zerotier}/network/{self.id}"

    def authorise(self, node: str, wanted: bool) -> None:
        content = {"config": {"authorized": wanted}}
        self._session.post(f"{self._url}/member/{node}", json=content, timeout=10).raise_for_status()

    def member(self, node: str) -> dict[str, Any]:
        answer = self._session.get(f"{self._url}/member/{node}", timeout=10)
        return dict(answer.json()) if answer.status_code == 200 else {}

    def delete(self, node: str) -> None:
        self._session.delete(f"{self._url}/member/{node}", timeout=10).raise_for_status()


@pytest.fixture(scope="module")
def central(sandbox: Sandbox, hosts: list[Host]) -> Central:
    made = Central(sandbox)
    for host in hosts:
        host.network = made.id
    return made


def simulation(sandbox: Sandbox, method: str, content: object = None) -> Any:
    answer = requests.request(
        method,
        f"{sandbox.url}/zerotier/simulation/operator",
        json=content,
        headers={"Authorization": f"Bearer {sandbox.token}"},
        timeout=30,
    )
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


def test_the_repository_is_signed_with_the_key_the_sandbox_names(sandbox: Sandbox, hosts: list[Host]) -> None:
    """That it is signed with this key apt has checked when the hosts installed the package."""
    lines = hosts[0].run("cat", "/etc/apt/keyrings/zerotier.asc").splitlines()
    packets = base64.b64decode("".join(lines[2:-2]))
    length = int.from_bytes(packets[1:3], "big")
    fingerprint = hashlib.sha1(b"\x99" + packets[1 : 3 + length], usedforsecurity=False).hexdigest().upper()
    assert (sandbox.state_dir / "zerotier.fingerprint").read_text() == f"{fingerprint}\n"
    assert "SIMULATED" in hosts[0].run("apt-cache", "show", "zerotier-one")
    assert (
        hosts[0]
        .run("apt-get", "--simulate", "install", "zerotier-one=1.14.2")
        .endswith("0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.")
    )


def test_members_of_centrals_network_reach_each_other_while_they_are_authorised(
    hosts: list[Host], central: Central
) -> None:
    one, two = hosts
    one.run("zerotier-cli", "join", central.id)
    one.wait_for("ACCESS_DENIED")
    assert central.member(one.node)["physicalAddress"].startswith("10.77.0.")
    assert central.member(one.node)["lastSeen"]
    for host in hosts:
        central.authorise(host.node, True)
    two.run("zerotier-cli", "join", central.id)
    for host in hosts:
        host.wait_for("OK")
        assert f"{host.address}/88" in host.run("zerotier-cli", "listnetworks")
    wait(lambda: one.reaches(two.address), 10, "traffic")

    central.authorise(two.node, False)
    wait(lambda: not one.reaches(two.address), 5, "the end of the traffic")
    central.authorise(two.node, True)
    wait(lambda: one.reaches(two.address), 10, "traffic again")


@pytest.mark.parametrize("way", ["as root", "through a container"])
def test_the_operators_machine_is_a_member_while_it_is_authorised(
    sandbox: Sandbox, hosts: list[Host], central: Central, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "as root":
        monkeypatch.setattr(zerotier_operator, "is_root", lambda: False)
    elif not zerotier_operator.is_root():
        pytest.skip("needs root, to change the bridge itself")
    one = hosts[0]
    central.authorise(one.node, True)
    one.run("zerotier-cli", "join", central.id)
    one.wait_for("OK")
    assert not reached(one.address)
    shown = simulation(sandbox, "POST", {"node_id": OPERATOR, "network": central.id})
    assert shown["status"] == "ACCESS_DENIED"
    assert central.member(OPERATOR)["config"]["authorized"] is False  # seen, and not let in
    assert not reached(one.address)

    central.authorise(OPERATOR, True)
    wait(lambda: reached(one.address), 10, "the operator reaches a member")
    own = str(addresses.rfc4193(central.id, OPERATOR).ip)
    assert f"{own}/88" in simulation(sandbox, "GET")["reachable"]
    central.authorise(OPERATOR, False)
    wait(lambda: not reached(one.address), 5, "the operator is out")

    central.authorise(OPERATOR, True)
    wait(lambda: reached(one.address), 10, "the operator is back")
    simulation(sandbox, "DELETE")
    assert not reached(one.address)
    central.authorise(OPERATOR, False)


def test_the_operator_is_a_member_of_a_network_whose_controller_is_a_host(
    sandbox: Sandbox, hosts: list[Host]
) -> None:
    one, two = hosts
    network = f"{one.node}0000aa"
    program = """
import http.client, sys
token = open("/var/lib/zerotier-one/authtoken.secret").read()
connection = http.client.HTTPConnection("127.0.0.1", 9993)
connection.request("POST", sys.argv[1], sys.argv[2], {"X-ZT1-Auth": token})
assert connection.getresponse().status == 200
"""

    def post(path: str, content: str) -> None:
        one.run("python3", "-c", program, f"/controller/network/{network}{path}", content)

    post("", '{"v6AssignMode": {"rfc4193": true}}')
    post(f"/member/{two.node}", '{"authorized": true}')
    two.run("zerotier-cli", "join", network)
    wait(lambda: two.run("zerotier-cli", "get", network, "status") == "OK", 15, "admission")
    simulation(sandbox, "POST", {"node_id": OPERATOR, "network": network})
    wait(lambda: simulation(sandbox, "GET")["status"] == "ACCESS_DENIED", 15, "the operator knocks")
    post(f"/member/{OPERATOR}", '{"authorized": true}')
    address = str(addresses.rfc4193(network, two.node).ip)
    wait(lambda: reached(address), 15, "the operator reaches a member")
    post(f"/member/{OPERATOR}", '{"authorized": false}')
    wait(lambda: not reached(address), 5, "the operator is out")
