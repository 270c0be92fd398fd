# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that replace and publish host keys on a machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback import Answer, Server

FILES = Path(__file__).parents[3] / "roles" / "first_contact" / "files"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FILES / name), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def make(folder: Path, kind: str) -> str:
    key = folder / f"ssh_host_{kind}_key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(key)], check=True)
    return key.with_suffix(".pub").read_text()


def test_keys_of_other_kinds_are_renewed_where_there_are_any(tmp_path: Path) -> None:
    ed25519, ecdsa = make(tmp_path, "ed25519"), make(tmp_path, "ecdsa")
    # Left over from a run that was killed.
    (tmp_path / "gpumesh_next_host_ecdsa_key").write_text("half a key")
    done = run("renew_host_keys.py", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["ecdsa"]
    key = tmp_path / "ssh_host_ecdsa_key"
    public = key.with_suffix(".pub").read_text()
    assert public != ecdsa
    assert (tmp_path / "ssh_host_ed25519_key.pub").read_text() == ed25519
    assert key.stat().st_mode & 0o777 == 0o600
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(key)], check=True, capture_output=True, text=True
    ).stdout
    assert derived.split()[:2] == public.split()[:2]
    assert not list(tmp_path.glob("gpumesh*"))


def test_every_public_key_becomes_a_guest_attribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [make(tmp_path, kind).split() for kind in ("ecdsa", "ed25519")]
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Server(lambda _seen: Answer()).running() as google:
        done = run("publish_host_keys_gcp.py", google.url, str(tmp_path))
    assert done.returncode == 0, done.stderr
    attributes = "/computeMetadata/v1/instance/guest-attributes/hostkeys"
    assert google.calls == [f"PUT {attributes}/{kind}" for kind, *_rest in keys]
    assert [seen.body for seen in google.seen] == [key for _kind, key, *_comment in keys]
    assert {seen.headers["metadata-flavor"] for seen in google.seen} == {"Google"}


def test_what_keeps_a_key_from_being_published_is_one_sentence(tmp_path: Path) -> None:
    make(tmp_path, "ed25519")
    with Server(lambda _seen: Answer(403)).running() as google:
        refused = run("publish_host_keys_gcp.py", google.url, str(tmp_path))
    closed = run("publish_host_keys_gcp.py", google.url, str(tmp_path))
    assert (refused.returncode, closed.returncode) == (1, 1)
    assert refused.stderr == "HTTPError: HTTP Error 403: Forbidden\n"
    assert "Connection refused" in closed.stderr and closed.stderr.count("\n") == 1
