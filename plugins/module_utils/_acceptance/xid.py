# SPDX-License-Identifier: GPL-3.0-or-later
"""The Xids: what the driver writes to the kernel's log when something goes wrong on a GPU. Data: a new number is a new line.

What a number is and what NVIDIA wants done at once is from its own catalogue (docs.nvidia.com/deploy/xid-errors, as of
October 2025). AWS' cluster health check and Azure's node health check judge some of them otherwise, which is noted. How grave
it is for us is our own judgement: FAIL where the card cannot be trusted until something was done, WARN where a program or
driver may be the reason.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._fleet.gpu.health_devices import recovery_step
from .verdicts import Verdict

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL

# What is written in capitals stands for the card in a command.
_OFF = (
    "switch the machine off at the power supply for half a minute and on again, since a reboot does not bring such a card back; "
    "if it happens again, reseat the card and its power cable (12V-2x6: every pin home, no bend at the plug), try another slot, "
    "then have the card replaced"
)
_CABLE = (
    "switch the machine off and see the card's power cables: each plug home to its latch, no adapter, a cable of the supply's "
    "own; then run this again"
)
_RESET = "end what uses the card and reset it (`nvidia-smi -r -i INDEX`), or reboot; if it happens again, have the card replaced"
_GSP = (
    "switch the machine off and on, since the card's own processor (GSP) can outlive a reset and a reboot; if it happens again, "
    "install the newest driver of the branch and the card's newest VBIOS, then try another slot and power cable"
)
_MEMORY = (
    "reset the card (`nvidia-smi -r -i INDEX`) or reboot, so that the bad memory is replaced by spare; if it happens again, have "
    "the card replaced"
)
_PROGRAM = (
    "look first at the program that it names: an error of its own, or a library for another CUDA or another GPU; where nothing "
    "but these checks ran, let `memory_pattern` look at the card"
)
_WATCH = "nothing to do at once; if the number of them grows, reset the card and have it looked at"
_NVLINK = "see `nvidia-smi nvlink --status` and `nvidia-smi nvlink -e`; reseat the bridge, or reset all GPUs of the machine together"
_REBOOT = "reboot the machine; if it happens again, switch it off and on, then have the card replaced"
_DRIVER = "install the newest driver of the branch; if it happens again, report it to NVIDIA with `nvidia-bug-report.sh`"


@dataclass(frozen=True, slots=True)
class Xid:
    """One kind of Xid.

    Attributes:
        verdict: how grave it is for us.
        catalogue: what NVIDIA's catalogue wants at once; empty: it says nothing.
        aws: what AWS' health check does; empty: it does not know it.
        azure: what Azure's health check does; empty: it does not look for it.
        repeated: the verdict where it was there more than once; None: the same.
        nvlink: it is about NVLink: on a card that has none it says nothing of the card.
        known: false: it is in no catalogue of ours.
    """

    number: int
    what: str
    verdict: Verdict
    advice: str
    catalogue: str = ""
    aws: str = ""
    azure: str = ""
    repeated: Verdict | None = None
    nvlink: bool = False
    known: bool = True

    @property
    def disagreement(self) -> str:
        """Where the others judge it differently from each other: what each does. Empty where they do not."""
        said = {"NVIDIA's catalogue": self.catalogue, "AWS": self.aws, "Azure": self.azure}
        told = {who: what for who, what in said.items() if what}
        if len({what in _HARMLESS for what in told.values()}) < 2:
            return ""
        return ", ".join(f"{who}: {what}" for who, what in told.items())


_HARMLESS = frozenset({"ignore", "restart the program", "monitor", "informational"})
_APP, _NONE, _BY_RESET, _BY_FLOW = "restart the program", "ignore", "reset the GPU", "workflow"
_MOSTLY = "reset (most of its group)"


def _engine(what: str, *numbers: int) -> list[Xid]:
    """Errors of one of the chip's engines, which the catalogue blames on the program first."""
    return [Xid(number, what, WARN, _PROGRAM, _APP) for number in numbers]


_ALL = (
    Xid(8, "the GPU stopped processing", WARN, _PROGRAM, _APP),
    Xid(11, "an invalid stream of commands", WARN, _PROGRAM, _APP),
    Xid(13, "an exception of the graphics engine, as by an illegal access of a kernel", WARN, _PROGRAM, _APP, "monitor"),
    Xid(25, "an illegal stream of commands", WARN, _PROGRAM, _APP),
    Xid(31, "a page fault in the GPU's memory", WARN, _PROGRAM, _APP, "monitor"),
    Xid(32, "a corrupted stream of commands", WARN, _PROGRAM, _APP),
    Xid(37, "an error of the driver's firmware", WARN, _DRIVER, _NONE),
    Xid(38, "an error of the driver's firmware", WARN, _DRIVER, _NONE),
    Xid(43, "the GPU stopped processing for one program", WARN, _PROGRAM, _NONE, "monitor"),
    Xid(44, "a fault while the graphics engine changed from one program to another", WARN, _PROGRAM, _NONE),
    Xid(45, "work was thrown away after an earlier error", WARN, "see the error before it in the log", _BY_FLOW, "monitor"),
    Xid(46, "the GPU stopped processing and did not answer in time", FAIL, _RESET, _BY_RESET),
    Xid(48, "an error of memory that could not be corrected (double bit)", FAIL, _MEMORY, _BY_FLOW, "reset", "fail"),
    Xid(54, "the card does not get power from its own cable", FAIL, _CABLE, "check mechanicals", "isolate"),
    Xid(60, "an exception of the security processor", WARN, _PROGRAM, _APP),
    Xid(61, "the power controller stopped at a breakpoint", WARN, _DRIVER),
    Xid(62, "the power controller has halted", FAIL, _RESET, _BY_RESET, _MOSTLY, "fail"),
    Xid(63, "a row or page of memory was marked for replacement", WARN, _MEMORY, _NONE, "monitor", "fail"),
    Xid(64, "memory could not be marked for replacement", FAIL, _MEMORY, _BY_RESET, "isolate", "fail"),
    Xid(66, "an illegal access by the driver", WARN, _DRIVER, _NONE),
    Xid(67, "an illegal access by the driver", WARN, _DRIVER, _NONE),
    Xid(69, "an error of the graphics engine's class", WARN, _PROGRAM, _APP, "monitor", "fail"),
    Xid(74, "an error of NVLink", FAIL, _NVLINK, _BY_FLOW, "reset", "fail", nvlink=True),
    Xid(78, "a virtual GPU could not be started", WARN, _DRIVER, "update software"),
    Xid(79, "the card has fallen off the bus", FAIL, _OFF, "restart the machine", "reboot", "fail"),
    Xid(80, "data came to the GPU corrupted", WARN, _PROGRAM, _APP),
    Xid(92, "many errors of memory, each corrected", WARN, _WATCH, _NONE, "monitor", "fail"),
    Xid(93, "the card's own store was written more often than it is made for", WARN, _WATCH, _NONE),
    Xid(94, "an error of memory that hit one program alone", WARN, _MEMORY, _APP, "monitor", repeated=FAIL),
    Xid(95, "an error of memory that may have hit every program", FAIL, _MEMORY, _BY_RESET, _MOSTLY),
    Xid(106, "a test message", PASS, "", _NONE),
    Xid(107, "a test message", PASS, "", _NONE),
    Xid(109, "the GPU did not change from one program to another in time", FAIL, _GSP, _BY_RESET, _MOSTLY),
    Xid(110, "a fault of security on the card", FAIL, _RESET, _BY_RESET, _MOSTLY),
    Xid(119, "the card's own processor (GSP) did not answer in time", FAIL, _GSP, _BY_RESET, _MOSTLY, "fail"),
    Xid(120, "the card's own processor (GSP) has failed", FAIL, _GSP, _BY_RESET, _MOSTLY, "fail"),
    Xid(121, "an error of the link from chip to chip", WARN, _WATCH, _NONE, "monitor"),
    Xid(136, "the training of a link has failed", FAIL, _RESET, _BY_RESET, _MOSTLY, nvlink=True),
    Xid(137, "an access over NVLink that is not allowed", WARN, _PROGRAM, _NONE, nvlink=True),
    Xid(140, "an error of memory that nothing recovered from", FAIL, _MEMORY, _BY_RESET, _MOSTLY),
    Xid(141, "an error on CUDA's fast path", WARN, _PROGRAM, _NONE),
    Xid(143, "the GPU could not be initialised", FAIL, _GSP, _BY_RESET, _MOSTLY),
    *(
        Xid(number, f"an error of NVLink ({unit})", FAIL, _NVLINK, _BY_FLOW, "monitor", nvlink=True)
        for number, unit in enumerate(("SAW", "RLW", "TLW", "TREX", "NVLPW", "NETIR", "MSE"), 144)
    ),
    Xid(151, "a key could not be exchanged", FAIL, _REBOOT, "restart the machine", "reboot"),
    Xid(152, "an error of the DLA's memory", WARN, _PROGRAM, _NONE),
    Xid(153, "the DLA did not answer in time", WARN, _PROGRAM, _NONE),
    Xid(154, "the driver asks for another action to heal the card", WARN, _REBOOT, "informational"),
    Xid(155, "an error of NVLink's software", FAIL, _RESET, _BY_RESET, _MOSTLY, nvlink=True),
    Xid(156, "a part of the chip was retired", FAIL, _RESET, _BY_RESET, _MOSTLY),
    Xid(157, "a part of the chip could not be retired", WARN, _RESET, _NONE),
    Xid(158, "the GPU did not answer in time, for good", FAIL, _OFF, _BY_RESET, _MOSTLY),
    Xid(159, "an error of the link to the processor's memory", WARN, _WATCH, "check UVM"),
    Xid(160, "a channel of memory was retired", WARN, _MEMORY, _NONE),
    Xid(161, "a channel of memory could not be retired", WARN, _MEMORY, _NONE),
    *(
        Xid(number, f"the circuit that smooths the card's power {what}", WARN, _WATCH)
        for number, what in enumerate(("works again", "is off", "is near its end", "is worn out"), 162)
    ),
    Xid(166, "data came over a link that was not encrypted yet", WARN, _DRIVER, nvlink=True),
    Xid(167, "PCI Express did not answer in time, for good", FAIL, _OFF),
    Xid(168, "errors in the memory that the firmware keeps for itself", FAIL, _REBOOT, "", "reboot"),
    Xid(169, "the security processor has halted", FAIL, _GSP),
    Xid(170, "an interrupt that confidential computing does not allow", WARN, _DRIVER),
    Xid(171, "an error of the card's memory that could not be corrected", FAIL, _MEMORY),
    Xid(172, "an error of the chip's own memory that could not be corrected", FAIL, _MEMORY),
    *_engine("an exception of a copy engine", 39, 40, 41, 70, 71, 72, 75, 76, 77, 85, *range(126, 136)),
    *_engine("an exception of a video engine", 68, 82, 83, 84, 86, 88, 89, *range(96, 106), 139),
)  # fmt: skip
CATALOGUE: dict[int, Xid] = {one.number: one for one in _ALL}


def find(number: int) -> Xid:
    """An Xid by its number. One that we do not know is said to be unknown, which is no reason to call it harmless."""
    return CATALOGUE.get(number) or Xid(
        number,
        "not in our catalogue",
        WARN,
        f"look for {number} in NVIDIA's catalogue (docs.nvidia.com/deploy/xid-errors), which may have it by now",
        known=False,
    )


def of_action(action: str) -> tuple[Verdict, str]:
    """How grave it is that the driver asks for an action (Xid 154, and the reading of the same name), and what to do.

    The driver's words differ from branch to branch: ``GPU Reset Required``, ``Reset``, ``PF FLR``, ``Node Reboot Required``,
    ``OS Reboot``, ``Drain P2P``, ``Drain and Reset``.
    """
    return (PASS, "") if action.lower() in ("none", "") else (FAIL, recovery_step(action))
