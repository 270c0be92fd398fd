#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: json_merge
short_description: Merge declared keys into a JSON file that others write, too
description:
  - Keeps declared keys of a JSON file on the managed host as declared, and leaves all others alone.
  - Remembers what it wrote, so a key that is no longer declared is taken back, unless somebody has changed it since.
  - A file that is there keeps its mode and its owner, and a link to it stays one.
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
    description: The JSON file, one object. It is created if missing, for everybody to read and for root alone to write.
    type: path
    required: true
  declared:
    description: The keys and their values. Objects are merged, lists are replaced.
    type: dict
    required: true
  memory:
    description: Where to keep what was declared, for the next run.
    type: path
    required: true
  validate:
    description: Commands that must succeed with the new file in place, each a list of program and arguments.
    type: list
    elements: list
    default: []
"""

EXAMPLES = r"""
- name: Rotate the logs of containers
  gpumesh.fleet.json_merge:
    path: /etc/docker/daemon.json
    memory: /var/lib/gpumesh/docker-daemon.json
    declared:
      log-driver: json-file
      log-opts: {max-size: 10m}
"""

RETURN = r"""
document:
  description: The whole file as it is now, or would be in check mode.
  returned: always
  type: dict
  sample: {"log-driver": "json-file"}
"""

import json
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import documents, files


def load(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty for a file that is missing or empty."""
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    document = json.loads(text) if text else {}
    if not isinstance(document, dict):
        raise ValueError("it holds no JSON object")
    return document


def rendered(path: Path, document: dict[str, Any]) -> files.Wanted:
    """The file with this content. One that is there may hold a secret of somebody else's, so it keeps its mode and owner."""
    content, present = documents.render(document), files.look(path)
    if not present.exists:
        return files.Wanted(path, content)
    return files.Wanted(path, content, owner=str(present.uid), group=str(present.gid), mode=present.mode)


def main() -> None:
    """Merge, and write what differs."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "declared": {"type": "dict", "required": True},
            "memory": {"type": "path", "required": True},
            "validate": {"type": "list", "elements": "list", "default": []},
        },
        supports_check_mode=True,
    )
    # Behind a link it is the file that is written.
    path, memory = Path(os.path.realpath(module.params["path"])), Path(module.params["memory"])
    declared = module.params["declared"]
    try:
        present = load(path)
    except ValueError as problem:
        module.fail_json(msg=f"{path} cannot be merged into, and was left as it is: {problem}")
    try:
        last = load(memory)
    except ValueError:
        last = {}
    merged = documents.three_way(present, last, declared)
    wanted = [files.Wanted(memory, documents.render(declared), mode=0o600)]
    if merged != present:
        wanted.insert(0, rendered(path, merged))
    try:
        changes = files.compare(wanted)
        if changes and not module.check_mode:
            checks = [[str(word) for word in command] for command in module.params["validate"]]
            files.apply(changes, checks, module.run_command)
    except (files.FilesError, OSError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(
        changed=merged != present,
        document=merged,
        diff=files.diff([change for change in changes if change.wanted.path == path]),
    )


if __name__ == "__main__":
    main()
