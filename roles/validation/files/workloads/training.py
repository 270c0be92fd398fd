# SPDX-License-Identifier: GPL-3.0-or-later
"""How much faster do all GPUs together train ResNet-50 than one, and what is lost on the way?

Weak scaling: the same batch on every GPU, whatever their number. Three measurements, one code path (DistributedDataParallel), one
process each: every GPU alone; all at once, each for itself; all together. What the second loses against the first is contention
(power, heat, host); what the third loses against the second is communication.

The data is made up, lies on the GPU, and can be learnt: each class has a picture of its own, with noise on it. So the loss must fall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cards
import groups
import team
import workload

_CLASSES = 10
_OUTPUTS = 1000
_BATCHES = 4
_TAIL = 4
"""Steps whose mean is the last loss."""
_MOST_STEPS = 400
_SEED = 1


@dataclass(frozen=True)
class Plan:
    """How long it goes on.

    Attributes:
        image: edge length in pixels.
        least: the least steps of a repeat; it has more where they do not last `seconds`.
        seconds: of a measurement, over all its repeats; None: there are no more than the least steps.
        rate: how fast it learns.
    """

    model: str
    image: int
    batch: int
    warm_up: int
    repeats: int
    least: dict[str, int]
    seconds: dict[str, float] | None
    rate: float


_TWENTY = {"single": 20, "concurrent": 20, "ddp": 20}
# The CPU's are there to show that all of it works, in a minute and a half on two slow cores.
_PLANS = {
    ("cuda", "small"): Plan(
        "ResNet-50", 224, 32, 20, 3, _TWENTY, {"single": 3, "concurrent": 4, "ddp": 8}, 0.05
    ),
    ("cuda", "full"): Plan(
        "ResNet-50", 224, 32, 20, 5, _TWENTY, {"single": 10, "concurrent": 15, "ddp": 30}, 0.05
    ),
    ("cpu", "small"): Plan("ResNet-18", 32, 8, 1, 3, {"single": 3, "concurrent": 3, "ddp": 5}, None, 0.02),
    ("cpu", "full"): Plan("ResNet-50", 32, 8, 2, 3, {"single": 4, "concurrent": 4, "ddp": 8}, None, 0.02),
}


class Trainer:
    """A model that is trained, by this process alone or together with others."""

    def __init__(self, card: cards.Card, torchvision: ModuleType, plan: Plan, group: Any) -> None:
        torch = card.torch
        torch.manual_seed(_SEED)
        self.card = card
        self.plan = plan
        self._loss = torch.nn.CrossEntropyLoss()
        make = getattr(torchvision.models, plan.model.lower().replace("-", ""))
        model = make(weights=None, num_classes=_OUTPUTS).to(card.device)
        if card.cuda:
            model = model.to(memory_format=torch.channels_last)
        self.parameters = list(model.parameters())
        self.model = torch.nn.parallel.DistributedDataParallel(
            model, device_ids=[card.index] if card.cuda else None, process_group=group
        )
        self._optimiser = torch.optim.SGD(self.parameters, lr=plan.rate, momentum=0.9)
        self._data = _data(card, plan)
        self._step = 0
        self.losses: list[Any] = []

    def step(self) -> None:
        """One step; its loss is kept where it is, for reading it would make the GPU wait."""
        images, labels = self._data[self._step % len(self._data)]
        self._step += 1
        self._optimiser.zero_grad(set_to_none=True)
        loss = self._loss(self.model(images), labels)
        loss.backward()
        self._optimiser.step()
        self.losses.append(loss.detach())

    def checksum(self) -> int:
        """Of all weights, bit by bit."""
        torch = self.card.torch
        found = 0
        for one in self.parameters:
            bits = one.detach().reshape(-1).view(torch.int32).long()
            # Each place counts differently, so that two that are swapped do not cancel out.
            place = torch.arange(bits.numel(), device=bits.device) % 65_521 + 1
            found = (found * 1_000_003 + int((bits * place).sum().item())) % (1 << 56)
        return found

    def is_finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(bool(one.detach().isfinite().all()) for one in self.parameters)


def _data(card: cards.Card, plan: Plan) -> list[tuple[Any, Any]]:
    torch = card.torch
    # The pictures are the same for all, the noise and the order are each process's own.
    common = torch.Generator().manual_seed(_SEED)
    own = torch.Generator().manual_seed(100 + card.index)
    pictures = torch.randn(_CLASSES, 3, plan.image, plan.image, generator=common)
    made = []
    for _round in range(_BATCHES):
        labels = torch.randint(0, _CLASSES, (plan.batch,), generator=own)
        noise = torch.randn(plan.batch, 3, plan.image, plan.image, generator=own)
        images = (pictures[labels] + 0.5 * noise).to(card.device)
        if card.cuda:
            images = images.contiguous(memory_format=torch.channels_last)
        made.append((images, labels.to(card.device)))
    return made


class _Run:
    """What one process does."""

    def __init__(
        self, torch: ModuleType, torchvision: ModuleType, options: Any, meet: str, barrier: Any, index: int
    ) -> None:
        self.card = cards.Card(torch, options.device, index)
        self.workers = options.workers
        self.index = index
        plan = _PLANS[options.device, options.size]
        self.plan = Plan(**{**vars(plan), "batch": options.batch}) if options.batch else plan
        self._torchvision = torchvision
        self._barrier = barrier
        self._group = groups.Group(self.card, options.workers, meet)
        self._alone = self._group.alone(index)
        if self.card.cuda:
            # Both are what PyTorch does by default for convolutions; said here so that all versions do the same.
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True

    def describe(self, trainer: Trainer) -> None:
        if self.index:
            return
        plan = self.plan
        parameters = sum(one.numel() for one in trainer.parameters)
        workload.figure(
            "model",
            plan.model,
            image=plan.image,
            batch=plan.batch,
            precision="tf32" if self.card.cuda and self.card.capability >= (8, 0) else "fp32",
            parameters=parameters,
            classes=_CLASSES,
        )
        workload.figure(
            "gradients", sum(one.numel() * one.element_size() for one in trainer.parameters), "bytes"
        )

    def rate(self, name: str, trainer: Trainer, together: bool) -> None:
        """Samples a second: of this process, or of all together by the slowest."""
        card, plan = self.card, self.plan
        for _round in range(plan.warm_up):
            trainer.step()
        card.wait()
        steps = plan.least[name]
        if plan.seconds:
            one = card.seconds(trainer.step, 3) / 3
            wanted = math.ceil(plan.seconds[name] / plan.repeats / max(one, 1e-6))
            steps = max(steps, min(_MOST_STEPS, wanted))
        if together:
            # All must do as many steps, or they wait for each other for ever.
            steps = int(self._group.slowest(steps))
        rounds = []
        with workload.phase(name, self.index):
            for _round in range(plan.repeats):
                seconds = card.seconds(trainer.step, steps) / steps
                rounds.append(self._group.slowest(seconds) if together else seconds)
        found = cards.Rounds(rounds)
        batch = plan.batch * (self.workers if together else 1)
        more = {**found.more, "steps": steps, "seconds": found.median}
        if not together:
            workload.figure(name, batch / found.median, "samples/s", gpu=self.index, **more)
        elif self.index == 0:
            workload.figure(name, batch / found.median, "samples/s", **more)

    def go(self) -> None:
        alone = Trainer(self.card, self._torchvision, self.plan, self._alone)
        self.describe(alone)
        for turn in range(self.workers):
            self._barrier.wait()
            if turn == self.index:
                workload.progress(turn / (self.workers + 3), f"{self.plan.model} on {self.card.who} alone")
                self.rate("single", alone, False)
        self._barrier.wait()
        if self.workers > 1:
            workload.progress(self.workers / (self.workers + 3), f"{self.plan.model} on all, each for itself")
            self.rate("concurrent", alone, False)
            self._barrier.wait()
            workload.progress((self.workers + 1) / (self.workers + 3), f"{self.plan.model} on all together")
            del alone
            alone = Trainer(self.card, self._torchvision, self.plan, None)
            self.rate("ddp", alone, True)
        self._learnt(alone)
        self._group.leave(self._barrier)

    def _learnt(self, trainer: Trainer) -> None:
        losses = [float(loss.item()) for loss in trainer.losses]
        first = self._group.mean(losses[0])
        last = self._group.mean(sum(losses[-_TAIL:]) / _TAIL)
        finite = self._group.mean(float(trainer.is_finite() and all(map(math.isfinite, losses)))) == 1.0
        checksums = self._group.all_of(trainer.checksum())
        rate = None
        if self.workers > 1:
            count = sum(one.numel() for one in trainer.parameters)
            tensor = self.card.torch.zeros(count, device=self.card.device)
            rate = self._group.bus_bandwidth(self.card, tensor)
        if self.index:
            return
        workload.figure("loss first", first if math.isfinite(first) else None)
        workload.figure("loss last", last if math.isfinite(last) else None)
        workload.figure("finite", finite)
        if rate:
            workload.figure(
                "weights equal", len(set(checksums)) == 1, checksums=[f"{one:014x}" for one in checksums]
            )
            workload.figure("gradient all_reduce", rate.bus_gb_s, "GB/s", bytes=count * 4, **rate.more)


def main() -> None:
    parser = workload.parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--batch", type=int, default=0, help="samples of a step on each GPU; 0: 32, fewer on the CPU"
    )
    options = parser.parse_args()
    torch = cards.torch_for(options.device)
    torchvision = workload.framework("torchvision")
    workload.begin("training", options, **cards.versions(torch), torchvision=str(torchvision.__version__))
    barrier = team.barrier(options.workers)
    with groups.prepared(torch) as (meet, _unused):
        team.run(
            options.workers,
            options.device,
            lambda index: _Run(torch, torchvision, options, meet, barrier, index).go(),
        )
    workload.end()


if __name__ == "__main__":
    main()
