# SPDX-License-Identifier: GPL-3.0-or-later
"""How the role golden_image calls mmdebstrap and the container engine, and what is left when one of them fails.

Both are small programs in the PATH: they note how they were called, and keep images as files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[4] / "roles" / "golden_image" / "files" / "bootstrap.py"

ENGINE = """#!/bin/sh
echo "$@" >> "$STATE/engine"
case "$1 $2" in
  "version --format") exit "${NO_ENGINE:-0}" ;;
  "image inspect") cat "$STATE/named-$(echo "$5" | tr /: __)" ;;
  "image rm") rm "$STATE/$3" ;;
  "import "*) [ -z "$NO_IMPORT" ] || { echo 'no space left on device' >&2; exit 1; }
    id="id-$(cksum | cut -d' ' -f1)"; echo "$id" | tee "$STATE/$id" ;;
  "tag "*) cp "$STATE/$2" "$STATE/named-$(echo "$3" | tr /: __)" ;;
esac
"""
MMDEBSTRAP = """#!/bin/sh
echo "$@" >> "$STATE/mmdebstrap"
echo "epoch ${SOURCE_DATE_EPOCH:-none}" >> "$STATE/mmdebstrap"
cat >> "$STATE/sources"
for word in "$@"; do case "$word" in --aptopt=*) cat "${word#--aptopt=}" >> "$STATE/apt" ;; esac; done
echo half
[ -z "$NO_MIRROR" ] || { echo 'E: http://user:secret@mirror.example/debian: Unable to locate package nonesuch' >&2; exit 25; }
echo whole
"""


@pytest.fixture
def machine(tmp_path):
    """A control machine with both programs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "state").mkdir()
    for name, text in (("engine", ENGINE), ("mmdebstrap", MMDEBSTRAP)):
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    (tmp_path / "archive.gpg").touch()
    return tmp_path


def wanted(machine, **changes):
    """What the program is told."""
    return {
        "image": "gpumesh/image-tools:0123",
        "engine": "engine",
        "lock": str(machine / "cache" / "tools.lock"),
        "architecture": "amd64",
        "suite": "trixie",
        "packages": ["e2fsprogs", "mtools"],
        "sources": [
            {
                "uri": "http://user:secret@mirror.example/debian",
                "suites": ["trixie", "trixie-updates"],
                "components": ["main", "non-free-firmware"],
                "signed_by": "/usr/share/keyrings/debian-archive-keyring.gpg",
            }
        ],
        "keyrings": [{"path": str(machine / "archive.gpg"), "package": "debian-archive-keyring"}],
        "apt_options": ['Acquire::http::Proxy "http://user:secret@proxy.example:3142"'],
        "dpkg_options": ["path-exclude=/usr/share/man/*"],
        "skip": ["cleanup/apt/lists"],
        "customize": 'rm -f "$1/etc/machine-id"',
        "changes": ['CMD ["/sbin/init"]'],
        "labels": {"gpumesh.image.lists": '{"http://x": "$1"}'},
        "epoch": 1_764_000_000,
        **changes,
    }


def start(machine, **environment):
    """Start it. What it is told comes later, on its standard input."""
    paths = f"{machine / 'bin'}:{os.environ['PATH']}"
    plain = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**plain, "PATH": paths, "STATE": str(machine / "state"), **environment},
    )


def bootstrap(machine, environment=None, **changes):
    """Run it to its end."""
    process = start(machine, **(environment or {}))
    said, complained = process.communicate(json.dumps(wanted(machine, **changes)))
    return process.returncode, said, complained


def noted(machine, name):
    """What a program was told."""
    path = machine / "state" / name
    return path.read_text() if path.exists() else ""


def images(machine):
    """What the engine has."""
    return sorted(
        path.name for path in (machine / "state").glob("*") if path.name.startswith(("id-", "named-"))
    )


def test_the_image_is_made_once(machine):
    assert json.loads(bootstrap(machine)[1])["changed"] is True
    assert json.loads(bootstrap(machine)[1])["changed"] is False
    assert noted(machine, "mmdebstrap").count("--variant=minbase") == 1


def test_two_at_once_make_one_image(machine):
    both = [start(machine) for _ in range(2)]
    for process in both:
        process.stdin.write(json.dumps(wanted(machine)))
        process.stdin.close()
    said = [json.loads(process.stdout.read()) for process in both]
    assert [process.wait() for process in both] == [0, 0]
    assert sorted(one["changed"] for one in said) == [False, True]
    assert said[0]["id"] == said[1]["id"]
    for process in both:
        process.stdout.close()
        process.stderr.close()


def test_a_password_in_a_mirror_or_proxy_is_on_no_command_line(machine):
    assert bootstrap(machine)[0] == 0
    assert "secret" not in noted(machine, "mmdebstrap") + noted(machine, "engine")
    assert 'Acquire::http::Proxy "http://user:secret@proxy.example:3142";\n' in noted(machine, "apt")
    assert noted(machine, "sources").splitlines() == [
        f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://user:secret@mirror.example/debian {suite} "
        "main non-free-firmware"
        for suite in ("trixie", "trixie-updates")
    ]


def test_mmdebstrap_is_told_all_of_it(machine):
    bootstrap(machine)
    said = noted(machine, "mmdebstrap")
    for word in (
        "--include=e2fsprogs,mtools",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--skip=cleanup/apt/lists",
        '--customize-hook=rm -f "$1/etc/machine-id"',
        "epoch 1764000000",
    ):
        assert word in said


def test_packages_are_kept_in_a_folder_where_one_is_named(machine):
    folder = machine / "a folder"
    bootstrap(machine, cache=str(folder))
    said = noted(machine, "mmdebstrap")
    assert f"--setup-hook=sync-in '{folder}' /var/cache/apt/archives" in said
    assert f"--customize-hook=sync-out /var/cache/apt/archives '{folder}'" in said
    assert folder.is_dir()


def test_no_packages_are_kept_where_none_is_named(machine):
    bootstrap(machine, cache="")
    assert "sync-" not in noted(machine, "mmdebstrap")


def test_without_an_epoch_times_are_what_they_are(machine):
    bootstrap(machine, epoch=0)
    assert "epoch none" in noted(machine, "mmdebstrap")


def test_labels_are_written_as_the_engine_reads_them(machine):
    bootstrap(machine)
    assert r'--change LABEL "gpumesh.image.lists"="{\"http://x\": \"\$1\"}"' in noted(machine, "engine")


def test_a_failed_bootstrap_leaves_no_image_and_says_why(machine):
    status, said, complained = bootstrap(machine, environment={"NO_MIRROR": "1"})
    assert (status, said) == (1, "")
    assert "mmdebstrap failed to bootstrap trixie" in complained
    assert "E: http://mirror.example/debian: Unable to locate package nonesuch" in complained
    assert "Traceback" not in complained
    assert "secret" not in complained
    assert images(machine) == []


def test_an_engine_without_room_says_so(machine):
    status, _said, complained = bootstrap(machine, environment={"NO_IMPORT": "1"})
    assert status == 1
    assert complained.splitlines()[0].endswith(
        "refused to import gpumesh/image-tools:0123: no space left on device"
    )
    assert images(machine) == []


def test_what_is_missing_is_named_with_the_command_that_installs_it(machine):
    missing = [{"path": str(machine / "none.gpg"), "package": "ubuntu-keyring"}]
    status, _said, complained = bootstrap(machine, keyrings=missing)
    assert status == 1
    assert "sudo apt-get install ubuntu-keyring" in complained
    assert noted(machine, "mmdebstrap") == ""


def test_an_engine_that_does_not_answer_is_refused(machine):
    status, _said, complained = bootstrap(machine, environment={"NO_ENGINE": "1"})
    assert status == 1
    assert "No container engine answers 'engine version'" in complained


def test_no_engine_at_all_is_refused(machine):
    status, _said, complained = bootstrap(machine, engine="nonesuch")
    assert status == 1
    assert "There is no command 'nonesuch'" in complained
    assert "golden_image_engine" in complained
