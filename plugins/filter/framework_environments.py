# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The environments of the AI frameworks for a machine. Each filter is documented in the YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._fleet.gpu import frameworks_answer, sources, stack_request
from ..module_utils._fleet.gpu.frameworks_cpu import INDEX as CPU


def framework_environments(
    gpus: Any,
    wishes: Any = None,
    device: str = frameworks_answer.CUDA,
    driver: str = "",
    distribution: str = "ubuntu-24.04",
    kernel: str = "",
    secure_boot: Any = False,
    driver_wishes: Any = None,
    index_urls: Any = None,
    companions: Any = None,
    jupyter: Any = False,
    third_party: Any = False,
    libcuda: str = "",
    today: str = "",
) -> dict[str, Any]:
    """The environments, and what cannot be had."""
    if device not in (frameworks_answer.CUDA, CPU):
        raise AnsibleFilterError(f"framework_environments: device: {device!r} is neither cuda nor cpu")
    try:
        groups, strangers = ((), ()) if device == CPU else stack_request.read_gpus(gpus)
        wished = frameworks_answer.read_wishes(_mapping("wishes", wishes), device)
        request = stack_request.Request(
            gpus=groups,
            distribution=sources.canonical(str(distribution)),
            today=date.fromisoformat(today) if today else datetime.now(UTC).date(),
            kernels=(kernel,) if kernel else (),
            secure_boot=stack_request.read_flag("secure_boot", secure_boot),
            wishes=frameworks_answer.plain_wishes(_mapping("driver_wishes", driver_wishes), wished),
            strangers=strangers,
        )
    except (stack_request.WishError, ValueError) as exc:
        raise AnsibleFilterError(f"framework_environments: {exc}") from exc
    return frameworks_answer.answer(
        frameworks_answer.Question(
            request=request,
            device=device,
            driver=str(driver or ""),
            index_urls=_mapping("index_urls", index_urls),
            companions=_mapping("companions", companions),
            jupyter=stack_request.read_flag("jupyter", jupyter),
            third_party=stack_request.read_flag("third_party", third_party),
            libcuda=str(libcuda or ""),
        )
    )


def _mapping(name: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given or {}, Mapping):
        raise AnsibleFilterError(f"framework_environments: {name}: give a mapping")
    return given or {}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {"framework_environments": framework_environments}
