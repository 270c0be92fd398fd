# SPDX-License-Identifier: GPL-3.0-or-later
"""What starting a watch would do on each machine, and how a watch is going: from what the machines say of it.

A watch that runs is left alone: its interval and its end stay. A machine that joins later takes samples to the same end,
and the others take up its address. One that has ended is never mixed with a new one.

Pure. What machines say is data of theirs, and checked.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..text_table import aligned
from . import durations
from .watch_table import moment, share

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
"""Names that are safe in the name of a unit and of a file."""

TIMEOUT = 2.0
"""Seconds after which an answer counts as lost."""

LEAST_INTERVAL = 3
LONGEST = 366 * 86400
_LONGEST_INTERVAL = 86400

_ENDED = (
    "a watch named {name} has ended on {machines} and its samples are there still. Collect it (-e watch_action=collect) and "
    "remove it (-e watch_action=remove), or name this one: -e watch_name=another"
)
_LEFT = (
    "It runs already and is left as it is, so neither {lasts} nor {interval} changes it. For another beside it, give that a "
    "name: -e watch_name=another"
)
_SIMULATED = "SIMULATED machines take part: nothing measured there is real."

_TICK_BYTES = 48
_SAMPLE_BYTES = 12
_LEAST_LIMIT = 1 << 20
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Wish:
    """A watch as asked for.

    Attributes:
        name: of the watch.
        lasts, interval: spans of time as people write them.
        most_megabytes: what it may take on each machine's disk.
    """

    name: str
    lasts: str
    interval: str
    most_megabytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What starting would do.

    Attributes:
        problems: why nothing must be done, one sentence each; empty if all is well.
        does: by machine, ``start``, ``resume`` (its sampler is not running any more), ``update`` (peers came or went), ``keep``.
        configs: by machine, what its sampler is to be told.
        started, until: when the watch begins and ends.
        lines: all of it, for people.
    """

    problems: tuple[str, ...] = ()
    does: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    started: float = 0.0
    until: float = 0.0
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """What one machine says of a watch.

    Attributes:
        ping: it has the program.
        space: free bytes on its disk; None if it does not say.
        active: its sampler runs.
        failed: its sampler ended with an error.
        config: what its sampler was told; None without a watch.
        size, ticks, asked, lost: of the samples so far.
        last: time of the last of them, by its own clock.
        behind: seconds by which its clock is behind ours.
        names: of all watches there.
    """

    ping: bool
    space: float | None
    active: bool
    failed: bool
    config: Mapping[str, Any] | None
    size: int = 0
    ticks: int = 0
    asked: int = 0
    lost: int = 0
    last: float | None = None
    behind: float = 0.0
    names: tuple[str, ...] = ()

    @property
    def until(self) -> float:
        """When it ends; 0 without a watch."""
        return float(self.config["until"]) if self.config else 0.0

    def going(self, now: float) -> bool:
        """It has begun, not been stopped, and not reached its end."""
        return self.config is not None and not self.config.get("stopped") and self.until > now


def state(said: Mapping[str, Any], now: float) -> State:
    """What a machine's answer means.

    Raises:
        ValueError, KeyError, TypeError: it is not such an answer.
    """
    found = said["samples"] or {}
    config = said["config"]
    if config is not None:
        _check(config, now)
    last = found.get("last")
    return State(
        ping=bool(said["ping"]),
        space=float(said["space"]),
        active=said["active"] in ("active", "activating", "reloading"),
        failed=said["active"] == "failed",
        config=config,
        size=int(found.get("bytes", 0)),
        ticks=int(found.get("ticks", 0)),
        asked=int(found.get("asked", 0)),
        lost=int(found.get("lost", 0)),
        last=None if last is None else float(last),
        behind=now - float(said["now"]),
        names=tuple(str(name) for name in said["names"]),
    )


def _check(config: Mapping[str, Any], now: float) -> None:
    """Refuse a configuration that nobody here has written: what one machine says must not keep the others busy for ever."""
    if not LEAST_INTERVAL <= float(config["interval"]) <= _LONGEST_INTERVAL:
        raise ValueError("the interval cannot be")
    if not 0 < float(config["started"]) <= float(config["until"]) <= now + LONGEST + _LONGEST_INTERVAL:
        raise ValueError("the end cannot be")
    if not isinstance(config["peers"], dict):
        raise TypeError("the peers are no mapping")
    int(config["limit"])


def plan(
    wish: Wish,
    states: Mapping[str, State],
    peers: Mapping[str, str],
    now: float,
    *,
    simulated: Mapping[str, bool],
) -> Plan:
    """What starting the watch on these machines would do.

    Args:
        states: by machine, for those that are to take samples.
        peers: by name, the addresses of all that are to be measured; nobody measures itself.
        now: seconds since 1970.
        simulated: machines that stand in a sandbox.
    """
    problems = _problems(wish, states, peers)
    if problems:
        return Plan(problems=tuple(problems))
    lasts, interval = durations.seconds(wish.lasts), durations.seconds(wish.interval)
    going = {name: one for name, one in states.items() if one.going(now)}
    ended = [name for name, one in states.items() if name not in going and (one.config or one.ticks)]
    if ended:
        return Plan(problems=(_ENDED.format(name=wish.name, machines=", ".join(ended)),))
    running = [one.config for one in going.values() if one.config]
    started = min((float(config["started"]) for config in running), default=now)
    until = max((float(config["until"]) for config in running), default=now + lasts)
    every = max((float(config["interval"]) for config in running), default=float(interval))

    does: dict[str, str] = {}
    configs: dict[str, Mapping[str, Any]] = {}
    rows = [["machine", "does", "peers", "at most"]]
    for name, one in states.items():
        others = {peer: address for peer, address in sorted(peers.items()) if peer != name}
        config: dict[str, Any] = {
            "watch": wish.name,
            "host": name,
            "started": round(started, 3),
            "until": round(until, 3),
            "interval": every,
            "timeout": TIMEOUT,
            "peers": others,
            "simulated": simulated.get(name, True),
            "limit": _limit(until - now, every, others),
        }
        if name in going and one.config:
            kept = {field: one.config[field] for field in ("started", "until", "interval", "limit")}
            config |= kept
            if others != one.config["peers"]:
                config["limit"] = max(kept["limit"], one.size + _limit(until - now, every, others))
        if name not in going:
            does[name] = "start"
        elif config != one.config:
            does[name] = "update"
        else:
            does[name] = "keep" if one.active else "resume"
        configs[name] = config
        problems += _room(name, one, config, wish) if does[name] != "keep" else []
        rows.append([name, _does(does[name], one), str(len(others)), _megabytes(config["limit"])])
    span = f"until {moment(until)} ({durations.words(until - now)} from now)"
    lines = [f"Mesh watch {wish.name}: every {durations.words(every)} {span}."]
    if any(simulated.get(name, True) for name in states):
        lines.append(_SIMULATED)
    lines += ["", *aligned(rows, right=(2, 3))]
    if going and (round(until - now) != lasts or every != interval):
        lines.append(_LEFT.format(lasts=wish.lasts, interval=wish.interval))
    return Plan(tuple(problems), does, configs, started, until, tuple(lines))


def status(name: str, states: Mapping[str, State], now: float) -> list[str]:
    """How a watch is going, for people."""
    here = {host: one for host, one in states.items() if one.config}
    if not here:
        others = sorted({other for one in states.values() for other in one.names} - {name})
        known = f"There {'is' if len(others) == 1 else 'are'} {', '.join(others)}." if others else ""
        return [f"No machine that answers has a watch named {name}. {known}".strip()]
    rows = [["machine", "state", "until", "ticks", "samples", "lost", "last", "file"]]
    for host, one in states.items():
        if one.config is None:
            rows.append([host, "takes no part", "-", "-", "-", "-", "-", "-"])
            continue
        rows.append(
            [
                f"{host} (SIMULATED)" if one.config.get("simulated", True) else host,
                _state(one, now),
                moment(one.until),
                str(one.ticks),
                str(one.asked),
                share(one.lost, one.asked),
                "-" if one.last is None else f"{durations.words(now - one.behind - one.last)} ago",
                _megabytes(one.size),
            ]
        )
    lines = [f"Mesh watch {name}, as its samplers have it:", "", *aligned(rows, right=(3, 4, 5, 7))]
    for host, one in here.items():
        if one.failed or (one.going(now) and not one.active):
            lines.append(
                f"{host}: its sampler does not run; 'journalctl -u gpumesh-mesh-watch@{name}' says why."
            )
        if abs(one.behind) > 5:
            word = "behind" if one.behind > 0 else "ahead of"
            lines.append(
                f"{host}: its clock is {durations.words(abs(one.behind))} {word} the control machine's."
            )
    return lines


def progress(states: Mapping[str, State], now: float) -> str:
    """How far a short watch is, in one line."""
    here = [one for one in states.values() if one.config]
    until = max((one.until for one in here), default=now)
    asked, lost = sum(one.asked for one in here), sum(one.lost for one in here)
    left = f"{durations.words(until - now)} to go" if until > now else "done"
    return f"{left}: {asked} samples, {share(lost, asked)} lost"


def folder(name: str, states: Mapping[str, State]) -> str:
    """What the folder of a watch's results is called: by its name and when it began."""
    started = min((float(one.config["started"]) for one in states.values() if one.config), default=0.0)
    return f"{name}-{datetime.fromtimestamp(started, UTC):%Y%m%dT%H%MZ}"


def _problems(wish: Wish, states: Mapping[str, State], peers: Mapping[str, str]) -> list[str]:
    found = []
    if not NAME.fullmatch(wish.name):
        found.append(
            f"'{wish.name}' is no name for a watch: a-z, 0-9 and hyphens, at most 40, beginning with a letter or digit"
        )
    for what, text, least, most in (
        ("a watch lasts", wish.lasts, 1, LONGEST),
        ("the interval is", wish.interval, LEAST_INTERVAL, _LONGEST_INTERVAL),
    ):
        try:
            span = durations.seconds(text)
        except ValueError as exc:
            found.append(str(exc))
            continue
        if not least <= span <= most:
            found.append(f"{what} {durations.words(least)} to {durations.words(most)}, not {text}")
    for name, address in peers.items():
        try:
            ipaddress.ip_address(address)
        except ValueError:
            found.append(f"the address of {name} is no IP address: '{address}'")
    if not states:
        found.append("no machine that answers is a member of the mesh, so nobody can take samples")
    for name, one in states.items():
        if not one.ping:
            found.append(f"{name}: the program ping is missing; install iputils-ping")
        if not set(peers) - {name}:
            found.append(f"{name}: there is no other member to measure")
    return found


def _room(name: str, one: State, config: Mapping[str, Any], wish: Wish) -> list[str]:
    limit = config["limit"]
    advice = "take a longer interval"
    if limit > wish.most_megabytes * _MEGABYTE:
        allowed = f"{wish.most_megabytes} MB are allowed"
        advice += ", or allow more: mesh_watch_most_megabytes"
        return [f"{name}: the samples could take {_megabytes(limit)}, and {allowed}; {advice}"]
    if one.space is not None and limit - one.size > 0.5 * one.space:
        free = f"{_megabytes(one.space)} are free on its disk"
        return [f"{name}: the samples could take {_megabytes(limit)}, and {free}; {advice}, or make room"]
    return []


def _limit(seconds: float, interval: float, peers: Mapping[str, str]) -> int:
    """Bytes its file may take: half as much again as the samples should."""
    tick = _TICK_BYTES + sum(len(peer) + _SAMPLE_BYTES for peer in peers)
    return max(_LEAST_LIMIT, int(1.5 * tick * (seconds / interval + 1)))


def _does(what: str, one: State) -> str:
    return {
        "start": "starts",
        "resume": "starts again" + (", after a failure" if one.failed else ""),
        "update": "goes on, with other peers",
        "keep": "runs already",
    }[what]


def _state(one: State, now: float) -> str:
    if one.config and one.config.get("stopped"):
        return "stopped"
    if one.until <= now:
        return "finished"
    return "running" if one.active else "failed" if one.failed else "not running"


def _megabytes(size: Any) -> str:
    return f"{float(size) / _MEGABYTE:.1f} MB"
