# SPDX-License-Identifier: GPL-3.0-or-later
"""A stack for people: lines of text from the plain data of an answer.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import sources, stack_frameworks

WIDTH = 118
_TITLES = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX", "vllm": "vLLM"}
_KINDS = {"lts": "long-term branch", "production": "production branch", "feature": "feature branch"}
_ABOUT = {
    "power_limit_w": "power limit",
    "secure_boot": "Secure Boot",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "gpus": "GPUs",
    **_TITLES,
}


def lines(answer: Mapping[str, Any]) -> list[str]:
    """An answer as lines of text."""
    if answer["ok"]:
        return [f"{_heading(answer)}.", "", *_stack(answer), *_because(answer)]
    result = [f"{_heading(answer)}: not as it was asked for.", "", "Point by point"]
    for number, one in enumerate(answer["refusals"], 1):
        about = _ABOUT.get(one["about"], one["about"])
        result += _wrapped(f"{about}: {one['says']}", first=f"{number:3}. ", rest="     ")
        if one["nearest"] is not None:
            result += _wrapped(f"Instead: {_instead(one)}", first="     ", rest="     ")
    if answer["accepted"]:
        result += ["", "As it was asked for"]
        for one in answer["accepted"]:
            result += _wrapped(
                f"{_ABOUT.get(one['about'], one['about'])}: {one['says']}", first="  *  ", rest="     "
            )
    if answer["instead"]:
        asked = ", ".join(f"{name}={_value(value)}" for name, value in answer["nearest"].items())
        result += ["", *_wrapped(f"The nearest stack that works ({asked or 'without any wish'})"), ""]
        result += _stack(answer["instead"])
        result += _because(
            {**answer["instead"], "reasons": [*answer["reasons"], *answer["instead"]["reasons"]]}
        )
    else:
        result += _because(answer)
    return result


def _instead(refusal: Mapping[str, Any]) -> str:
    if refusal["nearest"] is False and refusal["about"] in _TITLES:
        return stack_frameworks.instead_of(refusal["about"])
    return _value(refusal["nearest"])


def _heading(answer: Mapping[str, Any]) -> str:
    asked = answer["asked"]
    gpus = (
        ", ".join(f"{one['count']}x {_short(one['full_name'])}" for one in answer["gpus"]) or "no known GPU"
    )
    known = sources.find(asked["distribution"])
    where = known.full_name if known else asked["distribution"]
    kernels = f", kernel {', '.join(asked['kernels'])}" if asked["kernels"] else ""
    secure = ", Secure Boot" if asked["secure_boot"] else ""
    return f"GPU stack for {gpus} on {where}{kernels}{secure}"


def _short(full_name: str) -> str:
    return full_name.removeprefix("NVIDIA ")


def _stack(answer: Mapping[str, Any]) -> list[str]:
    driver, packages = answer["driver"], answer["packages"]
    kind = _KINDS.get(driver["type"], "branch")
    until = (
        f", supported until {driver['end_of_life']}" if driver["end_of_life"] and not driver["ended"] else ""
    )
    ended = ", support has ended" if driver["ended"] else ""
    built = "built on the machine by DKMS" if driver["build"] == sources.DKMS else "prebuilt and signed"
    rows: list[tuple[str, str]] = [
        ("Driver", f"{driver['version']} ({kind} {driver['branch']}{until}{ended})"),
        ("Modules", f"{driver['flavour']}, {built}"),
        ("Source", _repository(driver, answer["repository"])),
    ]
    if packages["pin"]:
        rows.append(("Pin first", " ".join(packages["pin"])))
    rows.append(("Packages", " ".join([*packages["headers"], *packages["driver"]])))
    rows.append(("CUDA", _cuda(answer)))
    rows.append(("cuDNN", " ".join(packages["cudnn"]) or "none on the machine"))
    rows += [(_TITLES[name], _framework(made)) for name, made in answer["frameworks"].items()]
    rows += [("Power limit", f"{name}: {_power(its)}") for name, its in answer["power"].items()]
    return _rows(rows)


def _repository(driver: Mapping[str, Any], repository: Mapping[str, Any]) -> str:
    who = "NVIDIA's repository" if driver["source"] == sources.NVIDIA else "the distribution's archive"
    suite = (
        "" if repository["suite"] == "/" else f" {repository['suite']} {' '.join(repository['components'])}"
    )
    return f"{who}, {repository['url']}{suite}"


def _cuda(answer: Mapping[str, Any]) -> str:
    cuda = answer["cuda"]
    can = (
        f"{cuda['min']} to {cuda['max']} can be used, {cuda['native']} is the driver's own"
        if cuda["min"]
        else ""
    )
    if not cuda["toolkit"]:
        return f"no toolkit on the machine ({can})" if can else "no toolkit on the machine"
    return f"toolkit {cuda['toolkit']}: {' '.join(answer['packages']['cuda'])} ({can})"


def _framework(made: Mapping[str, Any]) -> str:
    if not made["supported"]:
        return f"not supported: {made['says']} Instead: {made['instead']}."
    url = made["wheel_index_url"]
    index = "" if url.startswith("https://pypi.org/") else f" --index-url {url}"
    note = f" ({made['note'].rstrip('.')})" if made["note"] else ""
    return f"pip install '{made['package']}'{index}{note}"


def _power(its: Mapping[str, Any]) -> str:
    low, high = its["min_w"], its["max_w"]
    if low is None and high is None:
        span = "its range is read from the card"
    else:
        span = f"{'?' if low is None else low} to {'?' if high is None else high} W"
    start = f", {its['default_w']} W from the factory" if its["default_w"] else ""
    notes = f" ({' '.join(its['notes']).rstrip('.')})" if its["notes"] else ""
    wished = f"{its['wished_w']} W; " if its["wished_w"] else "as it is; "
    return f"{wished}{span}{start}{notes}"


def _because(answer: Mapping[str, Any]) -> list[str]:
    result: list[str] = []
    for title, key in (("Why", "reasons"), ("Not verified", "unverified")):
        if answer[key]:
            result += ["", title]
            for one in answer[key]:
                result += _wrapped(one, first="  *  ", rest="     ")
    return result


def _rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    widest = max(len(title) for title, _text in rows)
    return [
        line
        for title, text in rows
        for line in _wrapped(text, first=f"  {title.ljust(widest)}  ", rest=" " * (widest + 4))
    ]


def _wrapped(text: str, *, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}:{one}" for name, one in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
