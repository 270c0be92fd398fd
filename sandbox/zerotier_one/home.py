# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon's home directory: what it finds there at its start, and what it leaves there."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import string
from pathlib import Path

from .identity import Identity, generate, read
from .values import Json

DEFAULT = Path("/var/lib/zerotier-one")
USER = "zerotier-one"
SETTINGS = {"allowManaged": True, "allowGlobal": False, "allowDefault": False, "allowDNS": False}
"""A joined network's local settings, and what they are where nothing is said."""
_TOKEN_LENGTH = 24


class HomeError(Exception):
    """The home directory holds something the daemon cannot start with."""


class Home:
    """One home directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.networks = path / "networks.d"

    def prepare(self) -> None:
        """Make what has to exist, with the rights it has to have."""
        self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.networks.mkdir(mode=0o755, exist_ok=True)

    def hand_over(self) -> None:
        """Give it to the user of the package, as the daemon does when it gives up being root.

        This one stays root, because it runs ``ip``.
        """
        if os.geteuid() != 0:
            return
        try:
            user = pwd.getpwnam(USER)
        except KeyError:
            return
        for folder, _, files in os.walk(self.path):
            for entry in (Path(folder), *(Path(folder) / file for file in files)):
                with contextlib.suppress(FileNotFoundError):
                    os.chown(entry, user.pw_uid, user.pw_gid, follow_symlinks=False)

    def identity(self) -> Identity:
        """The node's identity, made if there is none.

        Raises:
            HomeError: ``identity.secret`` holds something else.
        """
        file = self.path / "identity.secret"
        text = self._text("identity.secret")
        if text is None:
            made = generate()
            write(file, made.secret)
            write(self.path / "identity.public", made.public, 0o644)
            return made
        found = read(text)
        if not found or not found.secret_key:
            raise HomeError(f"{file} holds no secret identity")
        return found

    def token(self) -> str:
        """What opens the local interface, made if there is none; white space around it is forgiven."""
        text = (self._text("authtoken.secret") or "").strip()
        if not text:
            alphabet = string.ascii_lowercase + string.digits
            text = "".join(secrets.choice(alphabet) for _ in range(_TOKEN_LENGTH))
            write(self.path / "authtoken.secret", text)
        return text

    def planet(self, built_in: tuple[str, ...]) -> Json:
        """Where the roots are: what the file ``planet`` says, else the built-in ones, which are written there."""
        text = self._text("planet")
        if text is not None:
            with contextlib.suppress(ValueError):
                found = json.loads(text)
                if isinstance(found, dict) and isinstance(found.get("roots"), list):
                    return found
        planet: Json = {"roots": list(built_in)}
        write(self.path / "planet", json.dumps(planet) + "\n", 0o644)
        return planet

    def local_conf(self) -> Json:
        """``local.conf``; empty where it is missing or no JSON object."""
        with contextlib.suppress(ValueError):
            found = json.loads(self._text("local.conf") or "{}")
            if isinstance(found, dict):
                return found
        return {}

    def local_conf_time(self) -> int:
        """When ``local.conf`` was last changed; 0 where there is none."""
        try:
            return (self.path / "local.conf").stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def write_local_conf(self, content: Json) -> None:
        """Replace ``local.conf``."""
        write(self.path / "local.conf", json.dumps(content, indent=1), 0o644)

    def joined(self) -> dict[str, tuple[Json, dict[str, bool]]]:
        """The networks to join at the start: last known configuration (empty if there is none), and local settings."""
        found: dict[str, tuple[Json, dict[str, bool]]] = {}
        for file in sorted(self.networks.glob("*.conf")):
            network = file.name.removesuffix(".conf")
            if len(network) == 16 and all(digit in "0123456789abcdef" for digit in network):
                found[network] = self._cached(file), self._settings(network)
        return found

    def _cached(self, file: Path) -> Json:
        with contextlib.suppress(ValueError, OSError):
            content = json.loads(file.read_text("utf-8"))
            if isinstance(content, dict) and content.get("status") == "OK":
                return content
        return {}

    def _settings(self, network: str) -> dict[str, bool]:
        settings = dict(SETTINGS)
        for line in (self._text(f"networks.d/{network}.local.conf") or "").splitlines():
            name, _, value = line.partition("=")
            if name.strip() in settings:
                settings[name.strip()] = value.strip()[:1] in ("1", "t", "T")
        return settings

    def keep(self, network: str, configuration: Json) -> None:
        """Remember a configuration for the next start; an empty one only that the network is joined."""
        write(self.networks / f"{network}.conf", json.dumps(configuration) if configuration else "")

    def keep_settings(self, network: str, settings: dict[str, bool]) -> None:
        """Remember a network's local settings."""
        text = "".join(f"{name}={int(value)}\n" for name, value in settings.items())
        write(self.networks / f"{network}.local.conf", text)

    def forget(self, network: str) -> None:
        """The network was left."""
        for name in (f"{network}.conf", f"{network}.local.conf"):
            (self.networks / name).unlink(missing_ok=True)

    def _text(self, name: str) -> str | None:
        try:
            return (self.path / name).read_text("utf-8", "replace")
        except FileNotFoundError:
            return None


def write(file: Path, text: str, mode: int = 0o600) -> None:
    """Write a file, at no moment with more rights than given; its owner stays who it was."""
    temporary = file.with_name(f".{file.name}.new")
    with os.fdopen(
        os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8"
    ) as stream:
        os.fchmod(stream.fileno(), mode)
        with contextlib.suppress(FileNotFoundError, PermissionError):
            owner = file.stat() if file.exists() else file.parent.stat()
            os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
        stream.write(text)
    os.replace(temporary, file)
