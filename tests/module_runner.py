# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module's real ``main()`` in this process and gives back what it printed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any
from unittest import mock

from ansible.module_utils import basic

try:
    from ansible.module_utils.testing import patch_module_args
except ImportError:  # ansible-core 2.18

    @contextmanager
    def patch_module_args(args: dict[str, Any] | None = None) -> Iterator[None]:
        """Give these arguments to the module that is made in this context."""
        text = json.dumps({"ANSIBLE_MODULE_ARGS": args or {}}).encode()
        with mock.patch.object(basic, "_ANSIBLE_ARGS", text):
            yield


def run_module(main: Callable[[], None], /, *, check: bool = False, **params: Any) -> dict[str, Any]:
    """The result of the module with these arguments.

    Args:
        check: in check mode.
    """
    printed = io.StringIO()
    arguments = {**params, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": "/tmp"}
    with patch_module_args(arguments), redirect_stdout(printed):
        try:
            main()
        except SystemExit:
            return dict(json.loads(printed.getvalue()))
    raise AssertionError("the module ended without a result")
