# SPDX-License-Identifier: GPL-3.0-or-later
"""From the variables of hosts to SSH's files: what is written is read back as it was meant, and as nothing else."""

from __future__ import annotations

import ipaddress
import json
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import known_hosts, mesh_ssh
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh_ssh import Entry, Server
from hypothesis import given
from hypothesis import strategies as st

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOneOneOneOneOneOneOneOneOneOneOneOneOneOneOn"
NEXT = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAITwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTw"
ORE = "fddb:4344:343b:14b9:399:9380:46d5:3400"
FILE = "/home/ada/.ssh/gpumesh/minerals.known_hosts"
ON_FILE = known_hosts.merge(
    "github.com ssh-ed25519 AAAA\n",
    "minerals",
    {
        "gpumesh-minerals-ore-17": ("hetzner", [NEXT, KEY]),
        "gpumesh-minerals-gone-18": ("hetzner", [KEY]),
        "gpumesh-minerals-ore-two-19": ("hetzner", [KEY]),
    },
)


def host(name: str = "ore", **changes: Any) -> dict[str, Any]:
    """The variables of a machine that runs at Hetzner and is in the mesh."""
    return {
        "fleet_name": "minerals",
        "fleet_machine": {"name": name, "provider": "hetzner", "enabled": True},
        "fleet_provider": "hetzner",
        "fleet_state": "running",
        "fleet_user": "admin",
        "fleet_mesh": {"network": "db4344343b14b903", "domain": "zt", "name": f"{name}.zt"},
        "fleet_mesh_ip": ORE,
        "fleet_host_key_alias": f"gpumesh-minerals-{name}-17",
        "ansible_port": 22,
        **changes,
    }


def only(variables: Mapping[str, Any], on_file: str = ON_FILE) -> Entry:
    [found] = mesh_ssh.entries({"ore": variables}, ["ore"], on_file)
    return found


def test_a_machine_is_met_under_the_keys_on_file() -> None:
    assert only(host()) == Entry(
        "ore",
        ("ore.zt", "ore"),
        ORE,
        Server("admin", 22, "gpumesh-minerals-ore-17", "hetzner", (KEY, NEXT)),
    )


def test_entries_are_in_the_order_of_names_with_or_without_short_ones() -> None:
    variables = {name: host(name) for name in ("tin", "ore")}
    found = mesh_ssh.entries(variables, ["tin", "ore"], "", short_names=False)
    assert [one.names for one in found] == [("ore.zt",), ("tin.zt",)]


@pytest.mark.parametrize(
    "changes",
    [
        {"fleet_mesh_ip": None},
        {"fleet_mesh": None},
        {"fleet_machine": None},
        {"fleet_state": "disabled"},
        {"fleet_state": "external", "fleet_provider": "external", "fleet_machine": {"enabled": False}},
    ],
)
def test_who_has_no_address_or_is_not_to_be_there_has_no_name(changes: dict[str, Any]) -> None:
    assert mesh_ssh.entries({"ore": host(**changes)}, ["ore"], ON_FILE) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"fleet_state": "external", "fleet_provider": "external"},
        {"fleet_state": "missing", "fleet_host_key_alias": None},
    ],
)
def test_who_has_no_known_host_key_has_a_name_and_nothing_else(changes: dict[str, Any]) -> None:
    found = only(host(**changes))
    assert (found.names, found.server) == (("ore.zt", "ore"), None)
    assert mesh_ssh.hosts_text([found]) == f"{ORE} ore.zt ore\n"
    assert mesh_ssh.ssh_config([found], FILE, operator=True) == ""
    assert mesh_ssh.known_hosts_text([found], "minerals") == ""


@pytest.mark.parametrize(("port", "alias"), [(22, "192.0.2.10"), (2222, "[192.0.2.10]:2222")])
def test_bare_metal_without_declared_keys_is_met_by_the_operator_alone(port: int, alias: str) -> None:
    machine = {"name": "ore", "provider": "baremetal", "address": "192.0.2.10", "enabled": True}
    found = only(
        host(
            fleet_machine=machine,
            fleet_provider="baremetal",
            fleet_state="unmanaged",
            fleet_host_key_alias=None,
            ansible_port=port,
        )
    )
    assert found.server and (found.server.alias, found.server.ours) == (alias, False)
    assert mesh_ssh.ssh_config([found], FILE) == ""
    assert mesh_ssh.known_hosts_text([found], "minerals") == ""
    config = mesh_ssh.ssh_config([found], FILE, operator=True)
    assert f"HostKeyAlias {alias}\n" in config and "StrictHostKeyChecking yes\n" in config
    assert "KnownHostsFile" not in config


def test_a_cloud_that_does_not_answer_does_not_take_a_host_key_away() -> None:
    sick = host(fleet_state="unknown", fleet_host_key_alias=None)
    server = only(sick).server
    assert server and server.alias == "gpumesh-minerals-ore-17"
    doubtful = known_hosts.merge(ON_FILE, "minerals", {"gpumesh-minerals-ore-18": ("hetzner", [KEY])})
    assert only(sick, doubtful).server is None
    assert only(host(fleet_state="unknown", fleet_host_key_alias=None, fleet_provider="gcp")).server is None
    assert only(host(fleet_state="missing", fleet_host_key_alias=None)).server is None


INJECTED = "x\nHost *\n    StrictHostKeyChecking no"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"fleet_mesh": {"name": f"ore.{INJECTED}"}}, "name"),
        ({"fleet_mesh": {"name": "*.zt"}}, "name"),
        ({"fleet_mesh": {"name": "!ore.zt"}}, "name"),
        ({"fleet_mesh": {"name": "-oProxyCommand.zt"}}, "name"),
        ({"fleet_mesh": {"name": ".".join(["a" * 63] * 5)}}, "name"),
        ({"fleet_mesh_ip": INJECTED}, "mesh address"),
        ({"fleet_mesh_ip": f"fe80::1%{INJECTED}"}, "mesh address"),
        ({"fleet_mesh_ip": "fddb::1/88"}, "mesh address"),
        ({"fleet_user": f"admin {INJECTED}"}, "user"),
        ({"fleet_user": None}, "user"),
        ({"ansible_port": "22 -oProxyCommand=x"}, "port"),
        ({"ansible_port": 65536}, "port"),
        ({"fleet_host_key_alias": f"gpumesh-minerals-ore-{INJECTED}"}, "host key alias"),
        ({"fleet_host_key_alias": "ore,*"}, "host key alias"),
        ({"fleet_provider": f"hetzner {INJECTED}"}, "provider"),
        (
            {
                "fleet_provider": "baremetal",
                "fleet_host_key_alias": None,
                "fleet_machine": {"address": INJECTED},
            },
            "address",
        ),
    ],
)
def test_what_could_be_more_than_it_says_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(FleetError, match=f"^ore: its {what} '.*' cannot be written into SSH's configuration"):
        only(host(**changes))


def test_a_host_whose_own_name_is_no_name_is_refused_and_not_repeated() -> None:
    with pytest.raises(FleetError) as caught:
        mesh_ssh.entries({INJECTED: host()}, [INJECTED], "")
    assert "\n" not in str(caught.value)


def test_a_hosts_file_leaves_a_machine_its_own_short_name() -> None:
    found = mesh_ssh.entries({"ore": host(), "tin": host("tin", fleet_mesh_ip="fd00::2")}, ["ore", "tin"], "")
    assert mesh_ssh.hosts_text(found, own="ore") == f"{ORE} ore.zt\nfd00::2 tin.zt tin\n"


def test_the_configuration_to_the_letter() -> None:
    config = mesh_ssh.ssh_config(
        [only(host(ansible_port=2222))], FILE, identities=["/home/ada/my keys/id_ed25519"]
    )
    assert config == (
        "Host ore.zt ore\n"
        f"    HostName {ORE}\n"
        "    Port 2222\n"
        "    User admin\n"
        "    HostKeyAlias gpumesh-minerals-ore-17\n"
        f"    UserKnownHostsFile {FILE}\n"
        "    GlobalKnownHostsFile /dev/null\n"
        "    StrictHostKeyChecking yes\n"
        "    UpdateHostKeys no\n"
        "    IdentitiesOnly yes\n"
        '    IdentityFile "/home/ada/my keys/id_ed25519"\n'
    )


def effective(config: Path, name: str) -> dict[str, str]:
    """What the real ssh makes of it."""
    done = subprocess.run(
        ["ssh", "-G", "-F", str(config), name], check=True, capture_output=True, text=True, timeout=30
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_ssh_itself_reads_it_as_meant(tmp_path: Path) -> None:
    odd = "/srv/a 100% #odd place/minerals.known_hosts"
    ours = tmp_path / "of ours" / "minerals.conf"
    ours.parent.mkdir()
    ours.write_text(
        mesh_ssh.ssh_config([only(host())], odd, identities=["/srv/a 100% #odd place/id"])
    )  # fmt: skip
    config = tmp_path / "config"
    config.write_text(mesh_ssh.include(str(ours)) + "Host *\n    StrictHostKeyChecking no\n    Port 7\n")
    for name in ("ore.zt", "ore"):
        read = effective(config, name)
        assert read["hostname"] == ORE
        assert (read["port"], read["user"]) == ("22", "admin")
        assert read["hostkeyalias"] == "gpumesh-minerals-ore-17"
        assert read["stricthostkeychecking"] == "true"
        assert read["updatehostkeys"] == "false"
        assert read["userknownhostsfile"] == odd
        assert read["globalknownhostsfile"] == "/dev/null"
    assert effective(config, "tin.zt")["port"] == "7"


def parsed(text: str) -> list[tuple[tuple[str, ...], dict[str, list[str]]]]:
    """An ssh_config by the rules of its manual: keyword, words, quotes."""
    blocks: list[tuple[tuple[str, ...], dict[str, list[str]]]] = []
    for line in text.splitlines():
        words = shlex.split(line)
        if not words:
            continue
        if words[0] == "Host":
            blocks.append((tuple(words[1:]), {}))
        else:
            blocks[-1][1].setdefault(words[0], []).append(" ".join(words[1:]).replace("%%", "%"))
    return blocks


NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
PATHS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters='"\\$'), max_size=12
)
SERVERS = st.builds(
    Server,
    user=st.from_regex(r"[a-z_][a-z0-9_-]{0,31}", fullmatch=True),
    port=st.integers(1, 65535),
    alias=NAMES.map(lambda name: f"gpumesh-minerals-{name}-1"),
    provider=st.sampled_from(["hetzner", "gcp"]),
    keys=st.sampled_from([(), (KEY,), (KEY, NEXT)]),
)


@st.composite
def fleets(draw: st.DrawFn) -> list[Entry]:
    names = sorted(draw(st.sets(NAMES, max_size=5)))
    return [Entry(name, (f"{name}.zt", name), draw(ADDRESSES), draw(st.none() | SERVERS)) for name in names]


@given(fleets(), PATHS.map("/x".__add__), st.lists(PATHS.map("/k ".__add__), max_size=2))
def test_what_is_rendered_is_read_back(found: list[Entry], file: str, identities: list[str]) -> None:
    read = parsed(mesh_ssh.ssh_config(found, file, identities=identities))
    assert [
        (names, options["HostName"], options["Port"], options["User"], options["HostKeyAlias"])
        for names, options in read
    ] == [
        (one.names, [one.address], [str(one.server.port)], [one.server.user], [one.server.alias])
        for one in found
        if one.server
    ]
    for _names, options in read:
        assert options["StrictHostKeyChecking"] == ["yes"]
        assert options["UserKnownHostsFile"] == [file]
        assert options.get("IdentityFile", []) == identities
    lines = [line.split(" ") for line in mesh_ssh.hosts_text(found).splitlines()]
    assert [(line[0], tuple(line[1:])) for line in lines] == [(one.address, one.names) for one in found]


@given(fleets())
def test_entries_survive_as_plain_data(found: list[Entry]) -> None:
    carried = json.loads(json.dumps([one.as_data() for one in found]))
    assert [mesh_ssh.entry(data) for data in carried] == [
        Entry(one.machine, one.names, str(ipaddress.ip_address(one.address)), one.server) for one in found
    ]


@pytest.mark.parametrize("data", [{}, {"machine": "ore", "names": None}, {"server": {"user": "x"}}])
def test_data_that_is_no_entry_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(FleetError, match="this is no entry"):
        mesh_ssh.entry(data)


def test_data_is_checked_like_variables() -> None:
    data = only(host()).as_data()
    with pytest.raises(FleetError, match="mesh address"):
        mesh_ssh.entry(data | {"address": f"::1%{INJECTED}"})


@pytest.mark.parametrize("path", ["relative", "~/x", '/a"b', "/a\\b", "/a\nb", "/${HOME}/x"])
def test_a_path_ssh_would_read_otherwise_is_refused(path: str) -> None:
    with pytest.raises(FleetError, match="cannot be written"):
        mesh_ssh.ssh_config([only(host())], path)
    with pytest.raises(FleetError, match="cannot be written"):
        mesh_ssh.include(path)


@pytest.mark.parametrize("path", ["/a*b", "/a?b", "/a[b]", "/a%b"])
def test_a_path_that_could_mean_several_files_is_not_included(path: str) -> None:
    with pytest.raises(FleetError, match="cannot be written"):
        mesh_ssh.include(path)


def test_known_hosts_has_the_declared_machines_and_nobody_else() -> None:
    text = mesh_ssh.known_hosts_text([only(host())], "minerals")
    assert text == (
        f"gpumesh-minerals-ore-17 {KEY} gpumesh:minerals/hetzner\n"
        f"gpumesh-minerals-ore-17 {NEXT} gpumesh:minerals/hetzner\n"
    )
    assert mesh_ssh.known_hosts_text([only(host(), "")], "minerals") == ""


def test_what_is_no_key_is_told_and_not_passed_on() -> None:
    broken = "gpumesh-minerals-ore-17 ssh-ed25519 nonsense gpumesh:minerals/hetzner\n"
    with pytest.raises(FleetError, match="holds something else than host keys"):
        mesh_ssh.known_hosts_text([only(host(), broken)], "minerals")
    with pytest.raises(FleetError, match="is no name of a fleet"):
        mesh_ssh.known_hosts_text([only(host())], "min erals")
