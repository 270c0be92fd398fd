# SPDX-License-Identifier: GPL-3.0-or-later
"""The module hetzner_image: its documentation, and what it says without a cloud."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import rescue_script
from ansible_collections.gpumesh.fleet.plugins.modules import hetzner_image
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
