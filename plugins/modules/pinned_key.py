#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pinned_key
short_description: Fetch the key of a package repository, and refuse any other than the pinned one
description:
  - Fetches a file of OpenPGP keys, asks C(gpg) for the fingerprints of the keys in it, and fails unless they are exactly
    those that are pinned. One key more is refused as well, because whoever trusts the file would trust that, too.
  - A file that C(gpg) does not read to its end without a complaint is refused, and one with a secret key in it, too.
  - Returns the keys for the task that puts them in their place, as C(gpg) writes them and not as the server sent them, so that
    nothing is in them that C(gpg) has passed over. Writes nothing on the machine.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - gpg on the machine
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - Nothing is ever changed, so the key is fetched and checked as always.
      - Where there is no C(gpg) yet, the key is fetched and the task then counts as skipped.
  diff_mode:
    support: none
    details: Nothing is ever changed.
  idempotent:
    support: full
options:
  url:
    description: Where the key file is, ASCII-armoured, of at most 1 MiB. C(https), C(http), C(ftp) or C(file).
    type: str
    required: true
  fingerprints:
    description: Fingerprints of the primary keys that the file has to hold. Spaces in them, and small letters, are of no account.
    type: list
    elements: str
    required: true
  variable:
    description: Name of the variable that pins them, for the message to whoever may have to change it.
    type: str
    required: true
  timeout:
    description: Seconds to wait for an answer of the server, and as many again for the whole file.
    type: float
    default: 30
"""

EXAMPLES = r"""
- name: Fetch the key of Docker's repository
  gpumesh.fleet.pinned_key:
    url: https://download.docker.com/linux/debian/gpg
    fingerprints: [9DC8 5822 9FC7 DD38 854A E2D8 8D81 803C 0EBF CD88]
    variable: docker_vendor_key_fingerprint
  register: fetched

- name: Trust it
  gpumesh.fleet.host_files:
    files:
      - path: /etc/apt/keyrings/docker.asc
        content: "{{ fetched.content }}"
"""

RETURN = r"""
content:
  description: The pinned keys, ASCII-armoured by C(gpg); the same text for the same keys.
  returned: when it holds the pinned keys and no other
  type: str
  sample: "-----BEGIN PGP PUBLIC KEY BLOCK-----\n..."
"""

import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url
from ansible_collections.gpumesh.fleet.plugins.module_utils._host import pinned_key


def fetched(module: AnsibleModule) -> bytes:
    """What is at the address."""
    url, seconds = module.params["url"], module.params["timeout"]
    response, info = fetch_url(module, url, timeout=seconds, force=True, decompress=False)
    # What comes from a file has no status.
    if response is None or info["status"] not in (200, None):
        raise pinned_key.KeyRefused(f"{url} could not be fetched, so nothing was added: {info['msg']}.")
    length = info.get("content-length", "")
    with response:
        # Unlike read, this does not wait until it has as many bytes as asked for.
        return pinned_key.whole(response.read1, url, seconds, int(length) if length.isdigit() else None)


def main() -> None:
    """Fetch, and compare."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "fingerprints": {"type": "list", "elements": "str", "required": True},
            "variable": {"type": "str", "required": True},
            "timeout": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        key = fetched(module)
        if module.check_mode and shutil.which("gpg") is None:
            module.exit_json(
                changed=False,
                skipped=True,
                msg="There is no gpg on this machine yet, so the key was not checked; a run would install it.",
            )
        content = pinned_key.accepted(key, params["fingerprints"], params["url"], params["variable"])
    except pinned_key.KeyRefused as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=False, content=content)


if __name__ == "__main__":
    main()
