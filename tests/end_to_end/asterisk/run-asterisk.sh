#!/usr/bin/env bash
# Runs one Asterisk of install-asterisk.sh with the configuration in etc/; see --help.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
repository=$(cd "$here/../../.." && pwd -P)

usage() {
  cat <<'TEXT'
usage: run-asterisk.sh start|fg|stop|status|env 16|22|TREE
       run-asterisk.sh cli 16|22|TREE COMMAND...

  start   in the background; waits until it answers, then prints its ports
  fg      in the foreground, until Ctrl-C or SIGTERM
  stop    by its own pid: asked over the CLI, then TERM, then KILL
  cli     one command of the Asterisk CLI, e.g. cli 22 core show channels
  env     shell assignments of the folders and ports

16 and 22 stand for build/asterisk-16 and -22. Everything listens on 127.0.0.1.
To hear the bot: ./start_server.sh, then run-asterisk.sh start 22, then
  .venv/bin/python -m tests.end_to_end.sip_caller --port 15000 --to bot --out heard.wav

Environment:
  PORT_BASE  first port, default 15000: SIP +0 (chan_pjsip), +1 (chan_sip, up to
             version 20), AMI +2, RTP +100 to +299
  AGI_PORT   the bot's FastAGI port, default 4573
  VICIDIAL_AGI_PORT  the one in the entries for VICIdial, default 4573 as in the files
  RUN_DIR    generated configuration, log, spool, sockets; default TREE.run. Its path
             must stay under 80 characters: it holds a Unix socket
TEXT
}
die() {
  echo "run-asterisk.sh: $*" >&2
  exit 1
}

case ${1:-} in -h | --help)
  usage
  exit 0
  ;;
esac
if [ $# -lt 2 ]; then
  usage >&2
  exit 2
fi
command=$1
case $2 in
  16 | 22) tree=$repository/build/asterisk-$2 ;;
  *) tree=$2 ;;
esac
shift 2
[ -x "$tree/asterisk" ] || die "$tree holds no Asterisk: run install-asterisk.sh first"
tree=$(cd "$tree" && pwd -P)
run=${RUN_DIR:-$tree.run}
mkdir -p "$run"
run=$(cd "$run" && pwd -P)
conf=$run/etc/asterisk.conf
pid_file=$run/run/asterisk.pid

readonly SETTINGS=(
  TREE RUN SIP_PORT CHAN_SIP_PORT AMI_PORT RTP_START RTP_END AGI_PORT VICIDIAL_AGI_PORT
)
if [ "$command" != start ] && [ "$command" != fg ] && [ -r "$run/env" ]; then
  . "$run/env" # a running instance keeps the ports it was started with
else
  base=${PORT_BASE:-15000}
  TREE=$tree RUN=$run
  SIP_PORT=$base CHAN_SIP_PORT=$((base + 1)) AMI_PORT=$((base + 2))
  RTP_START=$((base + 100)) RTP_END=$((base + 299))
  AGI_PORT=${AGI_PORT:-4573} VICIDIAL_AGI_PORT=${VICIDIAL_AGI_PORT:-4573}
fi

is_alive() { [ -r "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; }
cli() { "$tree/asterisk" -C "$conf" -rx "$*"; }
show_settings() {
  local name
  for name in "${SETTINGS[@]}"; do printf '%s=%q\n' "$name" "${!name}"; done
}

render() { # etc/ with its @NAMES@ filled in
  local name edits=() file line
  mkdir -p "$run"/{etc,cache,lib,spool/{monitor,recording,tmp},run,log,agi-bin}
  for name in "${SETTINGS[@]}"; do edits+=(-e "s#@$name@#${!name}#g"); done
  for file in "$here"/etc/*.conf; do
    sed "${edits[@]}" "$file" >"$run/etc/${file##*/}"
  done
  ln -sf "$repository"/dialplan/*.conf "$run/etc/" # as they are, not copies
  # but for the port, which an administrator sets there too
  for file in "$repository"/dialplan/vicidial-*-entry.conf; do
    rm -f "$run/etc/${file##*/}"
    sed "s#127.0.0.1:4573#127.0.0.1:$VICIDIAL_AGI_PORT#" "$file" >"$run/etc/${file##*/}"
  done
  cp "$here"/agi-bin/* "$run/agi-bin/"
  # Only modules that this version has: a missing one is an error to Asterisk.
  while IFS= read -r line; do
    case $line in 'load = '*) [ -e "$tree/modules/${line#load = }" ] || continue ;; esac
    printf '%s\n' "$line"
  done <"$here/etc/modules.conf" >"$run/etc/modules.conf"
  show_settings >"$run/env"
}

has_ended_within() { # PID TENTHS
  for _ in $(seq "$2"); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  return 1
}

start() {
  if is_alive; then die "already running, pid $(cat "$pid_file")"; fi
  render
  rm -f "$pid_file" "$run/run/asterisk.ctl"
  setsid "$tree/asterisk" -f -C "$conf" >"$run/log/console" 2>&1 </dev/null &
  echo $! >"$pid_file"
  for _ in $(seq 150); do
    if ! is_alive; then
      tail -n 20 "$run/log/console" >&2
      die "it ended at once"
    fi
    if [ -S "$run/run/asterisk.ctl" ] &&
      cli core waitfullybooted 2>/dev/null | grep -q 'fully booted'; then
      echo "up, pid $(cat "$pid_file")"
      show_settings
      return
    fi
    sleep 0.1
  done
  die "not up after 15 s; see $run/log"
}

stop() {
  local pid
  if ! is_alive; then
    echo "not running"
    return
  fi
  pid=$(cat "$pid_file")
  timeout 5 "$tree/asterisk" -C "$conf" -rx 'core stop now' >/dev/null 2>&1 || true
  if ! has_ended_within "$pid" 30; then kill -TERM "$pid" 2>/dev/null || true; fi
  if ! has_ended_within "$pid" 30; then kill -KILL "$pid" 2>/dev/null || true; fi
  rm -f "$pid_file"
  echo stopped
}

case $command in
  start) start ;;
  fg)
    if is_alive; then die "already running, pid $(cat "$pid_file")"; fi
    render
    echo $$ >"$pid_file"
    exec "$tree/asterisk" -f -C "$conf"
    ;;
  stop) stop ;;
  status)
    if is_alive; then
      echo "running, pid $(cat "$pid_file")"
    else
      echo "not running"
      exit 3
    fi
    ;;
  cli) cli "$@" ;;
  env) show_settings ;;
  *)
    usage >&2
    exit 2
    ;;
esac
