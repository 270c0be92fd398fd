# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures by real keys."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import signatures
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.versions import ImageError

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="there is no ssh-keygen here")


def key(folder: Path, name: str = "key", passphrase: str = "") -> Path:
    """A new private key."""
    path = folder / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", path],
        check=True,
        timeout=60,
    )
    return path


def signers(folder: Path, *keys: Path, restriction: str = "") -> Path:
    path = folder / "signers"
    path.write_text(
        "".join(
            f"{each.name}@example.org {restriction}{each.with_suffix('.pub').read_text()}" for each in keys
        )
    )
    return path


def signed(folder: Path, content: bytes, private: Path) -> Path:
    path = folder / "content.sig"
    path.write_bytes(signatures.sign(content, private))
    return path


def test_what_was_signed_has_a_signer(tmp_path: Path) -> None:
    own = key(tmp_path)
    signature = signed(tmp_path, b"content", own)
    other = key(tmp_path, "other")
    assert signatures.verify(b"content", signature, signers(tmp_path, other, own)) == "key@example.org"


def test_what_was_changed_is_refused(tmp_path: Path) -> None:
    own = key(tmp_path)
    signature = signed(tmp_path, b"content", own)
    with pytest.raises(ImageError, match=r"is not the signature of what it is beside: .*incorrect signature"):
        signatures.verify(b"Content", signature, signers(tmp_path, own))


def test_the_key_of_somebody_else_is_refused(tmp_path: Path) -> None:
    signature = signed(tmp_path, b"content", key(tmp_path))
    with pytest.raises(ImageError, match=r"content\.sig is by nobody that .*signers names"):
        signatures.verify(b"content", signature, signers(tmp_path, key(tmp_path, "other")))


def test_a_signature_for_something_else_is_refused(tmp_path: Path) -> None:
    own, text = key(tmp_path), tmp_path / "text"
    text.write_bytes(b"content")
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", own, text], check=True, timeout=60)
    with pytest.raises(ImageError, match="is not the signature of what it is beside"):
        signatures.verify(b"content", tmp_path / "text.sig", signers(tmp_path, own))


def test_a_signer_who_may_sign_other_things_only_is_refused(tmp_path: Path) -> None:
    own = key(tmp_path)
    signature = signed(tmp_path, b"content", own)
    with pytest.raises(ImageError):
        signatures.verify(b"content", signature, signers(tmp_path, own, restriction='namespaces="git" '))


def test_what_is_no_signature_is_refused(tmp_path: Path) -> None:
    (tmp_path / "content.sig").write_text("rubbish")
    with pytest.raises(ImageError, match="is by nobody"):
        signatures.verify(b"content", tmp_path / "content.sig", signers(tmp_path, key(tmp_path)))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"there is no file of allowed signers .*/signers\. Write lines such as"
    ):
        signatures.verify(b"content", tmp_path / "content.sig", tmp_path / "signers")
    (tmp_path / "signers").write_text("")
    with pytest.raises(ImageError, match=r"there is no signature .*/content\.sig"):
        signatures.verify(b"content", tmp_path / "content.sig", tmp_path / "signers")


@pytest.mark.parametrize("wrong", ["absent", "passphrase", "rubbish"])
def test_a_key_that_cannot_be_used_is_named_and_nobody_is_asked(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "absent"
    if wrong == "passphrase":
        path = key(tmp_path, passphrase="correct horse")
    elif wrong == "rubbish":
        path.write_text("rubbish")
        path.chmod(0o600)
    with pytest.raises(
        ImageError, match=rf"no signature could be made with {path}: .+\. Give a private SSH key"
    ):
        signatures.sign(b"content", path)


def test_nobody_is_asked_for_a_passphrase_at_a_terminal_either(tmp_path: Path) -> None:
    path = key(tmp_path, passphrase="correct horse")
    child, terminal = pty.fork()
    if child == 0:
        try:
            signatures.sign(b"content", path)
        except ImageError:
            os._exit(0)
        os._exit(1)
    shown = b""
    # A terminal whose last user is gone cannot be read: https://man7.org/linux/man-pages/man4/pts.4.html
    with contextlib.suppress(OSError):
        while (read := os.read(terminal, 1024)) and b"passphrase" not in shown:
            shown += read
    os.close(terminal)
    assert (os.waitpid(child, 0)[1], shown) == (0, b"")


def test_a_machine_without_ssh_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    with pytest.raises(ImageError, match="Install the client of OpenSSH"):
        signatures.sign(b"content", tmp_path / "key")
