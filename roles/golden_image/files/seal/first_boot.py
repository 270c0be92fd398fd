# SPDX-License-Identifier: GPL-3.0-or-later
"""What each machine makes for itself at its first boot, and the units that see to it."""

from __future__ import annotations

import json
import os

from .system import Refusal, Seal

GPU_UNITS = ("nvidia-persistenced.service", "nvidia-cdi-refresh.service", "gpumesh-gpu-tuning.service")
ACCEPTANCE = "etc/systemd/system/multi-user.target.wants/gpumesh-first-acceptance.service"


def first_boot(seal: Seal) -> None:
    """What is made anew on each machine."""
    wanted, files = seal.wanted, seal.wanted["files"]
    cloud = (
        files["cloud.cfg"]
        .replace("DATASOURCES", json.dumps(wanted["datasources"]))
        .replace("ADMIN", wanted["admin"])
    )
    seal.write("etc/cloud/cloud.cfg.d/95-gpumesh-image.cfg", cloud)
    # Where no source is found it runs all the same, for a network by DHCP and the machine's own host keys.
    seal.write("etc/cloud/ds-identify.cfg", "policy: search,found=all,maybe=all,notfound=enabled\n")
    seal.write("usr/local/lib/gpumesh/first-boot", files["first-boot"], 0o755)
    for program in ("has-gpu", "no-gpu"):
        seal.write(f"usr/local/lib/gpumesh/{program}", files[program], 0o755)
    for unit in ("gpumesh-first-boot.service", "gpumesh-host-keys.service", "gpumesh-no-gpu.service"):
        seal.write(f"etc/systemd/system/{unit}", files[unit])
    enable(seal, "gpumesh-first-boot.service", "multi-user.target")
    enable(seal, "gpumesh-host-keys.service", "ssh.service", "ssh.socket")
    enable(seal, "gpumesh-no-gpu.service", "sysinit.target")
    for unit in GPU_UNITS:
        seal.write(f"etc/systemd/system/{unit}.d/50-gpumesh-image.conf", files["only-with-gpu.conf"])
    acceptance = os.path.lexists(seal.root / ACCEPTANCE)
    if wanted["first_boot_acceptance"] and not acceptance:
        raise Refusal(
            "golden_image_first_boot_acceptance is set, but the image does not have the unit gpumesh-first-acceptance.service; "
            "add 'validation' to golden_image_layers"
        )
    if acceptance:
        # It holds the id of the machine that must not run it, which is gone.
        seal.write("var/lib/gpumesh/first-acceptance", "the machine that the image was built on\n")
    network(seal)


def enable(seal: Seal, unit: str, *targets: str, at: str = "/etc/systemd/system") -> None:
    """As `systemctl enable` does, which needs no running systemd, either, but a systemd of the image's release."""
    for target in targets:
        seal.link(f"etc/systemd/system/{target}.wants/{unit}", f"{at}/{unit}")


def network(seal: Seal) -> None:
    """networkd runs what netplan generates, and resolved answers. Units that a release does not have are left out."""
    for unit, target in (
        ("systemd-networkd.service", "multi-user.target"),
        ("systemd-networkd.socket", "sockets.target"),
        ("systemd-networkd-wait-online.service", "network-online.target"),
        ("systemd-resolved.service", "sysinit.target"),
    ):
        if (seal.root / "usr/lib/systemd/system" / unit).exists():
            enable(seal, unit, target, at="/usr/lib/systemd/system")
    # D-Bus starts them by their alias.
    for name, unit in (("network1", "systemd-networkd.service"), ("resolve1", "systemd-resolved.service")):
        if (seal.root / "usr/lib/systemd/system" / unit).exists():
            seal.link(
                f"etc/systemd/system/dbus-org.freedesktop.{name}.service", f"/usr/lib/systemd/system/{unit}"
            )
