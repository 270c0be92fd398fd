# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks of a run might have found, for `tests.report_runs`. Invented: no machine was measured for any figure here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import registry
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import (
    Figure,
    Result,
    Verdict,
    does_not_apply,
    failed,
    passed,
    skipped,
    unknown,
    warned,
)

from tests.report_parts import FAIL, PASS, WARN, all_reduce, each, matmul, training, transfers

CHECKS = {check.name: check for check in registry.CHECKS}
SECONDS = {
    "kernels": 9,
    "matmul": 96,
    "memory_bandwidth": 28,
    "memory_pattern": 74,
    "pcie_under_load": 8,
    "host_device_bandwidth": 38,
    "p2p": 6,
    "all_reduce": 44,
    "training": 236,
    "pytorch": 22,
    "jax": 31,
    "coexistence": 47,
    "llm_inference": 118,
    "full_stack": 52,
    "container_gpus": 7,
    "container_sharing": 14,
    "container_reload": 9,
}
"""How long the longer ones took; the rest took a moment."""

BURN_IN: Mapping[str, tuple[str, str, str]] = {
    "burn_in_errors": ("Numeric errors", "compute", "none"),
    "burn_in_throttle": ("Clocks held back", "health", "no thermal and no hardware slowdown"),
    "burn_in_margin": ("Temperature margin", "health", "5 °C kept at all times"),
    "burn_in_log": ("Kernel log", "health", "no Xid, no AER"),
    "burn_in_time": ("Time under load", "health", "the hours that were asked for"),
}


def good() -> dict[str, Result]:
    """All in order."""
    out: dict[str, Result] = {}
    out["gpus_present"] = passed(
        "4 GPUs of the model rtx5090 are on the bus", Figure("rtx5090", 4, "", None, "4", "declared", PASS)
    )
    out["gpus_seen"] = passed(
        "the driver answers for all 4 GPUs", Figure("seen by the driver", 4, "", None, "4", "PCI bus", PASS)
    )
    out["memory"] = passed(
        "every GPU has its full memory",
        *each("memory", [32607] * 4, "MiB", ">= 31130", "catalog: 32 GB less 5 %"),
    )
    out["driver_versions"] = passed(
        "all parts are 580.178.04",
        Figure("kernel module", "580.178.04", "", None, "one version", "each other", PASS),
        Figure("library", "580.178.04", "", None, "one version", "each other", PASS),
    )
    out["driver_declared"] = passed(
        "branch 580, open modules",
        Figure("branch", "580", "", None, "580", "declared", PASS),
        Figure("flavour", "open", "", None, "open", "declared", PASS),
    )
    out["kernel_modules"] = passed(
        "nvidia, nvidia_uvm and nvidia_modeset are loaded, built for 6.8.0-90-generic"
    )
    out["persistence"] = passed("on", *each("persistence", [True] * 4, "", "on", "declared"))
    out["power_limit"] = passed(
        "575 W on all 4 GPUs", *each("power limit", [575.0] * 4, "W", "575 W", "declared")
    )
    out["ecc_mode"] = does_not_apply("GeForce cards have no ECC that can be switched")
    out["mig_mode"] = does_not_apply("these cards have no MIG")
    out["compute_mode"] = passed(
        "Default", *each("compute mode", ["Default"] * 4, "", "Default", "usual for shared use")
    )
    out["resizable_bar"] = passed(
        "32768 MiB on all 4 GPUs", *each("BAR1", [32768] * 4, "MiB", ">= memory", "the card's own memory")
    )
    out["pcie_link"] = passed("x16 on all 4 GPUs", *each("width", [16] * 4, "", "16", "declared"))
    out["pcie_errors"] = passed(
        "no replay, no AER line", *each("replays", [0] * 4, "", "0", "NVIDIA: PCIe counters")
    )
    out["kernel_log"] = passed(
        "no Xid in 18 412 lines of this boot",
        Figure("Xids", 0, "", None, "0", "NVIDIA's catalogue of Xids", PASS),
    )
    out["ecc_errors"] = does_not_apply("GeForce cards count no ECC errors")
    out["memory_rows"] = does_not_apply("GeForce cards do not remap rows")
    out["throttle_reasons"] = passed("only the power cap at rest, which these cards always show")
    out["temperatures"] = passed(
        "at least 57 °C to the limit",
        *each("margin", [61, 60, 57, 59], "°C", ">= 20", "proposal", better="higher"),
    )
    out["recovery_action"] = passed(
        "None on all 4 GPUs", *each("recovery action", ["None"] * 4, "", "None", "nvidia-smi")
    )
    out["kernels"] = passed(
        "each GPU computed the right answer",
        *each(
            "largest error",
            [0.0019, 0.0019, 0.0019, 0.0019],
            "",
            "<= 0.02",
            "float64 on the CPU",
            better="lower",
        ),
    )
    out["matmul"] = matmul([236.4, 235.1, 233.9, 236.0])
    out["memory_bandwidth"] = passed(
        "at least 1577 GB/s",
        *each(
            "copy",
            [1588.2, 1585.9, 1577.4, 1590.1],
            "GB/s",
            ">= 1523",
            "catalog: 85 % of 1.792 TB/s (proposal)",
            better="higher",
        ),
    )
    out["memory_pattern"] = passed(
        "29.1 GiB of each GPU read back as written",
        *each("wrong words", [0] * 4, "", "0", "what was written", better="lower"),
        *each("tested", [29.1] * 4, "GiB", verdict=None),
    )
    out["pcie_under_load"] = passed(
        "generation 5 and x16 while data moved",
        *each("generation", [5] * 4, "", "5", "card and slot"),
        *each("width", [16] * 4, "", "16", "declared"),
    )
    out["host_device_bandwidth"] = transfers(slow=None)
    out["p2p"] = passed(
        "no pair has peer access, as NVIDIA's driver has it for GeForce; data arrives unharmed",
        Figure("pairs with peer access", 0, "", None, "0", "catalog: GeForce", PASS),
        access=[[None if one == other else False for other in range(4)] for one in range(4)],
        copy=[
            [None if one == other else 23.4 + (one + other) % 3 * 0.6 for other in range(4)]
            for one in range(4)
        ],
    )
    out["all_reduce"] = all_reduce(1.0)
    out["training"] = training(5050.0, 4286.0)
    out["utilization"] = passed(
        "at least 94.1 % in training",
        *each("busy", [95.2, 94.8, 94.1, 95.0], "%", ">= 90 %", "owner's target", better="higher"),
    )
    out["pytorch"] = passed(
        "PyTorch 2.10.0 sees 4 GPUs and got the right answer on all together",
        Figure("GPUs", 4, "", None, "4", "driver", PASS),
    )
    out["tensorflow"] = skipped(
        "TensorFlow's published wheels have no kernels for the RTX 5090 (compute capability 12.0)",
        "build TensorFlow for sm_120, or use PyTorch or JAX on these GPUs",
    )
    out["jax"] = passed(
        "JAX 0.10.2 sees 4 GPUs and got the right answer on all together",
        Figure("GPUs", 4, "", None, "4", "driver", PASS),
    )
    out["coexistence"] = passed(
        "PyTorch, JAX and vLLM computed at the same time",
        Figure("at the same time", 3, "", None, "3", "installed frameworks", PASS),
    )
    out["llm_inference"] = passed(
        "86.4 tokens a second for one stream",
        Figure("one stream", 86.4, "tokens/s", None, ">= 10", "owner's target", PASS, "higher"),
        Figure("batch", 1893.0, "tokens/s", None, better="higher"),
        Figure("first token, one stream", 38.2, "ms", None, better="lower"),
    )
    out["full_stack"] = passed(
        "trained, saved, loaded and served; the answers are the same",
        Figure("same answers", 64, "", None, "64", "before saving", PASS),
    )
    out["container_gpus"] = passed(
        "a container sees 4 GPUs through Docker and through CDI",
        Figure("GPUs", 4, "", None, "4", "driver", PASS),
    )
    out["container_sharing"] = passed("4 containers computed at the same time")
    out["container_reload"] = passed("the GPUs stay visible over a daemon-reload")
    out["aftermath"] = passed(
        "no new Xid, AER line or replay since the run began",
        Figure("new errors", 0, "", None, "0", "kernel log and counters", PASS),
        *each("hottest", [69, 71, 72, 74], "°C", "<= 85", "90 °C less 5 °C (proposal)", better="lower"),
    )
    return out


def bad() -> dict[str, Result]:
    """A slow card, a narrow link, an Xid, warmth, a missed target."""
    out = good()
    out["pcie_link"] = warned(
        "GPU 2 has 8 of 16 lanes",
        "reseat the card, and look at the slot and its riser",
        *each("width", [16, 16, 8, 16], "", "16", "declared", bad={2: WARN}),
    )
    out["kernel_log"] = failed(
        "Xid 79 (GPU has fallen off the bus) on GPU 2, 3 minutes before the run",
        "switch the machine off and on, look at the 12V-2x6 plug of GPU 2, and have the card replaced if it comes again",
        Figure("Xids", 1, "", None, "0", "NVIDIA's catalogue of Xids", FAIL),
    )
    out["matmul"] = matmul([236.4, 235.1, 167.2, 236.0], (2.85, 2.84, 2.44, 2.85))
    out["host_device_bandwidth"] = transfers(slow=2)
    out["all_reduce"] = all_reduce(0.27)
    out["training"] = training(4420.0, 3960.0)
    out["temperatures"] = unknown(
        "GPU 2 gives no temperature limit of its own",
        "update the driver, or set limits in the profile",
        *each(
            "margin", [61, 60, None, 59], "°C", ">= 20", "proposal", bad={2: Verdict.UNKNOWN}, better="higher"
        ),
    )
    out["aftermath"] = failed(
        "GPU 2 was held back by its temperature for 178 s",
        "clean the filters, give GPU 2 air, and run the burn-in again",
        *each(
            "hottest",
            [71, 73, 90, 75],
            "°C",
            "<= 85",
            "90 °C less 5 °C (proposal)",
            bad={2: FAIL},
            better="lower",
        ),
    )
    return out


def cpu() -> dict[str, Result]:
    """Suite quick on the CPU."""
    why = "the run is on the CPU"
    out = {
        name: skipped(why, "run it on a machine with NVIDIA GPUs, without --device cpu")
        for name, check in CHECKS.items()
        if check.group in ("inventory", "configuration", "health")
    }
    out["kernels"] = passed(
        "2 processes computed the right answer",
        *each("largest error", [0.0, 0.0], "", "<= 0.02", "float64")[:1],
    )
    out["matmul"] = passed("not judged: CPU", Figure("fp32", 0.31, "TFLOPS"), Figure("bf16", 0.42, "TFLOPS"))
    out["pcie_under_load"] = skipped(why)
    out["host_device_bandwidth"] = skipped(why)
    out["all_reduce"] = passed(
        "every sum is right; 1.9 GB/s, not judged: CPU",
        Figure("wrong sums", 0, "", None, "0", "computed once more", PASS),
        Figure("bus bandwidth", 1.9, "GB/s"),
        curve=[{"bytes": 1 << p, "busbw": 1.9 * (1 - 0.8 ** (p - 11))} for p in range(12, 25)],
    )
    out["training"] = passed(
        "2 processes hold the same weights and the loss falls; rates are not judged: CPU",
        Figure("efficiency", 52.3, "%"),
        Figure("images per second", 6.9, "images/s"),
        scaling=[
            {"workers": 1, "alone": 6.6, "apart": 6.6, "together": 6.5},
            {"workers": 2, "alone": 6.6, "apart": 7.4, "together": 6.9},
        ],
        unit="images/s",
    )
    out["utilization"] = skipped(why)
    out["pytorch"] = passed("PyTorch 2.6.0+debian got the right answer in 2 processes")
    out["aftermath"] = skipped(why)
    return out


def bare() -> dict[str, Result]:
    """No PyTorch, nothing declared, no root."""
    out = good()
    for name, check in CHECKS.items():
        if check.group in ("compute", "interconnect", "frameworks"):
            out[name] = skipped(
                "no Python with PyTorch was found",
                "install it with role ai_frameworks, or name its interpreter in the profile",
            )
        if check.group == "containers":
            out[name] = skipped("Docker is not installed", "install it with role docker and role gpu_runtime")
    out["kernel_log"] = skipped("the kernel's log cannot be read", "run it as root")
    nothing = "nothing is declared of this machine"
    for name in ("gpus_present", "driver_declared", "power_limit"):
        out[name] = unknown(nothing, "declare it in /etc/gpumesh/acceptance.json", *out[name].figures[:0])
    return out


def burn_in() -> dict[str, Result]:
    """24 hours with one gap."""
    return {
        "burn_in_errors": passed(
            "no wrong value in 4.1 million comparisons",
            *each("wrong values", [0] * 4, "", "0", "the same product computed again", better="lower"),
        ),
        "burn_in_throttle": passed(
            "no thermal and no hardware slowdown",
            *each("held back", [0.0] * 4, "s", "0", "NVIDIA: clocks event reasons", better="lower"),
        ),
        "burn_in_margin": passed(
            "at least 9 °C were left",
            *each("least margin", [15, 13, 11, 9], "°C", ">= 5", "proposal", better="higher"),
        ),
        "burn_in_log": passed(
            "no Xid, no AER line", Figure("Xids", 0, "", None, "0", "NVIDIA's catalogue of Xids", PASS)
        ),
        "burn_in_time": warned(
            "23 h 25 min under load; the machine was restarted once",
            "find out why the machine restarted: a burn-in that passes has no gap",
            Figure("under load", 23.4, "h", None, "24 h", "asked for", WARN, "higher"),
        ),
    }


def names(results: Iterable[str]) -> list[str]:
    """In the order of a run."""
    return [name for name in (*CHECKS, *BURN_IN) if name in set(results)]
