#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: image_plan
short_description: Which layers of a golden image are cached, and which must be built
description:
  - Compares the declaration of an image with the layers that the container engine keeps, and says of each whether it can be used
    again or why it must be built. Changes nothing.
  - A layer can be used again if its role, everything in the collection that the role uses, its variables, the layer below and
    the package lists are what they were when it was built.
  - P(gpumesh.fleet.golden_image#role) does all of it.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - a container engine
  - requests
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is ever changed.
  diff_mode:
    support: none
    details: Nothing is ever changed.
  idempotent:
    support: full
options:
  name:
    description: Name of the image.
    type: str
    required: true
  collection:
    description: The folder of this collection, which has the roles.
    type: path
    required: true
  os:
    description: The distribution and its release, such as V(debian-13).
    type: str
    required: true
  os_recipe:
    description: Everything that goes into the lowest layer. Any data will do.
    type: dict
    required: true
  layout:
    description: What the disk is like. Any data will do; an image with another layout is a new major version.
    type: dict
    required: true
  layers:
    description: The layers above the operating system, from the ground up.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name. V(os) and V(seal) are taken.
        type: str
        required: true
      role:
        description: The role that makes it, of this collection by its short name, of another one in full.
        type: str
        required: true
      path:
        description: The folder of the role. By default where collections beside this one are.
        type: path
  variables:
    description: Variables of the roles. All that begin with a role's name concern its layer, and those that begin with C(fleet_)
      concern every layer. One that no layer has is refused.
    type: dict
    default: {}
  implied:
    description: Variables with less weight that are given to every image; one that no layer has is left out.
    type: dict
    default: {}
  lock_folders:
    description: Names of variables whose value is a folder of locks on this machine. What is in the locks is part of what the image
      is made of, where the folder is is not. Locks that a build has made do not count.
    type: list
    elements: str
    default: []
  seal:
    description: Everything that goes into the disk after the layers, such as digests of the programs that seal it. Any data will
      do. It is part of what the image is made of, and no layer changes with it.
    type: dict
    default: {}
  store:
    description: Folder of the images.
    type: path
    required: true
  version:
    description: The version it is to have. By default it follows from what has changed.
    type: str
  cache:
    description: Whether layers may be used again at all.
    type: bool
    default: true
  lists:
    description:
      - V(check) asks the package archives whether their lists are still those that the layers were built from.
      - V(ignore) takes what is kept for new enough, and asks nobody.
    type: str
    choices: [check, ignore]
    default: check
  proxy:
    description: Address of the proxy that packages come through. By default that of the environment.
    type: str
    default: ""
  built:
    description: Keys of layers that this build has just made; they count as cached whatever O(cache) and O(lists) say.
    type: list
    elements: str
    default: []
  engine:
    description: The container engine's client, by name or path. It needs the command line of C(docker).
    type: str
    default: docker
seealso:
  - module: gpumesh.fleet.image_layer
  - module: gpumesh.fleet.image_manifest
"""

EXAMPLES = r"""
- name: Say what would be built
  gpumesh.fleet.image_plan:
    name: gpu-box
    collection: "{{ role_path | dirname | dirname }}"
    os: debian-13
    os_recipe: {packages: [linux-image-amd64, openssh-server]}
    layout: {firmware: bios+uefi, filesystem: ext4, luks: false}
    layers:
      - {name: base, role: base}
      - {name: docker, role: docker}
    variables: {base_firewall_enabled: true}
    store: ~/.local/share/gpumesh/images
  register: planned
"""

RETURN = r"""
layers:
  description: Every layer from the operating system up.
  returned: success
  type: list
  elements: dict
  contains:
    layer:
      description: Its name.
      type: str
      returned: always
    role:
      description: The role that makes it, none for the operating system.
      type: str
      returned: always
    recipe:
      description: Digest of how it is made.
      type: str
      returned: always
    parts:
      description: Digests of what the recipe is made of, which P(gpumesh.fleet.image_layer#module) keeps to tell what changed.
      type: dict
      returned: always
    cached:
      description: Whether it is there.
      type: bool
      returned: always
    why:
      description: Why it has to be built; empty where it is there.
      type: str
      returned: always
      sample: "package lists changed: http://deb.debian.org/debian/dists/trixie/InRelease"
    key:
      description: Digest of what it is, if it is there.
      type: str
      returned: always
    image:
      description: Its image, if it is there.
      type: str
      returned: always
      sample: gpumesh/golden:6f1b0c8bd8e4a5f5d39c1a55
    created:
      description: When it was built, if it is there.
      type: str
      returned: always
      sample: "2026-11-27T14:03:11+00:00"
start_from:
  description: The topmost layer that is there, as C(layer), C(key) and C(image); none if there is none.
  returned: success
  type: dict
missing:
  description: The layers that have to be built, as in RV(layers).
  returned: success
  type: list
  elements: dict
identity:
  description: What the image is made of, as its manifest has it; none while a layer has to be built.
  returned: success
  type: dict
bump:
  description: The version that it is or gets, as C(version), C(kind) and C(reason); none while a layer has to be built.
  returned: success
  type: dict
  sample: {version: 1.2.0, kind: same, reason: version 1.2.0 has this very content}
same:
  description: Whether the store has an image with this very content.
  returned: success
  type: bool
current:
  description: The current version; empty where there is none.
  returned: success
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet import http
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images import (
        contents,
        layers,
        package_lists,
    )
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.engine import Engine
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.store import Store
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.versions import Version
except ImportError as problem:
    MISSING: ImportError | None = problem
else:
    MISSING = None


def declared(params: dict[str, Any]) -> layers.Spec:
    """The image, with digests of its roles."""
    root = Path(params["collection"])
    found = contents.Roles(root)
    roles = {one["role"]: one["path"] and Path(one["path"]) for one in params["layers"]}
    options = {role: found.options(role, path) for role, path in roles.items()}
    layers.refuse_unknown(params["variables"], options)
    implied = {name: value for name, value in params["implied"].items() if layers.is_known(name, options)}
    variables = implied | params["variables"]
    for name in params["lock_folders"]:
        if name in variables:
            variables[name] = contents.own_locks(Path(str(variables[name])))
    return layers.Spec(
        os=params["os"],
        os_recipe=params["os_recipe"],
        layout=params["layout"],
        layers=tuple(
            layers.Step(one["name"], one["role"], found.digest(one["role"], roles[one["role"]]))
            for one in params["layers"]
        ),
        variables=variables,
        seal=params["seal"],
    )


def kept(engine: Engine) -> list[layers.Cached]:
    """The layers that the engine has."""
    read = (
        layers.Cached.read(
            next((name for name in one.names if name.startswith(f"{layers.REPOSITORY}:")), one.id),
            one.labels,
            one.created,
        )
        for one in engine.images(f"{layers.LABEL}.key")
    )
    return [one for one in read if one is not None]


def plan(params: dict[str, Any]) -> dict[str, Any]:
    """The answer."""
    spec = declared(params)
    cached = kept(Engine(params["engine"]))
    usable = cached if params["cache"] else []
    now = None
    if params["lists"] == "check":
        urls = layers.lists_to_ask(spec, usable, params["built"])
        now = package_lists.fetch(urls, http.RetryAdapter(SystemClock()), params["proxy"]) if urls else {}
    made = layers.plan(spec, cached, now, use=params["cache"], built=params["built"])
    told = [layers.layer_data(one) for one in made.layers]
    bump = None
    if made.identity is not None:
        version = Version.parse(params["version"]) if params["version"] else None
        bump = Store(Path(params["store"])).bump(params["name"], made.identity, version)
    return {
        "layers": told,
        "missing": [one for one in told if not one["cached"]],
        "start_from": made.start_from
        and {name: getattr(made.start_from, name) for name in ("layer", "key", "image")},
        "identity": layers.identity_data(made),
        "bump": bump and {"version": str(bump.version), "kind": bump.kind, "reason": bump.reason},
        "same": bump is not None and bump.kind == "same",
        "current": str(Store(Path(params["store"])).current(params["name"]) or ""),
    }


def main() -> None:
    """Compare, and tell."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "collection": {"type": "path", "required": True},
            "os": {"type": "str", "required": True},
            "os_recipe": {"type": "dict", "required": True},
            "layout": {"type": "dict", "required": True},
            "layers": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "role": {"type": "str", "required": True},
                    "path": {"type": "path"},
                },
            },
            "variables": {"type": "dict", "default": {}},
            "implied": {"type": "dict", "default": {}},
            "lock_folders": {"type": "list", "elements": "str", "default": []},
            "seal": {"type": "dict", "default": {}},
            "store": {"type": "path", "required": True},
            "version": {"type": "str"},
            "cache": {"type": "bool", "default": True},
            "lists": {"type": "str", "choices": ["check", "ignore"], "default": "check"},
            "proxy": {"type": "str", "default": ""},
            "built": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "engine": {"type": "str", "default": "docker"},
        },
        supports_check_mode=True,
    )
    if MISSING is not None:
        module.fail_json(msg=missing_required_lib(MISSING.name or "requests"))
    try:
        answer = plan(module.params)
    except FleetError as error:
        module.fail_json(msg=str(error), failure=error.as_failure())
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
