# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/image_publish.yml as a user runs it: from the store into both clouds, and a fleet's machine made from it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import image_manifest

from sandbox.backends.container import ContainerBackend
from sandbox.testing import Sandbox, serve
from tests import image_builds
from tests.fleets import gcp, hetzner, run_module, write_fleet
from tests.integration.sandbox.gce_client import signed_in
from tests.module_runner import run_module as run_other
from tests.playbook_runner import run_playbook

pytestmark = pytest.mark.integration

PROJECT = "gpumesh-sandbox"
BUCKET = "my-images"
GOLDEN = "golden:gpu-box@1.0.0"


def tools() -> str:
    """The image in which disks are converted, of whatever month."""
    try:
        listed = subprocess.run(
            ["docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}", "gpumesh/image-tools"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        listed = []
    if not listed:
        pytest.skip(
            "needs a Docker engine and the image gpumesh/image-tools, which playbooks/image.yml makes"
        )
    return listed[0]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with version 1.0.0, whose disk has 1 GiB."""
    folder = tmp_path / "images"
    build = image_builds.build(folder)
    disk = [
        "python3",
        "-c",
        "open('/work/disk.raw', 'wb').write(b'golden' * 99999 + bytes(2**30 - 6 * 99999))",
    ]
    convert = ["qemu-img", "convert", "-q", "-O", "qcow2", "/work/disk.raw", "/work/disk.qcow2"]
    for words in (disk, convert, ["rm", "/work/disk.raw"]):
        subprocess.run(["docker", "run", "--rm", f"--volume={build}:/work", tools(), *words], check=True)
    done = run_other(image_manifest.main, store=str(folder), name="gpu-box", **image_builds.options(build))
    assert done["changed"], done
    return folder


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    image = ["docker", "image", "inspect", "gpumesh/host:debian-13"]
    try:
        subprocess.run(image, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a Docker engine and the image gpumesh/host:debian-13: tools/host-image")
    with serve(ContainerBackend(f"publish{uuid.uuid4().hex[:8]}"), operation_seconds=0.05) as running:
        yield running


def publish(
    home: Path, store: Path, *arguments: str, sandbox: Sandbox | None = None, **given: Any
) -> subprocess.CompletedProcess[str]:
    variables = {"golden_image_name": "gpu-box", "golden_image_store": str(store), **given}
    environ = {}
    if sandbox:
        variables["golden_image_tools_image"] = tools()
        environ = {
            "HCLOUD_TOKEN": sandbox.hetzner_token,
            "HCLOUD_ENDPOINT": sandbox.hetzner,
            "GCP_PROJECT": PROJECT,
            "GCP_ENDPOINT": sandbox.compute,
            "GCP_STORAGE_ENDPOINT": sandbox.storage,
            "GOOGLE_APPLICATION_CREDENTIALS": str(sandbox.google_credentials),
        }
    return run_playbook(
        home,
        "localhost,",
        "playbooks/image_publish.yml",
        "-e",
        json.dumps(variables),
        *arguments,
        **environ,
    )


def words(done: subprocess.CompletedProcess[str]) -> str:
    said = " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"golden_image_publish": []},
        {"golden_image_publish": "hetzner"},
        {"golden_image_publish": ["azure"]},
        {"golden_image_publish": ["gcp"]},
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, given: dict[str, Any]) -> None:
    done = publish(tmp_path, tmp_path, **given)
    assert done.returncode == 2
    assert "The clouds there are: gcp, which also needs golden_image_gcp_bucket, and hetzner." in words(done)


@pytest.mark.docker
def test_a_version_gets_into_both_clouds_once(sandbox: Sandbox, store: Path, tmp_path: Path) -> None:
    session = signed_in(sandbox, ["https://www.googleapis.com/auth/devstorage.read_write"])
    url = f"{sandbox.storage}/storage/v1/b"
    assert session.post(url, params={"project": PROJECT}, json={"name": BUCKET}).ok
    given = {"golden_image_publish": ["gcp", "hetzner"], "golden_image_gcp_bucket": BUCKET}

    # What was converted of another content under that version is of no use, and after a week it goes.
    stale = store / ".publish" / f"gpu-box-v1.0.0-{'0' * 16}"
    old = store / ".publish" / "gpu-box-v1.0.0"
    for folder in (stale, old):
        folder.mkdir(parents=True)
        for name in ("disk.raw.zst", "disk.tar.gz"):
            (folder / name).write_text("of another content")
    eight_days_ago = time.time() - 8 * 86400
    os.utime(old, (eight_days_ago, eight_days_ago))

    foreseen = publish(tmp_path, store, "--check", sandbox=sandbox, **given)
    assert foreseen.returncode == 0, words(foreseen)
    assert f"{GOLDEN} would be in" in words(foreseen)
    assert sandbox.requests(service="hetzner", method="POST") == 0

    done = publish(tmp_path, store, sandbox=sandbox, **given)
    assert done.returncode == 0, words(done)
    assert (
        f"{GOLDEN} is in Google Cloud (SIMULATED): image gpu-box-v1-0-0 Hetzner Cloud (SIMULATED): snapshot 3"
        in words(done)
    )
    assert "EUR a month, made by way of a cx23 for 1 h at" in words(done)
    assert list((store / ".publish").iterdir()) == [stale]

    again = publish(tmp_path, store, sandbox=sandbox, **given)
    assert again.returncode == 0, words(again)
    assert "image gpu-box-v1-0-0, there already" in words(again)
    assert "changed=0" in words(again)
    assert sandbox.requests(service="hetzner", method="POST", path="/servers$") == 1

    machines = {"opal": hetzner(image=GOLDEN), "agate": gcp(image=GOLDEN)}
    write_fleet(tmp_path, sandbox, machines)
    made = run_module(tmp_path, state="applied", approve=True)
    assert "failed" not in made, made
    assert {name: made["machines"][name]["image"] for name in machines} == dict.fromkeys(machines, GOLDEN)
    kept = run_module(tmp_path, state="planned")
    assert {change["action"] for change in kept["plan"]} == {"keep"}


@pytest.mark.docker
def test_a_damaged_image_goes_nowhere(sandbox: Sandbox, store: Path, tmp_path: Path) -> None:
    [file] = store.glob("gpu-box/gpu-box-v1.0.0/*.qcow2")
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = publish(tmp_path, store, sandbox=sandbox, golden_image_publish=["hetzner"])
    assert done.returncode == 2
    assert "sha256" in words(done) or "checksum" in words(done)
    assert sandbox.requests(service="hetzner") == 0
