# SPDX-License-Identifier: GPL-3.0-or-later
"""``nvidia-smi -q -x`` of any driver branch since 470 as data.

Pure. What ``nvidia-smi`` prints is not trusted: it may be cut short by a driver that hangs, or come from somebody else.
Entities are refused before any is expanded, and size, depth and number of elements are bounded, so everything ends in a
result or in `SmiError`.

A value that is not there has a reason, and the reasons differ: ``absent`` (this branch has no such element),
``not_available`` (the card has no such thing), ``deprecated`` (the branch no longer tells), ``lost`` (the card is gone)
and ``unknown`` (anything else that is no value).

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ..errors import FleetError
from . import smi_paths as paths
from . import smi_text

MOST_BYTES = 16 * 1024 * 1024
"""Sixteen cards with every clock that they support are 1 MB."""
MOST_DEPTH = 24
MOST_ELEMENTS = 400_000
MOST_GPUS = 256
MOST_PROCESSES = 4096

_ROOT = "nvidia_smi_log"
_VERSION = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5}){1,3}")
_ADDRESS = re.compile(r"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})\.([0-7])")
_LOST = re.compile(
    r"(?:unable to determine the device handle for gpu)\s*[0-9]*:?\s*([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]):\s*(.*)",
    re.IGNORECASE,
)


class SmiError(FleetError):
    """What nvidia-smi printed cannot be used."""


@dataclass(frozen=True, slots=True)
class SmiLog:
    """What nvidia-smi said.

    Attributes:
        driver: version of the kernel module, None where it did not say.
        cuda: the newest CUDA that the driver can run.
        attached: how many GPUs it says there are, which may be more than it lists.
        simulated: it is the stand-in of a simulated machine.
        gpus: one dict a GPU, in nvidia-smi's order; the keys are those of the module gpu_info.
        notes: lines that it printed around the XML.
    """

    driver: str | None
    cuda: str | None
    attached: int | None
    simulated: bool
    gpus: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()


def address(text: str) -> str | None:
    """A PCI address as in sysfs (``0000:01:00.0``); nvidia-smi writes the domain with eight digits."""
    found = _ADDRESS.fullmatch(text.strip())
    if not found:
        return None
    domain, bus, slot, function = found.groups()
    return f"{int(domain, 16):04x}:{bus}:{slot}.{function}".lower()


def lost(text: str) -> dict[str, str]:
    """The GPUs that nvidia-smi says it cannot reach, by address, with what it says of each."""
    found: dict[str, str] = {}
    for line in text[:MOST_BYTES].splitlines():
        match = _LOST.search(line[:1000])
        where = address(match[1]) if match else None
        if match and where:
            found[where] = smi_text.clean(match[2])
    return found


def parse(printed: str | bytes) -> SmiLog:
    """What nvidia-smi printed as data.

    Raises:
        SmiError: it is no XML, cut short, too big, has a declaration that no nvidia-smi writes, or is of something else.
    """
    if len(printed) > MOST_BYTES:
        raise SmiError(
            f"nvidia-smi printed {len(printed)} bytes, more than {MOST_BYTES}",
            hint="Run `nvidia-smi -q -x | head -c 2000` on the machine to see what answers there",
        )
    text = printed.decode("utf-8", "replace") if isinstance(printed, bytes) else printed
    body, notes = _cut_out(text)
    root = _tree(body)
    if root.tag != _ROOT:
        raise SmiError(
            f"nvidia-smi printed XML of <{smi_text.clean(root.tag)}>, not of <{_ROOT}>",
            hint="See what `command -v nvidia-smi` finds on the machine",
        )
    elements = root.findall("gpu")
    if len(elements) > MOST_GPUS:
        raise SmiError(f"nvidia-smi lists {len(elements)} GPUs, more than any machine has")
    gpus = tuple(_gpu(element, index) for index, element in enumerate(elements))
    twice = {gpu["pci_address"] for gpu in gpus}
    if len(twice) != len(gpus):
        raise SmiError(
            "nvidia-smi lists a GPU twice", hint="Run it again; if it stays so, reboot the machine"
        )
    attached, _why = _read(root, ("attached_gpus",), "count")
    return SmiLog(
        driver=_version(root, paths.DRIVER_VERSION),
        cuda=_version(root, paths.CUDA_VERSION),
        attached=attached if isinstance(attached, int) else None,
        simulated=root.find("simulated") is not None,
        gpus=gpus,
        notes=notes,
    )


def _cut_out(text: str) -> tuple[str, tuple[str, ...]]:
    """The XML, and the lines around it: nvidia-smi warns of a corrupted InfoROM on the same stream."""
    starts = [at for at in (text.find("<?xml"), text.find("<!DOCTYPE"), text.find(f"<{_ROOT}")) if at >= 0]
    if not starts:
        # It may be XML of something else, which the parser tells better.
        if text.lstrip().startswith("<"):
            return text, ()
        said = smi_text.clean(text)
        raise SmiError(
            f"nvidia-smi printed no XML but: {said}" if said else "nvidia-smi printed nothing",
            hint="Run `nvidia-smi` on the machine; it says what is wrong with the driver",
        )
    start = min(starts)
    closing = f"</{_ROOT}>"
    end = text.rfind(closing)
    end = len(text) if end < 0 else end + len(closing)
    around = (text[:start] + "\n" + text[end:]).splitlines()
    return text[start:end], tuple(line for line in map(smi_text.clean, around) if line)[:20]


def _tree(text: str) -> Element:
    """The elements. Declares no entity, reads no file, and stops at a size no real answer has."""
    builder = TreeBuilder()
    parser = expat.ParserCreate(encoding="utf-8")
    parser.buffer_text = True
    depth = count = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth += 1
        count += 1
        if depth > MOST_DEPTH or count > MOST_ELEMENTS:
            raise SmiError(
                f"nvidia-smi printed XML that is deeper than {MOST_DEPTH} or has more than {MOST_ELEMENTS} elements"
            )
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: Any) -> int:
        raise SmiError(
            "nvidia-smi printed XML that declares or uses entities, which it never does",
            hint="See what `command -v nvidia-smi` finds on the machine",
        )

    def doctype(_name: str, _system: str | None, _public: str | None, internal_subset: int) -> None:
        if internal_subset:
            refuse()

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = refuse
    parser.UnparsedEntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.SkippedEntityHandler = refuse
    try:
        # Half a character that somebody cut in two must not raise anything else.
        parser.Parse(text.encode("utf-8", "replace"), True)
        root: Element = builder.close()
    except expat.ExpatError as problem:
        raise SmiError(
            f"nvidia-smi printed XML that is cut short or broken: {expat.ErrorString(problem.code)} in line {problem.lineno}",
            hint="Run it again; a driver that hangs prints half an answer, which `dmesg | grep -i nvrm` explains",
        ) from problem
    return root


def _place(element: Element, path: str) -> Element | str | None:
    """The element at a path, or the text of a parent that is a leaf (``remapped_rows`` may be just ``N/A``)."""
    for tag in path.split("/"):
        below = element.find(tag)
        if below is None:
            leaf = len(element) == 0 and (element.text or "").strip()
            return leaf or None
        element = below
    return element


def _read(element: Element, places: tuple[str, ...], kind: str) -> tuple[smi_text.Value | None, str | None]:
    """The first value at these paths, else the state of the first that is there."""
    first: str | None = None
    for path in places:
        found = _place(element, path)
        if found is None:
            continue
        if isinstance(found, str):
            # A value where we expect a group is nothing we can read.
            why: str | None = smi_text.state(found) or smi_text.UNKNOWN
        elif len(found):
            why = smi_text.UNKNOWN
        else:
            value, why = smi_text.read(found.text or "", kind)
            if value is not None:
                return value, None
        first = first or why
    return None, first or smi_text.ABSENT


def _version(root: Element, names: tuple[str, ...]) -> str | None:
    for name in names:
        value, _why = _read(root, (name,), "text")
        if isinstance(value, str) and _VERSION.fullmatch(value):
            return value
    return None


class _Sheet:
    """A nested dict that is filled by dotted keys, and beside it why what is null is so."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    def put(self, key: str, value: Any, why: str | None = None) -> None:
        *above, last = key.split(".")
        at = self.data
        for name in above:
            at = at.setdefault(name, {})
        at[last] = value
        if value is None:
            self.missing[key] = why or smi_text.UNKNOWN


def _gpu(element: Element, index: int) -> dict[str, Any]:
    where = None
    for text in (element.findtext(paths.PCI_ADDRESS), element.get("id")):
        where = where or address(text or "")
    if where is None:
        raise SmiError(
            f"nvidia-smi gives no PCI address for the GPU with index {index}",
            hint="Run it again; if it stays so, reboot the machine",
        )
    sheet = _Sheet()
    sheet.put("pci_address", where)
    sheet.put("index", index)
    for key, path, kept in (("pci_id", paths.PCI_ID, 1), ("subsystem_id", paths.PCI_SUBSYSTEM, 2)):
        found = re.fullmatch(r"([0-9A-Fa-f]{4})([0-9A-Fa-f]{4})", (element.findtext(path) or "").strip())
        device = found[1].lower() if found else None
        sheet.put(key, f"{found[2].lower()}:{device}" if found and kept == 2 else device)
    for field in paths.FIELDS:
        value, why = _read(element, field.paths, field.kind)
        sheet.put(field.key, value, why)
    _temperatures(element, sheet)
    _ecc(sheet)
    _throttle(element, sheet)
    sheet.data["mig"]["devices"] = _mig_devices(element)
    sheet.data["processes"] = _processes(element)
    gone = smi_text.LOST in sheet.missing.values()
    return {**sheet.data, "state": "lost" if gone else "ok", "missing": sheet.missing}


def _temperatures(element: Element, sheet: _Sheet) -> None:
    """Thresholds and margin in degrees, whichever way the driver gives them."""
    gpu_c = sheet.data["temperatures"]["gpu_c"]
    margin, why = _read(element, paths.TEMPERATURE_MARGIN.paths, paths.TEMPERATURE_MARGIN.kind)
    if isinstance(margin, int):
        relative = {
            field.key: _read(element, field.paths, field.kind) for field in paths.RELATIVE_TEMPERATURES
        }
        for key, (threshold, reason) in relative.items():
            known = isinstance(threshold, int) and isinstance(gpu_c, int)
            sheet.put(
                f"temperatures.{key}_c",
                gpu_c + margin - threshold if known else None,
                reason or sheet.missing.get("temperatures.gpu_c"),
            )
        limit = relative["max_operating"][0]
        sheet.put("temperatures.margin_c", margin - (limit if isinstance(limit, int) else 0))
        sheet.put("temperatures.scale", "relative")
        return
    for field in paths.ABSOLUTE_TEMPERATURES:
        value, reason = _read(element, field.paths, field.kind)
        sheet.put(field.key, value, reason)
    found = sheet.data["temperatures"]
    highest = found["max_operating_c"] if found["max_operating_c"] is not None else found["slowdown_c"]
    known = highest is not None and gpu_c is not None
    sheet.put("temperatures.margin_c", highest - gpu_c if known else None, why)
    sheet.put("temperatures.scale", "absolute" if highest is not None else None, smi_text.NOT_AVAILABLE)


def _ecc(sheet: _Sheet) -> None:
    """One sum of correctable and one of uncorrectable errors, in whatever way the card counts them."""
    for span in ("volatile", "aggregate"):
        counts = sheet.data["ecc"][span]
        for name, parts in (
            ("correctable", ("sram_correctable", "dram_correctable", "single_bit_total")),
            (
                "uncorrectable",
                (
                    "sram_uncorrectable",
                    "sram_uncorrectable_parity",
                    "sram_uncorrectable_secded",
                    "dram_uncorrectable",
                    "double_bit_total",
                ),
            ),
        ):
            there = [counts[part] for part in parts if counts[part] is not None]
            reasons = [sheet.missing.get(f"ecc.{span}.{part}", smi_text.ABSENT) for part in parts]
            told = next((why for why in reasons if why != smi_text.ABSENT), smi_text.ABSENT)
            sheet.put(f"ecc.{span}.{name}", sum(there) if there else None, told)


def _throttle(element: Element, sheet: _Sheet) -> None:
    """What holds the clocks down now, and for how long each reason has."""
    active: list[str] = []
    for name, tag in paths.THROTTLE_REASONS.items():
        places = tuple(f"{group}/{prefix}{tag}" for group, prefix in paths.THROTTLE_GROUPS)
        value, why = _read(element, places, "switch")
        if value is True:
            active.append(name)
        elif value is None:
            sheet.missing[f"throttle.{name}"] = why or smi_text.UNKNOWN
    sheet.data["throttle"] = active
    counters: dict[str, int] = {}
    for child in element.findall("clocks_event_reasons_counters/*")[:20]:
        value, _why = smi_text.read(child.text or "", "microseconds")
        if isinstance(value, int):
            counters[smi_text.clean(child.tag).removeprefix("clocks_event_reasons_counters_")] = value
    sheet.data["throttle_us"] = counters


def _mig_devices(element: Element) -> list[dict[str, Any]]:
    found = element.findall("mig_devices/mig_device")[:MOST_PROCESSES]
    return [
        {
            "index": _read(device, ("index",), "count")[0],
            "gpu_instance": _read(device, ("gpu_instance_id",), "count")[0],
            "compute_instance": _read(device, ("compute_instance_id",), "count")[0],
            "memory_mib": _read(device, ("fb_memory_usage/total",), "mebibytes")[0],
        }
        for device in found
    ]


def _processes(element: Element) -> list[dict[str, Any]]:
    found = element.findall("processes/process_info")[:MOST_PROCESSES]
    return [
        {
            "pid": _read(process, ("pid",), "count")[0],
            "type": _read(process, ("type",), "text")[0],
            "name": _read(process, ("process_name",), "text")[0],
            "memory_mib": _read(process, ("used_memory",), "mebibytes")[0],
        }
        for process in found
    ]
