#!/usr/bin/env bash
# Shows where the gateway spends its time, user and kernel, while it opens tunnels and while it carries bulk data.
#   benches/profile/run.sh [SECONDS] [FOLDER]     10 seconds each; FOLDER/flame-tunnels.svg and flame-bulk.svg (target/profile, if none is named)
# Needs perf (apt-get install linux-perf) and permission to sample other processes: root, or kernel.perf_event_paranoid below 1.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-10}
out=${2:-target/profile}
base=17001
peers=target/release/exitgate-peers

cargo build --release --locked --quiet --bin exitgate
cargo build --release --locked --quiet -p exitgate-peers
if [ -z "${PROFILE_ALONE:-}" ]; then
  PROFILE_ALONE=yes exec benches/apart "$0" "$@"
fi

dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$dir"' EXIT
mkdir -p "$out"
"$peers" target "$base" >/dev/null &
pids+=("$!")
export EXITGATE__DATA_DIR=$dir/data
target/release/exitgate serve --config benches/straight.toml >"$dir/log" 2>&1 &
gateway=$!
pids+=("$gateway")
for _ in $(seq 100); do
  (exec 3<>/dev/tcp/127.0.0.1/20901) 2>/dev/null && break
  sleep 0.1
done

# profile LOAD: runs that load, and samples the gateway meanwhile.
profile() {
  "$peers" "$1" "$base" "$((seconds + 2))" "x=socks5@127.0.0.1:20901#$gateway" &
  local load=$!
  sleep 1
  perf record --quiet -o "$dir/$1.data" -F 299 -e cpu-clock --call-graph dwarf,8192 -p "$gateway" -- sleep "$seconds"
  wait "$load"
  perf script --no-inline -i "$dir/$1.data" 2>/dev/null | c++filt | python3 benches/profile/flame.py "$out/flame-$1.svg"
}
profile tunnels
profile bulk
