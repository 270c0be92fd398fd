# SPDX-License-Identifier: GPL-3.0-or-later
"""``nvidia-ctk``, as users and roles call it. SIMULATED."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import cdi, engines, settings, toml
from .version import VERSION

CONFIGS = {
    "docker": "/etc/docker/daemon.json",
    "containerd": "/etc/containerd/config.toml",
    "crio": "/etc/crio/crio.conf",
}
DROP_INS = {
    "containerd": "/etc/containerd/conf.d/99-nvidia.toml",
    "crio": "/etc/crio/crio.conf.d/99-nvidia.toml",
}


def say(text: str) -> None:
    """To standard output."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def log(level: str, text: str) -> None:
    """To standard error, as the real one's logger does."""
    sys.stderr.write(f'level={level} msg="SIMULATED: {text}"\n')


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="nvidia-ctk", description="SIMULATED NVIDIA Container Toolkit CLI")
    top.add_argument("--version", "-v", action="version", version=_version())
    top.add_argument("--debug", "-d", action="store_true")
    top.add_argument("--quiet", action="store_true")
    top.add_argument("--config", dest="toolkit_config")
    commands = top.add_subparsers(dest="command", required=True)

    runtime = commands.add_parser("runtime").add_subparsers(dest="verb", required=True)
    configure = runtime.add_parser("configure")
    configure.add_argument("--dry-run", action="store_true")
    configure.add_argument("--runtime", default="docker")
    configure.add_argument("--config")
    configure.add_argument("--drop-in-config")
    configure.add_argument("--executable-path")
    configure.add_argument("--config-mode")
    configure.add_argument("--config-source", default="file")
    configure.add_argument("--nvidia-runtime-name", default="nvidia")
    configure.add_argument("--nvidia-runtime-path", "--runtime-path", default="nvidia-container-runtime")
    configure.add_argument("--nvidia-set-as-default", "--set-as-default", action="store_true")
    configure.add_argument("--cdi.enabled", "--cdi.enable", "--enable-cdi", dest="cdi", action="store_true")
    configure.set_defaults(run=_configure)

    specs = commands.add_parser("cdi").add_subparsers(dest="verb", required=True)
    generate = specs.add_parser("generate")
    generate.add_argument("--output", default=os.environ.get("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH", ""))
    generate.add_argument("--format", choices=["json", "yaml"])
    generate.add_argument("--mode", "--discovery-mode", default="auto")
    generate.add_argument("--vendor", "--cdi-vendor", default="nvidia.com")
    generate.add_argument("--class", "--cdi-class", dest="kind", default="gpu")
    generate.add_argument("--no-all-device", action="store_true")
    generate.set_defaults(run=_generate)
    listing = specs.add_parser("list")
    listing.add_argument("--spec-dir", action="append")
    listing.set_defaults(run=_list)

    config = commands.add_parser("config")
    config.add_argument("--config-file", "--config", "-c", dest="file", default=str(settings.PATH))
    config.add_argument("--set", action="append", default=[])
    config.add_argument("--in-place", "-i", action="store_true")
    config.add_argument("--output", "-o")
    config.set_defaults(run=_config)

    system = commands.add_parser("system").add_subparsers(dest="verb", required=True)
    nodes = system.add_parser("create-device-nodes")
    nodes.add_argument("--control-devices", action="store_true")
    nodes.add_argument("--load-kernel-modules", action="store_true")
    nodes.set_defaults(run=lambda _options: 0)
    return top


def _version() -> str:
    return f"NVIDIA Container Toolkit CLI version {VERSION}\ncommit: SIMULATED"


def _configure(options: argparse.Namespace) -> int:
    engine = options.runtime
    if engine not in CONFIGS:
        raise ValueError(f"unrecognized runtime '{engine}'")
    drop_in = options.drop_in_config if options.drop_in_config is not None else DROP_INS.get(engine, "")
    if drop_in and engine == "docker":
        raise ValueError("runtime docker does not support drop-in configs")
    path = options.nvidia_runtime_path
    if engine != "docker":
        path = "/usr/bin/nvidia-container-runtime" if path == "nvidia-container-runtime" else path
        if not path.startswith("/"):
            raise ValueError(f"the NVIDIA runtime path {path!r} is not an absolute path")
    wish = engines.Wish(
        config=Path(options.config or CONFIGS[engine]),
        drop_in=Path(drop_in) if drop_in else None,
        name=options.nvidia_runtime_name,
        path=path,
        default=options.nvidia_set_as_default,
        cdi=options.cdi,
    )
    if engine == "docker":
        written = {wish.config: engines.docker(wish)}
    elif engine == "containerd":
        fresh, main = engines.containerd(wish)
        written = {Path(drop_in or CONFIGS[engine]): fresh, wish.config: main}
    else:
        written = {Path(drop_in or CONFIGS[engine]): engines.crio(wish)}
    for place, text in written.items():
        if options.dry_run:
            say(text)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        log("info", f"Wrote updated config to {place}")
    if not options.dry_run:
        log("info", f"It is recommended that {engine} daemon be restarted.")
    return 0


def _generate(options: argparse.Namespace) -> int:
    spec = cdi.generate(options.vendor, options.kind, with_all=not options.no_all_device)
    if options.output:
        cdi.save(spec, Path(options.output))
    else:
        say(cdi.render(spec, options.format or "yaml"))
    log("info", f"Generated CDI spec with version {spec['cdiVersion']}")
    return 0


def _list(options: argparse.Namespace) -> int:
    dirs = (
        os.environ.get("NVIDIA_CTK_CDI_SPEC_DIRS", "").split(",")
        if not options.spec_dir
        else options.spec_dir
    )
    devices, errors = cdi.registry(tuple(name for name in dirs if name) or cdi.DEFAULT_DIRS)
    for path, problem in errors.items():
        log("warning", f"{path}: {problem}")
    log("info", f"Found {len(devices)} CDI devices")
    for name in sorted(devices):
        say(name)
    return 0


def _config(options: argparse.Namespace) -> int:
    tree = settings.load(Path(options.file))
    for setting in options.set:
        settings.put(tree, setting)
    text = "# SIMULATED\n" + toml.dump(tree)
    place = Path(options.file) if options.in_place else Path(options.output) if options.output else None
    if place is None:
        say(text)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run, and say what went wrong in one line."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ValueError, OSError, cdi.CdiError) as problem:
        log("error", str(problem))
        return 1


if __name__ == "__main__":
    sys.exit(main())
