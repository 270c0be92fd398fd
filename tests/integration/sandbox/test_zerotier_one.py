# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's programs as a user of a host meets them: the daemon, ``zerotier-cli``, ``zerotier-idtool``.

They join no network here, so nothing is done to this machine's interfaces.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
_PROGRAM = "import sys; from sandbox.zerotier_one.program import main; sys.exit(main(sys.argv[1:]))"


def words(*arguments: str) -> list[str]:
    """A command line; the first argument is the name the program is called by."""
    return [sys.executable, "-c", _PROGRAM, *arguments]


@dataclass
class Daemon:
    """A running one."""

    home: Path
    port: int
    process: subprocess.Popen[bytes]

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = words("zerotier-cli", f"-D{self.home}", *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=30)

    def connection(self, host: str = "127.0.0.1") -> http.client.HTTPConnection:
        return http.client.HTTPConnection(host, self.port, timeout=10)

    @property
    def token(self) -> str:
        return (self.home / "authtoken.secret").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(home: Path, port: int) -> subprocess.Popen[bytes]:
    log = home.with_suffix(".log").open("wb")
    with contextlib.closing(log):
        return subprocess.Popen(
            words("zerotier-one", "-U", f"-p{port}", str(home)), cwd=ROOT, stdout=log, stderr=log
        )


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    (home / "planet").write_text(json.dumps({"roots": [f"127.0.0.1:{port}"]}))
    running = Daemon(home, port, start(home, port))
    try:
        limit = time.monotonic() + 15
        while not (home / "zerotier-one.port").exists():
            assert running.process.poll() is None, home.with_suffix(".log").read_text()
            assert time.monotonic() < limit
            time.sleep(0.02)
        yield running
    finally:
        running.process.terminate()
        try:
            running.process.wait(15)
        finally:
            running.process.kill()


def test_the_client_shows_the_node_and_says_that_it_is_simulated(daemon: Daemon) -> None:
    done = daemon.cli("info")
    assert re.fullmatch(r"200 info [0-9a-f]{10} 1\.14\.2 ONLINE SIMULATED\n", done.stdout)
    shown = json.loads(daemon.cli("-j", "info").stdout)
    assert shown["simulated"] is True
    assert shown["address"] == done.stdout.split()[2]
    assert daemon.cli("listnetworks").stdout == (
        "200 listnetworks <nwid> <name> <mac> <status> <type> <dev> <ZT assigned ips>\n"
    )
    assert daemon.cli("-j", "listnetworks").stdout == "[]\n"
    assert daemon.cli("peers").stdout.startswith("200 peers\n<ztaddr>")
    assert daemon.cli("listpeers").stdout.startswith("200 listpeers <ztaddr>")
    assert json.loads(daemon.cli("/config").stdout) == {}
    assert daemon.cli("leave", "8056c2e21c000001").stdout == "200 leave OK\n"


def test_the_client_fails_as_the_real_one_does(daemon: Daemon, tmp_path: Path) -> None:
    done = daemon.cli("join", "8056c2e21c")
    assert (done.returncode, done.stdout) == (2, "invalid network id\n")
    done = daemon.cli("-Twrong", "info")
    assert (done.returncode, done.stdout) == (1, "401 info {}\n")
    # A line end in the file is part of the token for the client, though not for the daemon.
    (daemon.home / "authtoken.secret").write_text(daemon.token + "\n")
    assert daemon.cli("info").stdout == "401 info {}\n"
    (daemon.home / "authtoken.secret").unlink()
    assert daemon.cli("info").returncode == 2
    assert daemon.cli(f"-D{tmp_path}", "info").returncode == 2


def test_the_client_says_when_the_daemon_is_down(daemon: Daemon) -> None:
    port, token = daemon.port, daemon.token
    daemon.process.terminate()
    assert daemon.process.wait(15) == 0
    assert not (daemon.home / "zerotier-one.pid").exists()
    done = daemon.cli(f"-p{port}", f"-T{token}", "info")
    assert done.returncode == 1
    assert done.stdout.startswith("Error connecting to the ZeroTier service: ")


def test_a_connection_serves_five_requests(daemon: Daemon) -> None:
    with contextlib.closing(daemon.connection()) as connection:
        headers = []
        for _ in range(5):
            connection.request("GET", "/status", headers={"X-ZT1-Auth": daemon.token})
            answer = connection.getresponse()
            answer.read()
            headers.append((answer.status, answer.getheader("Keep-Alive"), answer.getheader("Connection")))
            assert answer.getheader("X-Gpumesh-Simulated") == "true"
        assert headers == [(200, "timeout=5, max=5", None)] * 4 + [(200, None, "close")]
        assert connection.sock is None


def test_the_right_token_from_another_address_is_a_wrong_one_unless_it_may(daemon: Daemon) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; chooses the address this machine would use
        own = probe.getsockname()[0]

    def status() -> tuple[int, bytes]:
        with contextlib.closing(daemon.connection(own)) as connection:
            connection.request("GET", "/status", headers={"X-ZT1-Auth": daemon.token})
            answer = connection.getresponse()
            return answer.status, answer.read()

    assert status() == (401, b"{}")
    content = json.dumps({"settings": {"allowManagementFrom": [own]}})
    (daemon.home / "local.conf").write_text(content)
    limit = time.monotonic() + 15
    while status()[0] != 200:  # the file is looked at from time to time
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_a_second_daemon_does_not_start_on_the_same_port(daemon: Daemon, tmp_path: Path) -> None:
    other = start(tmp_path / "other", daemon.port)
    assert other.wait(15) == 1
    assert (
        f"cannot bind to local control interface port {daemon.port}" in (tmp_path / "other.log").read_text()
    )
    assert daemon.cli("info").returncode == 0


def test_garbage_on_its_port_does_not_disturb_it(daemon: Daemon) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for text in (
            b"",
            b"\xff\x00",
            b"[]",
            b"{}",
            b'{"kind": "hello"}',
            b'{"kind": "hello", "identity": 7}',
        ):
            stranger.sendto(text, ("127.0.0.1", daemon.port))
    for text in (b"\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", daemon.port), 5) as connection:
            connection.sendall(text)
            assert connection.recv(100) == b""
    assert daemon.cli("info").returncode == 0
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(15) == 0
    assert "Traceback" not in daemon.home.with_suffix(".log").read_text()


def test_the_identity_tool_makes_what_it_calls_valid(tmp_path: Path) -> None:
    def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = words("zerotier-idtool", *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=30)

    secret, public = str(tmp_path / "secret"), str(tmp_path / "public")
    assert tool("generate", secret, public).stdout == f"{secret} written\n{public} written\n"
    assert tool("getpublic", secret).stdout == Path(public).read_text()
    for argument in (secret, public, Path(public).read_text()):
        assert tool("validate", argument).stdout == f"{argument} is a valid identity\n"
    (tmp_path / "bad").write_text(Path(secret).read_text()[:-1])
    assert tool("validate", str(tmp_path / "bad")).returncode == 1
    assert tool("validate", str(tmp_path / "missing")).returncode == 1
    assert tool("generate").stdout.count(":") == 3
