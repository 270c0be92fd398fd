# SPDX-License-Identifier: GPL-3.0-or-later
"""Local clouds: Hetzner Cloud, Compute Engine and ZeroTier Central on loopback, with real machines in containers.

A package for tests and demonstrations, no part of the built collection. Run it with ``python -m sandbox``, or inside a
test with :func:`sandbox.testing.serve`.
"""
