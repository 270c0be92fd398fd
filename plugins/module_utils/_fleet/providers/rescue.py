# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine in its rescue system, over SSH: proved to be that machine, then given a new disk content.

Nobody vouches for the host key of a rescue system: it is made at each boot, and the cloud does not tell it. But the disk
of the machine holds a host key that we planted there ourselves. So the key that the rescue system shows is taken down
without logging in, we connect to that key and no other, and let whoever is there sign, with the planted key, which host
key we see. Somebody in between would have to show a key of their own, and has nothing to sign that with: the login is by
public key, which is bound to the connection it is made on, so it cannot be passed on to the real machine.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .. import errors
from . import rescue_script
from .raw_source import RawSource

if TYPE_CHECKING:
    from ..clock import Clock

_PAUSE = 2.0
"""Seconds between two looks for a system that is starting."""

_ONE_TRY = 60.0
"""Seconds one short command may take."""

_SCRIPT = "/run/gpumesh-image.sh"
_KEY = re.compile(r"^\S+ (ssh-ed25519 [A-Za-z0-9+/]+=*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are to the machine: a key pair for this one time.

    Attributes:
        path: of the private key, readable by us alone.
        public: ``ssh-ed25519 AAAA...``.
    """

    path: Path = field(repr=False)
    public: str


class Remote:
    """A system that is reached by SSH under one host key and no other.

    Args:
        folder: for its known_hosts file.
        machine: what to call it in messages.
    """

    def __init__(
        self, folder: Path, machine: str, address: str, user: str, host_key: str, identity: Identity
    ) -> None:
        self.host_key = host_key
        self._machine = machine
        self._address = address
        known = folder / f"known_hosts.{fingerprint(host_key).replace('/', '_')[7:19]}"
        known.write_text(f"machine {host_key}\n")
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(known),
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": "machine",
            "HostKeyAlgorithms": "ssh-ed25519",
            "UpdateHostKeys": "no",
            "IdentityFile": str(identity.path),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "PreferredAuthentications": "publickey",
            "ControlPath": "none",
            "ConnectTimeout": "10",
            "ServerAliveInterval": "10",
            "ServerAliveCountMax": "6",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        self._ssh = ["ssh", "-T", "-F", "none", *words, "-l", user, "--", address]

    def run(self, doing: str, words: Sequence[str], data: bytes = b"", *, seconds: float = _ONE_TRY) -> str:
        """What a command says there.

        Args:
            doing: for the error.
            seconds: how long it may take.
        """
        try:
            done = subprocess.run(  # noqa: S603 - the arguments are a list, and the host follows a --
                [*self._ssh, shlex.join(words)],
                input=data,
                capture_output=True,
                check=False,
                timeout=seconds,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise errors.WaitTimeout(
                f"{doing} had not ended after {seconds:.0f} s", machine=self._machine
            ) from None
        except OSError as exc:
            raise _no_client(self._machine, "ssh") from exc
        return self._judged(doing, done.returncode, done.stdout, done.stderr)

    def feed(
        self, doing: str, words: Sequence[str], source: RawSource, program: str, *, seconds: float
    ) -> None:
        """Run a command there on a disk image.

        Args:
            program: what will unpack it there; it is packed anew where it is packed otherwise.
        """
        with source.packed_for(program) as stream:
            try:
                process = subprocess.Popen(  # noqa: S603
                    [*self._ssh, shlex.join(words)],
                    stdin=stream,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as exc:
                raise _no_client(self._machine, "ssh") from exc
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                raise errors.WaitTimeout(
                    f"{doing} had not ended after {seconds:.0f} s",
                    machine=self._machine,
                    hint="Raise transfer_timeout, or use a faster line to the cloud",
                ) from None
            finally:
                _end(process)
        self._judged(doing, process.returncode, out, err)

    def _judged(self, doing: str, status: int, out: bytes, err: bytes) -> str:
        said = err.decode(errors="replace").strip()
        if status == 0:
            return out.decode(errors="replace")
        last = said.splitlines()[-1].removeprefix("gpumesh: ") if said else f"it ended with status {status}"
        if "Host key verification failed" in said or "HOST IDENTIFICATION HAS CHANGED" in said:
            raise errors.Conflict(
                f"{doing}: {self._address} shows another SSH host key than the expected one",
                machine=self._machine,
                hint="Somebody may be in between, or the address has another machine; nothing was sent. Try again later",
            )
        if status == 255:
            raise errors.Unreachable(
                f"{doing}: {self._address} cannot be reached over SSH: {last}",
                machine=self._machine,
                hint="Check that its SSH port can be reached from here, then run the same task again",
            )
        raise errors.OperationFailed(
            f"{doing} failed: {last}",
            machine=self._machine,
            details=said or None,
            hint="Run the same task again",
        )

    def wait(self, clock: Clock, doing: str, words: Sequence[str], timeout: float) -> str:
        """What a command says there, once the system answers.

        Args:
            timeout: seconds.
        """
        end = clock.now() + timeout
        while True:
            try:
                return self.run(doing, words, seconds=max(_ONE_TRY, end - clock.now()))
            except errors.Unreachable:
                if clock.now() >= end:
                    raise
            clock.sleep(_PAUSE)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _no_client(machine: str, program: str) -> errors.FleetError:
    return errors.MissingLibrary(
        f"{program} cannot be started here",
        machine=machine,
        hint="Install the OpenSSH client on this machine",
    )


def fingerprint(host_key: str) -> str:
    """A host key as people compare them: ``SHA256:...``."""
    digest = hashlib.sha256(base64.b64decode(host_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def new_identity(folder: Path) -> Identity:
    """A key pair for this one time."""
    # Imported here: it needs the library cryptography.
    from ..firstboot import new_host_key

    pair = new_host_key()
    path = folder / "id"
    path.touch(mode=0o600)
    path.write_text(pair.private)
    return Identity(path, pair.public)


def shown_key(machine: str, address: str) -> str | None:
    """The SSH host key that is shown at an address, without logging in; None where nobody answers."""
    try:
        done = subprocess.run(  # noqa: S603
            ["ssh-keyscan", "-T", "5", "-t", "ed25519", address],  # noqa: S607
            capture_output=True,
            check=False,
            timeout=_ONE_TRY,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return None
    except OSError as exc:
        raise _no_client(machine, "ssh-keyscan") from exc
    match = _KEY.search(done.stdout.decode(errors="replace"))
    return match[1] if match else None


def await_rescue(clock: Clock, machine: str, address: str, planted: str, timeout: float) -> str:
    """The host key of the rescue system, once it shows one that is not the planted one."""
    end = clock.now() + timeout
    while True:
        shown = shown_key(machine, address)
        if shown and shown != planted:
            return shown
        if clock.now() >= end:
            what = "the system on its disk still answers" if shown else "nobody answers"
            raise errors.WaitTimeout(
                f"its rescue system had not started after {timeout:.0f} s: {what} at {address}",
                machine=machine,
                hint="Run the same task again, which begins with a new server",
            )
        clock.sleep(_PAUSE)


def prove(remote: Remote, machine: str, planted: str, folder: Path) -> tuple[str, ...]:
    """Make sure that who answers has the disk with the planted key before it.

    Args:
        planted: the public host key that was planted on the disk.

    Returns:
        Programs that unpack disk images there.

    Raises:
        Conflict: who answers cannot prove it. Nothing was written.
    """
    nonce, seen = secrets.token_hex(16), fingerprint(remote.host_key)
    remote.run(
        "sending the script", ["sh", "-c", f"umask 077; cat >{_SCRIPT}"], rescue_script.SCRIPT.encode()
    )
    said = remote.run("proving which disk the rescue system sees", ["sh", _SCRIPT, "prove", nonce, seen])
    signature, _dummy, rest = said.partition("-----END SSH SIGNATURE-----")
    proof, signers = folder / "proof.sig", folder / "signers"
    proof.write_text(f"{signature}-----END SSH SIGNATURE-----\n")
    signers.write_text(f'rescue namespaces="{rescue_script.NAMESPACE}" {planted}\n')
    asked = [
        "-Y",
        "verify",
        "-q",
        "-n",
        rescue_script.NAMESPACE,
        "-I",
        "rescue",
        "-f",
        str(signers),
        "-s",
        str(proof),
    ]
    try:
        done = subprocess.run(  # noqa: S603
            ["ssh-keygen", *asked],  # noqa: S607
            input=rescue_script.STATEMENT.format(nonce=nonce, fingerprint=seen).encode(),
            capture_output=True,
            check=False,
            timeout=_ONE_TRY,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise _no_client(machine, "ssh-keygen") from exc
    if done.returncode:
        raise errors.Conflict(
            "who answers as its rescue system cannot sign with the host key that lies on the server's disk, so it is not "
            "that server",
            machine=machine,
            hint="Somebody may be in between; nothing was written. Find out who answers at that address",
        )
    return tuple(re.findall(r"^program (\w+)$", rest, re.MULTILINE))


def write(remote: Remote, machine: str, source: RawSource, programs: Sequence[str], timeout: float) -> None:
    """Bring an image onto the disk and read it back.

    Args:
        programs: that unpack disk images there.
        timeout: seconds for each of the two.

    Raises:
        OperationFailed: what was read back is something else.
    """
    program = source.program if source.program in programs else "gzip"
    raw = source.measured
    remote.feed(
        "writing the image",
        ["sh", _SCRIPT, "write", program, str(raw.size)],
        source,
        program,
        seconds=timeout,
    )
    said = remote.run("reading the image back", ["sh", _SCRIPT, "digest", str(raw.size)], seconds=timeout)
    if (found := said.split(" ")[0].strip()) != raw.sha256:
        raise errors.OperationFailed(
            f"what is on the disk is not what was sent: sha256 {found or 'nothing'} and not {raw.sha256}",
            machine=machine,
            hint="Run the same task again",
        )
