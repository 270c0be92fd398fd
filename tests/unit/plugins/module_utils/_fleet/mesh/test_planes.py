# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of control planes, and what is said before anything is sent."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, mesh, spec
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.relay import RelayAdapter, SshTarget
from ansible_collections.gpumesh.fleet.tests.loopback import FakeClock

NETWORK = "db4344343b14b903"
TOKEN = "planted-token-0123456789abcdef"


def fleet(controller: str, **given: Any) -> spec.FleetSpec:
    block = spec.Mesh(network=NETWORK, controller=controller, **given)
    return spec.FleetSpec(
        fleet="minerals", providers={}, mesh=block, machines={}, base_dir="/", known_hosts="/nowhere"
    )


@pytest.mark.parametrize("kind", mesh.KINDS)
def test_each_kind_is_opened_with_the_same_arguments(kind: str) -> None:
    plane = mesh.open_plane(kind, NETWORK.upper(), f" {TOKEN}\n", "http://127.0.0.1:1", FakeClock())
    assert (plane.kind, plane.network_id, plane.simulated) == (kind, NETWORK, False)
    plane.close()


@pytest.mark.parametrize("kind", mesh.KINDS)
@pytest.mark.parametrize("token", [None, "", " \n"])
def test_without_a_token_it_says_where_to_find_one(kind: str, token: str | None) -> None:
    with pytest.raises(
        errors.AuthError, match=r"authtoken\.secret" if kind == "controller" else "ZEROTIER_TOKEN"
    ) as caught:
        mesh.open_plane(kind, NETWORK, token, None, FakeClock())
    assert errors.no_access(caught.value)


@pytest.mark.parametrize("kind", mesh.KINDS)
@pytest.mark.parametrize("token", [f"{TOKEN}\n{TOKEN}", f"{TOKEN} {TOKEN}", f"{TOKEN}é"])
def test_a_token_that_is_none_is_not_shown(kind: str, token: str) -> None:
    with pytest.raises(errors.AuthError) as caught:
        mesh.open_plane(kind, NETWORK, token, None, FakeClock())
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "network", ["db4344343b", "nothex", "", "zzzzzzzzzzzzzzzz", f"{NETWORK}0", f" {NETWORK}"]
)
def test_a_network_id_is_whole_or_refused(network: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="16 hexadecimal digits"):
        mesh.open_plane("controller", network, TOKEN, None, FakeClock())


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(errors.InvalidRequest, match="central_v1, central_v2, controller"):
        mesh.open_plane("central_v3", NETWORK, TOKEN, None, FakeClock())


@pytest.mark.parametrize("kind", mesh.PLANES)
def test_central_from_a_fleet_file(kind: str) -> None:
    assert mesh.connect(fleet(kind, token=TOKEN), {}, FakeClock()).kind == kind
    assert mesh.connect(fleet(kind), {"token": TOKEN}, FakeClock()).kind == kind
    with pytest.raises(errors.AuthError, match="ZEROTIER_TOKEN"):
        mesh.connect(fleet(kind), {}, FakeClock())


def test_a_machine_of_the_fleet_that_nobody_knows_where_to_find() -> None:
    with pytest.raises(errors.Unreachable, match=r"cinnabar.*does not exist yet, or is not running"):
        mesh.connect(fleet("cinnabar", token=TOKEN), {}, FakeClock())
    with pytest.raises(errors.Unreachable):
        mesh.connect(fleet("cinnabar"), {"ssh": None}, FakeClock())


def test_a_machine_of_the_fleet_by_ssh_needs_no_token() -> None:
    plane = mesh.connect(fleet("cinnabar"), {"ssh": SshTarget("192.0.2.1")}, FakeClock())
    assert plane.kind == "controller"
    assert isinstance(plane._rest.adapter, RelayAdapter)  # type: ignore[attr-defined]
    assert plane._rest.headers == {}  # type: ignore[attr-defined]
    plane.close()


def test_a_machine_of_the_fleet_that_is_reached_directly() -> None:
    plane = mesh.connect(fleet("cinnabar", token=TOKEN, endpoint="http://192.0.2.1:9993"), {}, FakeClock())
    assert plane._rest.endpoint == "http://192.0.2.1:9993"  # type: ignore[attr-defined]
    assert not isinstance(plane._rest.adapter, RelayAdapter)  # type: ignore[attr-defined]


def test_a_fleet_without_a_mesh() -> None:
    without = spec.FleetSpec(fleet="a", providers={}, mesh=None, machines={}, base_dir="/", known_hosts="/n")
    with pytest.raises(errors.FleetError, match="declares no mesh"):
        mesh.connect(without, {}, FakeClock())


@pytest.mark.parametrize("kind", [*mesh.KINDS, "relay"])
def test_without_requests_it_says_what_to_install(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = mesh.__name__.removesuffix(".mesh")
    for name in (
        f"{package}.http",
        f"{mesh.__name__}.relay",
        f"{mesh.__name__}.relay_ssh",
        "requests",
        "requests.auth",
    ):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "requests", None)
    monkeypatch.setitem(sys.modules, "requests.auth", None)
    ssh = SshTarget("192.0.2.1") if kind == "relay" else None
    with pytest.raises(errors.MissingLibrary, match="pip install requests"):
        mesh.open_plane("controller" if ssh else kind, NETWORK, TOKEN, None, FakeClock(), ssh=ssh)
