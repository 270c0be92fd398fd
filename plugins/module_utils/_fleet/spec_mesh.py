# SPDX-License-Identifier: GPL-3.0-or-later
"""What must agree between a fleet file's mesh and its machines, which no model sees alone.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from . import addresses
from .mesh import CONTROL_PLANES
from .spec import MachineBase, did_you_mean


def problems(
    controller: object,
    network: object,
    machines: Mapping[str, MachineBase],
    declared: Collection[str],
    nodes: Mapping[str, str],
) -> Iterator[tuple[str, str | None, str]]:
    """Whether the controller is somebody who can be one, and is the node that the network id names.

    Args:
        controller, network: as the file has them; what is wrong with each alone is said elsewhere.
        machines: those that were understood, by name.
        declared: the names of all that are declared.
        nodes: the machines by their declared ZeroTier nodes.

    Yields:
        Each problem's field, the machine the field is of (None: the field is of the mesh), and the problem.
    """
    if not isinstance(controller, str):
        return
    node = _node(network)
    owner = nodes.get(node) if node else None
    machine = machines.get(controller)
    if owner is not None and owner != controller:
        # A network belongs to the node its id begins with, so nobody else can have a say in it.
        yield (
            "controller",
            None,
            f"the network belongs to the node {node}, which is '{owner}'; name that machine",
        )
    elif controller in CONTROL_PLANES:
        return
    elif controller not in declared:
        choices = [*CONTROL_PLANES, *declared]
        yield "controller", None, f"there is no machine '{controller}'{did_you_mean(controller, choices)}"
    elif machine is None:
        return  # What is wrong with it is said already.
    elif machine.provider == "external":
        message = f"'{controller}' is external, so Ansible cannot reach a controller on it; name a machine that is not"
        yield "controller", None, message
    elif not machine.enabled:
        message = f"'{controller}' is not enabled, so nobody could admit members; enable it, or name another controller"
        yield "controller", None, message
    elif node and machine.node_id and machine.node_id != node:
        message = (
            f"{machine.node_id} is not the controller of the mesh, whose network id begins with {node}; "
            "correct one of the two"
        )
        yield "node_id", controller, message


def _node(network: object) -> str | None:
    """The node a network id names, if it is one."""
    try:
        return addresses.controller(network) if isinstance(network, str) else None
    except ValueError:
        return None
