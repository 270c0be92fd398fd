# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers of an image: the keys under which their results are kept, and which of the results kept can be used again.

* A layer's *recipe* is how it is made: the content of its role, the variables that concern it, and the recipe below it.
* Its *key* adds what it was made of: the key below it, and the package lists it saw.

The lowest layer is the operating system; the recipe of the whole disk stands on top of all. Pure.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..errors import FleetError
from .package_lists import can_be_asked
from .versions import Identity, ImageError, LayerId

OS = "os"
"""The name of the lowest layer."""
SEAL = "seal"
"""What is done to the topmost layer before it is a disk; it is part of the image's identity and never kept apart."""

SHARED = "fleet_"
"""Variables that concern every role begin like this."""

LABEL = "gpumesh.image"
"""What the labels of images begin with."""
REPOSITORY = "gpumesh/golden"
_TAG = 24


@dataclass(frozen=True, slots=True)
class Parts:
    """Digests of what goes into a recipe, kept to tell later what has changed."""

    role: str
    variables: str
    parent: str

    @classmethod
    def read(cls, text: str) -> Parts | None:
        """From a label; none where it is not one of ours."""
        try:
            found = json.loads(text)
            return cls(str(found["role"]), str(found["variables"]), str(found["parent"]))
        except (ValueError, TypeError, KeyError):
            return None

    def to_json(self) -> dict[str, str]:
        """As plain data."""
        return {"role": self.role, "variables": self.variables, "parent": self.parent}


@dataclass(frozen=True, slots=True)
class Step:
    """A layer as it is declared.

    Args:
        layer: its name.
        role: the role that makes it.
        digest: of all that the role is made of.
    """

    layer: str
    role: str
    digest: str


@dataclass(frozen=True, slots=True)
class Spec:
    """An image as it is declared.

    Args:
        os: the distribution and its release: debian-13.
        os_recipe: everything that goes into the lowest layer.
        layout: what the disk is like.
        layers: above the operating system, from the ground up.
        variables: of the roles.
        seal: everything that goes into the disk after the layers.
    """

    os: str
    os_recipe: Mapping[str, Any]
    layout: Mapping[str, Any]
    layers: tuple[Step, ...]
    variables: Mapping[str, Any] = field(default_factory=dict)
    seal: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [step.layer for step in self.layers]
        taken = sorted({name for name in names if names.count(name) > 1 or name in (OS, SEAL)})
        if taken:
            raise ImageError(
                f"layers need names of their own, and {', '.join(taken)} is taken",
                hint="Name each layer once; os and seal are the lowest and the last step of every image",
            )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a layer is made."""

    layer: str
    role: str
    recipe: str
    parts: Parts


@dataclass(frozen=True, slots=True)
class Cached:
    """A layer that was built and kept.

    Args:
        image: the name or id the engine has it under.
        lists: digests of the package lists it saw, by the address of their InRelease.
    """

    image: str
    layer: str
    recipe: str
    key: str
    parent: str
    lists: Mapping[str, str]
    os: str
    parts: Parts | None
    created: datetime

    @classmethod
    def read(cls, image: str, labels: Mapping[str, str], created: datetime) -> Cached | None:
        """From an image's labels; none where they are not whole, or where the key does not follow from the others."""

        def label(name: str) -> str:
            return labels.get(f"{LABEL}.{name}", "")

        try:
            lists = {str(url): str(digest) for url, digest in json.loads(label("lists")).items()}
        except (ValueError, AttributeError):
            return None
        recipe, key, parent = label("recipe"), label("key"), label("parent")
        if not label("layer") or key != full_key(recipe, parent, lists):
            return None
        parts = Parts.read(label("parts"))
        return cls(image, label("layer"), recipe, key, parent, lists, label("os"), parts, created)


@dataclass(frozen=True, slots=True)
class Planned:
    """A layer, and what is there of it.

    Args:
        cached: what is kept and can be used; none where the layer has to be built.
        why: it has to be built, as a short phrase; empty if it has not.
    """

    recipe: Recipe
    cached: Cached | None
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is there of an image, and what must be built.

    Args:
        layers: from the operating system up.
        start_from: the topmost layer that is there.
        identity: what the image is made of; none while a layer has to be built.
    """

    layers: tuple[Planned, ...]
    start_from: Cached | None
    identity: Identity | None


def canonical(value: Any) -> str:
    """Plain data as one text, whatever the order of its mappings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(canonical(["gpumesh-layer", 1, *parts]).encode()).hexdigest()


def recipe_key(layer: str, role_digest: str, variables: Mapping[str, Any], parent_recipe: str) -> str:
    """A digest of how a layer is made."""
    return _recipe(layer, Parts(role_digest, _digest("variables", variables), parent_recipe))


def _recipe(layer: str, parts: Parts) -> str:
    return _digest("recipe", layer, parts.role, parts.variables, parts.parent)


def full_key(recipe: str, parent_key: str, lists: Mapping[str, str]) -> str:
    """A digest of what a layer is: how it is made, on what, and of which package lists."""
    return _digest("key", recipe, parent_key, lists)


def image_name(key: str) -> str:
    """What the image of a layer is called."""
    return f"{REPOSITORY}:{key[:_TAG]}"


def labels_of(
    layer: str, recipe: str, parent: str, lists: Mapping[str, str], os: str, parts: Mapping[str, Any]
) -> dict[str, str]:
    """What an image is labelled with, so that :meth:`Cached.read` finds it again."""
    found = {
        "layer": layer,
        "recipe": recipe,
        "key": full_key(recipe, parent, lists),
        "parent": parent,
        "lists": canonical(lists),
        "os": os,
        "parts": canonical(parts),
        # A container's labels go into its image: this is no longer part of a build that may be dead one day.
        "build": "",
        "store": "",
    }
    return {f"{LABEL}.{name}": value for name, value in found.items()}


def _short(role: str) -> str:
    """A role's name as its variables have it: without the collection's."""
    return role.rpartition(".")[2]


def variables_of(role: str, declared: Mapping[str, Any], roles: Collection[str] = ()) -> dict[str, Any]:
    """Of the variables those that concern a role.

    Args:
        role: its name.
        declared: all variables.
        roles: all roles: what begins with the longer of two names, such as mesh_ssh, is not the shorter one's.
    """
    everyone = {_short(one) for one in (role, *roles)}
    return {
        name: value
        for name, value in declared.items()
        if name.startswith(SHARED) or _owner(name, everyone) == _short(role)
    }


def _owner(variable: str, roles: Iterable[str]) -> str | None:
    return max((role for role in roles if variable.startswith(f"{role}_")), key=len, default=None)


def is_known(variable: str, roles: Mapping[str, Collection[str] | None]) -> bool:
    """Whether a layer has this variable.

    Args:
        roles: the names of the variables that each role of a layer has; none where it does not say.
    """
    known = {_short(role): names for role, names in roles.items()}
    owner = _owner(variable, known)
    if owner is None:
        return variable.startswith(SHARED)
    names = known[owner]
    return names is None or variable in names


def refuse_unknown(variables: Iterable[str], roles: Mapping[str, Collection[str] | None]) -> None:
    """Stop at variables that no layer has.

    Args:
        variables: their names.
        roles: as for :func:`is_known`.

    Raises:
        FleetError: names all of them, each with the nearest one there is.
    """
    all_names = sorted({name for names in roles.values() for name in names or ()})
    strange = []
    for name in sorted(variables):
        if not is_known(name, roles):
            near = difflib.get_close_matches(name, all_names, n=1, cutoff=0.75)
            strange.append(f"{name} (did you mean {near[0]}?)" if near else name)
    if strange:
        layers = ", ".join(sorted(_short(role) for role in roles)) or "no role"
        raise FleetError(
            f"no layer of this image has the variable{'s' if len(strange) > 1 else ''} {', '.join(strange)}",
            hint=f"Its layers are made by {layers}: correct the name, or add the layer it belongs to",
        )


def recipes(spec: Spec) -> tuple[Recipe, ...]:
    """How each layer is made, from the operating system up."""
    parts = Parts("", _digest("variables", {"os": spec.os, "recipe": spec.os_recipe}), "")
    found = [Recipe(OS, "", _recipe(OS, parts), parts)]
    roles = [step.role for step in spec.layers]
    for step in spec.layers:
        variables = variables_of(step.role, spec.variables, roles)
        below = found[-1].recipe
        parts = Parts(step.digest, _digest("variables", variables), below)
        found.append(
            Recipe(step.layer, step.role, recipe_key(step.layer, step.digest, variables, below), parts)
        )
    return tuple(found)


def lists_to_ask(spec: Spec, cached: Iterable[Cached], built: Collection[str] = ()) -> list[str]:
    """The package lists that decide which of the layers kept can be used."""
    wanted = {recipe.recipe for recipe in recipes(spec)}
    cached = list(cached)
    settled = _with_below(cached, built)
    return sorted(
        {
            url
            for one in cached
            if one.recipe in wanted and one.key not in settled
            for url in one.lists
            if can_be_asked(url)
        }
    )


def plan(
    spec: Spec,
    cached: Sequence[Cached],
    lists_now: Mapping[str, str] | None,
    *,
    use: bool = True,
    built: Collection[str] = (),
) -> Plan:
    """Which layers are there, and why the others are not.

    Args:
        spec: the image.
        cached: every layer that is kept.
        lists_now: digests of the package lists as the archives have them; none to take what is kept for new enough.
        use: whether what is kept may be used at all.
        built: keys of layers that are to be used, with those below, whatever the rest says: this very build has made them.
    """
    wanted = recipes(spec)
    built = _with_below(cached, built)
    able = [
        one
        for one in cached
        if one.key in built or (use and (lists_now is None or not outdated(one, lists_now)))
    ]
    chain = _chain(wanted, able, built)
    layers = [Planned(recipe, one, "") for recipe, one in zip(wanted, chain, strict=False)]
    # What is known of the key below: of the lowest layer that is missing, and of those above it nothing.
    below: str | None = chain[-1].key if chain else ""
    for recipe in wanted[len(chain) :]:
        why = _why(spec, recipe, below, cached, lists_now) if use else "the cache is off"
        layers.append(Planned(recipe, None, why))
        below = None
    whole = len(chain) == len(wanted)
    return Plan(tuple(layers), chain[-1] if chain else None, identity(spec, chain) if whole else None)


def outdated(one: Cached, lists_now: Mapping[str, str]) -> list[str]:
    """The package lists that are no longer what a layer saw."""
    return [
        url for url, digest in sorted(one.lists.items()) if can_be_asked(url) and lists_now.get(url) != digest
    ]


def layout_text(layout: Mapping[str, Any]) -> str:
    """What a disk is like, in one line."""
    return ", ".join(
        f"{name}={value if isinstance(value, str) else canonical(value)}"
        for name, value in sorted(layout.items())
    )


def identity(spec: Spec, chain: Sequence[Cached]) -> Identity:
    """What an image of these layers is made of."""
    layers = [LayerId(one.layer, one.recipe, one.key) for one in chain]
    if spec.seal:
        recipe = recipe_key(SEAL, "", spec.seal, chain[-1].recipe)
        layers.append(LayerId(SEAL, recipe, full_key(recipe, chain[-1].key, {})))
    return Identity(spec.os, layout_text(spec.layout), tuple(layers))


def layer_data(one: Planned) -> dict[str, Any]:
    """A layer as plain data."""
    kept = one.cached
    return {
        "layer": one.recipe.layer,
        "role": one.recipe.role or None,
        "recipe": one.recipe.recipe,
        "parts": one.recipe.parts.to_json(),
        "cached": kept is not None,
        "why": one.why,
        "key": kept.key if kept else None,
        "image": kept.image if kept else None,
        "created": kept.created.isoformat(timespec="seconds") if kept else None,
    }


def identity_data(made: Plan) -> dict[str, Any] | None:
    """The identity as plain data, with what is known of each layer; none while there is none."""
    if made.identity is None:
        return None
    kept = [one.cached for one in made.layers if one.cached]
    roles: list[str | None] = [one.recipe.role or None for one in made.layers]
    lists: list[Mapping[str, str]] = [one.lists for one in kept]
    layers, parent = [], None
    for index, one in enumerate(made.identity.layers):
        layers.append(
            {
                "layer": one.layer,
                # The seal comes after all that is kept.
                "role": roles[index] if index < len(kept) else None,
                "recipe": one.recipe,
                "key": one.key,
                "parent": parent,
                "lists": dict(lists[index]) if index < len(kept) else {},
            }
        )
        parent = one.key
    return {
        "fingerprint": made.identity.fingerprint,
        "os": made.identity.os,
        "layout": made.identity.layout,
        "layers": layers,
    }


def _with_below(cached: Iterable[Cached], keys: Iterable[str]) -> set[str]:
    """These keys, and those of the layers that they stand on."""
    parents = {one.key: one.parent for one in cached}
    found: set[str] = set()
    for key in keys:
        while key and key not in found:
            found.add(key)
            key = parents.get(key, "")
    return found


def _chain(wanted: Sequence[Recipe], able: Sequence[Cached], built: Collection[str]) -> list[Cached]:
    """The longest row of layers that stand on each other; of equal ones the one this build made, then the newest."""

    def climb(index: int, parent: str) -> list[Cached]:
        if index == len(wanted):
            return []
        best: list[Cached] = []
        fit = [one for one in able if one.recipe == wanted[index].recipe and one.parent == parent]
        for one in sorted(fit, key=lambda one: (one.key in built, one.created, one.image), reverse=True):
            row = [one, *climb(index + 1, one.key)]
            if len(row) > len(best):
                best = row
        return best

    return climb(0, "")


def _why(
    spec: Spec,
    recipe: Recipe,
    below: str | None,
    cached: Sequence[Cached],
    lists_now: Mapping[str, str] | None,
) -> str:
    """Why there is none that can be used.

    Args:
        below: the key of the layer below, if that is there; empty for the operating system.
    """
    alike = [one for one in cached if one.layer == recipe.layer and one.os == spec.os]
    if not alike:
        return "never built"
    same = [one for one in alike if one.recipe == recipe.recipe]
    if same:
        here = [one for one in same if one.parent == below]
        if here and lists_now is not None:
            changed = outdated(max(here, key=lambda one: one.created), lists_now)
            return f"package lists changed: {', '.join(changed)}"
        return "parent changed"
    nearest = max(alike, key=lambda one: (_equal(one.parts, recipe.parts), one.created)).parts
    if nearest is None:
        return "role changed"
    reasons = [
        name
        for name, before, now in (
            ("role", nearest.role, recipe.parts.role),
            ("recipe" if recipe.layer == OS else "variables", nearest.variables, recipe.parts.variables),
        )
        if before != now
    ]
    return f"{' and '.join(reasons) or 'parent'} changed"


def _equal(one: Parts | None, other: Parts) -> int:
    return 0 if one is None else (one.role == other.role) + (one.variables == other.variables)
