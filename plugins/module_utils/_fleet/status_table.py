# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet at the end of a run: one line a machine, with how far each layer came.

Pure. Works on the variables of hosts as the inventory and the layers' gates leave them.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .text_table import aligned

_GATE = re.compile(r"^__([a-z0-9_]+)_gate$")
_ORDER = (
    "base",
    "docker",
    "zerotier",
    "mesh_ssh",
    "nvidia_driver",
    "gpu_runtime",
    "ai_frameworks",
    "validation",
)
_COSTLESS = frozenset({"missing", "disabled", "unmanaged", "external"})


def lines(variables: Mapping[str, Mapping[str, Any]], hosts: Sequence[str]) -> list[str]:
    """The table.

    Args:
        variables: of each host.
        hosts: whom to show, in that order.
    """
    results = {host: _layers(variables[host]) for host in hosts}
    named = {layer for found in results.values() for layer in found}
    layers = [*(layer for layer in _ORDER if layer in named), *sorted(named - set(_ORDER))]
    rows = [["machine", "provider", "state", "address", *layers, "USD/hour"]]
    hourly_total = monthly_total = 0.0
    unknown = 0
    marked = False
    for host in hosts:
        its = variables[host]
        provider, state = str(its.get("fleet_provider", "")), str(its.get("fleet_state", ""))
        hourly = its.get("fleet_hourly_usd")
        charged = hourly is not None or state not in _COSTLESS
        if hourly is not None:
            hourly_total += float(hourly)
            monthly_total += float(its.get("fleet_monthly_usd") or 0.0)
        elif charged:
            unknown += 1
        is_simulated = bool(its.get("fleet_simulated"))
        marked = marked or is_simulated
        rows.append(
            [
                host,
                f"{provider} (SIMULATED)" if is_simulated else provider,
                state,
                str(its.get("ansible_host") or "-"),
                *(results[host].get(layer, "-") for layer in layers),
                "-" if not charged else "unknown" if hourly is None else f"{float(hourly):.4f}",
            ]
        )
    known = f"{hourly_total:.4f} USD per hour, {monthly_total:.2f} USD per month"
    table = aligned(rows, right=(len(rows[0]) - 1,))
    return [
        *table,
        f"Together {known}{f', and {unknown} of unknown price' if unknown else ''}.",
        *(
            ["SIMULATED machines are in a sandbox: no money is spent, and nothing measured there is real."]
            if marked
            else []
        ),
    ]


def _layers(variables: Mapping[str, Any]) -> dict[str, str]:
    """What the gates of this run said, by layer; for layers without one, what the host remembers."""
    local = (
        variables.get("ansible_local") or (variables.get("ansible_facts") or {}).get("ansible_local") or {}
    ) or {}
    remembered = ((local.get("gpumesh") or {}) if isinstance(local, Mapping) else {}).get("layers") or {}
    results = {str(layer): _remembered(facts) for layer, facts in remembered.items()}
    for name in list(variables):
        if match := _GATE.match(str(name)):
            word = _gate(variables[name])
            if word or match[1] not in results:
                results[match[1]] = word or "skipped"
    return results


def _remembered(facts: Any) -> str:
    """What a layer's facts say of it; one that judges and has not done so yet leaves an empty verdict."""
    waits = isinstance(facts, Mapping) and "verdict" in facts and facts["verdict"] is None
    return "deferred" if waits else "applied"


def _gate(result: Any) -> str | None:
    """A gate's verdict in a word or two; None if it was skipped.

    A gate is a program whose standard output is JSON, or the same as data.
    """
    if not isinstance(result, Mapping) or result.get("skipped"):
        return None
    try:
        said = result if "checks" in result else json.loads(result.get("stdout") or "")
        checks = said["checks"]
        failed = sum(1 for check in checks if not check["ok"])
    except (ValueError, KeyError, TypeError):
        return "no answer"
    return f"{failed} of {len(checks)} failed" if failed else f"ok ({len(checks)})"
