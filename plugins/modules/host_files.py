#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Install several small files together, or none of them
description:
  - Writes, links or removes several small files on the managed host in one step, so that a role with eight
    configuration files needs one task and one round trip.
  - The files are checked where they lie, by the programs that will read them. If one check fails, every file is put
    back and the task fails.
author: [gpumesh.fleet contributors (@gpumesh)]
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The checks of O(validate) need the files in place, so check mode does not run them.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path. Missing parent directories are created with mode V(0755).
        type: path
        required: true
      content:
        description: The whole content, usually from P(ansible.builtin.template#lookup).
        type: str
      link:
        description: Make O(files[].path) a symbolic link to this target instead of a file.
        type: str
      owner:
        description: Name or number of the owner.
        type: str
        default: root
      group:
        description: Name or number of the group.
        type: str
        default: root
      mode:
        description: Octal permissions, as a string.
        type: str
        default: '0644'
      state:
        description: V(absent) removes the file; a directory is never removed.
        type: str
        choices: [present, absent]
        default: present
  validate:
    description: Commands that must succeed with the new files in place, each a list of program and arguments.
    type: list
    elements: list
    default: []
  undo:
    description:
      - Start a timer that puts the files back and runs a command, before anything is changed. Whoever made the change
        stops the timer after proving that the machine can still be reached; the unit is C(gpumesh-undo-NAME.timer).
      - Where nothing differs but the timer of an earlier change still runs, that change was never proved. The timer is
        then started anew, and the task counts as changed, so that its handlers carry out the proof.
    type: dict
    suboptions:
      name:
        description: Name of the timer.
        type: str
        required: true
      after:
        description: Seconds until the change is undone. V(0) starts no timer.
        type: int
        default: 300
      command:
        description: What to run after the files have been put back, as program and arguments.
        type: list
        elements: str
        required: true
"""

EXAMPLES = r"""
- name: Configure SSH in one drop-in, with a way back
  gpumesh.fleet.host_files:
    files:
      - path: /etc/ssh/sshd_config.d/00-gpumesh.conf
        content: "{{ lookup('ansible.builtin.template', 'sshd.conf.j2') }}"
    validate:
      - [sshd, -t]
    undo:
      name: ssh
      command: [systemctl, reload, ssh.service]
"""

RETURN = r"""
changed_files:
  description: The paths that were changed, or would be in check mode, in the order given.
  returned: always
  type: list
  elements: str
  sample: [/etc/ssh/sshd_config.d/00-gpumesh.conf]
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import files, undo

FILE = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str"},
    "link": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "default": "0644"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
UNDO = {
    "name": {"type": "str", "required": True},
    "after": {"type": "int", "default": 300},
    "command": {"type": "list", "elements": "str", "required": True},
}


def wanted(item: dict[str, Any]) -> files.Wanted:
    """One file as the engine takes it."""
    return files.Wanted(
        path=Path(item["path"]),
        content=item["content"],
        link=item["link"],
        owner=item["owner"],
        group=item["group"],
        mode=int(item["mode"], 8),
        absent=item["state"] == "absent",
    )


def main() -> None:
    """Compare, and change what differs."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": FILE,
                "mutually_exclusive": [("content", "link")],
                "required_if": [("state", "present", ("content", "link"), True)],
            },
            "validate": {"type": "list", "elements": "list", "default": []},
            "undo": {"type": "dict", "options": UNDO},
        },
        supports_check_mode=True,
    )
    arming, armed, unproved = module.params["undo"], False, False
    try:
        if arming:
            after = 0 if module.check_mode else arming["after"]
            unproved = undo.postpone(arming["name"], after, module.run_command)
        changes = files.compare([wanted(item) for item in module.params["files"]])
        if changes and not module.check_mode:
            if arming and arming["after"]:
                paths = [change.wanted.path for change in changes]
                armed = undo.arm(
                    arming["name"], arming["after"], paths, arming["command"], module.run_command
                )
            checks = [[str(word) for word in command] for command in module.params["validate"]]
            files.apply(changes, checks, module.run_command)
    except (files.FilesError, undo.UndoError, OSError) as problem:
        if armed:
            undo.disarm(arming["name"], module.run_command)
        module.fail_json(msg=str(problem))
    module.exit_json(
        changed=bool(changes) or unproved,
        changed_files=[str(change.wanted.path) for change in changes],
        diff=files.diff(changes),
    )


if __name__ == "__main__":
    main()
