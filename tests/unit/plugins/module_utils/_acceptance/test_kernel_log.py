# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of the kernel's log as drivers and kernels of several ages write them, and what is made of them.

The lines are those of public reports (open-gpu-kernel-modules, gpud, linux-pci), with addresses of our bench.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance import kernel_log, xid
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.kernel_log import Finding, Kind, Place
from ansible_collections.gpumesh.fleet.plugins.module_utils._acceptance.verdicts import Verdict
from hypothesis import given
from hypothesis import strategies as st

AT = 1_764_240_000.25
GPU = "0000:b7:00.0"
OTHER = "0000:01:00.0"
PLACES = (Place(OTHER, ("0000:00:01.1",)), Place(GPU, ("0000:b6:00.0",), nvlink=True))


def found(*lines: str, most_corrected: int = 0, places: Sequence[Place] = PLACES) -> list[Finding]:
    """What comes of lines, each with a time of its own in front."""
    timed = [f"{AT + number:.6f} machine kernel: {line}" for number, line in enumerate(lines)]
    return kernel_log.findings(timed, places, most_corrected=most_corrected)


XIDS = {
    "branch 390": ("NVRM: Xid (0000:b7:00): 13, 0003 00000000 0000c197 000010e4 00000000 00000010", 13),
    "branch 470": ("NVRM: Xid (PCI:0000:b7:00): 31, pid=1187, Ch 00000008, intr 10000000. MMU Fault: ENGINE GRAPHICS", 31),
    "no process": ("NVRM: Xid (PCI:0000:b7:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", 79),
    "branch 580": ("NVRM: Xid (PCI:0000:b7:00): 43, pid=2280636, name=python3, channel 0x00000018", 43),
    "a domain of eight digits": ("NVRM: Xid (PCI:00000000:B7:00.0): 48, pid=1, name=x, An uncorrectable double bit error", 48),
    "a part of a GPU": ("NVRM: Xid (PCI:0000:b7:00 GPU-I:05): 94, pid=7194, name=cuda, Contained: CE User Channel (0x9).", 94),
    "GSP": (
        ("NVRM: Xid (PCI:0000:b7:00): 119, pid=4242, name=python3, Timeout after 45s of waiting for RPC response from GPU0 GSP! "
        "Expected function 76 (GSP_RM_CONTROL) (0x20803032 0x594)."),
        119,
    ),
    "dmesg in a text file": ("[158878.530066] NVRM: Xid (PCI:0000:b7:00): 62, pid=25450, 0a53(2d50) 00000000 00000000", 62),
    "a printk level": ("<3>NVRM: GPU0 Xid (PCI:0000:b7:00): 95, pid=1, name=x, Uncontained: LTC TAG", 95),
}  # fmt: skip


@pytest.mark.parametrize("name", XIDS)
def test_an_xid_is_found_in_every_dialect(name: str) -> None:
    line, number = XIDS[name]
    (one,) = found(line)
    assert (one.kind, one.number, one.address, one.count) == (Kind.XID, number, GPU, 1)
    assert one.verdict is xid.find(number).verdict
    assert one.what.startswith(xid.find(number).what)
    assert one.advice
    assert line in one.line


def test_an_old_line_without_an_address_is_an_xid_all_the_same() -> None:
    (one,) = found("NVRM: Xid 43, illegal address during kernel execution")
    assert (one.number, one.address) == (43, "")


def test_a_card_that_is_no_longer_there_keeps_its_address() -> None:
    (one,) = found("NVRM: Xid (PCI:0000:99:00): 79, GPU has fallen off the bus.")
    assert one.address == "0000:99:00"


@pytest.mark.parametrize(
    ("line", "kind", "what", "step"),
    [
        ("NVRM: GPU 0000:b7:00.0: GPU has fallen off the bus.", Kind.LOST, "fallen off the bus", "12V-2x6"),
        ("NVRM: GPU at 0000:b7:00.0 has fallen off the bus.", Kind.LOST, "fallen off the bus", "power supply"),
        (
            ("NVRM: The NVIDIA GPU 0000:b7:00.0 (PCI ID: 10de:2b85) installed in this system has fallen off the bus and is not "
            "responding to commands."),
            Kind.LOST,
            "fallen off the bus",
            "reseat the card",
        ),
        ("NVRM: GPU 0000:b7:00.0: RmInitAdapter failed! (0x62:0x40:2192)", Kind.DRIVER, "could not start the card", "VBIOS"),
        ("NVRM: GPU 0000:b7:00.0: rm_init_adapter failed, device minor number 0", Kind.DRIVER, "could not start the card", "VBIOS"),
        (
            "NVRM: GPU 0000:b7:00.0: GPU does not have the necessary power cables connected.",
            Kind.DRIVER,
            "no power|does not get power",
            "each plug home to its latch",
        ),
        (
            ("NVRM: The NVIDIA GPU 0000:b7:00.0 (PCI ID: 10de:2b85) installed in this system requires use of the NVIDIA open kernel "
            "modules."),
            Kind.DRIVER,
            "needs the open kernel modules",
            "nvidia_driver_flavour: open",
        ),
        (
            ("NVRM: The NVIDIA GPU 0000:b7:00.0 (PCI ID: 10de:1db1) is not supported by open nvidia.ko because it does not include "
            "the required GPU System Processor (GSP)."),
            Kind.DRIVER,
            "needs the closed kernel modules",
            "nvidia_driver_flavour: closed",
        ),
        (
            ("NVRM: The NVIDIA GPU 0000:b7:00.0 (PCI ID: 10de:1db1) installed in this system is not supported by the 595.91.07 NVIDIA "
            "driver release."),
            Kind.DRIVER,
            "does not know the card",
            "gpu_stack",
        ),
        (
            "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid: NVRM: BAR1 is 0M @ 0x0 (PCI:0000:b7:00.0)",
            Kind.DRIVER,
            "no room in memory",
            "Above 4G",
        ),
        ("pcieport 0000:b6:00.0: pciehp: Slot(3): Link Down", Kind.SLOT, "link of its slot went down", "reseat"),
        ("pcieport 0000:b6:00.0: pciehp: Slot(3): Card not present", Kind.SLOT, "link of its slot went down", "reseat"),
        ("nouveau 0000:b7:00.0: NVIDIA GV100 (140000a1)", Kind.NOUVEAU, "nouveau had the card", "reboot"),
    ],
)  # fmt: skip
def test_what_has_failed_is_found_without_an_xid(line: str, kind: Kind, what: str, step: str) -> None:
    (one,) = found(line)
    assert (one.kind, one.address) == (kind, GPU)
    assert any(part in one.what for part in what.split("|"))
    assert step in one.advice
    assert one.verdict is (Verdict.WARN if kind is Kind.NOUVEAU else Verdict.FAIL)


@pytest.mark.parametrize(
    "line",
    [
        "NVRM: GPU0 RmInitAdapter: Cannot initialize GSP firmware RM",
        "NVRM: GPU0 _kgspBootGspRm: unexpected WPR2 already up, cannot proceed with booting GSP",
        "NVRM: nvGpuOpsReportFatalError: GSP RPC timed out",
    ],
)
def test_a_failure_of_the_cards_own_processor_may_not_say_of_which_card(line: str) -> None:
    (one,) = found(line)
    assert (one.kind, one.address) == (Kind.DRIVER, "")
    assert "GSP" in one.what
    assert "off and on" in one.advice


def test_a_card_off_the_bus_is_told_once() -> None:
    findings = found(
        "NVRM: Xid (PCI:0000:b7:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "NVRM: GPU 0000:b7:00.0: GPU has fallen off the bus.",
        "NVRM: GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:b7:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
    )
    assert [(one.kind, one.number) for one in findings] == [(Kind.XID, 79), (Kind.XID, 154)]
    alone = found("NVRM: GPU has fallen off the bus.")
    assert [(one.kind, one.address) for one in alone] == [(Kind.LOST, "")]


def test_another_card_off_the_bus_is_told_beside_the_first() -> None:
    findings = found(
        "NVRM: Xid (PCI:0000:b7:00): 79, GPU has fallen off the bus.",
        "NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.",
    )
    assert {(one.kind, one.address) for one in findings} == {(Kind.XID, GPU), (Kind.LOST, OTHER)}


@pytest.mark.parametrize(
    ("action", "verdict", "step"),
    [
        ("0x1 (GPU Reset Required)", Verdict.FAIL, "nvidia-smi -r -i INDEX"),
        ("0x1 (PF FLR)", Verdict.FAIL, "nvidia-smi -r -i INDEX"),
        ("0x2 (Node Reboot Required)", Verdict.FAIL, "reboot the machine"),
        ("0x2 (OS Reboot)", Verdict.FAIL, "reboot the machine"),
        ("0x3 (Drain P2P)", Verdict.FAIL, "several GPUs work together"),
        ("0x4 (Drain and Reset)", Verdict.FAIL, "no new work"),
        ("0x0 (None)", Verdict.PASS, ""),
    ],
)
def test_an_action_that_the_driver_asks_for_is_read(action: str, verdict: Verdict, step: str) -> None:
    (one,) = found(
        f"NVRM: Xid (PCI:0000:b7:00): 154, GPU recovery action changed from 0x7 (Other) to {action}"
    )
    assert one.verdict is verdict
    assert step in one.advice
    assert action[5:-1] in one.what


def test_one_contained_error_is_a_warning_and_two_are_not() -> None:
    line = "NVRM: Xid (PCI:0000:b7:00): 94, pid=7194, name=cuda, Contained: CE User Channel (0x9)."
    assert [one.verdict for one in found(line)] == [Verdict.WARN]
    (twice,) = found(line, "something else", line)
    assert (twice.verdict, twice.count) == (Verdict.FAIL, 2)
    assert (twice.first, twice.last) == (AT, AT + 2)
    assert twice.when == "2 times, from 2025-11-27 10:40:00 UTC to 2025-11-27 10:40:02 UTC"


def test_nvlink_is_as_grave_as_the_line_says() -> None:
    def verdict(word: str) -> Verdict:
        (one,) = found(
            f"NVRM: Xid (PCI:0000:b7:00): 149, NETIR_LINK_EVT {word} XC0 i0 Link 08 (0x004505c6 0x00000000)"
        )
        return one.verdict

    assert [verdict(word) for word in ("Fatal", "Nonfatal", "Non-fatal")] == ["FAIL", "WARN", "WARN"]


def test_an_nvlink_error_of_a_card_without_nvlink_is_no_failure() -> None:
    line = (
        "NVRM: Xid (PCI:0000:{}:00): 74, pid=1, name=x, NVLink: fatal error detected on link 6(0x10000, 0x0)"
    )
    assert [one.verdict for one in found(line.format("b7"))] == [Verdict.FAIL]
    (one,) = found(line.format("01"))
    assert (one.verdict, one.note) == (Verdict.WARN, "this model has no NVLink")


def test_an_xid_that_nobody_knows_is_said_to_be_unknown() -> None:
    (one,) = found("NVRM: Xid (PCI:0000:b7:00): 999, misc info")
    assert (one.verdict, one.number) == (Verdict.WARN, 999)
    assert "not in our catalogue" in one.what
    assert "999" in one.advice


OLD_AER = (
    "pcieport 0000:b6:00.0: AER: Corrected error received: id=b700",
    "nvidia 0000:b7:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, id=b700(Receiver ID)",
    "nvidia 0000:b7:00.0:   device [10de:2b85] error status/mask=00000001/0000a000",
    "nvidia 0000:b7:00.0:    [ 0] Receiver Error         (First)",
)
NEW_AER = (
    "pcieport 0000:b6:00.0: AER: Correctable error message received from 0000:b7:00.0",
    "nvidia 0000:b7:00.0: PCIe Bus Error: severity=Correctable, type=Data Link Layer, (Transmitter ID)",
    "nvidia 0000:b7:00.0:   device [10de:2b85] error status/mask=00001000/0000a000",
)


@pytest.mark.parametrize("lines", [OLD_AER, NEW_AER])
def test_corrected_errors_of_a_link_are_counted_once(lines: tuple[str, ...]) -> None:
    (one,) = found(*lines, *lines, *lines)
    assert (one.kind, one.address, one.count, one.verdict) == (Kind.CORRECTED, GPU, 3, Verdict.WARN)
    assert "reseat the card and its riser" in one.advice
    assert [one.verdict for one in found(*lines * 3, most_corrected=3)] == [Verdict.PASS]
    assert [one.verdict for one in found(*lines * 4, most_corrected=3)] == [Verdict.WARN]


@pytest.mark.parametrize(
    "line",
    [
        "nvidia 0000:b7:00.0: PCIe Bus Error: severity=Uncorrected (Non-Fatal), type=Transaction Layer, (Requester ID)",
        "nvidia 0000:b7:00.0: AER: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Transaction Layer, (Receiver ID)",
        "pcieport 0000:b6:00.0: AER: Uncorrected (Fatal) error received: 0000:b7:00.0",
        "pcieport 0000:b6:00.0: AER: Multiple Uncorrectable (Non-Fatal) error message received from 0000:b7:00.0",
        "pcieport 0000:b6:00.0: DPC: containment event, status:0x1f01 source:0x0000",
        "pcieport 0000:b6:00.0: DPC: unmasked uncorrectable error detected",
    ],
)
def test_errors_of_a_link_that_were_not_corrected_are_failures(line: str) -> None:
    (one,) = found(line, most_corrected=1000)
    assert (one.kind, one.address, one.verdict) == (Kind.UNCORRECTED, GPU, Verdict.FAIL)


def test_the_port_and_the_sound_of_a_card_are_the_card() -> None:
    for address in ("0000:b6:00.0", "0000:b7:00.1"):
        (one,) = found(
            f"pcieport {address}: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)"
        )
        assert one.address == GPU


@pytest.mark.parametrize(
    "line",
    [
        "pcieport 0000:00:1c.1: AER: Corrected error received: 0000:04:00.0",
        "nvme 0000:04:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)",
        "pcieport 0000:00:1c.1: AER: enabled with IRQ 123",
        "pcieport 0000:b6:00.0: AER: enabled with IRQ 124",
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.178.04  Release Build",
        "nvidia 0000:b7:00.0: enabling device (0000 -> 0003)",
        "nvidia-nvlink: Nvlink Core is being initialized, major device number 511",
        "nvidia 0000:b7:00.0: vgaarb: VGA decodes changed: olddecodes=io+mem,decodes=none:owns=none",
        "nvidia-uvm: Loaded the UVM driver, major device number 509.",
        "nouveau 0000:0b:00.0: bus: MMIO read of 00000000 FAULT at 6013d4 [ PRIVRING ]",
        "NVRM: Xid (PCI:0000:66:00): abc, pid=2280636",
        "audit: NetworkManager has fallen off the bus of conversation",
        "mpt3sas_cm0: IO failed, device lost from the bus",
        "",
    ],
)
def test_what_is_nothing_or_of_another_device_is_no_finding(line: str) -> None:
    assert found(line) == []


def test_the_gravest_comes_first() -> None:
    findings = found(
        "NVRM: Xid (PCI:0000:b7:00): 31, pid=1, name=x, MMU Fault",
        *NEW_AER,
        "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.",
    )
    assert [one.verdict for one in findings] == [Verdict.FAIL, Verdict.WARN, Verdict.WARN]


def test_the_same_of_two_cards_is_told_of_both() -> None:
    line = "NVRM: Xid (PCI:0000:{}:00): 31, pid=1, name=x, MMU Fault"
    findings = found(line.format("b7"), line.format("01"), line.format("b7"))
    assert {(one.address, one.count) for one in findings} == {(GPU, 2), (OTHER, 1)}


def test_a_line_without_a_time_is_read_all_the_same() -> None:
    (one,) = kernel_log.findings(["NVRM: Xid (PCI:0000:b7:00): 79, GPU has fallen off the bus."], PLACES)
    assert (one.first, one.when) == (None, "once")


_PARTS = st.sampled_from(
    [
        "NVRM: ", "Xid ", "(PCI:0000:b7:00): ", "(PCI:", "79", ", ", "GPU has fallen off the bus", "PCIe Bus Error: ", "severity=",
        "Corrected", "Uncorrectable (Fatal)", "AER: ", "received from ", "0000:b7:00.0", ":", "nouveau ", "DPC: ", "pciehp: Link Down",
        "GSP failed", "154, GPU recovery action changed from 0x0 (None) to 0x", "(", ")", "1764240000.5 ", "\x00", "\u2028", "é",
    ]
)  # fmt: skip
_LINES = st.one_of(
    st.text(max_size=300),
    st.lists(st.one_of(_PARTS, st.text(max_size=5)), max_size=12).map("".join),
)


@given(st.lists(_LINES, max_size=8), st.integers(0, 5))
def test_no_text_makes_it_fail(lines: list[str], most: int) -> None:
    for one in kernel_log.findings(lines, PLACES, most_corrected=most):
        assert one.what
        assert one.count >= 1
        assert one.when
        assert one.advice or one.verdict is Verdict.PASS


def test_a_line_of_megabytes_is_read_in_no_time_that_matters() -> None:
    assert kernel_log.findings(["NVRM: Xid (" * 400_000, "0000:b7:00.0: " * 400_000], PLACES) == []
