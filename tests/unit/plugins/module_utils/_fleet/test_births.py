# SPDX-License-Identifier: GPL-3.0-or-later
"""What new machines are given: read before anything is bought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.births import first_boots
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.firstboot import FirstBoot
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.spec import Defaults, FleetSpec
from ansible_collections.gpumesh.fleet.tests.little_cloud import (
    LittleCloud,
    PassingClock,
    fleet,
    kinds,
    machine,
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKqGIzk1cB8bGPW9Jr2HZkTLvfrZJm5zTjvb5fGqzQ4F somebody"
IRON = LittleCloud("iron", PassingClock())


def spec_in(folder: Path, *machines: Any, keys: tuple[str, ...] = ("key.pub",)) -> FleetSpec:
    return fleet(*machines, base_dir=str(folder), defaults=Defaults(user="root-ish", ssh_keys=keys))


def born(spec: FleetSpec, *, plants: bool = False) -> dict[str, FirstBoot]:
    return first_boots(spec, kinds(IRON, plants=plants), spec.machines.values())  # type: ignore[arg-type]


def test_keys_of_all_files_without_comments_and_repeats(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(f"# mine\n\n{KEY}\n")
    (tmp_path / "more.pub").write_text(
        f"{KEY}\necdsa-sha2-nistp256 AAAA\nsk-ssh-ed25519@openssh.com AAAA x\n"
    )
    boots = born(spec_in(tmp_path, machine("ore"), machine("zinc", user="zoe"), keys=("key.pub", "more.pub")))
    assert boots["ore"].authorized_keys == (
        KEY,
        "ecdsa-sha2-nistp256 AAAA",
        "sk-ssh-ed25519@openssh.com AAAA x",
    )
    assert (boots["ore"].user, boots["zinc"].user) == ("root-ish", "zoe")


def test_each_machine_has_a_planted_key_of_its_own_where_the_cloud_has_no_channel(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(KEY)
    spec = spec_in(tmp_path, machine("ore"), machine("zinc"))
    planted = {name: boot.host_key for name, boot in born(spec, plants=True).items()}
    assert planted["ore"] and planted["zinc"] and planted["ore"].public != planted["zinc"].public
    assert all(boot.host_key is None for boot in born(spec).values())


def test_user_data_is_taken_along(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(KEY)
    (tmp_path / "extra.yml").write_text("packages: [jq]\n")
    boots = born(spec_in(tmp_path, machine("ore", user_data="extra.yml")))
    assert "jq" in boots["ore"].cloud_config()


@pytest.mark.parametrize("text", ["", "\n", "#cloud-config\n", "# nothing yet\n---\n"])
def test_user_data_that_says_nothing_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "key.pub").write_text(KEY)
    (tmp_path / "extra.yml").write_text(text)
    boots = born(spec_in(tmp_path, machine("ore", user_data="extra.yml")))
    assert boots["ore"].cloud_config() == born(spec_in(tmp_path, machine("ore")))["ore"].cloud_config()


def test_nothing_is_read_for_nobody(tmp_path: Path) -> None:
    assert born(spec_in(tmp_path)) == {}


@pytest.mark.parametrize(
    ("files", "fields", "says"),
    [
        ({}, {}, r"key\.pub, named in defaults\.ssh_keys, cannot be read: No such file"),
        ({"key.pub": "not a key"}, {}, "holds a line that is no public SSH key"),
        ({"key.pub": "-----BEGIN OPENSSH PRIVATE KEY-----"}, {}, "holds a line that is no public SSH key"),
        (
            {"key.pub": KEY},
            {"user_data": "gone.yml"},
            r"^ore: .*gone\.yml, named in user_data, cannot be read",
        ),
        ({"key.pub": KEY, "x.yml": "a: ["}, {"user_data": "x.yml"}, "is not valid YAML"),
        ({"key.pub": KEY, "x.yml": "#!/bin/sh\n# a: b\n"}, {"user_data": "x.yml"}, "is a script"),
        ({"key.pub": KEY, "x.yml": "just words"}, {"user_data": "x.yml"}, "is no cloud-config"),
        ({"key.pub": KEY, "x.yml": "- a"}, {"user_data": "x.yml"}, "is no cloud-config"),
    ],
)
def test_a_file_that_does_not_do_is_named(
    tmp_path: Path, files: dict[str, str], fields: dict[str, Any], says: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(errors.InvalidRequest, match=says):
        born(spec_in(tmp_path, machine("ore", **fields)))


def test_a_private_key_is_not_even_read(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="may be a private key"):
        born(spec_in(tmp_path, machine("ore"), keys=("id_ed25519",)))


def test_without_a_key_nobody_could_log_in(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="nobody could log in"):
        born(spec_in(tmp_path, machine("ore"), keys=()))
