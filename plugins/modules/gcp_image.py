#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_image
short_description: One image in Google Compute Engine, from a local archive
description:
  - Makes an image of an archive that holds a raw disk. The archive is uploaded to a bucket of Cloud Storage, an image is made of
    it, and the archive is removed from the bucket again.
  - An image keeps the SHA-256 of its content in the label C(gpumesh-image-sha256). An image of that name with the same content is
    left alone. One with other content is refused, for a version never changes what it is. One without that label was made by
    somebody else and is never touched.
  - The upload goes in pieces and goes on after a broken connection from where it got to. So does the next run, after one that was
    interrupted at any moment. Until then a file C(.<archive>.upload), which only its owner can read, lies beside the archive. Cloud
    Storage forgets an unfinished upload after a week.
  - What arrives is checked by its MD5, by Google when the upload ends and by the module afterwards.
  - The family of an image stands for its newest image that is not deprecated. So O(state=deprecated) of a bad version takes
    everybody who uses the family back to the one before, and O(state=present) takes it into use again.
  - Runs where the APIs of Compute Engine and Cloud Storage can be reached, and where the archive lies, as a rule on the control machine.
notes:
  - 'It needs these permissions. In the project: C(compute.images.create), C(compute.images.setLabels), C(compute.images.get) and
    C(compute.globalOperations.get); C(compute.images.delete) to replace a failed image and for O(state=absent);
    C(compute.images.deprecate) for O(state=deprecated) and back; C(compute.images.update) to change family or description of an
    image. In the bucket: C(storage.objects.create), C(storage.objects.get) and C(storage.objects.delete), which the role
    C(roles/storage.objectUser) on that bucket has.'
  - 'The bucket must exist. An archive that no run comes back for is removed by a lifecycle rule, such as
    C(gcloud storage buckets update gs://my-images --lifecycle-file=...) with the action C(Delete) after C(age) 7.'
  - 'Of the features of a guest three are set unless O(guest_os_features) says otherwise. V(UEFI_COMPATIBLE), because our images have
    an EFI system partition, and without it there are neither shielded instances nor Secure Boot. V(GVNIC), because the kernels of
    Debian 12 and 13 and Ubuntu 24.04 have its driver, and newer machine types take no other network card.
    V(VIRTIO_SCSI_MULTIQUEUE), because every Linux since 3.17 can do it, and fast disks want it. The V(SEV_CAPABLE) kind is not set:
    it promises that the image starts as a confidential VM, which nobody has proved; set it where you have.'
author: [gpumesh.fleet contributors (@gpumesh)]
requirements:
  - Python 3.11 or newer
  - google-auth >= 2.23
  - requests >= 2.31
  - pydantic >= 2
extends_documentation_fragment:
  - gpumesh.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  action_group:
    description: Use C(group/gpumesh.fleet.all) or C(group/gpumesh.fleet.gcp) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - gpumesh.fleet.all
      - gpumesh.fleet.gcp
options:
  name:
    description:
      - Name of the image.
      - A golden image as V(golden:gpu-box@1.2.0) is called V(gpu-box-v1-2-0), its family is V(gpu-box) unless O(family) says
        otherwise, and its labels C(gpumesh-image) and C(gpumesh-image-version) say what it is. A fleet file names it the same way.
    type: str
    required: true
  state:
    description:
      - V(present) makes the image where it does not exist, and takes one that is deprecated into use again.
      - V(deprecated) leaves it to whoever names it, but takes it out of its family.
      - V(absent) deletes it. Disks made from it do not need it.
    type: str
    choices: [present, absent, deprecated]
    default: present
  source:
    description:
      - The archive, C(.tar.gz) with one file C(disk.raw), whose size is a multiple of 1 GiB.
      - Needed to make the image. Not read where O(content) is given and the image exists.
    type: path
  content:
    description:
      - SHA-256 that stands for the content, in hexadecimal. That of the archive if not given.
      - Give that of the golden image's own file, so that no archive need be made to find out that there is nothing to do.
    type: str
  bucket:
    description:
      - Bucket for the archive, without C(gs://). Needed to make the image.
      - Given with an image that exists, an archive left there by an interrupted run is removed.
    type: str
  object:
    description: Name of the archive in the bucket. Made of name and content if not given, so that no two uploads get into each other's way.
    type: str
  keep_object:
    description: Leave the archive in the bucket when the image is made.
    type: bool
    default: false
  family:
    description: Family of the image. Without this option it is left alone.
    type: str
  description:
    description: Text about the image. Without this option it is left alone.
    type: str
  labels:
    description:
      - All labels of the image. Without this option they are left alone.
      - Labels whose keys begin with C(gpumesh-) are only ever added or changed. Values are up to 63 of C(a-z 0-9 _ -).
    type: dict
  guest_os_features:
    description: What the system in the image can do. V(GVNIC), V(UEFI_COMPATIBLE) and V(VIRTIO_SCSI_MULTIQUEUE) if not given. Only for a new image.
    type: list
    elements: str
    choices:
      - BARE_METAL_LINUX_COMPATIBLE
      - GVNIC
      - IDPF
      - MULTI_IP_SUBNET
      - SEV_CAPABLE
      - SEV_LIVE_MIGRATABLE_V2
      - SEV_SNP_CAPABLE
      - TDX_CAPABLE
      - UEFI_COMPATIBLE
      - VIRTIO_SCSI_MULTIQUEUE
  architecture:
    description: Of the system in the image.
    type: str
    choices: [X86_64, ARM64]
    default: X86_64
  storage_locations:
    description: Where Google keeps a new image, one region or multi-region such as V(eu). Chosen by Google if not given.
    type: list
    elements: str
    default: []
  replacement:
    description: The image to use instead of a deprecated one, by its name or as V(golden:gpu-box@1.1.0).
    type: str
  wait_timeout:
    description: Seconds to wait for each operation. An upload is given up after 300 seconds without any progress.
    type: int
    default: 1800
  project:
    description: Id of the project. Taken from the environment variable E(GCP_PROJECT) or E(GOOGLE_CLOUD_PROJECT) if not given.
    type: str
  credentials_file:
    description:
      - Key file of a service account. Taken from the environment variable E(GOOGLE_APPLICATION_CREDENTIALS) if not given.
      - Otherwise the application default credentials are used, as C(gcloud auth application-default login) leaves them.
    type: path
  endpoint:
    description: Base URL of Compute Engine's API, for a proxy or the sandbox. Taken from the environment variable E(GCP_ENDPOINT) if not given.
    type: str
  storage_endpoint:
    description:
      - Base URL of Cloud Storage, V(https://storage.googleapis.com) if not given, for a proxy or the sandbox. Taken from the
        environment variable E(GCP_STORAGE_ENDPOINT) if not given.
    type: str
seealso:
  - module: gpumesh.fleet.gcp_instance
  - module: gpumesh.fleet.hetzner_image
  - module: gpumesh.fleet.image_manifest
"""

EXAMPLES = r"""
- name: Publish version 1.2.0
  gpumesh.fleet.gcp_image:
    project: my-project
    name: golden:gpu-box@1.2.0
    source: /srv/images/gpu-box-v1.2.0.tar.gz
    content: "{{ manifest.file.sha256 }}"
    bucket: my-images
    description: Debian 13 with driver 595, built on 2026-11-20
    labels: {gpumesh-image-os: debian-13}
  delegate_to: localhost

- name: Would there be anything to do? No archive is needed to find out
  gpumesh.fleet.gcp_image:
    project: my-project
    name: golden:gpu-box@1.2.0
    content: "{{ manifest.file.sha256 }}"
    bucket: my-images
  check_mode: true
  delegate_to: localhost
  register: plan

- name: Take everybody who uses the family back to 1.1.0
  gpumesh.fleet.gcp_image:
    project: my-project
    name: golden:gpu-box@1.2.0
    state: deprecated
    replacement: golden:gpu-box@1.1.0
  delegate_to: localhost

- name: No more of it
  gpumesh.fleet.gcp_image:
    project: my-project
    name: golden:gpu-box@1.0.0
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
image:
  description: The image as it is now; in check mode as it was. None if there is none.
  returned: success
  type: dict
  sample:
    name: gpu-box-v1-2-0
    id: "4711"
    self_link: https://www.googleapis.com/compute/v1/projects/my-project/global/images/gpu-box-v1-2-0
    status: READY
    family: gpu-box
    description: Debian 13 with driver 595, built on 2026-11-20
    labels: {gpumesh-image: gpu-box, gpumesh-image-version: 1-2-0, gpumesh-image-sha256: 3b0c...}
    sha256: 3b0c...
    architecture: X86_64
    guest_os_features: [GVNIC, UEFI_COMPATIBLE, VIRTIO_SCSI_MULTIQUEUE]
    disk_gb: 4
    archive_bytes: 734003200
    storage_locations: [us]
    created: "2026-11-20T04:05:06.789-08:00"
    deprecated: false
    replacement: null
uploaded_bytes:
  description: Size of the archive that this run brought to the bucket; 0 where that was not needed.
  returned: success
  type: int
  sample: 734003200
simulated:
  description: Whether a sandbox has answered, and no real cloud.
  returned: success
  type: bool
  sample: false
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
      description: The kind of failure, such as V(Conflict) or V(Forbidden).
      type: str
      returned: always
    message:
      description: What happened.
      type: str
      returned: always
    machine:
      description: Of no use here.
      type: str
      returned: always
    hint:
      description: What to do next.
      type: str
      returned: always
    code:
      description: The error code of Compute Engine or Cloud Storage.
      type: str
      returned: always
    details:
      description: What they said beyond that.
      type: raw
      returned: always
    request_id:
      description: What Google's support needs to find the request.
      type: str
      returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

try:
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.clock import SystemClock
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.errors import FleetError
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_image import Wish
    from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.providers.gcp_image_work import (
        connect,
        converge,
    )
except ImportError as problem:
    MISSING: ImportError | None = problem
else:
    MISSING = None

FEATURES = [
    "BARE_METAL_LINUX_COMPATIBLE",
    "GVNIC",
    "IDPF",
    "MULTI_IP_SUBNET",
    "SEV_CAPABLE",
    "SEV_LIVE_MIGRATABLE_V2",
    "SEV_SNP_CAPABLE",
    "TDX_CAPABLE",
    "UEFI_COMPATIBLE",
    "VIRTIO_SCSI_MULTIQUEUE",
]
SETTINGS = {
    "project": {"type": "str", "fallback": (env_fallback, ["GCP_PROJECT", "GOOGLE_CLOUD_PROJECT"])},
    "credentials_file": {"type": "path", "fallback": (env_fallback, ["GOOGLE_APPLICATION_CREDENTIALS"])},
    "endpoint": {"type": "str", "fallback": (env_fallback, ["GCP_ENDPOINT"])},
    "storage_endpoint": {"type": "str", "fallback": (env_fallback, ["GCP_STORAGE_ENDPOINT"])},
}


def main() -> None:
    """Compare, and change what differs."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent", "deprecated"], "default": "present"},
            "source": {"type": "path"},
            "content": {"type": "str"},
            "bucket": {"type": "str"},
            "object": {"type": "str"},
            "keep_object": {"type": "bool", "default": False},
            "family": {"type": "str"},
            "description": {"type": "str"},
            "labels": {"type": "dict"},
            "guest_os_features": {"type": "list", "elements": "str", "choices": FEATURES},
            "architecture": {"type": "str", "choices": ["X86_64", "ARM64"], "default": "X86_64"},
            "storage_locations": {"type": "list", "elements": "str", "default": []},
            "replacement": {"type": "str"},
            "wait_timeout": {"type": "int", "default": 1800},
            **SETTINGS,
        },
        supports_check_mode=True,
    )
    if MISSING is not None:
        module.fail_json(msg=missing_required_lib(MISSING.name or "pydantic"))
    params = module.params
    labels, features = params["labels"], params["guest_os_features"]
    wish = Wish(
        name=params["name"],
        state=params["state"],
        source=Path(params["source"]) if params["source"] else None,
        content=params["content"],
        bucket=params["bucket"],
        object=params["object"],
        family=params["family"],
        description=params["description"],
        labels=None if labels is None else {str(key): str(value) for key, value in labels.items()},
        features=None if features is None else tuple(features),
        architecture=params["architecture"],
        storage_locations=tuple(params["storage_locations"]),
        keep_object=params["keep_object"],
        replacement=params["replacement"],
        timeout=params["wait_timeout"],
    )
    clock = SystemClock()
    try:
        api, storage = connect({key: params[key] for key in SETTINGS}, clock)
        outcome = converge(api, storage, wish, clock, check=module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error), failure=error.as_failure())
    for note in outcome.notes:
        module.warn(note)
    module.exit_json(
        changed=outcome.changed,
        image=outcome.image,
        uploaded_bytes=outcome.uploaded,
        simulated=api.simulated,
        diff={"before": outcome.before, "after": outcome.after},
    )


if __name__ == "__main__":
    main()
