#!/bin/sh
# Lays out the folder that the Dockerfile's `prebuilt` stage copies: the stripped binary and the CA roots.
set -eu
binary=$1 folder=$2
mkdir -p "$folder"
strip -o "$folder/swarmkeeper" "$binary"
cp /etc/ssl/certs/ca-certificates.crt "$folder/"
