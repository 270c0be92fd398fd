# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploads to Cloud Storage, against scripted answers; the ways that go well are among the integration tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import gcp_api, gcp_archive
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_storage import (
    PATIENCE,
    PIECE,
    SCOPE,
    Note,
    Storage,
    StoredObject,
)
from ansible_collections.gpumesh.fleet.tests.compute import Cloud, cloud, error
from ansible_collections.gpumesh.fleet.tests.gcp_archives import archive
from ansible_collections.gpumesh.fleet.tests.loopback import Answer, Seen

Respond = Callable[[Seen], Answer]
SECRET = "the-upload-id"
UPLOAD = "/upload/storage/v1/b/images/o"


def storage(google: Cloud) -> Storage:
    credentials = gcp_api.find_credentials(str(google.key_file), {}, google.clock, (SCOPE,))
    return Storage(credentials, google.clock, google.server.url)


def begun(google: list[Cloud]) -> Answer:
    return Answer(200, headers={"Location": f"{google[0].server.url}{UPLOAD}?upload_id={SECRET}"})


def stored(read: gcp_archive.Archive, **given: object) -> Answer:
    raw = {"bucket": "images", "name": "a", "generation": "7", "size": str(read.size), "md5Hash": read.md5}
    return Answer(200, {**raw, **given})


class Script:
    """Answers to the beginning of an upload and, one after the other, to what follows; the last one stays."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.google: list[Cloud] = []
        self.deleted = 0

    def __call__(self, seen: Seen) -> Answer:
        if seen.method == "DELETE":
            self.deleted += 1
            return Answer(204)
        if seen.method == "POST":
            return begun(self.google)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def upload(tmp_path: Path, script: Script) -> tuple[StoredObject | errors.FleetError, Cloud]:
    # An archive is no JSON and no text, which is all that the double understands; so the upload is of a text.
    path = tmp_path / "disk.tar.gz"
    path.write_text("x" * 1000)
    read = gcp_archive.Archive(path, 1000, "Yn2CcrKkZyRmYp8/mBR1TQ==", "0" * 64, 1)
    with cloud(tmp_path, script) as google:
        script.google.append(google)
        try:
            return storage(google).upload(read, "images", "a", {"gpumesh-image": "a"}), google
        except errors.FleetError as failure:
            return failure, google


def sums(tmp_path: Path) -> gcp_archive.Archive:
    return gcp_archive.Archive(tmp_path, 1000, "Yn2CcrKkZyRmYp8/mBR1TQ==", "0" * 64, 1)


def test_a_piece_is_a_multiple_of_what_the_service_takes() -> None:
    assert PIECE % (256 * 1024) == 0


def test_what_is_sent(tmp_path: Path) -> None:
    found, google = upload(tmp_path, Script(stored(sums(tmp_path))))
    assert isinstance(found, StoredObject) and found.url == "https://storage.googleapis.com/images/a"
    first, piece = (seen for seen in google.server.seen if seen.path == UPLOAD)
    assert dict(first.query)["ifGenerationMatch"] == "0" and dict(first.query)["uploadType"] == "resumable"
    assert first.body == {
        "name": "a",
        "md5Hash": "Yn2CcrKkZyRmYp8/mBR1TQ==",
        "metadata": {"gpumesh-image": "a"},
    }
    assert first.headers["x-upload-content-length"] == "1000"
    assert first.headers["authorization"].startswith("Bearer ")
    assert piece.headers["content-range"] == "bytes 0-999/1000" and piece.body == "x" * 1000
    # The URL of the upload is authority enough, so the token does not go wherever it points.
    assert "authorization" not in piece.headers


@pytest.mark.parametrize("given", [{"md5Hash": "AAAA"}, {"size": "999"}, {"md5Hash": ""}])
def test_what_arrived_damaged_is_removed_again(tmp_path: Path, given: dict[str, str]) -> None:
    script = Script(stored(sums(tmp_path), **given))
    failure, _google = upload(tmp_path, script)
    assert isinstance(failure, errors.OperationFailed) and "is not what was sent" in str(failure)
    assert script.deleted == 1


def test_a_service_that_takes_nothing_is_given_up_after_a_while(tmp_path: Path) -> None:
    failure, google = upload(tmp_path, Script(Answer(503)))
    assert isinstance(failure, errors.Unavailable) and "Run the same task again" in str(failure)
    assert PATIENCE / 2 < google.clock.now() <= PATIENCE * 1.5
    # What was begun is remembered, for its owner's eyes only.
    note = tmp_path / ".disk.tar.gz.upload"
    assert SECRET in json.loads(note.read_text())["session"] and note.stat().st_mode & 0o777 == 0o600


def test_waiting_as_long_as_the_service_asks_for(tmp_path: Path) -> None:
    script = Script(Answer(429, headers={"Retry-After": "17"}), Answer(308), stored(sums(tmp_path)))
    found, google = upload(tmp_path, script)
    assert isinstance(found, StoredObject) and 17 <= google.clock.now() < 20


def test_an_upload_forgotten_again_and_again_is_an_error(tmp_path: Path) -> None:
    failure, _google = upload(tmp_path, Script(Answer(410)))
    assert isinstance(failure, errors.OperationFailed) and "forgotten 3 uploads" in str(failure)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (error(403, "forbidden"), errors.Forbidden, "roles/storage.objectUser"),
        (error(412, "conditionNotMet"), errors.Conflict, "run the same task again"),
        (error(400, "invalid", "Provided MD5 hash does not match"), errors.InvalidRequest, "MD5"),
    ],
)
def test_what_a_refusal_means(tmp_path: Path, answer: Answer, kind: type[Exception], said: str) -> None:
    failure, _google = upload(tmp_path, Script(answer))
    assert isinstance(failure, kind) and said in str(failure)
    assert not (tmp_path / ".disk.tar.gz.upload").exists()


def test_no_message_tells_the_url_of_the_upload(tmp_path: Path) -> None:
    for answer in (Answer(0), Answer(503), error(403, "forbidden"), Answer(410), Answer(302, "x")):
        failure, _google = upload(tmp_path, Script(answer))
        assert isinstance(failure, errors.FleetError)
        assert SECRET not in str(failure.as_failure()), answer
        (tmp_path / ".disk.tar.gz.upload").unlink(missing_ok=True)


def test_nor_does_a_place_that_cannot_be_reached_at_all(tmp_path: Path) -> None:
    nowhere = Answer(200, headers={"Location": f"http://127.0.0.1:99999{UPLOAD}?upload_id={SECRET}"})
    with cloud(tmp_path, lambda _: nowhere) as google:
        path = tmp_path / "disk.tar.gz"
        path.write_text("x" * 1000)
        with pytest.raises(errors.InvalidRequest, match="no request could be made") as failure:
            storage(google).upload(replace(sums(tmp_path), path=path), "images", "a", {})
    assert SECRET not in str(failure.value.as_failure())


def test_a_note_that_is_no_note_is_passed_over(tmp_path: Path) -> None:
    note = tmp_path / ".disk.tar.gz.upload"
    other = {"bucket": "images", "object": "other", "md5": "x", "generation": "0"}
    for text in ("no JSON", "[]", json.dumps({"target": other, "session": "http://127.0.0.1:1/x"})):
        note.write_text(text)
        found, _google = upload(tmp_path, Script(stored(sums(tmp_path))))
        assert isinstance(found, StoredObject)


def test_a_folder_that_cannot_be_written_costs_only_the_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    found, _google = upload(tmp_path, Script(stored(sums(tmp_path))))
    assert isinstance(found, StoredObject)


def test_a_real_archive_holds_what_was_stored(tmp_path: Path) -> None:
    read = gcp_archive.read(archive(tmp_path))
    there = StoredObject("b", "a b", "1", read.size, read.md5, {})
    assert there.holds(read) and there.url.endswith("/b/a%20b")


def test_what_arrived_elsewhere_is_not_taken_for_it(tmp_path: Path) -> None:
    script = Script(stored(sums(tmp_path), bucket="theirs"))
    failure, _google = upload(tmp_path, script)
    assert isinstance(failure, errors.OperationFailed) and "gs://theirs/a" in str(failure)
    assert "Check storage_endpoint" in str(failure) and script.deleted == 0


@pytest.mark.parametrize("how", ["readable", "writable", "link", "pipe"])
def test_a_note_that_others_may_have_written_is_not_followed(tmp_path: Path, how: str) -> None:
    note, target = Note(replace(sums(tmp_path), path=tmp_path / "a")), {"bucket": "images"}
    note.write(target, "https://example.org/upload")
    assert note.read(target) == "https://example.org/upload"
    path = tmp_path / ".a.upload"
    if how == "link":
        path.rename(tmp_path / "real")
        path.symlink_to(tmp_path / "real")
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path, 0o600)
    else:
        path.chmod(0o604 if how == "readable" else 0o620)
    assert note.read(target) is None
