#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: hetzner_image
short_description: A golden image as a snapshot in Hetzner Cloud
description:
  - Brings a disk image into a project of Hetzner Cloud as a snapshot, which a fleet file names as C(golden:NAME@VERSION).
  - Hetzner Cloud takes no uploads. So a server is bought for a while, started into its rescue system, given the image as its disk,
    and a snapshot of it is taken. The server and its SSH key are deleted afterwards, also where something fails.
  - The image is streamed over SSH, written, read back and compared by its SHA-256.
  - No SSH host key is believed blindly. The server is born with a host key made for it. The rescue system shows another one that
    nobody vouches for, so whoever answers there must sign the key it shows with the one on the server's own disk.
  - A run that was cut off can be repeated. It goes on with a disk that was finished, waits for a snapshot that is being made, and
    removes what is of no use. Two runs at once do not mix.
  - A temporary server that an interrupted run has left for another image or version is told in a warning, for it costs.
  - Of what was on the temporary server's disk before, host keys and cloud-init's data are overwritten, and the disk is discarded
    where it can be.
  - Runs on the control machine, which needs the OpenSSH client, the program that unpacks the image (C(zstd), C(xz) or C(gzip)), and
    a way to port 22 of the server.
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer
  - hcloud >= 2.10, < 3
  - pydantic >= 2
  - cryptography
  - OpenSSH client 8.2 or newer
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
    details: An image for which no O(content) is given is read to tell what would be made of it.
  diff_mode:
    support: full
  idempotent:
    support: full
  action_group:
    description: Use C(group/gpumesh.fleet.all) or C(group/gpumesh.fleet.hetzner) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - gpumesh.fleet.all
      - gpumesh.fleet.hetzner
options:
  name:
    description: Name of the golden image, such as V(gpu-box).
    type: str
    required: true
  version:
    description: Its version, such as V(1.2.0).
    type: str
    required: true
  state:
    description:
      - V(present) makes the snapshot where there is none with that name and version.
      - One that is there with another content is an error, for a version never changes its content.
      - V(absent) deletes it, and what an interrupted run has left behind. Servers that were made from it are not touched.
    type: str
    choices: [present, absent]
    default: present
  source:
    description:
      - Path of the raw disk image on the control machine, packed by C(zstd), C(xz) or C(gzip).
      - Needed where there is no such snapshot yet. Only read where it is needed.
    type: path
  content:
    description:
      - A checksum in hexadecimal that stands for the content, such as that of the image file in its manifest.
      - Its first 40 digits are kept in a label, by which a later run sees that it is the same content without reading the image.
      - Without it, the SHA-256 of the unpacked O(source) is used, for which it is read.
    type: str
  os:
    description:
      - What the image holds, such as V(debian-13), kept in a label.
      - A machine with C(mesh_birth) needs it, to be given packages for its release.
    type: str
  labels:
    description:
      - Further labels of the snapshot. Without this option they are left alone.
      - Labels whose keys begin with C(gpumesh-) are the collection's own.
    type: dict
  location:
    description: Where to buy the temporary server. A snapshot can be used in every location.
    type: str
    default: fsn1
  server_type:
    description:
      - Type of the temporary server, with x86 processors. V(cx23) is the cheapest one.
      - Its disk must hold the image, and servers that are made from the snapshot later need a disk at least as large.
    type: str
    default: cx23
  keep_server:
    description: Keep the temporary server, switched off, to look at it. It costs as much as one that runs, until O(state=absent).
    type: bool
    default: false
  wait_timeout:
    description: Seconds to wait for each operation of the cloud and each start of the server.
    type: int
    default: 600
  transfer_timeout:
    description: Seconds to wait for the image to be written, and again for it to be read back.
    type: int
    default: 7200
  token:
    description: API token of the project, with read and write permission. Taken from the environment variable E(HCLOUD_TOKEN) if not given.
    type: str
  endpoint:
    description: Base URL of the API, for a proxy or the sandbox. Taken from the environment variable E(HCLOUD_ENDPOINT) if not given.
    type: str
seealso:
  - module: gpumesh.fleet.gcp_image
  - module: gpumesh.fleet.image_manifest
  - module: gpumesh.fleet.fleet
"""

EXAMPLES = r"""
- name: The golden image, for servers in Hetzner Cloud
  gpumesh.fleet.hetzner_image:
    name: gpu-box
    version: 1.2.0
    os: debian-13
    source: /var/tmp/gpu-box-v1.2.0.raw.zst
    token: "{{ lookup('ansible.builtin.env', 'HCLOUD_TOKEN') }}"
  delegate_to: localhost
  register: published

- name: What it costs
  ansible.builtin.debug:
    msg: "{{ published.costs.snapshot_monthly }} {{ published.costs.currency }} a month for {{ published.costs.snapshot_gb }} GB"

- name: One version less
  gpumesh.fleet.hetzner_image:
    name: gpu-box
    version: 1.0.0
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
image:
  description: The snapshot as it is now; in check mode as it was. None if there is none.
  returned: success
  type: dict
  sample:
    id: "300000001"
    image: golden:gpu-box@1.2.0
    description: golden:gpu-box@1.2.0
    status: available
    os: debian-13
    size_gb: 2.31
    disk_gb: 40
    architecture: x86
    created: "2026-11-27T12:00:00Z"
    labels:
      gpumesh-image: gpu-box
      gpumesh-image-version: 1.2.0
      gpumesh-image-content: 7a3f0c1d2e4b5a69788796a5b4c3d2e1f0a1b2c3
      gpumesh-image-os: debian-13
costs:
  description: What the temporary server has cost, or would, and what the snapshot costs. Net of tax.
  returned: success
  type: dict
  contains:
    currency:
      description: ISO 4217 code.
      type: str
      returned: always
    source:
      description: Where the prices come from, or why they are not known.
      type: str
      returned: always
    server_type:
      description: Type of the temporary server.
      type: str
      returned: always
    server_hourly:
      description: What it costs an hour, with its IPv4 address. None if unknown.
      type: str
      returned: always
    server_hours:
      description: How many hours were begun in this run, each of which is charged in full. 0 where no server was used.
      type: int
      returned: always
    snapshot_gb_month:
      description: What a snapshot costs for each GB and month. None if unknown.
      type: str
      returned: always
    snapshot_gb:
      description: What Hetzner charges the snapshot as. None if there is none.
      type: float
      returned: always
    snapshot_monthly:
      description: What the snapshot costs a month. None if unknown.
      type: str
      returned: always
server:
  description: Name of the temporary server, where it was kept; None otherwise.
  returned: success
  type: str
simulated:
  description: A sandbox has answered, and no real cloud.
  returned: success
  type: bool
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
  contains:
    text:
      description: The failure in one sentence or more, for people.
      type: str
      returned: always
    kind:
      description: The kind of failure, such as V(Conflict) or V(AuthError).
      type: str
      returned: always
    message:
      description: What happened.
      type: str
      returned: always
    machine:
      description: The temporary server, if it happened there.
      type: str
      returned: always
    hint:
      description: What to do next.
      type: str
      returned: always
    code:
      description: The error code of the Hetzner Cloud API.
      type: str
      returned: always
    details:
      description: What was said beyond that.
      type: raw
      returned: always
    request_id:
      description: What Hetzner's support needs to find the request.
      type: str
      returned: always
"""

import pathlib
import re
import tempfile

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

try:
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.images.reference import GoldenReference
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner import open_api
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_image import converge
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.hetzner_image_build import (
        Wish,
    )
except ImportError as problem:
    MISSING: ImportError | None = problem
else:
    MISSING = None


def main() -> None:
    """Compare, and change what differs."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "source": {"type": "path"},
            "content": {"type": "str"},
            "os": {"type": "str"},
            "labels": {"type": "dict"},
            "location": {"type": "str", "default": "fsn1"},
            "server_type": {"type": "str", "default": "cx23"},
            "keep_server": {"type": "bool", "default": False},
            "wait_timeout": {"type": "int", "default": 600},
            "transfer_timeout": {"type": "int", "default": 7200},
            "token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["HCLOUD_TOKEN"])},
            "endpoint": {"type": "str", "fallback": (env_fallback, ["HCLOUD_ENDPOINT"])},
        },
        supports_check_mode=True,
    )
    if MISSING is not None:
        module.fail_json(msg=missing_required_lib(MISSING.name or "pydantic"))
    params = module.params
    if params["content"] and not re.fullmatch(r"[0-9a-f]{40,128}", params["content"]):
        module.fail_json(msg="content is a checksum of 40 hexadecimal digits or more, in small letters.")
    labels = params["labels"]
    clock = SystemClock()
    try:
        wish = Wish(
            reference=GoldenReference.parse(f"golden:{params['name']}@{params['version']}"),
            state=params["state"],
            source=pathlib.Path(params["source"]) if params["source"] else None,
            content=params["content"],
            labels=None if labels is None else {str(key): str(value) for key, value in labels.items()},
            os=params["os"],
            location=params["location"],
            server_type=params["server_type"],
            keep_server=params["keep_server"],
            timeout=params["wait_timeout"],
            transfer_timeout=params["transfer_timeout"],
        )
        api = open_api(params["token"], params["endpoint"], clock)
        with tempfile.TemporaryDirectory(prefix="gpumesh-image-", dir=module.tmpdir) as folder:
            outcome = converge(api, clock, wish, pathlib.Path(folder), check=module.check_mode)
    except ValueError as error:
        module.fail_json(msg=f"{error}.")
    except FleetError as error:
        module.fail_json(msg=str(error), failure=error.as_failure())
    for note in outcome.notes:
        module.warn(note)
    module.exit_json(
        changed=outcome.changed,
        image=outcome.image,
        costs=outcome.costs,
        server=outcome.server,
        simulated=api.simulated,
        diff={"before": outcome.before, "after": outcome.after},
    )


if __name__ == "__main__":
    main()
