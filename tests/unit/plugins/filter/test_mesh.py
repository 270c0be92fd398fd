# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh filters, as a template uses them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import filter_loader

NODE, NETWORK = "8046d53400", "db4344343b14b903"


def run(name: str, *arguments: Any, **options: Any) -> Any:
    return filter_loader.get(f"gpumesh.fleet.{name}").j2_function(*arguments, **options)


def test_an_address_in_each_form() -> None:
    assert run("mesh_address", NODE, NETWORK) == "fddb:4344:343b:14b9:399:9380:46d5:3400"
    assert run("mesh_address", NODE, NETWORK, prefix=True) == "fddb:4344:343b:14b9:399:9380:46d5:3400/88"
    assert run("mesh_address", NODE, NETWORK, form="6plane") == "fce0:57fd:3780:46d5:3400::1"


def test_the_controller() -> None:
    assert run("mesh_controller", NETWORK) == "db4344343b"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mesh_address", ("xyz", NETWORK), "a ZeroTier node id has 10 hexadecimal digits"),
        ("mesh_address", (NODE, 5), "a ZeroTier network id has 16 hexadecimal digits"),
        ("mesh_address", (NODE, NETWORK, "ipv4"), "form is rfc4193 or 6plane, not ipv4"),
        ("mesh_controller", ("",), "a ZeroTier network id has 16 hexadecimal digits"),
    ],
)
def test_what_is_no_id_is_one_sentence(name: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(AnsibleError, match=message):
        run(name, *arguments)
