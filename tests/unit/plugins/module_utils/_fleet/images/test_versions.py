# SPDX-License-Identifier: GPL-3.0-or-later
"""Which version a content has."""

from __future__ import annotations

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.versions import (
    FIRST,
    Bump,
    Identity,
    ImageError,
    LayerId,
    Version,
    check_name,
    next_version,
    stem,
    version_for,
)
from hypothesis import given
from hypothesis import strategies as st

# Few of each, so that they meet.
few = st.sampled_from(["a", "b", "c"])
layers = st.builds(LayerId, few, few, few)
identities = st.builds(Identity, few, few, st.lists(layers, max_size=3).map(tuple))
numbers = st.integers(0, 3)
versions = st.builds(Version, numbers, numbers, numbers)
stores = st.dictionaries(versions, identities, max_size=5)


def made(recipe: str = "r", key: str = "k", os: str = "debian-13", layout: str = "1") -> Identity:
    return Identity(os, layout, (LayerId("os", "o", "o"), LayerId("base", recipe, key)))


@given(versions, versions)
def test_versions_are_in_order(one: Version, other: Version) -> None:
    assert Version.parse(str(one)) == one
    assert (one < other) == ((one.major, one.minor, one.patch) < (other.major, other.minor, other.patch))


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "01.2.3", "1.2.3\n", "-1.2.3", "1.2.3 "]
)
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ImageError, match="is no version"):
        Version.parse(text)


@pytest.mark.parametrize("name", ["", "Box", "1box", "box-", "a_b", "a.b", "../a", "a" * 42, "box\n", "-box"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ImageError, match="is no name"):
        check_name(name)


def test_names() -> None:
    assert check_name("gpu-box") == "gpu-box"
    assert check_name("a" * 41)
    assert stem("gpu-box", Version(1, 2, 3)) == "gpu-box-v1.2.3"


@given(identities, identities)
def test_the_fingerprint_is_of_everything(one: Identity, other: Identity) -> None:
    assert (one.fingerprint == other.fingerprint) == (one == other)


@given(stores, identities)
def test_the_same_content_is_the_same_version_and_other_content_is_newer_than_all(
    earlier: dict[Version, Identity], wanted: Identity
) -> None:
    bump = next_version(earlier, wanted)
    if wanted in earlier.values():
        assert bump.kind == "same"
        assert earlier[bump.version] == wanted
    else:
        assert bump.kind != "same"
        assert all(bump.version > version for version in earlier)
        assert next_version({**earlier, bump.version: wanted}, wanted).version == bump.version


@given(stores.filter(bool), identities)
def test_only_what_lies_behind_the_part_that_moves_begins_anew(
    earlier: dict[Version, Identity], wanted: Identity
) -> None:
    newest, bump = max(earlier), next_version(earlier, wanted)
    same = earlier[newest]
    if bump.kind == "same":
        return
    assert (
        bump.version
        == {
            "major": Version(newest.major + 1, 0, 0),
            "minor": Version(newest.major, newest.minor + 1, 0),
            "patch": Version(newest.major, newest.minor, newest.patch + 1),
        }[bump.kind]
    )
    assert (bump.kind == "major") == ((same.os, same.layout) != (wanted.os, wanted.layout))
    if bump.kind == "patch":
        assert [(each.layer, each.recipe) for each in same.layers] == [
            (each.layer, each.recipe) for each in wanted.layers
        ]


@pytest.mark.parametrize(
    ("wanted", "version", "says"),
    [
        (
            made(os="debian-12"),
            "2.0.0",
            "the operating system changed from debian-13 to debian-12 since version 1.4.2",
        ),
        (made(layout="2"), "2.0.0", "the layout of the disk changed from 1 to 2 since version 1.4.2"),
        (
            Identity("debian-13", "1", ()),
            "1.5.0",
            "the layers changed from os, base to none since version 1.4.2",
        ),
        (made("other", "k2"), "1.5.0", "how layer base is made changed since version 1.4.2"),
        (made(key="k2"), "1.4.3", "the package lists of layer base changed since version 1.4.2"),
        (made("older"), "1.4.0", "version 1.4.0 has this very content"),
    ],
)
def test_what_moves_which_part(wanted: Identity, version: str, says: str) -> None:
    bump = next_version({Version(1, 4, 0): made("older"), Version(1, 4, 2): made()}, wanted)
    assert (str(bump.version), bump.reason) == (version, says)


def test_the_first() -> None:
    assert next_version({}, made()) == Bump(FIRST, "first", "there is no earlier image of this name")


@given(stores, identities, versions)
def test_a_version_that_is_asked_for_is_that_one_or_refused(
    earlier: dict[Version, Identity], wanted: Identity, asked: Version
) -> None:
    if asked in earlier and earlier[asked] != wanted:
        with pytest.raises(ImageError, match=f"version {asked} exists with other content"):
            version_for(earlier, wanted, asked)
    else:
        bump = version_for(earlier, wanted, asked)
        assert bump.version == asked
        assert (bump.kind == "same") == (asked in earlier)


@given(stores, identities)
def test_where_none_is_asked_for_it_follows_from_the_content(
    earlier: dict[Version, Identity], wanted: Identity
) -> None:
    assert version_for(earlier, wanted, None) == next_version(earlier, wanted)
