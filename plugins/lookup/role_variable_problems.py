# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: role_variable_problems
short_description: Find misspelt and impossible role variables before a role runs
description:
  - Ansible ignores a variable that nothing reads, so a misspelt role variable in an inventory silently leaves the
    default in place. This lookup compares all variables of a host that begin with the name of a role of this
    collection with the argument specification of that role, and returns one sentence for each problem.
  - It also checks the values of those variables, as far as they can be templated before facts are gathered.
author: [gpumesh.fleet contributors (@gpumesh)]
options:
  _terms:
    description: Names of roles. Without any, all roles of the collection.
    type: list
    elements: str
  foreign:
    description:
      - Names of variables that begin like one of ours and belong to somebody else, as shell patterns.
    type: list
    elements: str
    default: []
    vars:
      - name: fleet_foreign_variables
"""

EXAMPLES = r"""
- name: Refuse misspelt variables
  ansible.builtin.assert:
    that: __problems | length == 0
    fail_msg: "{{ __problems }}"
  vars:
    __problems: "{{ query('gpumesh.fleet.role_variable_problems') }}"
"""

RETURN = r"""
_raw:
  description: The problems, one sentence each. Empty if there are none.
  type: list
  elements: str
  sample: ["base_firewal_rules: the role base has no such variable; did you mean base_firewall_rules?"]
"""

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.lookup import LookupBase

ROLES = Path(__file__).resolve().parents[2] / "roles"
# What a specification says about an option for people, and the validator does not know.
PROSE = ("description", "version_added")

Options = dict[str, dict[str, Any]]


def specifications(directory: Path) -> dict[str, Options]:
    """The options of each role's main entry point."""
    found = {}
    for path in sorted(directory.glob("*/meta/argument_specs.yml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        found[path.parent.parent.name] = document["argument_specs"]["main"].get("options", {})
    return found


def owner(variable: str, roles: Iterable[str]) -> str | None:
    """The role a variable belongs to by its prefix; the longest, since mesh_ssh_x is not mesh's."""
    owners = [role for role in roles if variable.startswith(f"{role}_")]
    return max(owners, key=len, default=None)


def misspelt(
    variables: Iterable[str], roles: Mapping[str, Options], foreign: Iterable[str] = ()
) -> list[str]:
    """A sentence for each variable that begins like a role's and that the role does not have."""
    patterns = list(foreign)
    problems = []
    for variable in sorted(variables):
        role = owner(variable, roles)
        if role is None or variable in roles[role]:
            continue
        if any(fnmatch.fnmatchcase(variable, pattern) for pattern in patterns):
            continue
        near = difflib.get_close_matches(variable, roles[role], n=1, cutoff=0.6)
        advice = (
            f"did you mean {near[0]}?"
            if near
            else f"'ansible-doc --type role gpumesh.fleet.{role}' lists them; if it is not meant for this role, "
            "add it to fleet_foreign_variables."
        )
        problems.append(f"{variable}: the role {role} has no such variable; {advice}")
    return problems


def _for_validator(options: Options) -> Options:
    plain = {}
    for name, option in options.items():
        kept = {key: value for key, value in option.items() if key not in PROSE}
        if "options" in kept:
            kept["options"] = _for_validator(kept["options"])
        plain[name] = kept
    return plain


def impossible(values: Mapping[str, Any], options: Options) -> list[str]:
    """A sentence for each value that its option does not take."""
    problems = []
    for variable, value in sorted(values.items()):
        result = ArgumentSpecValidator(_for_validator({variable: options[variable]})).validate(
            {variable: value}
        )
        problems += [f"{variable}: {message}" for message in result.error_messages]
    return problems


class LookupModule(LookupBase):
    """The variables of the host at hand against the specifications of the roles."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        roles = specifications(ROLES)
        unknown = [term for term in terms if term not in roles]
        if unknown:
            raise AnsibleError(f"no role {', '.join(unknown)}; there are {', '.join(sorted(roles))}")
        given = variables or {}
        checked = terms or list(roles)
        ours = [name for name in given if owner(name, roles) in checked]
        problems = misspelt(ours, roles, self.get_option("foreign"))
        for role in checked:
            values = {}
            for name in ours:
                if name not in roles[role]:
                    continue
                try:
                    values[name] = self._templar.template(given[name])
                except AnsibleError:
                    # It needs what is only known later, such as facts; the role checks it when it runs.
                    continue
            problems += impossible(values, roles[role])
        return problems
