# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands behind a machine of the sandbox: a container, or only a record."""
