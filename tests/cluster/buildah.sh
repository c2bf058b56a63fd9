#!/usr/bin/env bash
# Builds container images without a container engine and without a registry, for the tests. It needs root.
#
#   buildah.sh base TAG PACKAGE...          an image of Debian packages (debootstrap), with pip's Python if it is among them
#   buildah.sh build ARGUMENT...            `buildah build`; pip's settings and certificates of this machine are secrets
#   buildah.sh pack ARCHIVE TAG...          one OCI archive of these images, whose common layers are in it once
#
# In place of `docker build` for services/images.sh: BUILD="tests/cluster/buildah.sh build".
set -euo pipefail

STATE=${XDG_STATE_HOME:-$HOME/.local/state}/perdure/buildah
SUITE=bookworm
CERTIFICATES=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
export STORAGE_DRIVER=overlay BUILDAH_ISOLATION=chroot

buildah() { command buildah --root "$STATE/storage" --runroot "$STATE/run" "$@"; }

base() {
  local tag=$1 root container packages; shift
  packages=$(IFS=,; echo "$*")
  root=$(mktemp -d)
  debootstrap --variant=minbase --include="$packages" "$SUITE" "$root" >"$root.log" 2>&1 || { tail -20 "$root.log" >&2; exit 1; }
  rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
    "$root"/usr/share/{doc,man,locale}/* "$root.log"
  container=$(buildah from scratch)
  buildah copy -q "$container" "$root" /
  buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 "$container"
  buildah commit -q "$container" "$tag" >/dev/null
  buildah rm "$container" >/dev/null
  rm -rf "$root"
}

build() {
  # A Dockerfile that takes no secrets gets them as volumes, which last as long as the build.
  local secrets=(--volume "$CERTIFICATES:/etc/ssl/certs/ca-certificates.crt:ro" --secret "id=certificates,src=$CERTIFICATES")
  [ ! -s /etc/pip.conf ] || secrets+=(--volume /etc/pip.conf:/etc/pip.conf:ro --secret "id=pip,src=/etc/pip.conf")
  buildah build --pull=never --network host --format docker --layers "${secrets[@]}" "$@"
}

pack() {
  local archive=$1 layout tag; shift
  layout=$(mktemp -d)
  for tag; do buildah push -q --disable-compression "$tag" "oci:$layout:$tag"; done
  tar -C "$layout" -cf "$archive" .
  rm -rf "$layout"
}

verb=${1:-}; shift || true
case $verb in
  base | build | pack) "$verb" "$@" ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
