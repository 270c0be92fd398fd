# SPDX-License-Identifier: GPL-3.0-or-later
"""Object files that hold words and no code: kernel modules that modinfo reads, libraries that ldconfig lists. SIMULATED.

The layout is that of the ELF-64 format: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

_X86_64 = 62
_RELOCATABLE, _SHARED = 1, 3
_PROGBITS, _SYMTAB, _STRTAB = 1, 2, 3
_ALLOCATED = 2
_HEADER, _SECTION, _SEGMENT, _SYMBOL = 64, 64, 56, 24
_LOAD, _DYNAMIC = 1, 2
_DT_NULL, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = 0, 4, 5, 6, 10, 11, 14
_PAGE = 4096


def kernel_module(information: Iterable[tuple[str, str]]) -> bytes:
    """A module with that ``.modinfo``: what modinfo, depmod and strip take for one. It cannot be loaded."""
    modinfo = b"".join(f"{name}={value}\0".encode() for name, value in information)
    sections = [
        # name, type, flags, content, entry size
        ("", 0, 0, b"", 0),
        (".modinfo", _PROGBITS, _ALLOCATED, modinfo, 0),
        # Tools tell a module by it; the kernel would find its own description in it.
        (".gnu.linkonce.this_module", _PROGBITS, _ALLOCATED, bytes(64), 0),
        (".symtab", _SYMTAB, 0, bytes(_SYMBOL), _SYMBOL),
        (".strtab", _STRTAB, 0, b"\0", 0),
    ]
    names = b"".join(name.encode() + b"\0" for name, *_ in sections) + b".shstrtab\0"
    sections.append((".shstrtab", _STRTAB, 0, names, 0))
    strings = len(sections) - 2
    body, table, name_at = b"", b"", 0
    for name, kind, flags, content, size in sections:
        body += bytes(-len(body) % 8)
        link, info = (strings, 1) if kind == _SYMTAB else (0, 0)
        alignment = 8 if kind == _SYMTAB else int(bool(kind))
        table += struct.pack(
            "<IIQQQQIIQQ",
            name_at, kind, flags, 0, _HEADER + len(body) if kind else 0, len(content), link, info, alignment, size,
        )  # fmt: skip
        body += content
        name_at += len(name) + 1
    body += bytes(-len(body) % 8)
    return _header(_RELOCATABLE, sections=(_HEADER + len(body), len(sections))) + body + table


def shared_library(soname: str) -> bytes:
    """A library of that name without a symbol: ldconfig lists it, and a program that opens it finds nothing in it."""
    strings = b"\0" + soname.encode() + b"\0"
    # One empty symbol, and a hash table of one empty bucket for it.
    symbols, hashes = bytes(_SYMBOL), struct.pack("<5I", 1, 1, 0, 0, 0)
    at_symbols = _HEADER + 2 * _SEGMENT
    at_hashes = at_symbols + len(symbols)
    at_strings = at_hashes + len(hashes)
    at_dynamic = at_strings + len(strings)
    padding = -at_dynamic % 8
    at_dynamic += padding
    entries = (
        (_DT_SONAME, 1),
        (_DT_HASH, at_hashes),
        (_DT_STRTAB, at_strings),
        (_DT_SYMTAB, at_symbols),
        (_DT_STRSZ, len(strings)),
        (_DT_SYMENT, _SYMBOL),
        (_DT_NULL, 0),
    )
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    size = at_dynamic + len(dynamic)
    # The loader writes into the dynamic section, so all of it may be written.
    load = struct.pack("<IIQQQQQQ", _LOAD, 6, 0, 0, 0, size, size, _PAGE)
    found = struct.pack(
        "<IIQQQQQQ", _DYNAMIC, 6, at_dynamic, at_dynamic, at_dynamic, len(dynamic), len(dynamic), 8
    )
    return _header(_SHARED, segments=2) + load + found + symbols + hashes + strings + bytes(padding) + dynamic


def _header(kind: int, segments: int = 0, sections: tuple[int, int] = (0, 0)) -> bytes:
    at_sections, count = sections
    identification = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    return identification + struct.pack(
        "<HHIQQQIHHHHHH",
        kind,
        _X86_64,
        1,
        0,
        _HEADER if segments else 0,
        at_sections,
        0,
        _HEADER,
        _SEGMENT if segments else 0,
        segments,
        _SECTION if count else 0,
        count,
        count - 1 if count else 0,
    )
