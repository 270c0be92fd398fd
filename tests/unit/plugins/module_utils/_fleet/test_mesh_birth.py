# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine that is a member of the mesh from its first boot on: what its user data says, and what is refused beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, provision
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.firstboot import FirstBoot, new_host_key
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.identity import Identity, parse
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh_birth import (
    MeshBirth,
    Repository,
    mesh_births,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Kind, Operation
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_models import GcpMachine
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import (
    BaremetalMachine,
    CloudMachine,
    FleetSpec,
    MachineBase,
    Mesh,
)
from ansible_collections.gpumesh.fleet.tests.little_cloud import (
    FLEET,
    LittleCloud,
    PassingClock,
    fleet,
    kinds,
    machine,
)

FOLDER = Path(__file__).parents[4] / "fixtures" / "zerotier" / "identities"
NODE = parse((FOLDER / "node.secret").read_text())
CONTROLLER = parse((FOLDER / "controller.secret").read_text())
SECRET = str(NODE.secret).rpartition(":")[2]
NETWORK = "db4344343b14b903"
KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBF\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"
REPOSITORY = Repository("https://download.example/debian/", KEY)
LOGIN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKqGIzk1cB8bGPW9Jr2HZkTLvfrZJm5zTjvb5fGqzQ4F somebody"


def told(user_data: str | None = None, **fields: Any) -> dict[str, Any]:
    """The cloud-config of a machine with this birth."""
    birth = MeshBirth(
        **{"network": NETWORK, "identity": NODE, "repository": REPOSITORY, "suite": "trixie", **fields}
    )
    text = FirstBoot("admin", (LOGIN,), new_host_key(), user_data, birth).cloud_config()
    assert text.startswith("#cloud-config\n")
    return dict(yaml.safe_load(text))


def files(config: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Content and mode of each file, by path; each is written once."""
    assert all(isinstance(entry["permissions"], str) for entry in config["write_files"])
    found = {entry["path"]: (entry["content"], entry["permissions"]) for entry in config["write_files"]}
    assert len(found) == len(config["write_files"])
    return found


# What is told


def test_the_daemon_will_find_its_identity_and_its_network() -> None:
    config = told()
    found = files(config)
    assert found["/var/lib/zerotier-one/identity.secret"] == (NODE.secret, "0600")
    assert found["/var/lib/zerotier-one/identity.public"] == (NODE.public, "0644")
    assert found[f"/var/lib/zerotier-one/networks.d/{NETWORK}.conf"] == ("", "0600")
    assert {entry["owner"] for entry in config["write_files"]} == {"root:root"}
    # Not deferred: those come after the packages.
    assert not any("defer" in entry for entry in config["write_files"])


def test_a_network_in_capitals_is_still_the_file_the_daemon_looks_for() -> None:
    assert f"/var/lib/zerotier-one/networks.d/{NETWORK}.conf" in files(told(network=NETWORK.upper()))


def test_the_package_comes_from_the_signed_repository_and_no_script_is_run() -> None:
    config = told()
    found = files(config)
    assert config["packages"] == ["zerotier-one"]
    assert config["package_update"] is True
    assert found["/etc/apt/keyrings/gpumesh-zerotier.asc"] == (KEY, "0644")
    source, mode = found["/etc/apt/sources.list.d/gpumesh-zerotier.sources"]
    lines = dict(line.split(": ", 1) for line in source.splitlines() if not line.startswith("#"))
    assert lines == {
        "Types": "deb",
        "URIs": "https://download.example/debian/trixie",
        "Suites": "trixie",
        "Components": "main",
        "Signed-By": "/etc/apt/keyrings/gpumesh-zerotier.asc",
    }
    assert mode == "0644"
    assert not {"runcmd", "bootcmd", "apt"} & set(config)
    assert "/etc/apt/preferences.d/gpumesh-zerotier.pref" not in found


def test_a_version_is_installed_and_kept() -> None:
    config = told(repository=replace(REPOSITORY, version="1.14.2"))
    assert config["packages"] == ["zerotier-one=1.14.2"]
    pin = files(config)["/etc/apt/preferences.d/gpumesh-zerotier.pref"][0]
    assert "Package: zerotier-one\nPin: version 1.14.2\nPin-Priority: 1001\n" in pin


def test_the_users_own_cloud_config_is_kept() -> None:
    config = told(
        "#cloud-config\npackages: [jq, [vim, '2:9']]\nruncmd: [[true]]\n"
        "write_files:\n- {path: /etc/motd, content: hi, permissions: '0644'}\n"
    )
    assert config["packages"] == ["jq", ["vim", "2:9"], "zerotier-one"]
    assert config["runcmd"] == [[True]]
    assert files(config)["/etc/motd"] == ("hi", "0644")
    assert len(files(config)) == 6
    assert config["users"][0]["name"] == "admin"
    assert "ed25519_private" in config["ssh_keys"]


def test_our_identity_is_written_after_the_users_files() -> None:
    path = "/var/lib/zerotier-one/identity.secret"
    config = told(f"write_files: [{{path: {path}, content: x, permissions: '0600'}}]\n")
    assert [entry["content"] for entry in config["write_files"] if entry["path"] == path] == [
        "x",
        NODE.secret,
    ]


def test_without_a_mesh_nothing_of_it_is_told() -> None:
    text = FirstBoot("admin", (LOGIN,), user_data="packages: [jq]\n").cloud_config()
    assert "zerotier" not in text
    assert yaml.safe_load(text)["packages"] == ["jq"]


def test_the_secret_is_in_no_representation() -> None:
    birth = MeshBirth(NETWORK, NODE, REPOSITORY, "trixie")
    for shown in (repr(birth), str(FirstBoot("admin", (), mesh=birth)), repr({"x": NODE})):
        assert SECRET[:16] not in shown
        assert NODE.node_id in shown
    request = provision.Request("fleet.yml", identities={"ore": NODE}, repository=REPOSITORY)
    assert SECRET[:16] not in repr(request)


# What is refused


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"url": "ftp://host/x"}, "the URL of ZeroTier's repository is none"),
        ({"url": "https://host/x\nSigned-By: /tmp/other"}, "the URL"),
        ({"url": "https://host/x y"}, "the URL"),
        ({"key": ""}, "is no public key in ASCII armour"),
        ({"key": "mQINBF"}, "is no public key"),
        ({"key": KEY.replace("PUBLIC", "PRIVATE")}, "is no public key"),
        ({"key": KEY.partition("=abcd")[0]}, "is no public key"),
        ({"version": "1.14.2\nPackage: *"}, "is no version of a package"),
        ({"version": "1.14.2 zsh"}, "is no version of a package"),
        ({"version": ""}, "is no version of a package"),
    ],
)
def test_a_repository_that_cannot_be_one_is_refused(fields: dict[str, str], says: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=says):
        Repository(**{"url": "https://host/x", "key": KEY, **fields})


@pytest.mark.parametrize("version", ["1.14.2", "1.14.*", "1.16.0-1~bookworm+1"])
def test_versions_as_apt_takes_them(version: str) -> None:
    assert Repository("http://host/x", KEY, version).version == version


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"network": "db4344343b14b90"}, "16 hexadecimal digits"),
        ({"network": "../../../etc/x"}, "16 hexadecimal digits"),
        (
            {"identity": Identity(NODE.node_id, NODE.public)},
            "only the public half of the identity a0c848c379",
        ),
        ({"suite": "trixie main\nX: y"}, "is no name of a release"),
    ],
)
def test_a_birth_that_cannot_be_one_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=says):
        told(**fields)


DEFAULT_MESH = Mesh(network=NETWORK, controller="central_v1")


def spec_of(*machines: MachineBase, mesh: Mesh | None = DEFAULT_MESH) -> FleetSpec:
    return fleet(*machines, mesh=mesh)


def born(spec: FleetSpec, identities: dict[str, Identity], repository: Repository | None = REPOSITORY) -> Any:
    return mesh_births(
        spec, [one for one in spec.machines.values() if isinstance(one, CloudMachine)], identities, repository
    )


def test_those_with_an_identity_are_born_into_the_mesh() -> None:
    births = born(spec_of(machine("ore"), machine("zinc", image="ubuntu-24.04")), {"zinc": NODE})
    assert births == {"zinc": MeshBirth(NETWORK, NODE, REPOSITORY, "noble")}


def test_what_exists_already_is_not_looked_at() -> None:
    spec = spec_of(machine("ore", image="golden"), machine("zinc"))
    [zinc] = (one for one in spec.machines.values() if one.name == "zinc" and isinstance(one, CloudMachine))
    assert mesh_births(spec, [zinc], {"ore": NODE}, REPOSITORY) == {}


@pytest.mark.parametrize(
    "cloud", [lambda **given: machine("ore", **given), lambda **given: GcpMachine(name="ore", **GCP, **given)]
)
def test_a_golden_image_says_which_release_it_has(cloud: Callable[..., CloudMachine]) -> None:
    ore = cloud(image="golden:gpu-box@1.2.0")
    given = (spec_of(ore), [ore], {"ore": NODE}, REPOSITORY)
    assert mesh_births(*given, {"ore": "debian-13"})["ore"].suite == "trixie"
    for releases in ({}, {"ore": ""}, {"ore": "debian-99"}):
        with pytest.raises(
            errors.InvalidRequest, match=r"nothing says which release its image golden:gpu-box@1\.2"
        ):
            mesh_births(*given, releases)


def test_without_identities_no_mesh_and_no_repository_are_needed() -> None:
    assert born(spec_of(machine("ore"), mesh=None), {}, None) == {}


GCP = {"provider": "gcp", "type": "e2-small", "zone": "us-central1-a", "enabled": True}
BAD = Identity(NODE.node_id, NODE.public, f"{NODE.public}:{str(CONTROLLER.secret).rpartition(':')[2]}")


@pytest.mark.parametrize(
    ("spec", "identity", "repository", "says"),
    [
        (spec_of(machine("ore"), mesh=None), NODE, REPOSITORY, "declares no mesh"),
        (spec_of(machine("ore")), NODE, None, "there is no repository of ZeroTier's package"),
        (spec_of(machine("zinc")), NODE, REPOSITORY, "ore: only a machine that is made in a cloud"),
        (
            spec_of(BaremetalMachine(name="ore", provider="baremetal", address="192.0.2.1")),
            NODE,
            REPOSITORY,
            "ore: only a machine that is made in a cloud",
        ),
        (
            spec_of(machine("ore", image="golden")),
            NODE,
            REPOSITORY,
            "ore: nothing says which release its image golden",
        ),
        (
            spec_of(GcpMachine(name="ore", image="debian-13", **GCP)),
            NODE,
            REPOSITORY,
            "ore: its image debian-13 has no cloud-init",
        ),
        (
            spec_of(machine("ore", node_id=CONTROLLER.node_id)),
            NODE,
            REPOSITORY,
            "ore: its identity is that of a0c848c379, and the fleet file declares the node id 9481388703",
        ),
        (spec_of(machine("ore")), BAD, REPOSITORY, "ore: the secret key of a0c848c379 does not belong"),
    ],
)
def test_what_cannot_be_born_into_the_mesh_is_refused(
    spec: FleetSpec, identity: Identity, repository: Repository | None, says: str
) -> None:
    with pytest.raises(errors.InvalidRequest, match=says) as caught:
        born(spec, {"ore": identity}, repository)
    assert SECRET[:16] not in f"{caught.value} {caught.value.as_failure()}"


def test_the_identity_of_a_declared_node_is_taken() -> None:
    assert born(spec_of(machine("ore", node_id=NODE.node_id)), {"ore": NODE})["ore"].identity == NODE


# The whole line


class Maternity(LittleCloud):
    """A cloud that keeps what its machines were told."""

    def create(self, machine: MachineBase, zone: str, boot: FirstBoot) -> Operation:
        self.told = {**getattr(self, "told", {}), machine.name: boot.cloud_config()}
        return super().create(machine, zone, boot)


def run(folder: Path, iron: Maternity, *, carry_out: bool, **options: Any) -> provision.Report:
    registry: dict[str, Kind] = {**kinds(iron)}
    request = provision.Request(str(folder / "fleet.yml"), carry_out=carry_out, approve=True, **options)
    return provision.run(request, registry, {}, iron.clock)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "key.pub").write_text(f"{LOGIN}\n")
    content = {
        "plugin": "gpumesh.fleet.fleet",
        "fleet": FLEET,
        "defaults": {"ssh_keys": ["key.pub"]},
        "known_hosts": "hosts",
        "providers": {"iron": {}},
        "mesh": {"network": NETWORK, "controller": "central_v1"},
        "machines": {
            name: {"provider": "iron", "type": "small", "enabled": True} for name in ("ore", "zinc")
        },
    }
    (tmp_path / "fleet.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path


def test_only_the_machine_it_is_for_gets_the_identity(folder: Path) -> None:
    iron = Maternity("iron", PassingClock())
    report = run(folder, iron, carry_out=True, identities={"ore": NODE}, repository=REPOSITORY)
    assert [outcome.status for outcome in report.outcomes] == ["ok", "ok"]
    assert str(NODE.secret) in iron.told["ore"]
    assert "zerotier" not in iron.told["zinc"]
    assert SECRET[:16] not in str(report.to_json())
    # It exists, so the identity is not needed any more, nor proved, nor used.
    again = run(folder, iron, carry_out=True, identities={"ore": BAD}, repository=REPOSITORY)
    assert not again.changed


def test_a_plan_says_what_an_apply_would_refuse_and_nothing_is_bought(folder: Path) -> None:
    iron = Maternity("iron", PassingClock())
    options: dict[str, Any] = {"identities": {"ore": BAD}, "repository": REPOSITORY}
    assert "ore: the secret key of a0c848c379" in (
        run(folder, iron, carry_out=False, **options).refusal or ""
    )
    with pytest.raises(errors.InvalidRequest, match="does not belong to its public key"):
        run(folder, iron, carry_out=True, **options)
    assert not iron.truth()
