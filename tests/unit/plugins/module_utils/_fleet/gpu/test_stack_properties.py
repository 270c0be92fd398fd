# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is asked: a resolved stack breaks no rule, a refusal names exactly the rules that are broken, its nearest stack resolves.

The rules are checked by a checker of its own, written from the vendor's tables and not from the engine's data.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack import resolve
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack_answer import plain
from ansible_collections.gpumesh.fleet.plugins.module_utils._fleet.gpu.stack_request import (
    Request,
    read_gpus,
    read_wishes,
)
from hypothesis import given, settings
from hypothesis import strategies as st

TODAY = date(2026, 11, 27)

# capability, modules, first driver, last branch, first and last CUDA, power range; of a model: what all of its cards take.
GPUS: dict[str, tuple[float, str, str, int, str, str, tuple[int | None, int | None]]] = {
    "p4": (6.1, "closed", "0", 580, "8.0", "12.9", (None, None)),
    "p100": (6.0, "closed", "0", 580, "8.0", "12.9", (None, None)),
    "v100": (7.0, "closed", "0", 580, "9.0", "12.9", (None, None)),
    "t4": (7.5, "any", "0", 999, "10.0", "99", (60, 70)),
    "10de:20b0": (8.0, "any", "450", 999, "11.0", "99", (100, 400)),
    "rtx3090": (8.6, "any", "455", 999, "11.1", "99", (100, 375)),
    "l4": (8.9, "any", "525.47.22", 999, "11.8", "99", (None, 72)),
    "l40s": (8.9, "any", "535.43.09", 999, "11.8", "99", (100, 350)),
    "rtx4090": (8.9, "any", "525.47.06", 999, "11.8", "99", (None, None)),
    "2330": (9.0, "any", "525", 999, "11.8", "99", (200, 700)),
    "10de:2335": (9.0, "any", "550.40.65", 999, "11.8", "99", (None, 700)),
    "h200": (9.0, "any", "565.57.01", 999, "11.8", "99", (None, 700)),
    "b200": (10.0, "open", "570.133.20", 999, "12.8", "99", (200, 1000)),
    "rtx5090": (12.0, "open", "570.86.16", 999, "12.8", "99", (400, 600)),
    "2bb5": (12.0, "open", "575.57.08", 999, "12.8", "99", (None, 600)),
    "2bb1": (12.0, "open", "570.123.07", 999, "12.8", "99", (None, 600)),
}
ENDED = {"535", "550", "560", "565", "570", "575", "590", "610"}
OFFERED = {
    ("ubuntu-24.04", "nvidia"): {"550", "570", "575", "580", "590", "595", "610"},
    ("ubuntu-24.04", "distribution"): {"580", "595", "610"},
    ("debian-12", "nvidia"): {"550", "570", "575", "580", "590", "595", "610"},
    ("debian-12", "distribution"): {"535"},
    ("debian-13", "nvidia"): {"590", "595", "610"},
    ("debian-13", "distribution"): {"550"},
}
NEWEST = {
    "535": "535.309.01",
    "550": "550.163.01",
    "580": "580.173.02",
    "595": "595.91.07",
    "610": "610.57.04",
}
DISTRIBUTION_CUDA = {"ubuntu-24.04": "12.0", "debian-12": "11.8", "debian-13": "12.4"}
DELIVERED_KERNEL = {"ubuntu-24.04": (6, 8), "debian-12": (6, 1), "debian-13": (6, 12, 117)}
CUDA = (
    "11.8",
    "12.0",
    "12.1",
    "12.2",
    "12.3",
    "12.4",
    "12.5",
    "12.6",
    "12.8",
    "12.9",
    "13.0",
    "13.1",
    "13.2",
    "13.3",
    "13.4",
)
CUDA_FLOOR = {"11": "450.80.02", "12": "525.60.13", "13": "580.65.06"}
OLD = {5.0, 6.0, 7.0, 7.5, 8.0, 8.6, 9.0}
NEW = {7.5, 8.0, 8.6, 9.0, 10.0, 12.0}
TORCH: dict[str, dict[str, set[float]]] = {
    "2.1": {"cu118": OLD, "cu121": OLD},
    "2.4": {"cu118": OLD, "cu121": OLD, "cu124": OLD},
    "2.6": {"cu118": OLD, "cu124": OLD, "cu126": OLD},
    "2.7": {"cu118": OLD, "cu126": OLD, "cu128": NEW | {7.0}},
    "2.8": {"cu126": OLD, "cu128": NEW | {7.0}, "cu129": NEW},
    "2.10": {"cu126": OLD, "cu128": NEW | {7.0}, "cu130": NEW},
    "2.11": {"cu126": OLD, "cu128": NEW, "cu130": NEW},
    "2.13": {"cu126": OLD, "cu130": NEW, "cu132": NEW},
}


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def runs(capability: float, chips: set[float]) -> bool:
    return any(int(one) == int(capability) and one <= capability for one in chips)


def torch_broken(gpus: list[str], driver: str, wish: str) -> set[str]:
    """The rules about PyTorch that a wish breaks."""
    version, _plus, index = wish.partition("+")
    release = ".".join(version.split(".")[:2])
    if release not in TORCH:
        return {"wheel_exists"}
    rules = set()
    indexes = TORCH[release]
    if index and index not in indexes:
        rules.add("wheel_exists")
    elif index:
        indexes = {index: indexes[index]}
    having = [name for name, chips in indexes.items() if all(runs(GPUS[gpu][0], chips) for gpu in gpus)]
    if not having:
        rules.add("wheel_kernels")
    elif not any(numbers(driver) >= numbers(CUDA_FLOOR[name[2:4]]) for name in having):
        rules.add("wheel_driver")
    return rules


def broken(question: dict[str, Any], wishes: dict[str, Any], driver: dict[str, Any]) -> set[str]:
    """Every rule that a driver breaks for a question, by the tables above."""
    gpus, distribution = question["gpus"], question["distribution"]
    version, branch, flavour, source = (
        driver["version"],
        driver["branch"],
        driver["flavour"],
        driver["source"],
    )
    rules = set()
    dkms = (distribution, source) != ("ubuntu-24.04", "distribution")
    modules = {GPUS[gpu][1] for gpu in gpus}
    if {"open", "closed"} <= modules:
        rules.add("generations")
    elif {"open": "closed", "closed": "open"}[flavour] in modules:
        rules.add("flavour")
    if flavour == "closed" and int(branch) > 615 and "generations" not in rules:
        rules.add("flavour")
    if branch not in OFFERED[distribution, source]:
        rules.add("branch_offered")
    elif source == "distribution" and numbers(version) < numbers(NEWEST[branch]):
        rules.add("driver_offered")
    if branch in ENDED and branch not in wishes.get("eol_allowed", []):
        rules.add("end_of_life")
    for gpu in gpus:
        if numbers(version) < numbers(GPUS[gpu][2]):
            rules.add("driver_floor")
        if int(branch) > GPUS[gpu][3]:
            rules.add("driver_last")
    kernels = [
        (7, 0) if one.startswith("7") else DELIVERED_KERNEL[distribution]
        for one in question["kernels"] or ("",)
    ]
    for kernel in kernels:
        bad = (branch == "590" and kernel >= (7, 0)) or (
            branch == "550" and flavour == "open" and distribution == "debian-13" and kernel >= (6, 12, 107)
        )
        if dkms and bad and not wishes.get("build_allowed"):
            rules.add("kernel_build")
    if dkms and question["secure_boot"] and not wishes.get("mok"):
        rules.add("secure_boot")
    if cuda := wishes.get("cuda"):
        for gpu in gpus:
            if numbers(cuda) < numbers(GPUS[gpu][4]):
                rules.add("cuda_min")
            if numbers(cuda) > numbers(GPUS[gpu][5]):
                rules.add("cuda_max")
        if numbers(version) < numbers(CUDA_FLOOR[cuda[:2]]):
            rules.add("cuda_driver")
        if source == "distribution" and cuda != DISTRIBUTION_CUDA[distribution]:
            rules.add("cuda_source")
    if wishes.get("cudnn"):
        if any(GPUS[gpu][0] < 7.5 for gpu in gpus):
            rules.add("cudnn_chip")
        if source == "distribution":
            if any(numbers(GPUS[gpu][4]) > numbers(DISTRIBUTION_CUDA[distribution]) for gpu in gpus):
                rules.add("cudnn_chip")
        elif cuda and cuda[:2] not in ("12", "13"):
            rules.add("cudnn_cuda")
        else:
            young = all(GPUS[gpu][0] >= 7.5 for gpu in gpus) and numbers(version) >= [580, 65, 6]
            if numbers(version) < numbers(CUDA_FLOOR[cuda[:2] if cuda else "13" if young else "12"]):
                rules.add("cudnn_driver")
    if torch := wishes.get("pytorch"):
        rules |= torch_broken(gpus, version, torch)
    if watts := wishes.get("power_limit_w"):
        for gpu in gpus:
            low, high = GPUS[gpu][6]
            wished = watts if isinstance(watts, int) else watts.get(read_gpus([gpu])[0][0].model.name, 0)
            if wished and ((low and wished < low) or (high and wished > high)):
                rules.add("power_limit")
    return rules


def conforms(wishes: dict[str, Any], driver: dict[str, Any]) -> bool:
    """Whether a driver is what was asked for."""
    wanted = {name: wishes.get(name) for name in ("source", "branch", "flavour")}
    wanted["version"] = wishes.get("driver")
    return all(value in (None, "", "auto", driver[name]) for name, value in wanted.items())


def ask(question: dict[str, Any], wishes: dict[str, Any]) -> dict[str, Any]:
    groups, strangers = read_gpus(question["gpus"])
    return plain(
        resolve(
            Request(
                groups,
                question["distribution"],
                TODAY,
                tuple(question["kernels"]),
                question["secure_boot"],
                read_wishes(wishes),
                strangers,
            )
        )
    )


KERNELS = {
    "ubuntu-24.04": ["6.8.0-90-generic", "7.0.0-1011-gcp"],
    "debian-12": ["6.1.0-50-amd64", "7.0.1-amd64"],
    "debian-13": ["6.12.117+deb13-amd64", "7.2.12+deb13-amd64"],
}


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    distribution = draw(st.sampled_from(sorted(KERNELS)))
    return {
        "gpus": draw(st.lists(st.sampled_from(sorted(GPUS)), min_size=1, max_size=3, unique=True)),
        "distribution": distribution,
        "kernels": draw(st.lists(st.sampled_from(KERNELS[distribution]), max_size=2, unique=True)),
        "secure_boot": draw(st.booleans()),
    }


OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "flavour": st.sampled_from(["open", "closed", "auto"]),
    "source": st.sampled_from(["nvidia", "distribution", "auto"]),
    "eol_allowed": st.lists(st.sampled_from(sorted(ENDED)), max_size=3, unique=True),
    "cuda": st.sampled_from(CUDA),
    "cudnn": st.booleans(),
    "pytorch": st.builds(
        lambda version, index: version + index,
        st.sampled_from([*TORCH, "2.7.1", "1.13"]),
        st.sampled_from(["", "", "+cu118", "+cu124", "+cu128", "+cu130"]),
    ),
    "power_limit_w": st.one_of(st.integers(40, 1200), st.just({"rtx5090": 450}), st.just({"t4": 90})),
    "build_allowed": st.booleans(),
    "mok": st.booleans(),
}
DRIVERS: list[dict[str, str]] = [
    {},
    *({"branch": name} for name in ("535", "550", "570", "580", "590", "595", "610", "620")),
    *(
        {"driver": name}
        for name in ("535.309.01", "550.127.05", "570.86.10", "580.65.06", "580.178.04", "595.91.07")
    ),
]


@st.composite
def wished(draw: st.DrawFn) -> dict[str, Any]:
    keys = draw(st.sets(st.sampled_from(sorted(OPTIONAL)), max_size=5))
    return {name: draw(OPTIONAL[name]) for name in sorted(keys)} | draw(st.sampled_from(DRIVERS))


def power_names_present(question: dict[str, Any], wishes: dict[str, Any]) -> bool:
    watts = wishes.get("power_limit_w")
    return not isinstance(watts, dict) or set(watts) <= {
        group.model.name for group in read_gpus(question["gpus"])[0]
    }


@settings(max_examples=300, deadline=None)
@given(questions(), wished())
def test_what_is_answered_is_so(question: dict[str, Any], wishes: dict[str, Any]) -> None:
    answer = ask(question, wishes)
    if answer["ok"]:
        assert broken(question, wishes, answer["driver"]) == set()
        assert conforms(wishes, answer["driver"])
        assert power_names_present(question, wishes)
        check_pytorch(question, answer)
        return
    named = {one["rule"] for one in answer["refusals"]}
    really = broken(question, wishes, answer["judged"])
    if not power_names_present(question, wishes):
        really |= {"power_limit"}
    assert named == really
    assert conforms(wishes, answer["judged"])


@settings(max_examples=200, deadline=None)
@given(questions(), wished())
def test_the_nearest_of_a_refusal_resolves(question: dict[str, Any], wishes: dict[str, Any]) -> None:
    answer = ask(question, wishes)
    if answer["ok"]:
        return
    if answer["nearest"] is None:
        assert not possible_at_all(question)
        return
    again = ask(question, answer["nearest"])
    assert again["ok"], (answer["nearest"], again["refusals"])
    assert again["driver"] == answer["instead"]["driver"]
    assert broken(question, answer["nearest"], again["driver"]) == set()
    # What was fine is left alone, unless it hung on the driver that was not.
    if wishes.get("power_limit_w") and "power_limit" not in {one["rule"] for one in answer["refusals"]}:
        assert answer["nearest"]["power_limit_w"] == wishes["power_limit_w"]


@settings(max_examples=100, deadline=None)
@given(questions())
def test_without_wishes_there_is_an_answer_wherever_a_supported_driver_works(
    question: dict[str, Any],
) -> None:
    answer = ask(question, {})
    works = any(
        not broken(question, {}, {"source": source, "branch": branch, "version": version, "flavour": flavour})
        for (distribution, source), branches in OFFERED.items()
        if distribution == question["distribution"]
        for branch in branches
        for version in (NEWEST.get(branch, f"{branch}.999.99"),)
        for flavour in ("open", "closed")
    )
    assert answer["ok"] == works


def possible_at_all(question: dict[str, Any]) -> bool:
    """Whether any driver works once every consent is given and nothing is wished."""
    wishes = {"eol_allowed": sorted(ENDED), "mok": True}
    return any(
        not broken(
            question,
            wishes,
            {"source": source, "branch": branch, "version": f"{branch}.999.99", "flavour": flavour},
        )
        for (distribution, source), branches in OFFERED.items()
        if distribution == question["distribution"]
        for branch in branches
        for flavour in ("open", "closed")
    )


def check_pytorch(question: dict[str, Any], answer: dict[str, Any]) -> None:
    """The wheel that is chosen has kernels for every GPU, and runs on the driver."""
    made = answer["frameworks"].get("pytorch")
    if made and made["supported"]:
        release = ".".join(made["version"].split(".")[:2])
        if release in TORCH:
            wish = f"{made['version']}+{made['index']}"
            assert torch_broken(question["gpus"], answer["driver"]["version"], wish) == set()
