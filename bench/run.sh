#!/usr/bin/env bash
# Builds what ships and runs the benchmarks; the tables go to bench/results/ with their conditions.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release -p weir -p weir-bench
bench="${CARGO_TARGET_DIR:-target}/release/weir-bench"
mkdir -p bench/results
"$bench" duel "${RECORDS:-1000000}" | tee bench/results/otlp.md
"$bench" limits | tee bench/results/limits.md
"$bench" delivery "${RECORDS_DELIVERY:-1000000}" "${SECONDS_STALL:-30}" # writes delivery.md and delivery.json
"$bench" isolation "${RECORDS_ISOLATION:-1000000}" "${ROUNDS_ISOLATION:-9}" # writes isolation.md
if command -v perf >/dev/null; then "$bench" profile "${RECORDS_PROFILE:-3000000}" # writes profile/
else echo "SKIPPED the profile: perf is missing"; fi
"$bench" idle "${SECONDS_IDLE:-300}" | tee bench/results/idle.md
"$bench" fleet "${AGENTS:-500}" "${SECONDS_FLEET:-120}" | tee bench/results/fleet.md
if [ -e tests/browser/node_modules/playwright-core ] && command -v chromium >/dev/null; then
  node bench/board.mjs "${CARGO_TARGET_DIR:-target}/release/weir" "${SECONDS_BOARD:-60}" | tee bench/results/board.md
else echo "SKIPPED the dashboard's cost: chromium or tests/browser/node_modules is missing (tests/install.sh)"; fi
