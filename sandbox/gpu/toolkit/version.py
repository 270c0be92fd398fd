# SPDX-License-Identifier: GPL-3.0-or-later
"""Which version of the toolkit this stands for. SIMULATED. The packer writes the number."""

from __future__ import annotations

VERSION = "@VERSION@"
