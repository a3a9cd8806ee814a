#!/usr/bin/env bash
# Runs simnet. Where all scenarios are asked for, two processes share them: most of the time a scenario waits, and two of them
# leave enough of two cores for both. What is asked for by name, or with --full or --verify, runs one after the other.
#   tests/simnet/run.sh FOLDER-OF-THE-PROGRAMS [options and scenarios of simnet]
set -euo pipefail
programs=$1
shift
run=("$programs/simnet" "$programs/exitgate" "$programs/simtor")
[ $# -gt 0 ] && exec "${run[@]}" "$@"

logs=target/ci/simnet
mkdir -p "$logs"
"${run[@]}" --part 1/2 --out "$logs/1.md" > "$logs/1.txt" 2>&1 &
first=$!
trap 'kill "$first" 2>/dev/null || true' EXIT
code=0
"${run[@]}" --part 2/2 --out "$logs/2.md" || code=$?
wait "$first" || code=$?
cat "$logs/1.txt"
{ cat "$logs/1.md"; tail -n +3 "$logs/2.md"; } > "$logs/table.md"
exit "$code"
