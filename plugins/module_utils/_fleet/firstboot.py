# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine is told at birth: who may log in, and which SSH host key to show the first time.

A cloud with no channel for host keys gets a one-time key planted through user data. Whoever can read the machine's
user data can read that key, so it vouches for the first connection only and is replaced in it; from then on the
machine's own key is known. The public half travels in a label on the cloud object, in the same request that creates
the machine, so nothing is lost if we are killed in between, and a second control machine knows the key as well.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from .mesh_birth import MeshBirth

HOST_KEY_LABEL = "gpumesh-hostkey"
"""The label that carries a machine's public Ed25519 host key."""

NEXT_HOST_KEY_LABEL = "gpumesh-hostkey-next"
"""The key that is about to replace it; both are good while this label is there."""

_WIRE_PREFIX = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"
_LABEL = re.compile(r"^(planted|own)\.([A-Za-z0-9_-]{43})\.k$")


@dataclass(frozen=True, slots=True, repr=False)
class HostKey:
    """A pair of SSH host keys. Has no ``repr``, so that the private half cannot end up in a log."""

    private: str
    public: str

    def __repr__(self) -> str:
        return f"HostKey(public={self.public!r})"


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """Everything a new machine is given.

    Attributes:
        user: the administrator account.
        authorized_keys: public SSH keys that may log in as that user.
        host_key: the one-time host key, for clouds that have no channel of their own.
        user_data: the user's own cloud-config, merged under ours.
        mesh: what makes it a member of the mesh from its first boot on.
    """

    user: str
    authorized_keys: tuple[str, ...]
    host_key: HostKey | None = None
    user_data: str | None = None
    mesh: MeshBirth | None = None

    def cloud_config(self) -> str:
        """The user data for an image with cloud-init."""
        config: dict[str, object] = (yaml.safe_load(self.user_data) if self.user_data else None) or {}
        config |= {
            "users": [
                {
                    "name": self.user,
                    "ssh_authorized_keys": list(self.authorized_keys),
                    "sudo": "ALL=(ALL) NOPASSWD:ALL",
                    "shell": "/bin/bash",
                    "lock_passwd": True,
                },
                *_other_users(config, self.user),
            ],
            "disable_root": True,
            "ssh_pwauth": False,
        }
        if self.host_key:
            config |= {
                "ssh_deletekeys": True,
                "ssh_keys": {
                    "ed25519_private": self.host_key.private,
                    "ed25519_public": self.host_key.public,
                },
            }
        if self.mesh:
            config = self.mesh.add_to(config)
        return "#cloud-config\n" + yaml.safe_dump(config, sort_keys=False, width=4096)


def _other_users(config: dict[str, object], user: str) -> list[object]:
    users = config.get("users", [])
    return (
        [entry for entry in users if not (isinstance(entry, dict) and entry.get("name") == user)]
        if isinstance(users, list)
        else []
    )


def new_host_key() -> HostKey:
    """A fresh Ed25519 pair from the system's random source."""
    # Imported here: listing a fleet must not need it.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return HostKey(private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def key_to_label(public: str, *, planted: bool) -> str:
    """A public Ed25519 host key as a label value: 51 characters or fewer of those a label may have.

    Raises:
        ValueError: it is not an Ed25519 public key.
    """
    kind, _dummy, rest = public.strip().partition(" ")
    raw = base64.b64decode(rest.split(" ")[0], validate=True)
    if kind != "ssh-ed25519" or not raw.startswith(_WIRE_PREFIX) or len(raw) != len(_WIRE_PREFIX) + 32:
        raise ValueError("not an Ed25519 public key in OpenSSH form")
    body = base64.urlsafe_b64encode(raw[len(_WIRE_PREFIX) :]).decode().rstrip("=")
    return f"{'planted' if planted else 'own'}.{body}.k"


def key_from_label(value: str) -> tuple[str, bool] | None:
    """The public key a label carries and whether it is a planted one; None if the label is not one of ours."""
    match = _LABEL.match(value)
    if not match:
        return None
    raw = base64.urlsafe_b64decode(match[2] + "=")
    return f"ssh-ed25519 {base64.b64encode(_WIRE_PREFIX + raw).decode()}", match[1] == "planted"
