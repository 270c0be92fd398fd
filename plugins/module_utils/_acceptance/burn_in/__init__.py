# SPDX-License-Identifier: GPL-3.0-or-later
"""The burn-in: all GPUs at once, for hours, watched every few seconds, and written down so that no crash loses it.

What is recorded, and how it is read back, is in `records`; what is left to burn in `ledger`; what is judged in `criteria`. These
are pure. `supervisor` runs it, `outcome` makes the same document of it that a suite makes, `cli` is the command.

This package is private to the gpumesh.fleet collection.
"""
