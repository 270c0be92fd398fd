# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that have to do with identities: ZeroTier's own, which makes them, and Ansible's own, which encrypts them.

A secret goes in and out of them through pipes, never through an argument, which every user of the machine can read, and
never through a file: ``zerotier-idtool`` would write it readable for all.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ..errors import FleetError, OperationFailed
from .identity import Identity, generate, parse, verify

HEADER = "$ANSIBLE_VAULT;"
"""What an encrypted file begins with."""


class Run(Protocol):
    """Runs a program and gives its exit status and what it printed."""

    def __call__(
        self, args: list[str], data: str = "", environ: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]: ...


def make(
    program: str | None, run: Run, random: Callable[[int], bytes], warn: Callable[[str], None]
) -> Identity:
    """A new identity, proved to be one.

    Args:
        program: ``zerotier-idtool``, where it is installed. What it makes is only taken if it is an identity.
        random: for one that is made here.
        warn: told why the program was of no use.
    """
    if program:
        try:
            made = _asked(program, run)
            verify(made)
            return made
        except FleetError as error:
            warn(f"{program} was of no use: {error.what}; the identity was made without it")
    return generate(random)


def _asked(program: str, run: Run) -> Identity:
    status, said, _errors = run([program, "generate"])
    if status:
        # Not what it printed: that may be half a secret.
        raise OperationFailed(f"it ended with {status}")
    made = parse(said)
    if made.secret is None:
        raise OperationFailed("what it made has no secret key")
    return made


@dataclass(frozen=True, slots=True)
class Vault:
    """Ansible Vault with one password.

    Attributes:
        program: ``ansible-vault``.
        password_file: a file with the password, or a program that prints it.
        run: runs programs.
    """

    program: str
    password_file: str
    run: Run

    def encrypt(self, text: str) -> str:
        """The text as an encrypted file.

        Raises:
            OperationFailed: it could not be encrypted.
        """
        return self._call("encrypt", text, "--encrypt-vault-id", "default")

    def decrypt(self, text: str) -> str:
        """What is in an encrypted file.

        Raises:
            OperationFailed: the password is wrong, or the file is damaged.
        """
        return self._call("decrypt", text)

    def _call(self, verb: str, text: str, *more: str) -> str:
        # Whatever vaults the configuration knows besides, this password is the one that is meant.
        environ = {
            "ANSIBLE_VAULT_PASSWORD_FILE": self.password_file,
            "ANSIBLE_VAULT_IDENTITY_LIST": f"default@{self.password_file}",
            "ANSIBLE_VAULT_ENCRYPT_IDENTITY": "default",
        }
        args = [
            *(self.program, verb, "--vault-password-file", self.password_file),
            *more,
            *("--output", "-", "-"),
        ]
        status, said, errors = self.run(args, text, environ)
        if status or not said:
            lines = [line for line in errors.splitlines() if line.startswith(("[ERROR]", "ERROR"))]
            reason = lines[0][:300] if lines else f"it ended with {status}"
            raise OperationFailed(
                f"ansible-vault could not {verb} the identity: {reason.rstrip('.')}",
                hint="Check vault_password_file",
            )
        return said
