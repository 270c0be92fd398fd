# SPDX-License-Identifier: GPL-3.0-or-later
"""The acceptance suite: what `gpu-acceptance` checks on a machine with GPUs, how it judges, and what it reports.

Plain Python without Ansible and without any library: it runs on the machine, under the system's own interpreter. Whatever
needs a framework (PyTorch, JAX, TensorFlow, vLLM) is a workload, a program of its own that that framework's interpreter runs;
the workloads are in roles/validation/files/workloads.

This package is private to the gpumesh.fleet collection.
"""
