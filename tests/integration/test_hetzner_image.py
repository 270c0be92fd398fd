# SPDX-License-Identifier: GPL-3.0-or-later
"""The module hetzner_image: a disk image becomes a snapshot, by way of a server that proves that it is that server.

The rescue system is SIMULATED by a second container whose disk is a file; SSH, host keys, signatures and the bytes on
that disk are real.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.firstboot import FirstBoot, new_host_key
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.reference import GoldenReference
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import rescue
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner import open_api
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_holder import Holder
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_image import converge
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_image_build import Wish
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.raw_source import (
    Measured,
    RawSource,
)
from ansible_collections.gpumesh.fleet.plugins.modules import hetzner_image
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module

from sandbox.backends.base import Backend
from sandbox.backends.container import ContainerBackend
from sandbox.testing import Sandbox, serve

pytestmark = [pytest.mark.integration]

ROOT = Path(__file__).parents[2]
BYTES = 24 * 2**20
PATIENCE = 120.0
SERVER = "gpumesh-gpu-box-v1-2-0"


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.strip()


@dataclass
class Bench:
    """A sandbox, a packed disk image, and runs of the module."""

    sandbox: Sandbox
    folder: Path
    source: Path
    sha256: str

    def params(self, **params: Any) -> dict[str, Any]:
        access = {"token": self.sandbox.hetzner_token, "endpoint": self.sandbox.hetzner}
        return {
            "name": "gpu-box", "version": "1.2.0", "os": "debian-13", "source": str(self.source),
            "wait_timeout": int(PATIENCE), **access, **params,
        }  # fmt: skip

    def run(self, *, check: bool = False, **params: Any) -> dict[str, Any]:
        result: dict[str, Any] = run_module(hetzner_image.main, check=check, **self.params(**params))
        assert "Traceback" not in str(result)
        assert "PRIVATE KEY" not in str(result)
        return result

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.sandbox.hetzner_token}"}
        answer = requests.request(
            method, f"{self.sandbox.hetzner}{path}", json=body, headers=headers, timeout=30
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def bought(self) -> int:
        return self.sandbox.requests(service="hetzner", method="POST", path="/servers$")

    @property
    def rest(self) -> list[str]:
        """What is there besides snapshots."""
        return [
            *(server["name"] for server in self.call("GET", "/servers")["servers"]),
            *(key["name"] for key in self.call("GET", "/ssh_keys")["ssh_keys"]),
        ]

    @property
    def snapshots(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", "/images?type=snapshot")["images"]
        return found


@contextlib.contextmanager
def bench_on(backend: Backend | None, folder: Path, operation_seconds: float) -> Iterator[Bench]:
    content = os.urandom(2**20) + bytes(BYTES - 2**20)
    source = folder / "disk.raw.zst"
    source.write_bytes(subprocess.run(["zstd", "-c"], input=content, capture_output=True, check=True).stdout)
    with serve(backend, operation_seconds=operation_seconds) as sandbox:
        yield Bench(sandbox, folder, source, hashlib.sha256(content).hexdigest())


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Bench]:
    """A cloud whose machines are records only."""
    with bench_on(None, tmp_path, 0.0) as bench:
        yield bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A cloud whose machines are containers."""
    try:
        docker("image", "inspect", "gpumesh/host:debian-13")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a Docker engine and the image gpumesh/host:debian-13: tools/host-image")
    with bench_on(ContainerBackend(f"image{uuid.uuid4().hex[:8]}"), tmp_path, 0.05) as bench:
        yield bench


def labelled(bench: Bench, content: str, **labels: str) -> int:
    """A snapshot that is there already."""
    body = {
        "name": f"other-{content[:8]}-{len(bench.snapshots)}",
        "server_type": "cx23",
        "image": "debian-13",
    }
    server = bench.call("POST", "/servers", body)["server"]["id"]
    while bench.call("GET", f"/servers/{server}")["server"]["locked"]:
        pass
    ours = {
        "gpumesh-image": "gpu-box",
        "gpumesh-image-version": "1.2.0",
        "gpumesh-image-content": content[:40],
    }
    body = {"labels": {**ours, "gpumesh-image-os": "debian-13", **labels}}
    image = bench.call("POST", f"/servers/{server}/actions/create_image", body)["image"]["id"]
    while bench.call("GET", f"/servers/{server}")["server"]["locked"]:
        pass
    bench.call("DELETE", f"/servers/{server}")
    return int(image)


def test_a_snapshot_with_that_content_is_left_alone(records: Bench) -> None:
    image = labelled(records, records.sha256)
    done = records.run()
    assert (done["changed"], done["image"]["id"], done["server"]) == (False, str(image), None)
    assert done["costs"]["server_hours"] == 0
    assert done["costs"]["snapshot_monthly"] == "0.0178"
    assert done["simulated"]


def test_with_a_checksum_at_hand_the_image_is_not_read(records: Bench) -> None:
    labelled(records, "ab" * 32)
    assert not records.run(source=None, content="ab" * 32)["changed"]
    assert not records.run(source="/nowhere", content="ab" * 32)["changed"]
    assert not records.run(source=None)["changed"]


def test_another_content_is_refused(records: Bench) -> None:
    labelled(records, "ab" * 32)
    bought = records.bought()
    refused = records.run()
    assert refused["failure"]["kind"] == "Conflict"
    assert "already with another content" in refused["msg"]
    assert records.bought() == bought


def test_several_are_refused(records: Bench) -> None:
    labelled(records, records.sha256)
    labelled(records, records.sha256)
    assert "2 snapshots of Hetzner Cloud claim to be golden:gpu-box@1.2.0" in records.run()["msg"]


def test_labels_follow_what_is_declared(records: Bench) -> None:
    labelled(records, records.sha256, owner="a", left="b")
    assert not records.run()["changed"]
    predicted = records.run(check=True, labels={"owner": "c"})
    changed = records.run(labels={"owner": "c"})
    assert predicted["changed"] and changed["changed"]
    assert predicted["diff"] == changed["diff"]
    assert changed["image"]["labels"] == {
        "gpumesh-image": "gpu-box",
        "gpumesh-image-version": "1.2.0",
        "gpumesh-image-content": records.sha256[:40],
        "gpumesh-image-os": "debian-13",
        "owner": "c",
    }
    assert not records.run(labels={"owner": "c"})["changed"]


def test_absent_deletes_it_and_what_was_left(records: Bench) -> None:
    labelled(records, records.sha256)
    labels = {"gpumesh-image-build": "gpu-box-v1.2.0"}
    body = {"name": SERVER, "server_type": "cx23", "image": "debian-13", "labels": labels}
    records.call("POST", "/servers", body)
    assert records.run(check=True, state="absent", source=None)["changed"]
    assert records.snapshots and records.rest == [SERVER]
    assert records.run(state="absent", source=None)["changed"]
    assert not records.snapshots and not records.rest
    assert not records.run(state="absent", source=None)["changed"]


def test_nothing_is_bought_for_what_cannot_be_done(records: Bench) -> None:
    damaged = records.folder / "damaged.zst"
    damaged.write_bytes(records.source.read_bytes()[:-9])
    for params, said in (
        ({"source": None}, "there is no source to make it from"),
        ({"source": str(damaged)}, "is damaged"),
        ({"source": "/nowhere"}, "cannot be read"),
        ({"server_type": "cax11"}, "golden images are for x86"),
        ({"server_type": "cx99"}, "no server type cx99"),
    ):
        result = records.run(**params)
        assert result["failed"] and said in result["msg"], result
    assert records.bought() == 0
    assert records.rest == []


def test_a_server_of_that_name_that_is_not_ours_is_left_alone(records: Bench) -> None:
    records.call("POST", "/servers", {"name": SERVER, "server_type": "cx23", "image": "debian-13"})
    refused = records.run()
    assert refused["failure"]["kind"] == "Conflict"
    assert f"a server {SERVER} already" in refused["msg"]
    assert records.rest == [SERVER]


def test_the_server_of_another_run_is_left_alone(records: Bench) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout and other.stdout.readline()
        from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import (
            hetzner_holder as h,
        )

        holder = h.Holder(h._machine(), other.pid, h._begun(other.pid) or "")
        labels = {"gpumesh-image-build": "gpu-box-v1.2.0", **holder.labels(4e9)}
        body = {"name": SERVER, "server_type": "cx23", "image": "debian-13", "labels": labels}
        records.call("POST", "/servers", body)
        for params in ({}, {"state": "absent"}):
            refused = records.run(**params)
            assert "another run is publishing golden:gpu-box@1.2.0" in refused["msg"]
        assert records.rest == [SERVER]
        other.kill()
    assert records.run(state="absent")["changed"]
    assert records.rest == []


def left(
    bench: Bench, *, status: str, build: str = "gpu-box-v1.2.0", name: str = SERVER, **labels: str
) -> int:
    """A temporary server that an earlier run has left."""
    ours = {"gpumesh-image-build": build, "gpumesh-image-content": bench.sha256[:40], **labels}
    body = {"name": name, "server_type": "cx23", "image": "debian-13", "labels": ours}
    server = bench.call("POST", "/servers", body)["server"]["id"]
    if status == "off":
        bench.call("POST", f"/servers/{server}/actions/poweroff")
    while (seen := bench.call("GET", f"/servers/{server}")["server"])["locked"] or seen["status"] != status:
        pass
    return int(server)


def test_a_finished_disk_is_taken_by_a_run_that_says_so(records: Bench) -> None:
    labels = {"gpumesh-image-step": "written", **replace(Holder.me(), begun="1").labels(4e9)}
    server = left(records, status="off", **labels)
    taken = records.sandbox.fault(
        kind="error", service="hetzner", method="POST", path="/create_image$", status=422
    )
    assert "whose disk is finished" in records.run()["msg"]
    assert records.sandbox.hits(taken) >= 1
    now = records.call("GET", f"/servers/{server}")["server"]["labels"]
    assert now == {**labels, **now, "gpumesh-image-by": Holder.me().labels(0)["gpumesh-image-by"]}
    records.sandbox.clear_faults()
    done = records.run(keep_server=True)
    assert done["changed"] and done["server"] == SERVER, done
    assert (records.bought(), len(records.snapshots)) == (1, 1)
    # Whoever kept it may start it, and then its disk is not the image any more.
    assert "gpumesh-image-step" not in records.call("GET", f"/servers/{server}")["server"]["labels"]


def test_a_server_that_was_started_since_is_not_taken(records: Bench) -> None:
    left(records, status="running", **{"gpumesh-image-step": "written"})
    records.sandbox.fault(kind="error", service="hetzner", method="POST", path="/servers$", status=422)
    assert records.run()["failed"]
    assert records.sandbox.requests(service="hetzner", method="POST", path="/actions/create_image$") == 0
    assert records.rest == []


def warned(result: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """The warnings, which in this process ansible-core 2.19 and newer print themselves."""
    return f"{result.get('warnings', '')} {capsys.readouterr().err}"


def test_the_server_of_an_image_that_nobody_publishes_any_more_is_told(
    records: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled(records, records.sha256)
    left(
        records,
        status="off",
        build="other-v1.0.0",
        name="gpumesh-other",
        **replace(Holder.me(), machine="a").labels(4e9),
    )
    assert "was left by a run" not in warned(records.run(check=True), capsys)
    left(records, status="off", build="gpu-box-v1.1.0", name="gpumesh-older")
    warning = warned(records.run(check=True), capsys)
    assert "server gpumesh-older was left by a run that published gpu-box-v1.1.0" in warning
    assert "gpumesh-other" not in warning


class Impatient(SystemClock):
    """Somebody who interrupts once there is a server."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.interrupted = False

    def sleep(self, seconds: float) -> None:
        if not self.interrupted and SERVER in self._bench.rest:
            self.interrupted = True
            raise KeyboardInterrupt
        super().sleep(0.01)


def test_an_interrupted_run_leaves_no_server(records: Bench) -> None:
    records.sandbox.set_operation_seconds(0.5)
    clock = Impatient(records)
    api = open_api(records.sandbox.hetzner_token, records.sandbox.hetzner, clock)
    wish = Wish(GoldenReference.parse("golden:gpu-box@1.2.0"), source=records.source)
    with pytest.raises(KeyboardInterrupt):
        converge(api, clock, wish, records.folder, check=False)
    assert clock.interrupted and records.rest == []


def test_a_server_that_cannot_be_deleted_is_told(records: Bench) -> None:
    records.sandbox.set_operation_seconds(5.0)
    records.sandbox.fault(kind="error", service="hetzner", method="DELETE", path=r"/servers/\d+$", status=403)
    failed = records.run(wait_timeout=0)
    assert f"the temporary server {SERVER} could not be deleted" in failed["msg"], failed
    assert SERVER in records.rest


@pytest.mark.docker
def test_a_disk_image_becomes_a_snapshot(bench: Bench) -> None:
    predicted = bench.run(check=True, keep_server=True)
    assert predicted["changed"] and bench.bought() == 0
    made = bench.run(keep_server=True)
    assert made["changed"], made
    assert made["diff"] == predicted["diff"]
    assert made["image"]["image"] == "golden:gpu-box@1.2.0"
    assert made["image"]["labels"]["gpumesh-image-content"] == bench.sha256[:40]
    assert (made["costs"]["server_hours"], made["server"]) == (1, SERVER)

    # What lies on the disk, seen from outside: the image, and of what was there before nothing.
    [volume] = docker("volume", "ls", "--quiet", "--filter=name=hetzner-.*-disk").split()[:1]
    look = (
        f"head -c {BYTES} /sandbox/disk.img | sha256sum; "
        f"tail -c +{BYTES + 1} /sandbox/disk.img | head -c 67108864 | tr -d '\\0' | wc -c; "
        "grep -rl 'PRIVATE KEY' /sandbox/system | wc -l"
    )
    mount = f"--volume={volume}:/sandbox:ro"
    said = docker("run", "--rm", mount, "--entrypoint=sh", "gpumesh/host:debian-13", "-c", look).splitlines()
    assert said == [f"{bench.sha256}  -", "0", "0"]

    [key] = [*bench.call("GET", "/ssh_keys")["ssh_keys"], None][:1]
    assert key is None
    removed = bench.run()
    assert removed["changed"] and bench.rest == []
    again = bench.run()
    assert not again["changed"]
    assert again["image"] == made["image"]


@dataclass
class Rescued:
    """A server in its rescue system."""

    planted: str
    address: str
    shown: str
    us: rescue.Identity


@pytest.fixture
def rescued(bench: Bench) -> Rescued:
    planted, us = new_host_key(), rescue.new_identity(bench.folder)
    key = bench.call("POST", "/ssh_keys", {"name": "us", "public_key": us.public})["ssh_key"]["id"]
    boot = FirstBoot("gpumesh", (us.public,), planted)
    body = {"name": "a", "server_type": "cx23", "image": "debian-13", "user_data": boot.cloud_config()}
    server = bench.call("POST", "/servers", body)["server"]
    address, clock = server["public_net"]["ipv4"]["ip"], SystemClock()
    first = rescue.Remote(bench.folder, "a", address, "gpumesh", planted.public, us)
    first.wait(clock, "reaching it", ["sh", "-c", "cloud-init status --wait; sudo sync"], PATIENCE)
    for verb, given in (("enable_rescue", {"ssh_keys": [key]}), ("reset", {})):
        while bench.call("GET", f"/servers/{server['id']}")["server"]["locked"]:
            pass
        bench.call("POST", f"/servers/{server['id']}/actions/{verb}", given)
    shown = rescue.await_rescue(clock, "a", address, planted.public, PATIENCE)
    return Rescued(planted.public, address, shown, us)


@pytest.mark.docker
def test_who_cannot_sign_with_the_planted_key_is_written_nothing(bench: Bench, rescued: Rescued) -> None:
    remote = rescue.Remote(bench.folder, "a", rescued.address, "root", rescued.shown, rescued.us)
    remote.wait(SystemClock(), "reaching it", ["true"], PATIENCE)
    with pytest.raises(errors.Conflict, match="cannot sign with the host key"):
        rescue.prove(remote, "a", new_host_key().public, bench.folder)
    # The same server is believed by who knows the right key.
    assert "gzip" in rescue.prove(remote, "a", rescued.planted, bench.folder)

    # A signature over another host key than the one we see does not count: somebody in between would have passed it on.
    remote.host_key = new_host_key().public
    told = remote.run("x", ["sh", rescue._SCRIPT, "prove", "0" * 32, rescue.fingerprint(rescued.shown)])
    real = remote.run
    remote.run = lambda doing, words, *a, **k: told if "prove" in words else real(doing, words, *a, **k)  # type: ignore[method-assign]
    with pytest.raises(errors.Conflict, match="cannot sign with the host key"):
        rescue.prove(remote, "a", rescued.planted, bench.folder)


@pytest.mark.docker
def test_what_is_read_back_is_compared(bench: Bench, rescued: Rescued) -> None:
    remote = rescue.Remote(bench.folder, "a", rescued.address, "root", rescued.shown, rescued.us)
    remote.wait(SystemClock(), "reaching it", ["true"], PATIENCE)
    programs = rescue.prove(remote, "a", rescued.planted, bench.folder)
    source = RawSource(bench.source)
    source.__dict__["measured"] = Measured("0" * 64, BYTES)
    with pytest.raises(errors.OperationFailed, match=f"sha256 {bench.sha256} and not 0000"):
        rescue.write(remote, "a", source, programs, PATIENCE)
    source.__dict__["measured"] = Measured(bench.sha256, 2**60)
    with pytest.raises(errors.OperationFailed, match="the disk has 42949672960 bytes, and the image"):
        rescue.write(remote, "a", source, programs, PATIENCE)
    # The disk's own system is gone, and with it what could prove anything.
    with pytest.raises(errors.OperationFailed, match="no system with an SSH host key is on the disk"):
        rescue.prove(remote, "a", rescued.planted, bench.folder)


@pytest.mark.docker
def test_another_host_key_than_the_one_seen_ends_it(bench: Bench, rescued: Rescued) -> None:
    other = rescue.Remote(bench.folder, "a", rescued.address, "root", new_host_key().public, rescued.us)
    with pytest.raises(errors.Conflict, match="shows another SSH host key"):
        other.wait(SystemClock(), "reaching it", ["true"], PATIENCE)


MOMENTS = (
    ("POST", "/ssh_keys$"),
    ("POST", "/servers$"),
    ("POST", "/actions/enable_rescue$"),
    ("POST", "/actions/reset$"),
    ("POST", "/actions/poweroff$"),
    ("POST", "/actions/create_image$"),
    ("POST", "/actions/create_image$"),
    ("DELETE", r"/servers/\d+$"),
)
"""Requests upon which the run is killed, one run after the other."""


@pytest.mark.docker
def test_killed_at_any_moment_the_next_run_comes_through(bench: Bench) -> None:
    arguments = bench.folder / "arguments.json"
    arguments.write_text(json.dumps(bench.params()))
    starter = (
        "import json, pathlib, sys\n"
        "from ansible_collections.gpumesh.fleet.tests.module_runner import patch_module_args\n"
        "from ansible_collections.gpumesh.fleet.plugins.modules import hetzner_image\n"
        "with patch_module_args(json.loads(pathlib.Path(sys.argv[1]).read_text())):\n"
        "    hetzner_image.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".ansible" / "collections")}
    # The first request for a snapshot comes to nothing, so the next run has a finished disk and no snapshot.
    bench.sandbox.fault(kind="hang", service="hetzner", method="POST", path="/actions/create_image$")
    killed, bought = [], {}
    for method, path in MOMENTS:
        before = bench.sandbox.requests(service="hetzner", method=method, path=path)
        with subprocess.Popen(
            [sys.executable, "-c", starter, str(arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            while process.poll() is None:
                if bench.sandbox.requests(service="hetzner", method=method, path=path) > before:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    killed.append(path)
                    bought.setdefault(path, bench.bought())
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
            out = process.communicate()[0].decode()
            assert "Traceback" not in out, out
    assert killed == [path for _, path in MOMENTS]
    done = bench.run()
    assert "failed" not in done, done
    assert [image["status"] for image in bench.snapshots] == ["available"]
    assert bench.rest == []
    assert bench.sandbox.machines() == []
    # The finished disk of the run that was killed while it asked for the snapshot was not written a second time.
    assert bench.bought() == bought["/actions/create_image$"]
    assert bench.sandbox.requests(service="hetzner", method="POST", path="/actions/create_image$") == 2
