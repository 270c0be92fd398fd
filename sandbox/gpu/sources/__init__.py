# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in packages carry to a host beside the simulated GPUs: it runs there with Python's own library alone. SIMULATED."""
