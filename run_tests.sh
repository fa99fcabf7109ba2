#!/usr/bin/env bash
# Every check of the project; see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./run_tests.sh [--fast] [PYTEST-OPTION...]

Runs ruff, ruff format, mypy --strict, bandit, detect-secrets and pytest; fails if one
of them fails.

  --fast            leave out what is marked slow or asterisk, in two processes (under
                    three minutes on two cores), and the scans for faults and secrets
  PYTEST-OPTION...  handed to pytest, e.g. tests/model -k resample -x

The full run places real calls through Asterisk 16 and 22 and asks a real llama.cpp
server, which it unpacks into build/ from Debian's packages (no root; about 180 MB to
fetch, once). Where that cannot be done those tests are skipped with the reason; with
CI=true they fail.

.venv is prepared by ./start_server.sh --setup and gets requirements-dev.txt on
top, again only when one of the files changed. If Python or its venv module is
missing, root installs them with apt-get; anybody else is told the command.
TEXT
}

readonly STAMP=.venv/.requirements-dev-installed

prepare_runtime() {
  local status=0
  ./start_server.sh --setup || status=$?
  if [ "$status" -eq 3 ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "run_tests.sh: installing python3 and python3-venv with apt-get" >&2
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
      python3 python3-venv
    status=0
    ./start_server.sh --setup || status=$?
  fi
  return "$status"
}

# The runtime stamp is part of it: a rebuilt .venv has lost the tools as well.
wanted_stamp() {
  cat requirements-dev.txt requirements-otel.txt requirements-store.txt .venv/.requirements-installed | sha256sum | cut -d' ' -f1
}

prepare_tools() {
  if [ -r "$STAMP" ] && [ "$(wanted_stamp)" = "$(cat "$STAMP")" ]; then return; fi
  echo "run_tests.sh: installing requirements-dev.txt into .venv" >&2
  rm -f "$STAMP"
  .venv/bin/python -m pip install --disable-pip-version-check --no-input --quiet \
    -r requirements-dev.txt
  wanted_stamp >"$STAMP.new"
  mv "$STAMP.new" "$STAMP"
}

# Locally a test without its tool is skipped with the reason; the build server starts
# from a bare system and has to show everything.
readonly DEBIAN_PACKAGES=(chromium chromium-driver libfaketime logrotate prometheus)

prepare_debian_packages() {
  local package missing=()
  if [ -z "${CI:-}" ]; then return; fi
  for package in "${DEBIAN_PACKAGES[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  echo "run_tests.sh: installing ${missing[*]} with apt-get" >&2
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
    "${missing[@]}"
}

failed=()
check() { # NAME COMMAND...
  local name=$1 began=$SECONDS
  shift
  echo "== $name" >&2
  if "$@"; then
    echo "== $name: ok, $((SECONDS - began)) s" >&2
  else
    echo "== $name: FAILED, $((SECONDS - began)) s" >&2
    failed+=("$name")
  fi
}

run_pytest() {
  .venv/bin/python -m pytest -rs "$@"
}

finish_real_calls() {
  local status=0
  wait "$real_calls" || status=$?
  cat build/end-to-end.log
  return "$status"
}

# What runs where calls are; the rest is for this repository's own hands.
readonly shipped=(agi_handlers model rest_api tools ./*.py)

# The passwords of tests open nothing.
find_no_secrets() {
  if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    echo "not scanned: which files are the project's, only git knows" >&2
    return
  fi
  git ls-files -z --cached --others --exclude-standard -- \
    ':!tests' ':!benchmarks/results' ':!*.wav' ':!*.png' ':!*.safetensors' ':!*.onnx' |
    xargs -0 .venv/bin/detect-secrets-hook
}

# A browser during calls, or a model that computes in them, wants the machine to itself.
readonly alone=(tests/end_to_end/test_console.py tests/end_to_end/test_model_in_call.py)

selection=()
is_whole=true
case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
  --fast)
    # by file: what a module's tests share is made once
    selection=(-m "not slow and not asterisk" --numprocesses 2 --dist loadfile)
    is_whole=false
    shift
    ;;
esac

prepare_runtime
prepare_tools
if $is_whole; then prepare_debian_packages; fi

export PYTHONDONTWRITEBYTECODE=1
check "ruff" .venv/bin/ruff check .
check "ruff format" .venv/bin/ruff format --check .
check "mypy" .venv/bin/mypy --strict .
if $is_whole && [ $# -eq 0 ]; then
  check "bandit" .venv/bin/bandit -q -ll -c pyproject.toml -r "${shipped[@]}"
  check "secrets" find_no_secrets
  # Real calls mostly wait, everything else mostly computes: side by side they take
  # two thirds of the time.
  mkdir -p build
  run_pytest tests/end_to_end "${alone[@]/#/--ignore=}" \
    >build/end-to-end.log 2>&1 &
  real_calls=$!
  trap 'kill "$real_calls" 2>/dev/null || true' EXIT
  check "pytest, all but real calls" run_pytest --ignore=tests/end_to_end
  check "pytest, real calls" finish_real_calls
  check "pytest, a browser and a model in calls" run_pytest "${alone[@]}"
else
  check "pytest" run_pytest "${selection[@]}" "$@"
fi

if [ ${#failed[@]} -gt 0 ]; then
  echo "run_tests.sh: failed: ${failed[*]} (${SECONDS} s)" >&2
  exit 1
fi
echo "run_tests.sh: everything passed (${SECONDS} s)" >&2
