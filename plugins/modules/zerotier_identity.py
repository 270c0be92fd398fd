#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: zerotier_identity
short_description: A ZeroTier node's identity, made before or where the node is
description:
  - Makes a ZeroTier identity in C(identity.secret) and C(identity.public), on the host it runs on, or reads and proves the
    one that is there.
  - With an identity made beforehand, a node's id and its addresses are known before it exists, and it can be authorised
    before it starts for the first time.
  - The secret key is never part of the result, of a difference, of an error or of any program's arguments.
  - Uses C(zerotier-idtool) where it is in the E(PATH) and makes a good one. Otherwise the module makes the identity itself, in
    about four seconds, which vary with luck.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer
  - C(ansible-vault), with O(vault_password_file)
extends_documentation_fragment:
  - gpumesh.fleet.attributes
  - gpumesh.fleet.attributes.actiongroup_all
attributes:
  check_mode:
    support: full
    details: What a new identity will be is not known before it is made, so RV(node_id) is null then.
  diff_mode:
    support: full
    details: Without the secret.
  idempotent:
    support: partial
    details: With O(force) and without O(secret), every run makes a new identity.
options:
  path:
    description:
      - Where the identity is, a directory such as V(/var/lib/zerotier-one), or a file whose name ends in C(.secret).
      - In a directory, the files are C(identity.secret) and C(identity.public). Beside C(NAME.secret) lies C(NAME.public).
      - The secret has mode V(0600), the public half V(0644). A directory that is missing is created with mode V(0700).
    type: path
    required: true
  state:
    description: V(present) is the only one. Remove the files with M(ansible.builtin.file).
    type: str
    choices: [present]
    default: present
  secret:
    description:
      - Put this identity there, the content of an C(identity.secret), instead of making one.
      - It comes from Ansible Vault or another safe place, as a rule.
    type: str
  force:
    description:
      - Replace an identity that is there, or what is no identity. The old secret is lost.
      - Without it, a file that is there is never overwritten.
    type: bool
    default: false
  verify:
    description:
      - Prove that the node id follows from the public key, and the public key from the secret one. Takes less than a second.
      - A node with an identity that is none does not start.
    type: bool
    default: true
  vault_password_file:
    description:
      - Keep the secret file encrypted with Ansible Vault, so that it can be committed. This is its password in a file, or a
        program that prints it.
      - For the control machine. A node cannot read such a file; give it the content, which P(ansible.builtin.file#lookup)
        decrypts by itself.
    type: path
notes:
  - The node must not run while its identity is replaced. It reads the files only when it starts.
"""

EXAMPLES = r"""
- name: Make an identity for a machine that does not exist yet, encrypted
  gpumesh.fleet.zerotier_identity:
    path: "{{ inventory_dir }}/identities/scheelite.secret"
    vault_password_file: ~/.vault-password
  delegate_to: localhost
  register: prepared

- name: Authorise it
  gpumesh.fleet.zerotier_member:
    network: db4344343b14b903
    node_id: "{{ prepared.node_id }}"
    name: scheelite
  delegate_to: cinnabar

- name: Hand it to the node
  gpumesh.fleet.zerotier_identity:
    path: /var/lib/zerotier-one
    secret: "{{ lookup('ansible.builtin.file', inventory_dir ~ '/identities/scheelite.secret') }}"
  become: true

- name: Prove the identity that a node made itself
  gpumesh.fleet.zerotier_identity:
    path: /var/lib/zerotier-one
  check_mode: true
  become: true
  register: own
  failed_when: own.made
"""

RETURN = r"""
node_id:
  description: The node id; null in check mode if a new identity would be made.
  returned: success
  type: str
  sample: 8046d53400
public:
  description: The content of C(identity.public); null in check mode if a new identity would be made.
  returned: success
  type: str
made:
  description: A new identity was made, or would be.
  returned: success
  type: bool
valid:
  description: The identity was proved to be one; null without O(verify), and in check mode if a new one would be made.
  returned: success
  type: bool
secret_file:
  description: The file with the secret.
  returned: success
  type: str
  sample: /var/lib/zerotier-one/identity.secret
public_file:
  description: The file with the public half.
  returned: success
  type: str
  sample: /var/lib/zerotier-one/identity.public
failure:
  description: What went wrong, for programs; C(msg) says the same to people.
  returned: failure
  type: dict
  contains:
    kind:
      description: The kind of failure, such as V(Conflict).
      type: str
      returned: always
    text:
      description: The same as C(msg).
      type: str
      returned: always
    message:
      description: What happened.
      type: str
      returned: always
    machine:
      description: Always null.
      type: str
      returned: always
    hint:
      description: What to do next.
      type: str
      returned: always
    code:
      description: Always null.
      type: str
      returned: always
    details:
      description: Always null.
      type: raw
      returned: always
    request_id:
      description: Always null.
      type: str
      returned: always
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError, InvalidRequest
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh import identity, identity_tools
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.mesh.identity_files import Wish, ensure


def runner(module: AnsibleModule) -> identity_tools.Run:
    """The module's own way to run programs, without any change to what goes in and comes out."""

    def run(
        args: list[str], data: str = "", environ: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        status, said, errors = module.run_command(
            args, data=data, binary_data=True, environ_update=environ, expand_user_and_vars=False
        )
        return int(status), str(said), str(errors)

    return run


def vault(module: AnsibleModule, run: identity_tools.Run) -> identity_tools.Vault | None:
    """The vault the secret is kept in, if it is to be encrypted."""
    password_file = module.params["vault_password_file"]
    if not password_file:
        return None
    # In a virtual environment it lies beside the Python that runs this.
    program = module.get_bin_path("ansible-vault", True, [os.path.dirname(sys.executable)])
    return identity_tools.Vault(program, password_file, run)


def given(secret: str | None) -> identity.Identity | None:
    """The identity that is to be put in place."""
    if secret is None:
        return None
    parsed = identity.parse(secret)
    if not parsed.secret:
        raise InvalidRequest(
            "the identity in `secret` has no secret key", hint="Give the content of an identity.secret"
        )
    return parsed


def main() -> None:
    """Make, read or place, and prove."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present"], "default": "present"},
            "secret": {"type": "str", "no_log": True},
            "force": {"type": "bool", "default": False},
            "verify": {"type": "bool", "default": True},
            "vault_password_file": {"type": "path", "no_log": False},
        },
        supports_check_mode=True,
    )
    params, run = module.params, runner(module)
    try:
        wish = Wish(
            Path(params["path"]),
            given(params["secret"]),
            force=params["force"],
            verify=params["verify"],
            vault=vault(module, run),
        )
        idtool = module.get_bin_path("zerotier-idtool")
        outcome = ensure(
            wish,
            lambda: identity_tools.make(idtool, run, os.urandom, module.warn),
            check=module.check_mode,
        )
    except FleetError as error:
        module.fail_json(msg=str(error), failure=error.as_failure())
    module.exit_json(
        changed=outcome.changed,
        node_id=outcome.identity.node_id if outcome.identity else None,
        public=outcome.identity.public if outcome.identity else None,
        made=outcome.made,
        valid=True if outcome.identity and wish.verify else None,
        secret_file=str(wish.secret_file),
        public_file=str(wish.public_file),
        diff={"before": outcome.before, "after": outcome.after},
    )


if __name__ == "__main__":
    main()
