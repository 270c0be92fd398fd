# SPDX-License-Identifier: GPL-3.0-or-later
"""An identity is made once, kept safe, proved, and never shown."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.modules import zerotier_identity

from tests.module_runner import run_module

ROOT = Path(__file__).parents[4]
FOLDER = ROOT / "tests" / "fixtures" / "zerotier" / "identities"
SECRET = {name: (FOLDER / f"{name}.secret").read_text() for name in ("controller", "node")}
PUBLIC = {name: (FOLDER / f"{name}.public").read_text() for name in ("controller", "node")}
KEYS = {name: text.split(":")[3] for name, text in SECRET.items()}
NODE_ID = {"controller": "9481388703", "node": "a0c848c379"}


def run(path: Path, *, check: bool = False, **params: Any) -> dict[str, Any]:
    """The module's result, in which no secret may be."""
    result = run_module(zerotier_identity.main, check=check, path=str(path), **params)
    result.pop(
        "invocation", None
    )  # Has what it was given, censored; looked at in the test with ansible-playbook.
    for key in KEYS.values():
        assert key[:16] not in json.dumps(result)
    return result


def place(path: Path, **params: Any) -> dict[str, Any]:
    """The same without the proof, which takes a moment on purpose, where files are the matter."""
    return run(path, verify=False, **params)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is searched for programs first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def program(folder: Path, name: str, script: str) -> Path:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder / name


@pytest.fixture
def idtool(programs: Path) -> Path:
    """A zerotier-idtool that always makes the same identity, and writes down how it was called."""
    return program(programs, "zerotier-idtool", f'echo "$@" >> "$0.called"; printf %s "{SECRET["node"]}"')


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Where the identity goes. No half file may be left there by anything."""
    folder = tmp_path / "home"
    yield folder
    left = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert left <= {"identity.secret", "identity.public"}


# Making


def test_it_is_made_once(home: Path, idtool: Path) -> None:
    first = run(home)
    assert first["changed"] is first["made"] is first["valid"] is True
    assert (first["node_id"], first["public"]) == (NODE_ID["node"], PUBLIC["node"])
    assert (home / "identity.secret").read_text() == SECRET["node"]
    assert (home / "identity.public").read_text() == PUBLIC["node"]
    assert first["secret_file"] == str(home / "identity.secret")
    assert first["public_file"] == str(home / "identity.public")
    assert (mode(home), mode(home / "identity.secret"), mode(home / "identity.public")) == (
        0o700,
        0o600,
        0o644,
    )
    second = run(home)
    assert second["changed"] is second["made"] is False
    assert (second["node_id"], second["valid"]) == (NODE_ID["node"], True)
    assert second["diff"]["before"] == second["diff"]["after"] == first["diff"]["after"]


def test_zerotiers_own_program_is_given_no_file_to_write(home: Path, idtool: Path) -> None:
    run(home)
    assert Path(f"{idtool}.called").read_text() == "generate\n"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random source that leads to the node's identity at once."""
    key = bytes.fromhex(KEYS["node"])
    halves = iter([key[32:], key[:32]])
    monkeypatch.setattr(os, "urandom", lambda count: next(halves))


def warned(result: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """The warnings, which in this process ansible-core 2.19 and newer print themselves."""
    shown = f"{result.get('warnings', '')} {capsys.readouterr().err}"
    for key in KEYS.values():
        assert key[:16] not in shown
    return " ".join(shown.split())


def test_without_zerotiers_own_program_it_is_made_here(
    home: Path, drawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("zerotier-idtool", path=f"{os.environ['PATH']}:/sbin:/usr/sbin:/usr/local/sbin"):
        pytest.skip("zerotier-idtool is installed here, so it is used")
    result = run(home)
    assert (result["node_id"], warned(result, capsys)) == (NODE_ID["node"], "")
    assert (home / "identity.secret").read_text() == SECRET["node"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (f"printf %s '{SECRET['controller'][:200]}'", "the identity is in no form of ZeroTier's"),
        (f"printf %s '{PUBLIC['controller']}'", "what it made has no secret key"),
        (f"printf %s '{SECRET['controller']}'; exit 3", "it ended with 3"),
        (f"printf %s '{SECRET['controller'][:-2]}00'", "does not belong to its public key"),
        (
            f"printf %s '{SECRET['controller'].replace(NODE_ID['controller'], '9481388700')}'",
            "does not follow",
        ),
    ],
    ids=["half", "public", "failed", "bad pair", "bad id"],
)
def test_a_program_that_makes_no_identity_is_done_without(
    home: Path, programs: Path, drawn: None, script: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs, "zerotier-idtool", script)
    result = run(home)
    assert result["node_id"] == NODE_ID["node"]
    warning = warned(result, capsys)
    assert "zerotier-idtool was of no use: " in warning
    assert why in warning


def test_check_mode_says_that_one_would_be_made_and_makes_none(home: Path, idtool: Path) -> None:
    said = run(home, check=True)
    assert said["changed"] is said["made"] is True
    assert said["node_id"] is said["public"] is said["valid"] is None
    assert not home.exists()
    assert not Path(f"{idtool}.called").exists()
    run(home)
    said = run(home, check=True)
    assert (said["changed"], said["node_id"]) == (False, NODE_ID["node"])


# Files


def test_a_file_may_have_another_name(tmp_path: Path, idtool: Path) -> None:
    result = place(tmp_path / "ids" / "scheelite.secret")
    assert result["public_file"] == str(tmp_path / "ids" / "scheelite.public")
    assert sorted(path.name for path in (tmp_path / "ids").iterdir()) == [
        "scheelite.public",
        "scheelite.secret",
    ]


def test_what_the_daemon_left_is_read_and_put_right(home: Path) -> None:
    home.mkdir()
    (home / "identity.secret").write_text(SECRET["node"] + "\n")
    (home / "identity.secret").chmod(0o644)
    predicted = place(home, check=True)
    assert mode(home / "identity.secret") == 0o644
    result = place(home)
    assert (result["changed"], result["made"], result["node_id"]) == (True, False, NODE_ID["node"])
    assert predicted["diff"] == result["diff"]
    assert (mode(home / "identity.secret"), (home / "identity.public").read_text()) == (0o600, PUBLIC["node"])
    assert place(home)["changed"] is False
    (home / "identity.public").write_text(PUBLIC["controller"])
    assert place(home)["changed"] is True
    assert (home / "identity.public").read_text() == PUBLIC["node"]


def test_a_given_identity_is_put_in_place_once(home: Path) -> None:
    first = place(home, secret=SECRET["node"] + "\n")
    assert (first["changed"], first["made"], first["node_id"]) == (True, False, NODE_ID["node"])
    assert (home / "identity.secret").read_text() == SECRET["node"]
    assert place(home, secret=SECRET["node"])["changed"] is False


def test_another_identity_is_never_overwritten_unasked(home: Path) -> None:
    place(home, secret=SECRET["node"])
    for check in (True, False):
        refused = place(home, check=check, secret=SECRET["controller"])
        assert "holds the identity of a0c848c379 already" in refused["msg"]
        assert refused["failure"]["kind"] == "Conflict"
    assert (home / "identity.secret").read_text() == SECRET["node"]
    replaced = place(home, secret=SECRET["controller"], force=True)
    assert (replaced["changed"], replaced["node_id"]) == (True, NODE_ID["controller"])
    assert replaced["diff"]["before"]["node_id"] == NODE_ID["node"]
    assert (home / "identity.secret").read_text() == SECRET["controller"]
    assert (home / "identity.public").read_text() == PUBLIC["controller"]
    assert place(home, secret=SECRET["controller"], force=True)["changed"] is False


def test_force_makes_a_new_one(home: Path, idtool: Path) -> None:
    place(home, secret=SECRET["controller"])
    assert place(home, check=True, force=True)["made"] is True
    assert (home / "identity.secret").read_text() == SECRET["controller"]
    assert place(home, force=True)["node_id"] == NODE_ID["node"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"words", PUBLIC["node"].encode()], ids=range(4))
def test_a_file_without_an_identity_is_only_replaced_by_force(
    home: Path, idtool: Path, content: bytes
) -> None:
    home.mkdir()
    (home / "identity.secret").write_bytes(content)
    assert "identity.secret holds no secret identity" in place(home)["msg"]
    assert (home / "identity.secret").read_bytes() == content
    assert place(home, force=True)["node_id"] == NODE_ID["node"]
    assert (home / "identity.secret").read_text() == SECRET["node"]


def test_an_identity_that_is_none_is_refused_where_it_lies(home: Path) -> None:
    home.mkdir()
    (home / "identity.secret").write_text(SECRET["node"].replace("a0c848c379", "a0c848c370"))
    assert "the node id a0c848c370 does not follow" in run(home)["msg"]
    unproved = run(home, verify=False)
    assert (unproved["node_id"], unproved["valid"]) == ("a0c848c370", None)


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        (SECRET["node"][:-2] + "00", "does not belong to its public key"),
        (PUBLIC["node"], "has no secret key"),
        ("", "in no form"),
        (SECRET["node"][:-1], "in no form"),
    ],
)
def test_what_is_given_must_be_a_secret_identity(home: Path, idtool: Path, secret: str, says: str) -> None:
    assert says in run(home, secret=secret)["msg"]
    assert not home.exists()


def test_a_path_that_does_not_do_is_named(tmp_path: Path, idtool: Path) -> None:
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file' / 'identity.secret'}: Not a directory" in run(tmp_path / "file")["msg"]
    (tmp_path / "identity.secret").mkdir()
    assert f"{tmp_path / 'identity.secret'}: Is a directory" in run(tmp_path)["msg"]


# Interrupted


def test_killed_while_it_makes_one_it_leaves_nothing(home: Path, programs: Path) -> None:
    program(programs, "zerotier-idtool", 'echo "$$" > "$0.pid"; exec sleep 60')
    home.mkdir()
    code = (
        "import sys; from tests import conftest, module_runner;"
        "from ansible_collections.gpumesh.fleet.plugins.modules import zerotier_identity as m;"
        "module_runner.run_module(m.main, path=sys.argv[1])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(home)], cwd=ROOT, start_new_session=True)
    pid = programs / "zerotier-idtool.pid"
    while process.poll() is None and not pid.exists():
        time.sleep(0.02)
    assert pid.exists()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(home.iterdir()) == []


def test_a_full_disk_leaves_nothing_and_what_was_there(
    home: Path, idtool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    place(home, secret=SECRET["controller"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device" in place(home, force=True)["msg"]
    assert (home / "identity.secret").read_text() == SECRET["controller"]
    assert {path.name for path in home.iterdir()} == {"identity.secret", "identity.public"}


def test_one_that_comes_meanwhile_stays(home: Path, programs: Path) -> None:
    home.mkdir()
    theirs = home / "identity.secret"
    program(
        programs,
        "zerotier-idtool",
        f'printf %s "{SECRET["controller"]}" > {theirs}; printf %s "{SECRET["node"]}"',
    )
    assert "somebody else has made" in place(home)["msg"]
    assert theirs.read_text() == SECRET["controller"]


# Ansible Vault


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("open sesame\n")
    return file


def opened(file: Path) -> str:
    """What is in an encrypted file, according to Ansible's own code."""
    from ansible.parsing.vault import VaultLib, VaultSecret

    vault = VaultLib([("default", VaultSecret(b"open sesame"))])
    return bytes(vault.decrypt(file.read_bytes())).decode()


def test_a_secret_can_be_kept_encrypted(home: Path, idtool: Path, password: Path) -> None:
    first = run(home, vault_password_file=str(password))
    assert (first["changed"], first["node_id"]) == (True, NODE_ID["node"])
    text = (home / "identity.secret").read_text()
    assert text.startswith("$ANSIBLE_VAULT;1.1;AES256\n")
    assert opened(home / "identity.secret") == SECRET["node"]
    assert (home / "identity.public").read_text() == PUBLIC["node"]
    second = run(home, vault_password_file=str(password))
    assert (second["changed"], second["node_id"], second["valid"]) == (False, NODE_ID["node"], True)
    assert (home / "identity.secret").read_text() == text


def test_a_secret_in_plain_text_is_encrypted(home: Path, password: Path) -> None:
    place(home, secret=SECRET["node"])
    predicted = place(home, check=True, vault_password_file=str(password))
    assert (home / "identity.secret").read_text() == SECRET["node"]
    result = place(home, vault_password_file=str(password))
    assert (result["changed"], result["made"], result["diff"]) == (True, False, predicted["diff"])
    assert opened(home / "identity.secret") == SECRET["node"]


def test_an_encrypted_one_is_not_touched_without_the_password(
    home: Path, idtool: Path, password: Path
) -> None:
    place(home, vault_password_file=str(password))
    text = (home / "identity.secret").read_text()
    assert "Set vault_password_file" in place(home)["msg"]
    password.write_text("guess\n")
    for force in (False, True):
        refused = place(home, vault_password_file=str(password), force=force)
        assert "ansible-vault could not decrypt the identity" in refused["msg"]
        assert "Decryption failed" in refused["msg"]
    password.unlink()
    assert "was not found" in place(home, vault_password_file=str(password))["msg"]
    assert (home / "identity.secret").read_text() == text


def test_the_password_asked_for_is_used_whatever_else_is_configured(
    home: Path, idtool: Path, password: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.write_text("another\n")
    configuration = tmp_path / "ansible.cfg"
    configuration.write_text(
        f"[defaults]\nvault_identity_list = default@{other}, dev@{other}\nvault_password_file = {other}\n"
        "vault_encrypt_identity = dev\n"
    )
    monkeypatch.setenv("ANSIBLE_CONFIG", str(configuration))
    place(home, vault_password_file=str(password))
    assert opened(home / "identity.secret") == SECRET["node"]


# Nobody sees it


def test_no_program_is_given_a_secret_as_an_argument(
    home: Path, idtool: Path, programs: Path, password: Path
) -> None:
    real = Path(sys.executable).parent / "ansible-vault"
    log = programs / "arguments"
    shim = program(programs, "ansible-vault", f'echo "$@" >> {log}; exec {real} "$@"')
    with pytest.MonkeyPatch.context() as patch:
        # The one beside the Python that runs is preferred.
        patch.setattr(sys, "executable", str(shim))
        place(home, vault_password_file=str(password))
        place(home, vault_password_file=str(password))
    said = log.read_text()
    assert said.count("encrypt ") == said.count("decrypt ") == 1
    assert KEYS["node"][:16] not in said


PLAY = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - gpumesh.fleet.zerotier_identity: {path: "{{ folder }}/made"}
      register: made
    - gpumesh.fleet.zerotier_identity: {path: "{{ folder }}/given", secret: "{{ lookup('file', source) }}"}
      register: given
    - gpumesh.fleet.zerotier_identity: {path: "{{ folder }}/vault", vault_password_file: "{{ password }}"}
      register: vault
    - gpumesh.fleet.zerotier_identity: {path: "{{ folder }}/given", secret: "{{ lookup('file', other) }}"}
      register: refused
      ignore_errors: true
    - ansible.builtin.debug:
        msg: "{{ [made, given, vault, refused] }}"
    - gpumesh.fleet.zerotier_identity: {path: "{{ folder }}/last", secret: "{{ lookup('file', folder ~ '/vault/identity.secret') }}"}
"""


def test_at_the_highest_verbosity_nothing_is_shown(tmp_path: Path, idtool: Path, password: Path) -> None:
    (tmp_path / "play.yml").write_text(PLAY)
    variables = {
        "folder": str(tmp_path),
        "source": str(FOLDER / "node.secret"),
        "other": str(FOLDER / "controller.secret"),
        "password": str(password),
    }
    command = [
        *(sys.executable, "-m", "ansible", "playbook", "-vvvv", "--diff"),
        *("-e", json.dumps(variables), "--vault-password-file", str(password)),
        str(tmp_path / "play.yml"),
    ]
    environ = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert said.count(NODE_ID["node"]) > 5
    assert "holds the identity of a0c848c379 already" in said
    assert [name for name, key in KEYS.items() if key[:16] in said] == []
    assert (tmp_path / "last" / "identity.secret").read_text() == SECRET["node"]


# Anywhere


def test_a_host_needs_nothing_but_python(home: Path) -> None:
    """A managed host has none of the engine's libraries."""
    run(home, secret=SECRET["node"])
    code = f"""
import sys
missing = {{"pydantic", "requests", "cryptography", "hcloud", "google", "yaml"}}
class Nothing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in missing:
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / ".ansible" / "collections")!r}]
from tests import module_runner
from ansible_collections.gpumesh.fleet.plugins.modules import zerotier_identity
print(module_runner.run_module(zerotier_identity.main, path={str(home)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "'valid': True" in done.stdout, done.stderr
