# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines as systemd containers, with an address, sshd and cloud-init of their own.

Everything a machine is told travels as a tar archive over the standard input of ``docker cp`` into the container before
its first start. So user data, which may hold a private host key, is on no process's argument list, in no environment
and in no file of this machine that others can read.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..gpu import cloud as gpu_cloud
from . import rescue
from .base import Addresses, BackendError, Machine
from .seed import REBOOT_MARK, archive

NETWORK = "gpumesh-sandbox"
SUBNET = "10.77.0.0/24"
_MTU = 2800
"""That of a ZeroTier network by default, since an interface of the mesh has no more than the one it is on."""
_LABEL = "gpumesh.sandbox"
_IMAGES = {"debian-12": "gpumesh/host:debian-12"}
DEFAULT_IMAGE = "gpumesh/host:debian-13"
_SECONDS = 120
"""Longest time for one docker command."""
_AT_ONCE = 4
"""Machines booted at the same time; more only compete for the processor."""
_OPTIONS = (
    "--pull=never", "--cgroupns=host", "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cap-add=NET_RAW",
    "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
    # Lets a Docker engine inside write its net.* settings under /proc/sys.
    "--security-opt=systempaths=unconfined",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw", "--tmpfs=/run", "--tmpfs=/run/lock",
    # An engine inside could not use overlay2 on the container's own overlay.
    "--volume=/var/lib/docker",
    "--stop-signal=SIGRTMIN+3", "--env=container=docker",
)  # fmt: skip
# Once sshd runs nothing makes keys any more: cloud-init's and Debian's own makers come before it.
_HOST_KEYS = "systemctl --quiet is-active ssh && cat /etc/ssh/ssh_host_*_key.pub"
_PUBLIC_KEY = re.compile(r"^((?:ssh|ecdsa)-[a-z0-9-]+) ([A-Za-z0-9+/]+=*)(?: |$)", re.MULTILINE)


class ContainerBackend:
    """Implements :class:`sandbox.backends.base.Backend`.

    Args:
        sandbox_id: of ``[a-z0-9]``; containers of an earlier run with the same id are removed at the start.

    Attributes:
        on_network: called with the gateway's address before a machine is made, when their network is there.
        gpu_archives: where machines with GPUs get their kernel; such a machine has no GPU while this is empty.
    """

    name = "container"

    def __init__(self, sandbox_id: str, *, network: str = NETWORK, subnet: str = SUBNET) -> None:
        self.id = sandbox_id
        self.network = network
        self.on_network: Callable[[str], Awaitable[None]] | None = None
        self.gpu_archives = ""
        self._subnet = ipaddress.IPv4Network(subnet)
        self._addresses: dict[str, str] = {}
        self._elsewhere: set[str] = set()
        self._running: dict[str, bool] = {}
        self._rescued: set[str] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._network_lock = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._remove_leftovers()
        await self._learn_addresses()
        if not await self._docker("image", "ls", "--quiet", DEFAULT_IMAGE):
            raise BackendError(f"the image {DEFAULT_IMAGE} is missing; run tools/host-image")

    async def close(self) -> None:
        if self._watcher:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
            self._watcher = None
        self._addresses.clear()
        self._running.clear()
        self._rescued.clear()
        await self._remove_leftovers()
        others = await self._docker("ps", "--all", "--quiet", f"--filter=network={self.network}", check=False)
        if not others:
            await self._docker("network", "rm", self.network, check=False)

    async def _remove_leftovers(self) -> None:
        found = (await self._docker("ps", "--all", "--quiet", f"--filter=label={_LABEL}={self.id}")).split()
        if found:
            await self._docker("rm", "--force", "--volumes", *found)
        disks = (await self._docker("volume", "ls", "--quiet", f"--filter=label={_LABEL}={self.id}")).split()
        if disks:
            await self._docker("volume", "rm", *disks)

    async def _learn_addresses(self) -> None:
        """What other sandboxes on this machine use of the same network."""
        text = await self._docker(
            "ps", "--all", "--filter=label=gpumesh.address", '--format={{.Label "gpumesh.address"}}'
        )
        self._elsewhere = set(text.split())

    def reserve(self, key: str) -> Addresses:
        if key not in self._addresses:
            self._addresses[key] = self._free_address()
        ip = self._addresses[key]
        return Addresses(ipv4=ip, internal=ip, ipv6=f"2001:db8:77:{int(ip.rpartition('.')[2]):x}::/64")

    def _free_address(self) -> str:
        used = {*self._addresses.values(), *self._elsewhere}
        hosts = [str(host) for host in self._subnet.hosts()][1:]  # the first is the gateway
        # Two sandboxes that start at the same time do not know of each other, so each begins somewhere else.
        first = int(hashlib.sha256(self.id.encode()).hexdigest(), 16) % len(hosts)
        for ip in hosts[first:] + hosts[:first]:
            if ip not in used:
                return ip
        raise BackendError(f"no address is left in {self._subnet}")

    async def create(self, machine: Machine) -> None:
        ip = self._addresses.get(machine.key)
        if not ip:
            raise BackendError(f"no addresses are reserved for {machine.key}")
        if not self._watcher:
            self._watcher = asyncio.ensure_future(self._watch())
        async with self._slots:
            await self._ensure_network()
            name = self._container(machine.key)
            await self._make(name, machine, ip)
            hardware = gpu_cloud.hardware(machine) if self.gpu_archives else None
            if hardware:
                await self._docker("cp", "-", f"{name}:/", stdin=hardware)
            await self._docker("start", name)
            self._running[machine.key] = True
            if hardware:
                script = gpu_cloud.setup(machine, self.gpu_archives)
                await self._docker("exec", "--interactive", name, "sh", "-s", stdin=script.encode())
            await self._learn_addresses()

    async def _make(self, name: str, machine: Machine, ip: str, *options: str) -> None:
        await self._docker(
            "create", f"--name={name}", f"--hostname={machine.hostname}", f"--network={self.network}", f"--ip={ip}",
            f"--label={_LABEL}={self.id}", f"--label=gpumesh.address={ip}", f"--label=gpumesh.key={machine.key}",
            f"--label=gpumesh.hostname={machine.hostname}",
            *options, *_OPTIONS, _IMAGES.get(machine.image, DEFAULT_IMAGE), "/sbin/init",
        )  # fmt: skip
        await self._docker("cp", "-", f"{name}:/", stdin=archive(machine))

    async def rescue(self, key: str, public_keys: tuple[str, ...]) -> None:
        async with self._slots:
            main, ip = self._main(key), self._addresses[key]
            await self._docker("rm", "--force", "--volumes", self._rescue(key), check=False)
            fresh = not await self._docker("volume", "ls", "--quiet", f"--filter=name=^{self._disk(key)}$")
            if fresh:
                await self._docker("volume", "create", f"--label={_LABEL}={self.id}", self._disk(key))
            # Another key than the machine's: cloud-init makes host keys of its own there.
            system = Machine(f"{key}-rescue", "rescue", "debian-13", public_keys=public_keys)
            volume = f"--volume={self._disk(key)}:{rescue.FOLDER}"
            await self._make(self._rescue(key), system, ip, volume, "--label=gpumesh.rescue=1")
            await self._docker("cp", "-", f"{self._rescue(key)}:/", stdin=rescue.archive())
            for folder in rescue.KEPT if fresh else ():
                files = await docker_bytes(("cp", f"{main}:{folder}", "-"))
                where = f"{rescue.SYSTEM}{folder.rpartition('/')[0]}"
                await self._docker("cp", "-", f"{self._rescue(key)}:{where}", stdin=files)
            self._rescued.add(key)
            await self._docker("start", self._rescue(key))
            self._running[key] = True

    async def _ensure_network(self) -> None:
        async with self._network_lock:
            if not await self._network_id():
                await self._docker(
                    "network",
                    "create",
                    f"--subnet={self._subnet}",
                    f"--opt=com.docker.network.driver.mtu={_MTU}",
                    "--label=gpumesh.network=1",
                    self.network,
                )
            if self.on_network:
                await self.on_network(str(next(self._subnet.hosts())))

    async def _network_id(self) -> str:
        return await self._docker("network", "ls", "--quiet", f"--filter=name=^{self.network}$")

    async def bridge(self) -> str:
        """This machine's interface to the machines' network; empty while there is none."""
        network = await self._network_id()
        return f"br-{network[:12]}" if network else ""

    async def start(self, key: str) -> None:
        async with self._slots:
            if key in self._rescued and not self._running.get(key):
                await self._docker("rm", "--force", "--volumes", self._rescue(key), check=False)
                self._rescued.discard(key)
            await self._docker("start", self._container(key))
            self._running[key] = True

    async def stop(self, key: str) -> None:
        await self._docker("stop", "--time=20", self._container(key))
        self._running[key] = False

    async def _watch(self) -> None:
        """See machines that stop by themselves: one that was shut down from inside is off, a rebooting one comes back."""
        process = await asyncio.create_subprocess_exec(
            "docker", "events", f"--filter=label={_LABEL}={self.id}", "--filter=event=die",
            '--format={{index .Actor.Attributes "gpumesh.key"}}',
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            while process.stdout and (line := await process.stdout.readline()):
                await self._died(line.decode().strip())
        finally:
            process.kill()
            await process.wait()

    async def _died(self, key: str) -> None:
        if not self._running.get(key):
            return
        name = self._container(key)
        if await self._docker("cp", f"{name}:{REBOOT_MARK}", "-", check=False):
            await self._docker("start", name, check=False)
            await self._docker("exec", name, "rm", "-f", REBOOT_MARK, check=False)
        else:
            self._running[key] = False

    async def delete(self, key: str) -> None:
        self._running.pop(key, None)
        self._rescued.discard(key)
        await self._docker("rm", "--force", "--volumes", self._main(key), self._rescue(key), check=False)
        if await self._docker("ps", "--all", "--quiet", f"--filter=name=^{self._main(key)}(-rescue)?$"):
            raise BackendError(f"the container of {key} could not be removed")
        await self._docker("volume", "rm", "--force", self._disk(key), check=False)
        self._addresses.pop(key, None)

    async def host_keys(self, key: str) -> tuple[tuple[str, str], ...]:
        text = await self._docker("exec", self._container(key), "sh", "-c", _HOST_KEYS, check=False)
        return tuple((match[1], match[2]) for match in _PUBLIC_KEY.finditer(text))

    def running(self, key: str) -> bool | None:
        return self._running.get(key)

    async def inventory(self) -> list[dict[str, Any]]:
        found = (await self._docker("ps", "--all", "--quiet", f"--filter=label={_LABEL}={self.id}")).split()
        if not found:
            return []
        return [
            {
                "key": container["Config"]["Labels"]["gpumesh.key"],
                "hostname": container["Config"]["Labels"]["gpumesh.hostname"],
                "ipv4": container["Config"]["Labels"]["gpumesh.address"],
                "running": container["State"]["Running"],
            }
            for container in json.loads(await self._docker("inspect", *found))
            if "gpumesh.rescue" not in container["Config"]["Labels"]
        ]

    def _container(self, key: str) -> str:
        """The container a machine runs in now: its own, or its rescue system's."""
        return self._rescue(key) if key in self._rescued else self._main(key)

    def _main(self, key: str) -> str:
        return f"gpumesh-{self.id}-{key}"

    def _rescue(self, key: str) -> str:
        return f"{self._main(key)}-rescue"

    def _disk(self, key: str) -> str:
        return f"{self._main(key)}-disk"

    async def _docker(self, *words: str, stdin: bytes | None = None, check: bool = True) -> str:
        """Run the docker command; its standard output."""
        return await docker(words, stdin=stdin, check=check)


async def docker(words: Sequence[str], *, stdin: bytes | None = None, check: bool = True) -> str:
    """Run the docker command line client; what it says.

    Raises:
        BackendError: see :func:`docker_bytes`.
    """
    return (await docker_bytes(words, stdin=stdin, check=check)).decode(errors="replace").strip()


async def docker_bytes(words: Sequence[str], *, stdin: bytes | None = None, check: bool = True) -> bytes:
    """Run the docker command line client; what it puts out.

    Raises:
        BackendError: there is none, it takes too long, or it fails (unless ``check`` is off).
    """
    try:
        process = await asyncio.create_subprocess_exec(
            "docker",
            *words,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Not the terminal's interrupt: it would end them in the middle of our own tidying up.
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise BackendError("the docker command is not installed; run tools/docker-engine") from error
    ending = asyncio.ensure_future(process.communicate(stdin))
    try:
        out, err = await asyncio.wait_for(asyncio.shield(ending), _SECONDS)
    except TimeoutError as error:
        process.kill()
        await ending
        raise BackendError(f"docker {words[0]} took longer than {_SECONDS} s") from error
    except asyncio.CancelledError:
        # A create that is cut off could make its container after we have looked for what is to be removed.
        await ending
        raise
    if check and process.returncode:
        reason = err.decode(errors="replace").strip().splitlines()
        raise BackendError(f"docker {words[0]} failed: {reason[-1] if reason else process.returncode}")
    return out
