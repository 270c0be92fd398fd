# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests carried by ssh, with a program called ssh that runs the command here, and a server that stands for zerotier-one."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, http
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import rest, zerotier_controller
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.members import MemberWish
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.relay import RelayAdapter, SshTarget
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, FakeClock, Seen, Server, closed_port
from ansible_collections.gpumesh.fleet.tests.zerotier_recordings import CONTROLLER, recordings

ALL = recordings()
TOKEN = "planted0token0of0zerotier"
LAB = f"{CONTROLLER}0000aa"
NODE = "fa34221551"

# Notes its arguments and its process, then becomes what sshd would start: the user's shell with the command.
SSH = """\
#!/bin/sh
printf '%s\\n' "$*" >> {folder}/arguments
echo $$ >> {folder}/processes
for command; do :; done
{before}
exec sh -c "exec $command" 2>> {folder}/stderr
"""

SUDO = """\
#!/bin/sh
[ "$1" = -n ] || exit 99
shift
exec "$@"
"""


@dataclass
class Machine:
    """A machine that can be reached by the program called ssh."""

    folder: Path
    adapters: list[RelayAdapter] = field(default_factory=list)

    def ssh(self, before: str = "") -> None:
        self.program("ssh", SSH.format(folder=self.folder, before=before))

    def program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    @property
    def token_file(self) -> Path:
        return self.folder / "authtoken.secret"

    def adapter(
        self, user: str | None = "admin", options: tuple[str, ...] = (), **given: Any
    ) -> RelayAdapter:
        target = SshTarget("192.0.2.1", 2222, user, options, name="cinnabar")
        given = {"token_file": str(self.token_file), "start_timeout": 20.0, "timeout": (1.0, 10.0), **given}
        adapter = RelayAdapter(target, FakeClock(), rest.policy(deadline=10.0, chance=lambda: 1.0), **given)
        self.adapters.append(adapter)
        return adapter

    def plane(self, url: str, **given: Any) -> zerotier_controller.ZeroTierController:
        api = rest.Rest(
            url, {}, self.adapter(**given), "the ZeroTier controller on cinnabar", {}, "Start zerotier-one"
        )
        return zerotier_controller.ZeroTierController(LAB, api, FakeClock())

    def noted(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def starts(self) -> int:
        return len(self.noted("processes"))

    @property
    def alive(self) -> list[int]:
        return [pid for pid in map(int, self.noted("processes")) if running(pid)]


def running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    machine.ssh()
    machine.program("sudo", SUDO)
    machine.token_file.write_text(f" {TOKEN}\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    yield machine
    for adapter in machine.adapters:
        adapter.close()
    assert not machine.alive


@pytest.fixture
def daemon() -> Iterator[Server]:
    with Server(lambda seen: Answer(200, {"did": str(seen), "with": seen.body})).running() as server:
        yield server


Act = Callable[[RelayAdapter, str], Any]


def get(adapter: RelayAdapter, url: str) -> Any:
    return http.new_session(adapter).get(f"{url}/status")


def test_requests_are_carried_and_the_token_is_added_there(machine: Machine, daemon: Server) -> None:
    with machine.adapter() as adapter:
        assert not machine.starts, "nothing is started before it is needed"
        session = http.new_session(adapter)
        assert session.get(f"{daemon.url}/peer?x=1").json() == {"did": "GET /peer", "with": None}
        answer = session.post(f"{daemon.url}/controller/network/a", json={"name": "ü ✓"})
        assert answer.json()["with"] == {"name": "ü ✓"}
        assert session.delete(f"{daemon.url}/controller/network/a").status_code == 200
        assert machine.starts == 1 and len(machine.alive) == 1
    assert not machine.alive
    for seen in daemon.seen:
        assert seen.headers["x-zt1-auth"] == TOKEN
    assert daemon.seen[1].headers["content-type"] == "application/json"
    assert daemon.seen[0].query == (("x", "1"),)
    assert TOKEN not in "".join(machine.noted("arguments"))
    assert not machine.noted("stderr")


def test_without_a_port_it_is_the_one_the_daemon_says(machine: Machine, daemon: Server) -> None:
    (machine.folder / "zerotier-one.port").write_text(daemon.url.rpartition(":")[2])
    assert get(machine.adapter(), "http://127.0.0.1").json()["did"] == "GET /status"


def test_a_closed_one_starts_again_when_it_is_needed(machine: Machine, daemon: Server) -> None:
    adapter = machine.adapter()
    for times in (1, 2):
        assert get(adapter, daemon.url).status_code == 200
        adapter.close()
        adapter.close()
        assert machine.starts == times
        assert not machine.alive


@pytest.mark.parametrize("number", [105, 107, 149, 403, 4, 31])
def test_answers_come_as_they_were(machine: Machine, number: int) -> None:
    recording = ALL[number]
    with Server(lambda seen: recording.answer).running() as server, machine.adapter() as adapter:
        answer = http.new_session(adapter).get(server.url + recording.path)
    assert answer.status_code == recording.status
    assert answer.reason
    assert answer.headers.get("Content-Type") == recording.headers.get("Content-Type")
    if isinstance(recording.body, str):
        assert answer.text == recording.body
    else:
        assert answer.json() == recording.body


def test_how_ssh_is_called(machine: Machine, daemon: Server) -> None:
    with machine.adapter(
        options=("-o", "UserKnownHostsFile=/x", "-o", "StrictHostKeyChecking=no")
    ) as adapter:
        get(adapter, daemon.url)
    (arguments,) = machine.noted("arguments")
    words = arguments.split()
    checks = [word for word in words if word.startswith("StrictHostKeyChecking")]
    assert checks[0] == "StrictHostKeyChecking=yes", "ssh takes the first"
    assert {"BatchMode=yes", "UserKnownHostsFile=/x", "-T"} <= set(words)
    assert "-p 2222 -l admin -- 192.0.2.1 env LC_ALL=C sudo -n python3 -I -c" in arguments


def test_root_needs_no_sudo(machine: Machine, daemon: Server) -> None:
    machine.program("sudo", "#!/bin/sh\nexit 98\n")
    with machine.adapter(user="root") as adapter:
        assert get(adapter, daemon.url).status_code == 200
    assert "-l root -- 192.0.2.1 env LC_ALL=C python3" in machine.noted("arguments")[0]
    bare = SshTarget("cinnabar.example")
    assert (
        "-l" not in bare.command
        and "sudo -n python3" in bare.command[-1]
        and bare.label == "cinnabar.example"
    )


class Parallel(ThreadingHTTPServer):
    """Answers with the path, and those under /together only once eight of them are there."""

    request_queue_size = 64
    daemon_threads = True
    together = threading.Barrier(8)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/together"):
                Parallel.together.wait(10)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(self.path).encode())

        def log_message(self, *args: Any) -> None:
            return


def test_many_threads_share_one_ssh(machine: Machine) -> None:
    """All requests of a moment are under way at the same time, and each gets its own answer."""
    server = Parallel(("127.0.0.1", 0), Parallel.Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    with machine.adapter() as adapter, ThreadPoolExecutor(8) as pool:
        paths = [*(f"/together/{n}" for n in range(8)), *(f"/one/{n}" for n in range(100))]
        assert [*pool.map(lambda path: http.new_session(adapter).get(url + path).json(), paths)] == paths
    server.shutdown()
    server.server_close()
    assert machine.starts == 1


def test_the_whole_control_plane_by_ssh(machine: Machine) -> None:
    record = {**ALL[309].body, "authorized": True}
    known = {
        "GET /status": Answer(200, ALL[1].body, {http.SIMULATED_HEADER: "true"}),
        "GET /controller": ALL[20].answer,
        "GET /peer": ALL[650].answer,
        f"GET /unstable/controller/network/{LAB}/member": Answer(200, {"data": [record]}),
        f"POST /controller/network/{LAB}/member/{NODE}": Answer(200, record),
    }
    with Server(lambda seen: known.get(str(seen), Answer(404))).running() as server:
        plane = machine.plane(server.url)
        assert [member.node_id for member in plane.members()] == [NODE]
        assert plane.save_member(MemberWish(NODE, authorized=True)).authorized
        assert plane.network() is None
        assert plane.simulated
        plane.close()
    assert machine.starts == 1
    assert not machine.alive


# Failures to start


@pytest.mark.parametrize(
    ("before", "kind", "words"),
    [
        ("echo 'Host key verification failed.' >&2; exit 255", errors.Unreachable, "host key is not the known one"),
        ("echo 'admin@192.0.2.1: Permission denied (publickey).' >&2; exit 255", errors.Unreachable, "your key"),
        ("echo 'ssh: connect to host 192.0.2.1 port 2222: Connection refused' >&2; exit 255", errors.Unreachable, "refused"),
        ("exit 255", errors.Unreachable, "said nothing"),
        ("echo 'sudo: a password is required' >&2; exit 1", errors.Forbidden, "NOPASSWD"),
        ("echo 'admin is not in the sudoers file.' >&2; exit 1", errors.Forbidden, "admin may not become root on cinnabar"),
        ("echo \"env: 'sudo': No such file or directory\" >&2; exit 127", errors.Forbidden, "sudo"),
        ("echo 'sudo: python3: command not found' >&2; exit 1", errors.NotFound, "no python3"),
        ("echo 'This account is currently not available.'; exit 1", errors.Unavailable, "did not start"),
        ("exit 0", errors.Unavailable, "did not start"),
        ("echo 'token=planted0token0of0zerotier' >&2; exit 7", errors.Unavailable, "did not start"),
    ],
)  # fmt: skip
def test_why_it_did_not_start(
    machine: Machine, daemon: Server, before: str, kind: type[errors.ProviderError], words: str
) -> None:
    machine.ssh(before)
    with pytest.raises(errors.ProviderError) as caught:
        get(machine.adapter(), daemon.url)
    assert type(caught.value) is kind
    assert words in str(caught.value) and "cinnabar" in str(caught.value)
    assert TOKEN not in f"{caught.value} {caught.value.as_failure()}"
    assert machine.starts == 1, "it is not tried again"
    assert not daemon.seen


def test_zerotier_one_is_not_installed_there(machine: Machine, daemon: Server) -> None:
    machine.token_file.unlink()
    with pytest.raises(errors.NotFound, match="zerotier-one is not installed there: cinnabar"):
        get(machine.adapter(), daemon.url)


def test_a_token_that_cannot_be_read_or_is_empty(machine: Machine, daemon: Server) -> None:
    machine.token_file.write_text(" \n")
    with pytest.raises(errors.Forbidden, match="cannot be read, or is empty"):
        get(machine.adapter(), daemon.url)
    machine.token_file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(errors.Forbidden):
        get(machine.adapter(), daemon.url)
    with pytest.raises(errors.Forbidden):
        get(machine.adapter(token_file=str(machine.folder)), daemon.url)


def test_no_ssh_on_this_machine(machine: Machine, daemon: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(machine.folder / "nowhere"))
    with pytest.raises(errors.Unreachable, match="OpenSSH client"):
        get(machine.adapter(), daemon.url)


def test_an_ssh_that_hangs(machine: Machine, daemon: Server) -> None:
    machine.ssh("sleep 60")
    adapter = machine.adapter(start_timeout=0.3)
    with pytest.raises(errors.Unreachable, match="did not answer over ssh"):
        get(adapter, daemon.url)
    with ThreadPoolExecutor(4) as pool:
        for failed in [pool.submit(get, adapter, daemon.url) for _ in range(4)]:
            with pytest.raises(errors.Unreachable):
                failed.result()
    assert machine.starts == 1, "what did not start once is not waited for by each thread anew"
    assert not machine.alive


def test_what_a_login_shell_prints_is_passed_over(machine: Machine, daemon: Server) -> None:
    machine.ssh('echo "Welcome to cinnabar"; echo "gpumesh-relay:{}"; echo "gpumesh-relay:[1]"; echo')
    with machine.adapter() as adapter:
        assert get(adapter, daemon.url).status_code == 200


def test_garbage_without_end(machine: Machine, daemon: Server) -> None:
    machine.ssh("while :; do echo garbage; done")
    with pytest.raises(errors.Unavailable, match="did not start"):
        get(machine.adapter(), daemon.url)


# Failures in mid-run


def test_an_ssh_that_is_killed_in_mid_run(machine: Machine) -> None:
    """The request is made again by another ssh, for each may be repeated."""
    requests_seen: list[Seen] = []

    def respond(seen: Seen) -> Answer:
        requests_seen.append(seen)
        if len(requests_seen) == 2:
            os.kill(machine.alive[0], signal.SIGKILL)
            time.sleep(0.1)
        return Answer(200, {"n": len(requests_seen)})

    with Server(respond).running() as server, machine.adapter() as adapter:
        assert get(adapter, server.url).json() == {"n": 1}
        answer = http.new_session(adapter).post(f"{server.url}/controller/network/a", json={"name": "a"})
        assert answer.json() == {"n": 3}
        assert machine.starts == 2
    assert [str(seen) for seen in requests_seen][1:] == ["POST /controller/network/a"] * 2


def test_an_ssh_that_died_between_two_requests(machine: Machine, daemon: Server) -> None:
    with machine.adapter() as adapter:
        get(adapter, daemon.url)
        os.kill(machine.alive[0], signal.SIGKILL)
        assert get(adapter, daemon.url).status_code == 200
    assert machine.starts == 2


def test_an_ssh_that_dies_and_cannot_be_started_again(machine: Machine, daemon: Server) -> None:
    with machine.adapter() as adapter:
        get(adapter, daemon.url)
        machine.ssh("echo 'ssh: connect to host 192.0.2.1 port 2222: No route to host' >&2; exit 255")
        os.kill(machine.alive[0], signal.SIGKILL)
        with pytest.raises(errors.Unreachable, match="No route to host"):
            get(adapter, daemon.url)


def test_an_ssh_that_dies_each_time(machine: Machine) -> None:
    def respond(seen: Seen) -> Answer:
        os.kill(machine.alive[0], signal.SIGKILL)
        time.sleep(0.05)
        return Answer(200, {})

    with Server(respond).running() as server, pytest.raises(errors.Unavailable, match="broke the connection"):
        machine.plane(server.url).network()
    assert 1 < machine.starts < 20, "tried again, and not for ever"


def test_an_ssh_that_hangs_in_mid_run(machine: Machine, daemon: Server) -> None:
    with machine.adapter(timeout=(1.0, 0.2), grace=0.2) as adapter:
        get(adapter, daemon.url)
        os.kill(machine.alive[0], signal.SIGSTOP)
        assert get(adapter, daemon.url).status_code == 200, "by another one"
    assert machine.starts == 2


def test_a_daemon_that_is_slow_is_not_taken_for_a_dead_ssh(machine: Machine) -> None:
    held = threading.Event()

    def respond(seen: Seen) -> Answer:
        held.wait(20)
        return Answer(0)

    with Server(respond).running() as server:
        plane = machine.plane(server.url, timeout=(1.0, 0.1))
        with pytest.raises(errors.Unavailable, match=r"cinnabar.*did not answer in time"):
            plane.network()
        held.set()
    assert machine.starts == 1


def test_a_daemon_that_is_down(machine: Machine) -> None:
    with pytest.raises(errors.Unreachable, match=r"cinnabar.*could not be reached.*Start zerotier-one"):
        machine.plane(f"http://127.0.0.1:{closed_port()}").network()
    assert machine.starts == 1


def test_a_daemon_that_breaks_off(machine: Machine) -> None:
    left = [Answer(200, {"a": 1}, cut=True), Answer(0), Answer(200, {"a": 1})]
    with Server(lambda seen: left.pop(0)).running() as server, machine.adapter() as adapter:
        assert get(adapter, server.url).json() == {"a": 1}
    assert machine.starts == 1


# Secrets and processes


def test_the_token_stays_where_it_is(machine: Machine) -> None:
    """Neither an answer that shows it nor a token that cannot be sent brings it here."""
    with (
        Server(lambda seen: Answer(200, dict(seen.headers))).running() as server,
        machine.adapter() as adapter,
    ):
        answer = get(adapter, server.url)
        assert server.seen[0].headers["x-zt1-auth"] == TOKEN
        assert answer.json()["x-zt1-auth"] == "***"
        assert TOKEN not in answer.text
    machine.token_file.write_text(f"{TOKEN}\n{TOKEN}")
    with pytest.raises(errors.Unavailable) as caught:
        machine.plane("http://127.0.0.1:1").network()
    assert TOKEN not in f"{caught.value} {caught.value.as_failure()}"
    assert not machine.noted("stderr")


def test_an_adapter_that_nobody_holds_any_more_ends_its_ssh(machine: Machine, daemon: Server) -> None:
    adapter = RelayAdapter(
        SshTarget("192.0.2.1"), FakeClock(), token_file=str(machine.token_file), start_timeout=20.0
    )
    get(adapter, daemon.url)
    assert len(machine.alive) == 1
    del adapter
    gc.collect()
    assert not machine.alive


def test_a_program_that_ends_without_closing_leaves_no_ssh_behind(
    machine: Machine, daemon: Server, root: Path
) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(root / ".ansible" / "collections")!r})
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import http
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.relay import RelayAdapter, SshTarget
adapter = RelayAdapter(SshTarget("192.0.2.1"), SystemClock(), token_file={str(machine.token_file)!r})
print(http.new_session(adapter).get({daemon.url!r} + "/status").status_code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "200\n"
    assert not done.stderr
    assert machine.starts == 1
    assert not machine.alive


def test_it_works_inside_a_module(machine: Machine, daemon: Server, root: Path) -> None:
    """There the collection travels in a zip file, and so does the program that is sent to the other machine."""
    module = machine.folder / "library" / "probe.py"
    module.parent.mkdir()
    base = "ansible_collections.gpumesh.fleet.plugins.module_utils._fleet"
    module.write_text(f"""\
#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
from {base} import http
from {base}.clock import SystemClock
from {base}.mesh import relay
module = AnsibleModule(argument_spec={{"url": {{"type": "str"}}, "token_file": {{"type": "path", "no_log": False}}}})
with relay.RelayAdapter(relay.SshTarget("192.0.2.1"), SystemClock(), token_file=module.params["token_file"]) as adapter:
    answer = http.new_session(adapter).get(module.params["url"] + "/status").json()
module.exit_json(answer=answer, file=relay.__file__)
""")
    settings = machine.folder / "ansible.cfg"
    settings.write_text("[defaults]\n")
    command = [
        str(Path(sys.executable).with_name("ansible")), "localhost", "-i", "localhost,", "-c", "local",
        "-M", str(module.parent), "-m", "probe",
        "-a", f"url={daemon.url} token_file={machine.token_file}", "-e", f"ansible_python_interpreter={sys.executable}",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(settings),
        "ANSIBLE_COLLECTIONS_PATH": str(root / ".ansible" / "collections"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_LOCAL_TEMP": str(machine.folder / "local"),
        "ANSIBLE_REMOTE_TEMP": str(machine.folder / "remote"),
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout[done.stdout.index("{") :])
    assert result["answer"] == {"did": "GET /status", "with": None}
    assert ".zip/" in result["file"]
    assert daemon.seen[0].headers["x-zt1-auth"] == TOKEN
