#!/bin/sh
# Builds the images of services, operator and worker base: `make images`, or services/images.sh NAME... for some.
# Read from the environment:
#   TAG         default: the version
#   PREFIX      default: localhost/perdure
#   BASE_IMAGE  default: what services/Dockerfile says
#   BUILD       what builds a Dockerfile; default: docker or buildah, whichever is there
set -eu
cd "$(dirname "$0")/.."

PREFIX=${PREFIX:-localhost/perdure}
TAG=${TAG:-$(sed -n 's/^version = "\(.*\)"$/\1/p' sdk/pyproject.toml)}
if [ -z "${BUILD:-}" ]; then
  if docker info >/dev/null 2>&1; then BUILD="docker build"
  elif command -v buildah >/dev/null; then BUILD="buildah build --format docker"
  else echo "images are built by docker or buildah: neither is there" >&2; exit 1; fi
fi
[ $# -gt 0 ] || set -- workflow-engine task-engine timer projector api operator worker

for name; do
  # shellcheck disable=SC2086 # BUILD is a command with its arguments
  $BUILD -f services/Dockerfile --target "$name" ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} -t "$PREFIX/$name:$TAG" .
done
