#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: layer_facts
short_description: Record on a host what a layer has put there
description:
  - Writes the facts of one layer into C(/etc/ansible/facts.d/gpumesh.fact), where Ansible finds them as
    C(ansible_local.gpumesh.layers), and leaves the other layers' facts alone.
  - The time of an entry moves only when its facts change.
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
  layer:
    description: The layer's name.
    type: str
    required: true
  facts:
    description: What is true of the layer, such as versions.
    type: dict
    required: true
  source:
    description: What put it there.
    type: str
    default: gpumesh.fleet
  path:
    description: The file of facts.
    type: path
    default: /etc/ansible/facts.d/gpumesh.fact
"""

EXAMPLES = r"""
- name: Record the versions of the layer
  gpumesh.fleet.layer_facts:
    layer: docker
    facts:
      versions: {docker: 26.1.5}
"""

RETURN = r"""
facts:
  description: The entry as it is now, or would be in check mode.
  returned: always
  type: dict
  sample: {"from": "gpumesh.fleet", "versions": {"docker": "26.1.5"}, "when": "2026-11-20T12:00:00Z"}
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import documents, files


def main() -> None:
    """Compare, and write what differs."""
    module = AnsibleModule(
        argument_spec={
            "layer": {"type": "str", "required": True},
            "facts": {"type": "dict", "required": True},
            "source": {"type": "str", "default": "gpumesh.fleet"},
            "path": {"type": "path", "default": "/etc/ansible/facts.d/gpumesh.fact"},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = Path(params["path"])
    try:
        present = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as problem:
        module.fail_json(
            msg=f"{path} is no JSON and was left as it is; move it away and run this again: {problem}"
        )
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = documents.with_layer(present, params["layer"], params["facts"], params["source"], now)
    try:
        changes = (
            files.compare([files.Wanted(path, documents.render(document))]) if document != present else []
        )
        if not module.check_mode:
            files.apply(changes, [], module.run_command)
    except (files.FilesError, OSError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(
        changed=bool(changes),
        facts=document["layers"][params["layer"]],
        diff=files.diff(changes),
    )


if __name__ == "__main__":
    main()
