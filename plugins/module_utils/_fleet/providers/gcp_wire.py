# SPDX-License-Identifier: GPL-3.0-or-later
"""What we send to Compute Engine and what we make of its answers. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..firstboot import FirstBoot
from ..images.reference import GoldenReference
from ..machines import FLEET_LABEL, MACHINE_LABEL, Instance, State
from . import gcp_prices, gcp_shapes
from .gcp_models import GcpMachine, seconds

Json = Mapping[str, Any]

INSTANCE_FIELDS = (
    "id,name,status,zone,machineType,labels,creationTimestamp,guestAccelerators,scheduling/provisioningModel,"
    "networkInterfaces(networkIP,accessConfigs/natIP,ipv6AccessConfigs/externalIpv6)"
)
"""The part of an instance that :func:`instance` reads: a sixth of the whole."""

_STATES: Mapping[str, State] = {
    "PENDING": State.CREATING,
    "PROVISIONING": State.CREATING,
    "STAGING": State.CREATING,
    "RUNNING": State.RUNNING,
    "PENDING_STOP": State.STOPPING,
    "STOPPING": State.STOPPING,
    "SUSPENDING": State.STOPPING,
    "STOPPED": State.STOPPED,
    "SUSPENDED": State.STOPPED,
    "TERMINATED": State.STOPPED,
    "DEPROVISIONING": State.DELETING,
}

_HYPERDISK_ONLY = re.compile(r"^(?:a4|a4x|c4|c4a|c4d|g4|n4|n4a|n4d)-")
_HOST_KEY = re.compile(r"^(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521))$")
_BASE64 = re.compile(r"^[A-Za-z0-9+/]{40,}={0,2}$")


def last(url: str | None) -> str:
    """The name at the end of one of Google's URLs."""
    return (url or "").rpartition("/")[2]


def instance(raw: Json, provider: str = "gcp") -> Instance:
    """An instance in our words."""
    zone = last(raw.get("zone"))
    machine_type = last(raw.get("machineType"))
    cloud_state = str(raw.get("status") or "")
    state = _STATES.get(cloud_state, State.UNKNOWN)
    gpu_model, gpu_count = _gpus(raw, machine_type)
    nic: Json = next(iter(raw.get("networkInterfaces") or ()), {})
    spot = (raw.get("scheduling") or {}).get("provisioningModel") == "SPOT"
    labels = dict(raw.get("labels") or {})
    golden = GoldenReference.of_labels(labels)
    price = (
        gcp_prices.stopped_price()
        if state is State.STOPPED
        else gcp_prices.price(machine_type, zone, gpu_model=gpu_model, gpu_count=gpu_count, spot=spot)
    )
    return Instance(
        provider=provider,
        id=str(raw.get("id") or ""),
        name=str(raw.get("name") or ""),
        state=state,
        cloud_state=cloud_state,
        zone=zone,
        type=machine_type,
        # Google does not say what an instance was made from. Of ours the labels do, which its making gave it.
        image=str(golden) if golden else None,
        created=raw.get("creationTimestamp"),
        public_ip=_first(nic.get("accessConfigs"), "natIP"),
        public_ipv6=_first(nic.get("ipv6AccessConfigs"), "externalIpv6"),
        private_ip=nic.get("networkIP"),
        labels=labels,
        gpu_model=gpu_model,
        gpu_count=gpu_count,
        price=price,
    )


def _gpus(raw: Json, machine_type: str) -> tuple[str | None, int]:
    """Model and number of GPUs: those attached, or those the machine type has."""
    for accelerator in raw.get("guestAccelerators") or ():
        if count := int(accelerator.get("acceleratorCount") or 0):
            return gcp_shapes.gpu_of_accelerator(last(accelerator.get("acceleratorType"))), count
    has = gcp_shapes.shape(machine_type)
    return (has.gpu_model, has.gpu_count) if has else (None, 0)


def _first(entries: Iterable[Json] | None, key: str) -> str | None:
    return next((str(entry[key]) for entry in entries or () if entry.get(key)), None)


def host_keys(guest_attributes: Json) -> tuple[str, ...]:
    """The host keys the guest agent published, best first. Whatever does not look like one is left out."""
    items = (guest_attributes.get("queryValue") or {}).get("items") or ()
    keys = [
        f"{item['key']} {item['value']}"
        for item in items
        if item.get("namespace") == "hostkeys"
        and _HOST_KEY.match(str(item.get("key")))
        and _BASE64.match(str(item.get("value")))
    ]
    return tuple(sorted(keys, key=lambda key: (not key.startswith("ssh-ed25519"), key)))


def insert_body(
    machine: GcpMachine, zone: str, boot: FirstBoot, *, fleet: str, project: str, tags: Sequence[str]
) -> dict[str, Any]:
    """The request that makes an instance.

    Args:
        machine: what is declared.
        zone: where, one of ``machine.zones``.
        boot: what it is told at birth.
        fleet: name of the fleet.
        project: id of the project.
        tags: network tags by which firewall rules find it.
    """
    made_from = machine.golden.gcp_labels if machine.golden else {}
    labels = {**machine.labels, **made_from, FLEET_LABEL: fleet, MACHINE_LABEL: machine.name}
    disk_type = machine.disk_type or (
        "hyperdisk-balanced" if _HYPERDISK_ONLY.match(machine.type) else "pd-balanced"
    )
    nic: dict[str, Any] = {
        "network": f"global/networks/{machine.network}",
        "accessConfigs": [{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}],
    }
    if machine.subnetwork:
        nic["subnetwork"] = f"regions/{gcp_shapes.region_of(zone)}/subnetworks/{machine.subnetwork}"
    body: dict[str, Any] = {
        "name": machine.name,
        "machineType": f"zones/{zone}/machineTypes/{machine.type}",
        "labels": labels,
        "tags": {"items": list(tags)},
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "initializeParams": {
                    "sourceImage": machine.source_image(project),
                    "diskSizeGb": str(machine.disk_gb),
                    "diskType": f"zones/{zone}/diskTypes/{disk_type}",
                    "labels": labels,
                },
            }
        ],
        "networkInterfaces": [nic],
        "scheduling": _scheduling(machine),
        "metadata": {
            "items": [{"key": key, "value": value} for key, value in _metadata(machine, boot).items()]
        },
        "deletionProtection": False,
    }
    gpu_model, gpu_count = machine.gpus
    if gpu_model is not None and gpu_model in gcp_shapes.N1_LIMITS:
        accelerator = f"zones/{zone}/acceleratorTypes/{gcp_shapes.GPU_NAMES[gpu_model][0]}"
        body["guestAccelerators"] = [{"acceleratorType": accelerator, "acceleratorCount": gpu_count}]
    if machine.has_known_image:
        # Secure Boot would refuse the NVIDIA module, which is built on the machine and signed by nobody the firmware knows.
        body["shieldedInstanceConfig"] = {
            "enableSecureBoot": gpu_model is None,
            "enableVtpm": True,
            "enableIntegrityMonitoring": True,
        }
    if machine.service_account:
        scope = "https://www.googleapis.com/auth/cloud-platform"
        body["serviceAccounts"] = [{"email": machine.service_account, "scopes": [scope]}]
    return body


def _scheduling(machine: GcpMachine) -> dict[str, Any]:
    scheduling: dict[str, Any] = {"provisioningModel": "SPOT" if machine.spot else "STANDARD"}
    if machine.gpu is not None or machine.spot:
        # A machine with a GPU cannot be moved while it runs; Google refuses to make one that could be.
        scheduling["onHostMaintenance"] = "TERMINATE"
    if machine.spot:
        scheduling["automaticRestart"] = False
    if machine.max_run:
        scheduling["maxRunDuration"] = {"seconds": str(seconds(machine.max_run))}
    if machine.spot or machine.max_run:
        scheduling["instanceTerminationAction"] = machine.when_ended.upper()
    return scheduling


def _metadata(machine: GcpMachine, boot: FirstBoot) -> dict[str, str]:
    """What the guest agent and cloud-init read."""
    metadata = {
        "ssh-keys": "\n".join(f"{boot.user}:{key.strip()}" for key in boot.authorized_keys),
        # Whoever may log in is declared in the fleet file, and nowhere else.
        "block-project-ssh-keys": "TRUE",
        "enable-oslogin": "FALSE",
        # The agent publishes the SSH host keys there.
        "enable-guest-attributes": "TRUE",
        "user-data": boot.cloud_config(),
    }
    if not machine.has_cloud_init:
        metadata["startup-script"] = startup_script(boot)
    return metadata


def startup_script(boot: FirstBoot) -> str:
    """What an image without cloud-init runs at every boot: it makes the administrator account, once.

    The guest agent does the same from ``ssh-keys``; whoever comes second finds the work done.
    """
    user, keys = shlex.quote(boot.user), shlex.quote("\n".join(key.strip() for key in boot.authorized_keys))
    return f"""#!/bin/sh
# From gpumesh.fleet. Works once; after that the account is what its administrator makes of it.
set -eu
umask 022
done=/var/lib/gpumesh/first-boot
if [ -e "$done" ] || command -v cloud-init >/dev/null; then exit 0; fi
user={user}
keys={keys}
id -u "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user" || id -u "$user" >/dev/null
home=$(getent passwd "$user" | cut -d: -f6)
group=$(id -gn "$user")
install -d -m 0700 -o "$user" -g "$group" "$home/.ssh"
touch "$home/.ssh/authorized_keys"
printf '%s\\n' "$keys" | while IFS= read -r key; do
  grep -qxF -- "$key" "$home/.ssh/authorized_keys" || printf '%s\\n' "$key" >> "$home/.ssh/authorized_keys"
done
chmod 0600 "$home/.ssh/authorized_keys"
chown "$user:$group" "$home/.ssh/authorized_keys"
(umask 0337; printf '%s ALL=(ALL) NOPASSWD:ALL\\n' "$user" > /etc/sudoers.d/90-gpumesh)
mkdir -p "${{done%/*}}"
touch "$done"
"""
