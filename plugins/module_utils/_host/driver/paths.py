# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the driver's layer keeps its notes, and where DKMS, dpkg and systemd keep theirs.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from pathlib import Path

MEMORY = Path("/var/lib/gpumesh/nvidia_driver")
HISTORY = MEMORY / "history.json"
# What was held by this layer, and by nobody else.
HOLDS = MEMORY / "holds.json"
# What was built on trial.
TRIAL = MEMORY / "trial"
# In /run: what a run that was killed has noted is of use until the machine is booted again.
SNAPSHOT = Path("/run/gpumesh-nvidia-driver-before.json")
# A copy of apt's world, in which the repositories of then are tried. Not in /run: package lists are big.
SCRATCH = Path("/var/cache/gpumesh-nvidia-driver-rollback")

DKMS = Path("/var/lib/dkms")
# DKMS makes these for the signatures of its modules, wherever it is told to build.
DKMS_KEYS = (
    Path("/var/lib/dkms/mok.key"),
    Path("/var/lib/dkms/mok.pub"),
    Path("/var/lib/shim-signed/mok/MOK.der"),
    Path("/var/lib/shim-signed/mok/MOK.priv"),
)
# While it is there, dpkg builds no module.
NO_BUILD = Path("/etc/dkms/no-autoinstall")
SOURCES = Path("/usr/src")
MODULES = Path("/lib/modules")

APT = Path("/etc/apt")
APT_LISTS = Path("/var/lib/apt/lists")
APT_MARKS = Path("/var/lib/apt/extended_states")
DPKG_STATUS = Path("/var/lib/dpkg/status")
DPKG_UPDATES = Path("/var/lib/dpkg/updates")

UNITS = Path("/etc/systemd/system")
PACKAGED_UNITS = Path("/usr/lib/systemd/system")
DAEMON = "nvidia-persistenced.service"
TUNING = "gpumesh-gpu-tuning.service"
