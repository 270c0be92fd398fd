# SPDX-License-Identifier: GPL-3.0-or-later
"""The ids of everything in an image. The role works out the same ones (vars/main.yml)."""

from __future__ import annotations

import uuid


class Ids:
    """The ids of everything in an image, which follow from its fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def of(self, what: str) -> str:
        """The UUID of something."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"gpumesh-image:{self.fingerprint}:{what}"))

    @property
    def esp(self) -> str:
        """The volume id of the FAT file system, which has but 32 bits."""
        return self.of("esp")[:8].upper()
