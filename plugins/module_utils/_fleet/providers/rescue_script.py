# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs in a rescue system: proves whose disk it sees, writes an image onto it, and reads it back.

This file is private to the gpumesh.fleet collection.
"""

from __future__ import annotations

NAMESPACE = "gpumesh-rescue"
"""Of the signature, so that one made for anything else does not count."""

STATEMENT = "gpumesh rescue {nonce} {fingerprint}\n"
"""What is signed. The script has the same words."""

SCRIPT = r"""#!/bin/sh
# Usage: prove NONCE FINGERPRINT | write PROGRAM BYTES | digest BYTES
set -eu
export LC_ALL=C

die() {
  echo "gpumesh: $1" >&2
  exit 3
}

the_disk() {
  disks=$(lsblk -dnrpo NAME,TYPE | awk '$2 == "disk" && $1 !~ /^\/dev\/(zram|ram|nbd|fd)/ {print $1}')
  [ "$(echo "$disks" | grep -c .)" = 1 ] || die "the server has not exactly one disk but: $(echo $disks)"
  echo "$disks"
}

systems() {
  lsblk -nrpo NAME,FSTYPE "$disk" | awk '$2 ~ /^ext[234]$/ {print $1}'
}

# The host key of the system on the disk says which host key this rescue system shows.
prove() {
  for part in $(systems); do
    mount -o ro "$part" "$root" 2>/dev/null || continue
    key=$root/etc/ssh/ssh_host_ed25519_key
    if [ -f "$key" ]; then
      printf 'gpumesh rescue %s %s\n' "$1" "$2" | ssh-keygen -q -Y sign -n gpumesh-rescue -f "$key"
      umount "$root"
      for program in zstd xz gzip; do
        if command -v "$program" >/dev/null; then echo "program $program"; fi
      done
      return
    fi
    umount "$root"
  done
  die "no system with an SSH host key is on the disk"
}

# What would be left of the temporary system beyond the end of the image is nobody's business.
forget() {
  for part in $(systems); do
    mount "$part" "$root" 2>/dev/null || continue
    find "$root"/etc/ssh/ssh_host_*_key "$root/var/lib/cloud" -type f -exec shred -n 1 -z {} + 2>/dev/null || :
    umount "$root"
  done
  blkdiscard -f "$disk" 2>/dev/null || :
}

write() {
  size=$(blockdev --getsize64 "$disk")
  [ "$size" -ge "$2" ] || die "the disk has $size bytes, and the image $2"
  command -v "$1" >/dev/null || die "the rescue system has no $1"
  forget
  rm -f "$root.whole"
  { "$1" -dc && : >"$root.whole"; } | dd of="$disk" bs=4M iflag=fullblock oflag=direct conv=notrunc,fsync status=none
  [ -e "$root.whole" ] || die "the image was cut off, or is damaged"
}

digest() {
  blockdev --flushbufs "$disk"
  dd if="$disk" bs=4M iflag=direct,fullblock,count_bytes count="$1" status=none | sha256sum
}

umask 077
disk=$(the_disk)
root=$(mktemp -d)
"$@"
"""
