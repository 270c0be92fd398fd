#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: image_manifest
short_description: Keep golden images in a store, each with a manifest of what is in it and how it was proven
description:
  - Gives a built image its version, writes its manifest and its bill of materials, signs it, and puts it into the store as the
    current one. It has to have been through its gate.
  - Goes back to an earlier version, proves versions, and removes old ones.
  - The version follows from the content, unless one is asked for. The same content is the same version. Another operating system or
    disk layout is a major step, other layers or another way to make one a minor one, and what new package lists alone bring is a
    patch.
  - A version is whole or not there, whenever this is killed. What has a version is never overwritten. Builds at the same time do
    not mix; each finds out what the other did when its turn comes.
  - The manifest is described by the JSON Schema C(docs/image-manifest.schema.json) of this collection, and the bill of materials
    is CycloneDX JSON.
  - The store is a folder on the machine this runs on. There, C(NAME/current) leads to the version to use.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer
  - pydantic
  - cyclonedx-python-lib, for O(state=present)
  - C(ssh-keygen) of OpenSSH 8.2 or newer, for signatures
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Proves what it would prove.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: With O(state=opened) there is a new work folder each time.
options:
  store:
    description: Folder of all images.
    type: path
    required: true
  name:
    description: Name of the image, of small letters, digits and dashes.
    type: str
    required: true
  state:
    description:
      - V(opened) makes a work folder for a build, and removes those of builds that are no more.
      - V(present) gives the build in O(folder) a version and makes it the current one, keeps O(keep) versions, and removes
        O(folder). A build whose content has a version already is thrown away. One whose tests did not pass is refused and left
        where it is.
      - V(current) proves O(version) and makes it the current one.
      - V(verified) proves O(version) and changes nothing.
      - V(pruned) removes all but the newest O(keep) versions. The current one, and the one before it, are kept.
    type: str
    choices: [opened, present, current, verified, pruned]
    default: present
  version:
    description:
      - With O(state=present), the version that the build is to have, instead of the one that follows from its content. One that exists
        with other content is refused.
      - Otherwise the version that is meant, as a number, or V(current), V(latest), the newest, or V(previous), the one that was current
        before the newest came. Needed with O(state=current); V(current) by default with O(state=verified).
    type: str
  folder:
    description:
      - Work folder of the build, as O(state=opened) made it, with C(disk.qcow2), C(inventory.json) and the results of the gate,
        C(gate/junit.xml) and C(gate/boots.json).
      - Needed with O(state=present).
    type: path
  identity:
    description: What the image was made of. Two builds with the same are the same. Needed with O(state=present).
    type: dict
    suboptions:
      os:
        description: Distribution and release.
        type: str
        required: true
      layout:
        description: What the disk is like, and the version of the code that lays it out.
        type: str
        required: true
      layers:
        description:
          - The layers, from the lowest up, each with C(layer), its name, C(role), C(recipe), the digest of how it is made, C(key), that
            of the recipe and the package lists, C(parent), the key of the layer below, and C(lists), the digests of the package lists by
            URL. The lowest has no C(parent), and one that no role made has no C(role).
        type: list
        elements: dict
        required: true
  disk:
    description: What the disk is like. Needed with O(state=present).
    type: dict
    suboptions:
      firmware:
        description: The firmware that boots it. It has to have been booted with each.
        type: list
        elements: str
        choices: [bios, uefi]
        required: true
      filesystem:
        description: The root file system.
        type: str
        default: ext4
      luks:
        description: Whether the root file system is encrypted.
        type: bool
        default: false
      virtual_size_bytes:
        description: Size of the disk that a machine sees.
        type: int
        required: true
  builder:
    description: What it was made with. Needed with O(state=present).
    type: dict
    suboptions:
      ansible:
        description: Version of ansible-core.
        type: str
        required: true
      collection:
        description: Version of this collection.
        type: str
        required: true
      tools:
        description: Versions of the tools, by name.
        type: dict
        default: {}
      accelerator:
        description: What virtual machines ran on.
        type: str
        required: true
  source:
    description: Where the roles came from.
    type: dict
    suboptions:
      revision:
        description: Revision of the source.
        type: str
      dirty:
        description: Whether there were changes that were not committed.
        type: bool
  epoch:
    description: Seconds since 1970 that no file in the image is newer than. Needed with O(state=present).
    type: int
  keep:
    description: How many versions to keep.
    type: int
    default: 3
  signing_key:
    description:
      - An SSH key to sign the manifest with, which has the checksums of everything else. A private key without a passphrase, or the
        public key of one that an SSH agent has. It is never copied.
    type: path
  allowed_signers:
    description:
      - File of those whose signatures count, see C(ssh-keygen). With it, a version without a signature of one of them is no good,
        and is not made.
      - Without it no signature is looked at.
    type: path
  pid:
    description: The process that a work folder is for, and without which it is removed. By default the playbook's.
    type: int
"""

EXAMPLES = r"""
- name: Open a build
  gpumesh.fleet.image_manifest:
    store: ~/.local/share/gpumesh/images
    name: gpu-box
    state: opened
  register: build

- name: Give the image its version
  gpumesh.fleet.image_manifest:
    store: ~/.local/share/gpumesh/images
    name: gpu-box
    folder: "{{ build.folder }}"
    identity: "{{ plan.identity }}"
    disk: {firmware: [bios, uefi], virtual_size_bytes: 3221225472}
    builder: {ansible: "{{ ansible_version.full }}", collection: 0.1.0, accelerator: kvm}
    epoch: 1764201600
    signing_key: ~/.ssh/image_signing
  register: image

- name: Go back to what was current before the newest build
  gpumesh.fleet.image_manifest:
    store: ~/.local/share/gpumesh/images
    name: gpu-box
    state: current
    version: previous
    allowed_signers: /etc/gpumesh/image_signers
"""

RETURN = r"""
folder:
  description: The work folder that was made, or else the folder of the version.
  returned: success, but for O(state=pruned), and for O(state=opened) in check mode
  type: str
  sample: /srv/images/gpu-box/gpu-box-v1.1.0
version:
  description: The version.
  returned: with O(state=present), O(state=current) and O(state=verified)
  type: str
  sample: 1.1.0
kind:
  description:
    - Which part of the version moved, V(major), V(minor) or V(patch). V(first) is the first of its name, and V(same) was there
      already.
  returned: with O(state=present)
  type: str
reason:
  description: Why it is this version.
  returned: with O(state=present)
  type: str
  sample: how layer base is made changed since version 1.0.0
file:
  description: The image's file.
  returned: with O(state=present), O(state=current) and O(state=verified)
  type: str
  sample: /srv/images/gpu-box/gpu-box-v1.1.0/gpu-box-v1.1.0.qcow2
manifest:
  description: The manifest. Its fields are described in C(docs/image-manifest.schema.json).
  returned: with O(state=current) and O(state=verified), and with O(state=present) outside check mode
  type: dict
signer:
  description: Who signed it. Null where no signature was looked at.
  returned: with O(state=current) and O(state=verified)
  type: str
current:
  description: The current version; in check mode the one that would be. Null where there is none.
  returned: success
  type: str
versions:
  description: Every version that there is, the oldest first; in check mode every one that there would be.
  returned: success
  type: list
  elements: str
pruned:
  description: The versions that were removed.
  returned: with O(state=present) and O(state=pruned)
  type: list
  elements: str
swept:
  description: The work folders that were removed.
  returned: with O(state=opened)
  type: list
  elements: str
failure:
  description: The failure, for programs.
  returned: failure
  type: dict
"""

import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ..module_utils._fleet.errors import FleetError

PYDANTIC_PROBLEM: str | None = None
try:
    from ..module_utils._fleet.images import admission, work
    from ..module_utils._fleet.images.store import Store
    from ..module_utils._fleet.images.versions import Version, check_name
except ImportError:
    PYDANTIC_PROBLEM = traceback.format_exc()

DISK_OPTIONS = {
    "firmware": {"type": "list", "elements": "str", "choices": ["bios", "uefi"], "required": True},
    "filesystem": {"type": "str", "default": "ext4"},
    "luks": {"type": "bool", "default": False},
    "virtual_size_bytes": {"type": "int", "required": True},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "store": {"type": "path", "required": True},
    "name": {"type": "str", "required": True},
    "state": {
        "type": "str",
        "choices": ["opened", "present", "current", "verified", "pruned"],
        "default": "present",
    },
    "version": {"type": "str"},
    "folder": {"type": "path"},
    "identity": {
        "type": "dict",
        "options": {
            "os": {"type": "str", "required": True},
            "layout": {"type": "str", "required": True},
            "layers": {"type": "list", "elements": "dict", "required": True},
        },
    },
    "disk": {"type": "dict", "options": DISK_OPTIONS},
    "builder": {
        "type": "dict",
        "options": {
            "ansible": {"type": "str", "required": True},
            "collection": {"type": "str", "required": True},
            "tools": {"type": "dict", "default": {}},
            "accelerator": {"type": "str", "required": True},
        },
    },
    "source": {"type": "dict", "options": {"revision": {"type": "str"}, "dirty": {"type": "bool"}}},
    "epoch": {"type": "int"},
    "keep": {"type": "int", "default": 3},
    # The path of a key is no secret.
    "signing_key": {"type": "path", "no_log": False},
    "allowed_signers": {"type": "path"},
    "pid": {"type": "int"},
}
NEEDED = [
    ("state", "present", ("folder", "identity", "disk", "builder", "epoch")),
    ("state", "current", ("version",)),
]


def seen(name: str, current: Version | None, versions: Sequence[Version]) -> str:
    """What a store has of a name, for the diff."""
    return "".join(f"{name} {version}{' (current)' if version == current else ''}\n" for version in versions)


def opened(store: Store, params: dict[str, Any], check: bool) -> dict[str, Any]:
    """A work folder for a build."""
    if check:
        return {"changed": True, "swept": []}
    swept, left = store.sweep()
    folder = work.open_folder(store.work, params["name"], params["pid"] or work.builder())
    return {"changed": True, "folder": str(folder.absolute()), "swept": swept, "warnings": left}


def present(store: Store, params: dict[str, Any], check: bool) -> dict[str, Any]:
    """A version for a build."""
    name = params["name"]
    build = admission.Build(
        name=name,
        folder=Path(params["folder"]),
        identity=params["identity"],
        disk=params["disk"],
        builder=params["builder"],
        source={"revision": None, "dirty": None, **(params["source"] or {})},
        epoch=params["epoch"],
        version=Version.parse(params["version"]) if params["version"] else None,
        signing_key=Path(params["signing_key"]) if params["signing_key"] else None,
        allowed_signers=Path(params["allowed_signers"]) if params["allowed_signers"] else None,
        keep=params["keep"],
    )
    admitted = admission.foresee(store, build) if check else admission.admit(store, build, datetime.now(UTC))
    bump = admitted.bump
    return {
        "changed": bump.kind != "same" or admitted.current or bool(admitted.pruned),
        "version": str(bump.version),
        "kind": bump.kind,
        "reason": bump.reason,
        "folder": str(store.folder(name, bump.version)),
        "file": str(store.disk(name, bump.version)),
        "pruned": [str(version) for version in admitted.pruned],
        **({} if check else {"manifest": store.manifest(name, bump.version).model_dump(mode="json")}),
        "_becomes": bump.version if admitted.current else None,
        "_gone": admitted.pruned,
    }


def proven(store: Store, params: dict[str, Any], check: bool) -> dict[str, Any]:
    """A version that is what its manifest says; with the state ``current`` the one to use."""
    name = params["name"]
    version = store.find(name, params["version"] or "current")
    signers = params["allowed_signers"]
    manifest, signer = store.verify(name, version, Path(signers) if signers else None)
    switch = params["state"] == "current"
    changed = switch and store.current(name) != version
    if changed and not check:
        store.make_current(name, version)
    return {
        "changed": changed,
        "version": str(version),
        "folder": str(store.folder(name, version)),
        "file": str(store.disk(name, version)),
        "manifest": manifest.model_dump(mode="json"),
        "signer": signer,
        "_becomes": version if switch else None,
    }


def pruned(store: Store, params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Only so many versions."""
    name, keep = params["name"], params["keep"]
    gone = store.surplus(name, keep) if check else store.prune(name, keep)
    return {"changed": bool(gone), "pruned": [str(version) for version in gone], "_gone": gone}


STATES = {"opened": opened, "present": present, "current": proven, "verified": proven, "pruned": pruned}


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do what is asked."""
    params, check = module.params, module.check_mode
    store, name = Store(Path(params["store"])), check_name(params["name"])
    before, versions = store.current(name), store.versions(name)
    result = STATES[params["state"]](store, params, check)
    for warning in result.pop("warnings", []):
        module.warn(warning)
    becomes, gone = result.pop("_becomes", None), result.pop("_gone", ())
    if check:
        current = becomes or before
        after = sorted({*versions, *([becomes] if becomes else [])} - set(gone))
    else:
        current, after = store.current(name), store.versions(name)
    diff = {
        "before_header": params["store"],
        "after_header": params["store"],
        "before": seen(name, before, versions),
        "after": seen(name, current, after),
    }
    return {
        **result,
        "current": str(current) if current else None,
        "versions": [str(version) for version in after],
        "diff": diff,
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=NEEDED, supports_check_mode=True)
    if PYDANTIC_PROBLEM:
        module.fail_json(msg=missing_required_lib("pydantic"), exception=PYDANTIC_PROBLEM)
    try:
        module.exit_json(**run(module))
    except FleetError as error:
        module.fail_json(msg=str(error), failure=error.as_failure())
    except OSError as error:
        module.fail_json(
            msg=f"{error.filename or module.params['store']} cannot be used: {error.strerror or error}"
        )


if __name__ == "__main__":
    main()
