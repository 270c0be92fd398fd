# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry: every provider a fleet file can name.

The imports are spelt out, because Ansible finds what to send along with a module by reading them.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..spec import BaremetalMachine, ExternalMachine
from . import gcp, hetzner
from .base import Kind

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            hetzner.KIND,
            gcp.KIND,
            Kind("baremetal", BaremetalMachine),
            Kind("external", ExternalMachine),
        )
    }
)
"""By the name that a machine's ``provider:`` gives."""
