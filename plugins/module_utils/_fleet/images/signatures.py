# SPDX-License-Identifier: GPL-3.0-or-later
"""Detached signatures by an SSH key, made and checked by ssh-keygen; the key is never read here.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .versions import ImageError

NAMESPACE = "gpumesh-image"
"""A signature for anything else, made with the same key, does not pass for one of an image."""


def sign(content: bytes, key: Path) -> bytes:
    """The signature of a content.

    Args:
        key: a private key without a passphrase, or a public key whose private key an SSH agent has.
    """
    done = _run(["-Y", "sign", "-q", "-n", NAMESPACE, "-f", str(key)], content)
    if done.returncode:
        raise ImageError(
            f"no signature could be made with {key}: {_said(done)}",
            hint="Give a private SSH key without a passphrase, readable by you alone, or the public key of one that your SSH agent has",
        )
    return done.stdout


def verify(content: bytes, signature: Path, allowed_signers: Path) -> str:
    """Who signed a content.

    Args:
        signature: the file with the signature.
        allowed_signers: whose signatures count, as described in ssh-keygen(1).
    """
    if not allowed_signers.is_file():
        raise ImageError(
            f"there is no file of allowed signers {allowed_signers}",
            hint="Write lines such as 'images@example.org ssh-ed25519 AAAA...' into it, or check no signatures",
        )
    if not signature.is_file():
        raise ImageError(
            f"there is no signature {signature}",
            hint="Build the image again with a signing key, or check no signatures",
        )
    files = ["-s", str(signature), "-f", str(allowed_signers)]
    found = _run(["-Y", "find-principals", *files], b"")
    principal = found.stdout.decode(errors="replace").strip().split("\n")[0].split(",")[0]
    if found.returncode or not principal:
        raise ImageError(
            f"{signature} is by nobody that {allowed_signers} names",
            hint="Add who signed it if you trust them, or take an image that was signed by one of these",
        )
    done = _run(["-Y", "verify", "-q", "-n", NAMESPACE, "-I", principal, *files], content)
    if done.returncode:
        raise ImageError(
            f"{signature} is not the signature of what it is beside: {_said(done)}",
            hint="Do not use this image; fetch it anew from where it was built, or build it again",
        )
    return principal


def _run(arguments: list[str], content: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run ssh-keygen where it has nobody to ask for a passphrase."""
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}
    environment.pop("SSH_ASKPASS", None)
    environment.pop("DISPLAY", None)
    try:
        return subprocess.run(  # noqa: S603
            ["ssh-keygen", *arguments],  # noqa: S607
            input=content,
            capture_output=True,
            check=False,
            env=environment,
            start_new_session=True,
            timeout=60,
        )
    except FileNotFoundError as exc:
        raise ImageError(
            "there is no ssh-keygen to sign with", hint="Install the client of OpenSSH, 8.2 or newer"
        ) from exc
    except subprocess.TimeoutExpired as exc:
        raise ImageError(
            "ssh-keygen did not end within 60 s", hint="Look whether the SSH agent waits for somebody"
        ) from exc


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """The line of ssh-keygen's that tells why."""
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip("@ ")]
    return lines[-1].rstrip(".") if lines else f"ssh-keygen ended with {done.returncode}"
