# SPDX-License-Identifier: GPL-3.0-or-later
"""PyTorch: is every GPU there, does each compute a right answer, and do all of them together take a right training step?

Each GPU has a process of its own, as in data-parallel training. First each multiplies two matrices of whole numbers, then all
learn a linear function with DistributedDataParallel.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from argparse import Namespace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import children
import reference
import stepping
import workload

SECONDS = 120.0
"""How long a single order to the processes may take."""


class Rank:
    """What one process does; each method is an order."""

    def __init__(self, index: int, world: int, options: Namespace, folder: str) -> None:
        import torch

        self.torch = torch
        self.index, self.world, self.folder = index, world, folder
        self.kind = options.device
        self.device = torch.device(self.kind, index) if self.kind == "cuda" else torch.device("cpu")
        self.share = options.share
        torch.set_num_threads(1)

    def kernel(self) -> dict[str, Any]:
        """Multiply, and count what is wrong."""
        torch = self.torch
        if self.kind == "cuda":
            torch.cuda.set_device(self.device)
            torch.cuda.set_per_process_memory_fraction(self.share, self.device)
        many = stepping.tiles(self.kind)
        left, right = (
            torch.tensor(one, device=self.device).repeat(many, many) for one in reference.factors()
        )
        found = torch.relu(3 * (left @ right) - 7).cpu()
        expected = torch.tensor(reference.answer(many)).repeat(many, many)
        return {"value": int((found != expected).sum()), "of": expected.numel()}

    def join(self) -> dict[str, Any]:
        """Find the other processes."""
        torch = self.torch
        torch.distributed.init_process_group(
            "nccl" if self.kind == "cuda" else "gloo",
            init_method=Path(self.folder, "rendezvous").as_uri(),
            rank=self.index,
            world_size=self.world,
        )
        self.model = torch.nn.parallel.DistributedDataParallel(
            torch.nn.Linear(reference.FEATURES, 1, bias=False).to(self.device),
            device_ids=[self.index] if self.kind == "cuda" else None,
        )
        inputs, outputs = reference.samples(self.world)[self.index]
        self.inputs = torch.tensor(inputs, device=self.device)
        self.outputs = torch.tensor(outputs, device=self.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=reference.RATE)
        return {}

    def step(self) -> dict[str, Any]:
        """Learn from zero."""
        torch = self.torch
        weights = self.model.module.weight
        with torch.no_grad():
            weights.zero_()
        for _step in range(reference.STEPS):
            self.optimizer.zero_grad()
            torch.nn.functional.mse_loss(self.model(self.inputs).squeeze(1), self.outputs).backward()
            self.optimizer.step()
        found = weights.detach().flatten().tolist()
        return {"value": reference.difference(found, reference.learned(self.world))}


def serve(index: int, world: int, options: Namespace, folder: str, orders: Connection, parent: int) -> None:
    """Carry out orders until there are no more. An order that fails is answered with the reason."""
    children.die_with_parent(parent)
    rank = None
    while True:
        try:
            order = orders.recv()
        except EOFError:
            return
        try:
            rank = rank or Rank(index, world, options, folder)
            orders.send(getattr(rank, order)())
        except Exception as problem:
            orders.send({"value": None, "says": stepping.said(problem)})


class Ranks:
    """One process for each GPU."""

    def __init__(self, world: int, options: Namespace, folder: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for index in range(world):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve, args=(index, world, options, folder, theirs, os.getpid()), daemon=True
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def all(self, order: str) -> list[dict[str, Any]]:
        """Give an order to all, and wait for all of them; where one fails, for no other."""
        for pipe in self.pipes:
            pipe.send(order)
        answers: dict[int, dict[str, Any]] = {}
        until = time.monotonic() + SECONDS
        while len(answers) < len(self.pipes):
            left = [pipe for index, pipe in enumerate(self.pipes) if index not in answers]
            ready = wait(left, timeout=max(0.0, until - time.monotonic()))
            for index, pipe in enumerate(self.pipes):
                if pipe in ready and index not in answers:
                    answers[index] = self._answer(index, pipe)
            failed = any("says" in answer for answer in answers.values())
            if not ready or (failed and order != "kernel"):
                break
        missing = {"value": None, "says": "it waited for another GPU, or did not answer in time"}
        return [answers.get(index, missing) for index in range(len(self.pipes))]

    def _answer(self, index: int, pipe: Connection) -> dict[str, Any]:
        try:
            return dict(pipe.recv())
        except EOFError:
            self.processes[index].join(5)
            return {
                "value": None,
                "says": f"its process ended with status {self.processes[index].exitcode}",
            }

    def end(self) -> None:
        """Processes that wait for each other hear no order any more."""
        for process in self.processes:
            process.kill()


def main() -> None:
    """Print the figures that the checks ``pytorch`` and ``coexistence`` judge."""
    options = stepping.options(__doc__ or "")
    children.clean_up_when_ended()
    # Frameworks are for one machine here; a name that leads elsewhere must not matter.
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")
    torch = workload.framework("torch")
    workload.begin("torch_step", options, torch=torch.__version__, cuda=torch.version.cuda or "none")
    if options.device == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = [torch.cuda.get_device_name(index) for index in range(count)]
    else:
        count, names = options.workers, ["CPU"] * options.workers
    workload.figure("devices", count, names=names)
    if count:
        with tempfile.TemporaryDirectory(prefix="gpumesh-") as folder:
            ranks = Ranks(count, options, folder)
            try:
                compute(ranks, options)
            finally:
                ranks.end()
    workload.end()


def compute(ranks: Ranks, options: Namespace) -> None:
    """Each alone, then all together."""
    with workload.phase("kernel"):
        alone = ranks.all("kernel")
    for index, answer in enumerate(alone):
        workload.figure("wrong elements", answer.pop("value"), gpu=index, **answer)
    if any("says" in answer for answer in alone):
        return
    workload.progress(0.5, "every device computed alone")
    joined = ranks.all("join")
    stepping.hold(options)
    worst = joined
    steps = 0
    if not any("says" in answer for answer in joined):
        with workload.phase("step"):
            until = time.monotonic() + options.seconds
            while True:
                answers = ranks.all("step")
                steps += reference.STEPS
                worst = [worse(one, other) for one, other in zip(worst, answers, strict=True)]
                if any("says" in answer for answer in answers) or time.monotonic() >= until:
                    break
    for index, answer in enumerate(worst):
        workload.figure("step difference", answer.pop("value", None), gpu=index, **answer)
    workload.figure("steps", steps)


def worse(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The one that has failed, or is further from the right answer."""
    if "says" in one or "says" in other:
        return one if "says" in one else other
    return max(one, other, key=lambda answer: float(answer.get("value", -1.0)))


if __name__ == "__main__":
    main()
