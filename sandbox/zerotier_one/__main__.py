# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m sandbox.zerotier_one``: the package, or a repository with it, for tests that have no sandbox.

    --deb FOLDER         write zerotier-one_VERSION_all.deb; its path is printed
    --repository FOLDER  write a signed APT repository (debian/, key.asc, fingerprint); the key's fingerprint is printed
    --root HOST:PORT     a root of the built-in planet, any number; without, a host is its own root
    --version X.Y.Z      what it says it is, any number for a repository; from 1.16.0 on it has no controller

One of the two without a sandbox serves hosts that are their own controller, or name each other as roots.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from ..packages import package, repository
from .build import OWN_ROOT, VERSION, Build


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.zerotier_one", description="A stand-in, SIMULATED."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--deb", type=Path, metavar="FOLDER")
    what.add_argument("--repository", type=Path, metavar="FOLDER")
    parser.add_argument("--root", action="append", metavar="HOST:PORT")
    parser.add_argument("--version", action="append", metavar="X.Y.Z")
    options = parser.parse_args()
    roots = tuple(options.root or OWN_ROOT)
    builds = [Build.of(version, roots) for version in options.version or [VERSION]]
    if options.deb:
        options.deb.mkdir(parents=True, exist_ok=True)
        for build in builds:
            file = options.deb / f"zerotier-one_{build.version}_all.deb"
            file.write_bytes(package(build))
            print(file)
        return 0
    # Its key signs this once, so it is not kept.
    with tempfile.TemporaryDirectory() as folder:
        made = repository(Path(folder), builds)
    made.write(options.repository)
    print(made.key.fingerprint)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
