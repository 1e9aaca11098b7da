#!/bin/sh
# The image of tests/pipelines/test_containers.py, where no registry of images is reachable: a base from debootstrap and
# our code. Run as root in the folder of the project; needs debootstrap and podman.
set -e
MIRROR=${MIRROR:-http://deb.debian.org/debian}
ROOT=${ROOT:-$(mktemp -d)}
[ -e "$ROOT/usr/bin/python3" ] || debootstrap --variant=minbase --include=python3 bookworm "$ROOT" "$MIRROR"
rm -rf "$ROOT/app" && mkdir -p "$ROOT/app"
cp -r params.yaml profiles uniscale features models serving monitoring simulation components pipelines "$ROOT/app"
tar -C "$ROOT" -c . |
  podman import --change "ENV PYTHONPATH=/app:/opt/site" --change "WORKDIR /app" - "${1:-localhost/uniscale:test}"
