#!/usr/bin/env bash
# Real Apache Cassandra single node from Maven coordinates (cassandra-all + its runtime dependencies).
# verbs: install | start | wait | stop | kill9 | status | env | wipe
set -euo pipefail
V=${CASSANDRA_VERSION:-5.0.9}
CACHE=${CASSANDRA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/perdure/cassandra}
LIB=$CACHE/$V/lib
DATA=${CASSANDRA_DATA:-${XDG_STATE_HOME:-$HOME/.local/state}/perdure/cassandra}
PORT=${CASSANDRA_PORT:-9042} STORAGE=${CASSANDRA_STORAGE_PORT:-7000} JMX=${CASSANDRA_JMX_PORT:-0} # JMX 0 = off
HOST=127.0.0.1
HEAP=${CASSANDRA_HEAP:--Xms512m -Xmx512m -XX:MaxDirectMemorySize=256m}
GC=${CASSANDRA_GC_OPTS:--XX:+UseSerialGC}
SYNC=${CASSANDRA_COMMITLOG_SYNC:-batch}   # batch|group: acked = synced. periodic loses ~100 ms of ACKED writes on kill -9 (sync markers), seen here
TOKENS=${CASSANDRA_NUM_TOKENS:-1}
JAVA=${CASSANDRA_JAVA:-${JAVA_HOME:+$JAVA_HOME/bin/}java}   # must be 11 or 17 for 5.0
WAIT_S=${CASSANDRA_WAIT:-120} STOP_S=${CASSANDRA_STOP:-40}
PIDF=$DATA/cassandra.pid LOG=$DATA/logs/console.log CONF=$DATA/conf

NAME=cassandra MARK=$CONF/cassandra.yaml PORTS=("$PORT" "$STORAGE")
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"

install() {
  mkdir -p "$CACHE"; exec 9>"$CACHE/.lock"; flock 9
  if [ -f "$CACHE/$V/.ok" ]; then exec 9>&-; return 0; fi
  rm -rf "$CACHE/$V"; mkdir -p "$LIB"
  cat >"$CACHE/$V/pom.xml" <<X
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>cassandra-node</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>$V</version></dependency></dependencies>
</project>
X
  mvn -q -B -f "$CACHE/$V/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$LIB" \
    >"$CACHE/install.log" 2>&1 || { echo "mvn failed, see $CACHE/install.log" >&2; return 1; }
  rm -f "$LIB"/*-osx-*.jar "$LIB"/*-windows-*.jar
  touch "$CACHE/$V/.ok"; exec 9>&-
}
configure() {
  mkdir -p "$CONF" "$DATA/logs" "$DATA/data" "$DATA/commitlog" "$DATA/hints" "$DATA/saved_caches" "$DATA/cdc_raw" "$DATA/tmp"
  local sync; case $SYNC in
    periodic) sync=$'commitlog_sync: periodic\ncommitlog_sync_period: 10000ms' ;;
    batch) sync='commitlog_sync: batch' ;;
    group) sync=$'commitlog_sync: group\ncommitlog_sync_group_window: 5ms' ;; esac
  cat >"$CONF/cassandra.yaml" <<X
cluster_name: perdure-test
num_tokens: $TOKENS
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider: [{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{seeds: "$HOST:$STORAGE"}]}]
listen_address: $HOST
rpc_address: $HOST
storage_port: $STORAGE
native_transport_port: $PORT
start_native_transport: true
data_file_directories: [$DATA/data]
commitlog_directory: $DATA/commitlog
hints_directory: $DATA/hints
saved_caches_directory: $DATA/saved_caches
cdc_raw_directory: $DATA/cdc_raw
$sync
commitlog_disk_access_mode: auto # past the page cache where it can: a sixth of a node's processor time under load
commitlog_segment_size: 8MiB
commitlog_total_space: 256MiB
concurrent_reads: 16
concurrent_writes: 16
concurrent_counter_writes: 8
concurrent_compactors: 1
memtable_heap_space: 96MiB
memtable_offheap_space: 64MiB
memtable_allocation_type: heap_buffers
memtable_flush_writers: 1
key_cache_size: 8MiB
row_cache_size: 0MiB
counter_cache_size: 4MiB
file_cache_size: 64MiB
networking_cache_size: 32MiB
auto_snapshot: false
hinted_handoff_enabled: false
disk_failure_policy: ${CASSANDRA_FAILURE_POLICY:-die}
commit_failure_policy: ${CASSANDRA_FAILURE_POLICY:-die}
authenticator: ${CASSANDRA_AUTHENTICATOR:-AllowAllAuthenticator}
authorizer: AllowAllAuthorizer
read_request_timeout: 10s
write_request_timeout: 10s
cas_contention_timeout: 5s
request_timeout: 20s
${CASSANDRA_YAML_EXTRA:-}
X
  cat >"$CONF/logback.xml" <<'X'
<configuration><appender name="O" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%d{ISO8601} %-5level [%thread] %logger{20} %msg%n</pattern></encoder></appender>
<root level="${cassandra.loglevel:-WARN}"><appender-ref ref="O"/></root></configuration>
X
}
JVM17=(-Djdk.attach.allowAttachSelf=true
  --add-exports java.base/jdk.internal.misc=ALL-UNNAMED --add-exports java.management.rmi/com.sun.jmx.remote.internal.rmi=ALL-UNNAMED
  --add-exports java.rmi/sun.rmi.registry=ALL-UNNAMED --add-exports java.rmi/sun.rmi.server=ALL-UNNAMED
  --add-exports java.rmi/sun.rmi.transport.tcp=ALL-UNNAMED --add-exports java.sql/java.sql=ALL-UNNAMED
  --add-exports java.base/java.lang.ref=ALL-UNNAMED --add-exports java.base/java.lang.reflect=ALL-UNNAMED
  --add-exports jdk.unsupported/sun.misc=ALL-UNNAMED
  --add-opens java.base/java.lang.module=ALL-UNNAMED --add-opens java.base/java.lang.reflect=ALL-UNNAMED
  --add-opens java.base/java.io=ALL-UNNAMED --add-opens java.base/java.lang=ALL-UNNAMED
  --add-opens java.base/java.math=ALL-UNNAMED --add-opens java.base/java.net=ALL-UNNAMED
  --add-opens java.base/java.nio=ALL-UNNAMED --add-opens java.base/java.nio.charset=ALL-UNNAMED
  --add-opens java.base/java.nio.file.spi=ALL-UNNAMED --add-opens java.base/java.util=ALL-UNNAMED
  --add-opens java.base/java.util.concurrent=ALL-UNNAMED --add-opens java.base/java.util.concurrent.atomic=ALL-UNNAMED
  --add-opens java.base/java.util.concurrent.locks=ALL-UNNAMED
  --add-opens java.base/jdk.internal.loader=ALL-UNNAMED --add-opens java.base/jdk.internal.ref=ALL-UNNAMED
  --add-opens java.base/jdk.internal.reflect=ALL-UNNAMED --add-opens java.base/jdk.internal.math=ALL-UNNAMED
  --add-opens java.base/jdk.internal.module=ALL-UNNAMED --add-opens java.base/jdk.internal.util.jar=ALL-UNNAMED
  --add-opens java.base/sun.nio.ch=ALL-UNNAMED --add-opens java.rmi/sun.rmi.transport.tcp=ALL-UNNAMED
  --add-opens jdk.compiler/com.sun.tools.javac.file=ALL-UNNAMED --add-opens jdk.management/com.sun.management.internal=ALL-UNNAMED
  --add-opens jdk.naming.dns/com.sun.jndi.dns=ALL-UNNAMED)
start() {
  pid >/dev/null && { echo "already running: $(pid)"; return 0; }
  all_free || return 1
  install; configure
  local jmx=(); [ "$JMX" = 0 ] || jmx=(-Dcassandra.jmx.local.port="$JMX" -Djava.rmi.server.hostname=$HOST)
  # shellcheck disable=SC2086
  setsid nohup "$JAVA" $HEAP $GC -Xss512k -XX:+ExitOnOutOfMemoryError -XX:ErrorFile=$DATA/logs/hs_err.log -XX:+PerfDisableSharedMem -XX:-UsePerfData \
    -Djava.net.preferIPv4Stack=true -Djava.awt.headless=true -Djava.io.tmpdir="$DATA/tmp" -Djna.tmpdir="$DATA/tmp" \
    -javaagent:"$(echo "$LIB"/jamm-*.jar)" "${JVM17[@]}" "${jmx[@]}" \
    -Dcassandra.config="file://$CONF/cassandra.yaml" -Dlogback.configurationFile="$CONF/logback.xml" \
    -Dcassandra.storagedir="$DATA" -Dcassandra.logdir="$DATA/logs" -Dcassandra.loglevel="${CASSANDRA_LOG:-WARN}" \
    -Dcassandra-foreground=yes -Dcassandra.ring_delay_ms=1 -Dcassandra.skip_wait_for_gossip_to_settle=0 \
    -Dcassandra.superuser_setup_delay_ms=0 -Dcassandra.max_local_pause_in_ms=30000 -Dio.netty.eventLoopThreads=2 \
    ${CASSANDRA_JVM_EXTRA:-} -cp "$CONF:$LIB/*" org.apache.cassandra.service.CassandraDaemon >>"$LOG" 2>&1 </dev/null 9>&- &
  echo $! >"$PIDF"; sleep 0.3
}
# CQL OPTIONS frame -> SUPPORTED (0x06) reply: proves the native protocol answers, needs no driver
ready() { [ "$( (exec 3<>"/dev/tcp/$HOST/$PORT" && printf '\x04\x00\x00\x01\x05\x00\x00\x00\x00' >&3 && timeout 3 head -c 5 <&3 | od -An -tx1 | awk '{print $5}') 2>/dev/null)" = 06 ]; }
addresses_of_clients() { echo "CASSANDRA_HOST=$HOST"; echo "CASSANDRA_PORT=$PORT"; }
verb "$@"
