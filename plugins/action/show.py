# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action behind the module gpumesh.fleet.show."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Print lines as they are, whatever the callback would make of them."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Print, and change nothing."""
        super().run(tmp, task_vars)
        _dummy, options = self.validate_argument_spec(
            {"lines": {"type": "list", "elements": "str", "required": True}}
        )
        self._display.display("\n".join(["", *options["lines"], ""]))
        return {"changed": False}
