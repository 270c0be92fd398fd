# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden images: what a build is made of, what version that is, what is in it, and where it is kept.

This file is private to the gpumesh.fleet collection.
"""
