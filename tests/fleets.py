# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleet files for a sandbox, and runs of the fleet module on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sandbox.testing import Sandbox

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKqGIzk1cB8bGPW9Jr2HZkTLvfrZJm5zTjvb5fGqzQ4F somebody"
ROOT = Path(__file__).parent.parent


def write_fleet(folder: Path, sandbox: Sandbox, machines: Mapping[str, Any], **top: Any) -> Path:
    """A fleet file for these machines in that sandbox; what stands beside it is made, too."""
    (folder / "key.pub").write_text(f"{PUBLIC_KEY}\n")
    content = {
        "plugin": "gpumesh.fleet.fleet",
        "fleet": "minerals",
        "providers": {
            "hetzner": {"endpoint": sandbox.hetzner, "token": sandbox.hetzner_token},
            "gcp": {
                "endpoint": sandbox.compute,
                "project": "gpumesh-sandbox",
                "credentials_file": str(sandbox.google_credentials),
            },
        },
        "defaults": {"ssh_keys": ["key.pub"]},
        "known_hosts": "known_hosts",
        "machines": dict(machines),
        **top,
    }
    path = folder / "fleet.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def hetzner(**fields: Any) -> dict[str, Any]:
    """A machine in Hetzner Cloud, enabled."""
    return {"provider": "hetzner", "type": "cx23", "location": "fsn1", "enabled": True, **fields}


def gcp(**fields: Any) -> dict[str, Any]:
    """A machine in Google Cloud, enabled."""
    return {"provider": "gcp", "type": "e2-standard-2", "zone": "us-central1-a", "enabled": True, **fields}


def start_module(folder: Path, **options: Any) -> subprocess.Popen[str]:
    """The module fleet as a process of its own, as Ansible would run it."""
    arguments = folder / f"arguments-{len(list(folder.glob('arguments-*')))}.json"
    arguments.write_text(
        json.dumps({"ANSIBLE_MODULE_ARGS": {"fleet_file": str(folder / "fleet.yml"), **options}})
    )
    starter = (
        "import sys\n"
        "from ansible_collections.gpumesh.fleet.tests.module_runner import patch_module_args\n"
        "import json, pathlib\n"
        "arguments = json.loads(pathlib.Path(sys.argv[1]).read_text())['ANSIBLE_MODULE_ARGS']\n"
        "from ansible_collections.gpumesh.fleet.plugins.modules import fleet\n"
        "with patch_module_args(arguments):\n"
        "    fleet.main()\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("HCLOUD_TOKEN", "HCLOUD_ENDPOINT")
    }
    environment["PYTHONPATH"] = str(ROOT / ".ansible" / "collections")
    return subprocess.Popen(
        [sys.executable, "-c", starter, str(arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )


def run_module(folder: Path, **options: Any) -> dict[str, Any]:
    """Run the module fleet to its end; its result."""
    process = start_module(folder, **options)
    out, err = process.communicate(timeout=300)
    try:
        result: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        raise AssertionError(f"the module said no JSON (status {process.returncode}): {out}\n{err}") from None
    assert not err, err
    return result
