# SPDX-License-Identifier: GPL-3.0-or-later
"""The module fleet in this process, on a little cloud: what goes in, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_models import (
    HetznerSettings,
)
from ansible_collections.gpumesh.fleet.plugins.modules import fleet as module
from ansible_collections.gpumesh.fleet.tests.little_cloud import FLEET, LittleCloud, PassingClock, kinds
from ansible_collections.gpumesh.fleet.tests.module_runner import patch_module_args

Run = Callable[..., dict[str, Any]]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKqGIzk1cB8bGPW9Jr2HZkTLvfrZJm5zTjvb5fGqzQ4F somebody"
SECRET = "sesame-0123456789"
IDENTITIES = Path(__file__).parents[3] / "fixtures/zerotier/identities"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> PassingClock:
    clock = PassingClock()
    monkeypatch.setattr(module, "SystemClock", lambda: clock)
    return clock


@pytest.fixture
def iron(monkeypatch: pytest.MonkeyPatch, clock: PassingClock) -> LittleCloud:
    cloud = LittleCloud("iron", clock)
    monkeypatch.setattr(module, "KINDS", kinds(cloud))
    return cloud


@pytest.fixture
def run(tmp_path: Path, iron: LittleCloud, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "key.pub").write_text(KEY)
    content = {
        "plugin": "gpumesh.fleet.fleet",
        "fleet": FLEET,
        "defaults": {"ssh_keys": ["key.pub"]},
        "known_hosts": "known_hosts",
        "providers": {"iron": {}},
        "machines": {"ore": {"provider": "iron", "type": "small", "enabled": True}},
    }
    path = tmp_path / "fleet.yml"
    path.write_text(yaml.safe_dump(content))

    def run(*, check: bool = False, diff: bool = False, mesh: Any = None, **options: Any) -> dict[str, Any]:
        if mesh:
            path.write_text(yaml.safe_dump({**content, "mesh": mesh}))
        arguments = {"fleet_file": str(path), **options, "_ansible_check_mode": check, "_ansible_diff": diff}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


def test_a_plan_is_no_change(run: Run, iron: LittleCloud) -> None:
    result = run()
    assert result["changed"] is False and result["needs_approval"] is True
    assert [(change["machine"], change["action"]) for change in result["plan"]] == [("ore", "create")]
    assert result["costs"]["after"] == {"hourly_usd": "0.01", "monthly_usd": "7.30", "unknown": 0}
    assert "diff" not in result and not iron.truth()


def test_check_mode_tells_what_applying_does_and_does_not_ask_for_consent(
    run: Run, iron: LittleCloud
) -> None:
    would = run(state="applied", check=True, diff=True)
    assert would["changed"] is True and not iron.truth()
    did = run(state="applied", approved_digest=would["digest"], diff=True)
    assert did["changed"] is True and len(iron.truth()) == 1
    assert would["diff"] == did["diff"] == {"prepared": "\n".join([*did["table"], ""])}
    assert set(would) == set(did)


def test_twice_is_once(run: Run) -> None:
    run(state="applied", approve=True)
    again = run(state="applied", diff=True)
    assert again["changed"] is False and again["results"] == [] and "diff" not in again


def test_without_consent_it_fails_with_the_reason_as_data(run: Run, iron: LittleCloud) -> None:
    result = run(state="applied")
    assert result["failed"] is True and result["failure"]["kind"] == "ApprovalRequired"
    assert "create ore" in result["msg"] and not iron.truth()


def test_a_machine_that_could_not_be_had_fails_the_task_with_all_results(run: Run, iron: LittleCloud) -> None:
    iron.fault = lambda verb, _machine, _zone: "stockout" if verb == "create" else None
    result = run(state="applied", approve=True)
    assert result["failed"] is True and result["msg"].startswith("ore: here: none left")
    assert result["results"][0]["status"] == "failed" and result["failures"][0]["kind"] == "OutOfStock"


def test_a_plan_with_problems_is_shown(run: Run, iron: LittleCloud) -> None:
    iron.refuses = errors.Unavailable("no answer")
    result = run()
    assert "failed" not in result and result["plan"][0]["action"] == "unknown"
    assert result["failures"][0]["message"] == "its cloud could not be asked: no answer"


def test_a_fleet_file_that_cannot_be_used_is_one_clear_failure(run: Run) -> None:
    result = run(fleet_file="/nowhere/fleet.yml")
    assert result["failed"] is True and result["failure"]["kind"] == "SpecError"


def test_retiring(run: Run, iron: LittleCloud) -> None:
    run(state="applied", approve=True)
    result = run(state="applied", retire=["ore"], approve=True)
    assert result["results"][0]["action"] == "delete" and not iron.truth()
    assert result["machines"]["ore"]["state"] == "missing"


def test_recording_host_keys_makes_no_plan(run: Run, tmp_path: Path) -> None:
    run(state="applied", approve=True)
    key = " ".join(KEY.split()[:2])
    first = run(host_keys={"ore": key}, host_key_phase="announce")
    assert first["changed"] is True and "plan" not in first
    assert run(host_keys={"ore": key}, host_key_phase="announce")["changed"] is False
    assert first["failures"] == []
    assert key in (tmp_path / "known_hosts").read_text()


def test_recording_host_keys_tells_each_that_failed(run: Run, tmp_path: Path) -> None:
    run(state="applied", approve=True)
    key = " ".join(KEY.split()[:2])
    result = run(host_keys={"ore": key, "tin": key}, host_key_phase="announce")
    assert result["failed"] is True and result["changed"] is True
    assert [(failure["machine"], failure["text"]) for failure in result["failures"]] == [
        ("tin", result["msg"])
    ]
    assert "Provision it first" in result["msg"] and key in (tmp_path / "known_hosts").read_text()


def test_recording_the_host_keys_of_nobody_makes_no_plan_either(run: Run) -> None:
    result = run(host_keys={}, state="applied")
    assert result["changed"] is False and result["failures"] == [] and "plan" not in result


def test_a_plan_that_is_only_made_is_no_diff(run: Run) -> None:
    result = run(diff=True)
    assert "diff" not in result and result["table"]


def test_a_file_that_would_stop_an_apply_is_a_refusal_of_the_plan(run: Run, tmp_path: Path) -> None:
    (tmp_path / "key.pub").unlink()
    planned: list[dict[str, Any]] = [{}, {"state": "applied", "check": True}]
    for options in planned:
        result = run(**options)
        assert "failed" not in result and "key.pub" in result["refusal"]
    assert run(state="applied", approve=True)["failure"]["kind"] == "InvalidRequest"


def test_no_secret_comes_out(
    run: Run, iron: LittleCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: PassingClock
) -> None:
    registry = kinds(iron)
    monkeypatch.setattr(module, "KINDS", {"iron": registry["iron"].__class__(
        "iron", registry["iron"].machine_model, HetznerSettings, registry["iron"].connect
    )})  # fmt: skip
    path = tmp_path / "fleet.yml"
    content = yaml.safe_load(path.read_text())
    content["providers"] = {"iron": {"token": SECRET}}
    path.write_text(yaml.safe_dump(content))
    iron.refuses = errors.Unavailable(f"the service said {SECRET} and option-secret-77")
    result = run(state="applied", approve=True, credentials={"iron": {"token": "option-secret-77"}})
    assert result["failed"] is True
    assert SECRET not in json.dumps(result) and "option-secret-77" not in json.dumps(result)


class TestBirthIntoTheMesh:
    MESH: ClassVar = {"network": "db4344343b14b903", "controller": "central_v1"}
    REPOSITORY: ClassVar = {
        "url": "https://packages.example.com/debian",
        "key": "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
    }

    def test_a_new_machine_is_given_its_identity(self, run: Run, iron: LittleCloud) -> None:
        text = (IDENTITIES / "node.secret").read_text()
        result = run(
            state="applied", approve=True, mesh=self.MESH, mesh_repository=self.REPOSITORY, mesh_identities={"ore": text}
        )  # fmt: skip
        assert not result.get("failed"), result
        birth = iron.given["ore"].mesh
        assert birth and birth.identity.node_id == "a0c848c379" and birth.suite == "trixie"
        assert text.strip().rpartition(":")[2] not in json.dumps(result)

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"mesh_identities": {"ore": "a0c848c379:0:12"}}, "in no form of ZeroTier's"),
            ({"mesh_identities": {"ore": (IDENTITIES / "node.secret").read_text()}}, "no repository of ZeroTier's"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_is_refused_before_anything_is_bought(
        self, run: Run, iron: LittleCloud, given: dict[str, Any], says: str
    ) -> None:
        result = run(state="applied", approve=True, mesh=self.MESH, **given)
        assert result["failed"] and says in result["msg"]
        assert not iron.truth()
