# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: S101
"""An image that passes these gets its version. Each message is what the maker of the image reads."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import combinations
from typing import Any

import pytest

# What the image was declared with, and may have for that.
DECLARED = json.loads(os.environ.get("GPUMESH_GATE_DECLARED", "{}"))
OURS = {"base", "docker", "nvidia_driver", "gpu_runtime", "ai_frameworks", "monitoring", "validation"}
# Less than this is no room: partitions and file systems end at round numbers.
ROUND = 16 << 20


def layer(gate: Any, name: str) -> None:
    """Leave a test out where the layer that it is about is not in the image."""
    if name not in gate.inventory["layers"]:
        pytest.skip(f"the image has no layer {name}")


def differences(are: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """A few words for each entry that is not as it should be."""
    return [
        f"{name}: {are.get(name, 'missing')} instead of {wanted.get(name, 'nothing')}"
        for name in sorted(are.keys() | wanted.keys())
        if are.get(name) != wanted.get(name)
    ]


def without_first_verdict(are: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """A machine's layers, as they were before its first boot judged it: golden_image_first_boot_acceptance has that done, and the
    list was made before, when there was no verdict yet."""
    found, listed = are.get("validation", {}), wanted.get("validation", {})
    if listed.get("verdict", "") is not None or not found.get("verdict"):
        return are
    return {**are, "validation": {**listed, "from": found.get("from")}}


def test_boots_by_its_firmware(machine: dict[str, Any], firmware: str) -> None:
    assert machine["boot"] == firmware, f"The machine says that it was booted by {machine['boot']}"


def test_no_unit_failed(machine: dict[str, Any]) -> None:
    units = machine["units"]
    told = "; ".join(f"{unit} ({' / '.join(why.splitlines())})" for unit, why in units["failed"].items())
    assert not units["failed"], f"Units failed at the first boot: {told}"
    assert units["state"] == "running", f"systemd says that the machine is '{units['state']}', not 'running'"


def test_cloud_init_is_done(machine: dict[str, Any]) -> None:
    cloud = machine["cloud"]
    assert cloud.get("status") == "done", f"cloud-init is {cloud.get('status')}: {cloud.get('errors')}"
    assert not cloud.get("errors"), f"cloud-init made errors: {cloud['errors']}"
    complaints = {
        level: said for level, said in cloud.get("recoverable_errors", {}).items() if level != "DEPRECATED"
    }
    assert not complaints, f"cloud-init complains: {complaints}"


def test_name_comes_from_the_seed(machine: dict[str, Any], firmware: str) -> None:
    assert machine["hostname"] == f"gate-{firmware}", (
        f"The host name is {machine['hostname']}, not the seed's"
    )


def test_kernel_is_the_images(gate: Any, machine: dict[str, Any]) -> None:
    assert machine["kernel"] == gate.inventory["kernels"][-1], (
        f"Linux {machine['kernel']} was booted, and the image's newest is {gate.inventory['kernels'][-1]}"
    )


def test_modules_are_for_the_kernel(machine: dict[str, Any]) -> None:
    assert machine["modules"]["listed"] > 0, (
        f"Linux {machine['kernel']} has no modules.dep, so it can load nothing"
    )
    foreign = {
        name: said
        for name, said in machine["modules"]["asked"].items()
        if said.split()[:1] != [machine["kernel"]]
    }
    assert not foreign, f"Modules that Linux {machine['kernel']} cannot load: {foreign}"


def test_packages_are_those_of_the_list(gate: Any, machine: dict[str, Any]) -> None:
    wanted = {
        f"{each['name']}:{each['architecture']}": each["version"] for each in gate.inventory["packages"]
    }
    differ = differences(machine["packages"], wanted)
    assert wanted, "The list of packages is empty"
    assert not differ, f"Packages are not as listed: {', '.join(differ[:10])}"


def test_layers_are_those_of_the_list(gate: Any, machine: dict[str, Any]) -> None:
    wanted = gate.inventory["layers"]
    differ = differences(without_first_verdict(machine["layers"], wanted), wanted)
    assert not differ, f"The layers' facts are not as listed: {differ}"


def test_declared_layers_have_their_facts(gate: Any, machine: dict[str, Any]) -> None:
    # What is asked below of a layer is asked only where its facts are.
    missing = sorted((set(machine["image"].get("layers", [])) & OURS) - set(gate.inventory["layers"]))
    assert not missing, f"The image is to have the layers {missing}, and none of them left its facts"


def test_root_has_grown(machine: dict[str, Any]) -> None:
    left = machine["disk"]
    assert None not in left.values(), "It cannot be told how large the root file system and its disk are"
    assert left["behind_partition"] < ROUND, (
        f"{left['behind_partition'] >> 20} MiB of the disk are behind the root's partition: it did not grow"
    )
    assert left["behind_files"] < ROUND, (
        f"The root file system leaves {left['behind_files'] >> 20} MiB of its partition: it did not grow"
    )


def test_file_systems_are_mounted(machine: dict[str, Any]) -> None:
    assert not machine["fstab"], f"/etc/fstab names {machine['fstab']}, which are not mounted"


def test_names_are_resolved(machine: dict[str, Any]) -> None:
    assert machine["resolv"].startswith("/run/systemd/resolve/"), (
        f"/etc/resolv.conf is {machine['resolv']}, not systemd-resolved's"
    )
    assert "127.0.0.1" in machine["hosts"], "/etc/hosts does not name localhost"


def test_login_message_names_the_image(machine: dict[str, Any]) -> None:
    image = machine["image"]
    assert image.get("fingerprint"), "There is no /etc/gpumesh/image.json"
    assert image["name"] in machine["motd"], "The login message does not name the image"
    assert image["fingerprint"][:12] in machine["motd"], (
        "The login message does not name the image's fingerprint"
    )


def test_first_boot_was_noted(machine: dict[str, Any], gate: Any, firmware: str) -> None:
    assert machine["first_boot"].get("machine_id") == gate.boots[firmware]["machine_id"], (
        "gpumesh-first-boot.service did not come to its end: see 'journalctl -u gpumesh-first-boot'"
    )


def test_only_the_seeds_key_opens_an_account(gate: Any, machine: dict[str, Any], firmware: str) -> None:
    with open(f"{gate.boots[firmware]['key']}.pub", encoding="ascii") as file:
        own = file.read().split()[1]
    foreign = {
        path: lines for path, lines in machine["keys"].items() if any(own not in line for line in lines)
    }
    # cloud-init gives root the same key, with a command that only says to use the other account.
    assert machine["keys"], "The seed's key was put nowhere"
    assert not foreign, f"Keys that are not the machine's own: {foreign}"


def test_no_account_has_a_password(gate: Any, machine: dict[str, Any]) -> None:
    shared = set(machine["passwords"]) - set(DECLARED.get("passwords", []))
    assert not shared, f"Every machine of the image has the same password for {sorted(shared)}"


def test_no_trace_of_the_builder(machine: dict[str, Any]) -> None:
    assert not machine["traces"], f"Left from the build: {machine['traces']}"
    declared = {(DECLARED.get("proxy") or "").rstrip("/")}
    # Without the addresses, which may have a password.
    strange = sorted(path for path, named in machine["proxies"].items() if set(named) - declared)
    assert not strange, f"A proxy that is not the machine's is named in {strange}"


def test_machines_differ(gate: Any) -> None:
    boots = list(gate.boots.values())
    if len(boots) < 2:
        pytest.skip("one machine was booted; golden_image_gate_firmware has but one entry")
    for one, other in combinations(boots, 2):
        names = f"The machines booted by {one['firmware']} and {other['firmware']}"
        assert one["machine_id"], f"{names}: one has no machine id"
        assert one["machine_id"] != other["machine_id"], (
            f"{names} have the same machine id {one['machine_id']}"
        )
        shared = set(one["host_keys"]) & set(other["host_keys"])
        assert one["host_keys"], f"{names}: one has no host key"
        assert not shared, f"{names} share host keys: {sorted(shared)}"


def test_planted_host_key_is_the_only_one(gate: Any) -> None:
    planted = [boot for boot in gate.boots.values() if boot["planted"]]
    if not planted:
        pytest.skip("no machine was given a host key; golden_image_gate_firmware has no bios")
    for boot in planted:
        assert boot["host_keys"] == [boot["planted"]], (
            f"The machine booted by {boot['firmware']} has host keys that nobody knows in advance: {boot['host_keys']}"
        )


def test_offers_no_password_to_anyone(gate: Any, firmware: str, seen: dict[str, Any]) -> None:
    for user in (gate.boots[firmware]["user"], "root"):
        said = gate.ssh(firmware, "-o", "PreferredAuthentications=none", user=user).stderr
        assert "Permission denied" in said, f"{user} was not refused: {said.strip()}"
        assert "(publickey)" in said, f"{user} may log in by other means than a key: {said.strip()}"


def test_foreign_keys_open_nothing(gate: Any, firmware: str, seen: dict[str, Any]) -> None:
    others = [boot["key"] for name, boot in gate.boots.items() if name != firmware]
    # The first are those of whoever builds: their own files and their agent.
    for options in (
        [],
        *(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-i", key] for key in others),
    ):
        ran: subprocess.CompletedProcess[str] = gate.ssh(firmware, *options)
        assert ran.returncode != 0, "A key that is not the machine's own opens it"
        assert "Permission denied" in ran.stderr, f"A foreign key was not refused: {ran.stderr.strip()}"


def test_base_sshd_is_hardened(gate: Any, machine: dict[str, Any]) -> None:
    layer(gate, "base")
    wanted = (
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "permitemptypasswords no",
        "x11forwarding no",
    )
    missing = [line for line in wanted if line not in machine["sshd"]]
    assert not missing, f"sshd does not have: {', '.join(missing)}"
    assert "permitrootlogin yes" not in machine["sshd"], "sshd lets root in by any means"


def test_base_firewall_denies(gate: Any, machine: dict[str, Any]) -> None:
    layer(gate, "base")
    if not any(name.startswith("ufw:") for name in machine["packages"]):
        pytest.skip("the image has no ufw: base_firewall_enabled is false")
    assert "Status: active" in machine["ufw"], f"The firewall is not active: {machine['ufw']}"
    assert "deny (incoming)" in machine["ufw"], f"The firewall lets in what is not declared: {machine['ufw']}"


def test_base_bans_who_guesses(gate: Any, machine: dict[str, Any]) -> None:
    layer(gate, "base")
    if not any(name.startswith("fail2ban:") for name in machine["packages"]):
        pytest.skip("the image has no fail2ban: base_fail2ban_enabled is false")
    assert "Status for the jail: sshd" in machine["fail2ban"], (
        f"fail2ban does not watch sshd: {machine['fail2ban']}"
    )


def test_docker_runs_a_container(gate: Any, seen: dict[str, Any]) -> None:
    layer(gate, "docker")
    found = next(iter(seen.values()))
    assert "problem" not in found, found.get("problem")
    assert found["docker"]["status"] == 0, f"Docker does not answer: {found['docker']['says']}"
    container = found["docker"]["container"]
    assert container["status"] == 0, f"Docker runs no container: {container['says']}"


def test_driver_has_its_modules(gate: Any, machine: dict[str, Any]) -> None:
    layer(gate, "nvidia_driver")
    names = [name for name in machine["modules"]["asked"] if name.startswith("nvidia")]
    assert names, f"The image has the driver's layer, and no module of NVIDIA's for Linux {machine['kernel']}"
