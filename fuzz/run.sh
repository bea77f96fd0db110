#!/usr/bin/env bash
# Runs fuzz targets, one after another, and prints one line for each.
#
#   fuzz/run.sh                              every target, 300 seconds each
#   FUZZ_SECONDS=60 fuzz/run.sh otlp_json    one target, one minute
#
# What a run learns stays in fuzz/corpus, inputs that break something in fuzz/artifacts (neither is
# committed). seeds/TARGET holds the inputs to start with: add the input of every fixed finding there.
# Ends with status 1 if anything was found.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${FUZZ_SECONDS:-300}
# The targets build below fuzz/target, whatever the caller uses for the rest.
unset CARGO_TARGET_DIR

if ! rustup run nightly rustc --version >/dev/null 2>&1; then
  echo "fuzzing needs the nightly compiler. Install it: rustup toolchain install nightly --profile minimal" >&2
  exit 2
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
  echo "fuzzing needs cargo-fuzz. Install it: cargo install cargo-fuzz --locked" >&2
  exit 2
fi

if [ $# -gt 0 ]; then targets=("$@"); else mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir .); fi
mkdir -p target/logs
echo "building ${#targets[@]} of the fuzz targets: several minutes the first time" >&2
for target in "${targets[@]}"; do
  if ! nice cargo +nightly fuzz build --fuzz-dir . "$target" >"target/logs/build.log" 2>&1; then
    cat target/logs/build.log >&2
    echo "$target does not build" >&2
    exit 2
  fi
done

found=0
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "artifacts/$target" "seeds/$target"
  log=target/logs/$target.log
  before=$(find "artifacts/$target" -type f | wc -l)
  status=0
  nice cargo +nightly fuzz run --fuzz-dir . "$target" "corpus/$target" "seeds/$target" -- \
    "-max_total_time=$seconds" -rss_limit_mb=512 -timeout=10 -print_final_stats=1 >"$log" 2>&1 || status=$?
  findings=$(($(find "artifacts/$target" -type f | wc -l) - before))
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
  printf '%-16s %12s executions  %d findings\n' "$target" "${executions:-no}" "$findings"
  if [ "$status" -ne 0 ]; then
    found=1
    sed -n 's/^/    /; /panicked at/,+1p; /ERROR: \|SUMMARY: /p' "$log" | head -n 6
    find "artifacts/$target" -type f -newer target/logs/build.log -printf '    again: cargo +nightly fuzz run --fuzz-dir fuzz %%s fuzz/%p\n' |
      sed "s|%s|$target|" | head -n 3
    echo "    everything: fuzz/$log"
  fi
done
exit "$found"
