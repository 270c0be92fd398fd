# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """How a module gets to the control plane of a ZeroTier network."""

    DOCUMENTATION = r"""
options:
  plane:
    description:
      - Who decides who is a member of the network.
      - V(controller) is a zerotier-one of one's own, which serves the networks whose ids begin with its node id.
        It answers on the loopback of its own machine only, so run this there, with C(delegate_to) and C(become).
        Releases from 1.16.0 on have the controller under another licence than the rest, and most packages of them are built
        without it; 1.14.2 and older have it.
      - V(central_v1) is ZeroTier Central's old API, behind C(my.zerotier.com).
      - V(central_v2) is the one behind C(central.zerotier.com). It was made from what public clients send, and was not tried
        against the service. It cannot set the rules of a network, nor the tags of a member.
    type: str
    choices: [central_v1, central_v2, controller]
    default: controller
  network:
    description:
      - Id of the network, all 16 hexadecimal digits of it. A network at O(plane=controller) has that controller's node id in front.
    type: str
    required: true
  token:
    description:
      - Token of the API.
      - Taken from the environment variable E(ZEROTIER_TOKEN) if not given. O(token_file) goes before both.
      - Needed for V(central_v1) and V(central_v2).
    type: str
  token_file:
    description:
      - File with the token, on the machine where the module runs.
      - For O(plane=controller) without any token, C(/var/lib/zerotier-one/authtoken.secret), which only root can read.
    type: path
  endpoint:
    description: Base URL of the API, for a proxy, the sandbox, or a daemon with another port than C(http://127.0.0.1:9993).
    type: str
requirements:
  - Python 3.11 or newer, on the machine where the module runs
  - requests
"""
