#!/bin/sh
# Looks for inputs that break the parsers, FUZZ_SECONDS (60) for each target, all at once. An input that does is printed, kept in
# target/fuzz/, and ends this with 1; to see it again, name the target and the file:  tests/fuzz/run.sh yaml target/fuzz/yaml-crash-…
set -eu
cd "$(dirname "$0")/../.."
seconds=${FUZZ_SECONDS:-60}
work=target/fuzz
targets="compose image yaml"
input=""
if [ $# -eq 2 ]; then
    targets=$1 input=$2
fi

# One seed per case, as the properties read them; libFuzzer adds what it finds.
mkdir -p "$work/compose" "$work/image" "$work/yaml"
for file in tests/oracle/*/*.yml; do
    topic=$(basename "$(dirname "$file")")-$(basename "$file" .yml)
    cp "$file" "$work/yaml/seed-$topic"
    awk -v prefix="$work/compose/seed-$topic-" \
        '/^# case: / { if (out) close(out); out = prefix (++n); printf "" > out; next } out { print > out }' "$file"
done
for target in compose image yaml; do
    cp tests/fuzz/seeds/"$target"/* "$work/$target/"
done

# Built as the tests are, so that dependencies are shared with them.
for target in $targets; do
    set -- "$@" --test "fuzz_$target"
done
[ -z "$input" ] || shift 2
RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz/rustc.sh cargo test --quiet --locked --workspace --no-run \
    --message-format json --features swarmkeeper-fuzz/libfuzzer "$@" | sed -n 's/.*"executable":"\([^"]*\/fuzz_[^"]*\)".*/\1/p' >"$work/binaries"

# An input may take 5 s and 1 GiB.
limits="-timeout=5 -rss_limit_mb=1024 -max_len=16384"
failed=""
pids=""
for target in $targets; do
    binary=$(grep "/fuzz_$target-[0-9a-f]*$" "$work/binaries")
    if [ -n "$input" ]; then
        exec "$binary" -timeout=5 -rss_limit_mb=1024 "$input"
    fi
    # shellcheck disable=SC2086 # a list of words
    "$binary" $limits -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="$work/$target-" \
        -dict=tests/fuzz/yaml.dict "$work/$target" >"$work/$target.log" 2>&1 &
    pids="$pids $target:$!"
done
for pair in $pids; do
    target=${pair%%:*}
    if wait "${pair##*:}"; then
        summary=$(sed -n 's/^stat::number_of_executed_units: *\([0-9]*\)$/\1 inputs/p' "$work/$target.log")
        echo "fuzz $target: $summary, $(grep -o 'cov: [0-9]*' "$work/$target.log" | tail -n 1) edges, nothing found"
    else
        tail -n 60 "$work/$target.log"
        failed="$failed $target"
    fi
done
[ -z "$failed" ] || { echo "fuzz:$failed failed" >&2; exit 1; }
