# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that make a container believe it was born in a cloud: cloud-init's seed and a small Google guest agent."""

from __future__ import annotations

import io
import json
import tarfile

from .base import Machine

_SEED = "var/lib/cloud/seed/nocloud"
_GOOGLE = "var/lib/google"
_WANTS = "etc/systemd/system/multi-user.target.wants"

REBOOT_MARK = "/var/lib/cloud/sandbox-reboot"
"""There after a machine has shut down in order to boot again, which a container cannot do by itself."""

_SHUTDOWN_HOOK = f"""\
#!/bin/sh
[ "$1" != reboot ] || : >{REBOOT_MARK}
"""
_AGENT = """\
#!/bin/sh
# What the Google guest agent does with the ssh-keys of the metadata: accounts with sudo, and their keys.
set -eu
getent group google-sudoers >/dev/null || groupadd google-sudoers
echo '%google-sudoers ALL=(ALL:ALL) NOPASSWD:ALL' >/etc/sudoers.d/google_sudoers
chmod 0440 /etc/sudoers.d/google_sudoers
for keys in /var/lib/google/users/*; do
  [ -e "$keys" ] || continue
  user=${keys##*/}
  id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
  usermod --append --groups google-sudoers "$user"
  home=$(getent passwd "$user" | cut -d: -f6)
  install -d -m 0700 -o "$user" -g "$user" "$home/.ssh"
  install -m 0600 -o "$user" -g "$user" "$keys" "$home/.ssh/authorized_keys"
done
"""
_AGENT_UNIT = """\
[Unit]
Description=Google guest agent (sandbox)
After=cloud-config.service
Wants=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/google-guest-agent
"""
_SCRIPT_UNIT = """\
[Unit]
Description=Google startup script (sandbox)
After=network-online.target google-guest-agent.service ssh.service
Wants=network-online.target

[Service]
Type=oneshot
KillMode=process
ExecStart=/bin/sh -c 'exec /var/lib/google/startup-script'
"""
# At Hetzner the keys of the create request are root's, unless the user data makes users of its own.
_HETZNER_CONFIG = "users: []\ndisable_root: false\n"
_GOOGLE_CONFIG = "users: []\n"


def archive(machine: Machine) -> bytes:
    """A tar archive to be unpacked at ``/`` of the machine before it starts for the first time."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:

        def folder(path: str, mode: int) -> None:
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)

        def file(path: str, text: str, mode: int = 0o600) -> None:
            data = text.encode()
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))

        def enable(unit: str, text: str) -> None:
            file(f"etc/systemd/system/{unit}", text, 0o644)
            link = tarfile.TarInfo(f"{_WANTS}/{unit}")
            link.type, link.linkname = tarfile.SYMTYPE, f"/etc/systemd/system/{unit}"
            tar.addfile(link)

        metadata = {"instance-id": machine.key, "local-hostname": machine.hostname}
        folder(_SEED, 0o700)
        file(f"{_SEED}/meta-data", json.dumps({**metadata, "public-keys": list(machine.public_keys)}))
        file(f"{_SEED}/user-data", machine.user_data)
        file("usr/lib/systemd/system-shutdown/sandbox", _SHUTDOWN_HOOK, 0o755)
        config = _GOOGLE_CONFIG if machine.guest_agent else _HETZNER_CONFIG
        file("etc/cloud/cloud.cfg.d/91-cloud.cfg", config, 0o644)
        if machine.guest_agent:
            folder(_GOOGLE, 0o700)
            folder(f"{_GOOGLE}/users", 0o700)
            for user, keys in machine.ssh_users.items():
                file(f"{_GOOGLE}/users/{user}", "# Added by Google\n" + "\n".join(keys) + "\n")
            file("usr/local/sbin/google-guest-agent", _AGENT, 0o755)
            enable("google-guest-agent.service", _AGENT_UNIT)
            if machine.startup_script:
                file(f"{_GOOGLE}/startup-script", machine.startup_script, 0o700)
                enable("google-startup-scripts.service", _SCRIPT_UNIT)
    return stream.getvalue()
