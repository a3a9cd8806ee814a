#!/usr/bin/env bash
# Counts the instructions of hot pieces of code with callgrind. A count is the same on a busy machine as on a quiet one.
#   benches/pieces/run.sh            fails if a count differs by more than 5 % from benches/pieces/expected.txt
#   benches/pieces/run.sh --keep     writes the counts to benches/pieces/expected.txt
# Another compiler than the one that the file names may change all counts. Then the script prints the table and does not fail: read the
# table, and keep it if the counts are plausible.
set -euo pipefail
cd "$(dirname "$0")/../.."
expected=benches/pieces/expected.txt
tolerance=5 # percent
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$dir"' EXIT

cargo build --release --locked --quiet --bin exitgate
cargo build --release --locked --quiet -p exitgate-pieces
built=${CARGO_TARGET_DIR:-target}/release
pieces=$built/exitgate-pieces

# instructions FILE: the sum that callgrind counted.
instructions() { awk '/^(summary|totals):/ {total = $2} END {print total}' "$1"; }
# ran PIECE COUNT: the instructions of a whole run.
ran() {
  valgrind --tool=callgrind --callgrind-out-file="$dir/$1.$2" "$pieces" "$1" "$2" 2>/dev/null
  instructions "$dir/$1.$2"
}
counted=$dir/counted
compiler=$(rustc --version)
echo "# $compiler" >"$counted"
for piece in selector socks head decide session; do
  echo "$piece $((($(ran "$piece" 3000) - $(ran "$piece" 1000)) / 2000))" >>"$counted"
done

# A whole tunnel, from accept to close, with one worker thread so that no other thread takes its work. How often the worker wakes for
# one tunnel depends on what else runs: gateway, client and echo share one processor, so each runs until it waits; and the lowest of
# five rounds counts, because other processes can only add wake-ups. Without both, runs of one binary differed by 7 %.
cat >"$dir/exitgate.toml" <<CONFIG
data_dir = "$dir/data"
log.level = "warn"
api.listen = "127.0.0.1:7950"
gateway.listen = "127.0.0.1:7951"
gateway.route_ports = "7952-7959"
gateway.allow_direct = true
gateway.allow_private_targets = true
tor.enabled = false

[[routes]]
name = "bench"
selector = "any-source-direct"
port = 7952
CONFIG
core=$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//')
taskset -c "$core" "$pieces" echo 7960 &
pids+=("$!")
TOKIO_WORKER_THREADS=1 taskset -c "$core" valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file="$dir/tunnel" \
  "$built/exitgate" serve --config "$dir/exitgate.toml" >"$dir/log" 2>&1 &
gateway=$!
pids+=("$gateway")
# Under callgrind the gateway starts slowly, and more slowly beside other work. The first tunnels are not counted.
for attempt in $(seq 300); do
  "$pieces" tunnels 7952 7960 100 2>/dev/null && break
  if [ "$attempt" = 300 ] || ! kill -0 "$gateway" 2>/dev/null; then
    echo "the gateway opens no tunnel; the end of its log:" >&2
    tail -5 "$dir/log" >&2
    exit 1
  fi
  sleep 0.2
done
callgrind_control --instr=on "$gateway" >/dev/null 2>&1
tunnels=500 # a round
least=0
for round in 1 2 3 4 5; do
  taskset -c "$core" "$pieces" tunnels 7952 7960 "$tunnels"
  sleep 0.5 # until the last tunnel is closed
  callgrind_control --dump="$round" "$gateway" >/dev/null 2>&1
  whole=$(instructions "$dir/tunnel.$round")
  if [ "${whole:-0}" -lt 1000000 ]; then
    echo "callgrind did not count the gateway: ${whole:-0} instructions in round $round" >&2
    exit 1
  fi
  if [ "$least" = 0 ] || [ "$whole" -lt "$least" ]; then least=$whole; fi
done
kill "$gateway"
wait "$gateway" || true
echo "tunnel $((least / tunnels))" >>"$counted"

if [ "${1:-}" = --keep ]; then
  cp "$counted" "$expected"
fi
strict=1
if ! grep -qxF "# $compiler" "$expected"; then
  strict=0
  echo "the expected counts are of $(sed -n 's/^# //p' "$expected"), and this is $compiler: nothing fails"
fi
awk -v tolerance="$tolerance" -v strict="$strict" '
  /^#/ {next}
  NR == FNR {expected[$1] = $2; next}
  {
    off = expected[$1] ? 100 * ($2 / expected[$1] - 1) : 0
    bad = !($1 in expected) || off > tolerance || off < -tolerance
    printf "%-10s %8d instructions, %8d expected (%+.1f %%)%s\n", $1, $2, expected[$1], off, bad ? "  <-- look" : ""
    failed += bad; passed += !bad
  }
  END {printf "%d passed, %d failed\n", passed, failed; exit strict && failed > 0}
' "$expected" "$counted"
