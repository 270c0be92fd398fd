# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a watch of the mesh would do, and how it is going. Each filter is documented in the YAML file of its name beside this one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._fleet.mesh import durations, watch_plan

LOOKED = "__mesh_watch_look"
"""The variable in which the role mesh_watch keeps what a host said of the watch."""


def _states(filter_name: str, variables: Any, hosts: Any, now: float) -> dict[str, watch_plan.State]:
    if not isinstance(variables, Mapping) or isinstance(hosts, str):
        raise AnsibleFilterError(f"{filter_name}: give it hostvars, and a list of hosts")
    states = {}
    for host in hosts:
        result = variables[host].get(LOOKED) if host in variables else None
        if not isinstance(result, Mapping) or "stdout" not in result:
            continue
        try:
            states[str(host)] = watch_plan.state(json.loads(result["stdout"]), now)
        except (ValueError, KeyError, TypeError) as exc:
            raise AnsibleFilterError(
                f"{filter_name}: {host} does not say of its watch what it should ({exc}); look at "
                "/var/lib/gpumesh/mesh-watch there"
            ) from exc
    return states


def mesh_watch_plan(
    variables: Any,
    hosts: Any,
    *,
    name: str,
    lasts: str,
    interval: str,
    peers: Mapping[str, str],
    most_megabytes: int,
) -> dict[str, Any]:
    """What starting a watch on these hosts would do."""
    now = time.time()
    states = _states("mesh_watch_plan", variables, hosts, now)
    wish = watch_plan.Wish(str(name), str(lasts), str(interval), int(most_megabytes))
    addresses = {str(peer): str(address) for peer, address in peers.items()}
    simulated = {host: _simulated(variables[host]) for host in states}
    plan = watch_plan.plan(wish, states, addresses, now, simulated=simulated)
    return {
        "problems": list(plan.problems),
        "does": dict(plan.does),
        "configs": {host: dict(config) for host, config in plan.configs.items()},
        "started": plan.started,
        "until": plan.until,
        "seconds": max(0, round(plan.until - now)),
        "lines": list(plan.lines),
    }


def mesh_watch_state(variables: Any, hosts: Any, *, name: str) -> dict[str, Any]:
    """How a watch is going on these hosts."""
    now = time.time()
    states = _states("mesh_watch_state", variables, hosts, now)
    here = [host for host, one in states.items() if one.config]
    return {
        "here": here,
        "sampled": [host for host in here if states[host].size],
        "going": [host for host in here if states[host].going(now)],
        "active": [host for host in here if states[host].active],
        "others": [host for host, one in states.items() if set(one.names) - {name}],
        "left": max(0, round(max((states[host].until - now for host in here), default=0.0))),
        "folder": watch_plan.folder(name, states),
        "progress": watch_plan.progress(states, now),
        "lines": watch_plan.status(name, states, now),
    }


def seconds(span: Any) -> int:
    """The seconds of a span of time."""
    try:
        return durations.seconds(str(span))
    except ValueError as exc:
        raise AnsibleFilterError(f"seconds: {exc}") from exc


def _simulated(its: Mapping[str, Any]) -> bool:
    return bool(its.get("fleet_simulated")) or bool((its.get("fleet_mesh_member") or {}).get("simulated"))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {
            "mesh_watch_plan": mesh_watch_plan,
            "mesh_watch_state": mesh_watch_state,
            "seconds": seconds,
        }
