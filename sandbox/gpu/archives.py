# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a simulated machine its kernel, from the stand-in of its distribution's archive. SIMULATED.

NVIDIA's repositories are not added: that is what the tested roles do.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from ..debian import KEY_PATH
from .hardware import UNIT
from .repositories import DEBIAN_ORIGIN, UBUNTU_ORIGIN

NAME = "gpumesh-simulated-archives"
"""Of the files that say where the archives are."""


@dataclass(frozen=True, slots=True)
class _Source:
    path: str
    suite: str
    component: str
    origin: str


_SOURCES = {
    "ubuntu-24.04": _Source("ubuntu", "noble", "restricted", UBUNTU_ORIGIN),
    "debian-13": _Source("debian", "trixie", "main", DEBIAN_ORIGIN),
    "debian-12": _Source("debian", "bookworm", "main", DEBIAN_ORIGIN),
}

_SCRIPT = """\
set -eu
export DEBIAN_FRONTEND=noninteractive
mkdir -p /etc/apt/keyrings
python3 -c 'import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], timeout=30).read())' \\
  {key} >/etc/apt/keyrings/{name}.asc
cat >/etc/apt/sources.list.d/{name}.sources <<'SOURCE'
Types: deb
URIs: {url}/{source.path}
Suites: {source.suite}
Components: {source.component}
Architectures: amd64
Signed-By: /etc/apt/keyrings/{name}.asc
SOURCE
# The distribution's own kernels of the same names, where it is the true one, are not for this machine.
cat >/etc/apt/preferences.d/{name} <<'PIN'
Package: *
Pin: release o={source.origin}, n={source.suite}
Pin-Priority: 1001
PIN
apt-get -qq update
install_kernel() {{
  apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends "linux-image-$1" >/dev/null
}}
install_kernel {kernel}
version="$(dpkg-query --show --showformat='${{Version}}' linux-image-{kernel})"
apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends "linux-image-{flavour}=$version" >/dev/null
# The machine boots what it has, and what is installed from here on it takes at the next boot.
systemctl daemon-reload
systemctl restart {unit}
for more in {more}; do install_kernel "$more"; done
"""


def script(distribution: str, kernel: str, url: str, more: Iterable[str] = ()) -> str:
    """A shell script for root of the machine, after its hardware has been unpacked there.

    Args:
        kernel: which one is booted; with it comes the package that follows the newest kernel, in that version.
        url: where the repositories are served.
        more: kernels that are installed afterwards.
    """
    return _SCRIPT.format(
        name=NAME,
        key=shlex.quote(f"{url.rstrip('/')}/{KEY_PATH}"),
        url=url.rstrip("/"),
        source=_SOURCES[distribution],
        kernel=shlex.quote(kernel),
        flavour=shlex.quote(kernel.rpartition("-")[2]),
        unit=UNIT,
        more=" ".join(shlex.quote(name) for name in more),
    )
