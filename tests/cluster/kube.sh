#!/usr/bin/env bash
# A real Kubernetes cluster of one node out of plain background processes, for the tests. It needs root, and no systemd.
#
#   kube.sh tools               helm, helm-unittest, kubeconform: without root
#   kube.sh install             packages, binaries and the pause image (idempotent)
#   kube.sh up                  start whatever is not running; returns once the node is Ready
#   kube.sh wait [SECONDS]      wait for API, node Ready, DNS
#   kube.sh status              one line per component, then nodes and pods
#   kube.sh load-image FILE...  import OCI or Docker archives into containerd
#   kube.sh down [--purge]      end the pods and this script's own processes; --purge: forget their data too
#   kube.sh env                 shell lines to eval: KUBECONFIG, PATH
#
# Every process has a PID file that also holds its start time, so `down` never ends a process that it did not start.
# NetworkPolicy objects are accepted and not enforced (bridge CNI); there is no metrics server and no storage provisioner.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SRC=$HERE/src
: "${KUBE_BIN:=${XDG_CACHE_HOME:-$HOME/.cache}/perdure/kube/bin}"
: "${KUBE_STATE:=${XDG_STATE_HOME:-$HOME/.local/state}/perdure/kube}" # certificates, etcd data, containerd root, logs, PIDs
# Binaries built from src/ (NAME.xz, and the STAMP of their sources) save a build of 15 minutes where they are at hand.
: "${KUBE_PREBUILT:=$HERE/../../../shared/cluster/prebuilt}"
HELM_3=v3.22.0 HELM_4=v4.3.1 KUBECONFORM_VERSION=v0.7.0 UNITTEST_VERSION=v1.0.3
: "${HELM:=3}" # 4: `make test-helm4`; whichever is asked for replaces the other
case $HELM in 3) HELM_VERSION=$HELM_3 ;; 4) HELM_VERSION=$HELM_4 ;; *) echo "HELM=$HELM: 3 or 4" >&2; exit 1 ;; esac
TOOL_VERSIONS="kubeconform $KUBECONFORM_VERSION, helm-unittest $UNITTEST_VERSION"

NODE=node1 DOMAIN=cluster.local PAUSE_IMAGE=localhost/pause:1
NODE_IF=kbx0 POD_IF=kbxcni0 # the interface of the node's address, and the bridge of the pods
# 198.18.0.0/15 is for benchmarks and routed nowhere. The API and DNS have the usual addresses in the services' range.
NODE_IP=198.18.0.1 POD_CIDR=198.18.64.0/18 SVC_CIDR=198.19.0.0/20 SVC_API_IP=198.19.0.1 SVC_DNS_IP=198.19.0.10
API_PORT=6443 ETCD_PORT=2379 ETCD_PEER_PORT=2380 KUBELET_PORT=10250 KUBELET_HEALTH_PORT=10248 CM_PORT=10257
SCHED_PORT=10259 PROXY_HEALTH_PORT=10256 PROXY_METRICS_PORT=10249 DNS_HEALTH_PORT=18080
CGROUPS="cpu cpuacct cpuset memory pids devices freezer blkio hugetlb" # v1 controllers to mount where they are not

PKI=$KUBE_STATE/pki; CONF=$KUBE_STATE/conf; RUN=$KUBE_STATE/run; LOG=$KUBE_STATE/log
CTRD_SOCK=$RUN/containerd.sock
KC=$CONF/admin.kubeconfig
KUBE_VERSION=$(sed -n 's/^.*k8s.io\/kubernetes \(v[0-9.]*\).*$/\1/p' "$SRC/go.mod" | head -1)
COMPONENTS="containerd etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy cluster-dns"

say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
kctl() { "$KUBE_BIN/kubectl" --kubeconfig "$KC" "$@"; }
ctrd() { ctr -a "$CTRD_SOCK" -n k8s.io "$@"; }

# ---- processes -------------------------------------------------------------------------
start_time() { # field 22 of /proc/PID/stat, counted after the parenthesised name
  local s; s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -ra s <<<"${s##*) }"; echo "${s[19]}"
}
pid_of() { # prints the PID of component $1 when it is alive and is the process we started
  local pid st _
  [ -r "$RUN/$1.pid" ] || return 1
  read -r pid st _ <"$RUN/$1.pid" || return 1
  [ -n "${st:-}" ] && [ "$(start_time "$pid")" = "$st" ] || return 1
  [ "$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null)" != Z ] || return 1
  echo "$pid"
}
launch() { # launch NAME COMMAND...: in its own session, detached from this shell
  local name=$1 pid; shift
  if pid_of "$name" >/dev/null; then return 0; fi
  [ -s "$LOG/$name.log" ] && mv -f "$LOG/$name.log" "$LOG/$name.log.1"
  # shellcheck disable=SC2016 # the inner shell expands them
  setsid --fork bash -c 'echo $$ >"$0"; exec "$@"' "$RUN/$name.pid.tmp" "$@" \
    >"$LOG/$name.log" 2>&1 </dev/null
  for _ in $(seq 100); do [ -s "$RUN/$name.pid.tmp" ] && break; sleep 0.02; done
  pid=$(cat "$RUN/$name.pid.tmp"); rm -f "$RUN/$name.pid.tmp"
  echo "$pid $(start_time "$pid" || echo 0) $(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$RUN/$name.pid"
}
stop() { # stop NAME [SECONDS]
  local pid n=${2:-15}
  if pid=$(pid_of "$1"); then
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq $((n * 10))); do pid_of "$1" >/dev/null || break; sleep 0.1; done
    if pid_of "$1" >/dev/null; then say "$1 ignored TERM: KILL"; kill -KILL "$pid" 2>/dev/null || true; fi
  fi
  rm -f "$RUN/$1.pid"
}
await() { # await NAME SECONDS COMMAND...: fails early when component NAME has died
  local name=$1 end=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    pid_of "$name" >/dev/null || { tail -n 15 "$LOG/$name.log" >&2; die "$name exited; see $LOG/$name.log"; }
    [ $SECONDS -lt $end ] || { tail -n 15 "$LOG/$name.log" >&2; die "$name not ready in time; see $LOG/$name.log"; }
    sleep 0.15
  done
}

# shellcheck source-path=SCRIPTDIR source=kube_install.sh
. "$HERE/kube_install.sh"
# shellcheck source-path=SCRIPTDIR source=kube_node.sh
. "$HERE/kube_node.sh"

# ---- up --------------------------------------------------------------------------------
api_ready() { curl -fsS --max-time 3 --noproxy '*' --cacert "$PKI/ca.crt" "https://$NODE_IP:$API_PORT/readyz"; }
healthz() { curl -fsS --max-time 3 --noproxy '*' "http://127.0.0.1:$1/$2"; }
healthz_tls() { curl -fsSk --max-time 3 --noproxy '*' "https://127.0.0.1:$1/healthz"; }
node_ready() { # Ready, and said so by the kubelet that runs now (etcd remembers the last one's word)
  local st beat started
  read -r st beat < <(kctl get node "$NODE" -o \
    'jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime}{"\n"}{end}' 2>/dev/null) || return 1
  read -r _ _ started <"$RUN/kubelet.pid" || return 1
  [ "$st" = True ] && [[ ! "$beat" < "$started" ]]
}
workloads_seen() { # after a restart: the controllers have made the pods that `down` deleted
  local want have
  want=$(kctl get replicasets,statefulsets -A -o 'jsonpath={range .items[*]}{.spec.replicas}{"\n"}{end}' | awk '{n += $1} END {print n + 0}')
  have=$(kctl get pods -A -o name | wc -l)
  [ "$have" -ge "$want" ]
}
cgroups_up() { # kubelet needs these v1 controllers; most images mount only some of them
  [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] && return 0
  local c
  for c in $CGROUPS; do
    grep -q "^${c}[[:space:]]" /proc/cgroups || continue
    grep -qE " cgroup (\S*,)?$c(,\S*)? | /sys/fs/cgroup/\S+ cgroup \S*\b$c\b" /proc/mounts && continue
    mkdir -p "/sys/fs/cgroup/$c"
    if mount -t cgroup -o "$c" cgroup "/sys/fs/cgroup/$c" 2>/dev/null; then echo "$c" >>"$CONF/cgroups.mounted"
    else rmdir "/sys/fs/cgroup/$c"; fi
  done
}
cmd_up() {
  local t0=$SECONDS B=$KUBE_BIN
  export PATH=$PATH:/usr/sbin:/sbin
  [ "$(id -u)" = 0 ] || die "must run as root"
  cmd_install # quick when nothing is missing
  mkdir -p "$PKI" "$CONF" "$RUN" "$LOG"; chmod 700 "$PKI"
  make_pki; make_conf; net_up; cgroups_up
  local adm; adm=$(ulimit -Hn); ulimit -Sn "$adm" 2>/dev/null || true
  [ "$adm" = unlimited ] && adm=1000000
  echo "maxOpenFiles: $adm" >>"$CONF/kubelet.yaml"

  launch etcd "$B/etcd" --name="$NODE" --data-dir="$KUBE_STATE/etcd" --logger=zap --log-level=warn \
    --listen-client-urls="https://127.0.0.1:$ETCD_PORT" --advertise-client-urls="https://127.0.0.1:$ETCD_PORT" \
    --listen-peer-urls="http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-advertise-peer-urls="http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-cluster="$NODE=http://127.0.0.1:$ETCD_PEER_PORT" \
    --client-cert-auth --trusted-ca-file="$PKI/etcd-ca.crt" --cert-file="$PKI/etcd.crt" --key-file="$PKI/etcd.key" \
    --unsafe-no-fsync
  launch containerd containerd --config "$CONF/containerd.toml"
  launch kube-apiserver "$B/kube-apiserver" --v=1 \
    --bind-address="$NODE_IP" --advertise-address="$NODE_IP" --secure-port="$API_PORT" \
    --etcd-servers="https://127.0.0.1:$ETCD_PORT" --etcd-cafile="$PKI/etcd-ca.crt" \
    --etcd-certfile="$PKI/etcd-client.crt" --etcd-keyfile="$PKI/etcd-client.key" \
    --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
    --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$PKI/apiserver-kubelet-client.crt" \
    --kubelet-client-key="$PKI/apiserver-kubelet-client.key" \
    --service-account-issuer="https://kubernetes.default.svc.$DOMAIN" \
    --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
    --service-cluster-ip-range="$SVC_CIDR" --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
    --requestheader-username-headers=X-Remote-User --enable-aggregator-routing=true \
    --proxy-client-cert-file="$PKI/front-proxy-client.crt" --proxy-client-key-file="$PKI/front-proxy-client.key"
  await containerd 30 ctrd version
  ctrd images ls -q | grep -qx "$PAUSE_IMAGE" || ctrd images import "$B/pause.tar" >/dev/null
  await kube-apiserver 60 api_ready
  say "API ready after $((SECONDS - t0)) s"
  launch kube-controller-manager "$B/kube-controller-manager" --v=1 \
    --kubeconfig="$CONF/controller-manager.kubeconfig" --authentication-kubeconfig="$CONF/controller-manager.kubeconfig" \
    --authorization-kubeconfig="$CONF/controller-manager.kubeconfig" --use-service-account-credentials=true \
    --service-account-private-key-file="$PKI/sa.key" --root-ca-file="$PKI/ca.crt" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
    --tls-cert-file="$PKI/controller-manager.crt" --tls-private-key-file="$PKI/controller-manager.key" \
    --leader-elect=false --bind-address=127.0.0.1 --secure-port="$CM_PORT" \
    --cluster-cidr="$POD_CIDR" --allocate-node-cidrs=false \
    --flex-volume-plugin-dir="$KUBE_STATE/volume-plugins" \
    --horizontal-pod-autoscaler-sync-period=5s
  launch kube-scheduler "$B/kube-scheduler" --v=1 \
    --kubeconfig="$CONF/scheduler.kubeconfig" --authentication-kubeconfig="$CONF/scheduler.kubeconfig" \
    --authorization-kubeconfig="$CONF/scheduler.kubeconfig" --leader-elect=false \
    --tls-cert-file="$PKI/scheduler.crt" --tls-private-key-file="$PKI/scheduler.key" \
    --bind-address=127.0.0.1 --secure-port="$SCHED_PORT"
  launch kubelet "$B/kubelet" --v=1 --config="$CONF/kubelet.yaml" \
    --kubeconfig="$CONF/kubelet.kubeconfig" --hostname-override="$NODE" --node-ip="$NODE_IP" \
    --root-dir="$KUBE_STATE/kubelet" --cert-dir="$PKI/kubelet"
  launch kube-proxy "$B/kube-proxy" --v=1 --config="$CONF/kube-proxy.yaml"
  kctl apply --server-side --force-conflicts -f "$CONF/base.yaml" >/dev/null
  launch cluster-dns "$B/cluster-dns" -kubeconfig "$CONF/cluster-dns.kubeconfig" -listen "$NODE_IP:53" \
    -health "127.0.0.1:$DNS_HEALTH_PORT" -domain "$DOMAIN"
  cmd_wait 60
  say "node $NODE Ready after $((SECONDS - t0)) s; export KUBECONFIG=$KC"
}
cmd_wait() {
  local n=${1:-60}
  await kube-apiserver "$n" api_ready
  await kube-controller-manager "$n" healthz_tls "$CM_PORT"
  await kube-scheduler "$n" healthz_tls "$SCHED_PORT"
  await kubelet "$n" node_ready
  await kube-proxy "$n" healthz "$PROXY_HEALTH_PORT" healthz
  await cluster-dns "$n" healthz "$DNS_HEALTH_PORT" health
  await kube-controller-manager "$n" kctl -n default get serviceaccount default
  await kube-controller-manager "$n" workloads_seen
}

# ---- down ------------------------------------------------------------------------------
cmd_down() {
  export PATH=$PATH:/usr/sbin:/sbin
  stop kube-scheduler; stop kube-controller-manager
  if pid_of kubelet >/dev/null && pid_of kube-apiserver >/dev/null && api_ready >/dev/null 2>&1; then
    # Controllers are off: deleted pods stay away and their owners bring them back at the next `up`.
    timeout 60 "$KUBE_BIN/kubectl" --kubeconfig "$KC" delete pods --all -A --grace-period=2 --wait=true >/dev/null 2>&1 || true
  fi
  local crashed=0
  [ -r "$RUN/containerd.pid" ] && ! pid_of containerd >/dev/null && crashed=1
  stop cluster-dns; stop kube-proxy; stop kubelet
  if [ $crashed = 1 ] && [ -s "$CONF/containerd.toml" ]; then # it died: bring it back to end its containers
    launch containerd containerd --config "$CONF/containerd.toml"
    for _ in $(seq 50); do ctrd version >/dev/null 2>&1 && break; sleep 0.1; done
  fi
  if pid_of containerd >/dev/null; then
    local c
    for c in $(ctrd containers ls -q 2>/dev/null); do
      ctrd tasks kill -s KILL -a "$c" >/dev/null 2>&1 || true
      ctrd tasks delete -f "$c" >/dev/null 2>&1 || true
      ctrd containers delete "$c" >/dev/null 2>&1 || true
    done
  fi
  stop containerd; stop kube-apiserver 20; stop etcd
  local m
  awk -v a="$KUBE_STATE/" 'index($2, a) == 1 {print $2}' /proc/mounts | sort -r |
    while read -r m; do umount "$m" 2>/dev/null || true; done
  for m in /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods; do
    [ ! -d "$m" ] || find "$m" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  if [ -s "$CONF/cgroups.mounted" ]; then
    while read -r m; do
      if umount "/sys/fs/cgroup/$m" 2>/dev/null; then rmdir "/sys/fs/cgroup/$m"; fi
    done <"$CONF/cgroups.mounted"
    rm -f "$CONF/cgroups.mounted"
  fi
  rm -rf "$KUBE_STATE/cni-ipam"
  if [ -d "$CONF" ]; then net_down; fi
  [ "${1:-}" != --purge ] || rm -rf "$KUBE_STATE"
  say "down"
}

cmd_status() {
  local c pid rc=0
  for c in $COMPONENTS; do
    if pid=$(pid_of "$c"); then
      printf '%-24s pid %-7s rss %5d MiB\n' "$c" "$pid" "$(($(awk '/^VmRSS/ {print $2}' "/proc/$pid/status") / 1024))"
    else printf '%-24s not running\n' "$c"; rc=1; fi
  done
  if pid_of kube-apiserver >/dev/null; then kctl get nodes -o wide || rc=1; kctl get pods -A -o wide || rc=1; fi
  return $rc
}
cmd_load_image() {
  local f
  [ $# -gt 0 ] || die "load-image needs at least one archive"
  for f in "$@"; do ctrd images import --no-unpack=false "$f" 2>/dev/null || ctrd images import "$f"; done
}
cmd_env() { echo "export KUBECONFIG='$KC' PATH='$KUBE_BIN':\"\$PATH\""; }

verb=${1:-}; shift || true
case $verb in
  tools) cmd_tools ;;
  install) cmd_install ;;
  up) cmd_up "$@" ;;
  wait) cmd_wait "$@" ;;
  down) cmd_down "$@" ;;
  status) cmd_status "$@" ;;
  load-image) cmd_load_image "$@" ;;
  env) cmd_env ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
