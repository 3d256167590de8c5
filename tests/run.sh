#!/usr/bin/env bash
# Runs every check and every test, and ends with a plain count. Works in a clean clone, twice, and
# without network once the packages are there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

# A C compiler for SQLite and ring; nothing else comes from outside the package registry.
if ! command -v cc >/dev/null; then
  say "installing a C compiler"
  apt-get update -qq && apt-get install -y -qq gcc libc6-dev
fi

say "formatting"
cargo fmt --check

say "clippy, warnings denied"
cargo clippy --quiet --locked --all-targets -- -D warnings

say "buf lint"
buf=target/tools/node_modules/.bin/buf
if [ ! -x "$buf" ] && command -v npm >/dev/null; then
  npm install --silent --no-audit --no-fund --prefix target/tools @bufbuild/buf@1 || true
fi
if [ -x "$buf" ]; then
  (cd proto && "../$buf" lint) && echo "proto is clean"
else
  echo "NOT RUN: no npm here, or it can not reach its registry"
fi

say "tests"
log=target/test.log
status=0
cargo test --locked --no-fail-fast 2>&1 | tee "$log" || status=$?

# The runner's own counts, added up over its test programs.
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "\n%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
exit "$status"
