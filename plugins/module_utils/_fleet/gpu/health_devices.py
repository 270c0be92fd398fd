# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of each card: memory, errors, link, what slows it down, and whether it is tuned as declared.

Pure. Judges a card by its own thresholds, and a link by what was declared: half the lanes are normal in a cloud and a
fault on a workstation. Only cards that the driver answers for are looked at here.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from . import catalog, smi_text
from .health_words import Check, Expected, answering, bad, good, missing, not_made, plural, title

SLOWED = {
    "hw_thermal": "the hardware has halved its clocks because it is too hot",
    "power_brake": "the power supply has told it to slow down",
    "sw_thermal": "the driver holds its clocks down because it is too hot",
    "hw_slowdown": "the hardware holds its clocks down",
}
# With ECC on, graphics memory (GDDR) keeps one sixteenth for itself.
_ECC_SHARE = 15 / 16
# A catalog entry without a capture has the size on the box; a driver always reports a little less.
_NOMINAL_SHARE = 0.92


def _each(
    gpu: Mapping[str, Any],
    name: str,
    problem: Callable[[Mapping[str, Any]], str | None],
    fine: str,
    to_do: str | Callable[[Mapping[str, Any]], str],
) -> Iterator[Check]:
    """One check of all cards: which of them have the problem, and what to do, which may differ by card.

    ``INDEX`` in what to do is the number of the card in nvidia-smi.
    """
    there = answering(gpu)
    if not there:
        return
    found = [(device, what) for device in there if (what := problem(device))]
    if found:
        steps: dict[str, list[str]] = {}
        for device, _what in found:
            step = to_do if isinstance(to_do, str) else to_do(device)
            steps.setdefault(step, []).append(str(device.get("index", "INDEX")))
        yield bad(
            name,
            "; ".join(f"{title(device)} {what}" for device, what in found),
            "; ".join(step.replace("INDEX", ",".join(indices)) for step, indices in steps.items()),
            [str(device.get("pci_address")) for device, _what in found],
        )
    else:
        yield good(name, f"{plural(len(there), 'GPU')}: {fine}")


def memory_floor(device: Mapping[str, Any]) -> int | None:
    """The least memory in MiB that a driver reports of a card that is whole; None: the catalog does not have the card."""
    card = catalog.by_pci_id(str(device.get("pci_id") or ""))
    model = catalog.model_of(card) if card else None
    if card and card.memory_mib:
        share = _ECC_SHARE if (device.get("ecc") or {}).get("current") else 1
        return round(card.memory_mib * share - 64)
    return round(model.memory_gb * 1024 * _NOMINAL_SHARE) if model else None


def _memory(gpu: Mapping[str, Any], _wanted: Expected) -> Iterator[Check]:
    def problem(device: Mapping[str, Any]) -> str | None:
        memory, least = device.get("memory_mib"), memory_floor(device)
        if memory is None:
            return f"does not tell its memory ({missing(device, 'memory_mib')})"
        return f"has {memory} MiB, should have {least} or more" if least and memory < least else None

    yield from _each(
        gpu,
        "memory",
        problem,
        "all memory is there",
        "switch the machine off and on again; a card that stays so is broken, or is not what it was sold as",
    )


def _width(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    if not wanted.width:
        return

    def problem(device: Mapping[str, Any]) -> str | None:
        least = wanted.width.get(str(device.get("model")), wanted.width.get("", 0))
        now = (device.get("link") or {}).get("width_now")
        if not least:
            return None
        if now is None:
            return f"does not tell the width of its link ({missing(device, 'link.width_now')})"
        return f"is on x{now}, expected is x{least}" if now < least else None

    yield from _each(
        gpu,
        "link_width",
        problem,
        "the links are as wide as expected",
        "reseat the card and its riser, see that the slot has all its lanes (the board's manual says which slots share them), "
        "and that the firmware does not split it",
    )


def _ecc(gpu: Mapping[str, Any], _wanted: Expected) -> Iterator[Check]:
    def errors(device: Mapping[str, Any]) -> str | None:
        count = ((device.get("ecc") or {}).get("volatile") or {}).get("uncorrectable")
        return (
            f"has had {plural(count, 'uncorrectable memory error')} since the driver was loaded"
            if count
            else None
        )

    yield from _each(
        gpu,
        "ecc_errors",
        errors,
        "no uncorrectable memory error",
        "stop what runs on it and reset it (`nvidia-smi -r -i INDEX`) or reboot; if errors come back, have it replaced",
    )

    def rows(device: Mapping[str, Any]) -> str | None:
        remapped, retired = device.get("remapped_rows") or {}, device.get("retired_pages") or {}
        if remapped.get("failure"):
            return "has no spare rows of memory left"
        if remapped.get("pending"):
            return "has a row of memory to replace"
        if retired.get("pending"):
            return "has a page of memory to retire"
        return None

    def mend(device: Mapping[str, Any]) -> str:
        if (device.get("remapped_rows") or {}).get("failure"):
            return "have the card replaced: memory that fails next can no longer be repaired"
        return "reset the card (`nvidia-smi -r -i INDEX`, with nothing running on it) or reboot, which makes the repair"

    yield from _each(
        gpu,
        "memory_repair",
        rows,
        "no memory waits for repair",
        mend,
    )


def slowed(reasons: Collection[str]) -> list[str]:
    """Those of a card's reasons for slower clocks that are a fault, in words. The power limit at work is none."""
    found = [SLOWED[name] for name in SLOWED if name in reasons]
    # The hardware's slowdown is always there beside the reason for it.
    return found if len(found) == 1 else [reason for reason in found if reason != SLOWED["hw_slowdown"]]


def cooling_step(reasons: Collection[str]) -> str:
    """What to do about such reasons."""
    hot = {"hw_thermal", "sw_thermal"} & {*reasons}
    steps = ["see fans, dust and the air around the card"] if hot else []
    if "power_brake" in reasons or not steps:
        steps.append(
            "see the power supply and its cables to the card: whether each plug is home, and the supply strong enough"
        )
    return "; ".join(steps)


def _throttle(gpu: Mapping[str, Any], _wanted: Expected) -> Iterator[Check]:
    def problem(device: Mapping[str, Any]) -> str | None:
        reasons = slowed(device.get("throttle") or [])
        heat = (device.get("temperatures") or {}).get("gpu_c")
        degrees = f" at {heat} degrees" if heat is not None else ""
        return f"is throttled{degrees}: {' and '.join(reasons)}" if reasons else None

    yield from _each(
        gpu,
        "throttle",
        problem,
        "no clock is held down by heat or hardware",
        lambda device: cooling_step(device.get("throttle") or []),
    )


def _heat(gpu: Mapping[str, Any], _wanted: Expected) -> Iterator[Check]:
    def problem(device: Mapping[str, Any]) -> str | None:
        temperatures = device.get("temperatures") or {}
        margin, now = temperatures.get("margin_c"), temperatures.get("gpu_c")
        if margin is None or margin > 0:
            return None
        limit = temperatures.get("max_operating_c") or temperatures.get("slowdown_c")
        return f"is at {now} degrees, its own limit is {limit}"

    yield from _each(
        gpu,
        "temperature",
        problem,
        "none is at its own temperature limit",
        "see fans, dust and the air around the card",
    )


def _persistence(gpu: Mapping[str, Any], _wanted: Expected) -> Iterator[Check]:
    yield from _each(
        gpu,
        "persistence",
        lambda device: (
            None
            if device.get("persistence")
            else "has persistence off"
            if device.get("persistence") is False
            else f"does not tell its persistence ({missing(device, 'persistence')})"
        ),
        "persistence is on",
        "start the daemon: `systemctl enable --now nvidia-persistenced`; without it a card forgets its power limit as soon as nobody uses it",
    )


def recovery_step(action: str) -> str:
    """What to do when the driver asks for an action, in whatever words its branch has for it."""
    words = action.lower()
    if "reboot" in words or "restart" in words:
        return "reboot the machine; if it asks for that again, switch it off and on, since a reboot does not reset the slots"
    reset = "reset the card: `nvidia-smi -r -i INDEX`, or reboot where that is refused"
    if "p2p" in words:
        return f"end the programs that let several GPUs work together, since their links are not whole; then {reset}"
    if "drain" in words:
        return f"give it no new work, let end what runs on it, then {reset}"
    if "reset" in words or "flr" in words:
        return f"end everything that uses the card, then {reset}"
    return "do what the driver asks for; after that it must say None"


def _recovery(gpu: Mapping[str, Any], _wanted: Expected) -> Iterator[Check]:
    def problem(device: Mapping[str, Any]) -> str | None:
        action = device.get("recovery_action")
        return f"needs an action: {action}" if action and str(action).lower() != "none" else None

    yield from _each(
        gpu,
        "recovery",
        problem,
        "the driver asks for no recovery",
        lambda device: recovery_step(str(device.get("recovery_action"))),
    )


_AGAIN = "start the tuning again: `systemctl restart gpumesh-gpu-tuning`, and see `journalctl -u gpumesh-gpu-tuning`"


def _power(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    if "power_limit_w" not in wanted.tuning:
        return

    def problem(device: Mapping[str, Any]) -> str | None:
        watts = wanted.tuned("power_limit_w", device)
        power = device.get("power") or {}
        if watts is None:
            return None
        now = power.get("requested_w") if power.get("requested_w") is not None else power.get("limit_w")
        if now is None:
            return f"does not tell its power limit ({missing(device, 'power.requested_w')})"
        return f"has a power limit of {now:g} W, declared is {watts:g} W" if abs(now - watts) >= 1 else None

    yield from _each(gpu, "power_limit", problem, "power limits are as declared", _AGAIN)


def _compute_mode(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    if "compute_mode" not in wanted.tuning:
        return

    def problem(device: Mapping[str, Any]) -> str | None:
        mode = wanted.tuned("compute_mode", device)
        if mode is None or _plain(device.get("compute_mode")) == _plain(mode):
            return None
        return f"is in compute mode {device.get('compute_mode')}, declared is {mode}"

    yield from _each(gpu, "compute_mode", problem, "compute modes are as declared", _AGAIN)


def _modes(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    """ECC and MIG, which change at a reset."""
    for key, noun in (("ecc", "ECC"), ("mig", "MIG")):
        if key not in wanted.tuning:
            continue

        def problem(device: Mapping[str, Any], key: str = key, noun: str = noun) -> str | None:
            declared = wanted.tuned(key, device)
            if declared is None:
                return None
            switch = _switch(declared)
            found = device.get(key) or {}
            now, later = found.get("current"), found.get("pending")
            # A card that cannot have it is as well without it.
            state = device.get("missing", {}).get(f"{key}.current")
            if now is None and switch is False and state == smi_text.NOT_AVAILABLE:
                return None
            if now is None:
                return f"has no {noun} to switch ({missing(device, f'{key}.current')})"
            if now is not (switch is not False):
                waits = ", and waits for a reset to change that" if later is (switch is not False) else ""
                return f"has {noun} {'on' if now else 'off'}{waits}"
            # Anything but on and off is a layout: a list of the parts.
            parts, there = str(declared).split(","), len(found.get("devices") or [])
            if key == "mig" and switch is None and there != len(parts):
                return f"has {plural(there, 'MIG device')}, declared are {len(parts)} ({declared})"
            return None

        yield from _each(
            gpu,
            f"{key}_mode",
            problem,
            f"{noun} is as declared",
            f"{_AGAIN}; a change of {noun} takes a reset of the card or a reboot",
        )


def _application_clocks(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    """Newer branches no longer tell them (deprecated): then there is nothing to look at, and no check."""
    if "application_clocks" not in wanted.tuning:
        return

    def told(device: Mapping[str, Any]) -> str:
        clocks = device.get("clocks") or {}
        pair = (clocks.get("applications_memory_mhz"), clocks.get("applications_graphics_mhz"))
        return ",".join(map(str, pair)) if None not in pair else ""

    def problem(device: Mapping[str, Any]) -> str | None:
        declared = wanted.tuned("application_clocks", device)
        if declared is None or not told(device) or told(device) == str(declared).replace(" ", ""):
            return None
        return f"has application clocks of {told(device)} MHz, declared is {declared}"

    if any(told(device) for device in answering(gpu)):
        yield from _each(gpu, "application_clocks", problem, "application clocks are as declared", _AGAIN)


def _governor(gpu: Mapping[str, Any], wanted: Expected) -> Iterator[Check]:
    governor = str(wanted.tuning.get("cpu_governor", {}).get("", ""))
    if not governor:
        return
    found = list(gpu.get("cpu_governors") or [])
    if not found:
        yield not_made(
            "cpu_governor",
            "this machine's processors have no governor, as in most virtual machines",
            "leave the governor undeclared for it",
        )
    elif found != [governor]:
        yield bad(
            "cpu_governor",
            f"the processors are under {', '.join(found)}, declared is {governor}",
            "start the tuning again: `systemctl restart gpumesh-gpu-tuning`",
        )
    else:
        yield good("cpu_governor", f"the processors are under {governor}")


def _plain(text: Any) -> str:
    return "".join(sign for sign in str(text or "").lower() if sign.isalnum())


def _switch(value: Any) -> bool | None:
    """on and off as they are written in variables; None for not declared, and for a layout."""
    if isinstance(value, bool):
        return value
    return {"on": True, "enabled": True, "1": True, "off": False, "disabled": False, "0": False}.get(
        str(value if value is not None else "").lower()
    )


DEVICE_CHECKS: tuple[Callable[[Mapping[str, Any], Expected], Iterator[Check]], ...] = (
    _memory,
    _width,
    _ecc,
    _throttle,
    _heat,
    _persistence,
    _recovery,
    _power,
    _compute_mode,
    _modes,
    _application_clocks,
    _governor,
)
