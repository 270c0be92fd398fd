# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a keyring holds the pinned keys. The filter is documented in the YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._host import pinned_key


def holds_keys(listing: Any, fingerprints: Any) -> bool:
    """Whether these keys are in it, and no other."""
    if not isinstance(listing, str):
        raise AnsibleFilterError("holds_keys: give it what gpg --show-keys --with-colons prints")
    if isinstance(fingerprints, str) or not isinstance(fingerprints, Sequence):
        raise AnsibleFilterError("holds_keys: the fingerprints are a list")
    return pinned_key.holds(listing, [str(one) for one in fingerprints])


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {"holds_keys": holds_keys}
