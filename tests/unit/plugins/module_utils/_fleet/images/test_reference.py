# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden images by name and version: what is written, and what each cloud calls them."""

from __future__ import annotations

import re

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.reference import (
    GoldenReference,
    is_golden,
)
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_models import (
    check_labels,
)
from hypothesis import given
from hypothesis import strategies as st

names = st.from_regex(r"[a-z](?:[a-z0-9-]{0,39}[a-z0-9])?", fullmatch=True)
versions = st.tuples(*[st.integers(0, 999_999)] * 3).map(lambda parts: ".".join(map(str, parts)))


def test_what_each_cloud_calls_it() -> None:
    one = GoldenReference.parse("golden:gpu-box@1.2.0")
    assert (one.name, one.version, one.parts, str(one)) == (
        "gpu-box",
        "1.2.0",
        (1, 2, 0),
        "golden:gpu-box@1.2.0",
    )
    assert (one.stem, one.gcp_name, one.gcp_family) == ("gpu-box-v1.2.0", "gpu-box-v1-2-0", "gpu-box")
    assert one.hetzner_labels == {"gpumesh-image": "gpu-box", "gpumesh-image-version": "1.2.0"}
    assert one.gcp_labels == {"gpumesh-image": "gpu-box", "gpumesh-image-version": "1-2-0"}
    assert one.hetzner_selector == "gpumesh-image==gpu-box,gpumesh-image-version==1.2.0"


def test_the_newest_is_only_for_those_who_ask_for_it() -> None:
    newest = GoldenReference.parse("golden:gpu-box@latest", latest=True)
    assert newest.is_latest
    assert newest.hetzner_selector == "gpumesh-image==gpu-box"
    with pytest.raises(ValueError, match="would be another image tomorrow"):
        GoldenReference.parse("golden:gpu-box@latest")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("debian-13", "is no golden image"),
        ("golden:gpu-box", "has no version"),
        ("golden:gpu-box@", "has no valid version"),
        ("golden:gpu-box@1.2", "has no valid version"),
        ("golden:gpu-box@1.02.0", "has no valid version"),
        ("golden:gpu-box@v1.2.0", "did you mean golden:gpu-box@1.2.0?"),
        ("golden:gpu-box@1-2-0", "did you mean golden:gpu-box@1.2.0?"),
        ("golden:GPU@1.2.0", "has no valid name"),
        ("golden:gpu-@1.2.0", "has no valid name"),
        ("golden:@1.2.0", "has no valid name"),
        (f"golden:{'a' * 42}@1.2.0", "has no valid name"),
        ("golden:gpu-box@1.2.0\n", "has no valid version"),
    ],
)
def test_what_is_written_wrong_is_told_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        GoldenReference.parse(text)


@given(names, versions)
def test_every_cloud_takes_what_it_is_called(name: str, version: str) -> None:
    one = GoldenReference.parse(f"golden:{name}@{version}")
    assert is_golden(str(one))
    assert GoldenReference.of_labels(one.hetzner_labels) == one == GoldenReference.of_labels(one.gcp_labels)
    assert check_labels(one.hetzner_labels) == one.hetzner_labels
    assert all(re.fullmatch(r"[a-z0-9_-]{1,63}", value) for value in one.gcp_labels.values())
    assert re.fullmatch(r"[a-z][-a-z0-9]{0,61}[a-z0-9]", one.gcp_name)


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"gpumesh-image": "gpu-box"},
        {"gpumesh-image-version": "1.2.0"},
        {"gpumesh-image": "GPU", "gpumesh-image-version": "1.2.0"},
        {"gpumesh-image": "gpu-box", "gpumesh-image-version": "latest"},
    ],
)
def test_labels_that_name_none_are_of_none(labels: dict[str, str]) -> None:
    assert GoldenReference.of_labels(labels) is None
