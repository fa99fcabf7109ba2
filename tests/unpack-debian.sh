# Unpacks programs made by Debian into a folder; sourced by the installers of tests.
#
# Nothing is installed on the host and no package script is run: apt works out and
# fetches the dependency closure against an empty package database of its own, and
# every package is unpacked into the target. A wrapper then starts the result through
# the target's own dynamic loader, so it sees the host's files and the host's network.

readonly UNAVAILABLE=69 # EX_UNAVAILABLE of sysexits.h

die() { # STATUS MESSAGE
  echo "${0##*/}: $2" >&2
  exit "$1"
}

# Does nothing when the target is finished (FORCE=1 does it again).
is_unpacked() { # SUITE TARGET PACKAGE...
  [ "${FORCE:-0}" != 1 ] && [ "$(cat "$2/.installed" 2>/dev/null)" = "$1 ${*:3}" ]
}

# The last step of an installer: from here on the target counts as finished.
mark_unpacked() { # SUITE TARGET PACKAGE...
  echo "$1 ${*:3}" >"$2/.installed"
}

# Two test runs at once: the second waits and then finds the target finished.
wait_for_turn() { # CACHE
  mkdir -p "$1"
  exec 9>"$1/lock"
  flock 9
}

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

unpack_debian() { # SUITE TARGET CACHE PACKAGE...
  local suite=$1 target=$2 cache=$3 tool mirror keyring options closure package deb
  local packages=("${@:4}")
  for tool in apt-get dpkg-deb tar flock; do
    command -v "$tool" >/dev/null || die "$UNAVAILABLE" "$tool is not on this machine"
  done
  mkdir -p "$cache"/{lists/partial,archives/partial,etc,state}
  cache=$(cd "$cache" && pwd -P)
  mirror=${DEBIAN_MIRROR:-$(mirror_of_indexes || true)}
  mirror=${mirror:-$(mirror_of_source_files || true)}
  [ -n "$mirror" ] ||
    die "$UNAVAILABLE" "no Debian mirror in this machine's apt configuration"

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
  private_apt -y --download-only install "${packages[@]}" ||
    die "$UNAVAILABLE" "the packages of Debian $suite could not be fetched"

  echo "unpacking into $target"
  find "$target" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
  for folder in bin sbin lib lib64; do # the merged /usr that packages expect
    mkdir -p "$target/usr/$folder"
    ln -sfn "usr/$folder" "$target/$folder"
  done
  closure=$(private_apt -y --simulate install "${packages[@]}" |
    awk '$1 == "Inst" { version = $3; sub(/^\(/, "", version); print $2 "_" version }')
  for package in $closure; do
    local name=${package%%_*} version=${package#*_}
    deb=$(find "$cache/archives" -maxdepth 1 -name "${name}_${version//:/%3a}_*.deb" |
      head -n 1)
    [ -n "$deb" ] || die 1 "package $name $version was not fetched"
    dpkg-deb --fsys-tarfile "$deb" |
      tar -x -C "$target" --keep-directory-symlink --no-same-owner \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
        --exclude='./usr/share/locale/*'
  done
}

# Writes TARGET/NAME, which starts PROGRAM with the target's own C library.
write_starter() { # TARGET NAME PROGRAM [LIBRARY-FOLDER-BELOW-THE-TRIPLET...]
  local target=$1 name=$2 program=$3 loader libraries path folder
  loader=$(cd "$target" &&
    find usr/lib usr/lib64 -maxdepth 2 -name 'ld-linux-*.so.*' | sort | head -n 1)
  [ -n "$loader" ] || die 1 "the unpacked tree has no dynamic loader"
  libraries=$(cd "$target" &&
    find usr/lib -maxdepth 2 -name libc.so.6 -printf '%h\n' | head -n 1)
  [ -n "$libraries" ] || die 1 "the unpacked tree has no C library"
  path="\$here/$libraries"
  for folder in "${@:4}"; do path="$path:\$here/$libraries/$folder"; done
  cat >"$target/$name" <<WRAPPER
#!/bin/sh
# Starts this tree's $name with this tree's C library.
here=\$(cd "\$(dirname "\$0")" && pwd -P)
exec "\$here/$loader" --library-path "$path:\$here/usr/lib" "\$here/$program" "\$@"
WRAPPER
  chmod +x "$target/$name"
}
