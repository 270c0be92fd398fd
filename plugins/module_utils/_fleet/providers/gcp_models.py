# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet file says about Google Compute Engine: the block under ``providers:`` and the fields of a machine.

Known without network and without Google's libraries.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from ..images.reference import is_golden
from ..spec import CloudMachine, ProviderSettings, WrongField
from . import gcp_shapes

IMAGES: Mapping[str, str] = {
    "debian-12": "projects/debian-cloud/global/images/family/debian-12",
    "debian-13": "projects/debian-cloud/global/images/family/debian-13",
    "ubuntu-24.04": "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts",
}
"""The images we name ourselves, without what their families append for an architecture."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_RUN = 120 * 86400
_LABEL_KEY = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")
_LABEL_VALUE = re.compile(r"^[a-z0-9_-]{0,63}$")
_IMAGE = re.compile(
    r"^(https://(?:www\.googleapis|compute\.googleapis)\.com/compute/v1/)?projects/[a-z0-9:.-]+/global/images/"
    r"(family/)?[a-z][-a-z0-9]*$"
)
_ARM = re.compile(r"^(?:t2a|c4a|n4a|a4x)-")
_OWN_IMAGE = re.compile(r"^(?:family/)?[a-z]([-a-z0-9]*[a-z0-9])?$")


def seconds(duration: str) -> int:
    """A duration such as ``90m`` in seconds.

    Raises:
        ValueError: it is not written as one.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,8}[smhd]", duration):
        raise ValueError(f"'{duration}' is not a duration; write a number with s, m, h or d, as in 90m or 8h")
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def _check_duration(value: str) -> str:
    seconds(value)
    return value


def _check_zone(value: str) -> str:
    if problem := gcp_shapes.check_zone(value):
        raise ValueError(problem)
    return value


Duration = Annotated[str, AfterValidator(_check_duration)]
Zone = Annotated[str, AfterValidator(_check_zone)]
Resource = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")]


class GcpMachine(CloudMachine):
    """An instance of Google Compute Engine."""

    provider: Literal["gcp"] = "gcp"
    zone: Zone = Field(description="Where it is placed, such as us-central1-a.")
    fallback_zones: tuple[Zone, ...] = Field(
        default=(), description="Where else it may be placed, in order, when the zone has none left."
    )
    disk_gb: int = Field(default=20, ge=10, le=65536, description="Size of the boot disk in GB.")
    disk_type: Resource | None = Field(
        default=None,
        description="Type of the boot disk: pd-balanced (the default), pd-ssd, pd-standard, hyperdisk-balanced.",
    )
    spot: bool = Field(
        default=False, description="Use spot capacity: much cheaper, and Google may take it back at any time."
    )
    idle_stop: Duration | None = Field(
        default=None, description="Stop the machine when its GPUs have been idle for so long, such as 2h."
    )
    max_run: Duration | None = Field(
        default=None,
        description="Google itself ends the machine after running so long, such as 8h: 30s to 120d. "
        "It does so even if nobody is there to ask for it.",
    )
    when_ended: Literal["stop", "delete"] = Field(
        default="stop",
        description="What Google does to the machine when max_run is over or spot capacity is taken back.",
    )
    network: Resource = Field(default="default", description="VPC network of the project.")
    subnetwork: Resource | None = Field(
        default=None, description="Subnetwork, in the region of the zone; needed in a network of custom mode."
    )
    service_account: str | None = Field(
        default=None,
        description="E-mail address of a service account the machine acts as, with full scope. None unless set.",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_the_gpu_of_the_type(cls, data: Any) -> Any:
        """A type with GPUs built in says which, so the file need not."""
        if isinstance(data, dict) and data.get("gpu") is None and isinstance(data.get("type"), str):
            has = gcp_shapes.shape(data["type"])
            if has is not None and has.gpu_model is not None:
                return {**data, "gpu": {"model": has.gpu_model, "count": has.gpu_count}}
        return data

    @field_validator("type")
    @classmethod
    def _is_a_machine_type(cls, value: str) -> str:
        if problem := gcp_shapes.check_type(value):
            raise ValueError(problem)
        return value

    @field_validator("image")
    @classmethod
    def _is_an_image(cls, value: str) -> str:
        if value in IMAGES or _IMAGE.match(value) or is_golden(value):
            return value
        if re.match(r"^(debian|ubuntu)[-_ 0-9.]+$", value) or not _OWN_IMAGE.match(value):
            close = difflib.get_close_matches(value, IMAGES, n=1)
            advice = f"did you mean {close[0]}?" if close else f"write {', '.join(IMAGES)},"
            raise ValueError(
                f"{value} is not an image known here; {advice}"
                f"{'' if close else ' golden:NAME@VERSION, the name of an image of your project, or projects/<project>/global/images/<image>'}"
            )
        return value

    @field_validator("labels")
    @classmethod
    def _labels_are_valid(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            if not _LABEL_KEY.match(key):
                raise ValueError(
                    f"the label key '{key}' is not valid: 1 to 63 of a-z 0-9 _ -, a letter first"
                )
            if not _LABEL_VALUE.match(value):
                raise ValueError(f"the value '{value}' of label {key} is not valid: up to 63 of a-z 0-9 _ -")
        return labels

    @field_validator("service_account")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+", value):
            raise ValueError(f"'{value}' is not the e-mail address of a service account")
        return value

    @field_validator("max_run")
    @classmethod
    def _is_within_googles_limits(cls, value: str | None) -> str | None:
        if value is not None and not 30 <= seconds(value) <= _LONGEST_RUN:
            raise ValueError(f"{value} is outside of what Google allows: 30s to 120d")
        return value

    @model_validator(mode="after")
    def _can_exist(self) -> GcpMachine:
        places = self.zones
        for place in dict.fromkeys(places):
            if places.count(place) > 1:
                raise WrongField("fallback_zones", f"{place} is named twice among zone and fallback_zones")
        if self.gpu is not None and (problem := gcp_shapes.check(self.type, self.gpu.model, self.gpu.count)):
            raise WrongField("gpu", problem)
        if gcp_shapes.needs_spot(self.type) and not self.spot:
            raise WrongField(
                "spot",
                f"Google sells {self.type} as spot capacity only: set spot: true, or take a3-highgpu-8g",
            )
        if self.user_data is not None and not self.has_cloud_init:
            raise WrongField(
                "user_data",
                f"Google's image of {self.image} has no cloud-init to run it; take ubuntu-24.04 or an image of your own",
            )
        return self

    @property
    def zones(self) -> tuple[str, ...]:
        """Where it may be placed, in order of preference."""
        return (self.zone, *self.fallback_zones)

    @property
    def has_known_image(self) -> bool:
        """Whether the image is one of those we name or make, and so is known to start with Secure Boot.

        A golden image starts by its distribution's shim, which Microsoft has signed, as the vendors' images do, and is
        published as UEFI_COMPATIBLE. Kernel modules that DKMS has built into it, such as NVIDIA's, are signed by nobody
        the firmware knows, so they would not load; where there is a GPU, Secure Boot is off whatever the image.
        """
        return self.image in IMAGES or self.golden is not None

    @property
    def has_cloud_init(self) -> bool:
        """Whether the image runs user data; one of ours does, and one of the user's own is believed to.

        Google's Debian does not.
        """
        return not self.image.startswith("debian-")

    @property
    def is_arm(self) -> bool:
        """Whether its processor is an Arm."""
        return _ARM.match(self.type) is not None

    @property
    def gpus(self) -> tuple[str | None, int]:
        """Model and number of its GPUs."""
        return (self.gpu.model, self.gpu.count) if self.gpu else (None, 0)

    def source_image(self, project: str) -> str:
        """The image as Compute Engine names it."""
        if self.golden is not None:
            return f"projects/{project}/global/images/{self.golden.gcp_name}"
        if self.image not in IMAGES:
            return (
                self.image if _IMAGE.match(self.image) else f"projects/{project}/global/images/{self.image}"
            )
        if self.image.startswith("ubuntu"):
            return f"{IMAGES[self.image]}-{'arm64' if self.is_arm else 'amd64'}"
        return f"{IMAGES[self.image]}{'-arm64' if self.is_arm else ''}"


class GcpSettings(ProviderSettings):
    """The block ``providers: gcp:``."""

    project: str = Field(
        description="Id of the project, such as my-project-4711; neither its name nor its number."
    )
    credentials_file: str | None = Field(
        default=None,
        description="Key file of a service account, relative to the fleet file. Application default credentials unless set.",
    )

    @field_validator("project")
    @classmethod
    def _is_a_project_id(cls, value: str) -> str:
        if not re.fullmatch(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", value):
            raise ValueError(
                f"'{value}' is not a project id: 6 to 30 of a-z 0-9 -, a letter first; `gcloud projects list` shows them"
            )
        return value
