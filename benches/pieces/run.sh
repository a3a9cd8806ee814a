#!/usr/bin/env bash
# Instructions of the hot pieces, counted by callgrind: the same on a busy machine as on a quiet one.
#   benches/pieces/run.sh            counts, and fails where a count is more than 5 % off benches/pieces/expected.txt
#   benches/pieces/run.sh --keep     counts, and keeps what it counted as what is expected
# Another compiler than the file's may move all of them: then the table is printed and nothing fails; look at it, and keep
# it if it is right.
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

# instructions FILE: what callgrind counted in all.
instructions() { awk '/^(summary|totals):/ {total = $2} END {print total}' "$1"; }
# ran PIECE COUNT: instructions of a whole run.
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

# A whole tunnel, accept to close, with one worker so that nobody steals work. How often the worker wakes for one tunnel
# depends on who runs beside it: all three share one processor, so that each runs until it waits, and of five rounds the
# least counts, because company only ever adds wakes. Without either, runs of one binary were 7 % apart.
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
# Under callgrind the gateway takes its time to start, more so beside other work; what was warm once is not counted.
for turn in $(seq 300); do
  "$pieces" tunnels 7952 7960 100 2>/dev/null && break
  if [ "$turn" = 300 ] || ! kill -0 "$gateway" 2>/dev/null; then
    echo "the gateway does not serve:" >&2
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
  sleep 0.5 # the last one's end
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
  echo "what is expected was counted with $(sed -n 's/^# //p' "$expected"), and this is $compiler: nothing fails"
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
