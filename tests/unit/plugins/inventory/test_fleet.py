# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin inside Ansible, over a cloud of our own that keeps the protocol."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from ansible.template import Templar
from ansible_collections.gpumesh.fleet.plugins.inventory import fleet as plugin_file
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, hosts, spec, spec_file
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import (
    FLEET_LABEL,
    MACHINE_LABEL,
    Instance,
    Member,
    State,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Kind, Listing
from ansible_collections.gpumesh.fleet.tests.little_mesh import NETWORK_ID, LittleMesh, connecting
from pydantic import SecretStr

FLEET = """\
plugin: gpumesh.fleet.fleet
fleet: minerals
providers: {cloudy: {token: one, when_sick: fail}}
machines:
  ore: {provider: cloudy, type: small, tags: [web], enabled: true, vars: {own: "{{ 1 + 1 }}", deep: {list: ["{{ 2 + 2 }}"]}}}
  tin: {provider: cloudy, type: small}
"""
EVIL = "{{ 1 + 1 }}{{ lookup('pipe', 'echo pwned') }}"


class CloudyMachine(spec.CloudMachine):
    provider: Literal["cloudy"]

    @property
    def zone(self) -> str:
        return "here"


class CloudySettings(spec.ProviderSettings):
    token: SecretStr | None = None


class Cloudy:
    """A cloud with one machine, which counts how often it is asked."""

    name = "cloudy"

    def __init__(self) -> None:
        self.asked = 0
        self.state = State.RUNNING
        self.error: errors.FleetError | None = None

    def kind(self) -> Kind:
        return Kind("cloudy", CloudyMachine, CloudySettings, lambda *_: self)  # type: ignore[arg-type,return-value]

    def list(self) -> Listing:
        self.asked += 1
        if self.error:
            raise self.error
        labels = {FLEET_LABEL: "minerals", MACHINE_LABEL: "ore", "evil": EVIL, EVIL: "x"}
        one = Instance(
            "cloudy",
            "1",
            "ore",
            self.state,
            EVIL,
            "here",
            "small",
            image=EVIL,
            public_ip="203.0.113.5",
            labels=labels,
        )
        return Listing((one,))


class Said:
    """What was shown to the user."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.details: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def vvv(self, text: str) -> None:
        self.details.append(text)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloudy:
    cloud = Cloudy()
    monkeypatch.setattr(plugin_file, "KINDS", {"cloudy": cloud.kind()})
    return cloud


@pytest.fixture
def said() -> Said:
    return Said()


Parse = Callable[..., Any]


@pytest.fixture
def parse(cloud: Cloudy, said: Said, tmp_path: Path) -> Parse:
    def run(text: str = FLEET, *, cache: bool = True) -> InventoryData:
        path = tmp_path / "fleet.yml"
        path.write_text(text)
        plugin = inventory_loader.get("gpumesh.fleet.fleet")
        plugin.display = said
        inventory = InventoryData()
        plugin.parse(inventory, DataLoader(), str(path), cache)
        # As Ansible's inventory manager does after every plugin.
        with contextlib.suppress(AttributeError):
            plugin.update_cache_if_changed()
        return inventory

    return run


def cached(folder: Path, **changes: str) -> str:
    text = FLEET
    for old, new in changes.items():
        text = text.replace(old, new)
    return (
        text + f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {folder / 'cache'}\n"
    )


def facts(inventory: Any, name: str) -> Mapping[str, Any]:
    return inventory.get_host(name).vars  # type: ignore[no-any-return]


def test_hosts_groups_and_variables(parse: Parse, said: Said) -> None:
    inventory = parse()
    assert set(inventory.hosts) == {"ore", "tin"}
    groups = inventory.get_groups_dict()
    assert set(hosts.ALWAYS) <= set(groups)
    assert (groups["fleet"], groups["running"], groups["tag_web"], groups["missing"]) == (
        ["ore", "tin"],
        ["ore"],
        ["ore"],
        [],
    )
    assert facts(inventory, "ore")["fleet_state"] == "running"
    assert facts(inventory, "ore")["ansible_host"] == "203.0.113.5"
    assert said.warnings == []


def template(inventory: Any, name: str, variable: str) -> Any:
    variables = inventory.get_host(name).get_vars()
    return Templar(loader=DataLoader(), variables=variables).template(variables[variable])


def test_what_a_cloud_says_is_never_evaluated(parse: Parse) -> None:
    inventory = parse()
    instance = template(inventory, "ore", "fleet_instance")
    assert instance["image"] == EVIL
    assert instance["cloud_state"] == EVIL
    assert instance["labels"]["evil"] == EVIL
    assert instance["labels"][EVIL] == "x"


def test_what_the_user_declares_is_evaluated(parse: Parse) -> None:
    inventory = parse()
    assert str(template(inventory, "ore", "own")) == "2"
    assert [str(value) for value in template(inventory, "ore", "deep")["list"]] == ["4"]


def test_constructed_groups_and_variables(parse: Parse) -> None:
    inventory = parse(
        FLEET
        + """\
strict: true
compose: {place: "fleet_machine.provider ~ '/' ~ fleet_state", copied: "fleet_instance.image if fleet_instance else ''"}
groups: {up: "fleet_state == 'running'"}
keyed_groups: [{prefix: type, key: fleet_machine.type}, {prefix: at, key: place}]
"""
    )
    groups = inventory.get_groups_dict()
    assert groups["up"] == ["ore"]
    assert groups["type_small"] == ["ore", "tin"]
    assert groups["at_cloudy_running"] == ["ore"]
    assert facts(inventory, "ore")["place"] == "cloudy/running"
    assert template(inventory, "ore", "copied") == EVIL


def test_a_failing_expression_is_an_error_where_strict_says_so(parse: Parse) -> None:
    text = FLEET + "compose: {x: nothing.at.all}\n"
    assert "x" not in facts(parse(text), "ore")
    with pytest.raises(Exception, match="Could not set x for host ore"):
        parse(text + "strict: true\n")


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("fleet.yml", True),
        ("fleet.yaml", True),
        ("home.fleet.yml", True),
        ("home.fleet.yaml", True),
        ("hosts.yml", False),
        ("myfleet.yml", False),
        ("fleet.json", False),
    ],
)
def test_which_files_are_taken(tmp_path: Path, said: Said, name: str, taken: bool) -> None:
    (tmp_path / name).write_text(FLEET)
    plugin = inventory_loader.get("gpumesh.fleet.fleet")
    plugin.display = said
    assert plugin.verify_file(str(tmp_path / name)) is taken
    assert said.details == (
        []
        if taken
        else [
            f"gpumesh.fleet.fleet declines {tmp_path / name}: a fleet file is called fleet.yml or <name>.fleet.yml (or .yaml)"
        ]
    )


def test_every_problem_of_the_file_is_in_the_error(parse: Parse) -> None:
    with pytest.raises(AnsibleParserError) as caught:
        parse(FLEET.replace("type: small", "typ: small"))
    assert str(caught.value).count("unknown key; did you mean 'type'?") == 2
    assert "fleet.yml:5: ore typ" in str(caught.value)


def test_without_credentials_it_lists_what_is_declared_and_says_so_once(
    parse: Parse, cloud: Cloudy, said: Said
) -> None:
    cloud.error = errors.AuthError("there is no token", hint="Set TOKEN")
    inventory = parse()
    assert set(inventory.hosts) == {"ore", "tin"}
    assert facts(inventory, "ore")["fleet_state"] == "unknown"
    assert said.warnings == [
        "fleet minerals: showing what is declared. cloudy: there is no token. Set TOKEN."
    ]


def test_a_refused_credential_is_one_error(parse: Parse, cloud: Cloudy) -> None:
    cloud.error = errors.AuthError("listing: the token is refused", code="unauthorized", hint="Check TOKEN")
    with pytest.raises(AnsibleParserError) as caught:
        parse()
    assert str(caught.value) == "cloudy: listing: the token is refused (unauthorized). Check TOKEN."


def test_a_sick_cloud_may_be_left_out(parse: Parse, cloud: Cloudy, said: Said) -> None:
    cloud.error = errors.Unavailable("listing: 503", code="503")
    inventory = parse(FLEET.replace("when_sick: fail", "when_sick: partial"))
    assert facts(inventory, "ore")["fleet_state"] == "unknown"
    assert inventory.get_groups_dict()["missing"] == []
    assert len(said.warnings) == 1


def test_a_cached_answer_asks_nobody(parse: Parse, cloud: Cloudy, tmp_path: Path) -> None:
    first = parse(cached(tmp_path))
    cloud.error = errors.Unavailable("must not be asked")
    again = parse(cached(tmp_path))
    assert cloud.asked == 1
    assert facts(first, "ore") == facts(again, "ore")
    assert template(again, "ore", "fleet_instance")["image"] == EVIL


def test_refresh_asks_again_and_renews_the_cache(parse: Parse, cloud: Cloudy, tmp_path: Path) -> None:
    parse(cached(tmp_path))
    cloud.state = State.STOPPED
    assert facts(parse(cached(tmp_path)), "ore")["fleet_state"] == "running"
    assert facts(parse(cached(tmp_path), cache=False), "ore")["fleet_state"] == "stopped"
    assert facts(parse(cached(tmp_path)), "ore")["fleet_state"] == "stopped"
    assert cloud.asked == 2


def test_another_token_or_another_file_asks_again(parse: Parse, cloud: Cloudy, tmp_path: Path) -> None:
    parse(cached(tmp_path))
    parse(cached(tmp_path, one="two"))
    parse(cached(tmp_path, small="large"))
    assert cloud.asked == 3


def test_the_cache_holds_plain_json_and_no_token(parse: Parse, tmp_path: Path) -> None:
    parse(cached(tmp_path, one="s3cret-token"))
    files = list((tmp_path / "cache").iterdir())
    assert files
    for file in files:
        json.loads(file.read_text())
        assert "s3cret" not in file.read_text() + file.name


def test_an_error_is_not_cached(parse: Parse, cloud: Cloudy, tmp_path: Path) -> None:
    cloud.error = errors.AuthError("there is no token")
    parse(cached(tmp_path))
    cloud.error = None
    assert facts(parse(cached(tmp_path)), "ore")["fleet_state"] == "running"


def test_a_stale_answer_serves_when_the_cloud_is_sick(
    parse: Parse, cloud: Cloudy, said: Said, tmp_path: Path
) -> None:
    text = cached(tmp_path, fail="stale")
    parse(text)
    cloud.error = errors.Unavailable("listing: 503", code="503")
    inventory = parse(text, cache=False)
    assert (facts(inventory, "ore")["fleet_state"], facts(inventory, "ore")["fleet_stale"]) == (
        "running",
        True,
    )
    assert len(said.warnings) == 1
    assert "Going on with its last answer" in said.warnings[0]


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> LittleMesh:
    plane = LittleMesh().put(
        Member("8046d53400", "ore", True, online=True, physical_address=EVIL),
        Member("bbbbbbbbbb", "intruder", True, online=True),
    )
    monkeypatch.setattr(plugin_file, "connect", connecting(plane))
    return plane


def meshed(mesh: str = "controller: central_v1", text: str = FLEET) -> str:
    return text.replace("machines:", f"mesh: {{network: {NETWORK_ID}, {mesh}}}\nmachines:")


def test_the_mesh_is_asked_once_and_its_members_are_hosts(
    parse: Parse, plane: LittleMesh, said: Said
) -> None:
    inventory = parse(meshed())
    groups = inventory.get_groups_dict()
    assert (groups["mesh"], groups["mesh_online"], groups["mesh_undeclared"]) == (
        ["ore"], ["ore"], ["mesh_bbbbbbbbbb"]
    )  # fmt: skip
    assert facts(inventory, "ore")["ansible_host"] == "fddb:4344:343b:14b9:399:9380:46d5:3400"
    assert facts(inventory, "ore")["fleet_mesh"]["name"] == "ore.zt"
    assert template(inventory, "ore", "fleet_mesh_member")["physical_address"] == EVIL
    assert "ansible_connection" not in facts(inventory, "mesh_bbbbbbbbbb")
    assert plane.calls == {"members": 1} and said.warnings == []


def test_a_strict_mesh_refuses_whom_nobody_declared(parse: Parse, plane: LittleMesh) -> None:
    inventory = parse(meshed("controller: central_v1, strict: true"))
    assert facts(inventory, "mesh_bbbbbbbbbb")["ansible_connection"] == hosts.REFUSED
    assert "ansible_connection" not in facts(inventory, "ore")


def test_a_controller_that_does_not_exist_yet_is_one_warning(
    parse: Parse, plane: LittleMesh, said: Said
) -> None:
    inventory = parse(meshed("controller: tin").replace("type: small}", "type: small, enabled: true}"))
    assert facts(inventory, "ore")["fleet_mesh"]["members_known"] is False
    assert facts(inventory, "tin")["fleet_mesh_node_id"] == NETWORK_ID[:10]
    assert said.warnings == [
        "fleet minerals: showing what is declared. mesh: the mesh's controller tin does not exist yet. Provision it first."
    ]
    assert not plane.calls


def test_a_control_plane_that_is_sick_is_handled_as_declared(
    parse: Parse, plane: LittleMesh, said: Said
) -> None:
    plane.fault = lambda _verb, _node: "slow"
    with pytest.raises(AnsibleParserError, match="mesh: members db4344343b14b903: did not answer in time"):
        parse(meshed())
    assert set(parse(meshed("controller: central_v1, when_sick: partial")).hosts) == {"ore", "tin"}
    assert len(said.warnings) == 1


def test_the_members_are_remembered(parse: Parse, plane: LittleMesh, tmp_path: Path) -> None:
    plane.simulated = True
    text = meshed("controller: central_v1, when_sick: stale", cached(tmp_path))
    parse(text)
    plane.fault = lambda _verb, _node: "slow"
    again = parse(text)
    assert facts(again, "ore")["fleet_mesh_member"]["simulated"] is True
    assert facts(again, "ore")["fleet_stale"] is False and plane.calls["members"] == 1
    stale = parse(text, cache=False)
    assert facts(stale, "ore")["fleet_stale"] is True and facts(stale, "tin")["fleet_stale"] is False
    assert facts(stale, "ore")["fleet_mesh_member"]["simulated"] is True


def test_a_damaged_cache_is_asked_anew(parse: Parse, cloud: Cloudy, tmp_path: Path) -> None:
    parse(cached(tmp_path))
    for file in (tmp_path / "cache").iterdir():
        file.write_text('{"version": 1, "listings": 3}')
    assert facts(parse(cached(tmp_path)), "ore")["fleet_state"] == "running"
    assert cloud.asked == 2


def test_every_variable_is_documented() -> None:
    documentation = yaml.safe_load(plugin_file.DOCUMENTATION)
    text = " ".join(documentation["description"])
    for name in (
        *hosts.HostVars.__annotations__,
        *hosts.CloudInstance.__annotations__,
        *hosts.MeshMember.__annotations__,
        *hosts.FleetMesh.__annotations__,
    ):
        assert f"C({name})" in text, name
    for group in hosts.ALWAYS:
        assert f"C({group})" in text, group
    options = set(documentation["options"]) | {
        "compose", "groups", "keyed_groups", "strict", "use_extra_vars", "leading_separator",
        "cache", "cache_plugin", "cache_timeout", "cache_connection", "cache_prefix",
    }  # fmt: skip
    assert options == set(spec.FleetFile.model_fields)


def test_the_example_of_the_documentation_is_a_fleet_file() -> None:
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import KINDS
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec_file import Document

    assert spec_file.parse([Document("EXAMPLES", plugin_file.EXAMPLES)], KINDS, {}).machines
