# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent to Compute Engine, judged by its discovery document, and what is made of its answers."""

from __future__ import annotations

import subprocess
from typing import Any

import jsonschema
import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import firstboot
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.machines import Instance, State
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import (
    gcp_firewall,
    gcp_shapes,
    gcp_wire,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_models import (
    IMAGES,
    GcpMachine,
)
from ansible_collections.gpumesh.fleet.tests.compute import (
    BOOT,
    FLEET,
    PROJECT,
    ZONE,
    check_body,
    machine,
    raw_instance,
)
from hypothesis import given
from hypothesis import strategies as st

TAG = "gpumesh-minerals-ssh"
OWN = "gpumesh-minerals-12345678-ssh"


def body(wanted: GcpMachine, zone: str = ZONE, boot: firstboot.FirstBoot = BOOT) -> dict[str, Any]:
    made = gcp_wire.insert_body(wanted, zone, boot, fleet=FLEET, project=PROJECT, tags=(TAG, OWN))
    check_body("Instance", made)
    return made


def metadata(made: dict[str, Any]) -> dict[str, str]:
    return {item["key"]: item["value"] for item in made["metadata"]["items"]}


def test_the_judge_refuses_what_the_api_refuses() -> None:
    made = body(machine())
    made["disks"][0]["initializeParams"]["diskSizeGb"] = 20
    with pytest.raises(jsonschema.ValidationError, match="20 is not of type"):
        check_body("Instance", made)
    for scheduling in ({"onHostMaintenence": "TERMINATE"}, {"provisioningModel": "spot"}):
        with pytest.raises(jsonschema.ValidationError):
            check_body("Instance", {"scheduling": scheduling})


def test_a_plain_machine() -> None:
    made = body(machine(disk_gb=50, labels={"team": "geology"}))
    assert made["name"] == "galena"
    assert made["machineType"] == f"zones/{ZONE}/machineTypes/e2-standard-8"
    assert made["labels"] == {"team": "geology", "gpumesh-fleet": FLEET, "gpumesh-machine": "galena"}
    assert made["tags"] == {"items": [TAG, OWN]}
    (disk,) = made["disks"]
    assert disk["boot"] and disk["autoDelete"]
    assert disk["initializeParams"] == {
        "sourceImage": "projects/debian-cloud/global/images/family/debian-13",
        "diskSizeGb": "50",
        "diskType": f"zones/{ZONE}/diskTypes/pd-balanced",
        "labels": made["labels"],
    }
    (nic,) = made["networkInterfaces"]
    assert nic == {
        "network": "global/networks/default",
        "accessConfigs": [{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}],
    }
    assert made["scheduling"] == {"provisioningModel": "STANDARD"}
    assert made["shieldedInstanceConfig"]["enableSecureBoot"] is True
    assert made["deletionProtection"] is False
    assert "serviceAccounts" not in made and "guestAccelerators" not in made


def test_a_t4_is_attached_to_n1_and_the_machine_can_be_terminated() -> None:
    made = body(machine(type="n1-standard-8", gpu={"model": "t4", "count": 2}), "us-central1-a")
    accelerator = "zones/us-central1-a/acceleratorTypes/nvidia-tesla-t4"
    assert made["guestAccelerators"] == [{"acceleratorType": accelerator, "acceleratorCount": 2}]
    assert made["scheduling"]["onHostMaintenance"] == "TERMINATE"
    assert made["shieldedInstanceConfig"]["enableSecureBoot"] is False
    assert made["machineType"].startswith("zones/us-central1-a/")


@pytest.mark.parametrize("machine_type", ["g2-standard-8", "a2-highgpu-1g", "a3-highgpu-8g"])
def test_a_gpu_that_is_built_in_is_not_attached_once_more(machine_type: str) -> None:
    made = body(machine(type=machine_type))
    assert "guestAccelerators" not in made
    assert made["scheduling"]["onHostMaintenance"] == "TERMINATE"
    assert made["shieldedInstanceConfig"]["enableSecureBoot"] is False


def test_spot_and_a_limit_on_the_running_time() -> None:
    assert body(machine(spot=True))["scheduling"] == {
        "provisioningModel": "SPOT",
        "onHostMaintenance": "TERMINATE",
        "automaticRestart": False,
        "instanceTerminationAction": "STOP",
    }
    assert body(machine(max_run="8h", when_ended="delete"))["scheduling"] == {
        "provisioningModel": "STANDARD",
        "maxRunDuration": {"seconds": "28800"},
        "instanceTerminationAction": "DELETE",
    }


def test_who_may_log_in_comes_from_the_fleet_file_alone() -> None:
    boot = firstboot.FirstBoot("admin", ("ssh-ed25519 AAAA one\n", "ssh-rsa BBBB two"))
    found = metadata(body(machine(), boot=boot))
    assert found["ssh-keys"] == "admin:ssh-ed25519 AAAA one\nadmin:ssh-rsa BBBB two"
    assert found["block-project-ssh-keys"] == "TRUE"
    assert found["enable-oslogin"] == "FALSE"
    assert found["enable-guest-attributes"] == "TRUE"
    assert found["user-data"] == boot.cloud_config()


def test_an_image_without_cloud_init_gets_a_startup_script() -> None:
    assert "startup-script" in metadata(body(machine(image="debian-12")))
    assert "startup-script" not in metadata(body(machine(image="ubuntu-24.04")))


def test_the_startup_script_is_a_shell_script_whatever_the_keys_hold() -> None:
    boot = firstboot.FirstBoot("admin", ("ssh-ed25519 AAAA o'neil $(touch /tmp/x) `id`",))
    script = gcp_wire.startup_script(boot)
    done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    keys = script.partition("\nkeys=")[2].partition("\nid -u")[0]
    shown = subprocess.run(
        ["sh", "-c", f'keys={keys}; printf %s "$keys"'], text=True, capture_output=True, check=True
    )
    assert shown.stdout == boot.authorized_keys[0]


def test_network_subnetwork_and_service_account() -> None:
    made = body(
        machine(
            network="lab", subnetwork="bench", service_account="robot@my-project.iam.gserviceaccount.com"
        ),
        "europe-west4-a",
    )
    (nic,) = made["networkInterfaces"]
    assert nic["network"] == "global/networks/lab"
    assert nic["subnetwork"] == "regions/europe-west4/subnetworks/bench"
    assert made["serviceAccounts"][0]["email"] == "robot@my-project.iam.gserviceaccount.com"


@pytest.mark.parametrize(
    ("machine_type", "image", "source"),
    [
        ("e2-standard-8", "debian-12", "projects/debian-cloud/global/images/family/debian-12"),
        ("t2a-standard-4", "debian-12", "projects/debian-cloud/global/images/family/debian-12-arm64"),
        (
            "e2-standard-8",
            "ubuntu-24.04",
            "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64",
        ),
        (
            "t2a-standard-4",
            "ubuntu-24.04",
            "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-arm64",
        ),
        ("e2-standard-8", "golden-1", f"projects/{PROJECT}/global/images/golden-1"),
        ("e2-standard-8", "family/golden", f"projects/{PROJECT}/global/images/family/golden"),
        ("e2-standard-8", "projects/a-b/global/images/c", "projects/a-b/global/images/c"),
    ],
)
def test_images(machine_type: str, image: str, source: str) -> None:
    made = body(machine(type=machine_type, image=image))
    assert made["disks"][0]["initializeParams"]["sourceImage"] == source
    assert ("shieldedInstanceConfig" in made) == (image in IMAGES)


def test_families_that_take_hyperdisks_only_get_one() -> None:
    for machine_type, disk in (("c4-standard-8", "hyperdisk-balanced"), ("c3-standard-8", "pd-balanced")):
        made = body(machine(type=machine_type))
        assert made["disks"][0]["initializeParams"]["diskType"].endswith(f"/{disk}")
    made = body(machine(type="c4-standard-8", disk_type="hyperdisk-extreme"))
    assert made["disks"][0]["initializeParams"]["diskType"].endswith("/hyperdisk-extreme")


FITTING = [
    (machine_type, {"model": model, "count": count})
    for machine_type in gcp_shapes.machine_types()
    for model in gcp_shapes.GPU_NAMES
    for count in (1, 2, 4, 8, 16)
    if gcp_shapes.check(machine_type, model, count) is None
]


@given(
    st.sampled_from([*FITTING, *((machine_type, None) for machine_type in gcp_shapes.machine_types())]),
    st.sampled_from([*IMAGES, "golden"]),
    st.none() | st.sampled_from(["30s", "90m", "8h", "120d"]),
    st.sampled_from(["stop", "delete"]),
    st.integers(10, 65536),
)
def test_every_machine_that_can_be_declared_makes_a_valid_request(
    fitting: tuple[str, dict[str, Any] | None], image: str, max_run: str | None, ended: str, disk: int
) -> None:
    machine_type, gpu = fitting
    made = body(
        machine(
            type=machine_type,
            gpu=gpu,
            image=image,
            max_run=max_run,
            when_ended=ended,
            disk_gb=disk,
            spot=True,
        )
    )
    has = gcp_shapes.shape(machine_type)
    assert has is not None
    assert ("guestAccelerators" in made) == (gpu is not None and has.gpu_model is None)
    # What is made is read back as what was declared.
    seen = gcp_wire.instance(
        raw_instance("galena", type=machine_type, guestAccelerators=made.get("guestAccelerators", []))
    )
    expected = (gpu["model"], gpu["count"]) if gpu else (has.gpu_model, has.gpu_count)
    assert (seen.gpu_model, seen.gpu_count) == expected


# Instances


def test_an_instance_in_our_words_survives_the_cache() -> None:
    raw = raw_instance(
        "scheelite",
        type="n1-standard-8",
        guestAccelerators=[
            {
                "acceleratorType": f"https://www.googleapis.com/compute/v1/projects/p/zones/{ZONE}/acceleratorTypes/nvidia-tesla-t4",
                "acceleratorCount": 1,
            }
        ],
    )
    check_body("Instance", raw)
    found = gcp_wire.instance(raw)
    assert (found.provider, found.name, found.zone, found.type) == ("gcp", "scheelite", ZONE, "n1-standard-8")
    assert (found.fleet, found.machine) == (FLEET, "scheelite")
    assert (found.public_ip, found.private_ip) == ("203.0.113.7", "10.128.0.2")
    assert (found.gpu_model, found.gpu_count) == ("t4", 1)
    assert str(found.price.hourly) == "0.73000"
    assert Instance.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("PENDING", State.CREATING),
        ("PROVISIONING", State.CREATING),
        ("STAGING", State.CREATING),
        ("RUNNING", State.RUNNING),
        ("STOPPING", State.STOPPING),
        ("PENDING_STOP", State.STOPPING),
        ("SUSPENDING", State.STOPPING),
        ("STOPPED", State.STOPPED),
        ("TERMINATED", State.STOPPED),
        ("SUSPENDED", State.STOPPED),
        ("DEPROVISIONING", State.DELETING),
        ("REPAIRING", State.UNKNOWN),
        ("", State.UNKNOWN),
    ],
)
def test_states(status: str, state: State) -> None:
    found = gcp_wire.instance(raw_instance("galena", status=status))
    assert (found.state, found.cloud_state) == (state, status)
    assert (found.price.hourly is None) == (state is State.STOPPED)


def test_an_instance_of_which_little_is_known() -> None:
    found = gcp_wire.instance({"id": "1", "name": "bare"})
    assert (found.state, found.public_ip, found.labels, found.gpu_count) == (State.UNKNOWN, None, {}, 0)


def test_spot_capacity_is_priced_as_such() -> None:
    found = gcp_wire.instance(raw_instance("galena", scheduling={"provisioningModel": "SPOT"}))
    assert str(found.price.hourly) == "0.11758"


# Firewall


def rule(sources: tuple[str, ...], port: int = 22, **given: Any) -> gcp_firewall.SshRule:
    return gcp_firewall.ssh_rule(FLEET, machine(**given), sources, port)


def test_firewall_rules_are_valid_and_open_no_more_than_is_declared() -> None:
    for firewall in rule(("198.51.100.0/24", "2001:db8::/32"), 2222).firewalls(FLEET).values():
        assert firewall is not None
        check_body("Firewall", firewall)
        assert "2001:db8::/32" not in firewall["sourceRanges"]
        assert (firewall.get("allowed") or firewall["denied"])[0]["ports"] == ["22", "2222"]


def test_a_rule_without_sources_would_open_to_all_so_there_is_none() -> None:
    closed = rule(("2001:db8::/32",)).firewalls(FLEET)
    assert closed[TAG] is None
    assert closed[f"{TAG}-deny"] is not None


def test_nothing_is_denied_where_all_may_come_in() -> None:
    assert rule(("0.0.0.0/0", "::/0")).firewalls(FLEET)[f"{TAG}-deny"] is None


@given(
    st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True),
    st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True),
    st.sampled_from(["default", "lab"]),
    st.booleans(),
)
def test_names_of_rules_are_names(fleet: str, name: str, network: str, own: bool) -> None:
    given = machine(name, network=network, ssh_sources=("198.51.100.0/24",) if own else None)
    made = gcp_firewall.ssh_rule(fleet, given, ("198.51.100.0/24",), 22).firewalls(fleet)
    for firewall in made.values():
        assert firewall is not None
        jsonschema.validate(firewall["name"], {"pattern": "^[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?$"})


def test_what_a_machine_declares_itself_comes_before_what_the_fleet_declares() -> None:
    own = [one for one in rule((), ssh_sources=()).firewalls(FLEET).values() if one]
    fleets = [one for one in rule(("198.51.100.0/24",)).firewalls(FLEET).values() if one]
    assert [one["priority"] for one in own] == [891] and [one["priority"] for one in fleets] == [900, 901]
    assert gcp_firewall.tags(FLEET, machine()) == (fleets[0]["targetTags"][0], own[0]["targetTags"][0])


def test_rules_of_different_machines_networks_and_fleets_differ() -> None:
    own = ("198.51.100.0/24",)
    tags = [
        rule(own).tag,
        rule(own, network="lab").tag,
        rule(own, ssh_sources=own).tag,
        rule(own, name="opal", ssh_sources=own).tag,
        gcp_firewall.ssh_rule("m" * 63, machine(), own, 22).tag,
        gcp_firewall.ssh_rule("m" * 62 + "n", machine(), own, 22).tag,
    ]
    assert len(set(tags)) == len(tags)


OTHER: dict[str, Any] = {
    "name": "other",
    "network": "global/networks/default",
    "direction": "INGRESS",
    "priority": 100,
    "sourceRanges": ["0.0.0.0/0"],
    "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, True),
        ({"allowed": [{"IPProtocol": "all"}]}, True),
        ({"allowed": [{"IPProtocol": "TCP"}]}, True),
        ({"targetTags": [TAG]}, True),
        ({"sourceRanges": ["198.51.0.0/16"]}, True),
        ({"priority": 65534}, False),
        ({"priority": gcp_firewall.DENY_PRIORITY}, False),
        ({"disabled": True}, False),
        ({"direction": "EGRESS"}, False),
        ({"network": "global/networks/lab"}, False),
        ({"targetTags": ["web"]}, False),
        ({"targetServiceAccounts": ["a@b"]}, False),
        ({"allowed": [{"IPProtocol": "tcp", "ports": ["80", "443"]}]}, False),
        ({"allowed": [{"IPProtocol": "udp"}]}, False),
        ({"sourceRanges": ["198.51.100.128/25"]}, False),
        ({"sourceRanges": ["::/0"]}, False),
        ({"name": TAG}, False),
    ],
)
def test_only_a_rule_that_beats_ours_and_lets_more_in_is_told(change: dict[str, Any], told: bool) -> None:
    notes = gcp_firewall.wider_rules([{**OTHER, **change}], rule(("198.51.100.0/24",)))
    assert bool(notes) == told
