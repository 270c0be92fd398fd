# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of control planes, and the two ways to one: from a fleet file, and by hand.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import errors
from ..addresses import network_number
from . import zerotier_central_v1, zerotier_central_v2, zerotier_controller
from .base import ControlPlane

if TYPE_CHECKING:
    from ..clock import Clock
    from ..spec import FleetSpec
    from .relay import SshTarget

CONTROLLER = "controller"
"""The kind of a control plane that is a zerotier-one of one's own."""

PLANES: Mapping[str, Callable[[str, str, str | None, Clock], ControlPlane]] = {
    "central_v1": zerotier_central_v1.open_plane,
    "central_v2": zerotier_central_v2.open_plane,
}
"""ZeroTier Central, by the name that ``mesh: controller:`` gives; any other name there is that of a machine."""

CONTROL_PLANES = tuple(PLANES)
"""All names in ``mesh: controller:`` that mean no machine of the fleet."""

KINDS = (*PLANES, CONTROLLER)
"""Every kind of control plane, by the name that :func:`open_plane` takes."""


def connect(spec: FleetSpec, settings: Mapping[str, Any], clock: Clock) -> ControlPlane:
    """Make ready to talk to the fleet's control plane; nothing is sent yet.

    Args:
        spec: a fleet with a ``mesh`` block.
        settings: ``token`` and ``endpoint`` that take the place of those in the file, and ``ssh``, the
            :class:`~.relay.SshTarget` of the machine that is the controller.
        clock: for waits and dates.

    Raises:
        FleetError: there is no mesh.
        AuthError: there is no token.
        Unreachable: nobody knows where the machine is that is the controller.
        MissingLibrary: requests is not installed.
    """
    mesh = spec.mesh
    if mesh is None:
        raise errors.FleetError(
            f"the fleet {spec.fleet} declares no mesh", hint="Add a mesh block to the fleet file"
        )
    token = settings.get("token") or (mesh.token.get_secret_value() if mesh.token else None)
    endpoint = settings.get("endpoint") or mesh.endpoint
    if mesh.controller in PLANES:
        return open_plane(mesh.controller, mesh.network, token, endpoint, clock)
    ssh = settings.get("ssh")
    if ssh is None and not endpoint:
        raise errors.Unreachable(
            f"{mesh.controller}, the controller of the network {mesh.network}, does not exist yet, or is not running",
            hint=f"Enable {mesh.controller} in the fleet file and create it, then run the same command again",
        )
    # The relay reads the token on the machine itself; one that is given is for an endpoint that is reached directly.
    return open_plane(CONTROLLER, mesh.network, None if ssh else token, endpoint, clock, ssh=ssh)


def open_plane(
    kind: str,
    network: str,
    token: str | None,
    endpoint: str | None,
    clock: Clock,
    *,
    ssh: SshTarget | None = None,
) -> ControlPlane:
    """Make ready to talk to a control plane; nothing is sent yet.

    Args:
        kind: one of :data:`KINDS`.
        network: id of the network, in either case.
        token: of the API. Not needed with ``ssh``.
        endpoint: base URL of the API, if it is not the usual one; with ``ssh`` as seen from that machine.
        clock: for waits and dates.
        ssh: the machine whose zerotier-one is the controller, if not this one.

    Raises:
        InvalidRequest: the network id is none, or the kind is not known.
        AuthError: there is no token, or it is not one.
        MissingLibrary: requests is not installed.
    """
    network = _network_id(network)
    if kind == CONTROLLER and ssh is not None:
        return zerotier_controller.open_relayed(network, ssh, endpoint, clock)
    if kind == CONTROLLER:
        return zerotier_controller.open_plane(network, _token(kind, token), endpoint, clock)
    if kind not in PLANES:
        raise errors.InvalidRequest(f"{kind} is no control plane; there are {', '.join(KINDS)}")
    return PLANES[kind](network, _token(kind, token), endpoint, clock)


def _network_id(network: str) -> str:
    try:
        network_number(network)
    except ValueError as exc:
        raise errors.InvalidRequest(
            f"{network!r} is no network id: {exc}",
            hint="Give the whole id: names are not unique, and a part of an id may be another network's",
        ) from exc
    return network.lower()


_NO_TOKEN = {
    CONTROLLER: (
        "there is no token for the controller",
        "Give the content of /var/lib/zerotier-one/authtoken.secret on the controller's machine, which root may read",
    ),
}


def _token(kind: str, token: str | None) -> str:
    """The token, without the white space a file or a shell leaves around it.

    Raises:
        AuthError: there is none, or it is not one.
    """
    missing = _NO_TOKEN.get(
        kind,
        (
            "there is no token for ZeroTier Central",
            "Set ZEROTIER_TOKEN, and in the fleet file `mesh: {token: \"{{ lookup('env', 'ZEROTIER_TOKEN') }}\"}`",
        ),
    )
    bare = (token or "").strip()
    if not bare:
        raise errors.AuthError(missing[0], hint=missing[1])
    if not re.fullmatch(r"[!-~]+", bare):
        what = "the controller" if kind == CONTROLLER else "ZeroTier Central"
        raise errors.AuthError(
            f"the token for {what} has characters that no token has",
            hint="Check how it was set",
        )
    return bare
