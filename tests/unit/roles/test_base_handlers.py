# SPDX-License-Identifier: GPL-3.0-or-later
"""The handlers of the base layer, as a machine that is no container would run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HANDLERS = Path(__file__).parents[3] / "roles" / "base" / "handlers" / "main.yml"


def test_without_a_time_service_there_is_nothing_to_restart(tmp_path: Path) -> None:
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {
            "__base_files": {"changed_files": ["/etc/systemd/timesyncd.conf.d/gpumesh.conf"]},
            "__base_state": {"container": False},
            "__base_time_service": "none",
            "__base_time_units": {"timesyncd": "systemd-timesyncd.service"},
        },
        "tasks": [
            {
                "name": "Notify",
                "ansible.builtin.debug": {"msg": "taken out"},
                "changed_when": True,
                "notify": "Restart the time service",
            }
        ],
        "handlers": [{"name": "Import", "ansible.builtin.import_tasks": str(HANDLERS)}],
    }
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([play]), encoding="utf-8")
    played = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            "localhost,",
            "-c",
            "local",
            str(playbook),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert "RUNNING HANDLER [Restart the time service]" in played.stdout
