# SPDX-License-Identifier: GPL-3.0-or-later
"""What a real zerotier-one 1.14.1 was asked and what it answered, request by request.

Recorded from running daemons in network namespaces with no way out, in November 2026. All tokens in them are made up, and
the identities were of nodes that no longer exist.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .loopback import Answer

FOLDER = Path(__file__).parent / "fixtures" / "zerotier" / "recordings"
TOKEN = "FAKEfakeAUTHtoken0000000"
CONTROLLER = "0537bdcc75"


@dataclass(frozen=True)
class Recording:
    """One request and its answer.

    Attributes:
        status: None where there was no answer.
        body: JSON data, or text.
    """

    number: int
    name: str
    node: str
    method: str
    path: str
    request_headers: dict[str, str]
    sent: Any
    status: int | None
    headers: dict[str, str]
    body: Any

    @property
    def answer(self) -> Answer:
        """The answer, to be given again."""
        kind = {name: text for name, text in self.headers.items() if name == "Content-Type"}
        return Answer(self.status or 0, self.body, kind)

    def __str__(self) -> str:
        return f"{self.number:03d}-{self.name}"


@cache
def recordings() -> dict[int, Recording]:
    """All of them, by number."""
    return {found.number: found for found in map(_read, sorted(FOLDER.glob("[0-9]*.json"))) if found.number}


def _read(path: Any) -> Recording:
    data = json.loads(path.read_text("utf-8"))
    number = int(path.name[:3])
    if not number:
        return Recording(0, "index", "", "", "", {}, None, None, {}, None)
    request, response = data["request"], data["response"]
    return Recording(
        number=number,
        name=data["name"],
        node=data["node"],
        method=request["method"],
        path=request["path"],
        request_headers=request.get("headers", {}),
        sent=request.get("json", request.get("body_text")),
        status=response["status"],
        headers=response["headers"],
        body=response.get("json", response.get("body_text")),
    )
