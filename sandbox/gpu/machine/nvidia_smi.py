# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for ``nvidia-smi``: its options, answers and exit statuses. SIMULATED."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise

from . import mig, query, shown
from .gpu import Gpu, may_open, visible
from .hardware import MARK
from .places import Machine
from .setting import Refused, Settings

NO_DRIVER, MISMATCH, NOT_FOUND, LOST, NO_LIBRARY, FAILED = 9, 18, 6, 15, 12, 255
_SET = {
    "-pl": "power_limit",
    "--power-limit": "power_limit",
    "-pm": "persistence",
    "--persistence-mode": "persistence",
    "-c": "compute_mode",
    "--compute-mode": "compute_mode",
    "-e": "ecc",
    "--ecc-config": "ecc",
    "-ac": "application_clocks",
    "--applications-clocks": "application_clocks",
    "-lgc": "lock_clocks",
    "--lock-gpu-clocks": "lock_clocks",
    "-mig": "mig",
    "--multi-instance-gpu": "mig",
}
_RESET = {
    "-rac": "reset_application_clocks",
    "--reset-applications-clocks": "reset_application_clocks",
    "-rgc": "reset_clocks",
    "--reset-gpu-clocks": "reset_clocks",
    "-r": "reset",
    "--gpu-reset": "reset",
}
_SHOW = {
    "-q": "query",
    "--query": "query",
    "-x": "xml",
    "--xml-format": "xml",
    "-u": "xml",
    "--unit": "xml",
    "-L": "list",
    "--list-gpus": "list",
    "--version": "version",
    "-h": "help",
    "--help": "help",
    "--dtd": "dtd",
}
_VALUE = {
    "-i": "id",
    "--id": "id",
    "--query-gpu": "query_gpu",
    "--format": "format",
    "-f": "file",
    "--filename": "file",
}
_VALUE |= {"-d": "display", "--display": "display", "--query-compute-apps": "apps"}
_HELP = f"""\
NVIDIA System Management Interface, {MARK}: a stand-in of the gpumesh.fleet sandbox

nvidia-smi [-i IDS] [-q [-x] | -L | --query-gpu=FIELDS --format=csv[,noheader][,nounits] | topo -m | topo -p2p r]
nvidia-smi [-i IDS] -pl W | -pm 0|1 | -c MODE | -e 0|1 | -mig 0|1 | -ac MEM,SM | -rac | -lgc MIN,MAX | -rgc | -r
"""


class _Usage(Exception):
    """The command line cannot be understood."""


def main(arguments: list[str] | None = None, machine: Machine | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    machine = machine or Machine()
    try:
        if words[:1] == ["topo"]:
            return _with_driver(machine, lambda version, gpus: _topology(words[1:], gpus), "")
        if words[:1] == ["mig"]:
            ids = dict(pairwise(words))
            return _with_driver(machine, lambda version, gpus: _mig(words[1:], gpus), ids.get("-i", ""))
        shows, values, sets = _parse(words)
    except _Usage as error:
        print(f'{error}\nPlease run "nvidia-smi -h" for help.')
        return 2
    if "help" in shows:
        print(_HELP)
        return 0
    if "version" in shows:
        return _versions(machine)

    def act(version: str, gpus: list[Gpu]) -> int:
        if sets:
            return _set(gpus, sets)
        return _show(machine, version, gpus, shows, values)

    return _with_driver(machine, act, values.get("id", ""))


def _parse(words: list[str]) -> tuple[set[str], dict[str, str], list[tuple[str, str]]]:
    shows: set[str] = set()
    values: dict[str, str] = {}
    sets: list[tuple[str, str]] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in _SHOW and not equals:
            shows.add(_SHOW[name])
        elif name in _RESET and not equals:
            sets.append((_RESET[name], ""))
        elif name in _VALUE or name in _SET:
            if not equals:
                value = next(rest, "")
            if not value:
                raise _Usage(f"Option {name} is missing its value.")
            if name in _SET:
                sets.append((_SET[name], value))
            else:
                values[_VALUE[name]] = value
        else:
            raise _Usage(f"Invalid combination of input arguments: {word} is not recognized.")
    return shows, values, sets


def _with_driver(machine: Machine, act: Callable[[str, list[Gpu]], int], ids: str) -> int:
    """Do something with the GPUs there are, or say why there are none."""
    loaded, library = machine.loaded_version(), machine.library_version()
    if not library:
        print(
            "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA Display "
            "Driver is properly installed and present in your system."
        )
        return NO_LIBRARY
    if not loaded:
        print(
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
            "NVIDIA driver is installed and running.\n"
        )
        return NO_DRIVER
    if loaded != library:
        print(
            "Failed to initialize NVML: Driver/library version mismatch\n"
            f"NVML library version: {'.'.join(library.split('.')[:2])}"
        )
        return MISMATCH
    if not may_open(machine, "nvidiactl"):
        print("Failed to initialize NVML: Unknown Error")
        return FAILED
    gpus = visible(machine)
    lost = [gpu for gpu in gpus if gpu.lost]
    gpus = [gpu for gpu in gpus if not gpu.lost]
    if ids:
        known = {
            name.lower(): gpu for gpu in gpus for name in (str(gpu.index), gpu.uuid, gpu.bus_id, gpu.address)
        }
        chosen = [known.get(name.strip().lower()) for name in ids.split(",")]
        gpus = [gpu for gpu in chosen if gpu is not None]
        lost = [gpu for gpu in lost if str(gpu.index) in ids.split(",")]
        if None in chosen and not lost:
            print("No devices were found")
            return NOT_FOUND
    for gpu in lost:
        print(
            f"Unable to determine the device handle for GPU{gpu.index}: {gpu.bus_id}: GPU is lost.  "
            "Reboot the system to recover this GPU",
            file=sys.stderr,
        )
    if not gpus:
        print("No devices were found")
        return LOST if lost else NOT_FOUND
    code = act(loaded, gpus)
    return code or (LOST if lost else 0)


def _show(machine: Machine, version: str, gpus: list[Gpu], shows: set[str], values: dict[str, str]) -> int:
    now = machine.now()
    if "query_gpu" in values:
        options = {word.strip() for word in values.get("format", "").split(",")}
        if "csv" not in options:
            print('"--format=" switch is missing. Please run "nvidia-smi -h" for help.')
            return 2
        fields = [field.strip() for field in values["query_gpu"].split(",")]
        try:
            output = query.csv(version, gpus, fields, options, now)
        except KeyError as error:
            print(f'Field "{error.args[0]}" is not a valid field to query.\n')
            return 2
    elif "apps" in values:
        # Nothing computes here, whatever the load: there is a head and nothing below it.
        output = "" if "noheader" in values.get("format", "") else values["apps"].replace(",", ", ")
    elif "list" in shows:
        output = shown.listing(gpus)
    elif "query" in shows:
        form = shown.xml if "xml" in shows else shown.text
        output = form(version, gpus, now)
    else:
        output = shown.table(version, gpus, now)
    if "file" in values:
        with open(values["file"], "w") as file:
            file.write(f"{output}\n")
    else:
        print(output)
    return 0


def _set(gpus: list[Gpu], sets: list[tuple[str, str]]) -> int:
    settings = Settings(gpus)
    try:
        for option, value in sets:
            settings.apply(option, value)
    except Refused as error:
        print("\n".join([*settings.said, str(error), "Terminating early due to previous errors."]))
        return error.code
    print("\n".join([*settings.said, "All done."]))
    return settings.code


def _mig(words: list[str], gpus: list[Gpu]) -> int:
    try:
        code, said = mig.command(gpus, words)
    except Refused as error:
        code, said = error.code, str(error)
    print(said)
    return code


def _topology(words: list[str], gpus: list[Gpu]) -> int:
    if words in (["-m"], ["--matrix"]):
        print(shown.topology(gpus))
    elif words[:1] in (["-p2p"], ["--p2pstatus"]):
        print(shown.peers(gpus))
    else:
        print('Invalid combination of input arguments. Please run "nvidia-smi topo -h" for help.')
        return 2
    return 0


def _versions(machine: Machine) -> int:
    library, loaded = machine.library_version() or "N/A", machine.loaded_version() or "N/A"
    print(f"NVIDIA-SMI version  : {library}\nNVML version        : {'.'.join(library.split('.')[:2])}")
    print(f"DRIVER version      : {loaded}\nSimulated           : {MARK}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
