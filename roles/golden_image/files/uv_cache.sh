# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
#
# Wheels that builds have fetched: copied to where uv looks for them, and back. Not mounted there: the environments of an image are hard
# links to that folder, so it has to be in the layer, with nothing else in it in the end.
#
# usage: sh -euc "$(cat uv_cache.sh)" uv-cache bring|keep MOUNTED UV_CACHE
direction="$1" mounted="$2" cache="$3"
case "$direction" in
  bring)
    # A layer that has one already knows best.
    if [ ! -d "$mounted/current" ] || [ -e "$cache" ]; then exit 0; fi
    mkdir -p "${cache%/*}"
    # Another build may put its own in the place meanwhile; then uv fetches them.
    if cp -a "$mounted/current" "$cache.new" && mv -T "$cache.new" "$cache"; then echo brought; else rm -rf "$cache.new"; fi
    ;;
  keep)
    if [ ! -e "$cache/CACHEDIR.TAG" ]; then exit 0; fi
    # What builds have left that were killed here.
    find "$mounted" -mindepth 1 -maxdepth 1 -name '.*' -mmin +1440 -exec rm -rf {} +
    fresh="$(mktemp -d "$mounted/.new-XXXXXXXX")" gone="$(mktemp -d "$mounted/.gone-XXXXXXXX")"
    # The indexes' answers are left out: they are asked again each time.
    for part in "$cache"/CACHEDIR.TAG "$cache"/archive-v* "$cache"/wheels-v*; do
      if [ -e "$part" ]; then cp -a "$part" "$fresh"; fi
    done
    chmod 0700 "$fresh"
    # Of two builds at the same time, one's stays; a half one never has the name.
    if [ -d "$mounted/current" ]; then mv -T "$mounted/current" "$gone" || true; fi
    if mv -T "$fresh" "$mounted/current"; then echo kept; fi
    rm -rf "$gone" "$fresh"
    ;;
esac
