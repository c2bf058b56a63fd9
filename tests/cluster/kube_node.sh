# What kube.sh's node consists of beside its processes: certificates, configuration, network; sourced by it.
# shellcheck shell=bash disable=SC2154

# ---- certificates and kubeconfigs ------------------------------------------------------
key() { [ -s "$1" ] || (umask 077; openssl ecparam -name prime256v1 -genkey -noout -out "$1"); }
ca() { # ca NAME CN
  [ -s "$PKI/$1.crt" ] && return 0
  key "$PKI/$1.key"
  openssl req -x509 -new -sha256 -days 3650 -key "$PKI/$1.key" -subj "/CN=$2" -out "$PKI/$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
}
cert() { # cert CA NAME SUBJECT [SAN]
  local ca=$1 n=$2 subj=$3 san=${4:-}
  [ -s "$PKI/$n.crt" ] && return 0
  key "$PKI/$n.key"
  openssl req -new -sha256 -key "$PKI/$n.key" -subj "$subj" -out "$PKI/$n.csr"
  { echo 'basicConstraints=critical,CA:FALSE'
    echo 'keyUsage=critical,digitalSignature,keyEncipherment'
    echo 'extendedKeyUsage=clientAuth,serverAuth'
    [ -z "$san" ] || echo "subjectAltName=$san"; } >"$PKI/$n.ext"
  openssl x509 -req -sha256 -days 3650 -in "$PKI/$n.csr" -CA "$PKI/$ca.crt" -CAkey "$PKI/$ca.key" \
    -set_serial "0x$(openssl rand -hex 8)" -extfile "$PKI/$n.ext" -out "$PKI/$n.crt" 2>/dev/null
  rm -f "$PKI/$n.csr" "$PKI/$n.ext"
}
kubeconfig() { # kubeconfig NAME: client certificate inlined
  local f=$CONF/$1.kubeconfig
  (umask 077; cat >"$f" <<K
apiVersion: v1
kind: Config
clusters:
- name: local
  cluster:
    server: https://$NODE_IP:$API_PORT
    certificate-authority-data: $(base64 -w0 <"$PKI/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 <"$PKI/$1.crt")
    client-key-data: $(base64 -w0 <"$PKI/$1.key")
contexts:
- name: local
  context: {cluster: local, user: $1}
current-context: local
K
)
}
make_pki() {
  ca ca kubernetes-ca; ca front-proxy-ca front-proxy-ca; ca etcd-ca etcd-ca
  key "$PKI/sa.key"
  [ -s "$PKI/sa.pub" ] || openssl ec -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
  cert ca apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.$DOMAIN,DNS:localhost,IP:127.0.0.1,IP:$NODE_IP,IP:$SVC_API_IP"
  cert ca apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  cert front-proxy-ca front-proxy-client /CN=front-proxy-client
  cert etcd-ca etcd /CN=etcd "DNS:localhost,IP:127.0.0.1"
  cert etcd-ca etcd-client /CN=kube-apiserver-etcd-client
  cert ca admin /O=system:masters/CN=kubernetes-admin
  cert ca controller-manager /CN=system:kube-controller-manager "DNS:localhost,IP:127.0.0.1"
  cert ca scheduler /CN=system:kube-scheduler "DNS:localhost,IP:127.0.0.1"
  cert ca kube-proxy /CN=system:kube-proxy
  cert ca cluster-dns /CN=system:cluster-dns
  cert ca kubelet "/O=system:nodes/CN=system:node:$NODE" "DNS:$NODE,IP:$NODE_IP"
  local u; for u in admin controller-manager scheduler kube-proxy cluster-dns kubelet; do kubeconfig $u; done
}

# ---- configuration files ---------------------------------------------------------------
make_conf() {
  cat >"$CONF/containerd.toml" <<C
version = 2
root = "$KUBE_STATE/containerd"
state = "$RUN/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.restart", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "$CTRD_SOCK"
[debug]
  level = "info"
[plugins."io.containerd.internal.v1.opt"]
  path = "$KUBE_STATE/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  enable_unprivileged_ports = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$CONF/cni"
C
  mkdir -p "$CONF/cni"
  cat >"$CONF/cni/10-kubebox.conflist" <<C
{"cniVersion": "0.4.0", "name": "kubebox", "plugins": [
  {"type": "bridge", "bridge": "$POD_IF", "isGateway": true, "isDefaultGateway": true,
   "ipMasq": false, "hairpinMode": true, "promiscMode": false,
   "ipam": {"type": "host-local", "dataDir": "$KUBE_STATE/cni-ipam",
            "ranges": [[{"subnet": "$POD_CIDR"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
C
  : >"$CONF/resolv.conf"
  cat >"$CONF/kubelet.yaml" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
port: $KUBELET_PORT
readOnlyPort: 0
healthzBindAddress: 127.0.0.1
healthzPort: $KUBELET_HEALTH_PORT
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $PKI/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet.crt
tlsPrivateKeyFile: $PKI/kubelet.key
containerRuntimeEndpoint: unix://$CTRD_SOCK
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
protectKernelDefaults: false
enforceNodeAllocatable: [pods]
hairpinMode: hairpin-veth
clusterDNS: [$SVC_DNS_IP]
clusterDomain: $DOMAIN
resolvConf: $CONF/resolv.conf
serializeImagePulls: false
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
volumePluginDir: $KUBE_STATE/volume-plugins
podLogsDir: $KUBE_STATE/pod-logs
registerNode: true
makeIPTablesUtilChains: true
featureGates: {KubeletInUserNamespace: true}
C
  cat >"$CONF/kube-proxy.yaml" <<C
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $CONF/kube-proxy.kubeconfig}
clusterCIDR: $POD_CIDR
hostnameOverride: $NODE
bindAddress: $NODE_IP
healthzBindAddress: 127.0.0.1:$PROXY_HEALTH_PORT
metricsBindAddress: 127.0.0.1:$PROXY_METRICS_PORT
nodePortAddresses: ["$NODE_IP/32", "127.0.0.0/8"]
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 200ms, syncPeriod: 30s}
C
  cat >"$CONF/base.yaml" <<C
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:cluster-dns"}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:cluster-dns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:cluster-dns"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:cluster-dns"}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: $SVC_DNS_IP
  ports:
  - {name: dns, port: 53, protocol: UDP, targetPort: 53}
  - {name: dns-tcp, port: 53, protocol: TCP, targetPort: 53}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns-host
  namespace: kube-system
  labels: {kubernetes.io/service-name: kube-dns}
addressType: IPv4
endpoints: [{addresses: ["$NODE_IP"], conditions: {ready: true}}]
ports:
- {name: dns, port: 53, protocol: UDP}
- {name: dns-tcp, port: 53, protocol: TCP}
C
}

# ---- network ---------------------------------------------------------------------------
net_up() {
  if ! ip link show "$NODE_IF" >/dev/null 2>&1; then
    ip link add "$NODE_IF" type bridge   # a bridge without ports: a dummy interface
  fi
  ip addr replace "$NODE_IP/32" dev "$NODE_IF"
  ip link set "$NODE_IF" up
  # Service addresses that no rule has translated end here and not at the default gateway.
  ip route replace "$SVC_CIDR" dev "$NODE_IF" src "$NODE_IP"
  [ -s "$CONF/sysctl.saved" ] || for k in net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables \
      vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops; do
    sysctl "$k" 2>/dev/null || true; done >"$CONF/sysctl.saved"
  sysctl -qw net.ipv4.ip_forward=1
  sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true
  nft -f - <<N # pods talk to this machine only
table ip kubebox { }
delete table ip kubebox
table ip kubebox {
  chain forward {
    type filter hook forward priority -10; policy accept;
    ip saddr $POD_CIDR ip daddr != { $POD_CIDR, $NODE_IP } ct state new reject
  }
  chain input {
    type filter hook input priority -10; policy accept;
    iifname "$POD_IF" ip daddr != $NODE_IP ct state new reject
  }
}
N
}
net_down() {
  nft delete table ip kubebox 2>/dev/null || true
  "$KUBE_BIN/kube-proxy" --cleanup >/dev/null 2>&1 || true
  local ipt t r c
  for ipt in iptables ip6tables; do # what kubelet, kube-proxy and the portmap plugin leave behind
    have "$ipt-save" || continue
    for t in filter nat mangle; do
      "$ipt-save" -t "$t" 2>/dev/null | grep -E -- '^-A .*-j (KUBE|CNI-HOSTPORT)-' | sed 's/^-A /-D /' |
        while read -r r; do eval "$ipt -w -t $t $r" 2>/dev/null || true; done || true
      for r in F X; do
        "$ipt-save" -t "$t" 2>/dev/null | sed -nE 's/^:((KUBE|CNI-HOSTPORT)-[^ ]*) .*/\1/p' |
          while read -r c; do "$ipt" -w -t "$t" "-$r" "$c" 2>/dev/null || true; done || true
      done
    done
  done
  ip link del "$POD_IF" 2>/dev/null || true
  ip link del "$NODE_IF" 2>/dev/null || true
  if [ -s "$CONF/sysctl.saved" ]; then sysctl -q -p "$CONF/sysctl.saved" >/dev/null 2>&1 || true; rm -f "$CONF/sysctl.saved"; fi
}
