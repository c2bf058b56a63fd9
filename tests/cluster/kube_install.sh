# What kube.sh installs: packages, tools, the binaries of Kubernetes and the pause image; sourced by it.
# shellcheck shell=bash disable=SC2154

# ---- install ---------------------------------------------------------------------------
gobuild() { # gobuild OUT PACKAGE
  local p=k8s.io/component-base/version v=$KUBE_VERSION
  (cd "$SRC" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w \
      -X $p.gitVersion=$v -X $p.gitMajor=$(echo "$v" | cut -d. -f1 | tr -d v) \
      -X $p.gitMinor=$(echo "$v" | cut -d. -f2) -X $p.gitTreeState=clean \
      -X $p.gitCommit=unknown -X $p.buildDate=1970-01-01T00:00:00Z" -o "$1" "$2")
}
unpack() { # of the prebuilt binaries, those that were built from these very sources
  local stamp=$1 x
  [ "$(cat "$KUBE_PREBUILT/STAMP" 2>/dev/null)" = "$stamp" ] || return 0
  for x in "$KUBE_PREBUILT"/*.xz; do
    xz -dc "$x" >"$KUBE_BIN/.unpack"
    chmod +x "$KUBE_BIN/.unpack"
    mv -f "$KUBE_BIN/.unpack" "$KUBE_BIN/$(basename "$x" .xz)"
  done
  echo "$stamp" >"$KUBE_BIN/.stamp"
  echo "$TOOL_VERSIONS" >"$KUBE_BIN/.tools"
  echo "$HELM_3" >"$KUBE_BIN/.helm"
}
sources_stamp() {
  find "$SRC" -name '*.go' | sort | { mapfile -t go; cat "$SRC/go.mod" "$SRC/go.sum" "${go[@]}"; } | sha256sum | cut -c1-16
}
build_unittest() { # a module of its own: what its go.mod replaces is not inherited, so it is said here
  local w; w=$(mktemp -d)
  (cd "$w" && go mod init unittest >/dev/null 2>&1 &&
    go mod edit -replace github.com/vmware-labs/yaml-jsonpath@v0.3.2=github.com/helm-unittest/yaml-jsonpath@v0.4.0 &&
    go get -tool "github.com/helm-unittest/helm-unittest/cmd/helm-unittest@$UNITTEST_VERSION" &&
    CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$KUBE_BIN/helm-unittest" \
      github.com/helm-unittest/helm-unittest/cmd/helm-unittest)
  rm -rf "$w"
}
cmd_tools() { # helm, helm-unittest and kubeconform: all that the tests of charts need without a cluster
  mkdir -p "$KUBE_BIN"
  exec 9>"$KUBE_BIN/.lock"; flock 9
  local stamp; stamp=$(sources_stamp)
  [ "$(cat "$KUBE_BIN/.stamp" 2>/dev/null)" = "$stamp" ] || unpack "$stamp"
  local go_install=(env CGO_ENABLED=0 "GOBIN=$KUBE_BIN" go install -trimpath -ldflags "-s -w")
  if [ "$(cat "$KUBE_BIN/.helm" 2>/dev/null)" != "$HELM_VERSION" ]; then
    have go || die "go not found: it builds helm $HELM_VERSION"
    say "go install helm $HELM_VERSION"
    "${go_install[@]}" "helm.sh/helm/${HELM_VERSION%%.*}/cmd/helm@$HELM_VERSION"
    echo "$HELM_VERSION" >"$KUBE_BIN/.helm"
  fi
  if [ "$(cat "$KUBE_BIN/.tools" 2>/dev/null)" != "$TOOL_VERSIONS" ]; then
    have go || die "go not found: it builds $TOOL_VERSIONS"
    say "go install $TOOL_VERSIONS"
    "${go_install[@]}" "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM_VERSION"
    build_unittest
    echo "$TOOL_VERSIONS" >"$KUBE_BIN/.tools"
  fi
  fetch_definitions
  exec 9>&-
}
fetch_definitions() { # of the custom resources of others that are rendered here: they lie in the others' Go modules
  local target=$KUBE_BIN/definitions m dir modules=(sigs.k8s.io/gateway-api@v1.2.1
    github.com/prometheus-operator/prometheus-operator@v0.79.2 github.com/kedacore/keda/v2@v2.17.2)
  [ "$(cat "$target/MODULES" 2>/dev/null)" != "${modules[*]}" ] || return 0
  have go || die "go not found: it fetches the definitions of ServiceMonitor, HTTPRoute, ScaledObject and the like"
  rm -rf "$target" "$target.part"
  mkdir -p "$target.part"
  for m in "${modules[@]}"; do
    dir=$(go mod download -json "$m" | sed -n 's/^.*"Dir": "\(.*\)".*$/\1/p')
    find "$dir" \( -path '*/crd/standard/*_httproutes.yaml' -o -path '*/prometheus-operator-crd/*_servicemonitors.yaml' \
      -o -path '*/prometheus-operator-crd/*_prometheusrules.yaml' -o -path '*/crd/bases/keda.sh_scaledobjects.yaml' \
      -o -path '*/crd/bases/keda.sh_triggerauthentications.yaml' \) -exec cp {} "$target.part" \;
  done
  chmod u+w "$target.part"/*
  echo "${modules[*]}" >"$target.part/MODULES"
  mv "$target.part" "$target"
}
install_packages() {
  local need=() t
  for t in containerd:containerd runc:runc iptables:iptables nft:nftables conntrack:conntrack \
    buildah:buildah debootstrap:debootstrap openssl:openssl curl:curl ip:iproute2; do
    PATH=$PATH:/usr/sbin:/sbin have "${t%%:*}" || need+=("${t#*:}")
  done
  [ -x /usr/lib/cni/bridge ] || need+=(containernetworking-plugins)
  [ ${#need[@]} -gt 0 ] || return 0
  have apt-get || die "install these first: ${need[*]}"
  say "apt-get install ${need[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
}
cmd_install() {
  mkdir -p "$KUBE_BIN" "$KUBE_STATE"
  install_packages
  cmd_tools
  local stamp t; stamp=$(sources_stamp)
  if [ "$(cat "$KUBE_BIN/.stamp" 2>/dev/null)" != "$stamp" ]; then
    have go || die "go not found: it builds Kubernetes"
    say "go build Kubernetes $KUBE_VERSION (about 15 minutes, once)"
    gobuild "$KUBE_BIN/kubebox" "$SRC"
    gobuild "$KUBE_BIN/pause" "$SRC/cmd/pause"
    echo "$stamp" >"$KUBE_BIN/.stamp"
  fi
  for t in kubectl kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy etcd cluster-dns; do
    ln -sfn kubebox "$KUBE_BIN/$t"
  done
  [ "$KUBE_BIN/pause.tar" -nt "$KUBE_BIN/pause" ] || pause_image
  say "installed in $KUBE_BIN"
}

pause_image() { # a docker-archive made by hand: one layer with one static binary
  local w layer cfg; w=$(mktemp -d)
  mkdir -p "$w/root"
  cp "$KUBE_BIN/pause" "$w/root/pause"
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$w/root" -cf "$w/layer.tar" pause
  layer=$(sha256sum "$w/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Entrypoint":["/pause"],"User":"65535:65535"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(dpkg --print-architecture 2>/dev/null || echo amd64)" "$layer" >"$w/config.json"
  cfg=$(sha256sum "$w/config.json" | cut -d' ' -f1)
  mv "$w/config.json" "$w/$cfg.json"
  printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$cfg" "$PAUSE_IMAGE" >"$w/manifest.json"
  tar -C "$w" -cf "$KUBE_BIN/pause.tar" manifest.json "$cfg.json" layer.tar
  rm -rf "$w"
}
