# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet file says about Hetzner Cloud: the block under ``providers:`` and the fields of a machine.

Known without network and without the hcloud library.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from ..spec import CloudMachine, Gpu, ProviderSettings

LOCATIONS = {
    "fsn1": "Falkenstein",
    "nbg1": "Nuremberg",
    "hel1": "Helsinki",
    "ash": "Ashburn",
    "hil": "Hillsboro",
    "sin": "Singapore",
}
"""The locations known when this was written, for suggestions only: a new one is accepted."""

_PLACES = {city.lower(): name for name, city in LOCATIONS.items()} | {"nürnberg": "nbg1", "nuernberg": "nbg1"}
_FOREIGN_TYPE = re.compile(r"^(?:[acghmnz]\d|[cnt]\d[ad]|e2|f1|g1)-")
_LABEL_PART = r"[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"^(?:[a-z0-9](?:[-.a-z0-9]{{0,251}}[a-z0-9])?/)?{_LABEL_PART}$")
_LABEL_VALUE = re.compile(rf"^(?:{_LABEL_PART})?$")


def _check_location(value: str) -> str:
    if value in LOCATIONS:
        return value
    plain = value.strip().lower()
    if re.fullmatch(r"[a-z]+\d*-dc\d+", plain):
        near = plain.partition("-")[0]
        raise ValueError(
            f"{value!r} is a data centre, which Hetzner no longer knows; give its location, {near}"
        )
    if plain.startswith(("eu-", "us-", "ap-")):
        raise ValueError(f"{value!r} is no location of Hetzner Cloud; those known are {', '.join(LOCATIONS)}")
    if plain in LOCATIONS or plain in _PLACES:
        raise ValueError(
            f"{value!r} is no location of Hetzner Cloud; did you mean {_PLACES.get(plain, plain)}?"
        )
    word = plain.rstrip("0123456789")
    if plain != word and any(word == known.rstrip("0123456789") for known in LOCATIONS):
        return value  # A second site at a known place is news, not a typing error.
    near_ones = difflib.get_close_matches(plain, LOCATIONS, n=1, cutoff=0.65)
    if near_ones:
        raise ValueError(f"{value!r} is no location of Hetzner Cloud; did you mean {near_ones[0]}?")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", value):
        raise ValueError(f"{value!r} is no location of Hetzner Cloud; those known are {', '.join(LOCATIONS)}")
    return value


def check_labels(labels: dict[str, str]) -> dict[str, str]:
    """The labels, if Hetzner Cloud takes them.

    Raises:
        ValueError: it does not, in a sentence.
    """
    for key, value in labels.items():
        if not _LABEL_KEY.match(key):
            raise ValueError(
                f"the label key {key!r} is not valid: 1 to 63 of A-Z a-z 0-9 - _ ., a letter or digit at both ends"
            )
        if key.partition("/")[0].endswith("hetzner.cloud") and "/" in key:
            raise ValueError(f"the label key {key!r} is reserved by Hetzner")
        if not _LABEL_VALUE.match(value):
            raise ValueError(
                f"the value {value!r} of label {key} is not valid: up to 63 of A-Z a-z 0-9 - _ ., a letter or digit at both ends"
            )
    return labels


Location = Annotated[str, AfterValidator(_check_location)]


class HetznerMachine(CloudMachine):
    """A server in Hetzner Cloud."""

    provider: Literal["hetzner"] = "hetzner"
    location: Location = Field(description="Where it is placed: fsn1, nbg1, hel1, ash, hil, sin.")
    fallback_locations: tuple[Location, ...] = Field(
        default=(), description="Where else it may be placed, in order, when the location has none left."
    )

    @property
    def zone(self) -> str:
        return self.location

    @field_validator("gpu")
    @classmethod
    def _has_no_gpu(cls, gpu: Gpu | None) -> None:
        if gpu is not None:
            raise ValueError(
                f"Hetzner Cloud has no GPUs; for {gpu.count} x {gpu.model} use provider: gcp, or baremetal for a machine you have"
            )

    @field_validator("type")
    @classmethod
    def _is_a_server_type(cls, name: str) -> str:
        if _FOREIGN_TYPE.match(name):
            raise ValueError(
                f"{name} is a machine type of Compute Engine; Hetzner's are named like cx23 or ccx13"
            )
        return name

    @field_validator("labels")
    @classmethod
    def _labels_are_valid(cls, labels: dict[str, str]) -> dict[str, str]:
        return check_labels(labels)

    @model_validator(mode="after")
    def _places_differ(self) -> HetznerMachine:
        places = (self.location, *self.fallback_locations)
        for place in dict.fromkeys(places):
            if places.count(place) > 1:
                raise ValueError(f"{place} is named twice among location and fallback_locations")
        return self


class HetznerSettings(ProviderSettings):
    """The block ``providers: hetzner:``."""

    token: SecretStr | None = Field(
        default=None, description="API token of the Hetzner Cloud project, with read and write permission."
    )
