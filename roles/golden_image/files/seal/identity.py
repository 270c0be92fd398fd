# SPDX-License-Identifier: GPL-3.0-or-later
"""What the image says of itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from .system import Seal


def identity(seal: Seal) -> None:
    """What the machine is made of, and the one id that a machine must not share with another."""
    # Empty, not missing: systemd makes one, and does not take the boot for the first of a system that has no presets yet.
    seal.write("etc/machine-id", "", 0o444)
    layers = facts(seal)
    about = {
        "name": seal.wanted["name"],
        "fingerprint": seal.wanted["fingerprint"],
        "epoch": seal.wanted["epoch"],
        "layers": seal.wanted.get("layers") or sorted(layers),
    }
    seal.write("etc/gpumesh/image.json", json.dumps(about, indent=2, sort_keys=True) + "\n")
    seal.write(
        "etc/motd.d/50-gpumesh-image",
        f"Golden image {about['name']}, {about['fingerprint'][:12]}: {', '.join(about['layers']) or 'no layer'}.\n",
    )


def facts(seal: Seal) -> dict[str, Any]:
    """The layers' facts; their time is the image's, because a layer that is reused and one that is rebuilt are the same."""
    path = seal.root / "etc/ansible/facts.d/gpumesh.fact"
    if not path.is_file():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    when = datetime.fromtimestamp(seal.wanted["epoch"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for entry in document["layers"].values():
        entry["when"] = when
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return dict(document["layers"])
