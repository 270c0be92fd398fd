# SPDX-License-Identifier: GPL-3.0-or-later
"""Joining, leaving and changing the identity: what the role zerotier runs on a machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.roles.zerotier.conftest import ALLOW, MEMBERSHIP, NETWORK, NODE, Daemon


def joining(**different: Any) -> dict[str, Any]:
    """What the role asks for."""
    return {"network": NETWORK, "allow": ALLOW, "seconds": 0, "check": False, **different}


def test_it_joins_once_and_says_which_node_it_is(node: ModuleType, daemon: Daemon) -> None:
    assert node.join(joining()) == {"changed": True, "node": NODE}
    assert node.join(joining()) == {"changed": False, "node": NODE}
    assert [asked for asked in daemon.asked if asked[0] == "POST"] == [("POST", f"/network/{NETWORK}", ALLOW)]


def test_what_a_network_may_do_is_changed_where_it_is_joined(node: ModuleType, daemon: Daemon) -> None:
    daemon.networks[NETWORK] = {**MEMBERSHIP, "allowDNS": True}
    assert node.join(joining())["changed"]
    assert daemon.networks[NETWORK]["allowDNS"] is False


def test_check_mode_asks_nothing_for_there_may_be_no_daemon(
    node: ModuleType, daemon: Daemon, home: Path
) -> None:
    assert node.join(joining(check=True)) == {"changed": True, "node": ""}
    (home / "identity.secret").write_text(f"{NODE}:0:aa:bb", encoding="utf-8")
    assert node.join(joining(check=True)) == {"changed": True, "node": NODE}
    assert daemon.asked == []


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("token", "it refuses the token"),
        ("no token", "has not started yet"),
        ("port", "nothing that speaks ZeroTier answers on port 1 of this machine"),
    ],
)
def test_a_daemon_that_does_not_answer_is_told_with_its_reason_and_without_the_token(
    node: ModuleType,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    broken: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if broken == "token":
        (home / "authtoken.secret").write_text("another-secret", encoding="utf-8")
    elif broken == "no token":
        (home / "authtoken.secret").unlink()
    else:
        (home / "zerotier-one.port").write_text("1", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["-", "join", json.dumps(joining())])
    node.main()
    said = capsys.readouterr().out
    assert says in json.loads(said)["problem"]
    assert "secret-token" not in said
    assert "another-secret" not in said


def test_no_proxy_of_the_environment_sees_the_token(
    node: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    assert node.api("GET", "/status")["address"] == NODE


def test_it_leaves_every_network_and_forgets_those_of_a_daemon_that_does_not_run(
    node: ModuleType, daemon: Daemon, home: Path
) -> None:
    daemon.networks = {
        NETWORK: dict(MEMBERSHIP),
        "0537bdcc750000ab": {**MEMBERSHIP, "nwid": "0537bdcc750000ab"},
    }
    kept = home / "networks.d" / f"{NETWORK}.conf"
    kept.write_text("", encoding="utf-8")
    assert node.leave({"check": True}) == {"changed": True}
    assert len(daemon.networks) == 2
    assert node.leave({"check": False}) == {"changed": True}
    assert daemon.networks == {}
    assert not kept.exists()
    assert node.leave({"check": False}) == {"changed": False}
    kept.write_text("", encoding="utf-8")
    (home / "zerotier-one.port").write_text("1", encoding="utf-8")
    assert node.leave({"check": False}) == {"changed": True}
    assert not kept.exists()


@pytest.mark.parametrize("name", ["identity.public", "identity.secret"])
def test_the_identity_is_read_without_its_secret(node: ModuleType, home: Path, name: str) -> None:
    text = f"{NODE}:0:cafe" + (":5ec2e7" if name.endswith("secret") else "")
    (home / name).write_text(text, encoding="utf-8")
    assert node.identity() == f"{NODE}:0:cafe"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "{", '{"settings": []}', '{"settings": {"primaryPort": 9}}']
)
def test_settings_of_any_local_conf_are_read(node: ModuleType, home: Path, text: str) -> None:
    (home / "local.conf").write_text(text, encoding="utf-8")
    assert node.settings() == ({"primaryPort": 9} if "primaryPort" in text else {})


class Systemd:
    """What is asked of systemd, and of the rest of the machine; scripts that are to run later, by their unit."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.scripts: dict[str, str] = {}
        self.stopped: list[str] = []

    def run(self, command: list[str], **_how: Any) -> None:
        """In the place of subprocess.run."""
        if command[0] == "systemd-run":
            unit = next(word for word in command if word.startswith("--unit=")).removeprefix("--unit=")
            self.scripts[unit] = command[-1]
        else:
            assert command[:2] == ["systemctl", "stop"]
            self.stopped += command[2:]

    def fire(self, unit: str) -> None:
        """Carry a script out, with a systemctl that does nothing."""
        program = self.home.parent / "bin" / "systemctl"
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n", encoding="utf-8")
        program.chmod(0o755)
        path = {"PATH": f"{program.parent}:/usr/bin:/bin"}
        subprocess.run(["/bin/sh", "-c", self.scripts[unit]], check=True, env=path)


@pytest.fixture
def systemd(
    node: ModuleType, home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Systemd:
    """A machine with a first identity, and its next one beside it."""
    running = Systemd(home)
    node.KEPT = tmp_path_factory.mktemp("run") / "kept"  # type: ignore[attr-defined]
    monkeypatch.setattr(node, "subprocess", running)
    for folder, word in ((home, "first"), (home / node.NEXT_IDENTITY, "next")):
        folder.mkdir(exist_ok=True)
        for name, mode in (("identity.secret", 0o600), ("identity.public", 0o644)):
            (folder / name).write_text(f"{word} {name}", encoding="utf-8")
            (folder / name).chmod(mode)
    return running


def identity_of(home: Path) -> dict[str, tuple[str, int]]:
    """The files of the daemon's identity, with their modes."""
    return {
        path.name: (path.read_text(encoding="utf-8").split()[0], path.stat().st_mode & 0o777)
        for path in sorted(home.glob("identity.*"))
    }


def test_an_identity_is_changed_later_and_changed_back_later_still(
    node: ModuleType, systemd: Systemd, home: Path
) -> None:
    first = identity_of(home)
    assert node.change({"undo_after": 300}) == {"changed": True}
    # Not before the connection that asked for it is gone.
    assert identity_of(home) == first
    assert node.KEPT.stat().st_mode & 0o777 == 0o700
    systemd.fire("gpumesh-zerotier-change")
    assert identity_of(home) == {"identity.public": ("next", 0o644), "identity.secret": ("next", 0o600)}
    systemd.fire("gpumesh-zerotier-undo")
    assert identity_of(home) == first


def test_a_public_half_that_was_not_there_is_not_there_again(
    node: ModuleType, systemd: Systemd, home: Path
) -> None:
    (home / "identity.public").unlink()
    node.change({"undo_after": 300})
    systemd.fire("gpumesh-zerotier-change")
    assert sorted(identity_of(home)) == ["identity.public", "identity.secret"]
    systemd.fire("gpumesh-zerotier-undo")
    assert identity_of(home) == {"identity.secret": ("first", 0o600)}


def test_an_identity_is_kept_once_it_is_proved_and_not_before(
    node: ModuleType, systemd: Systemd, daemon: Daemon, home: Path
) -> None:
    node.change({"undo_after": 300})
    proof = {"network": NETWORK, "node": NODE, "seconds": 0}
    daemon.networks[NETWORK] = {**MEMBERSHIP, "status": "ACCESS_DENIED"}
    with pytest.raises(
        node.Silent,
        match="was not proved, so it is not kept: this machine is node fa34221551, and its status",
    ):
        node.prove(proof)
    daemon.networks[NETWORK] = dict(MEMBERSHIP)
    with pytest.raises(node.Silent, match="of node aaaaaaaaaa, was not proved"):
        node.prove({**proof, "node": "aaaaaaaaaa"})
    # The timer was faster: it is stopped, but the machine is the first node again.
    with pytest.raises(node.Silent):
        node.keep({**proof, "node": "aaaaaaaaaa"})
    assert not (home / node.OWN_IDENTITY).exists()
    assert node.KEPT.exists()
    assert node.prove(proof) == {"changed": True, "node": NODE}
    assert node.keep(proof) == {"changed": True, "node": NODE}
    assert (home / node.OWN_IDENTITY).read_text(encoding="utf-8") == f"{NODE}\n"
    assert systemd.stopped[-1] == "gpumesh-zerotier-undo.timer"
    assert not node.KEPT.exists()
    assert not (home / node.NEXT_IDENTITY).exists()
