# SPDX-License-Identifier: GPL-3.0-or-later
"""Publish a machine's SSH host keys as its guest attributes, which is where control machines look for them.

Google's guest agent does it at the first boot of an instance and never again, so whoever replaces a key has to do it.
https://cloud.google.com/compute/docs/metadata/manage-guest-attributes

usage: python3 - URL_OF_THE_METADATA_SERVER DIRECTORY < publish_host_keys_gcp.py
"""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

SECONDS = 10


def publish(url: str, kind: str, key: str) -> None:
    """Set one attribute."""
    request = urllib.request.Request(  # noqa: S310
        f"{url}/computeMetadata/v1/instance/guest-attributes/hostkeys/{kind}",
        data=key.encode(),
        headers={"Metadata-Flavor": "Google", "Content-Type": "text/plain"},
        method="PUT",
    )
    # No proxy is asked: the address is the machine's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=SECONDS):
        pass


def main() -> None:
    """Publish all that are there, or say what kept it from that."""
    url, directory = sys.argv[1:]
    try:
        for path in sorted(Path(directory).glob("ssh_host_*_key.pub")):
            kind, key = path.read_text(encoding="ascii").split()[:2]
            publish(url, kind, key)
    except (OSError, ValueError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")


if __name__ == "__main__":
    main()
