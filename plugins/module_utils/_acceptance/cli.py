# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of `gpu-acceptance`.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .._fleet.errors import FleetError
from . import compare, files, judgement, registry, store
from .check import QUICK, SUITES, Check
from .document import to_document
from .interrupts import Interrupted
from .paint import duration
from .record import CUDA, DEVICES

PROGRAM = "gpu-acceptance"

_ABOUT = """\
Checks a machine with NVIDIA GPUs, judges every figure against what was declared and what the hardware can do, and keeps a run
that can be handed over. Nothing that was not looked at is ever green."""
_STATUS = """\
exit status: 0 PASS, 1 FAIL, 2 the command or what it was given cannot be used, 3 WARN, 4 UNKNOWN (something was not looked at),
130 interrupted. A run on the CPU or on simulated GPUs is never a verdict on hardware."""
_EXAMPLES = """\
examples:
  gpu-acceptance run                             the suite quick, in a few minutes
  gpu-acceptance run --suite full                everything
  gpu-acceptance run --device cpu                the same code without a GPU; no verdict on hardware
  gpu-acceptance run --only matmul,pcie_link     two checks; the others count as not made
  gpu-acceptance burn-in --hours 24
  gpu-acceptance compare RUN latest              what changed since RUN"""


def main(arguments: Sequence[str]) -> int:
    """What a user typed, to an exit status. No traceback ever reaches the user."""
    words = list(arguments)
    try:
        if words[:1] == ["burn-in"]:
            from .burn_in import cli as burn_in  # the rest of the command needs none of it

            return burn_in.main(words[1:])
        options = parser().parse_args(words)
        call: Callable[[argparse.Namespace], int] = options.call
        return call(options)
    except FleetError as problem:
        sys.stderr.write(f"{PROGRAM}: {problem}\n")
        return judgement.USAGE
    except (Interrupted, KeyboardInterrupt):
        sys.stderr.write(f"{PROGRAM}: interrupted before there was anything to keep\n")
        return judgement.INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has seen enough; Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return judgement.USAGE


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    style = argparse.RawDescriptionHelpFormatter
    root = argparse.ArgumentParser(
        prog=PROGRAM, description=_ABOUT, epilog=f"{_EXAMPLES}\n\n{_STATUS}", formatter_class=style
    )
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    for name, call, about, options in (
        ("list", _list, "show the checks there are", _list_options),
        ("run", _run, "make a run", _run_options),
        (
            "burn-in",
            _run,
            "load all GPUs for hours and watch them; see `gpu-acceptance burn-in --help`",
            _no_options,
        ),
        ("report", _report, "make report.html of a run", _report_options),
        ("compare", _compare, "show two runs side by side, and what became worse", _compare_options),
    ):
        command = commands.add_parser(
            name, help=about, description=about, epilog=_STATUS, formatter_class=style
        )
        command.set_defaults(call=call)
        options(command)
    return root


def _no_options(_command: argparse.ArgumentParser) -> None:
    """A burn-in reads its own."""


def _list_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--suite", choices=SUITES, help="only those of this suite")
    command.add_argument("--json", action="store_true", help="as JSON")


def _run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--suite", choices=SUITES, default=QUICK, help="which checks, and how thorough (%(default)s)"
    )
    command.add_argument("--device", choices=DEVICES, default=CUDA, help="on what (%(default)s)")
    command.add_argument(
        "--only",
        type=_names,
        default=(),
        metavar="NAME,...",
        help="only these checks; the others count as not made",
    )
    command.add_argument(
        "--skip", type=_names, default=(), metavar="NAME,...", help="not these; they count as not made"
    )
    _folder(command)
    command.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help=f"what is declared of the machine ({files.PROFILE}, if it is there)",
    )
    command.add_argument(
        "--json", action="store_true", help="print the run's document, and nothing else, on standard output"
    )


def _report_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", nargs="?", default=store.LATEST, metavar="RUN", help="an id, a folder, or latest (%(default)s)"
    )
    _folder(command)


def _compare_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("before", metavar="A", help="an id, a folder, a run.json, or latest")
    command.add_argument("after", metavar="B", help="the same of the run that is looked at")
    command.add_argument(
        "--tolerance",
        type=_percent,
        default=compare.TOLERANCE,
        metavar="PERCENT",
        help="a figure that is worse by no more is no regression (5)",
    )
    command.add_argument("--all", action="store_true", help="show what did not change, too")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page that shows the two side by side"
    )
    _folder(command)
    command.epilog = "exit status: 0 nothing became worse, 1 something did, 2 a run cannot be read"


def _folder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--folder",
        type=Path,
        default=files.state(),
        metavar="FOLDER",
        help="where runs are kept (%(default)s)",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of per cent")
    return value / 100


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _list(options: argparse.Namespace) -> int:
    checks = registry.of_suite(options.suite) if options.suite else registry.CHECKS
    if options.json:
        _say(json.dumps([_as_data(check) for check in checks], indent=1, ensure_ascii=False))
        return 0
    widths = [max(map(len, column)) for column in zip(*map(_columns, checks), strict=True)] if checks else []
    group = ""
    for check in checks:
        if check.group != group:
            _say(f"{chr(10) if group else ''}{check.group}")
            group = check.group
        cells = (cell.ljust(width) for cell, width in zip(_columns(check), widths, strict=True))
        _say(f"  {'  '.join(cells)}".rstrip())
    _say(
        f"\n{len(checks)} checks, about {duration(sum(check.seconds for check in checks))} on GPUs with the sizes of quick"
    )
    return 0


def _columns(check: Check) -> tuple[str, str, str, str]:
    needs = f"needs {', '.join(check.needs)}" if check.needs else ""
    return check.name, ",".join(check.suites), check.title, needs


def _as_data(check: Check) -> dict[str, object]:
    texts = {key: getattr(check, key) for key in ("name", "title", "about", "expects", "fails")}
    return {
        **texts,
        "group": str(check.group),
        "suites": list(check.suites),
        "needs": [str(need) for need in check.needs],
        "seconds": check.seconds,
    }


def _run(options: argparse.Namespace) -> int:
    from . import run_command  # it looks for programs that the other commands do not need

    return run_command.run(options)


def _report(options: argparse.Namespace) -> int:
    from .report import make  # its libraries are only where reports are made

    for path in make(store.find(options.folder, options.run).parent):
        _say(str(path))
    return 0


def _compare(options: argparse.Namespace) -> int:
    before, _unused = store.read(store.find(options.folder, options.before))
    after, _unused = store.read(store.find(options.folder, options.after))
    found = compare.compare(before, after, options.tolerance)
    if options.json:
        _say(json.dumps(found.as_data(), indent=1, ensure_ascii=False))
    else:
        for line in compare.lines(found, everything=options.all):
            _say(line)
    if options.html:
        from .report import compare_page  # its libraries are only where reports are made

        compare_page(to_document(before), to_document(after), options.html)
    return 1 if found.regressions else 0
