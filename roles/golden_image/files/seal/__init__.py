# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a file system an image's: nothing of the machine it was built on, everything a new machine needs at its first boot.

It runs as root in a throw-away container of the highest layer, and writes the sealed file system as a tar to standard output.
Standard error has one line of JSON at its end: what was sealed. It refuses, with one sentence for each reason, where a trace of
the builder or a secret is left; those it does not remove by itself were not put there by a layer of ours.

The program itself is mounted into the container below /run, of which nothing is in the tar. Where nothing can be mounted, it is
packed into one file (files/zipped.py). `-B`, so that Python compiles nothing of the system that it runs in.

usage: python3 -B seal '{"name": "gpu-box", "fingerprint": "...", "epoch": 1764000000, "root_uuid": "...", "esp_id": "ABCD1234",
                         "files": {"first-boot": "...", ...}, ...}' > root.tar
"""
