#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: image_layer
short_description: Keep a layer of a golden image, or remove old ones
description:
  - Makes an image of the container engine out of the container that a layer was built in, so that the next build finds it.
  - It is kept under a key of how it was made, of the layer below it, and of the package lists that are in the container.
  - P(gpumesh.fleet.image_plan#module) says which layers are kept.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - a container engine
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) keeps a layer.
      - V(pruned) removes layers older than O(days) on which no younger one stands, images of tools of an earlier month, and what
        builds left that are no more. What a container still uses stays.
    type: str
    choices: [present, pruned]
    default: present
  container:
    description: The running container that the layer was built in.
    type: str
  image:
    description: The image that is to be the layer as it is, such as a bootstrapped operating system. A container of it is started
      for as long as it takes to read its package lists.
    type: str
  layer:
    description: Name of the layer. Needed to keep one.
    type: str
  role:
    description: The role that made it, for the answer.
    type: str
  recipe:
    description: Digest of how it was made, as P(gpumesh.fleet.image_plan#module) says. Needed to keep one.
    type: str
  parts:
    description: Digests of what the recipe is made of, as P(gpumesh.fleet.image_plan#module) says. Without them a later plan cannot
      tell what changed.
    type: dict
    default: {}
  parent:
    description: Key of the layer below. None for the operating system.
    type: str
    default: ""
  os:
    description: The distribution and its release.
    type: str
    default: ""
  build:
    description: Id of the build, for the container that O(image) is read in.
    type: str
    default: ""
  command:
    description: What a container of the layer runs.
    type: list
    elements: str
    default: [/sbin/init]
  fresh:
    description: Keep it even where a layer with the same key is there, which it takes the place of.
    type: bool
    default: false
  days:
    description: How old a layer may become.
    type: int
    default: 30
  keep:
    description: Keys of layers that stay however old they are, with those below, since this build stands on them.
    type: list
    elements: str
    default: []
  store:
    description:
      - Folder of the images that the build is for. With O(state=pruned) what builds for another store left is left alone, since nobody
        knows from here whether they go on. Their containers and images tell it with the label C(gpumesh.image.store).
      - By default what any build left is removed.
    type: path
  builds_alive:
    description: Ids of the builds that go on. What any other build left is removed with O(state=pruned).
    type: list
    elements: str
    default: []
  builds_dead:
    description: Ids of builds that are known to be no more. What they left is removed with O(state=pruned) whatever its age.
    type: list
    elements: str
    default: []
  tools:
    description: Name or id of the image of tools that is in use. With O(state=pruned) it stays whatever its age.
    type: str
    default: ""
  grace:
    description: Seconds that the containers and images of a build are left alone, unless it is in O(builds_dead), since
      it may have begun after those were listed.
    type: int
    default: 300
  engine:
    description: The container engine's client, by name or path. It needs the command line of C(docker).
    type: str
    default: docker
seealso:
  - module: gpumesh.fleet.image_plan
"""

EXAMPLES = r"""
- name: Keep the layer base
  gpumesh.fleet.image_layer:
    container: gpumesh-image-gpu-box-0123
    layer: base
    role: base
    recipe: "{{ planned.layers[1].recipe }}"
    parts: "{{ planned.layers[1].parts }}"
    parent: "{{ planned.layers[0].key }}"
    os: debian-13
  register: kept

- name: Remove what nobody has built on for a month, and what killed builds left
  gpumesh.fleet.image_layer:
    state: pruned
    days: 30
    store: ~/.local/share/gpumesh/images
    builds_alive: [gpu-box-0123]
    keep: "{{ planned.layers | map(attribute='key') | select | list }}"
"""

RETURN = r"""
layer:
  description: Name of the layer.
  returned: with O(state=present)
  type: str
role:
  description: The role that made it.
  returned: with O(state=present)
  type: str
recipe:
  description: Digest of how it was made.
  returned: with O(state=present)
  type: str
key:
  description: Digest of what it is.
  returned: with O(state=present)
  type: str
parent:
  description: Key of the layer below.
  returned: with O(state=present)
  type: str
lists:
  description: Digest of each package list in it, by the address of its InRelease.
  returned: with O(state=present)
  type: dict
image:
  description: The image that it is kept as.
  returned: with O(state=present)
  type: str
  sample: gpumesh/golden:6f1b0c8bd8e4a5f5d39c1a55
removed:
  description: Images and containers that were removed, or would be.
  returned: with O(state=pruned)
  type: list
  elements: str
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import (
        layers,
        package_lists,
        pruning,
    )
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.engine import Engine
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.store import Store
except ImportError as problem:
    MISSING: ImportError | None = problem
else:
    MISSING = None

BUILD = "gpumesh.image.build"
STORE = "gpumesh.image.store"
TOOLS = "gpumesh.image.tools"


@contextmanager
def container_of(engine: Engine, params: dict[str, Any]) -> Iterator[str]:
    """A running container with the layer in it."""
    if params["container"]:
        yield params["container"]
        return
    name = f"gpumesh-image-{params['build'] or 'layer'}-{secrets.token_hex(4)}"
    try:
        labels = {BUILD: params["build"], STORE: params["store"] or ""}
        engine.create(params["image"], name, labels, ["sleep", "3600"])
        yield name
    finally:
        engine.remove_container(name)


def keep(engine: Engine, params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Keep a layer, unless one with the same key is there."""
    with container_of(engine, params) as container:
        try:
            lists = package_lists.seen(lambda command: engine.execute(container, command))
        except FleetError as error:
            raise FleetError(f"layer {params['layer']}: {error.what}", hint=error.hint) from error
        labels = layers.labels_of(
            params["layer"], params["recipe"], params["parent"], lists, params["os"], params["parts"]
        )
        key = labels[f"{layers.LABEL}.key"]
        name = layers.image_name(key)
        there = engine.image(name)
        changed = params["fresh"] or there is None or there.labels.get(f"{layers.LABEL}.key") != key
        if changed and not check:
            engine.commit(container, name, labels, params["command"])
    return {
        "changed": changed,
        "layer": params["layer"],
        "role": params["role"],
        "recipe": params["recipe"],
        "key": key,
        "parent": params["parent"],
        "lists": lists,
        "image": name,
        "diff": {"before": {"image": None if changed else name}, "after": {"image": name}},
    }


def prune(engine: Engine, params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Remove what is old, and what is left of dead builds."""
    now = SystemClock().utc()
    alive = set(params["builds_alive"])
    young = now - timedelta(seconds=params["grace"])
    store = params["store"] or ""
    dead = set(params["builds_dead"])
    containers = pruning.left_over(engine.containers(BUILD), alive, young, store, dead)
    images = pruning.left_over(engine.images(BUILD), alive, young, store, dead)
    kept = set(params["keep"])
    if store:
        # What an image of the store stands on is of use, however long ago it was made.
        images_kept = Store(Path(store))
        for name in images_kept.names():
            with suppress(FleetError):
                kept |= {layer.key for made in images_kept.identities(name).values() for layer in made.layers}
    old = pruning.outlived(
        engine.images(f"{layers.LABEL}.key"), now - timedelta(days=params["days"]), sorted(kept)
    )
    tools = pruning.past_tools(engine.images(TOOLS), now, params["tools"])
    removed = []
    for container in containers:
        if not check:
            engine.remove_container(container.id)
        removed.append(container.name)
    for image in (*images, *old, *tools):
        names = image.names or (image.id,)
        removed += [name for name in names if check or engine.remove_image(name)]
    return {
        "changed": bool(removed),
        "removed": removed,
        "diff": {"before": {"left": removed}, "after": {"left": []}},
    }


def main() -> None:
    """Keep or remove."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "pruned"], "default": "present"},
            "container": {"type": "str"},
            "image": {"type": "str"},
            "layer": {"type": "str"},
            "role": {"type": "str"},
            "recipe": {"type": "str"},
            "parts": {"type": "dict", "default": {}},
            "parent": {"type": "str", "default": ""},
            "os": {"type": "str", "default": ""},
            "build": {"type": "str", "default": ""},
            "command": {"type": "list", "elements": "str", "default": ["/sbin/init"]},
            "fresh": {"type": "bool", "default": False},
            "days": {"type": "int", "default": 30},
            "keep": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "store": {"type": "path"},
            "builds_alive": {"type": "list", "elements": "str", "default": []},
            "builds_dead": {"type": "list", "elements": "str", "default": []},
            "tools": {"type": "str", "default": ""},
            "grace": {"type": "int", "default": 300},
            "engine": {"type": "str", "default": "docker"},
        },
        required_if=[
            ("state", "present", ["layer", "recipe"]),
            ("state", "present", ["container", "image"], True),
        ],
        mutually_exclusive=[("container", "image")],
        supports_check_mode=True,
    )
    if MISSING is not None:
        module.fail_json(msg=missing_required_lib(MISSING.name or "requests"))
    params = module.params
    engine = Engine(params["engine"])
    do = keep if params["state"] == "present" else prune
    try:
        answer = do(engine, params, module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error), failure=error.as_failure())
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
