# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the NVIDIA Container Toolkit. SIMULATED: it hands simulated GPUs to real containers.

What users and roles call is as in 1.20.0 (NVIDIA/nvidia-container-toolkit, read at its tag): ``nvidia-ctk`` with its
options and the files it writes, ``nvidia-container-runtime`` in its modes ``auto``, ``jit-cdi`` and ``cdi``, and the units
``nvidia-cdi-refresh``. Docker, containerd, runc and Podman are the real ones, and the CDI specification is read by them.
Different from the real one: there is no mode ``legacy`` (and no libnvidia-container behind it), the specification has no
hooks, its device nodes are null devices, and it mounts what the simulated ``nvidia-smi`` needs: Python and its folder.

The programs run on hosts that have Python and nothing else, so they use the standard library only and name no other part
of the sandbox. :data:`PACKAGES` says what is packed, for whoever packs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent
#: Where the Python files lie on a host, as a package of their own.
LIBRARY = "usr/lib/nvidia-toolkit-simulated/nvidia_toolkit_simulated"

LAUNCHER = """\
#!/usr/bin/python3
# SIMULATED: a stand-in, no part of the NVIDIA Container Toolkit.
import sys
sys.path.insert(0, "/usr/lib/nvidia-toolkit-simulated")
from nvidia_toolkit_simulated.{module} import main
sys.exit(main())
"""


@dataclass(frozen=True)
class ToolkitPackage:
    """One of the vendor's packages, without the fields that all have."""

    name: str
    description: str
    #: In the words of the control file; ``{version}`` stands for the package's own.
    depends: str = ""
    #: Path on the host, without the slash in front, and what lies there, with its permissions.
    files: dict[str, tuple[str, int]] = field(default_factory=dict)
    conffiles: tuple[str, ...] = ()
    scripts: dict[str, str] = field(default_factory=dict)

    def filled(self, version: str) -> dict[str, tuple[str, int]]:
        """Its files in one version; the programs say which they are (``1.20.0-1`` is 1.20.0)."""
        upstream = version.split("-")[0]
        return {
            path: (content.replace("@VERSION@", upstream), mode)
            for path, (content, mode) in self.files.items()
        }


def _own(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _base() -> ToolkitPackage:
    modules = ("version", "machine", "cdi", "toml", "engines", "settings", "ctk", "runtime")
    files = {f"{LIBRARY}/{name}.py": (_own(f"{name}.py"), 0o644) for name in modules}
    files[f"{LIBRARY}/__init__.py"] = ('"""SIMULATED"""\n', 0o644)
    files["usr/bin/nvidia-ctk"] = (LAUNCHER.format(module="ctk"), 0o755)
    files["usr/bin/nvidia-container-runtime"] = (LAUNCHER.format(module="runtime"), 0o755)
    files["usr/bin/nvidia-cdi-hook"] = (
        "#!/bin/sh\n# SIMULATED: the simulated specification has no hooks.\nexit 0\n",
        0o755,
    )
    for unit in ("nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path"):
        files[f"usr/lib/systemd/system/{unit}"] = (_own(unit), 0o644)
    files["etc/nvidia-container-toolkit/nvidia-cdi-refresh.env"] = (
        "# SIMULATED\n# NVIDIA_CTK_CDI_OUTPUT_FILE_PATH=/var/run/cdi/nvidia.yaml\n",
        0o644,
    )
    return ToolkitPackage(
        name="nvidia-container-toolkit-base",
        description="SIMULATED stand-in of the NVIDIA Container Toolkit Base",
        depends="python3",
        files=files,
        conffiles=("/etc/nvidia-container-toolkit/nvidia-cdi-refresh.env",),
        scripts={name: _own(f"base.{name}") for name in ("postinst", "prerm", "postrm")},
    )


PACKAGES: tuple[ToolkitPackage, ...] = (
    ToolkitPackage(
        name="libnvidia-container1",
        description="SIMULATED stand-in of the NVIDIA container runtime library",
        files={"usr/share/doc/libnvidia-container1/SIMULATED": ("SIMULATED\n", 0o644)},
    ),
    ToolkitPackage(
        name="libnvidia-container-tools",
        description="SIMULATED stand-in of the NVIDIA container runtime library's tools",
        depends="libnvidia-container1 (>= {version})",
        files={"usr/share/doc/libnvidia-container-tools/SIMULATED": ("SIMULATED\n", 0o644)},
    ),
    _base(),
    ToolkitPackage(
        name="nvidia-container-toolkit",
        description="SIMULATED stand-in of the NVIDIA Container Toolkit",
        depends=(
            "nvidia-container-toolkit-base (= {version}), libnvidia-container-tools (= {version}), "
            "libnvidia-container-tools (<< 2.0.0)"
        ),
        files={
            "usr/bin/nvidia-container-runtime-hook": (
                "#!/bin/sh\necho 'SIMULATED: this stand-in has no mode legacy' >&2\nexit 1\n",
                0o755,
            )
        },
    ),
)
