# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for PyTorch, TensorFlow, JAX and vLLM on simulated GPUs. SIMULATED.

They compute nothing. Imported by a workload of gpu-acceptance they answer in its place, with what its GPUs would reach;
imported by anything else they say what they are.
"""
