# SPDX-License-Identifier: GPL-3.0-or-later
"""The retry adapter against a real HTTP server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors, http
from ansible_collections.gpumesh.fleet.tests.loopback import (
    Answer,
    FakeClock,
    Respond,
    Server,
    closed_port,
    script,
)

OK = Answer(200, {"ok": True})


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Bench:
    def __init__(self, stack: ExitStack, clock: FakeClock) -> None:
        self.stack, self.clock = stack, clock

    def __call__(
        self, *answers: Answer, respond: Respond | None = None, **policy: Any
    ) -> tuple[Server, requests.Session]:
        server = self.stack.enter_context(Server(respond or script(*answers)).running())
        policy.setdefault("chance", lambda: 1.0)
        adapter = http.RetryAdapter(self.clock, http.RetryPolicy(**policy), timeout=(5, 5))
        return server, http.new_session(adapter)


@pytest.fixture
def bench(stack: ExitStack, clock: FakeClock) -> Bench:
    return Bench(stack, clock)


@pytest.mark.parametrize("simulated", [True, False])
def test_a_sandbox_is_known_by_its_own_word(bench: Bench, simulated: bool) -> None:
    word = {"X-Gpumesh-Simulated": "true"} if simulated else {}
    server, session = bench(Answer(200, {}, headers=word), OK)
    for _ in range(2):
        session.get(server.url)
    adapter = session.get_adapter(server.url)
    assert isinstance(adapter, http.RetryAdapter)
    assert adapter.simulated is simulated


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_repeatable_methods_are_retried(bench: Bench, clock: FakeClock, method: str, status: int) -> None:
    server, session = bench(Answer(status), Answer(status), OK)
    assert session.request(method, server.url).status_code == 200
    assert len(server.seen) == 3
    assert clock.slept == [0.5, 1.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422, 423, 501])
def test_a_final_answer_is_not_retried(bench: Bench, status: int) -> None:
    server, session = bench(Answer(status))
    assert session.get(server.url).status_code == status
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_post_is_not_retried_after_a_server_error(bench: Bench, status: int) -> None:
    server, session = bench(Answer(status))
    assert session.post(server.url, json={}).status_code == status
    assert len(server.seen) == 1


@pytest.mark.parametrize("answer", [Answer(429), Answer(503, headers={"Retry-After": "2"})])
def test_a_post_that_was_turned_away_is_retried_with_its_body(bench: Bench, answer: Answer) -> None:
    server, session = bench(answer, OK)
    assert session.post(server.url, json={"name": "x"}).status_code == 200
    assert [seen.body for seen in server.seen] == [{"name": "x"}] * 2


@pytest.mark.parametrize("answer", [Answer(500), Answer(0), Answer(200, {"long": "x" * 100}, cut=True)])
def test_a_post_with_a_request_id_is_retried_like_a_get(bench: Bench, answer: Answer) -> None:
    server, session = bench(answer, OK)
    assert session.post(f"{server.url}/x?requestId=1", json={}).json() == {"ok": True}


@pytest.mark.parametrize("answer", [Answer(500), Answer(0)])
def test_a_post_the_policy_knows_to_be_harmless_is_retried_like_a_get(bench: Bench, answer: Answer) -> None:
    server, session = bench(
        answer, OK, Answer(500), repeatable=lambda request: request.url.endswith("/named")
    )
    assert session.post(f"{server.url}/named", json={}).json() == {"ok": True}
    assert session.post(f"{server.url}/other", json={}).status_code == 500


@pytest.mark.parametrize("answer", [Answer(0), Answer(200, {"long": "x" * 100}, cut=True)])
def test_a_get_survives_a_broken_connection(bench: Bench, answer: Answer) -> None:
    server, session = bench(answer, OK)
    assert session.get(server.url).json() == {"ok": True}


@pytest.mark.parametrize("answer", [Answer(0), Answer(200, {"long": "x" * 100}, cut=True)])
def test_a_post_that_may_have_arrived_is_not_repeated(bench: Bench, answer: Answer) -> None:
    server, session = bench(answer)
    with pytest.raises(requests.RequestException):
        session.post(server.url, json={})
    assert len(server.seen) == 1


def test_a_post_that_never_left_is_retried_until_the_deadline(bench: Bench, clock: FakeClock) -> None:
    _server, session = bench(connect_deadline=10.0)
    with pytest.raises(requests.ConnectionError):
        session.post(f"http://127.0.0.1:{closed_port()}/", json={})
    assert clock.slept == [0.5, 1.0, 2.0, 4.0]


def test_where_nobody_listens_we_give_up_soon_and_say_so(bench: Bench, clock: FakeClock) -> None:
    _server, session = bench()
    with pytest.raises(requests.ConnectionError) as caught:
        session.get(f"http://127.0.0.1:{closed_port()}/")
    assert sum(clock.slept) < 6
    assert isinstance(http.no_answer(caught.value, "Hetzner", "listing"), errors.Unreachable)


def test_retry_after_is_honoured_and_spread(bench: Bench, clock: FakeClock) -> None:
    server, session = bench(
        Answer(429, headers={"Retry-After": "7"}),
        Answer(429, headers={"Retry-After": "Fri, 20 Nov 2026 12:01:00 GMT"}),
        Answer(429, headers={"Retry-After": "soon"}),
        OK,
    )
    assert session.get(server.url).status_code == 200
    assert clock.slept == [7.5, pytest.approx(60.0 - 7.5 + 0.5), 2.0]


def test_a_wait_beyond_the_deadline_is_not_begun(bench: Bench, clock: FakeClock) -> None:
    server, session = bench(Answer(429, headers={"Retry-After": "3600"}))
    assert session.get(server.url).status_code == 429
    assert clock.slept == []


def test_the_last_answer_is_given_back_at_the_deadline(bench: Bench, clock: FakeClock) -> None:
    server, session = bench(respond=lambda _: Answer(503, {"error": "down"}), deadline=60.0, cap=8.0)
    assert session.get(server.url).json() == {"error": "down"}
    assert clock.now() <= 60.0
    assert clock.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0]


def test_waits_are_jittered_over_the_whole_span() -> None:
    assert http.RetryPolicy(base=1.0, chance=lambda: 0.0).delay(5, None) == 0.0
    assert http.RetryPolicy(base=1.0, chance=lambda: 0.5).delay(3, None) == 4.0
    assert http.RetryPolicy(base=1.0, cap=30.0, chance=lambda: 1.0).delay(10_000, None) == 30.0


def test_a_refusal_that_did_nothing_is_retried_for_any_method(bench: Bench) -> None:
    server, session = bench(
        Answer(423, {"code": "locked"}), OK, refused=lambda response: response.json().get("code") == "locked"
    )
    assert session.post(server.url, json={}).status_code == 200
    assert len(server.seen) == 2


def test_a_time_out_applies_where_the_caller_names_none(bench: Bench) -> None:
    release = threading.Event()

    def hang(_: object) -> Answer:
        release.wait(10)
        return OK

    server, session = bench(respond=hang, deadline=0.0)
    http.mount(
        session,
        http.RetryAdapter(bench.clock, http.RetryPolicy(deadline=0.0, chance=lambda: 1.0), timeout=(5, 0.05)),
    )
    with pytest.raises(requests.ReadTimeout):
        session.get(server.url, timeout=None)
    release.set()


def test_netrc_does_not_replace_our_token(
    bench: Bench, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server, session = bench(OK)
    session.get(server.url, headers={"Authorization": "Bearer ours"})
    assert server.seen[0].headers["authorization"] == "Bearer ours"
    assert server.seen[0].headers["user-agent"] == http.USER_AGENT


def test_threads_share_connections_but_not_sessions(bench: Bench) -> None:
    server, first = bench(respond=lambda _: OK)
    adapter = first.get_adapter(server.url)
    assert isinstance(adapter, http.RetryAdapter)
    for _ in range(5):
        assert http.new_session(adapter).get(server.url).status_code == 200
    assert server.connections == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.AuthError),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (412, errors.Conflict),
        (418, errors.InvalidRequest),
        (423, errors.Conflict),
        (429, errors.RateLimited),
        (500, errors.Unavailable),
        (599, errors.Unavailable),
    ],
)
def test_every_status_has_a_kind(status: int, kind: type[errors.ProviderError]) -> None:
    assert http.kind_of(status) is kind


def test_no_answer_is_reported_in_a_sentence_without_the_secret(bench: Bench) -> None:
    _server, session = bench(deadline=0.0)
    url = f"http://127.0.0.1:{closed_port()}/?auth=s3cret-token-value"
    with pytest.raises(requests.ConnectionError) as caught:
        session.get(url)
    error = http.no_answer(caught.value, "ZeroTier Central", "listing members", ["s3cret-token-value"])
    assert isinstance(error, errors.Unavailable)
    assert str(error).startswith("listing members: ZeroTier Central at 127.0.0.1:")
    assert "refused" in str(error.details)
    assert "s3cret" not in str(error) + str(error.as_failure())


def test_a_service_that_cannot_be_reached_is_told_from_a_sick_one(bench: Bench) -> None:
    server, session = bench(Answer(0), deadline=0.0)
    with pytest.raises(requests.ConnectionError) as caught:
        session.get(server.url)
    assert type(http.no_answer(caught.value, "Hetzner", "listing")) is errors.Unavailable
    with pytest.raises(requests.ConnectionError) as caught:
        session.get(f"http://127.0.0.1:{closed_port()}/")
    assert type(http.no_answer(caught.value, "Hetzner", "listing")) is errors.Unreachable


def test_an_endpoint_that_is_no_url_is_no_outage(bench: Bench) -> None:
    _server, session = bench()
    with pytest.raises(requests.RequestException) as caught:
        session.get("nonsense")
    assert isinstance(http.no_answer(caught.value, "Hetzner", "listing"), errors.InvalidRequest)


@pytest.mark.parametrize(
    "text",
    [
        "header 'Bearer SECRETsecret1234567'",
        "Authorization: token SECRETsecret1234567",
        "GET /x?access_token=SECRETsecret1234567&y=1",
        '{"refresh_token": "SECRETsecret1234567"}',
        "assertion=SECRETsecret1234567",
        "plain SECRETsecret1234567 and%20SECRETsecret1234567",
    ],
)
def test_scrub_takes_credentials_out(text: str) -> None:
    scrubbed = http.scrub(text, ["SECRETsecret1234567"] if text.startswith("plain") else ())
    assert "SECRET" not in scrubbed
    assert "***" in scrubbed


def test_scrub_knows_a_secret_in_every_form() -> None:
    assert http.scrub("a sec/ret+1 b sec%2Fret%2B1 c", ["sec/ret+1"]) == "a *** b *** c"


def test_scrub_leaves_plain_words() -> None:
    text = "invalid token: the token you have provided is invalid"
    assert http.scrub(text) == text
