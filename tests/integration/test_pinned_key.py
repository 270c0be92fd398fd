# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that fetches a repository's key, against a server on loopback: what is not the pinned key is refused, and why is said."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._host.pinned_key import keys_in
from ansible_collections.gpumesh.fleet.plugins.modules import pinned_key

from sandbox.openpgp import SigningKey
from tests.loopback import Answer, Server, closed_port, script
from tests.module_runner import run_module

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("gpg") is None, reason="there is no gpg here"),
]

OURS = SigningKey(b"a" * 32, "Agate <agate@vendor.example>")
STRANGER = SigningKey(b"b" * 32, "Beryl <beryl@vendor.example>")
HTML = "<!DOCTYPE html><html><body>Please log in.</body></html>"


@pytest.fixture
def serve() -> Iterator[Any]:
    """Starts a server that gives one answer; its address."""
    with ExitStack() as servers:

        def start(answer: Answer) -> str:
            server = servers.enter_context(Server(script(answer)).running())
            return f"{server.url}/key.asc"

        yield start


@contextmanager
def says(server: socket.socket, answer: bytes) -> Iterator[None]:
    """The server says so much to whoever connects, and no more."""
    silence = threading.Event()

    def talk() -> None:
        connection, _address = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)
            silence.wait()

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        yield
    finally:
        silence.set()
        talker.join()


def fetch(url: str, /, **params: Any) -> dict[str, Any]:
    """The result of the module, with our key pinned."""
    wanted = {"fingerprints": [OURS.fingerprint], "variable": "minerals_key_fingerprint", **params}
    return run_module(pinned_key.main, url=url, **wanted)


@pytest.mark.parametrize("check", [False, True])
def test_the_pinned_key_is_fetched_and_nothing_changes(serve: Any, check: bool) -> None:
    result = fetch(serve(Answer(200, OURS.public())), check=check)
    assert keys_in(result["content"].encode()).fingerprints == [OURS.fingerprint]
    # Other words around the same key are no change.
    assert fetch(serve(Answer(200, f"A note\n{OURS.public()}")))["content"] == result["content"]
    assert result["changed"] is False


def test_a_key_in_a_file_is_taken_as_well(tmp_path: Path) -> None:
    file = tmp_path / "key.asc"
    file.write_text(OURS.public())
    assert keys_in(fetch(file.as_uri())["content"].encode()).fingerprints == [OURS.fingerprint]
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = fetch((tmp_path / "key.asc").as_uri())
    assert result["failed"]
    assert "could not be fetched, so nothing was added" in result["msg"]
    assert "No such file" in result["msg"]


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("body", "holds"),
    [
        (STRANGER.public(), f"the key {STRANGER.fingerprint}"),
        (OURS.public() + STRANGER.public(), f"the key {OURS.fingerprint} and {STRANGER.fingerprint}"),
        (HTML, "no key"),
        ("", "no key"),
    ],
    ids=["stranger", "both", "html", "empty"],
)
def test_what_is_not_the_pinned_key_is_refused(serve: Any, body: str, holds: str, check: bool) -> None:
    url = serve(Answer(200, body))
    result = fetch(url, check=check)
    assert result["failed"]
    assert result["msg"] == (
        f"What is at {url} holds {holds}, and {OURS.fingerprint} is pinned, so nothing was added. Change "
        "minerals_key_fingerprint only after the vendor has announced a new key."
    )
    assert "content" not in result


@pytest.mark.parametrize("status", [404, 500])
def test_an_answer_that_is_an_error_is_told_even_if_a_key_comes_with_it(serve: Any, status: int) -> None:
    url = serve(Answer(status, OURS.public()))
    result = fetch(url)
    assert result["failed"]
    assert result["msg"].startswith(f"{url} could not be fetched, so nothing was added: HTTP Error {status}")


def test_a_file_that_breaks_off_is_refused(serve: Any) -> None:
    result = fetch(serve(Answer(200, OURS.public() + "\n" * 5000, cut=True)))
    assert result["failed"]
    assert "broke off after" in result["msg"]


def test_what_is_longer_than_any_key_file_is_refused(serve: Any) -> None:
    result = fetch(serve(Answer(200, OURS.public() + "\n" * 2_000_000)))
    assert "is longer than 1048576 bytes, so it is no key file" in result["msg"]


def test_a_silent_server_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/key.asc"
        result = fetch(url, timeout=0.1)
    assert result["failed"]
    assert result["msg"].startswith(f"{url} could not be fetched, so nothing was added: ")
    assert "timed out" in result["msg"]


def test_a_server_that_falls_silent_in_the_middle_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/key.asc"
        with says(server, b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n-----BEGIN"):
            result = fetch(url, timeout=0.1)
    assert result["msg"] == f"{url} could not be fetched within 0.1 seconds, so nothing was added."


def test_a_server_that_is_not_there_is_told() -> None:
    result = fetch(f"http://127.0.0.1:{closed_port()}/key.asc")
    assert "could not be fetched, so nothing was added" in result["msg"]
    assert "refused" in result["msg"]


def test_without_gpg_check_mode_skips_and_says_so(serve: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = fetch(serve(Answer(200, OURS.public())), check=True)
    assert result["skipped"]
    assert "There is no gpg on this machine yet" in result["msg"]
    assert "content" not in result
    result = fetch(serve(Answer(200, OURS.public())))
    assert result["failed"]
    assert "gpg cannot be run" in result["msg"]


def test_without_gpg_check_mode_still_finds_a_wrong_address(
    serve: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fetch(serve(Answer(404)), check=True)["failed"]
