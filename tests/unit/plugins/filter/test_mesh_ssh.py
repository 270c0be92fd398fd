# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the role mesh_ssh, as a template uses them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import filter_loader

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOneOneOneOneOneOneOneOneOneOneOneOneOneOneOn"
ON_FILE = f"gpumesh-minerals-ore-17 {KEY} gpumesh:minerals/hetzner\n"
HOSTVARS = {
    "ore": {
        "fleet_name": "minerals",
        "fleet_machine": {"name": "ore"},
        "fleet_provider": "hetzner",
        "fleet_state": "running",
        "fleet_user": "admin",
        "fleet_mesh": {"name": "ore.zt"},
        "fleet_mesh_ip": "fd00::1",
        "fleet_host_key_alias": "gpumesh-minerals-ore-17",
        "ansible_port": 22,
    }
}


def run(name: str, *arguments: Any, **options: Any) -> Any:
    return filter_loader.get(f"gpumesh.fleet.{name}").j2_function(*arguments, **options)


def test_from_variables_to_files() -> None:
    entries = run("mesh_ssh_entries", HOSTVARS, ["ore"], ON_FILE)
    assert run("mesh_ssh_hosts", entries) == "fd00::1 ore.zt ore\n"
    assert run("mesh_ssh_hosts", entries, "ore") == "fd00::1 ore.zt\n"
    assert run("mesh_ssh_known_hosts", entries, "minerals") == ON_FILE
    config = run("mesh_ssh_config", entries, "/etc/ssh/known", identities=["/home/ada/id"])
    assert "    IdentityFile /home/ada/id\n" in config
    assert run("mesh_ssh_hosts", run("mesh_ssh_entries", HOSTVARS, ["ore"], short_names=False)) == (
        "fd00::1 ore.zt\n"
    )
    assert run("mesh_ssh_include", "/home/ada/x.conf") == "Include /home/ada/x.conf\n"


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("mesh_ssh_entries", ("x", []), "give it hostvars"),
        ("mesh_ssh_entries", ({}, "ore"), "this is no list"),
        ("mesh_ssh_entries", ({}, ["ore"]), "no host is named ore"),
        (
            "mesh_ssh_entries",
            ({"ore": {**HOSTVARS["ore"], "fleet_user": "-x"}}, ["ore"]),
            "mesh_ssh_entries: ore: its user '-x'",
        ),
        ("mesh_ssh_hosts", ("ore",), "this is no list"),
        ("mesh_ssh_config", ([{}], "/x"), "mesh_ssh_config: this is no entry"),
        ("mesh_ssh_known_hosts", ([{}], "minerals"), "mesh_ssh_known_hosts: this is no entry"),
        ("mesh_ssh_include", ("x",), "mesh_ssh_include: the path 'x' cannot be written"),
    ],
)
def test_misuse_is_told(name: str, arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(AnsibleError, match=says):
        run(name, *arguments)
