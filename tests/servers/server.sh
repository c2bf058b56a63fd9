# What pulsar.sh and cassandra.sh have in common; sourced by them. They set NAME, MARK (what the command line of their
# own JVM holds), PORTS (those it listens on), DATA, PIDF, LOG, WAIT_S and STOP_S, and define install, start, ready and
# addresses_of_clients.
# shellcheck shell=bash disable=SC2154

pid() { # prints the PID only if it is alive AND is our own JVM (guards against PID reuse)
  local p; [ -s "$PIDF" ] && p=$(<"$PIDF") && [ -r "/proc/$p/cmdline" ] &&
    tr '\0' ' ' <"/proc/$p/cmdline" | grep -qF -- "$MARK" && echo "$p"; }
owns() { # does PID $1 hold the listening socket on port $2? (a foreign server on the port must never look like ours)
  local i; for i in $(awk -v h=":$(printf %04X "$2")\$" '$2 ~ h && $4=="0A"{print $10}' /proc/net/tcp /proc/net/tcp6 2>/dev/null); do
    find "/proc/$1/fd" -lname "socket:\[$i\]" 2>/dev/null | grep -q . && return 0; done; return 1; }
owns_all() { local q; for q in "${PORTS[@]}"; do owns "$1" "$q" || return 1; done; }
free() { ! awk -v h=":$(printf %04X "$1")\$" '$2 ~ h && $4=="0A"{f=1} END{exit !f}' /proc/net/tcp /proc/net/tcp6 2>/dev/null; }
all_free() { local q; for q in "${PORTS[@]}"; do free "$q" || { echo "port $q is held by another process; set a different one" >&2; return 1; }; done; }
wait_up() {
  local end=$((SECONDS + WAIT_S)) p
  while ((SECONDS < end)); do
    p=$(cat "$PIDF" 2>/dev/null) && [ -n "$p" ] || { echo "not started" >&2; return 1; }; [ -d "/proc/$p" ] || { echo "$NAME died; tail of $LOG:" >&2; tail -30 "$LOG" >&2; return 1; }
    owns_all "$p" && ready && return 0; sleep 0.2
  done; echo "$NAME not ready in ${WAIT_S}s, see $LOG" >&2; return 1
}
stop() {
  local p; p=$(pid) || { rm -f "$PIDF"; return 0; }
  kill -TERM "$p"; local end=$((SECONDS + STOP_S))
  while [ -d "/proc/$p" ] && ((SECONDS < end)); do sleep 0.2; done
  [ -d "/proc/$p" ] && kill -KILL "$p"; rm -f "$PIDF"
}
verb() {
  local p
  case ${1:-} in
    install) install ;; start) start ;; wait) wait_up ;; stop) stop ;;
    kill9) p=$(pid) || { echo "not running" >&2; exit 3; }; kill -KILL "$p"; while [ -d "/proc/$p" ]; do sleep 0.05; done ;;
    status) if p=$(pid); then echo "running pid=$p rss_kb=$(awk '/VmRSS/{print $2}' "/proc/$p/status") ready=$(owns_all "$p" && ready && echo yes || echo no)"; else echo stopped; exit 3; fi ;;
    env) addresses_of_clients ;;
    wipe) pid >/dev/null && { echo "stop first" >&2; exit 1; }; rm -rf "$DATA" ;;
    *) echo "usage: $0 install|start|wait|stop|kill9|status|env|wipe" >&2; exit 2 ;;
  esac
}
