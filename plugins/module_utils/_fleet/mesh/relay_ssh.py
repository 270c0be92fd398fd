# SPDX-License-Identifier: GPL-3.0-or-later
"""One running ssh with the relay's far end behind it: started, spoken to by many threads, ended.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import json
import os
import pkgutil
import queue
import shlex
import signal
import subprocess
import threading
from base64 import b64encode
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLong
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from .. import errors
from ..http import scrub
from . import relay_remote

_BOOT = "import sys,base64;exec(base64.b64decode(sys.stdin.buffer.readline()))"
"""Reads the far end from the first line. ``python3 -`` would read to the end, and there is none before the last request."""

_LONGEST_LINE = 64 * 2**20
"""Bytes. A listing of 100 000 members is shorter."""

_MOST_NOISE = 1000
"""Lines that are not the far end's before it is taken for something else: a login shell prints a few."""

_KEPT_STDERR = 4096

_NO_SUDO = (
    "password is required",
    "terminal is required",
    "not in the sudoers",
    "not allowed to",
    "sudo: command not found",
    "sudo: not found",
    "'sudo': No such file",
)
_NO_PYTHON = ("python3: command not found", "python3: not found", "'python3': No such file")


@dataclass(frozen=True, slots=True)
class SshTarget:
    """A machine to reach by ssh.

    Attributes:
        host: name or address.
        port: of its SSH server.
        user: who to log in as; None leaves it to ssh. Anyone but root must be allowed to use sudo without a password.
        options: further arguments of ssh, such as ``-o`` and ``UserKnownHostsFile=...``. Host keys are verified whatever
            they say.
        name: what to call the machine in messages, if not ``host``.
    """

    host: str
    port: int = 22
    user: str | None = None
    options: tuple[str, ...] = ()
    name: str | None = None

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return self.name or self.host

    @property
    def command(self) -> list[str]:
        """The ssh that runs the far end there. There is nothing secret in it."""
        far_end = f"python3 -I -c {shlex.quote(_BOOT)}"
        sudo = "" if self.user == "root" else "sudo -n "
        return [
            "ssh",
            "-T",
            # Of two equal options ssh takes the first, so these two hold, and the last three can be changed.
            *("-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=yes"),
            *self.options,
            *("-o", "ConnectTimeout=10"),
            *("-o", "ServerAliveInterval=10"),
            *("-o", "ServerAliveCountMax=3"),
            *("-p", str(self.port)),
            *(("-l", self.user) if self.user else ()),
            "--",
            self.host,
            # What sudo says when it refuses is read below, so it says it in English.
            f"env LC_ALL=C {sudo}{far_end}",
        ]


class Ended(Exception):
    """The ssh is gone; another one may do better."""


class Slow(Exception):
    """No answer in time; the ssh was ended, for nobody knows what it is still good for."""


class Ssh:
    """One running ssh, ready for requests.

    Args:
        target: where to.
        token_file: where the daemon's token is there.
        patience: seconds until the far end must have reported.

    Raises:
        Unreachable: ssh did not get there.
        Forbidden: it may not become root there.
        NotFound: zerotier-one or Python is not installed there.
        Unavailable: something else answered.
    """

    def __init__(self, target: SshTarget, token_file: str, patience: float) -> None:
        self._target = target
        self._numbers = iter(range(1, 2**62))
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._ready: Future[dict[str, Any]] = Future()
        self._over = False
        self._stderr = b""
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the arguments are a list, and the host follows a --
                target.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as exc:
            raise errors.Unreachable(
                f"{target.label} cannot be reached: ssh cannot be started here ({exc.strerror or type(exc).__name__})",
                hint="Install the OpenSSH client on this machine",
            ) from exc
        self._threads = [
            threading.Thread(target=work, name=f"relay-{word}", daemon=True)
            for word, work in (("in", self._read), ("out", self._write), ("err", self._drain))
        ]
        for thread in self._threads:
            thread.start()
        source = pkgutil.get_data(__package__, "relay_remote.py") or b""
        self._outgoing.put(b64encode(source) + b"\n")
        self._outgoing.put(json.dumps({"token_file": token_file}).encode() + b"\n")
        try:
            report = self._ready.result(patience)
        except TooLong:
            self.end()
            raise errors.Unreachable(
                f"{target.label} did not answer over ssh within {patience:.0f} s",
                hint="Check that the machine runs and is not overloaded, then run the same command again",
            ) from None
        except Ended:
            raise self._why_not() from None
        if "failed" in report:
            self.end()
            raise self._refused(str(report["failed"]), token_file)

    def ask(self, request: dict[str, Any], patience: float) -> dict[str, Any]:
        """What the far end answers.

        Args:
            request: as :mod:`.relay_remote` wants it.
            patience: seconds.

        Raises:
            Ended: the ssh died.
            Slow: it did not answer.
        """
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            if self._over:
                raise Ended
            number = next(self._numbers)
            self._waiting[number] = answer
        self._outgoing.put(json.dumps({**request, "id": number}).encode() + b"\n")
        try:
            return answer.result(patience)
        except TooLong:
            self.end()
            raise Slow from None

    @property
    def over(self) -> bool:
        """It has ended, or was ended."""
        return self._over

    def end(self) -> None:
        """End it, and whatever still waits for it. Harmless twice."""
        with self._lock:
            self._over = True
        self._outgoing.put(None)
        self._kill()
        self._process.wait()
        me = threading.current_thread()
        for thread in self._threads:
            if thread is not me:
                thread.join(5.0)

    def _read(self) -> None:
        """Hand each answer to whoever waits for it."""
        mark = relay_remote.MARK.encode()
        noise = 0
        with _pipe(self._process.stdout) as stdout:
            while line := stdout.readline(_LONGEST_LINE):
                try:
                    if not line.startswith(mark):
                        raise ValueError("not the far end's")
                    said = dict(json.loads(line[len(mark) :]))
                    waiting = self._waiting.pop(said["id"]) if "id" in said else self._ready
                    if not waiting.done():
                        waiting.set_result(said)
                except (ValueError, KeyError, TypeError):
                    noise += 1
                    if noise > _MOST_NOISE:
                        self._kill()
                        break
        with self._lock:
            self._over = True
            left = [self._ready, *self._waiting.values()]
            self._waiting.clear()
        self._outgoing.put(None)
        for future in left:
            if not future.done():
                future.set_exception(Ended())

    def _write(self) -> None:
        try:
            with _pipe(self._process.stdin) as stdin:
                while (line := self._outgoing.get()) is not None:
                    stdin.write(line)
                    stdin.flush()
        except OSError:  # it is gone, which the reader reports
            return

    def _kill(self) -> None:
        """End ssh and what it started, for a ProxyCommand would hold the pipes open."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _drain(self) -> None:
        with _pipe(self._process.stderr) as stderr:
            while part := stderr.read1(_KEPT_STDERR):  # type: ignore[attr-defined]
                self._stderr = (self._stderr + part)[-_KEPT_STDERR:]

    def _why_not(self) -> errors.ProviderError:
        """Why the ssh ended before the far end reported."""
        try:
            status = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            status = -9
        self.end()
        said = scrub(self._stderr.decode("utf-8", "replace")).strip()
        where = self._target.label
        last = (
            said.splitlines()[-1].strip().rstrip(".")
            if said
            else f"it ended with status {status} and said nothing"
        )
        if any(words in said for words in _NO_PYTHON):
            return errors.NotFound(
                f"{where} has no python3, which carries requests to the controller there",
                hint=f"Install Python 3 on {where}",
                details=said,
            )
        if any(words in said for words in _NO_SUDO):
            return errors.Forbidden(
                f"{self._target.user or 'the user'} may not become root on {where} without a password: {last}",
                hint="Allow it in sudoers (NOPASSWD), as the role base does for the administrator",
                details=said,
            )
        if status == 255:
            return errors.Unreachable(
                f"{where} cannot be reached over ssh: {last}", hint=_ssh_hint(said), details=said
            )
        return errors.Unavailable(
            f"{where} can be reached over ssh, but what carries requests to the controller there did not start: {last}",
            hint=f"Look what `python3 --version` says on {where}, and what the login shell prints",
            details=said or None,
        )

    def _refused(self, word: str, token_file: str) -> errors.ProviderError:
        where = self._target.label
        if word == relay_remote.NO_FILE:
            return errors.NotFound(
                f"zerotier-one is not installed there: {where} has no {token_file}",
                hint=f"Run the role zerotier on {where} first",
            )
        return errors.Forbidden(
            f"{token_file} on {where} cannot be read, or is empty",
            hint="Check that sudo makes the user root there, and that zerotier-one was started once",
        )


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("not a pipe")
    return stream


def _ssh_hint(said: str) -> str:
    if "Host key verification failed" in said or "HOST IDENTIFICATION HAS CHANGED" in said:
        return "Find out why the host key is not the known one before anything else; nothing was sent"
    if "Permission denied" in said:
        return "Check the user, and that your key is in the SSH agent or named in the options"
    return "Check that the machine runs and that its SSH port can be reached from here"
