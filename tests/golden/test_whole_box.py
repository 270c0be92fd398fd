# SPDX-License-Identifier: GPL-3.0-or-later
"""An image with every layer, as the box with GPUs gets it. It comes after test_image, whose layers it stands on.

Driver, container toolkit and frameworks are stand-ins of the vendors' packages, SIMULATED, by the real apt, DKMS and uv; what is built,
sealed, booted and proven is real.
"""

from __future__ import annotations

import functools
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sandbox.debian import write, write_key
from sandbox.gpu import repositories
from sandbox.openpgp import SigningKey

from .conftest import ROOT, Builder

LAYERS = ["base", "docker", "nvidia_driver", "gpu_runtime", "ai_frameworks", "monitoring", "validation"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """The build's own log says what was not found."""


@pytest.fixture(scope="module")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The vendors' repositories, where containers of the engine reach them, and the variables that lead there."""
    folder = tmp_path_factory.mktemp("vendors")
    with (ROOT / "roles/ai_frameworks/files/uv.txt").open() as lock:
        [uv] = [line.split()[0] for line in lock if line.startswith("uv==")]
    fetch = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", f"--dest={folder}", uv]
    subprocess.run([sys.executable, *fetch], check=True)
    real = {path.name: path.read_bytes() for path in folder.glob("uv-*.whl")}
    key = SigningKey(secrets.token_bytes(32), repositories.KEY_OWNER)
    write(folder / "served", repositories.files(key, int(time.time()), real))
    write_key(folder / "served", key)
    gateway = subprocess.run(
        ["docker", "network", "inspect", "bridge", "--format={{(index .IPAM.Config 0).Gateway}}"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    server = ThreadingHTTPServer((gateway, 0), functools.partial(Quiet, directory=str(folder / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://{gateway}:{server.server_port}"
    yield {
        "nvidia_driver_repository_url": f"{url}/cuda/debian13/x86_64/",
        "nvidia_driver_repository_key_url": f"{url}/key.asc",
        "nvidia_driver_repository_key_fingerprint": key.fingerprint,
        "gpu_runtime_repository_url": f"{url}/container-toolkit/stable/deb",
        "gpu_runtime_repository_key_url": f"{url}/key.asc",
        "gpu_runtime_repository_key_fingerprint": key.fingerprint,
        "ai_frameworks_index_url": f"{url}/wheels/simple",
        "ai_frameworks_locks_shipped": False,
        # The real wheels take 36 GiB, and these next to nothing.
        "ai_frameworks_disk_check": False,
        "ai_frameworks_locks_folder": str(folder / "served/wheels/locks"),
        "ai_frameworks_companions": {"pytorch": ["torchvision"]},
    }
    server.shutdown()


def test_a_box_with_four_gpus_has_every_layer(
    builder: Builder, vendors: dict[str, Any], tmp_path: Path
) -> None:
    run = builder.build(
        golden_image_name="box",
        golden_image_layers=LAYERS,
        golden_image_gpus=[{"model": "rtx5090", "count": 4}],
        golden_image_first_boot_acceptance=True,
        golden_image_variables=vendors,
        golden_image_gate_firmware=["uefi"],
        golden_image_uv_cache=str(tmp_path / "wheels"),
    )
    assert run.status == 0, run.text
    said = json.loads((builder.folder("box", "1.0.0") / "image-manifest.json").read_text())
    assert [layer["layer"] for layer in said["identity"]["layers"]] == ["os", *LAYERS, "seal"]
    assert said["driver"]["version"].startswith("595.")
    assert said["driver"]["flavour"] == "open"
    assert "pytorch" in {framework["name"] for framework in said["frameworks"]}
    assert said["tests"]["failed"] == 0
    # For the next build that makes this layer anew.
    assert list(tmp_path.glob("wheels/current/archive-v*/*/torch"))
