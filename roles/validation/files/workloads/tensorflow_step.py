# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorFlow: is every GPU there, does each compute a right answer, and do all of them together take a right training step?

One process has all GPUs, and MirroredStrategy keeps a copy of the weights on each. Memory is taken as it is needed, so that
other programs find some, too.
"""

from __future__ import annotations

import os
from argparse import Namespace
from types import ModuleType
from typing import Any

import reference
import stepping
import workload


def devices(tf: ModuleType, options: Namespace) -> list[str]:
    """The names by which TensorFlow calls them; on the CPU as many parts of it as there are workers."""
    if options.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        processor = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration() for _worker in range(options.workers)]
        tf.config.set_logical_device_configuration(processor, parts)
        return [device.name for device in tf.config.list_logical_devices("CPU")]
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)
    return [device.name for device in tf.config.list_logical_devices("GPU")]


def title(tf: ModuleType, index: int, options: Namespace) -> str:
    """What the card is called."""
    if options.device == "cpu":
        return "CPU"
    physical = tf.config.list_physical_devices("GPU")[index]
    return str(tf.config.experimental.get_device_details(physical).get("device_name", physical.name))


def alone(tf: ModuleType, device: str, many: int) -> dict[str, Any]:
    """Multiply on one device, and count what is wrong."""
    with tf.device(device):
        left, right = (tf.tile(tf.constant(one, tf.float32), (many, many)) for one in reference.factors())
        found = tf.nn.relu(3 * tf.matmul(left, right) - 7).numpy()
    side = reference.SIDE
    blocks = found.reshape(many, side, many, side).swapaxes(1, 2)
    return {"value": int((blocks != reference.answer(many)).sum()), "of": found.size}


class Together:
    """The same function learned by all devices: each has its share of the samples and a copy of the weights."""

    def __init__(self, tf: ModuleType, on: list[str]) -> None:
        self.tf = tf
        self.expected = reference.learned(len(on))
        self.strategy = strategy = tf.distribute.MirroredStrategy(on)
        shares = reference.samples(len(on))

        def distributed(place: int) -> Any:
            return strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(shares[context.replica_id_in_sync_group][place], tf.float32)
            )

        self.inputs, self.outputs = distributed(0), distributed(1)
        with strategy.scope():
            self.weights = weights = tf.Variable(
                tf.zeros([reference.FEATURES]), aggregation=tf.VariableAggregation.MEAN
            )

        def replica(inputs: Any, outputs: Any) -> None:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((tf.linalg.matvec(inputs, weights) - outputs) ** 2)
            slope = tape.gradient(loss, weights)
            shared = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, slope)
            weights.assign_sub(reference.RATE * shared)

        def step() -> None:
            strategy.run(replica, args=(self.inputs, self.outputs))

        self.step = tf.function(step)

    def learn(self) -> list[float]:
        """Learn from zero; how far each device's copy of the weights is from the right ones."""
        self.weights.assign(self.tf.zeros([reference.FEATURES]))
        for _step in range(reference.STEPS):
            self.step()
        copies = self.strategy.experimental_local_results(self.weights)
        return [reference.difference(copy.numpy().tolist(), self.expected) for copy in copies]


def main() -> None:
    """Print the figures that the checks ``tensorflow`` and ``coexistence`` judge."""
    options = stepping.options(__doc__ or "")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    # Products of whole numbers are exact in TF32; the step is compared more closely than TF32 computes.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    tf = workload.framework("tensorflow")
    build = tf.sysconfig.get_build_info()
    workload.begin(
        "tensorflow_step",
        options,
        tensorflow=tf.__version__,
        tensorflow_cuda=str(build.get("cuda_version") or "none"),
    )
    on = devices(tf, options)
    workload.figure("devices", len(on), names=[title(tf, index, options) for index in range(len(on))])
    many = stepping.tiles(options.device)
    if on and stepping.each(len(on), lambda index: alone(tf, on[index], many)):
        stepping.all_together(len(on), lambda: Together(tf, on).learn, options)
    workload.end()


if __name__ == "__main__":
    main()
