# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of layers, which of those kept can be used again, and why the others cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import layers
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.layers import Cached, Spec, Step
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.package_lists import GONE
from hypothesis import given
from hypothesis import strategies as st

MAIN = "http://deb.debian.org/debian/dists/trixie/InRelease"
DOCKER = "https://download.docker.com/linux/debian/dists/trixie/InRelease"
LOCAL = "file:/srv/own/./InRelease"
START = datetime(2026, 11, 27, 12, tzinfo=UTC)

SPEC = Spec(
    os="debian-13",
    os_recipe={"packages": ["linux-image-amd64"]},
    layout={"filesystem": "ext4", "luks": False},
    layers=(Step("base", "base", "d1"), Step("docker", "docker", "d2")),
    variables={"base_ssh_port": 22, "docker_users": ["admin"]},
)
LISTS = [{MAIN: "m1"}, {MAIN: "m1"}, {MAIN: "m1", DOCKER: "k1", LOCAL: "l1"}]
NOW = {MAIN: "m1", DOCKER: "k1"}


def built(
    spec: Spec = SPEC, lists: Sequence[Mapping[str, str]] = LISTS, *, hours: float = 0, count: int = 3
) -> list[Cached]:
    """The layers of an image as a build keeps them, the lowest ones only if count says so."""
    found: list[Cached] = []
    for recipe, seen in list(zip(layers.recipes(spec), lists, strict=True))[:count]:
        parent = found[-1].key if found else ""
        labels = layers.labels_of(recipe.layer, recipe.recipe, parent, seen, spec.os, recipe.parts.to_json())
        read = Cached.read(f"{recipe.layer}-{hours}", labels, START + timedelta(hours=hours))
        assert read is not None
        found.append(read)
    return found


def why(plan: layers.Plan) -> list[str]:
    """Why each layer has to be built, from the lowest up."""
    return [one.why for one in plan.layers]


def images(plan: layers.Plan) -> list[str | None]:
    """What is used of each."""
    return [one.cached.image if one.cached else None for one in plan.layers]


def test_what_has_not_changed_is_used() -> None:
    plan = layers.plan(SPEC, built(), NOW)
    assert why(plan) == ["", "", ""]
    assert images(plan) == ["os-0", "base-0", "docker-0"]
    assert plan.start_from == built()[2]
    assert plan.identity is not None
    assert [one.layer for one in plan.identity.layers] == ["os", "base", "docker"]
    assert plan.identity.layout == "filesystem=ext4, luks=false"


def test_what_was_never_built() -> None:
    plan = layers.plan(SPEC, [], NOW)
    assert why(plan) == ["never built"] * 3
    assert (plan.start_from, plan.identity) == (None, None)


def changed(**fields: Any) -> Spec:
    return replace(SPEC, **fields)


BASE2 = (Step("base", "base", "changed"), SPEC.layers[1])
TOP2 = (SPEC.layers[0], Step("docker", "docker", "changed"))


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (changed(layers=TOP2), ["", "", "role changed"]),
        (changed(layers=BASE2), ["", "role changed", "parent changed"]),
        (changed(variables={"base_ssh_port": 22, "docker_users": []}), ["", "", "variables changed"]),
        (changed(variables={"base_ssh_port": 2222, "docker_users": ["admin"]}), ["", "variables changed", "parent changed"]),
        (changed(variables={**SPEC.variables, "fleet_user": "me"}), ["", "variables changed", "variables changed"]),
        (changed(layers=TOP2, variables={**SPEC.variables, "docker_users": []}), ["", "", "role and variables changed"]),
        (changed(os_recipe={"packages": []}), ["recipe changed", "parent changed", "parent changed"]),
        (changed(os="debian-12"), ["never built"] * 3),
        (changed(layers=(*SPEC.layers, Step("own", "own", "d3"))), ["", "", "", "never built"]),
        (changed(layers=SPEC.layers[1:]), ["", "parent changed"]),
        (changed(layout={"luks": True}, seal={"x": 1}), ["", "", ""]),
    ],
    ids=["role", "role below", "variable", "variable below", "everyone's variable", "role and variable", "system", "another system", "one more", "one less", "disk"],
)  # fmt: skip
def test_what_changed_is_built_with_all_above_and_why(spec: Spec, told: list[str]) -> None:
    assert why(layers.plan(spec, built(), NOW)) == told


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({**NOW, DOCKER: "k2"}, ["", "", f"package lists changed: {DOCKER}"]),
        ({**NOW, MAIN: "m2"}, [f"package lists changed: {MAIN}", "parent changed", "parent changed"]),
        ({**NOW, DOCKER: GONE}, ["", "", f"package lists changed: {DOCKER}"]),
        ({**NOW, LOCAL: "another"}, ["", "", ""]),
        (None, ["", "", ""]),
    ],
    ids=["one", "lowest", "gone", "local", "not asked"],
)
def test_package_lists(now: dict[str, str] | None, told: list[str]) -> None:
    assert why(layers.plan(SPEC, built(), now)) == told


def test_of_several_with_one_recipe_the_one_whose_lists_are_there_now() -> None:
    older, newer = built(), built(lists=[{MAIN: "m2"}] * 3, hours=1)
    assert images(layers.plan(SPEC, [*older, *newer], NOW)) == ["os-0", "base-0", "docker-0"]
    assert images(layers.plan(SPEC, [*older, *newer], {MAIN: "m2"})) == ["os-1", "base-1", "docker-1"]


def test_where_nobody_asks_the_row_that_reaches_highest_is_used_and_then_the_newest() -> None:
    whole, newer = built(), built(lists=[{MAIN: "m2"}] * 3, hours=1)
    assert images(layers.plan(SPEC, [*whole, *newer[:2]], None)) == ["os-0", "base-0", "docker-0"]
    assert images(layers.plan(SPEC, [*whole, *newer], None)) == ["os-1", "base-1", "docker-1"]


def test_with_the_cache_off_only_what_this_build_made() -> None:
    kept = built()
    assert why(layers.plan(SPEC, kept, NOW, use=False)) == ["the cache is off"] * 3
    own = {one.key for one in kept}
    assert images(layers.plan(SPEC, kept, {}, use=False, built=own)) == ["os-0", "base-0", "docker-0"]


def test_what_this_build_made_counts_though_the_archives_have_gone_on() -> None:
    kept = built()
    own = {one.key for one in kept}
    assert why(layers.plan(SPEC, kept, {MAIN: "m3"}, built=own)) == ["", "", ""]
    # And before a newer one that another build has made since.
    other = built(lists=[{MAIN: "m3"}] * 3, hours=2)
    assert images(layers.plan(SPEC, [*kept, *other], {MAIN: "m3"}, built=own)) == [
        "os-0",
        "base-0",
        "docker-0",
    ]


def test_what_this_build_stands_on_counts_as_well() -> None:
    kept = built()
    assert why(layers.plan(SPEC, kept, {MAIN: "m3"}, built=[kept[2].key])) == ["", "", ""]
    assert why(layers.plan(SPEC, kept, {MAIN: "m3"}, built=[kept[1].key]))[:2] == ["", ""]


def test_only_lists_that_decide_something_are_asked_for() -> None:
    kept = [*built(), *built(changed(os_recipe={}), lists=[{"http://old/InRelease": "x"}] * 3)]
    assert layers.lists_to_ask(SPEC, kept) == [MAIN, DOCKER]
    assert layers.lists_to_ask(SPEC, kept, [built()[2].key]) == []


@pytest.mark.parametrize("name", ["recipe", "key", "parent", "lists", "layer"])
def test_an_image_whose_labels_do_not_fit_is_not_used(name: str) -> None:
    recipe = layers.recipes(SPEC)[0]
    labels = layers.labels_of(recipe.layer, recipe.recipe, "", LISTS[0], "debian-13", {})
    assert Cached.read("x", labels, START) is not None
    changed_value = "" if name == "layer" else '["a"]'
    assert Cached.read("x", {**labels, f"gpumesh.image.{name}": changed_value}, START) is None
    assert Cached.read("x", {}, START) is None


def test_without_its_parts_a_layer_is_used_and_only_the_reason_is_less_exact() -> None:
    kept = [replace(one, parts=None) for one in built()]
    assert why(layers.plan(SPEC, kept, NOW)) == ["", "", ""]
    assert why(layers.plan(changed(variables={}), kept, NOW)) == ["", "role changed", "role changed"]


def test_the_seal_is_part_of_what_an_image_is_and_of_no_layer() -> None:
    plain = layers.plan(SPEC, built(), NOW).identity
    sealed = layers.plan(changed(seal={"program": "1"}), built(), NOW)
    other = layers.plan(changed(seal={"program": "2"}), built(), NOW).identity
    assert plain and sealed.identity and other
    assert len({plain.fingerprint, sealed.identity.fingerprint, other.fingerprint}) == 3
    assert sealed.identity.layers[:3] == plain.layers == other.layers[:3]
    data = layers.identity_data(sealed)
    assert data is not None
    assert [(one["layer"], one["role"]) for one in data["layers"]] == [("os", None), ("base", "base"), ("docker", "docker"), ("seal", None)]  # fmt: skip
    assert [one["parent"] for one in data["layers"]] == [None, *(one["key"] for one in data["layers"][:3])]
    assert data["layers"][2]["lists"] == LISTS[2]
    assert data["fingerprint"] == sealed.identity.fingerprint


def test_while_a_layer_is_to_be_built_nobody_knows_what_the_image_is() -> None:
    assert layers.identity_data(layers.plan(SPEC, built(count=2), NOW)) is None


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), PLAIN, max_size=4), st.randoms(use_true_random=False))
def test_a_recipe_does_not_depend_on_the_order_of_variables(variables: dict[str, Any], chance: Any) -> None:
    shuffled = list(variables.items())
    chance.shuffle(shuffled)
    assert layers.recipe_key("x", "d", variables, "p") == layers.recipe_key("x", "d", dict(shuffled), "p")


@given(st.tuples(*[st.text(max_size=3)] * 4), st.tuples(*[st.text(max_size=3)] * 4))
def test_whatever_differs_makes_another_recipe(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    def recipe(parts: tuple[str, ...]) -> str:
        return layers.recipe_key(parts[0], parts[1], {"v": parts[2]}, parts[3])

    assert (recipe(one) == recipe(other)) is (one == other)


def test_the_keys_stay_what_they_are() -> None:
    # A change here makes everybody build everything anew, so it is made on purpose or not at all.
    recipe = layers.recipe_key("base", "digest", {"base_ssh_port": 22}, "below")
    key = layers.full_key(recipe, "parent", {MAIN: "m1"})
    assert (recipe[:16], key[:16]) == ("e06e295a300caffd", "60c9c52dc538cfca")
    assert layers.image_name(key) == f"gpumesh/golden:{key[:24]}"


@pytest.mark.parametrize(
    ("role", "found"),
    [
        ("mesh", {"mesh_port", "fleet_user"}),
        ("mesh_ssh", {"mesh_ssh_port", "fleet_user"}),
        ("my.own.base", {"base_x", "fleet_user"}),
        ("other", {"fleet_user"}),
    ],
)
def test_the_variables_of_a_role(role: str, found: set[str]) -> None:
    declared = dict.fromkeys(["mesh_port", "mesh_ssh_port", "base_x", "fleet_user", "basement_y"], 1)
    assert set(layers.variables_of(role, declared, ["mesh", "mesh_ssh"])) == found


OPTIONS = {
    "base": {"base_ssh_port", "base_users"},
    "gpumesh.fleet.docker": {"docker_users"},
    "my.own.app": None,
}


def test_variables_that_a_layer_has() -> None:
    layers.refuse_unknown(["base_ssh_port", "docker_users", "app_anything", "fleet_user"], OPTIONS)


def test_all_that_no_layer_has_are_told_at_once_with_the_nearest() -> None:
    with pytest.raises(FleetError) as told:
        layers.refuse_unknown(
            ["base_ssh_prt", "docker_users", "nvidia_driver_branch", "dockr_users"], OPTIONS
        )
    assert str(told.value) == (
        "no layer of this image has the variables base_ssh_prt (did you mean base_ssh_port?), "
        "dockr_users (did you mean docker_users?), nvidia_driver_branch. "
        "Its layers are made by app, base, docker: correct the name, or add the layer it belongs to."
    )


@pytest.mark.parametrize("names", [("base", "base"), ("os",), ("seal",)])
def test_layers_have_names_of_their_own(names: tuple[str, ...]) -> None:
    with pytest.raises(FleetError, match="layers need names of their own"):
        changed(layers=tuple(Step(name, "base", "d") for name in names))
