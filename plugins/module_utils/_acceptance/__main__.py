# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m module_utils._acceptance``, which the launcher `gpu-acceptance` calls.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
