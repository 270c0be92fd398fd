# SPDX-License-Identifier: GPL-3.0-or-later
"""Many jobs at once, with time that passes only when nothing else can be done."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.base import Operation, Progress
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.scheduler import (
    Ask,
    Await,
    Pause,
    Scheduler,
)
from ansible_collections.gpumesh.fleet.tests.little_cloud import LittleCloud, PassingClock

Steps = Generator[Ask | Await | Pause, Any, Any]


class Forgetful(LittleCloud):
    """A cloud whose answers about operations are made up by the test."""

    answers: Any = None

    def poll(self, operations: Sequence[Operation]) -> Mapping[str, Progress]:
        self.calls["poll"] += 1
        answer: Mapping[str, Progress] = self.answers(operations)
        return answer


@pytest.fixture
def cloud() -> Forgetful:
    return Forgetful("iron", PassingClock())


def run(cloud: Forgetful, **jobs: Steps) -> dict[str, Any]:
    return Scheduler[Any]({"iron": cloud}, cloud.clock, workers=4).run(jobs)


def awaits(number: int = 0, seconds: float = 100.0) -> Steps:
    progress = yield Await("iron", Operation(f"op-{number}", "ore", "create"), seconds)
    return progress


def test_pauses_of_many_jobs_pass_together(cloud: Forgetful) -> None:
    def sleeper(seconds: float) -> Steps:
        yield Pause(seconds)
        return cloud.clock.now()

    assert run(cloud, a=sleeper(5), b=sleeper(3), c=sleeper(4)) == {"a": 5.0, "b": 3.0, "c": 4.0}


def test_requests_run_side_by_side_and_no_more_than_allowed(cloud: Forgetful) -> None:
    meet = threading.Barrier(4, timeout=20)
    under_way: list[int] = []
    lock = threading.Lock()
    most = 0

    def call() -> str:
        nonlocal most
        with lock:
            under_way.append(1)
            most = max(most, len(under_way))
        meet.wait()
        with lock:
            under_way.pop()
        return "done"

    def asker() -> Steps:
        return (yield Ask("iron", call))

    assert set(run(cloud, **{f"j{n}": asker() for n in range(8)}).values()) == {"done"}
    assert most == 4


def test_what_a_request_raises_is_raised_in_the_job(cloud: Forgetful) -> None:
    def fails() -> None:
        raise errors.Conflict("taken")

    def catches() -> Steps:
        try:
            yield Ask("iron", fails)
        except errors.Conflict as error:
            return error.what

    def does_not() -> Steps:
        yield Ask("iron", fails)

    ended = run(cloud, a=catches(), b=does_not())
    assert ended["a"] == "taken" and isinstance(ended["b"], errors.Conflict)


def test_operations_are_asked_about_in_one_request(cloud: Forgetful) -> None:
    cloud.answers = lambda operations: {o.id: Progress(cloud.clock.now() >= 2) for o in operations}
    ended = run(cloud, **{f"j{n}": awaits(n) for n in range(50)})
    assert set(ended.values()) == {Progress(True)} and cloud.calls["poll"] < 12


def test_an_operation_the_cloud_no_longer_knows_counts_as_ended_after_some_looks(cloud: Forgetful) -> None:
    cloud.answers = lambda operations: {}
    assert run(cloud, a=awaits()) == {"a": Progress(True)} and cloud.calls["poll"] == 3


def test_one_left_out_now_and_then_is_not_lost(cloud: Forgetful) -> None:
    def answer(operations: Sequence[Operation]) -> dict[str, Progress]:
        return (
            {} if cloud.calls["poll"] % 2 else {o.id: Progress(cloud.calls["poll"] > 10) for o in operations}
        )

    cloud.answers = answer
    run(cloud, a=awaits())
    assert cloud.calls["poll"] == 12


def test_an_operation_that_does_not_end_is_given_up(cloud: Forgetful) -> None:
    cloud.answers = lambda operations: {o.id: Progress(False) for o in operations}
    ended = run(cloud, a=awaits(seconds=30), b=awaits(1, seconds=10))
    assert isinstance(ended["a"], errors.WaitTimeout) and "had not ended after 3" in str(ended["a"])
    assert isinstance(ended["b"], errors.WaitTimeout) and "operation op-1" in str(ended["b"])


def test_a_defect_in_one_job_ends_that_job_only(cloud: Forgetful) -> None:
    def broken() -> Steps:
        yield Pause(1)
        raise ZeroDivisionError

    def sound() -> Steps:
        yield Pause(2)
        return "fine"

    ended = run(cloud, a=broken(), b=sound())
    assert isinstance(ended["a"], ZeroDivisionError) and ended["b"] == "fine"


def test_nothing_to_do_is_done_at_once(cloud: Forgetful) -> None:
    assert run(cloud) == {}
