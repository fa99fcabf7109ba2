#!/usr/bin/env bash
# Unpacks a real Asterisk, made by Debian, into a folder; see --help.
#
# Nothing is installed on the host and no package script is run: apt works out and
# fetches the dependency closure against an empty package database of its own, and
# every package is unpacked into TARGET. TARGET/asterisk starts the result through
# TARGET's own dynamic loader, so it sees the host's files and the host's network.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd -P)

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

readonly UNAVAILABLE=69 # EX_UNAVAILABLE of sysexits.h
# The human recordings are what the tests' callers say.
readonly PACKAGES=(asterisk asterisk-core-sounds-en-wav)

die() { # STATUS MESSAGE
  echo "install-asterisk.sh: $2" >&2
  exit "$1"
}

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
stamp=$target/.installed

is_installed() {
  [ "${FORCE:-0}" != 1 ] && [ "$(cat "$stamp" 2>/dev/null)" = "$suite ${PACKAGES[*]}" ]
}

report() {
  local version
  version=$("$target/asterisk" -V)
  echo "$version in $target"
}

if is_installed; then
  report
  exit 0
fi
for tool in apt-get dpkg-deb tar flock; do
  command -v "$tool" >/dev/null || die "$UNAVAILABLE" "$tool is not on this machine"
done
cache=${ASTERISK_DEB_CACHE:-$target.cache}/$suite
mkdir -p "$cache"/{lists/partial,archives/partial,etc,state}
cache=$(cd "$cache" && pwd -P)

# Two test runs at once: the second waits and then finds the target finished.
exec 9>"$cache/lock"
flock 9
if is_installed; then
  report
  exit 0
fi

# The mirror is the one this machine's apt already uses for Debian itself.
mirror_of_indexes() {
  apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' \
    2>/dev/null | awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }'
}
mirror_of_source_files() { # before any "apt-get update" there are no indexes
  cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list \
    /etc/apt/sources.list.d/*.list 2>/dev/null |
    awk '/^URIs:/ { for (i = 2; i <= NF; i++) print $i }
         /^deb[ \t]/ { for (i = 2; i <= NF; i++) if ($i ~ /:\//) { print $i; break } }' |
    grep -E '/debian/?$' | head -n 1
}
mirror=${DEBIAN_MIRROR:-$(mirror_of_indexes || true)}
mirror=${mirror:-$(mirror_of_source_files || true)}
[ -n "$mirror" ] || die "$UNAVAILABLE" "no Debian mirror in this machine's apt configuration"

# A private apt: own lists, own (empty) package database, no hooks of the host.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
options="check-valid-until=no"
if [ -r "$keyring" ]; then options="$options signed-by=$keyring"; fi
echo "deb [$options] $mirror $suite main" >"$cache/etc/sources.list"
: >"$cache/state/status"
cat >"$cache/etc/apt.conf" <<CONF
Dir::State "$cache/state";
Dir::State::lists "$cache/lists";
Dir::State::status "$cache/state/status";
Dir::Cache "$cache";
Dir::Cache::archives "$cache/archives";
Dir::Etc::sourcelist "$cache/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Debug::NoLocking "true";
CONF
private_apt() {
  apt-get -c "$cache/etc/apt.conf" -o APT::Update::Post-Invoke= \
    -o APT::Update::Post-Invoke-Success= -o DPkg::Post-Invoke= -q "$@"
}
# Without --error-on=any apt treats an unreachable mirror as a warning.
private_apt -o APT::Update::Error-Mode=any update ||
  die "$UNAVAILABLE" "the package lists of Debian $suite could not be fetched"
private_apt -y --download-only install "${PACKAGES[@]}" ||
  die "$UNAVAILABLE" "the packages of Debian $suite could not be fetched"

echo "unpacking into $target"
rm -f "$stamp"
find "$target" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
for folder in bin sbin lib lib64; do # the merged /usr that packages expect
  mkdir -p "$target/usr/$folder"
  ln -sfn "usr/$folder" "$target/$folder"
done
closure=$(private_apt -y --simulate install "${PACKAGES[@]}" |
  awk '$1 == "Inst" { version = $3; sub(/^\(/, "", version); print $2 "_" version }')
for package in $closure; do
  name=${package%%_*} version=${package#*_}
  deb=$(find "$cache/archives" -maxdepth 1 -name "${name}_${version//:/%3a}_*.deb" | head -n 1)
  [ -n "$deb" ] || die 1 "package $name $version was not fetched"
  dpkg-deb --fsys-tarfile "$deb" |
    tar -x -C "$target" --keep-directory-symlink --no-same-owner \
      --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
      --exclude='./usr/share/locale/*'
done

# Short names, and the "en" that Debian makes with an alternative.
modules=$(cd "$target" && find usr/lib -type d -path '*asterisk/modules' | sort | head -n 1)
[ -n "$modules" ] || die 1 "the unpacked tree has no Asterisk modules"
ln -sfn "$modules" "$target/modules"
voice=$(cd "$target/usr/share/asterisk/sounds" && find . -maxdepth 1 -name 'en_*' | head -n 1)
[ -n "$voice" ] || die 1 "the unpacked tree has no English recordings"
ln -sfn "$voice" "$target/usr/share/asterisk/sounds/en"
ln -sfn usr/share/asterisk/sounds/en "$target/recordings"

loader=$(cd "$target" && find usr/lib usr/lib64 -maxdepth 2 -name 'ld-linux-*.so.*' | sort | head -n 1)
[ -n "$loader" ] || die 1 "the unpacked tree has no dynamic loader"
libraries=$(cd "$target" && find usr/lib -maxdepth 2 -name libc.so.6 -printf '%h\n' | head -n 1)
[ -n "$libraries" ] || die 1 "the unpacked tree has no C library"
cat >"$target/asterisk" <<WRAPPER
#!/bin/sh
# Starts this tree's Asterisk with this tree's C library.
here=\$(cd "\$(dirname "\$0")" && pwd -P)
exec "\$here/$loader" --library-path "\$here/$libraries:\$here/$libraries/pulseaudio:\$here/usr/lib" \\
  "\$here/usr/sbin/asterisk" "\$@"
WRAPPER
chmod +x "$target/asterisk"
report
echo "$suite ${PACKAGES[*]}" >"$stamp"
