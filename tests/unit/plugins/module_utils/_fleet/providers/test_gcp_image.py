# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image of Compute Engine is to become, and the request that makes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import errors
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_image import (
    CONTENT_LABEL,
    FEATURES,
    Wish,
    insert_body,
    named,
    object_name,
    predict,
    seen,
    shown,
)
from ansible_collections.gpumesh.fleet.tests.compute import check_body

CONTENT, OTHER = "ab" * 32, "cd" * 32
GONE = {"state": "absent", "object": None}
WISH = named(Wish("golden:gpu-box@1.2.0", bucket="images"))


def image(**given: Any) -> dict[str, Any]:
    """An image as Compute Engine shows it."""
    return {
        "name": "gpu-box-v1-2-0",
        "status": "READY",
        "family": "gpu-box",
        "description": "",
        "labels": {**WISH.own, CONTENT_LABEL: CONTENT[:63]},
        "architecture": "X86_64",
        "guestOsFeatures": [{"type": feature} for feature in FEATURES],
        **given,
    }


def test_a_golden_image_gives_name_family_and_labels() -> None:
    assert (WISH.name, WISH.family) == ("gpu-box-v1-2-0", "gpu-box")
    assert WISH.own == {"gpumesh-image": "gpu-box", "gpumesh-image-version": "1-2-0"}
    assert named(replace(WISH, name="golden:gpu-box@1.2.0", family="other")).family == "other"
    plain = named(Wish("my-image"))
    assert (plain.name, plain.family, plain.own) == ("my-image", None, {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "golden:gpu-box"}, "has no version"),
        ({"name": "golden:gpu-box@latest"}, "another image tomorrow"),
        ({"name": "Upper"}, "the name 'Upper' is not valid"),
        ({"family": "a-"}, "the family 'a-' is not valid"),
        ({"bucket": "gs://images"}, "without gs://"),
        ({"content": "AB" * 32}, "64 hexadecimal digits"),
        ({"replacement": "projects/p/global/images/x"}, "of the same project"),
        ({"replacement": "golden:x"}, "has no version"),
        ({"labels": {"version": "1.2.0"}}, "Write a version with dashes"),
        ({"labels": {CONTENT_LABEL: "x"}}, "by the module and by nobody else"),
    ],
)
def test_what_google_would_not_take_is_refused_at_home(given: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=said):
        named(replace(Wish("a"), **given))


def test_the_request_is_one_the_api_knows() -> None:
    wish = replace(WISH, labels={"purpose": "test"}, storage_locations=("eu",), description="d")
    body = insert_body(wish, CONTENT, "https://storage.googleapis.com/images/a")
    check_body("Image", body)
    assert body["labels"] == {"purpose": "test", **WISH.own, CONTENT_LABEL: CONTENT[:63]}
    assert body["storageLocations"] == ["eu"] and body["family"] == "gpu-box"
    assert {feature["type"] for feature in body["guestOsFeatures"]} == set(FEATURES)
    bare = insert_body(named(Wish("a", features=())), CONTENT, "x")
    assert bare["guestOsFeatures"] == [] and "family" not in bare and "storageLocations" not in bare


def test_what_is_foretold_is_what_will_be_seen() -> None:
    after, notes = predict(WISH, GONE, CONTENT)
    assert after == seen(image(), None) and notes == ()


@pytest.mark.parametrize(
    ("state", "shows", "becomes"),
    [
        ("present", image(), None),
        ("present", image(deprecated={"state": "ACTIVE"}), None),
        ("present", image(deprecated={"state": "DEPRECATED"}), "present"),
        ("present", image(status="FAILED"), "present"),
        ("deprecated", image(), "deprecated"),
        ("deprecated", image(deprecated={"state": "DEPRECATED"}), None),
        ("absent", image(), "absent"),
        ("absent", image(status="FAILED"), "absent"),
        ("absent", None, None),
    ],
)
def test_states(state: str, shows: dict[str, Any] | None, becomes: str | None) -> None:
    before = seen(shows, None)
    after, _notes = predict(replace(WISH, state=state), before, CONTENT)
    assert (after == before) is (becomes is None)
    assert becomes is None or after["state"] == becomes


def test_other_content_is_refused_unless_the_image_is_to_go() -> None:
    before = seen(image(), None)
    for state in ("present", "deprecated"):
        with pytest.raises(errors.Conflict, match="A version never changes its content"):
            predict(replace(WISH, state=state), before, OTHER)
    assert predict(replace(WISH, state="absent"), before, OTHER)[0] == GONE


@pytest.mark.parametrize("status", ["READY", "FAILED"])
@pytest.mark.parametrize("state", ["present", "absent", "deprecated"])
def test_what_others_have_made_is_left_alone(state: str, status: str) -> None:
    with pytest.raises(errors.Conflict, match="was not made by this collection"):
        predict(replace(WISH, state=state), seen(image(labels={"a": "b"}, status=status), None), CONTENT)


@pytest.mark.parametrize(
    ("wish", "content", "said"),
    [
        (WISH, None, "source must be given"),
        (replace(WISH, bucket=None), CONTENT, "bucket must be given"),
        (replace(WISH, bucket=None), None, "source and bucket must be given"),
        (replace(WISH, state="deprecated"), None, "cannot be deprecated"),
    ],
)
def test_what_is_missing_is_told(wish: Wish, content: str | None, said: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=said):
        predict(wish, GONE, content)


def test_without_options_an_image_stays_as_it_is() -> None:
    others = image(family="boxes", description="Mine", labels={**image()["labels"], "purpose": "test"})
    before = seen(others, None)
    assert predict(named(Wish("gpu-box-v1-2-0")), before, None)[0] == before


def test_labels_of_ours_stay_when_all_others_are_replaced() -> None:
    before = seen(image(labels={**image()["labels"], "purpose": "test", "gpumesh-x": "y"}), None)
    after, _notes = predict(replace(WISH, labels={"colour": "blue"}), before, CONTENT)
    assert after["labels"] == {**WISH.own, "gpumesh-x": "y", "colour": "blue"}


def test_architecture_and_features_are_only_remarked_on() -> None:
    before = seen(image(), None)
    after, notes = predict(replace(WISH, architecture="ARM64", features=("GVNIC",)), before, CONTENT)
    assert after == before and len(notes) == 2


def test_an_upload_has_a_name_of_its_content() -> None:
    assert object_name("a", CONTENT) != object_name("a", OTHER)
    assert object_name("a", CONTENT) == object_name("a", CONTENT[:63]) == "a-abababababababab.tar.gz"


def test_an_image_is_shown_whole() -> None:
    told = shown(image(diskSizeGb="4", deprecated={"state": "DEPRECATED", "replacement": "x/images/b"}))
    assert told is not None
    assert (told["disk_gb"], told["deprecated"], told["replacement"]) == (4, True, "b")
    assert shown(None) is None
