#!/usr/bin/env bash
# Unpacks a real Asterisk, made by Debian, into a folder; see --help.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd -P)
# shellcheck source=tests/unpack-debian.sh
. "$repository/tests/unpack-debian.sh"

usage() {
  cat <<'TEXT'
usage: install-asterisk.sh 16|22 [TARGET]

  16      Asterisk 16, of Debian bullseye
  22      Asterisk 22, of Debian sid
  TARGET  where to unpack it (default: build/asterisk-16, build/asterisk-22)

A finished target is left alone (FORCE=1 does it again). Packages are kept in
TARGET.cache; ASTERISK_DEB_CACHE names another folder. DEBIAN_MIRROR names a
mirror; otherwise the one of this machine's apt configuration is used.
Needs apt-get, dpkg-deb, tar, flock and 500 MB of disk. Root is not needed.

Exit status: 69 when this machine has no way to Debian's packages, 1 for any
other failure.
TEXT
}

# The human recordings are what the tests' callers say.
readonly PACKAGES=(asterisk asterisk-core-sounds-en-wav)

case ${1:-} in
  16) suite=bullseye ;;
  22) suite=sid ;;
  -h | --help)
    usage
    exit 0
    ;;
  *)
    usage >&2
    exit 2
    ;;
esac
target=${2:-$repository/build/asterisk-$1}
mkdir -p "$target"
target=$(cd "$target" && pwd -P)
cache=${ASTERISK_DEB_CACHE:-$target.cache}/$suite

report() {
  local version
  version=$("$target/asterisk" -V)
  echo "$version in $target"
}

report_if_finished() {
  if is_unpacked "$suite" "$target" "${PACKAGES[@]}"; then
    report
    exit 0
  fi
}

report_if_finished
wait_for_turn "$cache"
report_if_finished
unpack_debian "$suite" "$target" "$cache" "${PACKAGES[@]}"

# Short names, and the "en" that Debian makes with an alternative.
modules=$(cd "$target" && find usr/lib -type d -path '*asterisk/modules' | sort | head -n 1)
[ -n "$modules" ] || die 1 "the unpacked tree has no Asterisk modules"
ln -sfn "$modules" "$target/modules"
voice=$(cd "$target/usr/share/asterisk/sounds" && find . -maxdepth 1 -name 'en_*' | head -n 1)
[ -n "$voice" ] || die 1 "the unpacked tree has no English recordings"
ln -sfn "$voice" "$target/usr/share/asterisk/sounds/en"
ln -sfn usr/share/asterisk/sounds/en "$target/recordings"

write_starter "$target" asterisk usr/sbin/asterisk pulseaudio
report
mark_unpacked "$suite" "$target" "${PACKAGES[@]}"
