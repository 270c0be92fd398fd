#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's scripts/sign-file, which dkms runs: sign-file HASH KEY CERTIFICATE MODULE. It needs openssl."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

_MAGIC = b"~Module signature appended~\n"
_PKCS7 = 2


def signed(module: bytes, signature: bytes) -> bytes:
    """The module with the signature behind it, as ``include/linux/module_signature.h`` has it."""
    return module + signature + struct.pack(">BBBBB3xI", 0, 0, _PKCS7, 0, 0, len(signature)) + _MAGIC


def main(hash_name: str, key: str, certificate: str, module: str) -> int:
    command = ["openssl", "cms", "-sign", "-binary", "-noattr", "-nocerts", "-nosmimecap", "-outform", "DER"]
    command += ["-md", hash_name, "-inkey", key, "-signer", certificate, "-in", module]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr.decode(errors="replace"))
        return 1
    Path(module).write_bytes(signed(Path(module).read_bytes(), done.stdout))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
