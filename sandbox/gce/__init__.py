# SPDX-License-Identifier: GPL-3.0-or-later
"""Google Compute Engine, API v1, as far as the collection uses it, with the OAuth token endpoint it needs.

GPUs of sandbox machines are SIMULATED: they are in the answers, with all the real rules, and nowhere else.
"""

from __future__ import annotations

from .service import routes

__all__ = ["routes"]
