# SPDX-License-Identifier: GPL-3.0-or-later
"""The module hetzner_image: its documentation, and what it says without a cloud."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import rescue, rescue_script
from ansible_collections.gpumesh.fleet.plugins.modules import hetzner_image
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, Seen, Server
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module


def run(**params: Any) -> dict[str, Any]:
    given = {"name": "gpu-box", "version": "1.2.0", "token": "x" * 20, "endpoint": "http://127.0.0.1:1/v1"}
    result: dict[str, Any] = run_module(hetzner_image.main, **{**given, **params})
    return result


def test_the_documentation_is_yaml_and_has_its_parts() -> None:
    documentation = yaml.safe_load(hetzner_image.DOCUMENTATION)
    assert documentation["module"] == "hetzner_image"
    assert yaml.safe_load(hetzner_image.EXAMPLES) and yaml.safe_load(hetzner_image.RETURN)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"token": ""}, "HCLOUD_TOKEN"),
        ({"name": "GPU"}, "no valid name"),
        ({"version": "latest"}, "name the version"),
        ({"content": "abc"}, "40 hexadecimal digits"),
        ({"labels": {"gpumesh-image": "x"}}, "kept for our own labels"),
        ({"labels": {"a": "not so"}}, "is not valid"),
        ({"os": "Debian 13"}, "is not valid"),
    ],
)
def test_what_is_given_wrong_is_told_in_a_sentence(params: dict[str, Any], said: str) -> None:
    result = run(**params)
    assert result["failed"]
    assert said in result["msg"]
    assert "Traceback" not in str(result)


def test_no_host_key_is_ever_taken_unseen(root: Path) -> None:
    folder = root / "plugins/module_utils/_fleet/providers"
    for path in (*folder.glob("rescue*.py"), *folder.glob("hetzner_image*.py")):
        assert not re.search(r"accept-new|StrictHostKeyChecking\W+(no|off|ask)", path.read_text()), path


def test_the_script_signs_what_is_checked() -> None:
    words = rescue_script.STATEMENT.format(nonce="%s", fingerprint="%s").replace("\n", "\\n")
    assert f"printf '{words}'" in rescue_script.SCRIPT
    assert f"-n {rescue_script.NAMESPACE} " in rescue_script.SCRIPT


def test_a_snapshot_that_has_failed_is_not_waited_for() -> None:
    labels = {"gpumesh-image": "gpu-box", "gpumesh-image-version": "1.2.0"}
    image = {
        "id": 7, "type": "snapshot", "status": "unavailable", "labels": labels, "architecture": "x86", "created": "2026-11-27",
        "description": "", "image_size": None, "disk_size": 40,
    }  # fmt: skip

    def respond(seen: Seen) -> Answer:
        kind = seen.path.rpartition("/v1/")[2]
        if kind == "images/7":
            return Answer(200, {"image": image})
        page = {"pagination": {"page": 1, "next_page": None, "last_page": 1, "total_entries": 0}}
        return Answer(200, {kind: [image] if kind == "images" else [], "meta": page})

    with Server(respond).running() as server:
        failed = run(endpoint=f"{server.url}/v1", wait_timeout=0)
    assert (
        "the snapshot 7 of golden:gpu-box@1.2.0 has failed at Hetzner. Delete that snapshot" in failed["msg"]
    )


def test_a_missing_ssh_keygen_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "ssh"
    client.write_text("#!/bin/sh\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    us = rescue.new_identity(tmp_path)
    remote = rescue.Remote(tmp_path, "a", "127.0.0.1", "root", us.public, us)
    with pytest.raises(errors.MissingLibrary, match="ssh-keygen cannot be started here"):
        rescue.prove(remote, "a", us.public, tmp_path)
