#!/usr/bin/env bash
# Real Apache Pulsar standalone (broker + bookie, RocksDB metadata, no ZooKeeper) from Maven coordinates.
# verbs: install | start | wait | stop | kill9 | status | env | wipe
set -euo pipefail
V=${PULSAR_VERSION:-4.0.8}
GAV=org.apache.pulsar:pulsar-server-distribution:$V:tar.gz:bin
CACHE=${PULSAR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/perdure/pulsar}
HOME_DIR=$CACHE/apache-pulsar-$V
DATA=${PULSAR_DATA:-${XDG_STATE_HOME:-$HOME/.local/state}/perdure/pulsar}
PORT=${PULSAR_PORT:-6650} HTTP=${PULSAR_HTTP_PORT:-8080} BKPORT=${PULSAR_BK_PORT:-3181}
HOST=127.0.0.1
HEAP=${PULSAR_HEAP:--Xms256m -Xmx768m -XX:MaxDirectMemorySize=512m}
GC=${PULSAR_GC_OPTS:--XX:+UseSerialGC}
SYNC=${PULSAR_FSYNC:-false}           # true: bookie journal fsyncs before ack (survives power loss, slower)
WAIT_S=${PULSAR_WAIT:-120} STOP_S=${PULSAR_STOP:-30}
EXTRA=${PULSAR_CONF_EXTRA:-}          # "key=value key2=value2": further standalone.conf settings
LISTENERS=${PULSAR_LISTENERS:-}       # "name:pulsar://host:port,...": further addresses that clients may be told, by name
PIDF=$DATA/pulsar.pid LOG=$DATA/logs/console.log CONF=$DATA/conf/standalone.conf

NAME=pulsar MARK=$CONF PORTS=("$PORT" "$HTTP")
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"

set_conf() { local k=${1%%=*}; sed -i "/^${k}=/d" "$CONF"; echo "$1" >>"$CONF"; } # replace, never duplicate
install() {
  mkdir -p "$CACHE"; exec 9>"$CACHE/.lock"; flock 9
  if [ -f "$HOME_DIR/.ok" ]; then exec 9>&-; return 0; fi
  local t; t=$(mktemp -d "$CACHE/.tmp.XXXXXX")
  mvn -q -B dependency:copy -Dartifact="$GAV" -DoutputDirectory="$t" >"$CACHE/install.log" 2>&1 ||
    { rm -rf "$t"; echo "mvn failed for $GAV, see $CACHE/install.log" >&2; return 1; }
  tar xzf "$t"/*.tar.gz -C "$t"; rm -rf "$HOME_DIR"; mv "$t/apache-pulsar-$V" "$HOME_DIR"; rm -rf "$t"
  rm -f "$HOME_DIR"/lib/*-osx-*.jar "$HOME_DIR"/lib/*-windows-*.jar
  touch "$HOME_DIR/.ok"; exec 9>&-
}
addresses() { # Pulsar takes either one address, or a list of named ones
  if [ -z "$LISTENERS" ]; then echo "advertisedAddress=$HOST"
  else echo "advertisedAddress= internalListenerName=internal advertisedListeners=internal:pulsar://$HOST:$PORT,$LISTENERS"; fi; }
configure() {
  mkdir -p "$DATA/conf" "$DATA/logs"; { cat "$HOME_DIR/conf/standalone.conf"; echo; } >"$CONF"  # the shipped file has no final newline
  local kv; for kv in \
    brokerServicePort=$PORT webServicePort=$HTTP bindAddress=$HOST $(addresses) \
    listeningInterface=lo allowLoopback=true clusterName=standalone webSocketServiceEnabled=false \
    numIOThreads=2 numHttpServerThreads=8 numOrderedExecutorThreads=2 numExecutorThreadPoolSize=2 \
    numCacheExecutorThreadPoolSize=2 managedLedgerCacheSizeMB=96 \
    dbStorage_writeCacheMaxSizeMb=64 dbStorage_readAheadCacheMaxSizeMb=32 \
    dbStorage_rocksDB_blockCacheSize=16777216 journalSyncData=$SYNC journalMaxGroupWaitMSec=1 \
    brokerDeduplicationEnabled=true transactionCoordinatorEnabled=${PULSAR_TXN:-false} delayedDeliveryTickTimeMillis=50 \
    forceDeleteTenantAllowed=true forceDeleteNamespaceAllowed=true brokerDeleteInactiveTopicsEnabled=false \
    managedLedgerNewEntriesCheckDelayInMillis=0 managedLedgerDefaultMarkDeleteRateLimit=${PULSAR_ACK_FLUSH_RATE:-10} $EXTRA; do set_conf "$kv"; done
}
start() {
  pid >/dev/null && { echo "already running: $(pid)"; return 0; }
  all_free || return 1
  install; configure
  env PULSAR_MEM="$HEAP" PULSAR_GC="$GC" PULSAR_GC_LOG=" " PULSAR_LOG_DIR="$DATA/logs" \
    PULSAR_LOG_ROOT_LEVEL="${PULSAR_LOG:-warn}" PULSAR_LOG_LEVEL="${PULSAR_LOG:-warn}" PULSAR_ROUTING_APPENDER_DEFAULT=Console \
    PULSAR_STANDALONE_CONF="$CONF" PULSAR_EXTRA_OPTS="-Dpulsar.allocator.exit_on_oom=true -XX:+ExitOnOutOfMemoryError -XX:-UsePerfData ${PULSAR_JVM_EXTRA:-}" \
    setsid nohup "$HOME_DIR/bin/pulsar" standalone -c "$CONF" -nfw -nss $([ -n "$LISTENERS" ] || echo "-a $HOST") \
      --metadata-dir "$DATA/metadata" --bookkeeper-dir "$DATA/bookkeeper" --bookkeeper-port "$BKPORT" \
      >>"$LOG" 2>&1 </dev/null 9>&- &
  echo $! >"$PIDF"; sleep 0.3
}
ask() { curl -fsS -m 5 ${PULSAR_TOKEN:+-H "Authorization: Bearer $PULSAR_TOKEN"} "http://$HOST:$HTTP/admin/v2/$1" 2>/dev/null; }
ready() { ask brokers/health | grep -q ok && ask namespaces/public | grep -q public/default; }
addresses_of_clients() { echo "PULSAR_URL=pulsar://$HOST:$PORT"; echo "PULSAR_ADMIN_URL=http://$HOST:$HTTP"; }
verb "$@"
