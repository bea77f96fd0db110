#!/usr/bin/env bash
# Installs what the end-to-end tests talk to: real servers and real senders that others wrote.
# Idempotent, and quick when everything is there. What cannot be installed is said loudly; the
# tests that need it then skip themselves and are counted. Never fails for a missing peer.
#
# Peers that are built from source go to $WEIR_PEERS (default ~/.cache/weir/peers), outside of the
# clone, so that the next clone finds them.
set -euo pipefail
cd "$(dirname "$0")"

readonly PEERS="${WEIR_PEERS:-${WEIR_CACHE:-$HOME/.cache/weir}/peers}"
readonly COLLECTOR_VERSION=v0.149.0
readonly PROMETHEUS_VERSION=v0.315.0 # the module's version of Prometheus 3.15
readonly OPENTELEMETRY_PYTHON_VERSION=1.45.2
# What the seeds' Python clients import, and what reads the server's OpenAPI document and tries it.
readonly PYTHON_CLIENTS=(requests==2.34.2 psutil==7.2.2 schemathesis==4.32.5)

missing=()
miss() { missing+=("$1"); }

# --- Debian's packages ---------------------------------------------------------------------------

# Command (or the pattern of a path off PATH) and package; a command that is there is taken as it is.
readonly DEBIAN=(
  "ip iproute2"
  "curl curl"
  "prometheus prometheus"
  "prometheus-node-exporter prometheus-node-exporter"
  "prometheus-alertmanager prometheus-alertmanager"
  "/usr/lib/postgresql/*/bin/initdb postgresql"
  "/usr/sbin/logrotate logrotate"
  "influxd influxdb"
  "victoria-metrics victoria-metrics"
  "chromium chromium"
  "journalctl systemd"
  "/usr/lib/systemd/systemd-journal-remote systemd-journal-remote"
  "logger bsdutils"
  "rsyslogd rsyslog"
  "/usr/lib/*/rsyslog/lmnsd_ossl.so rsyslog-openssl"
  "logrotate logrotate"
)

install_debian() {
  local wanted=() entry command package
  for entry in "${DEBIAN[@]}"; do
    read -r command package <<<"$entry"
    command -v "$command" >/dev/null || compgen -G "$command" >/dev/null || wanted+=("$package")
  done
  # Debian's own python3 has venv in a package of its own; other Pythons bring it.
  if command -v python3 >/dev/null && ! python3 -c 'import ensurepip' 2>/dev/null; then wanted+=(python3-venv); fi
  command -v python3 >/dev/null || wanted+=(python3 python3-venv)
  [ ${#wanted[@]} -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null; then miss "not a Debian system, install by hand: ${wanted[*]}"; return 0; fi
  if [ "$(id -u)" != 0 ]; then miss "not root, run: sudo apt-get install --no-install-recommends ${wanted[*]}"; return 0; fi
  echo "installing Debian packages: ${wanted[*]}"
  without_services apt_install "${wanted[@]}" || miss "apt-get install failed for: ${wanted[*]}"
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get install --yes --quiet --no-install-recommends "$@")
  "${apt[@]}" >/dev/null 2>&1 && return 0
  apt-get update --quiet >/dev/null && "${apt[@]}" >/dev/null
}

# Packages of servers start them on installation; the tests start their own, on loopback.
without_services() {
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then "$@"; return; fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  local status=0
  "$@" || status=$?
  rm -f "$policy"
  return $status
}

# --- built with Go -------------------------------------------------------------------------------

# Runs a build in an empty folder beside its destination and says how long it may take.
build_in() { # name, minutes, destination folder, function
  local name=$1 minutes=$2 folder=$3 build=$4 started=$SECONDS
  if ! command -v go >/dev/null; then miss "$name: Go is missing (https://go.dev/dl, or apt-get install golang)"; return 0; fi
  echo "building $name with Go: about $minutes minutes on two cores, once"
  mkdir -p "$folder"
  local log="$folder/build.log"
  if (cd "$folder" && export GOFLAGS=-mod=mod CGO_ENABLED=0 && "$build") >"$log" 2>&1; then
    echo "built $name in $((SECONDS - started)) s"
  else
    tail -5 "$log" >&2
    miss "$name: its build failed, see $log"
  fi
}

# Chained, because `set -e` does not reach a function that is tested by `if`.
build_collector() {
  GOBIN="$PEERS/collector/bin" go install "go.opentelemetry.io/collector/cmd/builder@$COLLECTOR_VERSION" &&
    cp "$MANIFEST" manifest.yaml &&
    ./bin/builder --config manifest.yaml --skip-compilation &&
    cd otelcol-build &&
    go build -trimpath -ldflags='-s -w' -o ../otelcol.new . &&
    mv ../otelcol.new ../otelcol
}

build_prometheus() {
  local module=github.com/prometheus/prometheus/cmd/prometheus
  rm -f go.mod go.sum &&
    go mod init peer &&
    go get "$module@$PROMETHEUS_VERSION" &&
    go build -trimpath -ldflags='-s -w' -o prometheus-3.new "$module" &&
    mv prometheus-3.new prometheus-3
}

install_go_peers() {
  MANIFEST="$PWD/peers/collector.yaml"
  [ -x "$PEERS/collector/otelcol" ] ||
    build_in "the OpenTelemetry Collector ${COLLECTOR_VERSION#v}" 7 "$PEERS/collector" build_collector
  [ -x "$PEERS/prometheus/prometheus-3" ] ||
    build_in "Prometheus 3.15" 5 "$PEERS/prometheus" build_prometheus
}

# --- Python ----------------------------------------------------------------------------------------

install_python_peers() {
  local folder="$PEERS/python" name="the OpenTelemetry SDK, schemathesis and clients for Python"
  local packages=("opentelemetry-sdk==$OPENTELEMETRY_PYTHON_VERSION"
    "opentelemetry-exporter-otlp==$OPENTELEMETRY_PYTHON_VERSION" "${PYTHON_CLIENTS[@]}")
  local stamp="${packages[*]}"
  [ "$(cat "$folder/stamp" 2>/dev/null)" != "$stamp" ] || return 0
  if ! command -v python3 >/dev/null; then miss "$name: python3 is missing"; return 0; fi
  echo "installing for Python: $stamp"
  rm -rf "$folder"
  if python3 -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"; then
    echo "$stamp" >"$folder/stamp"
  else
    rm -rf "$folder"
    miss "$name: their installation failed"
  fi
}

# --- Node.js ---------------------------------------------------------------------------------------

# What steers the browser. It lies in the clone, because Node.js looks for packages beside the files that need them.
install_browser_packages() {
  local name="the packages of tests/browser"
  cmp --silent browser/package-lock.json browser/node_modules/.installed && return 0
  if ! command -v npm >/dev/null; then miss "$name: npm is missing (https://nodejs.org, or apt-get install nodejs npm)"; return 0; fi
  if npm ci --prefix browser --silent --no-audit --no-fund; then
    cp browser/package-lock.json browser/node_modules/.installed
  else
    miss "$name: npm ci failed"
  fi
}

# --- Java ------------------------------------------------------------------------------------------

# Libraries from Maven Central (pom.xml), and our own classes beside it.
install_from_maven() { # name, folder below peers/ and in $PEERS
  local name=$1 source="peers/$2" folder="$PEERS/$2" command
  cat "$source"/* | cmp --silent - "$folder/installed" && return 0
  for command in mvn javac; do
    command -v "$command" >/dev/null || { miss "$name: $command is missing (apt-get install maven default-jdk-headless)"; return 0; }
  done
  echo "installing $name from Maven Central: about half a minute"
  rm -rf "$folder"
  if mvn --quiet --batch-mode --file "$source/pom.xml" dependency:copy-dependencies -DoutputDirectory="$folder/lib" &&
    javac -cp "$folder/lib/*" -d "$folder" "$source"/*.java; then
    cat "$source"/* >"$folder/installed"
  else
    miss "$name: its installation failed"
  fi
}

mkdir -p "$PEERS"
exec 9>"$PEERS/.lock"
flock 9 # two runs at once would build into the same folders
install_debian
install_go_peers
install_python_peers
install_from_maven "OpenSearch 2.19.1" opensearch
install_from_maven "Kafka 3.9.1" kafka
install_browser_packages

if [ ${#missing[@]} -gt 0 ]; then
  echo "!! some peers are missing, and the tests that need them will be skipped:" >&2
  printf '!!   %s\n' "${missing[@]}" >&2
fi
