# SPDX-License-Identifier: GPL-3.0-or-later
"""What role validation takes from the machine under test, whether a run still holds, and a run that was left going."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import documents

from tests.unit.roles.test_validation_programs import FILES, last, run_of

__all__ = ["last"]

RUN = "20261127T100000Z-quick"


# What the machine under test sends


def packed(folder: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    """An archive that a machine may have made up."""
    archive = folder / "run.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return archive


def entry(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """One thing in it."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size, made.mode = kind, to, len(content), 0o6777
    return made, content


def unfolded(archive: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the program says."""
    return subprocess.run(
        [sys.executable, str(FILES / "unfold.py"), str(archive), str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_run_is_unpacked_and_again_over_itself(tmp_path: Path) -> None:
    folder = tmp_path / "here" / RUN
    folder.mkdir(parents=True)
    archive = packed(tmp_path, entry("run.json", b"{}"), entry("logs/matmul.log", b"said\n"))
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (folder / "run.json").symlink_to(outside)
    for _ in range(2):
        ran = unfolded(archive, folder)
        assert ran.returncode == 0, ran.stderr
        assert (folder / "run.json").read_text() == "{}"
        assert (folder / "logs/matmul.log").read_text() == "said\n"
    assert outside.read_text() == "mine"
    assert (folder / "run.json").stat().st_mode & 0o7111 == 0


def test_what_a_machine_packs_is_unpacked(last: ModuleType, tmp_path: Path) -> None:
    made = run_of(last, RUN)
    (made / ".cache").mkdir()
    (made / ".cache/kernel").write_text("x")
    (made / "link").symlink_to("/etc/passwd")
    folder = tmp_path / "here"
    folder.mkdir()
    ran = unfolded(Path(last.pack(RUN)["path"]), folder)
    assert ran.returncode == 0, ran.stderr
    assert [path.name for path in folder.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    "hostile",
    [
        entry("../escaped", b"x"),
        entry("a/../../escaped", b"x"),
        entry("/tmp/escaped", b"x"),
        entry(".git/config", b"x"),
        entry("a\nb", b"x"),
        entry("link", kind=tarfile.SYMTYPE, to="/etc"),
        entry("hard", kind=tarfile.LNKTYPE, to="run.json"),
        entry("pipe", kind=tarfile.FIFOTYPE),
        entry("device", kind=tarfile.CHRTYPE),
        entry("folder", kind=tarfile.DIRTYPE),
        entry("there/escaped", b"x"),
    ],
    ids=lambda one: repr(one[0].name),
)
def test_of_what_no_run_has_nothing_is_taken(tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes]) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "there").symlink_to(tmp_path / "elsewhere")
    ran = unfolded(packed(tmp_path, entry("run.json", b"{}"), hostile), folder)
    assert ran.returncode == 1
    assert ran.stderr.startswith("the run was not unpacked: ")
    assert [path.name for path in folder.iterdir()] == ["there"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "here", "run.tar.gz"]


def test_an_archive_that_would_fill_the_disk_or_breaks_off_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    huge, _unused = entry("samples.jsonl")
    huge.size = 3 * 2**30
    archive = tmp_path / "huge.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.fileobj.write(huge.tobuf())
    assert "more than" in unfolded(archive, folder).stderr
    whole = packed(tmp_path, entry("samples.jsonl", bytes(range(256)) * 400))
    whole.write_bytes(whole.read_bytes()[:200])
    ran = unfolded(whole, folder)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    many = packed(tmp_path, *(entry(f"{number}.log") for number in range(10_001)))
    assert "more than 10000 files" in unfolded(many, folder).stderr
    assert list(folder.iterdir()) == []


# Whether a run still holds


def framework(folder: Path, version: str) -> Path:
    """The link to an environment in use."""
    (folder / "frameworks").mkdir(exist_ok=True)
    link = folder / "frameworks/pytorch"
    link.unlink(missing_ok=True)
    link.symlink_to(f"envs/pytorch/{version}")
    return link


def fact(folder: Path, **layers: object) -> None:
    """What the layers have left of themselves."""
    (folder / "gpumesh.fact").write_text(json.dumps({"layers": layers}))


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        (lambda folder: framework(folder, "2.13.0"), True),
        (lambda folder: framework(folder, "2.14.0"), False),
        (
            lambda folder: fact(folder, gpu_runtime={"when": "later", "from": "other", "versions": "1.18"}),
            True,
        ),
        (lambda folder: fact(folder, gpu_runtime={"when": "now", "from": "here", "versions": "1.19"}), False),
        (lambda folder: fact(folder, gpu_runtime={"versions": "1.18", "checks": ["CDI"]}), False),
        (
            lambda folder: fact(folder, gpu_runtime={"versions": "1.18"}, ai_frameworks={"versions": "1"}),
            False,
        ),
        (lambda folder: fact(folder, gpu_runtime={"versions": "1.18"}, validation={"verdict": "PASS"}), True),
        (lambda folder: (folder / "gpumesh.fact").write_text("no JSON"), False),
    ],
)
def test_a_run_holds_no_longer_when_what_it_checked_is_another(
    last: ModuleType, tmp_path: Path, change: Callable[[Path], object], holds: bool
) -> None:
    root = str(tmp_path / "root")
    framework(tmp_path, "2.13.0")
    fact(tmp_path, gpu_runtime={"when": "now", "from": "here", "versions": "1.18"})
    run_of(last, RUN)
    last.stamp(RUN, last.look(root)["fingerprint"])
    assert last.look(root)["run"] is not None
    change(tmp_path)
    assert (last.look(root)["run"] is not None) is holds


def test_a_run_holds_whether_or_not_the_gate_could_make_its_daemon_reload(
    last: ModuleType, tmp_path: Path
) -> None:
    found = []
    for checks in (["CDI", "CDI, after a daemon-reload"], ["CDI"], []):
        fact(tmp_path, gpu_runtime={"versions": "1.18", "checks": checks})
        found.append(last.look(str(tmp_path / "root"))["fingerprint"])
    assert found[0] == found[1] != found[2]


# The first boot


@pytest.fixture
def first_boot(last: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """The first boot of a machine, on which the acceptance command leaves such a run; to the file of facts."""

    def boot(**run: Any) -> Path:
        begin = datetime.now(UTC).isoformat(timespec="milliseconds")
        run_of(last, RUN, **{"begin": begin, "label": "SIMULATED", "versions": {"driver": "580"}, **run})
        monkeypatch.setattr(last, "COMMAND", "true")
        # The run lies there before it is made, so the clock stands still.
        moment = datetime.fromisoformat(begin).timestamp()
        monkeypatch.setattr(last.time, "time", lambda: moment)
        order = {"suite": "quick", "device": "cuda", "seconds": 60, "root": str(tmp_path / "root")}
        last.first_boot(json.dumps(order))
        return Path(last.FACTS)

    return boot


def test_the_first_boot_leaves_the_facts_that_the_role_would_leave(
    first_boot: Callable[..., Path], last: ModuleType, tmp_path: Path
) -> None:
    before = {
        "from": last.SOURCE,
        "suite": "full",
        "verdict": None,
        "hardware": None,
        "coverage": "no check has run yet",
    }
    present = {"more": "é", "layers": {"docker": {"from": "here", "when": "then"}, "validation": before}}
    (tmp_path / "gpumesh.fact").write_text(json.dumps(present))
    warned = {
        "name": "pcie",
        "verdict": "WARN",
        "says": "",
        "advice": "",
        "applies": True,
        "waived": "",
        "begin": "x",
    }
    file = first_boot(checks=[warned])
    found = json.loads(file.read_text(encoding="utf-8"))
    facts = {
        "suite": "quick",
        "verdict": "PASS",
        "hardware": "PASS",
        "label": "SIMULATED",
        "coverage": "1 of 1 checks ran",
        "run": RUN,
        "versions": {"driver": "580"},
        "warned": ["pcie"],
    }
    when = found["layers"]["validation"]["when"]
    assert datetime.fromisoformat(when).tzinfo is not None
    document = documents.with_layer(present, "validation", facts, "gpumesh.fleet.validation", when)
    assert file.read_text(encoding="utf-8") == documents.render(document)
    # The role's next run finds nothing to change; nor do the names of its facts differ.
    assert documents.with_layer(found, "validation", facts, "gpumesh.fleet.validation", "later") == found
    role = yaml.safe_load((FILES.parent / "vars/main.yml").read_text(encoding="utf-8"))
    assert list(role["__validation_facts"]) == list(facts)
    assert file.stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.glob("*.new"))


def test_the_first_boot_of_a_machine_without_facts_makes_them(first_boot: Callable[..., Path]) -> None:
    assert json.loads(first_boot().read_text(encoding="utf-8")).keys() == {"layers"}


@pytest.mark.parametrize("text", ["no JSON", "[]"])
def test_facts_that_cannot_be_read_are_left_and_the_login_message_is_written(
    first_boot: Callable[..., Path],
    last: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
) -> None:
    (tmp_path / "gpumesh.fact").write_text(text)
    assert first_boot().read_text() == text
    assert "was left as it is" in capsys.readouterr().err
    assert "GPU acceptance at the first boot: PASS: all" in last.MESSAGE.read_text()


def test_a_first_run_that_does_not_come_to_its_end_is_no_verdict(
    first_boot: Callable[..., Path], last: ModuleType
) -> None:
    assert not first_boot(state="running").exists()
    assert "UNKNOWN" in last.MESSAGE.read_text()


# A run that a play left going


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemd that knows one unit, by files: what it was started with makes it active."""
    programs = {
        "systemd-run": 'echo "$*" > "$UNIT/started"; for word; do case $word in --description=*) '
        'echo "${word#--description=}" > "$UNIT/Description";; esac; done\n'
        'echo active > "$UNIT/ActiveState"; echo @1700000000 > "$UNIT/ActiveEnterTimestamp"',
        "systemctl": "for word; do case $word in --property=*) name=${word#--property=};; esac; done\n"
        'echo "$name=$(cat "$UNIT/$name" 2>/dev/null)"',
    }
    (tmp_path / "bin").mkdir()
    (tmp_path / "unit").mkdir()
    for name, does in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("UNIT", str(tmp_path / "unit"))
    return tmp_path / "unit"


@pytest.fixture
def begin(
    last: ModuleType, systemd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., float]:
    """Begin a run, to the time that it is followed from."""
    simulated = last.asked

    def asked(*command: str) -> str:
        if command[0] == "nvidia-smi":
            return str(simulated(*command))
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        return f"{ran.returncode} {ran.stdout}"

    monkeypatch.setattr(last, "asked", asked)

    def _begin(suite: str = "quick", device: str = "cuda") -> float:
        order = {"suite": suite, "device": device, "seconds": 60, "root": str(tmp_path / "root")}
        return float(last.begin(json.dumps(order))["since"])

    return _begin


def test_a_run_that_was_left_going_is_followed_and_its_log_stays(
    last: ModuleType, begin: Callable[..., float], systemd: Path
) -> None:
    assert begin() > 1700000000
    (systemd / "started").unlink()
    last.LOG.write_text("its words")
    assert begin() == 1700000000
    assert not (systemd / "started").exists()
    assert last.LOG.read_text() == "its words"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder, begin: begin(suite="full"),
        lambda folder, begin: begin(device="cpu"),
        # It was begun before that, so it says nothing about it.
        lambda folder, begin: (framework(folder, "2.14.0"), begin()),
    ],
)
def test_beside_a_run_of_something_else_none_is_begun(
    last: ModuleType,
    begin: Callable[..., float],
    systemd: Path,
    tmp_path: Path,
    change: Callable[[Path, Callable[..., float]], object],
) -> None:
    begin()
    (systemd / "started").unlink()
    last.LOG.write_text("its words")
    with pytest.raises(SystemExit) as refused:
        change(tmp_path, begin)
    assert "'systemctl stop gpumesh-acceptance.service' on the machine" in str(refused.value)
    assert not (systemd / "started").exists()
    assert last.LOG.read_text() == "its words"


def test_after_its_end_the_next_is_begun(begin: Callable[..., float], systemd: Path) -> None:
    begin()
    (systemd / "ActiveState").write_text("inactive\n")
    (systemd / "started").unlink()
    assert begin(suite="full") > 1700000000
    assert "--suite=full" in (systemd / "started").read_text()


@pytest.mark.parametrize(("seconds", "hours"), [(1, 4), (15, 4), (15, 24), (3600, 24)])
def test_a_run_of_hours_is_followed_in_fewer_steps_than_a_play_can_take(
    last: ModuleType, seconds: float, hours: float
) -> None:
    elapsed, steps = 0.0, 0
    while elapsed < hours * 3600:
        elapsed += last.step_of(elapsed, seconds)
        steps += 1
    assert steps < 220
