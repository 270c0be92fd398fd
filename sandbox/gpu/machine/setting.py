# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``nvidia-smi`` changes: limits, modes and clocks, within what each card allows. SIMULATED."""

from __future__ import annotations

from typing import Any

from .gpu import Gpu

UNPRIVILEGED, UNSUPPORTED, INVALID = 4, 3, 2
_MODES = {"0": "Default", "default": "Default", "2": "Prohibited", "prohibited": "Prohibited"}
_MODES |= {"3": "Exclusive_Process", "exclusive_process": "Exclusive_Process"}


class Refused(Exception):
    """It was not set. ``code`` is what the program ends with."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Settings:
    """Changes some GPUs, one after the other, and says what it did."""

    def __init__(self, gpus: list[Gpu]) -> None:
        self.gpus = gpus
        self.said: list[str] = []
        self.code = 0

    def apply(self, option: str, value: str) -> None:
        """One option of the command line. Raises: Refused."""
        for gpu in self.gpus:
            if not gpu.machine.may_change():
                raise Refused(
                    UNPRIVILEGED, f"Unable to change this for GPU {gpu.bus_id}: Insufficient Permissions"
                )
            getattr(self, f"_{option}")(gpu, value)

    def _unsupported(self, gpu: Gpu, what: str) -> None:
        self.said.append(f"{what} is not supported for GPU {gpu.bus_id}.\nTreating as warning and moving on.")
        self.code = UNSUPPORTED

    def _power_limit(self, gpu: Gpu, value: str) -> None:
        lowest, _, highest = gpu.card.power
        watts = _number(value, "power limit")
        if not lowest <= watts <= highest:
            raise Refused(
                INVALID,
                f"Provided power limit {watts:.2f} W is not a valid power limit which should be between "
                f"{lowest:.2f} W and {highest:.2f} W for GPU {gpu.bus_id}",
            )
        before = gpu.power_limit
        self._warn(gpu)
        self._keep(gpu, "power_limit", watts)
        self.said.append(f"Power limit for GPU {gpu.bus_id} was set to {watts:.2f} W from {before:.2f} W.")

    def _persistence(self, gpu: Gpu, value: str) -> None:
        wanted = _flag(value)
        word = "Enabled" if wanted else "Disabled"
        if gpu.persistence == wanted:
            self.said.append(f"Persistence mode is already {word} for GPU {gpu.bus_id}.")
            return
        legacy = "" if gpu.holder else "Legacy "
        change(gpu, persistence={"on": wanted, "holder": gpu.holder})
        if not wanted:
            # Nobody has the card open any more, so the driver lets go of it, and forgets.
            forget(gpu)
        self.said.append(f"{word} {legacy}persistence mode for GPU {gpu.bus_id}.")

    def _compute_mode(self, gpu: Gpu, value: str) -> None:
        mode = _MODES.get(value.lower())
        if mode is None:
            raise Refused(INVALID, f"Invalid compute mode: {value}")
        if gpu.compute_mode == mode:
            self.said.append(f"Compute mode is already set to {mode.upper()} for GPU {gpu.bus_id}.")
            return
        self._warn(gpu)
        self._keep(gpu, "compute_mode", mode)
        self.said.append(f"Set compute mode to {mode.upper()} for GPU {gpu.bus_id}.")

    def _ecc(self, gpu: Gpu, value: str) -> None:
        wanted = _flag(value)
        if gpu.ecc is None:
            self._unsupported(gpu, "Changing ECC mode")
            return
        word = "Enabled" if wanted else "Disabled"
        if gpu.ecc_pending == wanted:
            self.said.append(f"ECC support is already {word} for GPU {gpu.bus_id}.")
            return
        _note(gpu, "ecc", wanted)
        self.said.append(f"{word} ECC support for GPU {gpu.bus_id}.\nReboot required.")

    def _mig(self, gpu: Gpu, value: str) -> None:
        wanted = _flag(value)
        if gpu.mig is None:
            self._unsupported(gpu, "MIG mode")
            return
        _note(gpu, "mig", wanted)
        if gpu.load:
            self.said.append(
                f"Warning: MIG mode is in pending state for GPU {gpu.bus_id}:In use by another client"
            )
        else:
            change(gpu, mig=wanted, instances=None)
        self.said.append(f"{'Enabled' if wanted else 'Disabled'} MIG Mode for GPU {gpu.bus_id}")

    def _application_clocks(self, gpu: Gpu, value: str) -> None:
        if gpu.card.brand == "GeForce":
            self._unsupported(gpu, "Setting applications clocks")
            return
        memory, graphics = _pair(value, "applications clocks")
        if (
            memory != gpu.card.max_clocks[1]
            or not gpu.card.idle_clocks[0] <= graphics <= gpu.card.max_clocks[0]
        ):
            raise Refused(
                INVALID,
                f'Specified clock combination "(MEM {memory}, SM {graphics})" is not supported for GPU {gpu.bus_id}. '
                'Run "nvidia-smi -q -d SUPPORTED_CLOCKS" to see list of supported clock combinations',
            )
        self._warn(gpu)
        self._keep(gpu, "application_clocks", [memory, graphics])
        self.said.append(f'Applications clocks set to "(MEM {memory}, SM {graphics})" for GPU {gpu.bus_id}')

    def _reset_application_clocks(self, gpu: Gpu, value: str) -> None:
        self._keep(gpu, "application_clocks", None)
        self.said.append(f"All done resetting applications clocks for GPU {gpu.bus_id}")

    def _lock_clocks(self, gpu: Gpu, value: str) -> None:
        lowest, highest = _pair(value if "," in value else f"{value},{value}", "GPU clocks")
        if lowest > highest or highest > gpu.card.max_clocks[0] + 15:
            raise Refused(
                INVALID, f"Specified GPU clocks ({lowest}, {highest}) are not supported for GPU {gpu.bus_id}"
            )
        self._warn(gpu)
        self._keep(gpu, "gpu_clocks", [lowest, highest])
        self.said.append(
            f'GPU clocks set to "(gpuClkMin {lowest}, gpuClkMax {highest})" for GPU {gpu.bus_id}'
        )

    def _reset_clocks(self, gpu: Gpu, value: str) -> None:
        self._keep(gpu, "gpu_clocks", None)
        self.said.append(f"All done resetting GPU clocks for GPU {gpu.bus_id}")

    def _reset(self, gpu: Gpu, value: str) -> None:
        if gpu.load or gpu.holder:
            raise Refused(19, f"GPU {gpu.bus_id} is in use by one or more processes, and cannot be reset")
        forget(gpu)
        change(gpu, ecc=gpu.ecc_pending, mig=gpu.mig_pending)
        self.said.append(f"GPU {gpu.bus_id} was successfully reset.")

    def _warn(self, gpu: Gpu) -> None:
        if not gpu.persistence:
            self.said.append(
                f"Warning: persistence mode is disabled on device {gpu.bus_id}. See the Known Issues section of the "
                "nvidia-smi(1) man page for more information."
            )

    def _keep(self, gpu: Gpu, name: str, value: Any) -> None:
        """Set it. Without persistence the driver has let go of the card before anybody can look."""
        if gpu.persistence or gpu.load:
            before = {other: gpu.kept(other) for other in gpu.settings.get("set", {})}
            change(gpu, set={**before, name: value}, holder=gpu.holder)


def change(gpu: Gpu, **values: Any) -> None:
    """Change what a GPU is set to, until the driver is unloaded. None: as it was made."""
    state = gpu.machine.state()
    settings = state["gpus"][gpu.address]
    for name, value in values.items():
        settings.pop(name, None)
        if value is not None:
            settings[name] = value
    gpu.settings = settings
    gpu.machine.save_state(state)


def forget(gpu: Gpu) -> None:
    """What happens when the driver lets go of a card."""
    change(gpu, set=None)


def _note(gpu: Gpu, name: str, value: bool) -> None:
    """Write it into the card itself, where it outlives a reboot."""
    inforom = gpu.machine.inforom()
    inforom.setdefault(gpu.address, {})[name] = value
    gpu.machine.save_inforom(inforom)


def _number(value: str, what: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise Refused(INVALID, f'Invalid {what}: "{value}"') from None


def _pair(value: str, what: str) -> tuple[int, int]:
    first, comma, second = value.partition(",")
    if not comma:
        raise Refused(INVALID, f'Invalid {what}: "{value}"')
    return int(_number(first, what)), int(_number(second, what))


def _flag(value: str) -> bool:
    if value.lower() not in ("0", "1", "disabled", "enabled"):
        raise Refused(INVALID, f"Invalid value: {value}")
    return value.lower() in ("1", "enabled")
