# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms in which ``nvidia-smi`` shows what there is: XML, text, the table, the matrices. SIMULATED."""

from __future__ import annotations

import time
from collections.abc import Iterable
from xml.sax.saxutils import escape

from . import mig
from .dialect import Node, branch_of, cuda_of, dtd, log
from .gpu import Gpu
from .hardware import MARK
from .report import Report

_LABELS = {
    "fb_memory_usage": "FB Memory Usage",
    "bar1_memory_usage": "BAR1 Memory Usage",
    "uuid": "GPU UUID",
    "vbios_version": "VBIOS Version",
    "multigpu_board": "MultiGPU Board",
    "gpu_power_readings": "GPU Power Readings",
    "gpu_temp": "GPU Current Temp",
    "gpu_temp_tlimit": "GPU T.Limit Temp",
    "mig_mode": "MIG Mode",
    "mig_devices": "MIG Devices",
    "cuda_version": "CUDA Version",
    "kmd_version": "KMD Version",
    "cuda_umd_version": "CUDA UMD Version",
    "sm_clock": "SM",
    "graphics_clock": "Graphics",
    "mem_clock": "Memory",
    "video_clock": "Video",
    "pci": "PCI",
    "ecc_mode": "ECC Mode",
    "ecc_errors": "ECC Errors",
    "gsp_firmware_version": "GSP Firmware Version",
    "gpu_recovery_action": "GPU Recovery Action",
    "attached_gpus": "Attached GPUs",
}


def xml(version: str, gpus: list[Gpu], now: float) -> str:
    lines = [
        '<?xml version="1.0" ?>',
        f'<!DOCTYPE nvidia_smi_log SYSTEM "{dtd(branch_of(version))}">',
        "<nvidia_smi_log>",
    ]
    lines += _xml(log(version, len(gpus), now), 1)
    for gpu in gpus:
        lines.append(f'\t<gpu id="{gpu.bus_id}">')
        lines += _xml(Report(version, gpu).nodes(), 2)
        lines.append("\t</gpu>")
    return "\n".join([*lines, "", "</nvidia_smi_log>"])


def _xml(nodes: Iterable[Node], depth: int) -> Iterable[str]:
    tabs = "\t" * depth
    for tag, inner in nodes:
        if isinstance(inner, list):
            yield f"{tabs}<{tag}>"
            yield from _xml(inner, depth + 1)
            yield f"{tabs}</{tag}>"
        elif tag == "mig_devices":  # the real one breaks its lines here
            yield from (f"{tabs}<{tag}>", f"{tabs}\t{inner}", f"{tabs}</{tag}>")
        else:
            yield f"{tabs}<{tag}>{escape(inner)}</{tag}>"


def text(version: str, gpus: list[Gpu], now: float) -> str:
    lines = ["", f"=============={MARK} NVSMI LOG==============", ""]
    lines += _text(log(version, len(gpus), now), 0)
    for gpu in gpus:
        lines += ["", f"GPU {gpu.bus_id}", *_text(Report(version, gpu).nodes(), 1)]
    return "\n".join(lines)


def _text(nodes: Iterable[Node], depth: int) -> Iterable[str]:
    indent = "    " * depth
    for tag, inner in nodes:
        label = _LABELS.get(tag) or " ".join(word.capitalize() for word in tag.split("_"))
        if tag == "supported_clocks" or not inner:
            continue
        if isinstance(inner, list):
            yield f"{indent}{label}"
            yield from _text(inner, depth + 1)
        else:
            yield f"{indent}{label}".ljust(50) + f": {inner}"


def table(version: str, gpus: list[Gpu], now: float) -> str:
    """What a person sees who types ``nvidia-smi``."""
    renamed = branch_of(version) >= 610
    driver = f"{'KMD' if renamed else 'Driver'} Version: {version}"
    cuda = f"{'CUDA UMD' if renamed else 'CUDA'} Version: {cuda_of(version)}"
    wide = "-" * 89
    columns = "+-----------------------------------------+------------------------+----------------------+"
    lines = [
        time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(now)) + "       ",
        f"+{wide}+",
        f"| {f'NVIDIA-SMI {version}':<33}{driver:<31}{cuda:<24}|",
        f"| {f'*** {MARK}: no GPU here is real ***':<88}|",
        columns,
        "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |",
        "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |",
        "|                                         |                        |               MIG M. |",
        "|=========================================+========================+======================|",
    ]
    for gpu in gpus:
        lines += [*_row(gpu), columns]
    lines += [
        "",
        f"+{wide}+",
        f"| {'Processes:':<88}|",
        "|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |",
        "|        ID   ID                                                               Usage      |",
        f"|{'=' * 89}|",
        f"|  {'No running processes found':<87}|",
        f"+{wide}+",
    ]
    return "\n".join(lines)


def _row(gpu: Gpu) -> Iterable[str]:
    now, card = gpu.read(), gpu.card
    errors = "N/A" if gpu.ecc is None else "Off" if not gpu.ecc else "2" if gpu.broken("ecc") else "0"
    name = card.name if len(card.name) <= 25 else f"{card.name[:22]}..."
    mig = "N/A" if gpu.mig is None else "Enabled" if gpu.mig else "Disabled"
    mode = {"Default": "Default", "Exclusive_Process": "E. Process", "Prohibited": "Prohibited"}[
        gpu.compute_mode
    ]
    if gpu.mute:
        yield f"|{gpu.index:4d}  {name:<25}{'ERR!':>8}  | {gpu.bus_id:>18} Off | {'ERR!':>20} |"
        yield f"|ERR!  ERR!  ERR!   {'ERR! / ERR!':>20}  |{'ERR!':>23} | {'ERR!':>20} |"
        yield f"|{'':41}|{'':24}|{'ERR!':>21} |"
        return
    fan = f"{now.fan}%" if card.fan else "N/A"
    power = f"{now.power_w:.0f}W / {gpu.power_limit:5.0f}W"
    memory = f"{now.used_mib}MiB / {gpu.memory_mib:6d}MiB"
    yield f"|{gpu.index:4d}  {name:<25}{'On' if gpu.persistence else 'Off':>8}  | {gpu.bus_id:>18} Off | {errors:>20} |"
    yield f"|{fan:>4}{now.gpu_c:5d}C{now.state:>6}{power:>24} |{memory:>23} |{now.utilisation:8d}%{mode:>12} |"
    yield f"|{'':41}|{'':24}|{mig:>21} |"


def listing(gpus: list[Gpu]) -> str:
    lines = []
    for gpu in gpus:
        lines.append(f"GPU {gpu.index}: {gpu.card.name} (UUID: {gpu.uuid}) {MARK}")
        for place, cut in enumerate(mig.instances(gpu)):
            lines.append(f"  MIG {cut.name:<11} Device {place:2d}: (UUID: {mig.instance_uuid(gpu, place)})")
    return "\n".join(lines)


def topology(gpus: list[Gpu]) -> str:
    """How they are connected: NODE: below one processor, SYS: across two."""
    lines = [
        "\t"
        + "\t".join([*(f"GPU{gpu.index}" for gpu in gpus), "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"])
    ]
    for gpu in gpus:
        slot = gpu.profile.slots[gpu.number]
        cells = []
        for other in gpus:
            near = slot.numa_node == gpu.profile.slots[other.number].numa_node
            linked = gpu.card.peers == "NV12" and other.card.peers == "NV12"
            cells.append(" X " if other is gpu else "NV12" if linked else "NODE" if near else "SYS")
        cpus = f"0-{gpu.profile.cpus - 1}"
        lines.append("\t".join([f"GPU{gpu.index}", *cells, cpus, str(slot.numa_node), "N/A"]))
    lines += [
        "",
        "Legend:",
        "",
        "  X    = Self",
        "  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)",
        "  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node",
        "  NV#  = Connection traversing a bonded set of # NVLinks",
        f"  ({MARK})",
    ]
    return "\n".join(lines)


def peers(gpus: list[Gpu]) -> str:
    """Whether they reach each other's memory."""
    lines = [" \t" + "\t".join(f"GPU{gpu.index}" for gpu in gpus)]
    for gpu in gpus:
        cells = []
        for other in gpus:
            reach = "OK" if gpu.card.peers in ("OK", "NV12") else gpu.card.peers
            cells.append("X" if other is gpu else reach if other.card is gpu.card else "NS")
        lines.append("\t".join([f" GPU{gpu.index}", *cells]))
    lines += ["", "Legend:", "", "  X    = Self", "  OK   = Status Ok", "  CNS  = Chipset not supported"]
    lines += [
        "  GNS  = GPU not supported",
        "  TNS  = Topology not supported",
        "  NS   = Not supported",
        "  U    = Unknown",
    ]
    return "\n".join([*lines, f"  ({MARK})"])
