# SPDX-License-Identifier: GPL-3.0-or-later
"""JAX: is every GPU there, does each compute a right answer, and do all of them together take a right training step?

One process has all GPUs, as JAX wants it. The step is compiled for arrays that are spread over them, so that XLA itself adds the
exchange of gradients between them.
"""

from __future__ import annotations

import os
from argparse import Namespace
from types import ModuleType
from typing import Any

import reference
import stepping
import workload


def prepare(options: Namespace) -> None:
    """What JAX reads when it is loaded."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = str(options.share)
    os.environ["JAX_PLATFORMS"] = options.device
    if options.device == "cpu":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={options.workers}".strip()


def devices(jax: ModuleType) -> tuple[list[Any], str]:
    """Those that JAX has, and what it says where it has none."""
    try:
        return list(jax.devices()), ""
    except RuntimeError as problem:
        return [], stepping.said(problem)


def alone(jax: ModuleType, device: Any, many: int) -> dict[str, Any]:
    """Multiply on one device, and count what is wrong."""
    jnp = jax.numpy
    left, right = (
        jax.device_put(jnp.tile(jnp.array(one, dtype=jnp.float32), (many, many)), device)
        for one in reference.factors()
    )
    found = jax.device_get(jax.jit(lambda a, b: jnp.maximum(3 * (a @ b) - 7, 0))(left, right))
    side = reference.SIDE
    blocks = found.reshape(many, side, many, side).swapaxes(1, 2)
    expected = reference.answer(many)
    return {"value": int((blocks != expected).sum()), "of": found.size}


class Together:
    """The same function learned by all devices: each has its share of the samples and a copy of the weights."""

    def __init__(self, jax: ModuleType, on: list[Any]) -> None:
        jnp, sharding = jax.numpy, jax.sharding
        mesh = sharding.Mesh(on, ("gpu",))
        spread = sharding.NamedSharding(mesh, sharding.PartitionSpec("gpu"))
        self.copied = sharding.NamedSharding(mesh, sharding.PartitionSpec())
        self.jax = jax
        self.expected = reference.learned(len(on))
        shares = reference.samples(len(on))
        rows = [row for inputs, _outputs in shares for row in inputs]
        outputs = [output for _inputs, outputs in shares for output in outputs]
        self.inputs = jax.device_put(jnp.array(rows, dtype=jnp.float32), spread)
        self.outputs = jax.device_put(jnp.array(outputs, dtype=jnp.float32), spread)
        highest = jax.lax.Precision.HIGHEST

        def loss(weights: Any, inputs: Any, outputs: Any) -> Any:
            return jnp.mean((jnp.matmul(inputs, weights, precision=highest) - outputs) ** 2)

        def step(weights: Any, inputs: Any, outputs: Any) -> Any:
            return weights - reference.RATE * jax.grad(loss)(weights, inputs, outputs)

        self.step = jax.jit(step, out_shardings=self.copied)

    def learn(self) -> list[float]:
        """Learn from zero; how far each device's copy of the weights is from the right ones."""
        jax, jnp = self.jax, self.jax.numpy
        weights = jax.device_put(jnp.zeros(reference.FEATURES, dtype=jnp.float32), self.copied)
        for _step in range(reference.STEPS):
            weights = self.step(weights, self.inputs, self.outputs)
        copies = sorted(weights.addressable_shards, key=lambda shard: shard.device.id)
        return [reference.difference(copy.data.tolist(), self.expected) for copy in copies]


def main() -> None:
    """Print the figures that the checks ``jax`` and ``coexistence`` judge."""
    options = stepping.options(__doc__ or "")
    prepare(options)
    jax = workload.framework("jax")
    workload.begin("jax_step", options, jax=jax.__version__, jaxlib=workload.framework("jaxlib").__version__)
    on, why = devices(jax)
    names = [getattr(device, "device_kind", str(device)) for device in on]
    more: dict[str, Any] = {"says": why} if why else {}
    workload.figure("devices", len(on), names=names, **more)
    many = stepping.tiles(options.device)
    if on and stepping.each(len(on), lambda index: alone(jax, on[index], many)):
        stepping.all_together(len(on), lambda: Together(jax, on).learn, options)
    workload.end()


if __name__ == "__main__":
    main()
