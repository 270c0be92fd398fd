# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of Compute Engine, from a local archive to a machine of a fleet, against the sandbox."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import clock, errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers import (
    gcp_image,
    gcp_image_work,
    gcp_storage,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_image import Outcome, Wish
from ansible_collections.gpumesh.fleet.plugins.modules import gcp_image as module
from ansible_collections.gpumesh.fleet.plugins.modules import gcp_instance
from ansible_collections.gpumesh.fleet.tests.fleets import PUBLIC_KEY, gcp, write_fleet
from ansible_collections.gpumesh.fleet.tests.fleets import run_module as run_fleet
from ansible_collections.gpumesh.fleet.tests.gcp_archives import GRAIN, archive, plain, sha256
from ansible_collections.gpumesh.fleet.tests.module_runner import run_module
from requests.adapters import HTTPAdapter

from sandbox.testing import Sandbox, serve
from tests.integration.sandbox.gce_client import signed_in

pytestmark = pytest.mark.integration

PROJECT = "sandbox-project"
BUCKET = "my-images"
GOLDEN = "golden:gpu-box@1.2.0"
IMAGE = "gpu-box-v1-2-0"
STORAGE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
COMPUTE_SCOPE = "https://www.googleapis.com/auth/compute"
INSERT = "/global/images$"
UPLOAD = "/gcs/upload/"


class Quick(clock.SystemClock):
    """The real clock, hurried: whoever sleeps is woken soon, and the clock says that all the time has passed."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def now(self) -> float:
        return super().now() + self._skipped

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.02))
        self._skipped += max(0.0, seconds - 0.02)


class Cloud:
    """The sandbox, with a bucket, as its owner sees it."""

    def __init__(self, sandbox: Sandbox, project: str = PROJECT) -> None:
        self.sandbox = sandbox
        self.project = project
        self.session = signed_in(sandbox, [STORAGE_SCOPE, COMPUTE_SCOPE])

    def in_project(self, project: str) -> Cloud:
        """The same, for another project; a bucket is the whole world's."""
        return Cloud(self.sandbox, project)

    def make_bucket(self) -> Cloud:
        made = self.session.post(
            f"{self.sandbox.storage}/storage/v1/b",
            params={"project": self.project},
            json={"name": BUCKET},
        )
        assert made.ok, made.text
        return self

    @property
    def settings(self) -> dict[str, str]:
        """Options of the module."""
        return {
            "project": self.project,
            "credentials_file": str(self.sandbox.google_credentials),
            "endpoint": self.sandbox.compute,
            "storage_endpoint": self.sandbox.storage,
        }

    def image(self, name: str = IMAGE) -> dict[str, Any] | None:
        found = self.session.get(f"{self.sandbox.compute}/projects/{PROJECT}/global/images/{name}")
        return dict(found.json()) if found.ok else None

    def family(self, name: str = "gpu-box") -> str | None:
        found = self.session.get(f"{self.sandbox.compute}/projects/{PROJECT}/global/images/family/{name}")
        return str(found.json()["name"]) if found.ok else None

    def objects(self) -> list[str]:
        listed = self.session.get(f"{self.sandbox.storage}/storage/v1/b/{BUCKET}/o").json()
        return [item["name"] for item in listed.get("items", ())]

    def converge(
        self, wish: Wish, *, check: bool = False, progress: Callable[[int], None] = lambda sent: None
    ) -> Outcome:
        """As the module does it, but in small pieces and without waiting."""
        hurried = Quick()
        api, _large = gcp_image_work.connect(self.settings, hurried)
        storage = gcp_storage.Storage(_large._signed._credentials, hurried, self.sandbox.storage, piece=GRAIN)
        return gcp_image_work.converge(api, storage, wish, hurried, check=check, progress=progress)

    def request_ids(self) -> list[str]:
        """Of the requests to make an image."""
        logged = self.sandbox.admin("GET", f"requests?method=POST&path={INSERT}")["requests"]
        return [dict(entry["query"])["requestId"] for entry in logged]

    def inserts(self) -> int:
        return self.sandbox.requests(method="POST", path=INSERT)

    def pieces(self) -> int:
        return self.sandbox.requests(method="PUT", path=UPLOAD)


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with serve(operation_seconds=0.0) as sandbox:
        yield sandbox


@pytest.fixture
def cloud(server: Sandbox) -> Cloud:
    server.clear_faults()
    server.reset()
    server.set_operation_seconds(0.0)
    return Cloud(server).make_bucket()


@pytest.fixture
def wish(tmp_path: Path) -> Wish:
    """A golden image of five pieces."""
    return Wish(GOLDEN, source=archive(tmp_path, grains=4), bucket=BUCKET, description="Debian 13")


def note_of(wish: Wish) -> Path:
    assert wish.source is not None
    return wish.source.with_name(f".{wish.source.name}.upload")


# The way of an image


def test_an_archive_becomes_an_image_and_is_gone_from_the_bucket(cloud: Cloud, wish: Wish) -> None:
    assert wish.source is not None
    told: list[int] = []
    outcome = cloud.converge(wish, progress=told.append)
    assert outcome.changed and outcome.before == {"state": "absent", "object": None}
    size = wish.source.stat().st_size
    assert outcome.uploaded == size and told == [GRAIN * count for count in range(1, len(told) + 1)]
    made = cloud.image()
    assert made is not None
    assert (made["status"], made["family"], made["diskSizeGb"]) == ("READY", "gpu-box", "1")
    assert made["labels"] == {
        "gpumesh-image": "gpu-box",
        "gpumesh-image-version": "1-2-0",
        "gpumesh-image-sha256": sha256(wish.source)[:63],
    }
    assert {feature["type"] for feature in made["guestOsFeatures"]} == set(gcp_image.FEATURES)
    assert made["archiveSizeBytes"] == str(size)
    assert outcome.image is not None and outcome.image["self_link"] == made["selfLink"]
    assert cloud.objects() == [] and not note_of(wish).exists()


def test_a_second_run_changes_nothing_and_needs_no_archive(cloud: Cloud, wish: Wish) -> None:
    assert wish.source is not None
    content = sha256(wish.source)
    cloud.converge(wish)
    before = (cloud.inserts(), cloud.pieces())
    assert not cloud.converge(wish).changed
    wish.source.unlink()
    again = cloud.converge(replace(wish, content=content))
    assert not again.changed and again.image is not None and again.image["sha256"] == content[:63]
    assert (cloud.inserts(), cloud.pieces()) == before


def test_check_mode_foretells_what_a_run_then_does(cloud: Cloud, wish: Wish) -> None:
    assert wish.source is not None
    foretold = cloud.converge(wish, check=True)
    early = cloud.converge(replace(wish, source=None, content=sha256(wish.source)), check=True)
    assert cloud.image() is None and cloud.objects() == [] and cloud.pieces() == 0
    done = cloud.converge(wish)
    assert (done.before, done.after) == (foretold.before, foretold.after) == (early.before, early.after)


def test_other_content_under_the_same_version_is_refused(cloud: Cloud, wish: Wish, tmp_path: Path) -> None:
    cloud.converge(wish)
    other = replace(wish, source=archive(tmp_path, "other.tar.gz", grains=4, seed=2))
    for check in (True, False):
        with pytest.raises(errors.Conflict, match="exists with other content") as refused:
            cloud.converge(other, check=check)
        assert "new version" in str(refused.value)
    assert cloud.inserts() == 1 and cloud.objects() == []


def test_an_image_of_somebody_else_is_never_touched(cloud: Cloud, wish: Wish) -> None:
    assert wish.source is not None
    cloud.converge(wish)
    image = cloud.image()
    assert image is not None
    link = f"{cloud.sandbox.compute}/projects/{PROJECT}/global/images/{IMAGE}/setLabels"
    cloud.session.post(link, json={"labels": {}, "labelFingerprint": image["labelFingerprint"]})
    for state in ("present", "absent", "deprecated"):
        with pytest.raises(errors.Conflict, match="not made by this collection"):
            cloud.converge(replace(wish, state=state))
    assert cloud.image() is not None


def test_the_archive_stays_in_the_bucket_if_asked_for(cloud: Cloud, wish: Wish) -> None:
    assert wish.source is not None
    keep = replace(wish, keep_object=True)
    name = gcp_image.object_name(IMAGE, sha256(wish.source))
    assert cloud.converge(keep).after["object"] == f"gs://{BUCKET}/{name}"
    assert cloud.objects() == [name]
    assert not cloud.converge(keep).changed
    assert cloud.converge(wish).changed and cloud.objects() == []


def test_labels_family_and_description_can_be_changed(cloud: Cloud, wish: Wish) -> None:
    cloud.converge(wish)
    other = replace(wish, family="boxes", description="Two", labels={"purpose": "test"})
    assert cloud.converge(other, check=True).changed
    assert cloud.converge(other).changed
    image = cloud.image()
    assert image is not None and (image["family"], image["description"]) == ("boxes", "Two")
    assert image["labels"]["purpose"] == "test" and len(image["labels"]) == 4
    assert not cloud.converge(other).changed
    assert not cloud.converge(replace(other, labels=None, description=None)).changed


def test_features_of_an_image_that_exists_are_only_remarked_on(cloud: Cloud, wish: Wish) -> None:
    cloud.converge(wish)
    again = cloud.converge(replace(wish, features=("GVNIC",)))
    assert not again.changed and "only a new image" in again.notes[0]


def test_a_deprecated_version_gives_its_family_back_to_the_one_before(
    cloud: Cloud, wish: Wish, tmp_path: Path
) -> None:
    older = replace(
        wish, name="golden:gpu-box@1.1.0", source=archive(tmp_path, "older.tar.gz", grains=1, seed=3)
    )
    cloud.converge(older)
    cloud.converge(wish)
    assert cloud.family() == IMAGE
    bad = replace(wish, state="deprecated", source=None, replacement="golden:gpu-box@1.1.0")
    foretold = cloud.converge(bad, check=True)
    done = cloud.converge(bad)
    assert (done.before, done.after) == (foretold.before, foretold.after)
    assert done.image is not None and done.image["replacement"] == "gpu-box-v1-1-0"
    assert cloud.family() == "gpu-box-v1-1-0"
    assert not cloud.converge(bad).changed
    assert cloud.converge(wish).changed and cloud.family() == IMAGE


def test_absent_removes_image_and_left_over_archive(cloud: Cloud, wish: Wish) -> None:
    cloud.converge(replace(wish, keep_object=True))
    gone = Wish(GOLDEN, state="absent", bucket=BUCKET)
    assert cloud.converge(gone, check=True).changed and cloud.image() is not None
    assert cloud.converge(gone).changed
    assert cloud.image() is None and cloud.objects() == []
    assert not cloud.converge(gone).changed
    # The same upload again, under the request id that Google knows already, makes an image and not a memory of one.
    assert cloud.converge(wish).changed and cloud.image() is not None


def test_an_archive_is_gone_before_its_image_which_alone_tells_its_name(cloud: Cloud, wish: Wish) -> None:
    cloud.converge(replace(wish, keep_object=True))
    cloud.sandbox.fault(
        kind="error", service="gce", method="DELETE", path=f"/images/{IMAGE}$", status=400, times=0
    )
    with pytest.raises(errors.ProviderError):
        cloud.converge(Wish(GOLDEN, state="absent", bucket=BUCKET))
    assert cloud.image() is not None and cloud.objects() == []


def test_an_image_that_is_being_deleted_is_foretold_to_be_made(cloud: Cloud, wish: Wish) -> None:
    cloud.converge(wish)
    cloud.sandbox.set_operation_seconds(3600.0)
    with pytest.raises(errors.WaitTimeout):
        cloud.converge(Wish(GOLDEN, state="absent", timeout=0.0))
    assert (cloud.image() or {})["status"] == "DELETING"
    foretold = cloud.converge(wish, check=True)
    assert (foretold.before["state"], foretold.after["state"], foretold.image) == ("absent", "present", None)


def test_the_same_upload_makes_an_image_again_after_one_was_deleted(cloud: Cloud, wish: Wish) -> None:
    cloud.converge(replace(wish, keep_object=True))
    cloud.converge(Wish(GOLDEN, state="absent"))
    again = cloud.converge(replace(wish, keep_object=True))
    assert again.changed and again.uploaded == 0 and cloud.image() is not None
    # The second run asks under the id of the first, is told of the image that is gone, and takes the next id.
    first, second, third = cloud.request_ids()
    assert first == second != third


# What can go wrong


@pytest.mark.parametrize("kind", ["reset", "reset_after", "unavailable", "error"])
def test_an_upload_goes_on_where_it_got_to(cloud: Cloud, wish: Wish, kind: str) -> None:
    fault = cloud.sandbox.fault(
        kind=kind, service="storage", method="PUT", path=UPLOAD, nth=2, every=3, times=2
    )
    assert cloud.converge(wish).changed
    assert cloud.sandbox.hits(fault) == 2
    assert (cloud.image() or {})["status"] == "READY"
    # Five pieces, two that were struck, two questions how much is there; a piece that had arrived is not sent again.
    assert cloud.pieces() == 5 + 4 - (2 if kind == "reset_after" else 0)


def test_an_upload_whose_last_answer_was_lost_is_complete(cloud: Cloud, wish: Wish) -> None:
    cloud.sandbox.fault(kind="reset_after", service="storage", method="PUT", path=UPLOAD, nth=5)
    assert cloud.converge(wish).changed
    assert cloud.pieces() == 6


def test_half_a_piece_is_kept_and_the_rest_is_sent(cloud: Cloud, wish: Wish) -> None:
    """The connection breaks within a piece: the service has whole grains of it, and the upload goes on after those."""
    assert wish.source is not None
    content = wish.source.read_bytes()
    total = len(content)
    begun = cloud.session.post(
        f"{cloud.sandbox.storage}/upload/storage/v1/b/{BUCKET}/o",
        params={"uploadType": "resumable", "name": "x"},
        json={},
    )
    session = begun.headers["Location"]
    host = cloud.sandbox.url.removeprefix("http://")
    address, port = host.split(":")
    with socket.create_connection((address, int(port))) as line:
        head = (
            f"PUT {session.removeprefix(cloud.sandbox.url)} HTTP/1.1\r\nHost: {host}\r\n"
            f"Content-Range: bytes 0-{total - 1}/{total}\r\nContent-Length: {total}\r\n\r\n"
        )
        line.sendall(head.encode() + content[: 2 * GRAIN + 1000])
    asked = requests.put(session, headers={"Content-Range": f"bytes */{total}"}, timeout=30)
    while "Range" not in asked.headers:
        asked = requests.put(session, headers={"Content-Range": f"bytes */{total}"}, timeout=30)
    assert asked.status_code == 308
    kept = int(asked.headers["Range"].removeprefix("bytes=0-")) + 1
    assert kept in (GRAIN, 2 * GRAIN)
    done = requests.put(
        session,
        data=content[kept:],
        headers={"Content-Range": f"bytes {kept}-{total - 1}/{total}"},
        timeout=30,
    )
    assert done.status_code == 200 and done.json()["size"] == str(total)


def test_an_interrupted_upload_goes_on_in_the_next_run(cloud: Cloud, wish: Wish) -> None:
    def stop(sent: int) -> None:
        if sent >= 3 * GRAIN:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cloud.converge(wish, progress=stop)
    note = note_of(wish)
    assert note.stat().st_mode & 0o777 == 0o600
    assert cloud.objects() == [] and cloud.pieces() == 3
    assert cloud.converge(wish).changed
    # One question, and the two pieces that were missing.
    assert cloud.pieces() == 6 and not note.exists()
    assert (cloud.image() or {})["status"] == "READY"


def test_an_upload_the_service_has_forgotten_begins_again(cloud: Cloud, wish: Wish) -> None:
    def stop(sent: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cloud.converge(wish, progress=stop)
    session = json.loads(note_of(wish).read_text())["session"]
    assert requests.delete(session, timeout=30).status_code == 499
    assert cloud.converge(wish).changed and not note_of(wish).exists()


def test_a_killed_module_is_followed_by_one_that_finishes(cloud: Cloud, tmp_path: Path, root: Path) -> None:
    """kill -9 while the second piece is on its way; the next run sends only what is not there yet."""
    source = archive(tmp_path, grains=160)
    options = {"name": GOLDEN, "source": str(source), "bucket": BUCKET, **cloud.settings}
    fault = cloud.sandbox.fault(kind="hang", service="storage", method="PUT", path=UPLOAD, nth=2)
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
    program = f"import sys; sys.argv = ['gcp_image', {str(arguments)!r}]; from {module.__name__} import main; main()"
    environ = {**os.environ, "PYTHONPATH": str(root / ".ansible" / "collections")}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environ) as process:
        while not cloud.sandbox.hits(fault):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert cloud.image() is None and cloud.objects() == []
    result = run_module(module.main, **options)
    assert result["changed"] and result["uploaded_bytes"] == source.stat().st_size, result
    # Two pieces before, one question, the second and the third piece.
    assert cloud.pieces() == 5
    assert not run_module(module.main, **options)["changed"]


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
def test_a_run_that_ends_at_any_request_is_followed_by_one_that_finishes(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    """The run is ended before its first request, or after that was carried out, then at its second, and so on."""
    wish = Wish(GOLDEN, source=archive(tmp_path, grains=1), bucket=BUCKET)
    send, left = HTTPAdapter.send, [0]

    def ending(adapter: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
        if "/oauth2/" in request.url:
            return send(adapter, request, *args, **kwargs)
        left[0] -= 1
        if left[0] == 0 and not answered:
            raise KeyboardInterrupt
        answer = send(adapter, request, *args, **kwargs)
        if left[0] == 0:
            raise KeyboardInterrupt
        return answer

    ended = 0
    while True:
        cloud.sandbox.reset()
        cloud.make_bucket()
        left[0] = ended + 1
        with monkeypatch.context() as patch:
            patch.setattr(HTTPAdapter, "send", ending)
            try:
                cloud.converge(wish)
            except KeyboardInterrupt:
                ended += 1
            else:
                break
        assert (cloud.converge(wish).image or {})["status"] == "READY", ended
        assert cloud.objects() == [] and not note_of(wish).exists(), ended
    # Look, object, session, two pieces, insert, operation, image, removal.
    assert ended >= 9


def test_an_image_being_made_by_a_run_that_is_gone_is_waited_for(cloud: Cloud, wish: Wish) -> None:
    cloud.sandbox.set_operation_seconds(0.5)
    with pytest.raises(errors.WaitTimeout, match="Run the same task again"):
        cloud.converge(replace(wish, timeout=0.0))
    assert (cloud.image() or {})["status"] == "PENDING"
    patient = cloud.converge(replace(wish, timeout=1e6))
    assert cloud.inserts() == 1 and (cloud.image() or {})["status"] == "READY"
    # What was left in the bucket goes too.
    assert patient.before["object"] is not None and cloud.objects() == []


def test_an_image_that_is_never_done_keeps_nobody_waiting_for_ever(cloud: Cloud, wish: Wish) -> None:
    cloud.sandbox.fault(kind="slow_operation", service="gce", name=IMAGE, seconds=3600.0)
    with pytest.raises(errors.WaitTimeout, match="to insert image"):
        cloud.converge(replace(wish, timeout=0.0))
    with pytest.raises(errors.WaitTimeout, match="was still PENDING"):
        cloud.converge(replace(wish, timeout=0.0, bucket=None))
    # What it is being made of is not taken away meanwhile.
    assert len(cloud.objects()) == 1


def test_an_image_that_failed_is_made_again_from_the_same_upload(cloud: Cloud, wish: Wish) -> None:
    cloud.sandbox.fault(kind="failed_operation", service="gce", name=IMAGE, verb="create")
    with pytest.raises(errors.OperationFailed):
        cloud.converge(wish)
    assert (cloud.image() or {})["status"] == "FAILED"
    foretold = cloud.converge(wish, check=True)
    assert foretold.before["state"] == "failed" and foretold.changed
    again = cloud.converge(wish)
    assert again.uploaded == 0 and (cloud.image() or {})["status"] == "READY"
    assert cloud.objects() == []
    assert cloud.converge(Wish(GOLDEN, state="absent")).changed


def test_an_insert_whose_answer_was_lost_makes_one_image(cloud: Cloud, wish: Wish) -> None:
    fault = cloud.sandbox.fault(kind="reset_after", service="gce", method="POST", path=INSERT)
    assert cloud.converge(wish).changed
    assert cloud.sandbox.hits(fault) == 1 and (cloud.image() or {})["status"] == "READY"


def test_two_runs_ask_under_the_same_request_id(cloud: Cloud, wish: Wish) -> None:
    """The insert is asked for twice, as by a run that was killed before it saw the answer: one image is made."""
    cloud.sandbox.fault(kind="duplicate", service="gce", method="POST", path=INSERT)
    assert cloud.converge(wish).changed
    assert len(set(cloud.request_ids())) == 1


def test_two_runs_at_once_make_one_image(cloud: Cloud, wish: Wish) -> None:
    cloud.sandbox.set_operation_seconds(0.05)
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: cloud.converge(wish), range(4)))
    assert all(outcome.image and outcome.image["status"] == "READY" for outcome in outcomes)
    assert cloud.objects() == [] and not cloud.converge(wish).changed


def test_two_runs_with_different_content_make_one_image_and_one_refusal(
    cloud: Cloud, wish: Wish, tmp_path: Path
) -> None:
    cloud.sandbox.set_operation_seconds(0.05)
    wishes = [wish, replace(wish, source=archive(tmp_path, "other.tar.gz", grains=4, seed=2))]

    def run(one: Wish) -> str | None:
        assert one.source is not None
        try:
            return str((cloud.converge(one).image or {})["sha256"])
        except errors.Conflict:
            return None

    with ThreadPoolExecutor(2) as pool:
        kept = [found for found in pool.map(run, wishes) if found]
    # Whoever was first: the image holds what its label says, and the other was told.
    assert [(cloud.image() or {})["labels"]["gpumesh-image-sha256"]] == kept
    assert cloud.objects() == []


def test_an_archive_without_a_disk_is_refused_before_anything_is_sent(
    cloud: Cloud, wish: Wish, tmp_path: Path
) -> None:
    for source, said in (
        (plain(tmp_path, "a.tar.gz"), "multiple of 1 GiB"),
        (plain(tmp_path, "b.tar.gz", "other.raw", 1 << 20), "wants disk.raw"),
        (tmp_path / "none.tar.gz", "cannot be read: No such file"),
    ):
        with pytest.raises(errors.InvalidRequest, match=said):
            cloud.converge(replace(wish, source=source))
    assert cloud.pieces() == 0


def test_a_bucket_that_is_not_there_is_named_with_the_way_to_make_it(cloud: Cloud, wish: Wish) -> None:
    with pytest.raises(errors.NotFound, match="gcloud storage buckets create gs://no-such-bucket"):
        cloud.converge(replace(wish, bucket="no-such-bucket"))


def test_an_object_of_somebody_else_is_not_replaced(cloud: Cloud, wish: Wish) -> None:
    begun = cloud.session.post(
        f"{cloud.sandbox.storage}/upload/storage/v1/b/{BUCKET}/o",
        params={"uploadType": "resumable", "name": "mine"},
        json={},
    )
    requests.put(begun.headers["Location"], data=b"x", headers={"Content-Range": "bytes 0-0/1"}, timeout=30)
    with pytest.raises(errors.Conflict, match="was not put there for the image"):
        cloud.converge(replace(wish, object="mine"))
    assert cloud.objects() == ["mine"]


# Machines made from it


def test_a_machine_of_a_fleet_is_made_from_it_and_stays_as_declared(
    cloud: Cloud, wish: Wish, tmp_path: Path
) -> None:
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    write_fleet(fleet, cloud.sandbox, {"opal": gcp(image=GOLDEN)})
    publish = cloud.in_project("gpumesh-sandbox")
    early = run_fleet(fleet, state="planned")
    assert "playbooks/image_publish.yml" in early["refusal"]
    publish.converge(replace(wish, labels={"gpumesh-image-os": "debian-13"}))
    made = run_fleet(fleet, state="applied", approve=True)
    assert made["changed"] and made["machines"]["opal"]["image"] == GOLDEN, made
    again = run_fleet(fleet, state="applied", approve=True)
    assert not again["changed"] and [change["action"] for change in again["plan"]] == ["keep"]
    write_fleet(fleet, cloud.sandbox, {"opal": gcp(image="golden:gpu-box@1.3.0")})
    [drift] = run_fleet(fleet, state="planned")["plan"]
    assert (drift["action"], drift["before"]) == ("drift", {"image": GOLDEN})


def test_one_instance_can_have_the_newest(cloud: Cloud, wish: Wish) -> None:
    options = {
        "name": "opal",
        "zone": "us-central1-a",
        "type": "e2-standard-2",
        "image": "golden:gpu-box@latest",
        "ssh_keys": [PUBLIC_KEY],
        **{key: value for key, value in cloud.settings.items() if key != "storage_endpoint"},
    }
    assert "no version of the image gpu-box" in run_module(gcp_instance.main, **options)["msg"]
    cloud.converge(wish)
    foretold = run_module(gcp_instance.main, check=True, **options)
    made = run_module(gcp_instance.main, **options)
    assert made["changed"] and made["instance"]["image"] == GOLDEN, made
    assert foretold["diff"] == made["diff"]
    assert not run_module(gcp_instance.main, **options)["changed"]
    other = {**options, "name": "agate", "image": "golden:gpu-box@9.0.0"}
    for check in (True, False):
        assert "playbooks/image_publish.yml" in run_module(gcp_instance.main, check=check, **other)["msg"]
    assert run_module(gcp_instance.main, **options, state="absent")["changed"]


def test_an_archive_left_by_another_conversion_is_replaced(cloud: Cloud, wish: Wish, tmp_path: Path) -> None:
    """The same content packed anew gives another archive; the one in the bucket is of no use, and ours to replace."""
    content = "ab" * 32
    failing = cloud.sandbox.fault(kind="failed_operation", service="gce", name=IMAGE, verb="create")
    with pytest.raises(errors.OperationFailed):
        cloud.converge(replace(wish, content=content))
    assert cloud.sandbox.hits(failing) == 1 and len(cloud.objects()) == 1
    packed = archive(tmp_path, "again.tar.gz", grains=4, seed=2)
    again = cloud.converge(replace(wish, content=content, source=packed))
    assert again.uploaded == packed.stat().st_size and cloud.objects() == []
    assert (cloud.image() or {})["archiveSizeBytes"] == str(packed.stat().st_size)


# The module


def test_the_module_publishes_foretells_and_says_that_it_was_simulated(cloud: Cloud, tmp_path: Path) -> None:
    options = {
        "name": GOLDEN,
        "source": str(archive(tmp_path)),
        "bucket": BUCKET,
        "labels": {"gpumesh-image-os": "debian-13"},
        **cloud.settings,
    }
    foretold = run_module(module.main, check=True, **options)
    done = run_module(module.main, **options)
    again = run_module(module.main, **options)
    assert done["changed"] and done["simulated"] and done["image"]["disk_gb"] == 1, done
    assert foretold["diff"] == done["diff"] and foretold["image"] is None
    assert not again["changed"] and again["image"]["labels"]["gpumesh-image-os"] == "debian-13"
