# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by the folder's name: python3 -B seal '{...}' > root.tar"""

from __future__ import annotations

import sys
from pathlib import Path

# Given a folder, Python looks for modules in it, and this one is itself the package that they are in.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from seal.main import main  # noqa: E402

if __name__ == "__main__":
    main()
