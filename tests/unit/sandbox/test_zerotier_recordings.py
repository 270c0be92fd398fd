# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox's stand-in for ZeroTier One answers every recorded request as the real daemon did."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.zerotier_one.web import Response
from tests.unit.sandbox.zerotier_replay import FOLDER, Outcome, Recording, load, outcomes

SKIPPED = {
    31: "metrics are not simulated",
    465: "members came back between two requests, by what was not recorded",
}
_VOLATILE = {
    # Moments.
    "clock", "creationTime", "lastAuthorizedTime", "lastDeauthorizedTime", "lastReceive", "lastSend",
    # What a daemon finds on its machine.
    "homeDir", "listeningOn", "surfaceAddresses", "secondaryPort", "localSocket", "latency", "multicastSubscriptions",
}  # fmt: skip
_PARSE_ERROR = "[json.exception.parse_error.101] parse error at line 1, column "


def comparable(value: Any, name: str = "") -> Any:
    """Without what differs from run to run: of a moment, whether there was one."""
    if name in _VOLATILE:
        return value not in (0, -1, None) if name.endswith("Time") else "..."
    if isinstance(value, dict):
        return {key: comparable(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    if isinstance(value, str) and value.startswith(_PARSE_ERROR):
        return _PARSE_ERROR
    return value


def of_peers(peers: list[Any]) -> Any:
    """What kinds of peers are listed, with which fields. A real node has a path for each of its two sockets."""
    return {
        (
            peer["role"],
            peer["version"],
            tuple(sorted(peer)),
            tuple(sorted({key for path in peer["paths"] for key in path})),
        )
        for peer in peers
        if peer["paths"]
    }


def content(recording: Recording, kind: str, text: str) -> Any:
    """An answer's body in a form that can be compared."""
    if kind != "application/json":
        return re.sub(r'"clock":\d+', "", text)
    try:
        parsed = json.loads(text)
    except ValueError:
        return "no JSON although it says so"
    path = recording.request["path"]
    if path.startswith("/peer") and parsed:
        return of_peers(parsed if isinstance(parsed, list) else [parsed])
    if path.startswith("/unstable") and path.endswith("/member"):
        # In no order; one recording was cut to three members.
        listed = parsed["data"][:0] if recording.number == 601 else parsed["data"]
        parsed["data"] = sorted(listed, key=lambda member: member["id"])
    return comparable(parsed)


def recorded(recording: Recording) -> tuple[int, str, Any]:
    """Status, content type and body of the real answer."""
    response = recording.response
    kind = response["headers"].get("Content-Type", "")
    text = json.dumps(response["json"]) if "json" in response else response.get("body_text", "")
    return (
        response["status"],
        kind,
        "" if recording.request["method"] == "HEAD" else content(recording, kind, text),
    )


def answered(recording: Recording, answer: Response) -> tuple[int, str, Any]:
    """The same of the stand-in's."""
    head = recording.request["method"] == "HEAD"
    return answer.status, answer.kind, "" if head else content(recording, answer.kind, answer.body.decode())


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Outcome]]:
    if not FOLDER.is_dir():
        pytest.skip(f"the recordings are not here: {FOLDER}")
    found = outcomes(
        tmp_path_factory.mktemp("homes"), set(SKIPPED), lambda r, a: recorded(r) == answered(r, a)
    )
    yield {outcome.recording.number: outcome for outcome in found}


@pytest.mark.parametrize("recording", load(), ids=lambda recording: f"{recording.number:03}-{recording.name}")
def test_it_answers_as_the_real_daemon_did(replayed: dict[int, Outcome], recording: Recording) -> None:
    if recording.number in SKIPPED:
        pytest.skip(SKIPPED[recording.number])
    answer = replayed[recording.number].answer
    assert answered(recording, answer) == recorded(recording)
