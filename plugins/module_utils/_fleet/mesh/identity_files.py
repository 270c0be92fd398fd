# SPDX-License-Identifier: GPL-3.0-or-later
"""An identity in its two files: made where there is none, never overwritten unasked, and never half written.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import Conflict, FleetError, InvalidRequest, OperationFailed
from .identity import Identity, parse, verify
from .identity_tools import HEADER, Vault

SECRET_MODE = 0o600
PUBLIC_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    Attributes:
        path: a directory, or a file whose name ends in ``.secret``; the public half lies beside it as ``.public``.
        identity: put this one there. None: any will do, and a new one is made if there is none.
        force: replace another identity that is there.
        verify: make sure that the identity is one.
        vault: keep the secret file encrypted with it.
    """

    path: Path
    identity: Identity | None = None
    force: bool = False
    verify: bool = True
    vault: Vault | None = None

    @property
    def secret_file(self) -> Path:
        return self.path if self.path.suffix == ".secret" else self.path / "identity.secret"

    @property
    def public_file(self) -> Path:
        return self.secret_file.with_suffix(".public")


@dataclass(frozen=True, slots=True)
class Files:
    """What lies in the two files; modes are None where there is no file."""

    identity: Identity | None = None
    encrypted: bool = False
    secret_mode: int | None = None
    public: str | None = None
    public_mode: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As a diff shows it: without the secret."""
        return {
            "node_id": self.identity.node_id if self.identity else None,
            "public": self.public,
            "public_mode": None if self.public_mode is None else f"{self.public_mode:04o}",
            "secret_mode": None if self.secret_mode is None else f"{self.secret_mode:04o}",
            "encrypted": self.encrypted,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a wish.

    Attributes:
        identity: the one that is there now; None in check mode where one would be made.
        made: a new one was, or would be, made.
    """

    identity: Identity | None
    made: bool
    before: dict[str, Any]
    after: dict[str, Any]

    @property
    def changed(self) -> bool:
        return self.made or self.before != self.after


def ensure(wish: Wish, make: Callable[[], Identity], *, check: bool = False) -> Outcome:
    """See to it that the identity is there.

    Args:
        make: gives a new identity.
        check: only say what would be done.

    Raises:
        InvalidRequest: what is there, or should be, is no identity.
        Conflict: another identity is there.
        FleetError: a file cannot be read or written, or not be decrypted.
    """
    before = _look(wish)
    found = before.identity
    wanted = wish.identity or (None if wish.force else found)
    if found and wanted and wanted.secret != found.secret and not wish.force:
        raise Conflict(
            f"{wish.secret_file} holds the identity of {found.node_id} already",
            hint="Take it away first, or set force to replace it; a secret that is overwritten is lost",
        )
    made = wanted is None
    identity = make() if wanted is None and not check else wanted
    if identity and wish.verify:
        verify(identity)
    after = Files(
        identity,
        encrypted=wish.vault is not None,
        secret_mode=SECRET_MODE,
        public=identity.public if identity else None,
        public_mode=PUBLIC_MODE,
    )
    if identity and identity.secret and not check:
        _save(wish, before, after, identity.secret)
    return Outcome(identity, made, before.to_json(), after.to_json())


def _look(wish: Wish) -> Files:
    text, secret_mode = _read(wish.secret_file)
    public, public_mode = _read(wish.public_file)
    files = Files(None, False, secret_mode, public, public_mode)
    if text is None:
        return files
    encrypted = text.startswith(HEADER)
    if encrypted and wish.vault is None:
        raise InvalidRequest(
            f"{wish.secret_file} is encrypted with Ansible Vault", hint="Set vault_password_file"
        )
    try:
        identity = parse(wish.vault.decrypt(text) if encrypted and wish.vault else text)
    except OperationFailed as error:
        error.what = f"{wish.secret_file}: {error.what}"
        raise
    except InvalidRequest:
        identity = None
    if identity is None or identity.secret is None:
        if wish.force:
            return replace(files, encrypted=encrypted)
        raise InvalidRequest(
            f"{wish.secret_file} holds no secret identity",
            hint="Take the file away, or set force to replace it",
        )
    return replace(files, identity=identity, encrypted=encrypted)


def _save(wish: Wish, before: Files, after: Files, secret: str) -> None:
    same = before.identity == after.identity and before.encrypted == after.encrypted
    try:
        wish.secret_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not same or before.secret_mode != SECRET_MODE:
            text = wish.vault.encrypt(secret) if wish.vault else secret
            _write(wish.secret_file, text, SECRET_MODE, overwrite=before.secret_mode is not None)
        if (before.public, before.public_mode) != (after.public, PUBLIC_MODE):
            _write(wish.public_file, after.public or "", PUBLIC_MODE, overwrite=True)
    except FileExistsError as error:
        raise Conflict(
            f"somebody else has made {wish.secret_file} meanwhile", hint="Run this again to see which"
        ) from error
    except OSError as error:
        raise _unusable(error) from error


def _read(path: Path) -> tuple[str | None, int | None]:
    """A file's text without white space around it, and its mode; None for no file."""
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read().strip(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise _unusable(error) from error


def _write(path: Path, text: str, mode: int, *, overwrite: bool) -> None:
    """The whole file or none. It is readable for nobody else at any time."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(name, path)
        else:
            os.link(name, path)  # Fails where a file is, even one that has just come.
    finally:
        Path(name).unlink(missing_ok=True)


def _unusable(error: OSError) -> FleetError:
    return FleetError(
        f"{error.filename2 or error.filename}: {error.strerror}",
        hint="Check that the path is right and that this user may read and write there",
    )
