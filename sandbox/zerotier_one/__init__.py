# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for ZeroTier One on the sandbox's hosts. SIMULATED: nothing it carries is encrypted or authenticated.

It becomes a Debian package named ``zerotier-one`` (:mod:`sandbox.packages`) with the programs, the unit, the home
directory, the local HTTP interface and the network controller of the real one, as recorded from version 1.14.1. So what
is written for the real daemon runs here unchanged. Where the real one weaves an encrypted Ethernet through UDP, this one
puts a macvlan on the host's own Ethernet, with the name, the hardware address and the IP addresses a member would have.

It runs on hosts that have Python and nothing else, so it uses the standard library only and names no other part of the
sandbox.
"""
