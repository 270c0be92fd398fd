# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role golden_image tells its programs: what to bootstrap for each release, and how the disk is made.

The role's own tasks are played. Only the programs they start are replaced, by one that notes what it is told.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from roles.golden_image.files.seal.archive import LEFT_OUT
from tests.playbook_runner import ROOT, run_playbook

ROLE = ROOT / "roles/golden_image"
VARIABLES = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: ["{{ role }}/defaults/main.yml"]
  vars: {__golden_image_os_image: gpumesh/image-os:x, __golden_image_os_labels: {gpumesh.image.build: x}}
  tasks:
    - ansible.builtin.include_vars: {file: "{{ role }}/vars/{{ item }}.yml"}
      loop: [bootstrap, os, tools, "{{ golden_image_os | capitalize }}"]
    - ansible.builtin.copy: {content: "{{ told | to_json }}", dest: "{{ folder }}/told", mode: "0600"}
      vars:
        role_path: "{{ role }}"
        told: {os: "{{ __golden_image_os_wanted }}", content: "{{ __golden_image_os_content }}", tools: "{{ __golden_image_tools_wanted }}"}
"""
TASKS = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    __golden_image_os_image: gpumesh/image-os:x
    __golden_image_os_labels: {gpumesh.image.build: x}
    __golden_image_tools_image: gpumesh/image-tools:x
    __golden_image_build: {id: x, folder: /srv/images/.work/x}
    __golden_image_fingerprint: f00d
    __golden_image_epoch: "1764000000"
  tasks:
    - ansible.builtin.include_role: {name: gpumesh.fleet.golden_image, tasks_from: "{{ phase }}", public: true}
    - ansible.builtin.copy: {content: "{{ __golden_image_disk }}", dest: "{{ folder }}/after", mode: "0600"}
"""
ENGINE = """#!/bin/sh
[ ! -e {folder}/fail ] || {{ echo 'It does not work: do something' >&2; exit 1; }}
printf '%s\\n' "$@" > {folder}/words
case " $* " in *' --interactive '*) cat > {folder}/stdin ;; esac
echo '{{"virtual_size_bytes": 4}}'
echo '{{"unlock_host_key": ""}}' >&2
"""


def play(folder: Path, text: str, **variables: Any) -> tuple[int, str]:
    """Run a play, and answer its status and all that it said in one line."""
    (folder / "play.yml").write_text(text)
    (folder / "templates").symlink_to(ROLE / "templates")
    given = {
        "folder": str(folder),
        "role": str(ROLE),
        "ansible_python_interpreter": sys.executable,
        **variables,
    }
    done = run_playbook(folder, "localhost,", str(folder / "play.yml"), "--extra-vars", json.dumps(given))
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def variables_of(folder: Path, **variables: Any) -> dict[str, Any]:
    """What the programs would be told."""
    folder.mkdir(exist_ok=True)
    status, said = play(folder, VARIABLES, **variables)
    assert status == 0, said
    found = json.loads((folder / "told").read_text())
    assert isinstance(found, dict)
    return found


def engine(folder: Path) -> str:
    """A container engine that notes what it is told."""
    program = folder / "engine"
    program.write_text(ENGINE.format(folder=folder))
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("system", "suite", "mirror", "packages", "key"),
    [
        ("debian-13", "trixie", "deb.debian.org/debian", {"linux-image-amd64", "grub-cloud-amd64"}, "debian"),
        (
            "debian-12",
            "bookworm",
            "deb.debian.org/debian",
            {"linux-image-amd64", "grub-cloud-amd64"},
            "debian",
        ),
        (
            "ubuntu-24.04",
            "noble",
            "archive.ubuntu.com/ubuntu",
            {"linux-image-generic", "shim-signed"},
            "ubuntu",
        ),
    ],
)
def test_each_release_is_bootstrapped_from_its_own_archives(tmp_path, system, suite, mirror, packages, key):
    told = variables_of(tmp_path, golden_image_os=system)["os"]
    assert told["suite"] == suite
    assert [source["suites"] for source in told["sources"]] == [
        [suite, f"{suite}-updates"],
        [f"{suite}-security"],
    ]
    assert told["sources"][0]["uri"] == f"http://{mirror}"
    assert {source["signed_by"] for source in told["sources"]} == {
        f"/usr/share/keyrings/{key}-archive-keyring.gpg"
    }
    assert packages | {"cloud-init", "openssh-server", "initramfs-tools"} <= set(told["packages"])
    assert told["packages"] == sorted(told["packages"])
    assert f"Signed-By: /usr/share/keyrings/{key}-archive-keyring.gpg" in told["customize"]
    assert f"/etc/apt/sources.list.d/{key}.sources" in told["customize"]


def test_what_is_asked_for_goes_into_the_bootstrap(tmp_path):
    told = variables_of(
        tmp_path,
        golden_image_mirror="http://mirror.example/debian",
        golden_image_security_mirror="http://mirror.example/security",
        golden_image_kernel="cloud",
        golden_image_packages=["tmux"],
        golden_image_firmware_packages=["firmware-realtek"],
        golden_image_docs=False,
        golden_image_luks=True,
        golden_image_apt_proxy="http://proxy.example:3142",
        golden_image_apt_cache="/srv/cache",
    )["os"]
    assert [source["uri"] for source in told["sources"]] == [
        "http://mirror.example/debian",
        "http://mirror.example/security",
    ]
    assert {"linux-image-cloud-amd64", "tmux", "firmware-realtek", "dropbear-initramfs"} <= set(
        told["packages"]
    )
    assert "linux-image-amd64" not in told["packages"]
    assert "non-free-firmware" in told["sources"][0]["components"]
    assert "path-exclude=/usr/share/man/*" in told["dpkg_options"]
    assert 'Acquire::http::Proxy "http://proxy.example:3142"' in told["apt_options"]
    assert "proxy.example" not in told["customize"]
    assert told["cache"] == "/srv/cache/bootstrap-trixie"


def test_the_recipe_is_of_what_is_in_the_system_and_not_of_how_it_is_fetched(tmp_path):
    def recipe(name: str, **variables: Any) -> Any:
        return variables_of(tmp_path / name, **variables)["content"]

    plain = recipe("plain")
    assert "openssh-server" in plain["packages"]
    assert (
        recipe(
            "proxy",
            golden_image_apt_proxy="http://p.example",
            golden_image_apt_cache="/srv/c",
            golden_image_epoch=7,
        )
        == plain
    )
    assert recipe("more", golden_image_packages=["tmux"]) != plain
    assert recipe("docs", golden_image_docs=False) != plain


def test_the_image_of_tools_has_what_makes_a_disk(tmp_path):
    told = variables_of(tmp_path)["tools"]
    assert {"e2fsprogs", "grub-pc-bin", "mtools", "ovmf", "qemu-system-x86", "qemu-utils"} <= set(
        told["packages"]
    )
    assert told["image"] == f"gpumesh/image-tools:{told['labels']['gpumesh.image.tools']}"


def mounted(words: list[str]) -> dict[str, str]:
    """Where in a container the role's programs are, which nobody there can change."""
    mounts = [
        re.fullmatch("--mount=type=bind,source=(.+),target=(.+),readonly", word)
        for word in words
        if word.startswith("--mount")
    ]
    return {str(Path(each[1]).resolve().relative_to(ROLE / "files")): each[2] for each in mounts if each}


def test_what_seals_is_where_nothing_goes_into_the_image(tmp_path):
    (tmp_path / "work").mkdir()
    status, said = play(
        tmp_path,
        TASKS.partition("    - ansible.builtin.copy")[0],
        phase="seal",
        golden_image_engine=engine(tmp_path),
        golden_image_name="box",
        __golden_image_build={"id": "x", "folder": str(tmp_path / "work")},
        __golden_image_top="gpumesh/image-layer:x",
    )
    assert status == 0, said
    words = (tmp_path / "words").read_text().splitlines()
    assert mounted(words) == {"seal": "/run/gpumesh-program/seal"}
    # Nor does it compile what it is made of, which it finds in the system that it seals.
    # What it is told comes on its standard input, since a proxy may have a password.
    assert words[-4:] == ["gpumesh/image-layer:x", "-B", "/run/gpumesh-program/seal", "-"]
    assert "--interactive" in words
    assert "run/*" in LEFT_OUT
    assert json.loads((tmp_path / "stdin").read_text())["files"].keys() >= {"first-boot", "cloud.cfg"}


def test_an_image_is_sealed_anew_when_any_part_of_its_programs_changes(tmp_path):
    text = VARIABLES.replace("[bootstrap, os, tools,", "[main, bootstrap, os, tools,").replace(
        "told: {", 'told: {finish: "{{ __golden_image_finish }}", '
    )
    status, said = play(tmp_path, text, golden_image_os="debian-13")
    assert status == 0, said
    files = ROLE / "files"
    parts = [files / "luks.py"]
    for pattern in ("seal/*.py", "disk/*.py", "first_boot/*", "luks/*"):
        parts += files.glob(pattern)
    assert len(parts) > 30
    assert json.loads((tmp_path / "told").read_text())["finish"]["programs"] == {
        str(path.relative_to(files)): hashlib.sha256(path.read_bytes().rstrip()).hexdigest() for path in parts
    }


def test_the_disk_is_made_without_any_right(tmp_path):
    status, said = play(
        tmp_path,
        TASKS,
        phase="disk",
        golden_image_engine=engine(tmp_path),
        golden_image_size_gb=4,
        golden_image_compress=False,
    )
    assert status == 0, said
    words = (tmp_path / "words").read_text().splitlines()
    assert {"--rm", "--network=none", "--read-only", "--volume=/srv/images/.work/x:/work"} <= set(words)
    assert mounted(words) == {"disk": "/program/disk"}
    assert words[-3:-1] == ["python3", "/program/disk"]
    assert not [word for word in words if word.startswith(("--privileged", "--cap-add", "--device"))]
    assert json.loads(words[-1]) == {
        "tar": "root.tar",
        "out": "disk.qcow2",
        "fingerprint": "f00d",
        "epoch": 1_764_000_000,
        "size_bytes": 4 << 30,
        "compress": False,
        "luks": False,
        "vendor": "debian",
    }
    assert json.loads((tmp_path / "after").read_text().replace("'", '"')) == {"virtual_size_bytes": 4}


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("tools", "No container engine answers"),
        ("os", "No container engine answers"),
        ("disk", "It does not work: do something"),
    ],
)
def test_why_it_failed_is_said_in_the_programs_own_words(tmp_path, phase, words):
    (tmp_path / "fail").touch()
    status, said = play(tmp_path, TASKS, phase=phase, golden_image_engine=engine(tmp_path))
    assert status == 2
    assert words in said
    assert "Traceback" not in said
