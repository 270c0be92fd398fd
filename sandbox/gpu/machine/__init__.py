# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated GPUs of one machine: what is copied onto it and runs there. SIMULATED.

Nothing but Python's standard library, 3.11 or later: a machine has no more. The files are copied as they are, by
``python -m sandbox.gpu hardware`` into the machine, and into the packages that stand for the driver's programs.
"""
