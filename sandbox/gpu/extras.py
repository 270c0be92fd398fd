# SPDX-License-Identifier: GPL-3.0-or-later
"""What is installed beside a driver: CUDA, cuDNN, modules built for a kernel, the container toolkit. SIMULATED."""

from __future__ import annotations

from ..debian import File, Link, Package
from . import scripts
from .driver_version import Driver
from .kernels import Kernel
from .sources.elf import kernel_module, shared_library
from .sources.make import MODULES, information
from .sources.sign_file import signed
from .toolkit import PACKAGES

_NOTE = "A stand-in of the gpumesh.fleet sandbox for the vendor's package of this name."
CUDA = {"12.8": "12.8.1-1", "12.9": "12.9.1-1", "13.0": "13.0.2-1", "13.2": "13.2.1-1"}
CUDNN = "9.17.1.4-1"
TOOLKIT = ("1.19.0-1", "1.20.0-1")
_NVCC = """\
#!/bin/sh
# SIMULATED: a stand-in, no compiler.
if [ "$1" = --version ] || [ "$1" = -V ]; then
  echo "nvcc: NVIDIA (R) Cuda compiler driver"
  echo "SIMULATED by the gpumesh.fleet sandbox"
  echo "Cuda compilation tools, release {release}, V{version}"
  exit 0
fi
echo "nvcc: SIMULATED, it compiles nothing" >&2
exit 1
"""
_ALTERNATIVE = {
    "postinst": """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
  update-alternatives --install /usr/local/cuda cuda /usr/local/cuda-{release} {priority} >/dev/null
fi
""",
    "prerm": """\
#!/bin/sh
set -e
if [ "$1" = remove ]; then
  update-alternatives --remove cuda /usr/local/cuda-{release} >/dev/null
fi
""",
}


def cuda() -> list[Package]:
    """A toolkit of each CUDA release, without a driver."""
    made = []
    for release, version in CUDA.items():
        name, folder = release.replace(".", "-"), f"usr/local/cuda-{release}"
        upstream = version.partition("-")[0]
        nvcc = _NVCC.format(release=release, version=upstream)
        made.append(
            _package(
                f"cuda-nvcc-{name}", version, "CUDA nvcc", (File(f"{folder}/bin/nvcc", nvcc.encode(), 0o755),)
            )
        )
        text = f'{{"cuda": {{"name": "CUDA SDK (SIMULATED)", "version": "{upstream}"}}}}\n'
        words = {"release": release, "priority": release.replace(".", "")}
        made.append(
            _package(
                f"cuda-toolkit-{name}",
                version,
                f"CUDA Toolkit {release}",
                (File(f"{folder}/version.json", text.encode()),),
                f"cuda-nvcc-{name} (>= {upstream})",
                {script: content.format(**words) for script, content in _ALTERNATIVE.items()},
            )
        )
    return made


def cudnn() -> list[Package]:
    """cuDNN 9 for both CUDA majors."""
    upstream = CUDNN.partition("-")[0].rpartition(".")[0]
    made = []
    for major in ("12", "13"):
        folder = f"usr/lib/x86_64-linux-gnu/libcudnn/{major}"
        contents = (
            File(f"{folder}/libcudnn.so.{upstream}", shared_library("libcudnn.so.9")),
            Link(f"{folder}/libcudnn.so.9", f"libcudnn.so.{upstream}"),
        )
        made.append(_package(f"libcudnn9-cuda-{major}", CUDNN, "cuDNN runtime libraries", contents))
        made.append(
            _package(f"cudnn9-cuda-{major}", CUDNN, "cuDNN", (), f"libcudnn9-cuda-{major} (= {CUDNN})")
        )
    return made


def container_toolkit() -> list[Package]:
    """NVIDIA's container toolkit."""
    made = []
    for version in TOOLKIT:
        for package in PACKAGES:
            contents = tuple(
                File(path, text.encode(), mode) for path, (text, mode) in package.filled(version).items()
            )
            made.append(
                Package(
                    package.name,
                    version,
                    package.description,
                    contents=contents,
                    architecture="amd64",
                    fields={"Depends": package.depends.format(version=version), "Section": "utils"},
                    scripts=package.scripts,
                    conffiles=tuple(path.removeprefix("/") for path in package.conffiles),
                )
            )
    return made


def prebuilt(driver: Driver, kernel: Kernel) -> list[Package]:
    """Ubuntu's modules for one kernel, built and signed with it, and the package that follows the newest kernel."""
    made = []
    for flavour in ("open", "closed"):
        words = driver.words(flavour)
        stem = f"linux-modules-nvidia-{words['b']}{words['f']}"
        folder = f"usr/lib/modules/{kernel.release}/kernel/nvidia-{driver.branch}srv{words['f']}"
        contents = tuple(
            File(
                f"{folder}/{name}.ko",
                # No key of a kernel is known here: a signature that says so, in the place of one.
                signed(
                    kernel_module(information(name, driver.version, flavour, kernel.release)), b"SIMULATED"
                ),
            )
            for name in MODULES
        )
        common = f"nvidia-kernel-common-{words['b']}"
        made.append(
            _package(
                f"{stem}-{kernel.release}",
                kernel.version,
                f"Linux kernel nvidia modules for {kernel.release}",
                contents,
                f"linux-image-{kernel.release}, {common} (<= {driver.version}-1), {common} (>= {driver.version})",
                scripts.modules(kernel.release),
                provides="nvidia-prebuilt-kernel",
            )
        )
        made.append(
            _package(
                f"{stem}-{kernel.flavour}",
                kernel.version,
                f"extra drivers for nvidia-{words['b']} for the {kernel.flavour} flavour",
                (),
                f"{stem}-{kernel.release} (= {kernel.version})",
            )
        )
    return made


def _package(
    name: str,
    version: str,
    summary: str,
    contents: tuple[File | Link, ...],
    depends: str = "",
    made: dict[str, str] | None = None,
    provides: str = "",
) -> Package:
    return Package(
        name,
        version,
        f"{summary} (SIMULATED)\n{_NOTE}",
        contents=contents,
        architecture="amd64",
        fields={"Depends": depends, "Provides": provides, "Section": "devel"},
        scripts=made or {},
    )
