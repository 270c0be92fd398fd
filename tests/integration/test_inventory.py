# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory through the real command line: offline, and against a sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hcloud
import pytest
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType

from sandbox.testing import Sandbox, serve

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "inventories" / "example" / "fleet.yml"
TOKEN = "s3cret-planted-token-0123456789abcdef0123456789abcdef"
FLEET = """\
plugin: gpumesh.fleet.fleet
fleet: minerals
providers:
  hetzner: {{endpoint: "{hetzner}", token: "{{{{ lookup('env', 'HCLOUD_TOKEN') }}}}", when_sick: {policy}}}
  gcp: {{endpoint: "{compute}", project: gpumesh-sandbox, credentials_file: "{credentials}"}}
machines:
  ore: {{provider: hetzner, type: cx23, location: fsn1, enabled: true}}
  tin: {{provider: gcp, type: e2-standard-2, zone: us-central1-a, enabled: true}}
  zinc: {{provider: hetzner, type: cx23, location: fsn1}}
{more}"""


class Ansible:
    """Runs Ansible's commands as a user would, with nothing of the developer's environment."""

    def __init__(self, home: Path) -> None:
        self.environ = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }

    def run(self, *command: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=cwd,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def graph(self, fleet: Path, *options: str, **environ: str) -> tuple[dict[str, set[str]], str]:
        """The groups with their hosts, and what was said on the way."""
        done = self.run("ansible-inventory", "-i", str(fleet), "--list", *options, **environ)
        assert done.returncode == 0, done.stderr
        data = json.loads(done.stdout)
        groups = {name: set(group.get("hosts", ())) for name, group in data.items() if name != "_meta"}
        self.variables: dict[str, Any] = data["_meta"]["hostvars"]
        return groups, done.stderr


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    home = tmp_path / "home"
    home.mkdir()
    return Ansible(home)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with serve() as sandbox:
        yield sandbox


@pytest.fixture
def world(sandbox: Sandbox) -> Sandbox:
    sandbox.clear_faults()
    sandbox.reset()
    return sandbox


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, sandbox: Sandbox) -> Write:
    def run(*, more: str = "", policy: str = "fail", **places: str) -> Path:
        path = tmp_path / "fleet.yml"
        known = {
            "hetzner": sandbox.hetzner,
            "compute": sandbox.compute,
            "credentials": str(sandbox.google_credentials),
        }
        path.write_text(FLEET.format(**known | places, more=more, policy=policy))
        return path

    return run


def buy(sandbox: Sandbox, name: str, **labels: str) -> None:
    """Make a server behind our back, with labels of the fleet."""
    client = hcloud.Client(sandbox.hetzner_token, api_endpoint=sandbox.hetzner)
    created = client.servers.create(
        name=name,
        server_type=ServerType(name="cx23"),
        image=Image(name="debian-13"),
        location=Location(name="fsn1"),
        labels={"gpumesh-fleet": "minerals", "gpumesh-machine": name, **labels},
    )
    created.action.wait_until_finished()


def cache(folder: Path) -> str:
    return f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {folder / 'cache'}\n"


def test_the_example_without_a_network_and_without_a_token(ansible: Ansible) -> None:
    # In a network namespace of its own, where that is allowed, there is nothing but a loopback that is down.
    isolated = ("unshare", "--net") if os.geteuid() == 0 else ()
    done = ansible.run(*isolated, "ansible-inventory", "-i", str(EXAMPLE), "--graph")
    assert done.returncode == 0
    assert done.stderr.count("[WARNING]") == 1
    assert "showing what is declared" in done.stderr
    groups, _ = ansible.graph(EXAMPLE)
    machines = {"cinnabar", "electrum", "galena", "scheelite", "demo-box", "stibnite"}
    assert groups["fleet"] == machines
    assert groups["enabled"] == {"cinnabar", "demo-box", "stibnite"}
    assert groups["disabled"] == {"electrum", "galena", "scheelite"}
    assert groups["provider_hetzner"] == {"cinnabar", "electrum"}
    assert groups["provider_gcp"] == {"galena", "scheelite"}
    assert groups["zone_us_central1_c"] == {"galena", "scheelite"}
    assert groups["gpu"] == {"scheelite", "demo-box"}
    assert groups["gpu_t4"] == {"scheelite"}
    assert groups["tag_controller"] == {"cinnabar"}
    # The node of the controller is known by the network id, which begins with it.
    assert groups["mesh"] == {"cinnabar", "stibnite"}
    assert ansible.variables["cinnabar"]["fleet_mesh_ip"] == "fddb:4344:343b:14b9:399:93db:4344:343b"
    assert groups["running"] == {"demo-box"}
    assert not groups.get("missing")


def test_a_play_over_an_empty_group_is_no_mistake(ansible: Ansible) -> None:
    done = ansible.run(
        "ansible", "missing:undeclared:mesh_online:mesh_undeclared", "-i", str(EXAMPLE), "--list-hosts"
    )
    assert done.returncode == 0
    assert "hosts (0)" in done.stdout
    assert "Could not match" not in done.stderr


def test_what_exists_is_listed_beside_what_is_declared(
    ansible: Ansible, world: Sandbox, write: Write
) -> None:
    buy(world, "ore")
    buy(world, "fool-s-gold")
    groups, said = ansible.graph(write(), HCLOUD_TOKEN=world.hetzner_token)
    assert "WARNING" not in said
    assert groups["running"] == {"ore"}
    assert groups["missing"] == {"tin"}
    assert groups["undeclared"] == {"fool-s-gold"}
    ore = ansible.variables["ore"]
    assert (ore["fleet_state"], ore["fleet_instance"]["name"]) == ("running", "ore")
    assert ore["ansible_host"] == ore["fleet_public_ip"]
    assert ore["fleet_hourly_usd"] > 0
    assert (
        f"HostKeyAlias=gpumesh-minerals-ore-{ore['fleet_instance']['id']}" in ore["ansible_ssh_common_args"]
    )
    assert ansible.variables["zinc"]["fleet_state"] == "disabled"


def test_without_a_token_one_cloud_is_listed_and_the_other_declared(
    ansible: Ansible, world: Sandbox, write: Write
) -> None:
    groups, said = ansible.graph(write())
    assert said.count("[WARNING]") == 1
    assert "hetzner" in said
    assert groups["missing"] == {"tin"}
    assert ansible.variables["ore"]["fleet_state"] == "unknown"


def test_a_cloud_nobody_reaches_is_one_warning(ansible: Ansible, world: Sandbox, write: Write) -> None:
    path = write(hetzner="http://127.0.0.1:9/v1", compute="http://nowhere.invalid/compute/v1")
    groups, said = ansible.graph(path, HCLOUD_TOKEN=TOKEN)
    assert said.count("[WARNING]") == 1
    assert groups["fleet"] == {"ore", "tin", "zinc"}
    assert not groups.get("missing")
    assert TOKEN not in said


def test_a_refused_token_fails_and_says_what_to_do(ansible: Ansible, world: Sandbox, write: Write) -> None:
    done = ansible.run(
        "ansible-inventory",
        "-i",
        str(write()),
        "--list",
        "-vvvv",
        HCLOUD_TOKEN=TOKEN,
        ANSIBLE_INVENTORY_UNPARSED_FAILED="1",
    )
    assert done.returncode != 0
    assert "Check that HCLOUD_TOKEN holds a valid token" in done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stdout + done.stderr


def test_a_sick_cloud_by_its_policy(ansible: Ansible, world: Sandbox, write: Write) -> None:
    buy(world, "ore")
    world.fault(kind="error", status=400, service="hetzner", times=0)
    fails = ansible.run(
        "ansible-inventory",
        "-i",
        str(write()),
        "--list",
        HCLOUD_TOKEN=world.hetzner_token,
        ANSIBLE_INVENTORY_UNPARSED_FAILED="1",
    )
    assert fails.returncode != 0
    groups, said = ansible.graph(write(policy="partial"), HCLOUD_TOKEN=world.hetzner_token)
    assert said.count("[WARNING]") == 1
    assert groups["missing"] == {"tin"}
    assert ansible.variables["ore"]["fleet_state"] == "unknown"


def test_a_stale_answer(ansible: Ansible, world: Sandbox, write: Write, tmp_path: Path) -> None:
    buy(world, "ore")
    path = write(policy="stale", more=cache(tmp_path))
    ansible.graph(path, HCLOUD_TOKEN=world.hetzner_token)
    world.fault(kind="error", status=400, service="hetzner", times=0)
    groups, said = ansible.graph(path, "--flush-cache", HCLOUD_TOKEN=world.hetzner_token)
    assert groups["running"] == {"ore"}
    assert ansible.variables["ore"]["fleet_stale"] is True
    assert "Going on with its last answer" in " ".join(said.split())


def test_the_cache_asks_nobody_until_it_is_flushed(
    ansible: Ansible, world: Sandbox, write: Write, tmp_path: Path
) -> None:
    path = write(more=cache(tmp_path))
    before, _ = ansible.graph(path, HCLOUD_TOKEN=world.hetzner_token)
    asked = world.requests()
    buy(world, "ore")
    bought = world.requests()
    assert bought > asked
    again, _ = ansible.graph(path, HCLOUD_TOKEN=world.hetzner_token)
    assert world.requests() == bought
    assert again == before
    flushed, _ = ansible.graph(path, "--flush-cache", HCLOUD_TOKEN=world.hetzner_token)
    assert flushed["running"] == {"ore"}


def test_refresh_inventory_in_a_play(ansible: Ansible, world: Sandbox, write: Write, tmp_path: Path) -> None:
    path = write(more=cache(tmp_path))
    ansible.graph(path, HCLOUD_TOKEN=world.hetzner_token)
    buy(world, "ore")
    (tmp_path / "play.yml").write_text("""\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {msg: "before {{ groups['running'] }}"}
    - ansible.builtin.meta: refresh_inventory
    - ansible.builtin.debug: {msg: "after {{ groups['running'] }}"}
""")
    done = ansible.run(
        "ansible-playbook", "-i", str(path), str(tmp_path / "play.yml"), HCLOUD_TOKEN=world.hetzner_token
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "before []" in done.stdout
    assert "after ['ore']" in done.stdout


def test_a_broken_file_names_every_problem(ansible: Ansible, write: Write) -> None:
    path = write()
    path.write_text(path.read_text().replace("location: fsn1", "zone: fsn1"))
    done = ansible.run("ansible-inventory", "-i", str(path), "--list", ANSIBLE_INVENTORY_UNPARSED_FAILED="1")
    assert done.returncode != 0
    assert f"{path}:7: ore zone: unknown key; did you mean 'location'?" in done.stderr
    assert f"{path}:9: zinc zone: unknown key; did you mean 'location'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_why_a_file_is_declined_is_said_at_vvv(ansible: Ansible, tmp_path: Path) -> None:
    path = tmp_path / "machines.yml"
    path.write_text(EXAMPLE.read_text())
    done = ansible.run("ansible-inventory", "-i", str(path), "--list", "-vvv")
    assert "a fleet file is called fleet.yml" in done.stdout + done.stderr


def test_no_token_is_in_any_output(ansible: Ansible, world: Sandbox, write: Write, tmp_path: Path) -> None:
    buy(world, "ore")
    path = write(more=cache(tmp_path))
    done = ansible.run(
        "ansible-inventory", "-i", str(path), "--list", "-vvvv", HCLOUD_TOKEN=world.hetzner_token
    )
    key = json.loads(world.google_credentials.read_text())
    texts = [done.stdout, done.stderr, *(file.read_text() for file in (tmp_path / "cache").iterdir())]
    for secret in (world.hetzner_token, key["private_key"], key["private_key_id"]):
        assert not any(secret in text for text in texts)


def test_the_documentation_is_complete(ansible: Ansible) -> None:
    done = ansible.run("ansible-doc", "-t", "inventory", "gpumesh.fleet.fleet", "--json")
    assert done.returncode == 0, done.stderr
    options = json.loads(done.stdout)["gpumesh.fleet.fleet"]["doc"]["options"]
    assert {"machines", "providers", "compose", "cache"} <= set(options)
