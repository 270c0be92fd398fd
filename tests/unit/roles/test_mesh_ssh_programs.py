# SPDX-License-Identifier: GPL-3.0-or-later
"""What the programs of the role mesh_ssh see on a machine: its probe, and the parts of its gate that need no peer."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILES = Path(__file__).parents[3] / "roles" / "mesh_ssh" / "files"
BLOCK = "gpumesh minerals"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOneOneOneOneOneOneOneOneOneOneOneOneOneOneOn"


def program(name: str) -> ModuleType:
    """One of them, not run."""
    found = importlib.util.spec_from_file_location(f"mesh_ssh_{name}", FILES / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("config", "reads"),
    [
        ("# comment\nInclude /etc/ssh/ssh_config.d/*.conf\nHost *\n", True),
        ("include /etc/ssh/other /etc/ssh/ssh_config.d/*.conf\n", True),
        ("Host *\n    SendEnv LANG\nInclude /etc/ssh/ssh_config.d/*.conf\n", False),
        ("Match host x\nInclude /etc/ssh/ssh_config.d/*.conf\n", False),
        ("#Include /etc/ssh/ssh_config.d/*.conf\n", False),
        (None, False),
    ],
)
def test_drop_ins_count_only_above_the_first_host(
    config: str | None, reads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = program("probe")
    monkeypatch.setattr(probe, "CONFIG", tmp_path / "ssh_config")
    if config is not None:
        (tmp_path / "ssh_config").write_text(config)
    assert probe.reads_drop_ins() is reads


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"127.0.0.1 localhost\n", (False, False, False)),
        (b"# gpumesh minerals begin\n# gpumesh minerals end\n", (True, False, False)),
        (b"# gpumesh minerals begin\n", (True, True, False)),
        (b"# gpumesh minerals end\n# gpumesh minerals begin\n", (True, True, False)),
        (b"\xff# Your system has configured 'manage_etc_hosts' as True.\n", (False, False, True)),
    ],
)
def test_the_probe_sees_how_a_hosts_file_stands(
    content: bytes, says: tuple[bool, bool, bool], tmp_path: Path
) -> None:
    file = tmp_path / "hosts"
    file.write_bytes(content)
    done = subprocess.run(
        [sys.executable, str(FILES / "probe.py"), BLOCK, str(file), str(tmp_path / "none")],
        check=True,
        capture_output=True,
        text=True,
    )
    seen = json.loads(done.stdout)["hosts"]
    one = seen[str(file)]
    assert (one["there"], one["ours"], one["damaged"], one["kept_by_cloud_init"]) == (True, *says)
    assert seen[str(tmp_path / "none")]["there"] is False


def entry(**server: Any) -> dict[str, Any]:
    """One machine as the gate is told of it."""
    return {
        "machine": "ore",
        "names": ["ore.zt", "ore"],
        "address": "fd00::2",
        "server": {
            "user": "admin",
            "port": 22,
            "alias": "gpumesh-minerals-ore-17",
            "keys": [KEY],
            "ours": True,
            **server,
        },
    }


CONFIG = """Host ore.zt ore
    HostName fd00::2
    User admin
    HostKeyAlias gpumesh-minerals-ore-17
    UserKnownHostsFile /etc/ssh/known
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
"""


@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        ("", []),
        ("Host *\n StrictHostKeyChecking accept-new\n", ["stricthostkeychecking is accept-new and not true"]),
        ("Host ore\n HostKeyAlias x\n", ["for ore its hostkeyalias is x and not gpumesh-minerals-ore-17"]),
        ("UserKnownHostsFile /tmp/mine\n", ["userknownhostsfile is /tmp/mine and not /etc/ssh/known"]),
        ("Port 7\n", ["port is 7 and not 22"]),
        ("Nonsense\n", ["fails"]),
    ],
)
def test_the_gate_finds_what_another_file_says_earlier(before: str, wrong: list[str], tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(before + CONFIG)
    found = program("gate").configured(str(config), [entry()], "/etc/ssh/known")
    assert bool(found) is bool(wrong)
    assert all(any(text in one for one in found) for text in wrong), found


@pytest.mark.parametrize(
    ("line", "good"),
    [
        (f"gpumesh-minerals-ore-17 {KEY} gpumesh:minerals/hetzner\n", True),
        ("", False),
        (f"gpumesh-minerals-ore-17 {KEY[:-1]}x gpumesh:minerals/hetzner\n", False),
        (f"gpumesh-minerals-ore-17 {KEY} x\ngpumesh-minerals-ore-17 {KEY[:-1]}x y\n", False),
    ],
)
def test_the_gate_compares_the_keys_on_file(line: str, good: bool, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(line)
    gate = program("gate")
    assert (gate.vouched([entry()], str(known)) == []) is good
    assert gate.vouched([entry(ours=False)], str(known)) == []


def test_the_gate_leaves_a_machine_its_own_short_name() -> None:
    gate = program("gate")
    local = {**entry(), "names": ["localhost", "ore.invalid"], "address": "127.0.0.1"}
    assert gate.resolved([local], "ore.invalid") == []
    assert gate.resolved([local], "") == ["ore.invalid is unknown and not 127.0.0.1"]


@pytest.mark.parametrize(
    ("said", "checks", "warnings"),
    [
        ("ok", [True, True], 0),
        ("mistrusted", [False, True], 0),
        ("ssh: connect to host fd00::2 port 22: No route to host", [True, False], 0),
    ],
)
def test_a_peer_that_must_be_there_is_met_or_the_gate_fails(
    said: str, checks: list[bool], warnings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = program("gate")
    monkeypatch.setattr(gate, "met", lambda _config, _name: said)
    gate.meet("/etc/ssh/ssh_config", ["ore.zt"], ["ore.zt"])
    assert [one["ok"] for one in gate.checks] == checks
    assert len(gate.warnings) == warnings


def test_a_peer_nobody_has_met_in_this_run_is_only_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = program("gate")
    monkeypatch.setattr(gate, "met", lambda _config, _name: "Connection timed out")
    gate.meet("/etc/ssh/ssh_config", ["ore.zt"], [])
    assert all(one["ok"] for one in gate.checks)
    assert gate.warnings == ["ore.zt is not reached over the mesh: Connection timed out"]
