# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What acceptance runs came to, as a table. The filter is documented in the YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._fleet.text_table import aligned

RESULT = "__validation_result"
_HEAD = ("machine", "verdict", "coverage", "failed or not proved", "report")
_MOST_NAMES = 4


def acceptance_table(variables: Any, hosts: Any) -> list[str]:
    """A line a machine, and below it what to do about what failed."""
    if not isinstance(variables, Mapping):
        raise AnsibleFilterError("acceptance_table: give it hostvars")
    if isinstance(hosts, str) or not isinstance(hosts, Sequence):
        raise AnsibleFilterError("acceptance_table: name the hosts in a list")
    if absent := [host for host in hosts if host not in variables]:
        raise AnsibleFilterError(f"acceptance_table: no host is named {', '.join(map(str, absent))}")
    results = {str(host): variables[host].get(RESULT) for host in hosts}
    lines = aligned([_HEAD, *(_row(host, result) for host, result in results.items())])
    for host, result in results.items():
        if result and result["bad"]:
            lines += ["", f"{host}: {result['says']}"]
            lines += [f"  {_sentence(check)}" for check in result["bad"]]
    return lines


def _row(host: str, result: Any) -> tuple[str, ...]:
    if not result:
        return (host, "none", "-", "it made no run that came to its end; see above", "-")
    verdict = " ".join(filter(None, (result["verdict"], result["label"])))
    names = [str(check["name"]) for check in result["bad"]]
    shown = ", ".join(names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        shown += f" and {len(names) - _MOST_NAMES} more"
    return (host, verdict, result["coverage"], shown or "-", result["report"] or "-")


def _sentence(check: Mapping[str, Any]) -> str:
    made = "was not made" if check["verdict"] == "SKIP" else check["verdict"]
    advice = str(check["advice"])
    return f"{check['name']} {made}: {check['says']}." + (
        f" {advice[:1].upper()}{advice[1:]}." if advice else ""
    )


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """By name."""
        return {"acceptance_table": acceptance_table}
