# SPDX-License-Identifier: GPL-3.0-or-later
"""Does TensorFlow see every GPU, compute right on each, and on all of them together?

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .. import framework_steps
from ..check import FULL, TENSORFLOW, Check, Context, Group
from ..verdicts import Result


def run(context: Context) -> Result:
    """Run the workload tensorflow_step."""
    return framework_steps.check(context, TENSORFLOW, "tensorflow_step")


CHECK = Check(
    name="tensorflow",
    title="TensorFlow on every GPU",
    group=Group.FRAMEWORKS,
    about="TensorFlow loads, sees every GPU, computes a right answer on each, and all of them take a right step together.",
    expects="As many GPUs as the driver has; products of whole numbers exactly as plain Python computes "
    "them; a training step of MirroredStrategy "
    "that ends within 1e-4 of the weights that plain Python finds.",
    fails="A GPU that is seen and cannot compute has no kernels in the installed build: install what the resolver names. A GPU that "
    "is not seen is hidden by CUDA_VISIBLE_DEVICES or by rights on /dev/nvidia*, or the build is one for the CPU. A step that fails or "
    "ends elsewhere is a matter of the paths between the cards: see all_reduce and p2p.",
    run=run,
    suites=(FULL,),
    seconds=30,
)
