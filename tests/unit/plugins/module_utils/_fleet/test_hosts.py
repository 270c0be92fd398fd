# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as hosts, groups and variables."""

from __future__ import annotations

import json
import shlex
from decimal import Decimal
from typing import Any, Literal

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import hosts, known_hosts, spec, spec_file
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import (
    FLEET_LABEL,
    MACHINE_LABEL,
    Instance,
    Member,
    State,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.prices import Price
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Kind, Listing
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec_file import Document
from hypothesis import given
from hypothesis import strategies as st


class CloudyMachine(spec.CloudMachine):
    provider: Literal["cloudy"]
    zone: str


KINDS = {
    "cloudy": Kind("cloudy", CloudyMachine, spec.ProviderSettings),
    "baremetal": Kind("baremetal", spec.BaremetalMachine),
    "external": Kind("external", spec.ExternalMachine),
}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPlaceholderPlaceholderPlaceholderPlaceholde"
FLEET = f"""\
plugin: gpumesh.fleet.fleet
fleet: minerals
providers: {{cloudy: {{}}}}
mesh: {{network: db4344343b14b903, controller: central_v1}}
defaults: {{user: admin, ssh_port: 2222}}
known_hosts: /home/me/known_hosts
machines:
  cinnabar: {{provider: cloudy, type: small, zone: us-central1-c, tags: [web, db], enabled: true, user: ore, vars: {{a: 1}}}}
  galena: {{provider: cloudy, type: small, zone: here, gpu: {{model: a100-80gb, count: 2}}}}
  demo-box: {{provider: baremetal, address: box.example, gpu: {{model: rtx5090, count: 4}}}}
  sure-box: {{provider: baremetal, address: 192.0.2.9, host_keys: ['{KEY}']}}
  shed: {{provider: baremetal, address: 192.0.2.8, enabled: false}}
  stibnite: {{provider: external, node_id: 8046d53400}}
"""
ASKED = {"cloudy": Listing(())}


def parse(text: str = FLEET) -> spec.FleetSpec:
    return spec_file.parse([Document("fleet.yml", text)], KINDS, {})


def instance(machine: str = "cinnabar", fleet: str = "minerals", **changes: Any) -> Instance:
    fields: dict[str, Any] = {
        "provider": "cloudy",
        "id": "17",
        "name": machine,
        "state": State.RUNNING,
        "cloud_state": "RUNNING",
        "zone": "us-central1-c",
        "type": "small",
        "public_ip": "203.0.113.5",
        "labels": {FLEET_LABEL: fleet, MACHINE_LABEL: machine},
    }
    return Instance(**{**fields, **changes})


def build(
    *instances: Instance, members: tuple[Member, ...] | None = None, text: str = FLEET, **options: Any
) -> dict[str, hosts.Host]:
    return hosts.inventory(parse(text), {"cloudy": Listing(instances)}, members, **options)


def group(found: dict[str, hosts.Host], name: str) -> list[str]:
    return [host for host, its in found.items() if name in its.groups]


def test_nothing_is_asked_so_nothing_is_missing() -> None:
    found = hosts.inventory(parse(), {}, None)
    assert list(found) == ["cinnabar", "galena", "demo-box", "sure-box", "shed", "stibnite"]
    assert group(found, "fleet") == list(found)
    assert group(found, "missing") == []
    assert group(found, "running") == ["demo-box", "sure-box"]
    assert {name: host.variables["fleet_state"] for name, host in found.items()} == {
        "cinnabar": "unknown",
        "galena": "unknown",
        "demo-box": "unmanaged",
        "sure-box": "unmanaged",
        "shed": "disabled",
        "stibnite": "external",
    }


def test_a_cloud_that_answers_says_what_is_missing() -> None:
    found = build()
    assert group(found, "missing") == ["cinnabar"]
    assert found["cinnabar"].variables["fleet_state"] == "missing"
    assert found["galena"].variables["fleet_state"] == "disabled"
    assert "ansible_host" not in found["cinnabar"].variables


@pytest.mark.parametrize("simulated", [True, False])
def test_what_a_sandbox_answered_is_called_simulated(simulated: bool) -> None:
    listing = Listing((instance(), instance("stray")), simulated=simulated)
    found = hosts.inventory(parse(), {"cloudy": listing}, None)
    told = {name: host.variables.get("fleet_simulated") for name, host in found.items()}
    assert {name for name, word in told.items() if word} == (
        {"cinnabar", "galena", "stray"} if simulated else set()
    )


def test_a_month_costs_at_most_what_its_cloud_caps_it_at() -> None:
    price = Price(Decimal("0.01"), "EUR", "here", monthly_cap=Decimal("5"))
    its = build(instance(price=price))["cinnabar"].variables
    assert (its["fleet_hourly_usd"], its["fleet_monthly_usd"]) == (pytest.approx(0.012), pytest.approx(6.0))


def test_the_account_and_the_keys_it_was_born_with_are_known_to_the_roles() -> None:
    text = FLEET.replace("{user: admin,", "{user: admin, ssh_keys: [keys/me.pub],")
    its = build(instance(), text=text)
    assert its["cinnabar"].variables["fleet_user"] == "ore"
    assert its["cinnabar"].variables["fleet_known_hosts"] == "/home/me/known_hosts"
    assert its["cinnabar"].variables["fleet_ssh_sources"] == ["0.0.0.0/0", "::/0"]
    assert [path.rpartition("/keys/")[2] for path in its["cinnabar"].variables["fleet_ssh_key_files"]] == [
        "me.pub"
    ]


def test_a_cloud_that_answers_in_part_leaves_it_unknown() -> None:
    found = hosts.inventory(parse(), {"cloudy": Listing((), unreachable=("us-central1-c",))}, None)
    assert found["cinnabar"].variables["fleet_state"] == "unknown"
    assert group(found, "missing") == []


def test_the_groups_of_a_running_machine() -> None:
    assert build(instance())["cinnabar"].groups == (
        "fleet",
        "enabled",
        "provider_cloudy",
        "tag_web",
        "tag_db",
        "zone_us_central1_c",
        "running",
    )


def test_a_machine_that_fell_over_is_in_the_zone_it_is_in() -> None:
    assert "zone_there" in build(instance(zone="there"))["cinnabar"].groups


def test_gpu_groups() -> None:
    found = build()
    assert group(found, "gpu") == ["galena", "demo-box"]
    assert group(found, "gpu_a100_80gb") == ["galena"]
    assert (found["galena"].variables["fleet_gpu_model"], found["galena"].variables["fleet_gpu_count"]) == (
        "a100-80gb",
        2,
    )


def test_a_gpu_the_cloud_reports_counts_where_none_is_declared() -> None:
    found = build(instance(gpu_model="l4", gpu_count=1))
    assert group(found, "gpu_l4") == ["cinnabar"]


def test_the_variables_of_a_running_machine() -> None:
    variables = build(instance(price=Price(Decimal("0.01"), "EUR"), image="debian-13"))["cinnabar"].variables
    declared = variables["fleet_machine"]
    assert (declared["name"], declared["zone"], declared["tags"]) == (
        "cinnabar",
        "us-central1-c",
        ["web", "db"],
    )
    assert "vars" not in declared
    assert variables["fleet_hourly_usd"] == pytest.approx(0.012)
    assert (variables["ansible_host"], variables["ansible_user"], variables["ansible_port"]) == (
        "203.0.113.5",
        "ore",
        2222,
    )
    facts = variables["fleet_instance"]
    assert facts is not None
    assert (facts["id"], facts["image"], facts["labels"][MACHINE_LABEL]) == ("17", "debian-13", "cinnabar")
    assert set(variables) <= set(hosts.HostVars.__annotations__)


def test_a_planted_host_key_is_told_from_the_machines_own() -> None:
    assert build(instance(host_keys_planted=True))["cinnabar"].variables["fleet_host_key_planted"] is True
    assert build(instance())["cinnabar"].variables["fleet_host_key_planted"] is False
    assert build()["cinnabar"].variables["fleet_host_key_planted"] is False


def test_an_unknown_price_is_null_and_never_zero() -> None:
    assert build(instance())["cinnabar"].variables["fleet_hourly_usd"] is None
    assert build(instance(price=Price(Decimal(1), "XXX")))["cinnabar"].variables["fleet_hourly_usd"] is None
    assert build()["cinnabar"].variables["fleet_hourly_usd"] is None


def test_own_variables_are_kept_apart() -> None:
    assert build()["cinnabar"].own == {"a": 1}


def ssh_options(found: dict[str, hosts.Host], name: str) -> list[str]:
    words = shlex.split(found[name].variables["ansible_ssh_common_args"])
    assert words[::2] == ["-o"] * (len(words) // 2)
    return words[1::2]


def test_ssh_checks_the_key_of_this_very_instance() -> None:
    assert ssh_options(build(instance()), "cinnabar") == [
        "UserKnownHostsFile=/home/me/known_hosts",
        "StrictHostKeyChecking=yes",
        f"HostKeyAlias={known_hosts.alias('minerals', 'cinnabar', '17')}",
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
    ]


def test_ssh_options_survive_odd_paths_and_ids() -> None:
    text = FLEET.replace("/home/me/known_hosts", "'/home/my name/100%/it''s'")
    options = ssh_options(build(instance(id="1 -o x=y"), text=text), "cinnabar")
    assert options[0] == 'UserKnownHostsFile="/home/my name/100%%/it\'s"'
    assert options[2] == "HostKeyAlias=gpumesh-minerals-cinnabar-1 -o x=y"


def test_bare_metal_is_checked_against_declared_keys_or_the_users_own() -> None:
    found = build()
    assert ssh_options(found, "demo-box") == ["StrictHostKeyChecking=yes"]
    assert "HostKeyAlias=gpumesh-minerals-sure-box-baremetal" in ssh_options(found, "sure-box")


def test_no_host_key_check_is_ever_off() -> None:
    for name, host in build(instance()).items():
        if name != "stibnite":
            assert "StrictHostKeyChecking=yes" in ssh_options({name: host}, name)
    assert "ansible_ssh_common_args" not in build()["stibnite"].variables


def test_what_is_not_declared_is_in_no_other_group_and_is_not_connected_to() -> None:
    found = build(instance("fool-s-gold", id="99"), instance("other", fleet="other-fleet"))
    assert found["fool-s-gold"].groups == ("undeclared",)
    assert found["fool-s-gold"].variables["fleet_state"] == "running"
    assert "ansible_host" not in found["fool-s-gold"].variables
    assert "other" not in found


def test_two_instances_of_one_machine() -> None:
    dying = instance(id="1", state=State.DELETING, public_ip="203.0.113.1")
    found = build(dying, instance(id="2"), instance(id="3", zone="elsewhere"))
    facts = found["cinnabar"].variables["fleet_instance"]
    assert facts is not None
    assert facts["id"] == "2"
    assert group(found, "undeclared") == ["cinnabar-2", "cinnabar-3"]


def test_an_instance_in_the_wrong_cloud_is_not_the_machine() -> None:
    found = build(instance(provider="stormy"))
    assert found["cinnabar"].variables["fleet_state"] == "missing"
    assert group(found, "undeclared") == ["cinnabar-2"]


@pytest.mark.parametrize("name", ["{{ 1 }}", "-oProxyCommand=x", "gpu", "a b", "", "ore\n", "all"])
def test_a_name_from_a_cloud_is_no_name_of_a_host_unless_it_looks_like_one(name: str) -> None:
    found = build(instance(name=name, labels={FLEET_LABEL: "minerals", MACHINE_LABEL: "x{{ y }}"}))
    assert group(found, "undeclared") == ["cloudy_17"]


@pytest.mark.parametrize("address", ["-oProxyCommand=touch /tmp/x", "a.example", "{{ 1 }}", "1.2.3.4 -v"])
def test_only_an_address_is_connected_to(address: str) -> None:
    assert "ansible_host" not in build(instance(public_ip=address))["cinnabar"].variables
    found = build(instance(public_ip=address, public_ipv6="2001:db8::5"))
    assert found["cinnabar"].variables["ansible_host"] == "2001:db8::5"


def member(node_id: str = "aaaaaaaaaa", **changes: Any) -> Member:
    fields: dict[str, Any] = {
        "name": "cinnabar",
        "authorized": True,
        "online": True,
        "addresses": ("10.9.0.7",),
    }
    return Member(node_id, **{**fields, **changes})


ORE_COMPUTED = "fddb:4344:343b:14b9:399:93aa:aaaa:aaaa"


def meshed(mesh: str) -> str:
    return FLEET.replace("controller: central_v1", f"controller: central_v1, {mesh}")


def test_a_member_that_is_online_is_reached_over_the_mesh() -> None:
    found = build(instance(), members=(member(),))
    variables = found["cinnabar"].variables
    assert (variables["ansible_host"], variables["fleet_mesh_ip"], variables["fleet_public_ip"]) == (
        ORE_COMPUTED,
        ORE_COMPUTED,
        "203.0.113.5",
    )
    assert variables["fleet_mesh_node_id"] == "aaaaaaaaaa"
    assert {"mesh", "mesh_online"} <= set(found["cinnabar"].groups)


@pytest.mark.parametrize(
    ("addressing", "address"),
    [("rfc4193", ORE_COMPUTED), ("6plane", "fce0:57fd:37aa:aaaa:aaaa::1"), ("managed", "10.9.0.7")],
)
def test_the_address_in_the_mesh_has_the_form_that_was_chosen(addressing: str, address: str) -> None:
    found = build(instance(), members=(member(),), text=meshed(f"addressing: {addressing}"))
    variables = found["cinnabar"].variables
    assert variables["fleet_mesh_ip"] == variables["ansible_host"] == address
    assert variables["fleet_mesh"]["addressing"] == addressing


def test_a_member_without_an_address_is_reached_in_public() -> None:
    for found in (
        build(instance(), members=(member(no_auto_assign=True),)),
        build(instance(), members=(member(addresses=()),), text=meshed("addressing: managed")),
    ):
        assert found["cinnabar"].variables["fleet_mesh_ip"] is None
        assert found["cinnabar"].variables["ansible_host"] == "203.0.113.5"


def test_the_public_address_may_be_preferred() -> None:
    variables = build(instance(), members=(member(),), text=meshed("connect: public"))["cinnabar"].variables
    assert (variables["ansible_host"], variables["fleet_mesh_ip"]) == ("203.0.113.5", ORE_COMPUTED)
    assert (
        "ansible_host" not in build(members=(member(),), text=meshed("connect: public"))["cinnabar"].variables
    )


def test_every_declared_machine_knows_its_mesh() -> None:
    found = build(members=(member("bbbbbbbbbb", name="intruder"),))
    for name in list(found)[:6]:
        assert found[name].variables["fleet_mesh"] == {
            "network": "db4344343b14b903",
            "controller": "central_v1",
            "domain": "zt",
            "addressing": "rfc4193",
            "name": f"{name}.zt",
            "members_known": True,
        }
        assert set(found[name].variables["fleet_mesh"]) == set(hosts.FleetMesh.__annotations__)
    assert "fleet_mesh" not in found["mesh_bbbbbbbbbb"].variables
    assert not build(members=None)["cinnabar"].variables["fleet_mesh"]["members_known"]
    text = FLEET.replace("mesh: {network: db4344343b14b903, controller: central_v1}\n", "")
    assert not any("fleet_mesh" in host.variables for host in build(text=text).values())


def test_the_controller_is_known_by_the_network_id() -> None:
    text = FLEET.replace("central_v1", "cinnabar")
    its = build(text=text)["cinnabar"]
    assert (its.variables["fleet_mesh_node_id"], its.variables["fleet_mesh_ip"]) == (
        "db4344343b", "fddb:4344:343b:14b9:399:93db:4344:343b"
    )  # fmt: skip
    assert "mesh" in its.groups
    found = build(text=text, members=(member("aaaaaaaaaa"), member("db4344343b", name="")))
    assert found["cinnabar"].variables["fleet_mesh_node_id"] == "db4344343b"
    assert group(found, "mesh_undeclared") == ["mesh_aaaaaaaaaa"], "its name makes nobody the controller"


def test_a_node_that_is_declared_is_the_machine_whatever_its_name() -> None:
    text = FLEET.replace("user: ore", "user: ore, node_id: cccccccccc")
    found = build(text=text, members=(member("aaaaaaaaaa"), member("cccccccccc", name="demo-box")))
    assert found["cinnabar"].variables["fleet_mesh_node_id"] == "cccccccccc"
    assert found["demo-box"].variables["fleet_mesh_member"] is None
    assert group(found, "mesh_undeclared") == ["mesh_aaaaaaaaaa"]


def test_a_node_of_a_machine_that_is_off_is_not_in_the_mesh_until_it_is_a_member() -> None:
    text = FLEET.replace("enabled: false}", "enabled: false, node_id: cccccccccc}")
    assert "mesh" not in build(text=text)["shed"].groups
    found = build(text=text, members=(member("cccccccccc", authorized=False),))
    assert {"mesh", "mesh_unauthorized"} <= set(found["shed"].groups)


def test_what_a_sandbox_tells_of_a_member_is_called_simulated() -> None:
    for simulated in (True, False):
        its = build(members=(member(),), simulated_mesh=simulated)["cinnabar"].variables["fleet_mesh_member"]
        assert its and its["simulated"] is simulated and set(its) == set(hosts.MeshMember.__annotations__)


def test_an_old_answer_of_the_mesh_is_called_stale() -> None:
    found = build(members=(member(), member("bbbbbbbbbb", name="x")), stale={"mesh"})
    assert [name for name, host in found.items() if host.variables["fleet_stale"]] == [
        "cinnabar",
        "mesh_bbbbbbbbbb",
    ]


@pytest.mark.parametrize(
    ("change", "groups"),
    [
        ({"online": False}, {"mesh", "mesh_offline"}),
        ({"online": None}, {"mesh"}),
        ({"authorized": False}, {"mesh", "mesh_unauthorized"}),
    ],
)
def test_a_member_that_is_not_online_is_reached_in_public(change: dict[str, Any], groups: set[str]) -> None:
    host = build(instance(), members=(member(**change),))["cinnabar"]
    assert host.variables["ansible_host"] == "203.0.113.5"
    assert {name for name in host.groups if name.startswith("mesh")} == groups


def test_where_no_public_ssh_is_open_a_member_is_reached_over_the_mesh_before_it_is_online() -> None:
    closed = meshed("domain: zt").replace("defaults: {", "defaults: {ssh_sources: [], ", 1)
    assert closed != meshed("domain: zt")
    for seen, address in (({"online": None}, ORE_COMPUTED), ({"authorized": False}, "203.0.113.5")):
        found = build(instance(), members=(member(**seen),), text=closed)
        assert found["cinnabar"].variables["ansible_host"] == address


def test_the_name_that_host_keys_are_filed_under_is_told_where_there_are_any() -> None:
    found = build(instance())
    told = {name: host.variables.get("fleet_host_key_alias") for name, host in found.items()}
    assert told["cinnabar"] == "gpumesh-minerals-cinnabar-17" and told["galena"] is None
    assert told["sure-box"] == "gpumesh-minerals-sure-box-baremetal" and told["demo-box"] is None


def test_bare_metal_whose_key_the_user_knows_keeps_its_name_for_it_over_the_mesh() -> None:
    seen = (member("bbbbbbbbbb", name="demo-box"), member("cccccccccc", name="sure-box"))
    over = build(members=seen)["demo-box"].variables["ansible_ssh_common_args"]
    assert "HostKeyAlias=[box.example]:2222" in over and "StrictHostKeyChecking=yes" in over
    assert "HostKeyAlias" not in build()["demo-box"].variables["ansible_ssh_common_args"]


def test_an_address_with_a_scope_is_none() -> None:
    """Behind the percent sign Python takes anything, line ends included."""
    found = build(instance(public_ip="fe80::1%x\nHost *"))
    assert "ansible_host" not in found["cinnabar"].variables


def test_an_external_member_has_its_computed_address() -> None:
    found = build(members=(member("8046d53400", name="", addresses=("junk",)),))
    assert found["stibnite"].variables["fleet_mesh_ip"] == "fddb:4344:343b:14b9:399:9380:46d5:3400"
    assert "mesh_online" in found["stibnite"].groups
    assert "running" not in found["stibnite"].groups


def test_a_member_nobody_declared() -> None:
    found = build(members=(member("bbbbbbbbbb", name="intruder"),))
    assert found["mesh_bbbbbbbbbb"].groups == ("mesh_undeclared",)
    assert not {"ansible_host", "ansible_connection"} & set(found["mesh_bbbbbbbbbb"].variables)


def test_strict_refuses_a_member_nobody_declared_and_nobody_else() -> None:
    found = build(instance(), members=(member(), member("bbbbbbbbbb", name="x")), text=meshed("strict: true"))
    told = {name: host.variables.get("ansible_connection") for name, host in found.items()}
    assert {name: word for name, word in told.items() if word} == {"mesh_bbbbbbbbbb": "gpumesh.fleet.refused"}


def test_a_member_does_not_become_a_machine_by_taking_its_name() -> None:
    impostor = member("cccccccccc", authorized=False)
    found = build(members=(impostor, member("aaaaaaaaaa")))
    assert found["cinnabar"].variables["fleet_mesh_node_id"] == "aaaaaaaaaa"
    assert group(found, "mesh_undeclared") == ["mesh_cccccccccc"]
    named = build(members=(member("cccccccccc", name="stibnite"),))
    assert named["stibnite"].variables["fleet_mesh_node_id"] == "8046d53400"
    assert group(named, "mesh_undeclared") == ["mesh_cccccccccc"]


def test_what_is_old_says_so() -> None:
    found = build(instance(), stale=["cloudy"])
    assert found["cinnabar"].variables["fleet_stale"] is True
    assert found["demo-box"].variables["fleet_stale"] is False


texts = st.text(max_size=6) | st.sampled_from(["cinnabar", "galena", "fleet", "stibnite", "demo-box", "zz"])
instances = st.builds(
    Instance,
    provider=st.sampled_from(["cloudy", "baremetal", "stormy"]),
    id=texts,
    name=texts,
    state=st.sampled_from(State),
    cloud_state=texts,
    zone=texts,
    type=texts,
    public_ip=st.none() | texts | st.ip_addresses().map(str),
    labels=st.fixed_dictionaries(
        {FLEET_LABEL: st.sampled_from(["minerals", "x"])}, optional={MACHINE_LABEL: texts}
    ),
    gpu_model=st.none() | texts,
    gpu_count=st.integers(0, 8),
)
members = st.builds(
    Member,
    node_id=st.from_regex(r"[0-9a-f]{10}", fullmatch=True) | st.just("8046d53400"),
    name=texts,
    authorized=st.booleans(),
    online=st.none() | st.booleans(),
    addresses=st.lists(texts | st.ip_addresses().map(str), max_size=2).map(tuple),
)
SPEC = parse()


@given(st.none() | st.lists(instances, max_size=6), st.none() | st.lists(members, max_size=4), st.booleans())
def test_whatever_the_clouds_say(
    seen: list[Instance] | None, known: list[Member] | None, partly: bool
) -> None:
    listings = {} if seen is None else {"cloudy": Listing(tuple(seen), ("here",) if partly else ())}
    found = hosts.inventory(SPEC, listings, known)
    # Every declared machine, exactly once, first, in the order of the file.
    assert list(found)[: len(SPEC.machines)] == list(SPEC.machines)
    assert group(found, "fleet") == list(SPEC.machines)
    declared, others = group(found, "fleet"), list(found)[len(SPEC.machines) :]
    # The states are a partition: enabled or not, and running, missing or neither.
    assert sorted(group(found, "enabled") + group(found, "disabled")) == sorted(declared)
    assert not set(group(found, "running")) & set(group(found, "missing"))
    # Nothing that was seen is lost, and nothing undeclared is anywhere else.
    ours = [one for one in seen or () if one.fleet == "minerals"]
    matched = [name for name in declared if found[name].variables["fleet_instance"]]
    assert len(group(found, "undeclared")) == len(ours) - len(matched)
    assert all(found[name].groups in (("undeclared",), ("mesh_undeclared",)) for name in others)
    tied = [name for name in declared if found[name].variables["fleet_mesh_member"]]
    assert len(group(found, "mesh_undeclared")) == len(known or ()) - len(tied)
    # All of it is plain data with names Ansible takes.
    for host in found.values():
        json.dumps(host.variables)
        assert all(name.isidentifier() for name in host.groups)
        assert set(host.variables) <= set(hosts.HostVars.__annotations__)
