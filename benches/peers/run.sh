#!/usr/bin/env bash
# Measures exitgate beside its peers, on loopback, in one run, and prints the tables as Markdown.
#   benches/peers/run.sh [ROUNDS] [SECONDS]      7 rounds of 3 seconds by default: some 12 minutes
# Installs the peers with apt-get if it can. Peers that are absent are left out, and the output names them. Ends the processes that it started.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-7}
seconds=${2:-3}
base=17001 # the target: echo, source and sink on three ports

if [ -z "${PEERS_ALONE:-}" ]; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get install -y -qq --no-install-recommends haproxy dante-server microsocks tinyproxy squid strace iproute2 >/dev/null 2>&1 || true
  fi
  cargo build --release --locked --quiet --bin exitgate
  cargo build --release --locked --quiet -p exitgate-peers
  PEERS_ALONE=yes exec benches/apart "$0" "$@"
fi

dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$dir"' EXIT
ulimit -n 40000 2>/dev/null || ulimit -n "$(ulimit -Hn)"
peers=target/release/exitgate-peers

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
servers=("none=plain@127.0.0.1:$base")
# start NAME KIND PORT COMMAND…: starts a server, waits until it listens, and adds it to the run.
start() {
  local name=$1 kind=$2 port=$3
  shift 3
  command -v "$1" >/dev/null || { echo "left out: $name is not installed"; return; }
  "$@" >"$dir/$name.log" 2>&1 &
  local pid=$!
  pids+=("$pid")
  for _ in $(seq 100); do
    listens "$port" && { servers+=("$name=$kind@127.0.0.1:$port#$pid"); return; }
    sleep 0.1
  done
  echo "left out: $name does not listen on $port"
  tail -3 "$dir/$name.log"
}

"$peers" target "$base" >/dev/null &
pids+=("$!")

export EXITGATE__DATA_DIR=$dir/data
start exitgate socks5 20901 target/release/exitgate serve --config benches/straight.toml

cat >"$dir/haproxy.cfg" <<EOF
global
    maxconn 9900
    nbthread $(nproc)
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
EOF
for n in 0 1 2; do
  printf 'frontend f%d\n    bind 127.0.0.1:%d\n    default_backend b%d\nbackend b%d\n    server t 127.0.0.1:%d\n' \
    $n $((17100 + n)) $n $n $((base + n)) >>"$dir/haproxy.cfg"
done
start haproxy plain 17100 haproxy -f "$dir/haproxy.cfg"

cat >"$dir/danted.conf" <<EOF
logoutput: /dev/null
internal: 127.0.0.1 port = 17110
external: lo
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
EOF
start dante socks5 17110 danted -f "$dir/danted.conf" -N "$(nproc)"
start microsocks socks5 17120 microsocks -i 127.0.0.1 -p 17120
printf 'Port 17130\nListen 127.0.0.1\nMaxClients 5000\nTimeout 600\nLogLevel Critical\nAllow 127.0.0.1\n' >"$dir/tinyproxy.conf"
start tinyproxy http 17130 tinyproxy -d -c "$dir/tinyproxy.conf"
cat >"$dir/squid.conf" <<EOF
http_port 127.0.0.1:17140
acl all_ports port 1-65535
http_access allow CONNECT all_ports
http_access allow all
access_log none
cache_log /dev/null
cache deny all
cache_mem 8 MB
pid_filename $dir/squid.pid
coredump_dir $dir
shutdown_lifetime 0 seconds
pinger_enable off
via off
netdb_filename none
EOF
start squid http 17140 squid -N -f "$dir/squid.conf"

echo "$(nproc) cores, $rounds rounds of $seconds s, medians; $(date +%F)"
"$peers" table "$base" "$rounds" "$seconds" "${servers[@]}"
