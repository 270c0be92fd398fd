# SPDX-License-Identifier: GPL-3.0-or-later
"""Hetzner Cloud.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .base import Kind
from .hetzner_models import HetznerMachine, HetznerSettings

KIND = Kind("hetzner", HetznerMachine, HetznerSettings, None, plants_host_key=True)
