# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with GPUs. The filter is documented in the YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._fleet.gpu import health
from ..module_utils._fleet.gpu.health_words import ExpectedError


def gpu_checks(gpu: Any, expected: Any = None) -> list[dict[str, Any]]:
    """Every check with its result and what to do."""
    if not isinstance(gpu, Mapping) or "devices" not in gpu:
        raise AnsibleFilterError("gpu_checks: give it the facts `gpu` that gpumesh.fleet.gpu_info returned")
    if expected is not None and not isinstance(expected, Mapping):
        raise AnsibleFilterError("gpu_checks: what is expected is a dict")
    try:
        return health.checks(gpu, expected or {})
    except ExpectedError as problem:
        raise AnsibleFilterError(f"gpu_checks: {problem}") from problem


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {"gpu_checks": gpu_checks}
