# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs for machines that the sandbox's clouds create, and the vendor's repositories on their network. SIMULATED."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from urllib.parse import unquote

from ..backends.base import Machine
from ..debian import KEY_PATH
from ..openpgp import SigningKey
from ..private import write_private
from .archives import script
from .hardware import DISTRIBUTIONS, archive
from .profiles import in_cloud
from .repositories import KEY_OWNER, files

PREFIX = "/gpu/"
"""Of the repositories' paths."""
FINGERPRINT_FILE = "nvidia.fingerprint"
_KEY_FILE = "nvidia-repository.key"
_CARDS = {
    "nvidia-tesla-t4": "1eb8",
    "nvidia-l4": "27b8",
    "nvidia-tesla-a100": "20b0",
    "nvidia-h100-80gb": "2330",
    "nvidia-tesla-v100": "1db1",
}
"""The PCI ids of what there is a simulation of, by the cloud's name."""
# The machine has only just been started, and the script talks to systemd at its end.
_AWAKE = "for _ in $(seq 200); do systemctl list-units >/dev/null 2>&1 && break; sleep 0.1; done\n"


def hardware(machine: Machine) -> bytes | None:
    """What is unpacked at ``/`` of a machine with GPUs; None where it has none, or such as there is no simulation of."""
    if machine.gpu_model not in _CARDS:
        return None
    profile = in_cloud(
        _CARDS[machine.gpu_model],
        machine.gpu_count,
        distribution=_distribution(machine),
        kernel=DISTRIBUTIONS[_distribution(machine)],
    )
    return archive(profile)


def setup(machine: Machine, url: str) -> str:
    """What root of the machine runs once, to get the kernel of a machine from the archives at that address."""
    distribution = _distribution(machine)
    return _AWAKE + script(distribution, DISTRIBUTIONS[distribution], url)


def _distribution(machine: Machine) -> str:
    """What the container really is, whatever the image was called."""
    return "debian-12" if machine.image == "debian-12" else "debian-13"


class Vendor:
    """The repositories, signed with a key that is kept in a folder.

    Args:
        folder: the sandbox's own, where the fingerprint is left for whoever has to check the key. Wheels in its folder ``wheels``
            are offered as well: the machines may reach no index but this one.
    """

    def __init__(self, folder: Path) -> None:
        secret = folder / _KEY_FILE
        if not secret.exists():
            write_private(secret, secrets.token_hex(32))
        self._key = SigningKey(bytes.fromhex(secret.read_text("ascii").strip()), KEY_OWNER)
        self._files: dict[str, bytes] | None = None
        self._wheels = folder / "wheels"
        (folder / FINGERPRINT_FILE).write_text(f"{self._key.fingerprint}\n", "ascii")

    def file(self, path: str) -> bytes | None:
        """A file by its path; None if there is none. All are made at the first."""
        if self._files is None:
            wheels = {path.name: path.read_bytes() for path in sorted(self._wheels.glob("*.whl"))}
            made = files(self._key, int(time.time()), wheels)
            self._files = made | {KEY_PATH: self._key.public().encode()}
        # apt asks for the files of a flat repository as ./name, and pip for a folder of the index.
        plain = unquote(path).replace("/./", "/")
        return self._files.get(f"{plain}index.html" if plain.endswith("/") else plain)
