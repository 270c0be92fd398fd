# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a disk is to be made or to be packed."""

from __future__ import annotations

import json
import sys

from .image import make
from .pack import pack
from .programs import DiskError


def main() -> None:
    """Do what the argument says, and print what came of it as one JSON object."""
    wanted = json.loads(sys.argv[1])
    try:
        print(json.dumps(pack(wanted) if "image" in wanted else make(wanted)))
    except DiskError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"Cannot write the disk: {error}")
