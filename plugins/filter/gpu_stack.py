# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The GPU stack for a machine, as data and as text. Each filter is documented in the YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._fleet.gpu import sources, stack, stack_answer, stack_request, stack_table


def _day(text: Any) -> date:
    if not text:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(str(text))
    except ValueError as exc:
        raise AnsibleFilterError(f"gpu_stack: today: {text!r} is no date such as 2026-11-27") from exc


def _kernels(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        given = given.split(",")
    if not isinstance(given, Sequence):
        raise AnsibleFilterError("gpu_stack: kernel: give one, or a list")
    kernels = tuple(dict.fromkeys(str(one).strip() for one in given if str(one).strip()))
    if strange := [one for one in kernels if not sources.kernel_numbers(one)]:
        raise AnsibleFilterError(f"gpu_stack: kernel: {', '.join(strange)} is none, as uname -r has it")
    return kernels


def gpu_stack(
    gpus: Any,
    distribution: str = "ubuntu-24.04",
    kernel: Any = "",
    secure_boot: Any = False,
    wishes: Any = None,
    today: str = "",
) -> dict[str, Any]:
    """The stack, or the refusal."""
    try:
        groups, strangers = stack_request.read_gpus(gpus)
        request = stack_request.Request(
            gpus=groups,
            distribution=sources.canonical(str(distribution)),
            today=_day(today),
            kernels=_kernels(kernel),
            secure_boot=stack_request.read_flag("secure_boot", secure_boot),
            wishes=stack_request.read_wishes(wishes or {}),
            strangers=strangers,
        )
    except stack_request.WishError as exc:
        raise AnsibleFilterError(f"gpu_stack: {exc}") from exc
    return stack_answer.plain(stack.resolve(request))


def gpu_stack_table(answer: Any) -> list[str]:
    """The same for people."""
    if not isinstance(answer, Mapping) or "refusals" not in answer:
        raise AnsibleFilterError("gpu_stack_table: give it what gpu_stack made")
    return stack_table.lines(answer)


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Their names."""
        return {"gpu_stack": gpu_stack, "gpu_stack_table": gpu_stack_table}
