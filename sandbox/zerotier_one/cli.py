# SPDX-License-Identifier: GPL-3.0-or-later
"""The program ``zerotier-cli``: asks the daemon of this host."""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .build import Build
from .home import DEFAULT

_SETTINGS = ("allowManaged", "allowGlobal", "allowDefault", "allowDNS")
_SECONDS = 60
_HELP = """\
ZeroTier One version {version} (SIMULATED)
Usage: zerotier-cli [-switches] <command/path> [<args>]

Available switches:
  -h                      - Display this help
  -v                      - Show version
  -j                      - Display full raw JSON output
  -D<path>                - ZeroTier home path for parameter auto-detect
  -p<port>                - HTTP port (default: auto)
  -T<token>               - Authentication token (default: auto)

Available commands:
  info                    - Display status info
  listpeers               - List all peers
  peers                   - List all peers (prettier)
  listnetworks            - List all networks
  join <network ID>       - Join a network
  leave <network ID>      - Leave a network
  set <network ID> <setting>=<true|false> - Set a network setting
  get <network ID> <setting> - Get a network setting
  listmoons               - List moons (federated root sets)
"""


@dataclass(slots=True)
class _Options:
    home: Path = DEFAULT
    port: int = 0
    token: str = ""
    raw: bool = False
    words: list[str] = field(default_factory=list)


class _Failed(Exception):
    """Ends the program with this status, after this text on standard output or error."""

    def __init__(self, status: int, text: str, *, out: bool = True) -> None:
        super().__init__(text)
        self.status = status
        self.stream = sys.stdout if out else sys.stderr


def main(arguments: Sequence[str], build: Build) -> int:
    """Run it; the exit status."""
    options = _Options()
    for argument in arguments:
        value = argument[2:]
        match argument[:2]:
            case "-j":
                options.raw = True
            case "-D" if value:
                options.home = Path(value)
            case "-p" if value.isdigit():
                options.port = int(value)
            case "-T" if value:
                options.token = value
            case "-v":
                print(f"{build.version} SIMULATED")
                return 0
            case "-q":
                pass
            case flag if flag.startswith("-"):
                print(_HELP.format(version=build.version), end="")
                return 0 if flag in ("-h", "-?") else 1
            case _:
                options.words.append(argument)
    command = options.words[0] if options.words else ""
    work = _COMMANDS.get(command)
    try:
        if command.startswith("/"):
            _settle(options)
            print(_ask(options, "GET", command, command), end="")
        elif work is None:
            print(_HELP.format(version=build.version), end="", file=sys.stderr)
        else:
            _settle(options)
            work(options)
    except _Failed as failure:
        print(failure, file=failure.stream)
        return failure.status
    return 0


def _settle(options: _Options) -> None:
    """Find port and token where they are not given. The token is used as it is in the file, line end included."""
    if not options.port:
        text = _text(options.home / "zerotier-one.port")
        if not text.strip().isdigit():
            raise _Failed(
                2, f"zerotier-cli: missing port and zerotier-one.port not found in {options.home}", out=False
            )
        options.port = int(text)
    if not options.token:
        options.token = _text(options.home / "authtoken.secret") or _text(
            Path(os.environ.get("HOME", "/")) / ".zeroTierOneAuthToken"
        )
    if not options.token:
        raise _Failed(
            2,
            f"zerotier-cli: authtoken.secret not found or readable in {options.home} (try again as root)",
            out=False,
        )


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError:
        return ""


def _ask(options: _Options, method: str, path: str, command: str, content: object = None) -> str:
    """The text of a good answer."""
    connection = http.client.HTTPConnection("127.0.0.1", options.port, timeout=_SECONDS)
    body = None if content is None else json.dumps(content)
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        # A header cannot hold a line end, so a token that ends in one is simply the wrong one.
        headers["X-ZT1-Auth"] = options.token if options.token.isprintable() else "-"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    except OSError as error:
        raise _Failed(
            1,
            f"Error connecting to the ZeroTier service: {error.strerror or error}\n\nPlease check that the service is "
            "running and that TCP port 9993 can be contacted via 127.0.0.1.",
        ) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise _Failed(1, f"{answer.status} {command} {text}")
    return text


def _read(options: _Options, path: str) -> Any:
    return json.loads(_ask(options, "GET", path, options.words[0]))


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False))


def _info(options: _Options) -> None:
    status = _read(options, "/status")
    if options.raw:
        _print_json(status | {"simulated": True})
        return
    line = "ONLINE" if status["online"] else "OFFLINE"
    print(f"200 info {status['address']} {status['version']} {line} SIMULATED")


def _list_networks(options: _Options) -> None:
    networks = _read(options, "/network")
    if options.raw:
        _print_json(networks)
        return
    print("200 listnetworks <nwid> <name> <mac> <status> <type> <dev> <ZT assigned ips>")
    for network in networks:
        words = [network[name] for name in ("nwid", "name", "mac", "status", "type", "portDeviceName")]
        print("200 listnetworks", *words, ",".join(network["assignedAddresses"]) or "-")


def _list_peers(options: _Options) -> None:
    peers = _read(options, "/peer")
    if options.raw:
        _print_json(peers)
        return
    print("200 listpeers <ztaddr> <path> <latency> <version> <role>")
    for peer in peers:
        sent, received, address = _path(peer)
        path = f"{address};{sent};{received}" if address else "-"
        print(f"200 listpeers {peer['address']} {path} {peer['latency']} {peer['version']} {peer['role']}")


def _peers(options: _Options) -> None:
    peers = _read(options, "/peer")
    if options.raw:
        _print_json(peers)
        return
    print("200 peers\n<ztaddr>   <ver>  <role> <lat> <link>   <lastTX> <lastRX> <path>")
    for peer in peers:
        sent, received, address = _path(peer)
        link = f"DIRECT   {sent:<8} {received:<8} {address}" if address else "RELAY"
        print(f"{peer['address']} {peer['version']:<6} {peer['role']:<6} {peer['latency']:>5} {link}")


def _path(peer: dict[str, Any]) -> tuple[int, int, str]:
    """How many milliseconds ago was sent and received on the preferred path, and its address."""
    now = time.time_ns() // 1_000_000
    for path in peer["paths"]:
        if path["preferred"]:
            sent, received = (now - path[name] if path[name] else -1 for name in ("lastSend", "lastReceive"))
            return sent, received, path["address"]
    return -1, -1, ""


def _network_word(options: _Options) -> str:
    network = options.words[1] if len(options.words) > 1 else ""
    if len(network) != 16:
        raise _Failed(2, "invalid network id")
    return network


def _join(options: _Options) -> None:
    text = _ask(options, "POST", f"/network/{_network_word(options)}", "join", {})
    print(text if options.raw else "200 join OK")


def _leave(options: _Options) -> None:
    text = _ask(options, "DELETE", f"/network/{_network_word(options)}", "leave")
    print(text if options.raw else "200 leave OK")


def _set(options: _Options) -> None:
    network = _network_word(options)
    name, _, value = (options.words[2] if len(options.words) > 2 else "").partition("=")
    if name not in _SETTINGS or not value:
        raise _Failed(2, "invalid format: include a property name to set", out=False)
    content = {name: value[:1] in ("t", "1")}
    print(_ask(options, "POST", f"/network/{network}", "set", content))


def _get(options: _Options) -> None:
    """A field of a joined network as text; ``ip`` and ``ip4`` and so on are its first address of that kind."""
    network, name = _network_word(options), options.words[2] if len(options.words) > 2 else ""
    found: dict[str, Any] = next((n for n in _read(options, "/network") if n["nwid"] == network), {})
    addresses = [address.partition("/")[0] for address in found.get("assignedAddresses", [])]
    kinds = {
        "ip": addresses,
        "ip4": [address for address in addresses if ":" not in address],
        "ip6": [address for address in addresses if address.startswith(("fd", "fc"))],
    }
    if name in kinds:
        print("\n".join(kinds[name][:1]))
    else:
        value = found.get(name)
        print(value if isinstance(value, str) else json.dumps(value))


def _list_moons(options: _Options) -> None:
    _print_json(_read(options, "/moon"))


_COMMANDS: dict[str, Callable[[_Options], None]] = {
    "info": _info,
    "status": _info,
    "listnetworks": _list_networks,
    "listpeers": _list_peers,
    "peers": _peers,
    "join": _join,
    "leave": _leave,
    "set": _set,
    "get": _get,
    "listmoons": _list_moons,
}
