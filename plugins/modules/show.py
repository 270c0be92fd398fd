# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: show
short_description: Print lines of text as they are
description:
  - Prints a table so that people can read it. M(ansible.builtin.debug) prints data, and quotes, wraps and escapes it.
author: [gpumesh.fleet contributors (@gpumesh)]
extends_documentation_fragment:
  - gpumesh.fleet.attributes
  - gpumesh.fleet.attributes.actiongroup_all
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
options:
  lines:
    description: The lines, without line ends.
    type: list
    elements: str
    required: true
notes:
  - It has an action plugin and runs on the control machine.
"""

EXAMPLES = r"""
- name: Show the plan
  gpumesh.fleet.show:
    lines: "{{ plan.table }}"
"""

RETURN = r""" # """
