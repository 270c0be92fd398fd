# SPDX-License-Identifier: GPL-3.0-or-later
"""The rescue system: asked for with an action, and booted once at the next start."""

from __future__ import annotations

import secrets

from ..world import World
from .api import Answer, Call, Handler
from .errors import invalid, not_found
from .project import Server
from .server_actions import begin


async def enable(call: Call) -> Answer:
    if call.body.get("type", "linux64") != "linux64":
        raise invalid("type", "only linux64 is known")
    wanted = call.body.get("ssh_keys") or []
    if not isinstance(wanted, list):
        raise invalid("ssh_keys", "must be an array")
    known = call.project.ssh_keys
    for number in wanted:
        if number not in known:
            raise not_found("SSH key", number)
    keys = tuple(known[number]["public_key"] for number in wanted)

    async def work(world: World, server: Server) -> None:
        server.rescue_keys = keys

    answer = begin(call, "enable_rescue", "enable_rescue", "", work)
    status, content = answer if isinstance(answer, tuple) else (201, answer)
    return status, {**(content or {}), "root_password": secrets.token_urlsafe(15)}


async def disable(call: Call) -> Answer:
    async def work(world: World, server: Server) -> None:
        server.rescue_keys = None

    return begin(call, "disable_rescue", "disable_rescue", "", work)


STARTERS: dict[str, Handler] = {"enable_rescue": enable, "disable_rescue": disable}
