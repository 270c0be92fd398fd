# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of control planes: who can be asked about the mesh.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import FleetError
from . import zerotier_central_v1
from .base import ControlPlane

if TYPE_CHECKING:
    from ..clock import Clock
    from ..spec import FleetSpec, Mesh

PLANES: Mapping[str, Callable[[Mesh, Mapping[str, Any], Clock], ControlPlane]] = {
    "central_v1": zerotier_central_v1.connect,
}
"""By the name that ``mesh: controller:`` gives."""

CONTROL_PLANES = (*PLANES, "central_v2")
"""All names that mean no machine of the fleet: those of control planes this release cannot ask are kept, too."""


def connect(spec: FleetSpec, settings: Mapping[str, Any], clock: Clock) -> ControlPlane:
    """Make ready to talk to the fleet's control plane; nothing is sent yet.

    Args:
        spec: a fleet with a ``mesh`` block.
        settings: ``token`` and ``endpoint`` that take the place of those in the file.
        clock: for waits and dates.

    Raises:
        FleetError: there is no mesh, or its control plane is one this release cannot talk to.
        AuthError: there is no token.
        MissingLibrary: requests is not installed.
    """
    if spec.mesh is None:
        raise FleetError(
            f"the fleet {spec.fleet} declares no mesh", hint="Add a mesh block to the fleet file"
        )
    plane = PLANES.get(spec.mesh.controller)
    if plane is None:
        what = "the machine" if spec.mesh.controller in spec.machines else "the control plane"
        raise FleetError(
            f"this release cannot ask {what} {spec.mesh.controller} about the mesh; it knows {', '.join(PLANES)}",
            hint="Leave `controller` as it is if the mesh is run by hand, or use ZeroTier Central with `controller: central_v1`",
        )
    return plane(spec.mesh, settings, clock)
