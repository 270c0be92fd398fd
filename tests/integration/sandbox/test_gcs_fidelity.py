# SPDX-License-Identifier: GPL-3.0-or-later
"""The local Cloud Storage serves Google's own client, and the local Compute Engine makes images of what is stored there.

Every exchange with Compute Engine through ``google`` is held against its whole discovery document, and every object and
bucket against that of Cloud Storage.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_auth_httplib2
import pytest
import requests
from ansible_collections.gpumesh.fleet.tests.gcp_archives import GRAIN, archive, plain
from google.auth.transport.requests import AuthorizedSession
from googleapiclient import discovery
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaFileUpload, build_http

from sandbox.gce import vendor
from sandbox.gce.description import load
from sandbox.testing import Sandbox
from tests.integration.sandbox.gce_client import body, credentials, refusal, signed_in, waited
from tests.integration.sandbox.google_contract import GoogleContract

pytestmark = pytest.mark.integration

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
PROJECT = "gpumesh-sandbox"
BUCKET = "my-images"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The discovery document of Cloud Storage."""
    return vendor.whole("storage.v1")


@pytest.fixture
def storage(sandbox: Sandbox, document: dict[str, Any]) -> Any:
    """google-api-python-client, told only where the API is, with a bucket."""
    http = google_auth_httplib2.AuthorizedHttp(credentials(sandbox, [SCOPE]), http=build_http())
    moved = {**document, "rootUrl": f"{sandbox.storage}/", "baseUrl": f"{sandbox.storage}/storage/v1/"}
    client = discovery.build_from_document(moved, http=http)
    client.buckets().insert(project=PROJECT, body={"name": BUCKET, "location": "eu"}).execute()
    return client


@pytest.fixture
def raw(sandbox: Sandbox) -> Iterator[AuthorizedSession]:
    """google-auth's session, and nothing more."""
    with signed_in(sandbox, [SCOPE]) as session:
        yield session


def upload(client: Any, path: Path, name: str = "disk.tar.gz") -> dict[str, Any]:
    media = MediaFileUpload(str(path), mimetype="application/gzip", chunksize=GRAIN, resumable=True)
    stored: dict[str, Any] = client.objects().insert(bucket=BUCKET, name=name, media_body=media).execute()
    return stored


def test_googles_own_client_uploads_lists_and_deletes(
    storage: Any, document: dict[str, Any], tmp_path: Path
) -> None:
    path = archive(tmp_path, grains=3)
    told = GoogleContract(document)
    stored = upload(storage, path, "images/disk.tar.gz")
    assert list(told.check("Object", stored, "insert")) == []
    assert stored["size"] == str(path.stat().st_size)
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).digest()
    assert stored["md5Hash"] == base64.b64encode(md5).decode()
    assert stored["contentType"] == "application/gzip"
    again = storage.objects().get(bucket=BUCKET, object="images/disk.tar.gz").execute()
    assert again == stored
    listed = storage.objects().list(bucket=BUCKET, prefix="images/").execute()
    assert list(told.check("Objects", listed, "list")) == [] and listed["items"] == [stored]
    assert list(told.check("Bucket", storage.buckets().get(bucket=BUCKET).execute(), "bucket")) == []
    storage.objects().delete(bucket=BUCKET, object="images/disk.tar.gz").execute()
    with pytest.raises(HttpError) as missing:
        storage.objects().get(bucket=BUCKET, object="images/disk.tar.gz").execute()
    assert missing.value.status_code == 404


def test_googles_own_client_goes_on_after_a_broken_connection(
    storage: Any, sandbox: Sandbox, tmp_path: Path
) -> None:
    fault = sandbox.fault(kind="unavailable", service="storage", method="PUT", nth=2)
    path = archive(tmp_path, grains=4)
    media = MediaFileUpload(str(path), mimetype="application/gzip", chunksize=GRAIN, resumable=True)
    request = storage.objects().insert(bucket=BUCKET, name="disk", media_body=media)
    done = None
    while done is None:
        try:
            _status, done = request.next_chunk()
        except HttpError as error:
            assert error.status_code == 503
    assert sandbox.hits(fault) == 1 and done["size"] == str(path.stat().st_size)


def begin(raw: AuthorizedSession, sandbox: Sandbox, **query: str) -> requests.Response:
    given = query.pop("md5", None)
    return raw.post(
        f"{sandbox.storage}/upload/storage/v1/b/{BUCKET}/o",
        params={"uploadType": "resumable", "name": "a", **query},
        json={"md5Hash": given} if given else {},
    )


def put(session: str, content: bytes, span: str) -> requests.Response:
    return requests.put(session, data=content, headers={"Content-Range": f"bytes {span}"}, timeout=30)


@pytest.mark.usefixtures("storage")
def test_the_rules_of_an_upload(raw: AuthorizedSession, sandbox: Sandbox) -> None:
    session = begin(raw, sandbox).headers["Location"]
    total = 2 * GRAIN + 5
    assert "Range" not in put(session, b"", f"*/{total}").headers
    # No whole grain, a gap, no range at all, a body that is shorter than the range.
    assert put(session, bytes(100), f"0-99/{total}").status_code == 400
    assert put(session, bytes(GRAIN), f"{GRAIN}-{2 * GRAIN - 1}/{total}").status_code == 400
    assert put(session, bytes(GRAIN), "nonsense").status_code == 400
    assert put(session, bytes(GRAIN - 1), f"0-{GRAIN - 1}/{total}").status_code == 400
    first = put(session, bytes(GRAIN), f"0-{GRAIN - 1}/{total}")
    assert (first.status_code, first.headers["Range"]) == (308, f"bytes=0-{GRAIN - 1}")
    # What is there already is passed over.
    rest = put(session, bytes(total), f"0-{total - 1}/{total}")
    assert rest.status_code == 200 and rest.json()["size"] == str(total)
    assert put(session, b"", f"*/{total}").json() == rest.json()
    assert put(session.replace("upload_id=", "upload_id=x"), b"", "*/1").status_code == 404


@pytest.mark.usefixtures("storage")
def test_what_was_not_announced_is_not_stored(raw: AuthorizedSession, sandbox: Sandbox) -> None:
    wrong = base64.b64encode(hashlib.md5(b"b", usedforsecurity=False).digest()).decode()
    session = begin(raw, sandbox, md5=wrong).headers["Location"]
    assert refusal(put(session, b"a", "0-0/1")) == (400, "invalid")
    session = begin(raw, sandbox, ifGenerationMatch="0").headers["Location"]
    other = begin(raw, sandbox, ifGenerationMatch="0").headers["Location"]
    assert put(session, b"a", "0-0/1").status_code == 200
    assert refusal(put(other, b"b", "0-0/1")) == (412, "conditionNotMet")


@pytest.mark.usefixtures("storage")
def test_only_a_token_for_storage_opens_it(google: AuthorizedSession, sandbox: Sandbox) -> None:
    google.hooks["response"].clear()
    assert refusal(google.get(f"{sandbox.storage}/storage/v1/b/{BUCKET}")) == (403, "insufficientPermissions")
    assert requests.get(f"{sandbox.storage}/storage/v1/b/{BUCKET}", timeout=30).status_code == 401
    assert google.get(f"{sandbox.storage}/storage/v2/b").status_code == 404


@pytest.mark.parametrize(
    ("query", "content", "reason"),
    [
        ({"uploadType": "media"}, {}, "invalid"),
        ({"shape": "round"}, {}, "invalid"),
        ({}, {"colour": "blue"}, "invalid"),
        ({"ifGenerationMatch": "young"}, {}, "invalid"),
        ({"name": ""}, {}, "required"),
    ],
)
@pytest.mark.usefixtures("storage")
def test_what_the_api_does_not_have_is_refused(
    raw: AuthorizedSession, sandbox: Sandbox, query: dict[str, str], content: dict[str, str], reason: str
) -> None:
    answer = raw.post(
        f"{sandbox.storage}/upload/storage/v1/b/{BUCKET}/o",
        params={"uploadType": "resumable", "name": "a", **query},
        json=content,
    )
    assert refusal(answer) == (400, reason)


def test_the_sandbox_carries_what_the_document_says(document: dict[str, Any]) -> None:
    carried = load("storage_v1.json")
    cut = vendor.cut(document, vendor.STORAGE_METHODS, "Storage v1")
    assert set(carried.methods) == set(cut["methods"])
    for name, method in cut["methods"].items():
        assert (carried.methods[name].verb, carried.methods[name].path) == (
            method["httpMethod"],
            method["path"],
        )
    for name in ("Bucket", "Object"):
        assert set(carried.schemas[name]["properties"]) <= set(document["schemas"][name]["properties"])


# Images


def insert(google: AuthorizedSession, url: str, name: str = "one", **more: Any) -> requests.Response:
    request = {
        "name": name,
        "family": "box",
        "labels": {"gpumesh-image-os": "ubuntu-24-04"},
        "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}],
        "rawDisk": {"source": f"https://storage.googleapis.com/{BUCKET}/disk.tar.gz"},
    }
    return google.post(f"{url}/global/images", json={**request, **more})


def test_an_image_is_made_changed_found_by_its_family_and_deleted(
    storage: Any, google: AuthorizedSession, url: str, tmp_path: Path
) -> None:
    upload(storage, archive(tmp_path))
    assert waited(google, insert(google, url)).get("error") is None
    assert waited(google, insert(google, url, "two")).get("error") is None
    assert refusal(insert(google, url)) == (409, "alreadyExists")
    images = f"{url}/global/images"
    listed = google.get(images, params={"filter": "labels.gpumesh-image-os = ubuntu-24-04"}).json()
    assert [image["name"] for image in listed["items"]] == ["one", "two"]
    assert google.get(f"{images}/family/box").json()["name"] == "two"
    waited(google, google.post(f"{images}/two/deprecate", json={"state": "DEPRECATED"}))
    assert google.get(f"{images}/family/box").json()["name"] == "one"
    waited(google, google.patch(f"{images}/one", json={"family": "crate"}))
    assert google.get(f"{images}/family/box").status_code == 404
    assert refusal(google.patch(f"{images}/one", json={"architecture": "ARM64"})) == (400, "invalid")
    stale = google.post(f"{images}/one/setLabels", json={"labels": {}, "labelFingerprint": "AAAA"})
    assert refusal(stale) == (412, "conditionNotMet")
    waited(google, google.delete(f"{images}/one"))
    assert google.get(f"{images}/one").status_code == 404


def test_an_instance_is_made_of_an_image_of_the_project(
    storage: Any, google: AuthorizedSession, url: str, zone: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    upload(storage, archive(tmp_path))
    waited(google, insert(google, url))
    disk = body()["disks"][0]
    for source in ("global/images/one", f"projects/{PROJECT}/global/images/family/box"):
        request = body("galena", disks=[{**disk, "initializeParams": {"sourceImage": source}}])
        done = waited(google, google.post(f"{zone}/instances", json=request))
        assert done.get("error") is None
        assert google.get(f"{zone}/instances/galena").json()["disks"][0]["diskSizeGb"] == "1"
        waited(google, google.delete(f"{zone}/instances/galena"))
    missing = body(disks=[{**disk, "initializeParams": {"sourceImage": "global/images/none"}}])
    assert refusal(google.post(f"{zone}/instances", json=missing)) == (404, "notFound")
    # Without the feature nothing can be shielded.
    waited(google, insert(google, url, "bios", guestOsFeatures=[], family=""))
    shielded = body(
        disks=[{**disk, "initializeParams": {"sourceImage": "global/images/bios"}}],
        shieldedInstanceConfig={"enableVtpm": True},
    )
    assert refusal(google.post(f"{zone}/instances", json=shielded)) == (400, "badRequest")


@pytest.mark.parametrize(
    "more",
    [
        {"rawDisk": {"source": f"https://storage.googleapis.com/{BUCKET}/none"}},
        {"rawDisk": {"source": f"gs://{BUCKET}/disk.tar.gz"}},
        {"sourceImage": "global/images/two"},
        {"storageLocations": ["eu", "us"]},
        {"guestOsFeatures": [{"type": "GVNIC"}, {"type": "GVNIC"}]},
        {"labels": {"Upper": "x"}},
        {"family": "Upper"},
    ],
)
def test_what_no_image_can_be_made_of_is_refused(
    storage: Any, google: AuthorizedSession, url: str, tmp_path: Path, more: dict[str, Any]
) -> None:
    upload(storage, archive(tmp_path))
    assert refusal(insert(google, url, **more)) == (400, "invalid")


def test_an_archive_without_a_disk_fails_the_image(
    storage: Any, google: AuthorizedSession, url: str, tmp_path: Path
) -> None:
    upload(storage, plain(tmp_path, "a.tar.gz"))
    assert "multiple of 1 GB" in str(waited(google, insert(google, url))["error"])
    assert google.get(f"{url}/global/images/one").json()["status"] == "FAILED"
    waited(google, google.delete(f"{url}/global/images/one"))
