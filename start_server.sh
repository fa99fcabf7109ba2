#!/usr/bin/env bash
# Prepares .venv when it has to and starts the service; see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./start_server.sh [--setup | --help] [OPTION...]

  (no option)  prepare .venv, then start the service: FastAGI, call audio and the
               HTTP API, in the foreground, until Ctrl-C or SIGTERM
  --setup      prepare .venv only
  --help       this text
  OPTION...    handed to fastagi_server.py (its own: .venv/bin/python fastagi_server.py --help)

Settings are environment variables (ULTRAVOX_PORT=8000, ULTRAVOX_AGI_PORT=4573, ...)
or lines in ultravox.toml; README.md lists them.

.venv is made with Python 3.11 or newer and filled from requirements.txt; later
starts reuse it until requirements.txt changes. PYTHON=/path/to/python3 chooses
the interpreter.

Exit status: 3 no usable Python (with venv), 4 not enough disk, 5 packages could
not be installed; otherwise that of the service.
TEXT
}

readonly STAMP=.venv/.requirements-installed
# Measured: 1.6 GB with the CPU build of PyTorch, and pip unpacks beside it.
readonly NEEDED_DISK_MB=3500

die() { # STATUS MESSAGE...
  local status=$1
  shift
  printf 'start_server.sh: %s\n' "$@" >&2
  exit "$status"
}

# What is in .venv: the package list and the interpreter it was installed for.
wanted_stamp() {
  sha256sum <requirements.txt | cut -d' ' -f1
  .venv/bin/python -c 'import sys; print(sys.version)'
}

is_prepared() {
  [ -x .venv/bin/python ] && [ -r "$STAMP" ] &&
    [ "$(wanted_stamp 2>/dev/null)" = "$(cat "$STAMP")" ]
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
  local candidate candidates=(python3 python3.13 python3.12 python3.11)
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    if command -v "$candidate" >/dev/null && is_new_enough "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  die 3 "Python 3.11 or newer was not found (looked for: ${candidates[*]})." \
    "On Debian 12 or later: apt-get install python3 python3-venv." \
    "Or name one: PYTHON=/path/to/python3 $0"
}

make_venv() {
  local python free_mb
  python=$(find_python)
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die 3 "$python comes without the venv module." \
      "On Debian and Ubuntu: apt-get install python3-venv."
  free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
  [ "$free_mb" -ge "$NEEDED_DISK_MB" ] ||
    die 4 "$free_mb MB free in $PWD; the packages need about $NEEDED_DISK_MB MB" \
      "(8000 MB where pip picks the CUDA build of PyTorch)."
  echo "start_server.sh: making .venv with $("$python" -V)" >&2
  # A half-made or moved environment is replaced, never repaired.
  rm -rf .venv
  "$python" -m venv .venv || die 3 "$python could not make .venv"
}

# The pip that Python brings may be years old: older ones let a package or an index
# write outside of .venv (CVE-2026-8643, CVE-2026-13346).
renew_pip() {
  .venv/bin/python -m pip install --disable-pip-version-check --no-input --quiet \
    --retries 1 "pip>=26.2" ||
    echo "start_server.sh: pip 26.2 or newer could not be had; going on with" \
      "$(.venv/bin/python -m pip --version), which has known faults" >&2
}

install_packages() {
  echo "start_server.sh: installing requirements.txt into .venv (minutes, the first time)" >&2
  rm -f "$STAMP"
  renew_pip
  .venv/bin/python -m pip install --disable-pip-version-check --no-input --quiet \
    -r requirements.txt ||
    die 5 "pip could not install requirements.txt; its message is above." \
      "The package index must be reachable; behind a proxy set HTTPS_PROXY."
  wanted_stamp >"$STAMP.new"
  mv "$STAMP.new" "$STAMP"
}

is_usable_venv() {
  [ -x .venv/bin/python ] && is_new_enough .venv/bin/python &&
    .venv/bin/python -m pip --version >/dev/null 2>&1
}

prepare() {
  if is_prepared; then return; fi
  # Two starts at once take turns; the lock is this folder, so it leaves no file.
  exec 9<.
  if command -v flock >/dev/null; then flock 9; fi
  if ! is_prepared; then
    is_usable_venv || make_venv
    install_packages
  fi
  exec 9<&- # the service must not hold the lock while it runs
}

case ${1:-} in
  -h | --help)
    usage
    ;;
  --setup)
    [ $# -eq 1 ] || die 2 "--setup takes no further options"
    prepare
    echo "start_server.sh: .venv is ready" >&2
    ;;
  *)
    prepare
    exec .venv/bin/python fastagi_server.py "$@"
    ;;
esac
