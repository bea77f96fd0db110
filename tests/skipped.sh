#!/bin/sh
# Says loudly which tests were skipped: skipped.sh FILE, one `test<TAB>peer<TAB>why` a line.
set -eu
if [ ! -s "${1:-}" ]; then
  echo "No test was skipped: every peer was there."
  exit 0
fi
sort -u "$1" -o "$1"
echo
echo "!! SKIPPED: $(cut -f1 "$1" | sort -u | wc -l) tests did not run, because their peers are missing:"
awk -F '\t' '{printf "!!   %s needs %s: %s\n", $1, $2, $3}' "$1"
