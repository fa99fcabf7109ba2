#!/usr/bin/env bash
# Unpacks llama.cpp's llama-server, made by Debian, into a folder; see --help.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../../.." && pwd -P)
# shellcheck source=tests/unpack-debian.sh
. "$repository/tests/unpack-debian.sh"

usage() {
  cat <<'TEXT'
usage: install-llama-server.sh [TARGET]

  TARGET  where to unpack it (default: build/llama-server)

It is that of Debian sid, CPU only. A finished target is left alone (FORCE=1 does
it again). Packages are kept in TARGET.cache; LLAMA_DEB_CACHE names another folder.
DEBIAN_MIRROR names a mirror; otherwise the one of this machine's apt configuration
is used. Needs apt-get, dpkg-deb, tar, flock and 200 MB of disk. Root is not needed.

Exit status: 69 when this machine has no way to Debian's packages, 1 for any
other failure.
TEXT
}

readonly SUITE=sid PACKAGES=(llama.cpp-tools)

case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
  -*)
    usage >&2
    exit 2
    ;;
esac
target=${1:-$repository/build/llama-server}
mkdir -p "$target"
target=$(cd "$target" && pwd -P)
cache=${LLAMA_DEB_CACHE:-$target.cache}/$SUITE

exit_if_finished() {
  if is_unpacked "$SUITE" "$target" "${PACKAGES[@]}"; then
    echo "llama-server in $target"
    exit 0
  fi
}

exit_if_finished
wait_for_turn "$cache"
exit_if_finished
unpack_debian "$SUITE" "$target" "$cache" "${PACKAGES[@]}"
# What computes is a plug-in, one for each set of instructions, looked for under an
# absolute path; the tests name one by GGML_BACKEND_PATH.
backends=$(cd "$target" && find usr/lib -type d -path '*/ggml/backends*' | head -n 1)
[ -n "$backends" ] || die 1 "the unpacked tree has no backends"
ln -sfn "$backends" "$target/backends"
write_starter "$target" llama-server usr/bin/llama-server llama
"$target/llama-server" --version 2>&1 | head -n 2
mark_unpacked "$SUITE" "$target" "${PACKAGES[@]}"
