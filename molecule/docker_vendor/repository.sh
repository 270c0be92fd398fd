#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Make a stand-in for Docker's APT repository under /srv, and print the fingerprint of its key. Runs in a container.
#
# Its packages have the vendor's names and relations (docker/docker-ce-packaging, docker/containerd-packaging) and the
# programs of Debian's own, so the engine runs. Beside the good one there are repositories that apt has to refuse.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

root=/srv/debian
arch="$(dpkg --print-architecture)"
suite="$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)"
work="$(mktemp -d)"
chmod 0755 "$work"

# Tells the story of Debian's package in the vendor's words: vendor_package NAME FROM DEPENDS < further fields
vendor_package() {
  local tree="$work/$1" from="$work/$2"
  {
    printf '%s\n' "Package: $1" "Version: 5:99.0-1~debian~$suite" "Architecture: $arch" \
      "Maintainer: nobody <nobody@example.com>" "Description: stand-in for the vendor's $1"
    if [ -n "$3" ]; then printf 'Depends: %s\n' "$3"; fi
    cat
  } >"$work/control"
  mkdir -p "$tree/DEBIAN"
  if [ -d "$from" ]; then cp -a "$from/." "$tree/"; fi
  mv "$work/control" "$tree/DEBIAN/control"
  rm -f "$tree/DEBIAN/md5sums"
  dpkg-deb --root-owner-group -Znone --build "$tree" "$root/pool/$1_$arch.deb" >/dev/null
}

# What Debian's package needs, less what the vendor has in packages of its own.
needs() {
  sed -n 's/^Depends: //p' "$work/$1/DEBIAN/control" | sed 's/, /\n/g' | grep -vE '^(containerd|runc|docker-cli) ' | paste -sd,
}

make_packages() {
  local package packages=(docker.io containerd runc)
  # Debian 12 has the client in the package of the engine.
  if apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi
  (cd "$work" && apt-get -qq download "${packages[@]}")
  for package in "${packages[@]}"; do
    dpkg-deb --raw-extract "$work/$package"_*.deb "$work/$package"
  done
  if [ ! -d "$work/docker-cli" ]; then
    install -D "$work/docker.io/usr/bin/docker" "$work/docker-cli/usr/bin/docker"
    rm "$work/docker.io/usr/bin/docker"
  fi
  # One package of the vendor's is two of Debian's.
  cp -a "$work/runc/usr" "$work/containerd/"

  mkdir -p "$root/pool"
  vendor_package docker-ce docker.io "containerd.io, docker-ce-cli, $(needs docker.io)" <<'FIELDS'
Conflicts: docker (<< 1.5~), docker-engine, docker.io
Replaces: docker-engine
FIELDS
  vendor_package docker-ce-cli docker-cli libc6 <<'FIELDS'
Conflicts: docker (<< 1.5~), docker-engine, docker.io
FIELDS
  vendor_package containerd.io containerd "$(needs containerd), libseccomp2" <<'FIELDS'
Provides: containerd, runc
Conflicts: containerd, runc
Replaces: containerd, runc
FIELDS
  vendor_package docker-buildx-plugin none "" <<'FIELDS'
Enhances: docker-ce-cli
FIELDS
  vendor_package docker-compose-plugin none "" <<'FIELDS'
Enhances: docker-ce-cli
Conflicts: docker-compose
Replaces: docker-compose
FIELDS
}

# As Docker's: the primary key certifies, a subkey signs. The file gets the public half.
make_key() {
  local fingerprint
  gpg --batch --quiet --passphrase '' --quick-generate-key "$1" ed25519 cert never
  fingerprint="$(gpg --batch --quiet --with-colons --list-keys "=$1" | awk -F: '$1 == "fpr" { print $10; exit }')"
  gpg --batch --quiet --passphrase '' --quick-add-key "$fingerprint" ed25519 sign never
  gpg --batch --armor --export "$fingerprint" >"/srv/$1.asc"
  printf '%s\n' "$fingerprint"
}

sign() { gpg --batch --yes --local-user "=$1" --clearsign --output "$2/InRelease" "$2/Release"; }

apt-get -qq update
apt-get -qq install --no-install-recommends apt-utils gpg gpg-agent >/dev/null 2>&1

make_packages
fingerprint="$(make_key vendor)"
make_key stranger >/dev/null
gpg --batch --armor --export >/srv/both.asc

dist="$root/dists/$suite"
mkdir -p "$dist/stable/binary-$arch"
cd "$root"
apt-ftparchive packages pool >"$dist/stable/binary-$arch/Packages"
apt-ftparchive -o "APT::FTPArchive::Release::Suite=$suite" -o "APT::FTPArchive::Release::Codename=$suite" \
  -o APT::FTPArchive::Release::Components=stable -o "APT::FTPArchive::Release::Architectures=$arch" \
  release "$dist" >"$work/Release"
mv "$work/Release" "$dist/Release"
sign vendor "$dist"

for kind in unsigned tampered stranger; do
  mkdir -p "/srv/$kind/debian"
  cp -a "$root/dists" "/srv/$kind/debian/"
  ln -s "$root/pool" "/srv/$kind/debian/pool"
done
rm "/srv/unsigned/debian/dists/$suite/InRelease"
sed -i 's/^Date: .*/Date: Thu, 01 Jan 2026 00:00:00 UTC/' "/srv/tampered/debian/dists/$suite/InRelease"
sign stranger "/srv/stranger/debian/dists/$suite"

rm -rf "$work"
printf '%s\n' "$fingerprint"
