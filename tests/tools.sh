#!/bin/sh
# What building needs, and the packages named as arguments: a C toolchain, OpenSSL's static archive for libgit2, and Rust. Debian's packages are installed
# as root; anything else is named with its mend.
set -eu
packages="ca-certificates gcc libc6-dev libssl-dev make pkg-config $*"
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "missing Debian packages:$missing; run as root, or: sudo apt-get install$missing" >&2
        exit 1
    fi
    echo "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null; then
    echo "no Rust here, and Debian 12's is too old: install Rust $wanted or newer with rustup, then run this again" >&2
    exit 1
fi
found=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
    echo "Rust $found is too old: $wanted or newer is needed (rustup update)" >&2
    exit 1
fi
