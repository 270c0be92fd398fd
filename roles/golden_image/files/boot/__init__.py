# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot a disk image under QEMU and wait until somebody can log in over SSH. The image itself is never written to.

QEMU runs in a container of the tools image, which needs no right but, where it is there, /dev/kvm. Each machine starts from an
overlay a little larger than the image, with a NoCloud seed and a network that leads nowhere but to its SSH server.

The one booted by BIOS gets a host key that is planted by the seed and so known in advance; the one booted by UEFI makes its own,
which is read from its serial console before the first connection. No key is ever taken on trust.

usage: python3 boot start '{"image": "disk.qcow2", "folder": "gate", "tools": "gpumesh/image-tools:...", "build": "..."}'
       python3 boot stop  '{"build": "...", "engine": "docker"}'
       python3 boot run IMAGE.qcow2 --tools gpumesh/image-tools:... [--firmware uefi] [--key ~/.ssh/id_ed25519.pub]

`start` boots one machine for each firmware at the same time, leaves them running, and writes boots.json into the folder. A
machine that nobody stops stops itself. `run` is for people: it boots one image, says how to log in, and stops at Ctrl-C.
"""
