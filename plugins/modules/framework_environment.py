#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: framework_environment
short_description: Put a framework's virtual environment into use, built from a lock with hashes beside the one before
description:
  - Builds a virtual environment from a lock in a folder of its own, and then points a link at it in one step. What was in use
    until then stays as it was, and is there for the way back.
  - Environments of one root share their files. Each wheel is unpacked once into C(cache) below the root, and the environments
    are hard links to that.
  - It can be ended at any time. What was not built to the end is built anew by the next run.
  - Wheels are installed only if they have the hashes that the lock names, and nothing is compiled.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer on the machine
  - C(uv) at O(uv); for O(tool=pip) the distribution's package C(python3-venv)
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
  framework:
    description: Its name, which becomes the name of the link.
    type: str
    required: true
  state:
    description: V(absent) removes the link, and the environments of the framework beyond O(keep).
    type: str
    choices: [present, absent]
    default: present
  root:
    description: Folder of everything.
    type: path
    default: /opt/gpumesh/frameworks
  name:
    description: What the environment is to be called, such as V(2.13.0-cu130). A part of a digest of the lock and the Python is added.
    type: str
  lock:
    description: The lock, as C(uv pip compile --generate-hashes) writes it.
    type: str
  key:
    description: Instead of O(lock), an environment that is there already, to go back to.
    type: str
  python:
    description: The interpreter that the environment is made with.
    type: path
    default: /usr/bin/python3
  tool:
    description: What installs; V(pip) is for the environment of C(uv) itself.
    type: str
    choices: [uv, pip]
    default: uv
  uv:
    description: The program C(uv). By default the one in the environment V(uv) below O(root).
    type: path
  index_url:
    description: The package index.
    type: str
    default: https://pypi.org/simple
  extra_index_urls:
    description: Indexes that are asked before O(index_url). Of a package that one of them has, nothing is taken from elsewhere.
    type: list
    elements: str
    default: []
  wheels:
    description: A folder on the machine, or the address of a page, with further wheels.
    type: str
    default: ""
  offline:
    description: Whether to take wheels from O(wheels) only.
    type: bool
    default: false
  variables:
    description:
      - Environment variables for programs that run in this environment, set by its own Python where nobody has set them yet.
      - C({site}) stands for its folder C(site-packages).
    type: dict
    default: {}
  use:
    description: Whether to put it into use. V(false) only builds it, and removes nothing.
    type: bool
    default: true
  keep:
    description: How many environments to keep beside the one in use, or beside none. Those that were in use last are kept.
    type: int
    default: 1
seealso:
  - module: gpumesh.fleet.framework_lock
"""

EXAMPLES = r"""
- name: Put JAX into use, and keep the one before
  gpumesh.fleet.framework_environment:
    framework: jax
    name: 0.10.2-cuda13
    lock: "{{ lookup('ansible.builtin.file', 'jax-0.10.2-cuda13.txt') }}"
    variables: {XLA_PYTHON_CLIENT_PREALLOCATE: "false"}

- name: Go back to an environment that is there
  gpumesh.fleet.framework_environment:
    framework: jax
    key: 0.10.1-cuda13-5f0c9b1d2e3a
"""

RETURN = r"""
key:
  description: The environment in use now, or that would be in check mode; empty if there is none.
  returned: always
  type: str
  sample: 0.10.2-cuda13-5f0c9b1d2e3a
before:
  description: The one that was in use before.
  returned: always
  type: str
  sample: 0.10.1-cuda13-0d9a8b7c6e5f
path:
  description: Its folder.
  returned: always
  type: str
  sample: /opt/gpumesh/frameworks/envs/jax/0.10.2-cuda13-5f0c9b1d2e3a
kept:
  description: The environments that are kept beside it.
  returned: always
  type: list
  elements: str
build:
  description: Whether it was built, or would be.
  returned: always
  type: bool
  sample: true
did:
  description: What was done, or would be, in sentences.
  returned: always
  type: list
  elements: str
  sample: [build 0.10.2-cuda13-5f0c9b1d2e3a, "put 0.10.2-cuda13-5f0c9b1d2e3a into use instead of 0.10.1-cuda13-0d9a8b7c6e5f"]
packages:
  description: The installed packages with their versions; empty in check mode if the environment is not there.
  returned: always
  type: dict
  sample: {jax: 0.10.2, numpy: 2.4.6}
disk:
  description:
    - Bytes. C(environment) is the size of all files of this environment, C(shared) that of the files among them that the cache
      or other environments have as well, and C(root) what everything below O(root) takes on the disk.
  returned: if it is not check mode
  type: dict
  sample: {environment: 362000000, shared: 351000000, root: 410000000}
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import framework_build as build
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import (
    framework_environments as environments,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "framework": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "root": {"type": "path", "default": "/opt/gpumesh/frameworks"},
    "name": {"type": "str"},
    "lock": {"type": "str"},
    "key": {"type": "str", "no_log": False},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "tool": {"type": "str", "choices": ["uv", "pip"], "default": "uv"},
    "uv": {"type": "path"},
    "index_url": {"type": "str", "default": "https://pypi.org/simple"},
    "extra_index_urls": {"type": "list", "elements": "str", "default": []},
    "wheels": {"type": "str", "default": ""},
    "offline": {"type": "bool", "default": False},
    "variables": {"type": "dict", "default": {}},
    "use": {"type": "bool", "default": True},
    "keep": {"type": "int", "default": 1},
}


def wanted(params: dict[str, Any], place: environments.Place) -> build.Wanted | None:
    """The environment to build; None: one that is there is asked for."""
    if params["key"]:
        return None
    return build.Wanted(
        name=params["name"],
        lock=params["lock"],
        python=params["python"],
        version=build.python_version(params["python"]),
        tool=params["tool"],
        uv=Path(params["uv"] or place.root / "uv" / "bin" / "uv"),
        sources=build.Sources(
            params["index_url"], tuple(params["extra_index_urls"]), params["wheels"], params["offline"]
        ),
    )


def present(place: environments.Place, params: dict[str, Any], check: bool) -> tuple[str, list[str]]:
    """Have the environment in use, and no more than is to be kept beside it; its key, and what was done."""
    one, did = wanted(params, place), []
    key = one.key if one else params["key"]
    before = place.current()
    gone = [folder.name for folder in place.halves() if folder.name != key]
    if one:
        if not build.is_whole(place, one):
            did.append(f"build {key}")
            if not check:
                build.build(place, one, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    elif key not in place.whole():
        raise environments.EnvironmentsError(
            f"{key} of {place.framework} is not there to go back to; there is {', '.join(place.whole()) or 'nothing'}"
        )
    if one and not (check and did):
        variables = {name: str(value) for name, value in params["variables"].items()}
        differs = environments.set_variables(place.environment(key), variables, carry_out=not check)
        if differs and not did:
            did.append(f"set the variables of {key}")
    if not params["use"]:
        return before, did
    if key != before:
        did.append(f"put {key} into use" + (f" instead of {before}" if before else ""))
        if not check:
            environments.activate(place, key)
    gone += environments.surplus(place, key, before, params["keep"])
    for name in gone:
        did.append(f"remove {name}")
        if not check:
            environments.remove(place.environment(name))
    return key, did


def absent(place: environments.Place, keep: int, check: bool) -> list[str]:
    """Remove the link, and all environments but those to keep for the way back."""
    did, before = [], place.current()
    if before:
        did.append(f"take {before} out of use")
        if not check:
            environments.deactivate(place)
    halves = [folder.name for folder in place.halves()]
    for name in [*halves, *environments.surplus(place, "", before, keep)]:
        did.append(f"remove {name}")
        if not check:
            environments.remove(place.environment(name))
    if not check and place.folder.is_dir() and not any(place.folder.iterdir()):
        place.folder.rmdir()
    return did


def carried_out(place: environments.Place, params: dict[str, Any], check: bool) -> tuple[str, list[str]]:
    """What the state asks for."""
    if params["state"] == "present":
        key, did = present(place, params, check)
    else:
        key, did = "", absent(place, params["keep"], check)
    if not check and any(one.startswith("remove ") for one in did):
        environments.sweep(place.root)
    return key, did


def main() -> None:
    """Compare, and do what is missing."""
    module = AnsibleModule(
        argument_spec=OPTIONS,
        supports_check_mode=True,
        mutually_exclusive=[("lock", "key")],
        required_if=[("state", "present", ("lock", "key"), True)],
        required_by={"lock": ("name",)},
    )
    params, check = module.params, module.check_mode
    place = environments.Place(Path(params["root"]), params["framework"])
    try:
        if check or (params["state"] == "absent" and not place.root.is_dir()):
            before = place.current()
            key, did = carried_out(place, params, check=True)
        else:
            with environments.alone(place):
                before = place.current()
                key, did = carried_out(place, params, check=False)
        whole = place.whole()
        result: dict[str, Any] = {}
        if not check:
            apparent, _actual, shared = environments.usage([place.environment(key)] if key else [])
            result["disk"] = {
                "environment": apparent,
                "shared": shared,
                "root": environments.usage([place.root])[1],
            }
    except (environments.EnvironmentsError, OSError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(
        changed=bool(did),
        key=key,
        before=before,
        path=str(place.environment(key)) if key else "",
        kept=[name for name in whole if name != key],
        build=any(one.startswith("build ") for one in did),
        did=did,
        packages=whole.get(key, {}).get("packages", {}),
        diff={
            "before_header": f"{place.link} (before)",
            "after_header": f"{place.link} (after)",
            "before": f"{before}\n" if before else "",
            "after": (f"{key}\n" if key else "")
            + "".join(f"# {one}\n" for one in did if one != f"build {key}"),
        },
        **result,
    )


if __name__ == "__main__":
    main()
