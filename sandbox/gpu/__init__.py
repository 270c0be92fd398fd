# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated GPU machines and a stand-in for the vendor's package repositories. SIMULATED."""
