# SPDX-License-Identifier: GPL-3.0-or-later
"""Which exporters the role monitoring stops, restarts and takes away. systemctl is a script, and the role's files are in a scratch folder."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROLE = Path(__file__).parents[3] / "roles" / "monitoring"
NODE = "prometheus-node-exporter.service"
SMI = "gpumesh-gpu-metrics.service"
DCGM = "nvidia-dcgm-exporter.service"


def systemctl(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A systemctl that does what the script says; the last argument is the unit."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "systemctl").write_text(f"#!/bin/sh\nfor unit; do :; done\n{script}\n")
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")


def probed(folder: Path) -> dict[str, Any]:
    """What the probe says where the role's units are in this folder."""
    source = (ROLE / "files" / "probe.py").read_text(encoding="utf-8")
    assert "/etc/systemd/system" in source
    done = subprocess.run(
        [sys.executable, "-", "htop"],
        input=source.replace("/etc/systemd/system", str(folder)),
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def settings(folder: Path, unit: str) -> None:
    """What the role leaves of an exporter whose package is another's."""
    (folder / f"{unit}.d").mkdir()
    (folder / f"{unit}.d" / "gpumesh.conf").touch()


def value(scratch: Path, expression: str, **variables: Any) -> Any:
    """What an expression of the role comes to on a machine with four GPUs."""
    for part in ("templates", "files"):
        if not (scratch / part).exists():
            (scratch / part).symlink_to(ROLE / part)
    copy = {
        "dest": str(scratch / "result.json"),
        "content": "{{ (" + expression + ") | to_json }}",
        "mode": "0600",
    }
    play = {
        "hosts": "localhost", "connection": "local", "gather_facts": False,
        "tasks": [{"ansible.builtin.copy": copy}],
        "vars_files": [str(ROLE / "defaults" / "main.yml"), str(ROLE / "vars" / "main.yml")],
    }  # fmt: skip
    (scratch / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    known = {
        "ansible_python_interpreter": sys.executable,
        "__monitoring_pci": {"gpu": {"devices": [{}] * 4}},
        **variables,
    }
    (scratch / "vars.json").write_text(json.dumps(known), encoding="utf-8")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-e", "@vars.json", "play.yml"],
        check=False, capture_output=True, text=True, cwd=scratch,
        env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "false"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((scratch / "result.json").read_text(encoding="utf-8"))


def of_task(task_file: str, name: str) -> dict[str, Any]:
    """A task of the role."""
    tasks = yaml.safe_load((ROLE / "tasks" / task_file).read_text(encoding="utf-8"))
    return next(one for one in tasks if one["name"] == name)


def expression(text: str) -> str:
    """What is inside of a template."""
    return text.strip().removeprefix("{{").removesuffix("}}").strip()


def test_a_unit_that_never_came_is_not_stopped_and_its_settings_are_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the role has refused a DCGM exporter that no repository offers: it has only the settings for it."""
    systemctl(
        tmp_path,
        monkeypatch,
        f'case "$unit" in {DCGM}) echo LoadState=not-found ;; *) echo LoadState=loaded ;; esac',
    )
    settings(tmp_path, NODE)
    settings(tmp_path, DCGM)
    state = probed(tmp_path)
    assert sorted(state["managed"]) == [DCGM, NODE]
    loop = expression(of_task("stop.yml", "stop | Stop the exporters that are not wanted any more")["loop"])
    for wanted, stops in (({"monitoring_exporters": True}, []), ({"monitoring_state": "absent"}, [NODE])):
        stopped, files = value(tmp_path, f"[{loop}, __monitoring_files]", __monitoring_state=state, **wanted)
        assert stopped == stops
        assert {"path": f"/etc/systemd/system/{DCGM}.d/gpumesh.conf", "state": "absent"} in files


def test_where_there_is_no_systemd_the_machine_is_looked_at_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    settings(tmp_path, NODE)
    assert (probed(tmp_path)["managed"], probed(tmp_path)["known"]) == ([NODE], [])


@pytest.mark.parametrize(
    ("managed", "packages"),
    [
        ([], []),
        ([NODE, SMI], ["prometheus-node-exporter"]),
        ([DCGM], ["datacenter-gpu-manager-exporter"]),
    ],
)
def test_a_purge_leaves_the_package_of_an_exporter_that_the_role_does_not_keep(
    tmp_path: Path, managed: list[str], packages: list[str]
) -> None:
    task = of_task("purge.yml", "purge | Remove the exporters' packages")
    state = {"managed": managed, "known": managed}
    names, purges = value(
        tmp_path,
        f"[{expression(task['ansible.builtin.apt']['name'])}, {task['when']}]",
        __monitoring_state=state,
    )
    assert (names, purges) == (packages, bool(packages))


def test_an_interval_given_on_the_command_line_is_a_number(tmp_path: Path) -> None:
    """As from -e monitoring_interval=30."""
    expected = value(
        tmp_path,
        "__monitoring_expected",
        monitoring_interval="30",
        monitoring_exporters="true",
        __monitoring_state={"offered": [], "package_lists": True},
    )
    assert (expected["interval"], expected["gpus"], expected["smi"]) == (30, 4, True)


class Exporter(BaseHTTPRequestHandler):
    """A node exporter of a machine with one GPU, whose values were read just now."""

    def do_GET(self) -> None:
        text = (
            "node_uname_info 1\nnvidia_smi_up 1\n"
            f'nvidia_smi_read_timestamp_seconds {time.time():.0f}\nnvidia_smi_temperature_gpu{{uuid="GPU-1"}} 40\n'
        )
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_arguments: Any) -> None:
        """Nobody is to read it."""


def test_the_gate_takes_numbers_that_are_texts() -> None:
    """As ansible-core 2.18 makes them of whatever comes out of a template."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        wanted = {
            "tools": [], "units": [], "listen": "", "node": f"http://127.0.0.1:{server.server_port}/metrics",
            "smi": True, "dcgm": "", "gpus": "1", "interval": "30",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, ROLE / "files" / "gate.py", json.dumps(wanted)],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        server.shutdown()
    assert done.returncode == 0, done.stderr
    checks = {one["name"]: one["ok"] for one in json.loads(done.stdout)["checks"]}
    assert checks == dict.fromkeys(("node exporter", "GPU values", "every GPU", "fresh values"), True)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The gate, whose exporters' files are in a scratch folder."""
    found = importlib.util.spec_from_file_location("monitoring_gate", ROLE / "files" / "gate.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    files = {unit: (str(tmp_path / unit), str(tmp_path / f"{unit}.program")) for unit in (NODE, SMI, DCGM)}
    monkeypatch.setattr(module, "FILES", files, raising=False)
    for path in (path for paths in files.values() for path in paths):
        Path(path).touch()
    return module


def started(folder: Path, monkeypatch: pytest.MonkeyPatch, seconds_ago: float) -> None:
    """Every exporter was started then. What runs is this process, which is none of them."""
    then = int((time.clock_gettime(time.CLOCK_MONOTONIC) - seconds_ago) * 1e6)
    systemctl(
        folder,
        monkeypatch,
        f"echo NeedDaemonReload=no\necho MainPID={os.getpid()}\necho ExecMainStartTimestampMonotonic={then}",
    )


@pytest.mark.parametrize("unit", [SMI, DCGM])
@pytest.mark.parametrize("part", ["", ".program"])
def test_an_exporter_that_is_older_than_its_files_wants_a_restart(
    gate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, part: str
) -> None:
    """As after a run that wrote them, and then failed before the restart."""
    started(tmp_path, monkeypatch, seconds_ago=100)
    long_ago = time.time() - 1000
    for path in gate.FILES[unit]:
        os.utime(path, (long_ago, long_ago))
    assert not gate.stale(unit, gate.shown(unit), {"listen": ""})
    os.utime(tmp_path / f"{unit}{part}")
    assert gate.stale(unit, gate.shown(unit), {"listen": ""})
    started(tmp_path, monkeypatch, seconds_ago=-1)
    assert not gate.stale(unit, gate.shown(unit), {"listen": ""})


def test_a_file_of_the_future_is_no_reason_for_a_restart_in_every_run(
    gate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written while the clock was ahead."""
    started(tmp_path, monkeypatch, seconds_ago=0)
    soon = time.time() + 1000
    for path in gate.FILES[SMI]:
        os.utime(path, (soon, soon))
    assert not gate.stale(SMI, gate.shown(SMI), {"listen": ""})


def test_every_file_of_an_exporter_is_compared(tmp_path: Path) -> None:
    found = importlib.util.spec_from_file_location("monitoring_gate", ROLE / "files" / "gate.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    compared = {path for paths in module.FILES.values() for path in paths}
    declared = value(tmp_path, "__monitoring_declared_files | map('first') | list")
    assert compared == set(declared)
