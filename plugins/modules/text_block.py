#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: text_block
short_description: Keep one marked block in a text file that belongs to others
description:
  - Puts lines of ours between two marker lines into a file such as C(/etc/hosts) or C(~/.ssh/config), and never touches a
    byte outside of them. Removing the block gives the file as it was, to the byte.
  - A block that was damaged, with a marker missing, doubled or in the wrong order, is refused, and the file stays as it is.
  - A symbolic link is followed. Owner and permissions of the file are kept. Where the file cannot be replaced because it
    is mounted by itself, as C(/etc/hosts) is in a container, it is written in place.
author: [gpumesh.fleet contributors (@gpumesh)]
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
  path:
    description: The file.
    type: path
    required: true
  name:
    description:
      - Names the block. The marker lines are C(# NAME begin) and C(# NAME end).
      - The first word is shared by all blocks of one kind, the rest tells them apart.
    type: str
    required: true
  content:
    description: The lines of the block.
    type: str
    default: ""
  place:
    description:
      - Where a block goes that is not there yet. At the V(bottom) it stays wherever somebody has moved it.
      - At the V(top) it is moved back above every line that is neither empty, nor a comment, nor part of a block of its
        kind.
    type: str
    choices: [bottom, top]
    default: bottom
  mode:
    description: Octal permissions of a file that is made. Those of a file that is there are kept.
    type: str
    default: '0644'
  directory_mode:
    description: Octal permissions of missing parent directories, which are made.
    type: str
    default: '0755'
  state:
    description: V(absent) takes the block out, and with it the file if it was made for the block and holds nothing else.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Name a machine
  gpumesh.fleet.text_block:
    path: /etc/hosts
    name: gpumesh minerals
    content: |
      fddb:4344:343b:14b9:399:9380:46d5:3400 stibnite.zt

- name: Let ssh read a file of ours before everything else
  gpumesh.fleet.text_block:
    path: ~/.ssh/config
    name: gpumesh minerals
    content: Include ~/.ssh/gpumesh/minerals.conf
    place: top
    mode: '0600'
    directory_mode: '0700'
"""

RETURN = r"""
path:
  description: The file, after symbolic links.
  returned: always
  type: str
  sample: /etc/hosts
"""

import os
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import text_block


def read(path: Path) -> bytes | None:
    """The content of the file, None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def write(module: AnsibleModule, path: Path, content: bytes) -> None:
    """Put the content in place, at once wherever the file can be replaced."""
    made = not path.exists()
    if made:
        for folder in [folder for folder in reversed(path.parents) if not folder.exists()]:
            folder.mkdir(mode=int(module.params["directory_mode"], 8))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        module.atomic_move(temporary, str(path), unsafe_writes=True)
    finally:
        Path(temporary).unlink(missing_ok=True)
    if made:
        path.chmod(int(module.params["mode"], 8))


def shown(content: bytes | None) -> str:
    """The content as a diff shows it."""
    return (content or b"").decode(errors="replace")


def main() -> None:
    """Compare, and write what differs."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "content": {"type": "str", "default": ""},
            "place": {"type": "str", "choices": ["bottom", "top"], "default": "bottom"},
            "mode": {"type": "str", "default": "0644"},
            "directory_mode": {"type": "str", "default": "0755"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = Path(os.path.realpath(params["path"]))
    try:
        present = read(path)
        if params["state"] == "absent":
            wanted = text_block.remove(present, params["name"])
        else:
            top = params["place"] == "top"
            wanted = text_block.place(present, params["name"], params["content"], top=top)
        if wanted != present and not module.check_mode:
            if wanted is None:
                path.unlink()
            else:
                write(module, path, wanted)
    except text_block.BlockError as problem:
        module.fail_json(msg=f"{path} was left as it is: {problem}", path=str(path))
    except OSError as problem:
        module.fail_json(msg=f"{path} cannot be kept: {problem.strerror}", path=str(path))
    module.exit_json(
        changed=wanted != present,
        path=str(path),
        diff={
            "before": shown(present),
            "after": shown(wanted),
            "before_header": str(path),
            "after_header": str(path),
        },
    )


if __name__ == "__main__":
    main()
