# SPDX-License-Identifier: GPL-3.0-or-later
"""All checks there are, in the order in which they are made. A new one is a file in ``checks/`` and two lines here.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

from .check import SUITES, Check
from .checks import (
    aftermath,
    all_reduce,
    coexistence,
    compute_mode,
    container_gpus,
    container_reload,
    container_sharing,
    driver_declared,
    driver_versions,
    ecc_errors,
    ecc_mode,
    full_stack,
    gpus_present,
    gpus_seen,
    host_device_bandwidth,
    jax,
    kernel_log,
    kernel_modules,
    kernels,
    llm_inference,
    matmul,
    memory,
    memory_bandwidth,
    memory_pattern,
    memory_rows,
    mig_mode,
    p2p,
    pcie_errors,
    pcie_link,
    pcie_under_load,
    persistence,
    power_limit,
    pytorch,
    recovery_action,
    resizable_bar,
    temperatures,
    tensorflow,
    throttle_reasons,
    training,
    utilization,
)

CHECKS: tuple[Check, ...] = tuple(
    module.CHECK
    for module in (
        gpus_present,
        gpus_seen,
        memory,
        driver_versions,
        driver_declared,
        kernel_modules,
        persistence,
        power_limit,
        ecc_mode,
        mig_mode,
        compute_mode,
        resizable_bar,
        pcie_link,
        pcie_errors,
        kernel_log,
        ecc_errors,
        memory_rows,
        throttle_reasons,
        temperatures,
        recovery_action,
        kernels,
        matmul,
        memory_bandwidth,
        memory_pattern,
        pcie_under_load,
        host_device_bandwidth,
        p2p,
        all_reduce,
        training,
        utilization,
        pytorch,
        tensorflow,
        jax,
        coexistence,
        llm_inference,
        full_stack,
        container_gpus,
        container_sharing,
        container_reload,
        aftermath,
    )
)
NAMES = tuple(check.name for check in CHECKS)


def of_suite(suite: str) -> tuple[Check, ...]:
    """The checks of a suite.

    Raises:
        ValueError: there is no such suite.
    """
    if suite not in SUITES:
        raise ValueError(f"there is no suite {suite}; there are {', '.join(SUITES)}")
    return tuple(check for check in CHECKS if suite in check.suites)
