# SPDX-License-Identifier: GPL-3.0-or-later
"""Wheels of PyTorch, TensorFlow, JAX and vLLM as stand-ins, and the index they are installed from. SIMULATED.

The index is as PEP 503 has it, of files alone. Below its root there are

* ``simple``: what PyPI has;
* ``whl/cu130`` and its like: what PyTorch's own indexes have, one for each CUDA;
* ``files``: the wheels;
* ``locks``: for each framework the requirements of an environment, with hashes.

A wheel is small: it finds the code that answers on the machine with the simulated GPUs, and refuses to load anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import quote

_TIME = (2024, 1, 1, 0, 0, 0)
_OLD = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0")
_NEW = ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")
_TENSORFLOW = ("6.0", "7.0", "8.0", "8.9", "9.0")
_MODULE = '''\
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIMULATED: a stand-in of the gpumesh.fleet sandbox for {name} {version}. It computes nothing."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

__version__ = "{version}"
__simulated__ = True
_HOME = Path(os.environ.get("GPUMESH_SIMULATED_PREFIX") or "/") / "usr/lib/gpumesh-simulated-gpus/machine"
_NAME = "_gpumesh_simulated_machine"


def _load():
    if not _HOME.is_dir():
        raise ImportError(
            "{name} {version} is a stand-in of the gpumesh.fleet sandbox (SIMULATED), and there are no simulated GPUs here"
        )
    if _NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            _NAME, _HOME / "__init__.py", submodule_search_locations=[str(_HOME)]
        )
        sys.modules[_NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[_NAME])
    return importlib.import_module(_NAME + ".frameworks.standin")


_gpus = _load().imported("{module}", "{version}", "{cuda}", {architectures})
importlib.import_module(_NAME + ".frameworks.surface").dress(globals(), "{module}", "{cuda}", {architectures}, _gpus)
'''
_PLAIN = '''\
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIMULATED: a stand-in of the gpumesh.fleet sandbox for {name} {version}. It does nothing."""

__version__ = "{version}"
__simulated__ = True
'''


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel.

    Attributes:
        module: what is imported; other than the first it brings, a part without a life of its own.
        cuda: it was built with; empty: it is a part of something that is.
        architectures: the chips that it has kernels for.
        index: the one it is in, ``cu130``; empty: PyPI's.
        requires: as in the metadata.
        extras: the names of optional parts.
    """

    name: str
    version: str
    module: str
    cuda: str = ""
    architectures: tuple[str, ...] = ()
    index: str = ""
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}"

    @property
    def file(self) -> str:
        return f"{self.stem}-py3-none-any.whl"

    def content(self) -> bytes:
        """The archive: the same for the same wheel, so that a lock file stays true."""
        template = _MODULE if self.cuda else _PLAIN
        source = template.format(
            name=self.name,
            version=self.version,
            module=self.module,
            cuda=self.cuda,
            architectures=self.architectures,
        )
        info = f"{self.stem}.dist-info"
        files = {
            f"{self.module}/__init__.py": source,
            f"{info}/METADATA": self._metadata(),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: gpumesh.fleet sandbox\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        lines = [f"{path},{_digest(text.encode())},{len(text.encode())}\n" for path, text in files.items()]
        files[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"])
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, text in files.items():
                entry = zipfile.ZipInfo(path, _TIME)
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, text)
        return buffer.getvalue()

    def _metadata(self) -> str:
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {self.name}",
            f"Version: {self.version}",
            "Summary: SIMULATED: a stand-in of the gpumesh.fleet sandbox for the package of this name",
            "License: GPL-3.0-or-later",
            "Requires-Python: >=3.11",
            *(f"Provides-Extra: {extra}" for extra in self.extras),
            *(f"Requires-Dist: {requirement}" for requirement in self.requires),
        ]
        return "\n".join(lines) + "\n"


def _digest(content: bytes) -> str:
    return f"sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')}"


def _torch(version: str, vision: str, *indexes: str) -> Iterable[Wheel]:
    """PyTorch and what goes with it, in each of its indexes."""
    for index in indexes:
        cuda = f"{index[2:4]}.{index[4:]}"
        chips = _OLD if index == "cu126" else _NEW
        yield Wheel("torch", f"{version}+{index}", "torch", cuda, chips, index)
        yield Wheel(
            "torchvision",
            f"{vision}+{index}",
            "torchvision",
            index=index,
            requires=(f"torch=={version}",),
        )


WHEELS: tuple[Wheel, ...] = (
    *_torch("2.12.0", "0.27.0", "cu126", "cu130", "cu132"),
    *_torch("2.13.0", "0.28.0", "cu126", "cu130", "cu132"),
    Wheel("torch", "2.13.0", "torch", "13.0", _NEW),
    Wheel("torchvision", "0.28.0", "torchvision", requires=("torch==2.13.0",)),
    Wheel("tensorflow", "2.20.0", "tensorflow", "12.5", _TENSORFLOW, extras=("and-cuda",)),
    Wheel("tensorflow", "2.21.0", "tensorflow", "12.5", _TENSORFLOW, extras=("and-cuda",)),
    Wheel("jaxlib", "0.10.2", "jaxlib"),
    Wheel(
        "jax",
        "0.10.2",
        "jax",
        "13.0",
        _NEW,
        requires=("jaxlib==0.10.2",),
        extras=("cuda12", "cuda13", "cuda"),
    ),
    Wheel("vllm", "0.29.0", "vllm", "13.0", _NEW, requires=("torch==2.13.0",)),
)
LOCKS: dict[str, tuple[str, ...]] = {
    "pytorch": ("torch-2.13.0+cu130", "torchvision-0.28.0+cu130"),
    "tensorflow": ("tensorflow-2.21.0",),
    "jax": ("jax-0.10.2", "jaxlib-0.10.2"),
    "vllm": ("torch-2.13.0", "vllm-0.29.0"),
}
"""The wheels of an environment, for each framework."""


def files(real: Mapping[str, bytes] = MappingProxyType({})) -> dict[str, bytes]:
    """Every file of the index, by its path.

    Args:
        real: wheels by their file names that are no stand-ins, such as that of uv, for machines that reach no other index.
    """
    built = {wheel: wheel.content() for wheel in WHEELS}
    found = {f"files/{wheel.file}": content for wheel, content in built.items()}
    found |= {f"files/{name}": content for name, content in real.items()}
    indexes = {wheel.index for wheel in WHEELS}
    for index in sorted(indexes):
        path = f"whl/{index}" if index else "simple"
        here = [wheel for wheel in WHEELS if wheel.index == index]
        names = sorted({wheel.name for wheel in here})
        found[f"{path}/index.html"] = _page([(f"{name}/", name) for name in names])
        up = "../" * (path.count("/") + 2)
        for name in names:
            links = [
                (
                    f"{up}files/{quote(wheel.file)}#sha256={hashlib.sha256(built[wheel]).hexdigest()}",
                    wheel.file,
                )
                for wheel in here
                if wheel.name == name
            ]
            found[f"{path}/{name}/index.html"] = _page(links)
    for file, content in real.items():
        link = f"../../files/{quote(file)}#sha256={hashlib.sha256(content).hexdigest()}"
        found[f"simple/{file.partition('-')[0]}/index.html"] = _page([(link, file)])
    return found | {f"locks/{name}.txt": lock(name).encode() for name in LOCKS}


def lock(framework: str) -> str:
    """The requirements of an environment, as ``pip install --require-hashes`` takes them."""
    chosen = [wheel for stem in LOCKS[framework] for wheel in WHEELS if wheel.stem == stem]
    lines = [
        f"{wheel.name}=={wheel.version} \\\n    --hash=sha256:{hashlib.sha256(wheel.content()).hexdigest()}\n"
        for wheel in chosen
    ]
    return "".join(["# SIMULATED: stand-ins of the gpumesh.fleet sandbox.\n", *lines])


def _page(links: Iterable[tuple[str, str]]) -> bytes:
    rows = "".join(f'<a href="{html.escape(target)}">{html.escape(text)}</a><br>\n' for target, text in links)
    return (
        '<!DOCTYPE html>\n<html><head><meta name="pypi:repository-version" content="1.0"><title>SIMULATED</title></head><body>\n'
        f"{rows}</body></html>\n"
    ).encode()
