# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet file: what is good becomes a FleetSpec, what is wrong becomes one sentence with its place."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import spec, spec_file
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import Problem, SpecError
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Kind
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec_file import Document
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field, SecretStr, model_validator


class CloudyMachine(spec.CloudMachine):
    provider: Literal["cloudy"]
    zone: str = Field(description="Where it is.")
    fallback_zones: tuple[str, ...] = ()
    spot: bool = False

    @model_validator(mode="after")
    def _gpus_fit(self) -> CloudyMachine:
        if self.gpu and self.gpu.count == 3:
            raise spec.WrongField("gpu.count", f"{self.type} takes 1, 2 or 4 GPUs, not 3")
        if self.zone in self.fallback_zones:
            raise ValueError("the zone is one of its own fallbacks")
        return self


class CloudySettings(spec.ProviderSettings):
    token: SecretStr | None = None
    door: SecretStr | None = None
    project: str | None = None


class StrictSettings(spec.ProviderSettings):
    project: str = Field(description="Project id.")


class StrictMachine(spec.CloudMachine):
    provider: Literal["strict"]
    location: str

    @property
    def zone(self) -> str:
        return self.location


KINDS = {
    "cloudy": Kind("cloudy", CloudyMachine, CloudySettings),
    "strict": Kind("strict", StrictMachine, StrictSettings),
    "baremetal": Kind("baremetal", spec.BaremetalMachine),
    "external": Kind("external", spec.ExternalMachine),
}

GOOD = """\
plugin: gpumesh.fleet.fleet
fleet: minerals
budget: {hourly_usd: 6}
providers:
  cloudy: {token: "{{ lookup('env', 'CLOUDY_TOKEN') }}", endpoint: http://127.0.0.1:8480/cloudy}
mesh: {network: db4344343b14b903, controller: cinnabar, domain: zt}
defaults: {user: admin, ssh_keys: [~/.ssh/id_ed25519.pub], ssh_sources: [203.0.113.0/24, '2001:db8::/32']}
machines:
  cinnabar: {provider: cloudy, type: small, zone: here, tags: [controller, web_1], enabled: true}
  galena:
    provider: cloudy
    type: large
    zone: here
    fallback_zones: [there, yonder]
    gpu: {model: t4}
    vars: {mode: 0644, greeting: "hello {{ inventory_hostname }}", day: 2026-11-20}
  demo-box: {provider: baremetal, address: 192.0.2.10, gpu: {model: RTX 5090, count: 4}}
  stibnite: {provider: external, node_id: 8046d53400}
"""


def parse(text: str, *machine_files: Document, environ: dict[str, str] | None = None) -> spec.FleetSpec:
    return spec_file.parse([Document("fleet.yml", text), *machine_files], KINDS, environ or {})


def problems(
    text: str, *machine_files: Document, environ: dict[str, str] | None = None
) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse(text, *machine_files, environ=environ)
    return caught.value.problems


def only_problem(text: str, *machine_files: Document, environ: dict[str, str] | None = None) -> Problem:
    found = problems(text, *machine_files, environ=environ)
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


def fleet(machines: str, *, top: str = "", cloudy: str = "{}") -> str:
    return f"plugin: gpumesh.fleet.fleet\nfleet: minerals\nproviders: {{cloudy: {cloudy}}}\n{top}machines:\n{machines}"


def test_a_good_file() -> None:
    fleet = parse(GOOD, environ={"CLOUDY_TOKEN": "s3cret"})
    assert list(fleet.machines) == ["cinnabar", "galena", "demo-box", "stibnite"]
    galena = fleet.machines["galena"]
    assert isinstance(galena, CloudyMachine)
    assert (galena.name, galena.zone, galena.fallback_zones) == ("galena", "here", ("there", "yonder"))
    assert galena.vars == {"mode": 420, "greeting": "hello {{ inventory_hostname }}", "day": "2026-11-20"}
    assert galena.gpu == spec.Gpu(model="t4", count=1)
    settings = fleet.providers["cloudy"]
    assert isinstance(settings, CloudySettings)
    assert settings.token is not None
    assert settings.token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(fleet)


def test_what_costs_money_is_off_until_it_is_switched_on() -> None:
    machines = parse(GOOD).machines
    assert {name: machine.enabled for name, machine in machines.items()} == {
        "cinnabar": True,
        "galena": False,
        "demo-box": True,
        "stibnite": True,
    }


def test_a_gpu_goes_by_any_of_its_names() -> None:
    gpu = parse(GOOD).machines["demo-box"].gpu
    assert gpu is not None
    assert gpu.model == "rtx5090"


def test_without_the_environment_a_secret_is_none() -> None:
    settings = parse(GOOD).providers["cloudy"]
    assert isinstance(settings, CloudySettings)
    assert settings.token is None


def test_known_hosts_has_a_place_of_its_own_by_default() -> None:
    assert parse(GOOD).known_hosts == str(Path.home() / ".ssh/gpumesh/minerals.known_hosts")
    here = parse(GOOD.replace("fleet: minerals", "fleet: minerals\nknown_hosts: .sandbox/hosts", 1))
    assert here.known_hosts == str(Path.cwd() / ".sandbox/hosts")


def test_a_file_of_the_fleet_is_meant_from_its_folder() -> None:
    fleet = parse(GOOD)
    assert fleet.file("keys/a.pub") == str(Path.cwd() / "keys/a.pub")
    assert fleet.file("~/a.pub") == str(Path.home() / "a.pub")
    assert fleet.file("/etc/a.pub") == "/etc/a.pub"


def test_defaults_and_what_a_machine_says_instead() -> None:
    text = GOOD.replace("enabled: true", "enabled: true, user: ore, ssh_sources: [198.51.100.7/32]")
    fleet = parse(text)
    cinnabar, galena = fleet.machines["cinnabar"], fleet.machines["galena"]
    assert isinstance(cinnabar, spec.CloudMachine)
    assert isinstance(galena, spec.CloudMachine)
    assert (fleet.user(cinnabar), fleet.ssh_sources(cinnabar)) == ("ore", ("198.51.100.7/32",))
    assert (fleet.user(galena), fleet.ssh_sources(galena)) == ("admin", ("203.0.113.0/24", "2001:db8::/32"))


def test_inventory_options_pass_through() -> None:
    options = """\
compose: {x: "{{ y }}"}
groups: {big: fleet_gpu_count > 2}
keyed_groups: [{prefix: p, key: "fleet_machine['image'] | default('{{ z }}')"}]
strict: true
cache: true
cache_plugin: jsonfile
cache_timeout: 60
cache_connection: /tmp/x
cache_prefix: p_
leading_separator: false
use_extra_vars: false
"""
    parse(GOOD + options)


def test_anchors_and_merge_keys() -> None:
    text = fleet(
        "  a: &base {provider: cloudy, type: small, zone: here}\n"
        "  b: {<<: *base, zone: there}\n"
        "  c:\n    <<: [{user: first}, {user: second, enabled: true}]\n"
        "    provider: baremetal\n    address: a.example\n"
    )
    machines = parse(text).machines
    assert (machines["a"].zone, machines["b"].zone, machines["b"].type_name) == ("here", "there", "small")
    assert (machines["c"].user, machines["c"].enabled) == ("first", True)


def test_a_wrong_value_behind_a_merge_key_has_the_line_of_the_machine_or_the_anchor() -> None:
    text = fleet("  a: &base {provider: cloudy, type: 3, zone: here}\n  b: {<<: *base, zone: there}\n")
    assert [(problem.machine, problem.line) for problem in problems(text)] == [("a", 5), ("b", 5)]


@pytest.mark.parametrize(
    ("machine", "field", "message"),
    [
        ("{provider: cloudy, type: small, location: here}", "location", "unknown key; did you mean 'zone'?"),
        ("{provider: cloudy, type: small, zone: here, tag: [a]}", "tag", "unknown key; did you mean 'tags'?"),
        ("{provider: cloudy, type: small, zone: here, server_type: x}", "server_type", "unknown key; did you mean 'type'?"),
        ("{provider: cloudy, type: small, zone: here, qqqqqq: x}", "qqqqqq", "unknown key"),
        ("{provider: cloudy, type: small, zone: here, name: x}", "name", "unknown key; a machine's name is its key"),
        ("{provider: cloudy, type: small}", "zone", "it is missing: where it is"),
        ("{provider: clowdy, type: small}", "provider", "there is no provider 'clowdy'; did you mean 'cloudy'?"),
        ("{type: small, zone: here}", "provider", "it is missing; it is one of cloudy, strict, baremetal, external"),
        ("{provider: 3}", "provider", "3 is read by YAML as a number; it is one of"),
        ("{provider: strict, type: small, location: x}", "provider", "the fleet file has no block for it; add 'strict:'"),
        ("{provider: cloudy, type: small, zone: no}", "zone", "no is read by YAML as a boolean (false); write 'no' in quotes"),
        ("{provider: cloudy, type: small, zone: on}", "zone", "on is read by YAML as a boolean (true); write 'on' in quotes"),
        ("{provider: cloudy, type: small, zone: ~}", "zone", "it has no value; remove the key, or give it text"),
        ("{provider: cloudy, type: 010, zone: here}", "type", "010 is read by YAML as octal, which is 8"),
        ("{provider: cloudy, type: 1:30, zone: here}", "type", "1:30 is read by YAML as a number to base 60, which is 90"),
        ("{provider: cloudy, type: small, zone: here, tags: [a, no]}", "tags.1", "no is read by YAML as a boolean"),
        ("{provider: cloudy, type: small, zone: here, tags: [Web]}", "tags.0", "'Web' does not fit: it begins with a letter"),
        ("{provider: cloudy, type: small, zone: here, tags: web}", "tags", "'web' is not a list"),
        ("{provider: cloudy, type: small, zone: here, enabled: 'yes'}", "enabled", "'yes' is text; write true or false"),
        ("{provider: cloudy, type: small, zone: here, enabled: 1}", "enabled", "1 is not true or false"),
        ("{provider: cloudy, type: small, zone: here, disabled: stoped}", "disabled", "'stoped' is not one of its values; did you mean 'stopped'?"),
        ("{provider: cloudy, type: small, zone: here, disabled: off}", "disabled", "off is read by YAML as a boolean"),
        ("{provider: cloudy, type: small, zone: here, gpu: {model: t5}}", "gpu.model", "'t5' is no GPU model we know; did you mean 't4'?"),
        ("{provider: cloudy, type: small, zone: here, gpu: {model: t4, count: 3}}", "gpu.count", "small takes 1, 2 or 4 GPUs, not 3"),
        ("{provider: cloudy, type: small, zone: here, gpu: {model: t4, count: 0}}", "gpu.count", "0 is out of range: it is at least 1"),
        ("{provider: cloudy, type: small, zone: here, gpu: {model: t4, count: 1e1}}", "gpu.count", "1e1 is read by YAML as text; write the number out: 10"),
        ("{provider: cloudy, type: small, zone: here, gpu: {model: t4, count: '2'}}", "gpu.count", "'2' is text; write a whole number, without quotes"),
        ("{provider: cloudy, type: small, zone: here, gpu: {model: t4, count: 2.5}}", "gpu.count", "2.5 is not a whole number"),
        ("{provider: cloudy, type: small, zone: here, gpu: t4}", "gpu", "'t4' is not a mapping of names to values"),
        ("{provider: cloudy, type: small, zone: here, gpu: {type: t4}}", "gpu.model", "it is missing"),
        ("{provider: cloudy, type: small, zone: here, fallback_zones: [here]}", "", "the zone is one of its own fallbacks"),
        ("{provider: cloudy, type: small, zone: here, ssh_sources: [10.0.0.1/8]}", "ssh_sources.0", "did you mean '10.0.0.0/8'?"),
        ("{provider: cloudy, type: small, zone: here, ssh_sources: [10.0.0.0/33]}", "ssh_sources.0", "'10.0.0.0/33' is not a network"),
        ("{provider: cloudy, type: small, zone: here, labels: {gpumesh-x: y}}", "labels", "'gpumesh-x' begins with gpumesh-"),
        ("{provider: cloudy, type: small, zone: here, labels: {a: 1}}", "labels.a", "1 is read by YAML as a number; write '1' in quotes"),
        ("{provider: cloudy, type: small, zone: here, user: Admin}", "user", "'Admin' does not fit: it is a Linux account"),
        ("{provider: cloudy, type: small, zone: here, vars: {a-b: 1}}", "vars", "'a-b' is no variable name"),
        ("{provider: cloudy, type: small, zone: here, vars: {fleet_state: up}}", "vars", "'fleet_state' begins with fleet_"),
        ("{provider: cloudy, type: small, zone: '{{ place }}'}", "zone", "the only expression understood here is {{ lookup('env', 'NAME') }}"),
        ("{provider: cloudy, type: small, zone: {{ place }}}", "zone", "a key is text, not a list or a mapping; is it a {{ }} expression?"),
        ("{provider: baremetal, address: admin@host}", "address", "'admin@host' is no address"),
        ("{provider: baremetal, address: -oProxyCommand=x}", "address", "'-oProxyCommand=x' is no address"),
        ("{provider: baremetal, address: host, host_keys: [AAAA]}", "host_keys", "a host key is written as in"),
        ("{provider: external, node_id: 1234567890}", "node_id", "write '1234567890' in quotes"),
        ("{provider: external, node_id: ff46d53400}", "node_id", "does not begin with ff"),
        ("{provider: cloudy, type: small, zone: here, node_id: '0000000000'}", "node_id", "is not all zero"),
        ("{provider: cloudy, type: small, zone: here, node_id: 8046D53400}", "node_id", "in lower case"),
        ("{provider: baremetal, address: a, node_id: fffffffff0}", "node_id", "does not begin with ff"),
        ("{provider: external}", "node_id", "it is missing"),
        ("{provider: external, node_id: xyz}", "node_id", "'xyz' does not fit: it is 10 hexadecimal digits"),
        ("", "provider", "it is missing"),
        ("[a]", "", "a machine is a mapping"),
        ("!vault x", "", "the tag !vault has no meaning here; take the secret from the environment"),
        ("&a {provider: *a}", "provider", "an anchor refers to itself"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_machine(machine: str, field: str, message: str) -> None:
    found = [
        problem
        for problem in problems(fleet(f"  good: {{provider: baremetal, address: a}}\n  ore: {machine}\n"))
        if problem.field == field
    ]
    assert len(found) == 1
    assert (found[0].path, found[0].line, found[0].machine) == ("fleet.yml", 6, "ore")
    assert message in found[0].message


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "message"),
    [
        ("fleet: minerals", "fleet: Minerals", 2, "fleet", "'Minerals' does not fit: it begins with a letter"),
        ("fleet: minerals", "flet: minerals", 2, "flet", "unknown key; did you mean 'fleet'?"),
        ("plugin: gpumesh.fleet.fleet", "plugin: gpumesh.fleet", 1, "plugin", "did you mean 'gpumesh.fleet.fleet'?"),
        ("hourly_usd: 6", "hourly_usd: 1e3", 3, "budget.hourly_usd", "1e3 is read by YAML as text; write the number out: 1000"),
        ("hourly_usd: 6", "hourly_usd: .nan", 3, "budget.hourly_usd", "this value cannot be read"),
        ("hourly_usd: 6", "hourly_usd: 0", 3, "budget.hourly_usd", "0 is out of range: it is more than 0"),
        ("http://127", "ftp://127", 5, "providers.cloudy.endpoint", "does not fit: it begins with http:// or https://"),
        ("cloudy: {", "clowdy: {", 5, "providers.clowdy", "there is no provider 'clowdy'; did you mean 'cloudy'?"),
        ("endpoint:", "endpiont:", 5, "providers.cloudy.endpiont", "unknown key; did you mean 'endpoint'?"),
        ("controller: cinnabar", "controller: cinabar", 6, "mesh.controller", "there is no machine 'cinabar'; did you mean 'cinnabar'?"),
        ("controller: cinnabar", "controller: central_v3", 6, "mesh.controller", "did you mean 'central_v"),
        ("controller: cinnabar", "controller: stibnite", 6, "mesh.controller", "'stibnite' is external"),
        ("tags: [controller, web_1], enabled: true", "tags: [controller, web_1]", 6, "mesh.controller", "'cinnabar' is not enabled, so nobody could admit members"),
        ("enabled: true}", "enabled: true, node_id: 8046d53401}", 9, "node_id", "8046d53401 is not the controller of the mesh, whose network id begins with db4344343b"),
        ("192.0.2.10,", "192.0.2.10, node_id: db4344343b,", 6, "mesh.controller", "the network belongs to the node db4344343b, which is 'demo-box'; name that machine"),
        ("controller: cinnabar", "controller: central_v1, connect: no", 6, "mesh.connect", "no is read by YAML as a boolean"),
        ("enabled: true}", "enabled: true, mesh_birth: true, node_id: db4344343b}", 9, "mesh_birth", "is replaced at first contact"),
        ("domain: zt", "addressing: rfc4192", 6, "mesh.addressing", "did you mean 'rfc4193'?"),
        ("domain: zt", "adressing: managed", 6, "mesh.adressing", "unknown key; did you mean 'addressing'?"),
        ("domain: zt", "strict: 'true'", 6, "mesh.strict", "'true' is text; write true or false"),
        ("domain: zt", "domain: zt.example", 6, "mesh.domain", "'zt.example' does not fit: it begins with a letter"),
        ("domain: zt", "domain: -zt", 6, "mesh.domain", "does not fit"),
        ("domain: zt", "domain: local", 6, "mesh.domain", "'local' has a meaning of its own to resolvers"),
        ("db4344343b14b903", "db4344343b14b90", 6, "mesh.network", "it is 16 hexadecimal digits in lower case"),
        ("db4344343b14b903", "1234567890123456", 6, "mesh.network", "write '1234567890123456' in quotes"),
        ("user: admin", "user: no", 7, "defaults.user", "no is read by YAML as a boolean (false)"),
        ("ssh_keys: [", "ssh_key: [", 7, "defaults.ssh_key", "unknown key; did you mean 'ssh_keys'?"),
        ("user: admin", "ssh_port: 022", 7, "defaults.ssh_port", "022 is read by YAML as octal, which is 18"),
        ("  cinnabar:", "  no:", 9, "", "no is read by YAML as a boolean (false); write 'no' in quotes"),
        ("  demo-box:", "  demo_box:", 17, "", "'demo_box' does not fit"),
        ("  demo-box:", "  gpu:", 17, "", "a machine cannot be called 'gpu'"),
        ("  demo-box:", "  cinnabar:", 17, "", "it is written twice; it stands on line 9 already"),
        ("budget: {hourly_usd: 6}", "budget: {hourly_usd: 6, hourly_usd: 7}", 3, "budget.hourly_usd", "written twice"),
        ("machines:", "machines: []\nmachine:", 8, "machines", "it is a mapping of names to machines"),
        ("providers:", "providers: {baremetal: {}}\nprovider:", 4, "providers.baremetal", "baremetal has nothing to set"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_rest(old: str, new: str, line: int, field: str, message: str) -> None:
    found = [problem for problem in problems(GOOD.replace(old, new, 1)) if problem.field == field]
    assert [problem.line for problem in found] == [line]
    assert message in found[0].message


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the file is empty"),
        ("# nothing\n", 1, "the file is empty"),
        ("a: b: c", 1, "a colon stands where none is expected"),
        ("a:\n\tb: 1", 2, "a tab is used for indentation; use spaces"),
        ("a: [1", 2, "not valid YAML"),
        ("a: *nothing", 1, "refers to an anchor that does not exist"),
        ("a: 1\n---\nb: 2", 2, "more than one YAML document"),
        ("- a", 1, "a fleet file is a mapping"),
        ("\x01", 1, "not valid YAML"),
        ("a: \ud800", 1, "not valid Unicode"),
        ("[" * 5000, 1, "nested more than 100 deep"),
        ("- " * 5000, 1, "nested more than 100 deep"),
    ],
)
def test_a_file_that_is_no_fleet_file(text: str, line: int, message: str) -> None:
    problem = only_problem(text)
    assert (problem.line, problem.machine) == (line, None)
    assert message in problem.message


def test_a_file_without_machines() -> None:
    problem = only_problem("plugin: gpumesh.fleet.fleet\nfleet: minerals\n")
    assert problem.field == "machines"
    assert not parse("plugin: gpumesh.fleet.fleet\nfleet: minerals\nmachines: {}\n").machines


def test_all_problems_come_at_once_in_the_order_of_the_file() -> None:
    text = (
        GOOD.replace("hourly_usd", "hourly")
        .replace("zone: here, tags", "zoo: here, tags")
        .replace("8046d53400", "8046")
    )
    found = problems(text)
    assert [(problem.line, problem.machine) for problem in found] == [
        (3, None), (3, None), (9, "cinnabar"), (9, "cinnabar"), (18, "stibnite"),
    ]  # fmt: skip


def test_how_a_problem_reads() -> None:
    with pytest.raises(SpecError) as caught:
        parse(GOOD.replace("zone: here, tags", "zoen: here, tags"))
    assert str(caught.value).splitlines() == [
        "the fleet file has 2 problems:",
        "  fleet.yml:9: cinnabar zoen: unknown key; did you mean 'zone'?",
        "  fleet.yml:9: cinnabar zone: it is missing: where it is",
    ]


def test_two_machines_cannot_be_one_node() -> None:
    problem = only_problem(GOOD + "  lazurite: {provider: external, node_id: 8046d53400}\n")
    assert (problem.machine, problem.field, problem.line) == ("lazurite", "node_id", 19)


def test_two_machines_cannot_be_one_node_whoever_makes_them() -> None:
    problem = only_problem(GOOD.replace("192.0.2.10,", "192.0.2.10, node_id: 8046d53400,"))
    assert (problem.machine, problem.message) == (
        "stibnite", "8046d53400 is the node of demo-box as well; a node is one machine"
    )  # fmt: skip


def test_the_mesh_has_defaults() -> None:
    mesh = parse(GOOD).mesh
    assert mesh and (mesh.addressing, mesh.connect, mesh.strict) == ("rfc4193", "mesh", False)
    mesh = parse(GOOD.replace("domain: zt", "addressing: 6plane, connect: public, strict: true")).mesh
    assert mesh and (mesh.addressing, mesh.connect, mesh.strict) == ("6plane", "public", True)


def test_which_node_a_machine_is_may_be_known_beforehand() -> None:
    its = parse(GOOD.replace("192.0.2.10,", "192.0.2.10, node_id: 1234abcdef,"))
    nodes = {name: its.node_id(machine) for name, machine in its.machines.items()}
    # A network id begins with the node id of its controller.
    assert nodes == {
        "cinnabar": "db4344343b", "galena": None, "demo-box": "1234abcdef", "stibnite": "8046d53400",
    }  # fmt: skip
    its = parse(GOOD.replace("controller: cinnabar", "controller: central_v1"))
    assert its.node_id(its.machines["cinnabar"]) is None


def test_the_controller_may_say_its_node_id() -> None:
    assert parse(GOOD.replace("enabled: true}", "enabled: true, node_id: db4344343b}")).mesh


def test_a_controller_that_is_wrong_itself_is_told_once() -> None:
    problem = only_problem(GOOD.replace("zone: here, tags", "zone: 5, tags"))
    assert (problem.machine, problem.field) == ("cinnabar", "zone")


def test_a_required_value_from_an_environment_that_lacks_it() -> None:
    text = fleet("  a: {provider: strict, type: x, location: y}\n").replace(
        "cloudy: {}", "strict: {project: \"{{ lookup('ansible.builtin.env', 'PROJECT') }}\"}"
    )
    problem = only_problem(text)
    assert problem.field == "providers.strict.project"
    assert problem.message == "it comes from the environment variable PROJECT, which is not set"
    assert parse(text, environ={"PROJECT": "ore"}).providers["strict"] == StrictSettings(project="ore")


@pytest.mark.parametrize(
    "block",
    [
        "{token: 918273645546372819, endpoint: x}",
        "{token: [s3cret-918273645546372819]}",
        "{tokn: s3cret-918273645546372819}",
        "{door: 918273645546372819}",
        "{door: {a: s3cret-918273645546372819}}",
        "{token: s3cret-918273645546372819, project: {a: s3cret-918273645546372819}}",
        "{token: s3cret-918273645546372819: x}",
        "{token: *s3cret-918273645546372819}",
        "{token: !s3cret x, project: 3}",
        "{token: 's3cret-918273645546372819' 's3cret-918273645546372819'}",
        '{token: "{{ s3cret-918273645546372819 }}"}',
        "{token: s3cret-918273645546372819\n",
    ],
)
def test_no_message_holds_a_secret(block: str) -> None:
    text = "\n".join(str(problem) for problem in problems(fleet("  a: {provider: cloudy}\n", cloudy=block)))
    assert "918273645546372819" not in text
    mesh = f"mesh: {{network: db4344343b14b903, controller: central_v1, {block.removeprefix('{')}\n"
    text = "\n".join(str(problem) for problem in problems(fleet("  a: {provider: cloudy}\n", top=mesh)))
    assert "918273645546372819" not in text


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".yml").write_text(text)
    return folder / "fleet.yml"


def test_one_file_a_machine(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        fleet=GOOD + "machines_dir: machines\n",
        machines__orpiment="provider: baremetal\naddress: 192.0.2.11\n",
    )
    (tmp_path / "machines" / "README.md").write_text("not a machine")
    (tmp_path / "machines" / ".hidden.yml").write_text("not a machine")
    loaded = spec_file.load(str(path), KINDS, {})
    assert list(loaded.machines) == ["cinnabar", "galena", "demo-box", "stibnite", "orpiment"]
    assert loaded.base_dir == str(tmp_path)


def test_problems_in_the_file_of_a_machine_name_that_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        fleet=GOOD + "machines_dir: machines\n",
        machines__orpiment="provider: baremetal\nadress: 192.0.2.11\n",
        machines__cinnabar="provider: baremetal\naddress: a\n",
        machines__empty="",
    )
    with pytest.raises(SpecError) as caught:
        spec_file.load(str(path), KINDS, {})
    found = caught.value.problems
    folder = tmp_path / "machines"
    assert [(problem.path, problem.line, problem.machine, problem.field) for problem in found] == [
        (str(folder / "cinnabar.yml"), 1, "cinnabar", ""),
        (str(folder / "empty.yml"), 1, "empty", ""),
        (str(folder / "orpiment.yml"), 1, "orpiment", "address"),
        (str(folder / "orpiment.yml"), 2, "orpiment", "adress"),
    ]
    assert found[0].message == f"this machine is declared twice; it is in {path}:9 already"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.yml: it cannot be read: no such file or directory"):
        spec_file.load(str(tmp_path / "nowhere.yml"), KINDS, {})
    path = write(tmp_path, fleet=GOOD + "machines_dir: nowhere\n")
    with pytest.raises(SpecError, match=r"fleet\.yml:19: machines_dir: the folder .*nowhere cannot be read"):
        spec_file.load(str(path), KINDS, {})
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="not UTF-8"):
        spec_file.load(str(path), KINDS, {})


def test_a_big_file_is_read_at_once() -> None:
    machines = "".join(f"  m{n}: {{provider: cloudy, type: small, zone: here}}\n" for n in range(500))
    assert len(parse(fleet(machines)).machines) == 500


# Whatever is done to a good file, it is a good file or a SpecError.

keys = [
    "fleet",
    "machines",
    "providers",
    "provider",
    "cloudy",
    "vars",
    "gpu",
    "tags",
    "token",
    "<<",
    "plugin",
    "zone",
    "",
]
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["no", "1e3", "010", "{{ x }}", "{{ lookup('env', 'X') }}", "!vault", "*a", "&a", "\t", "\ud800", "ff46d53400"]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(keys) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def replaced(data: Any, path: list[float], value: Any) -> Any:
    """The data with one value somewhere in it replaced."""
    if not path or not isinstance(data, (dict, list)) or not data:
        return value
    names = list(data) if isinstance(data, dict) else list(range(len(data)))
    name = names[int(path[0] * len(names)) % len(names)]
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[name] = replaced(data[name], path[1:], value)
    return copy


@settings(max_examples=150)
@given(st.lists(st.floats(0, 0.999), max_size=4), values)
def test_no_value_anywhere_breaks_the_parser(path: list[float], value: Any) -> None:
    text = yaml.safe_dump(replaced(yaml.safe_load(GOOD), path, value), allow_unicode=True)
    try:
        parse(text)
    except SpecError as error:
        assert error.problems


@settings(max_examples=200)
@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 12),
    st.text(max_size=6) | st.sampled_from(["{", "[", "&a ", "*a", "<<: ", "!!set ", "? ", "- "]),
)
@example(0, 0, "\ufeff")
def test_no_edit_of_the_text_breaks_the_parser(start: int, length: int, new: str) -> None:
    try:
        parse(GOOD[:start] + new + GOOD[start + length :])
    except SpecError as error:
        assert error.problems
        assert all("Traceback" not in str(problem) for problem in error.problems)


names = st.from_regex(r"[a-z]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True).filter(lambda name: len(name) > 7)


@given(
    st.dictionaries(
        names,
        st.fixed_dictionaries(
            {"provider": st.just("cloudy"), "type": st.text("abc123-", min_size=1), "zone": st.text("abc-", min_size=1)},
            optional={
                "enabled": st.booleans(),
                "tags": st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), max_size=3),
                "gpu": st.fixed_dictionaries({"model": st.sampled_from(["t4", "l4", "rtx5090"]), "count": st.sampled_from([1, 2, 4])}),
                "vars": st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | st.booleans() | st.text("{}% no1e3:", max_size=6)),
            },
        ),
        max_size=4,
    ),
    st.randoms(),
)  # fmt: skip
def test_what_is_declared_is_what_is_understood(machines: dict[str, Any], chance: random.Random) -> None:
    declared = {
        "plugin": "gpumesh.fleet.fleet",
        "fleet": "ore",
        "providers": {"cloudy": {}},
        "machines": machines,
    }
    text = yaml.safe_dump(declared, default_flow_style=chance.choice([True, False, None]), sort_keys=False)
    understood = parse(text)
    assert list(understood.machines) == list(machines)
    for name, machine in understood.machines.items():
        dumped = machine.model_dump(mode="json")
        assert {key: dumped[key] for key in machines[name]} == machines[name]


def test_nobody_is_born_into_a_mesh_that_is_not_declared() -> None:
    machine = "{provider: cloudy, type: small, zone: here, mesh_birth: true}"
    [problem] = problems(fleet(f"  ore: {machine}\n"))
    assert problem.field == "mesh_birth" and "there is no mesh to be born into" in problem.message
