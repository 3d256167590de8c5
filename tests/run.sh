#!/usr/bin/env bash
# Runs every check and every test, and ends with a plain count. Works in a clean clone, twice, and
# without network once the packages are there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
# What did not run is said where it would have, and again at the very end.
missed=""
not_run() {
  printf 'NOT RUN: %s\n' "$*"
  missed+="NOT RUN: $*"$'\n'
}

# What is built and installed for the tests lies where cargo builds.
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)

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
buf=$target/tools/node_modules/.bin/buf
if [ ! -x "$buf" ] && command -v npm >/dev/null; then
  npm install --silent --no-audit --no-fund --prefix "$target/tools" @bufbuild/buf@1.75.0 || true
fi
if [ -x "$buf" ]; then
  (cd proto && "$buf" lint)
  echo "proto is clean"
else
  not_run "buf lint: no npm here, or it can not reach its registry"
fi

say "dependencies: bans, licences, sources"
if command -v cargo-deny >/dev/null; then
  cargo deny --locked check bans licenses sources
else
  not_run "dependencies: cargo deny is not here"
fi

say "shared vectors"
if [ -d ../shared/vectors ]; then
  echo "present: tests/vectors.rs runs them"
else
  not_run "shared vectors: none beside this folder; the project's own run"
fi

# The tests of a failing disk let system calls fail by it; without it they say what did not run.
if ! command -v strace >/dev/null && command -v apt-get >/dev/null; then
  (apt-get update -qq && apt-get install -y -qq strace) || true
fi
command -v strace >/dev/null || not_run "a failing and a hanging write: no strace here"

# A token in software for the tests of the seal, the tools that look into it, and pages that are looked at.
if ! { command -v softhsm2-util && command -v pkcs11-tool && command -v pdftoppm; } >/dev/null \
  && command -v apt-get >/dev/null; then
  (apt-get update -qq && apt-get install -y -qq softhsm2 opensc poppler-utils) || true
fi
command -v softhsm2-util >/dev/null || not_run "the token's tests: no softhsm2 here"

say "tests"
log=$target/test.log
status=0
cargo test --locked --no-fail-fast 2>&1 | tee "$log" || status=$?

say "a terminal and custodians that nobody here wrote: Python, from the comments of the proto files"
if ! python3 -c 'import ensurepip' 2>/dev/null && command -v apt-get >/dev/null; then
  (apt-get update -qq && apt-get install -y -qq python3-venv) || true
fi
# Its packages lie in the user's cache, so that the next clone needs no network.
packages=$(cat tests/interop/requirements.txt <(python3 --version 2>&1) | sha256sum | cut -c1-16)
interop=${XDG_CACHE_HOME:-${HOME:-$target}/.cache}/firstkey/interop-$packages
if [ ! -d "$interop" ]; then
  fresh=$interop.$$
  if python3 -c "import tomllib" && python3 -m venv "$fresh" &&
    "$fresh/bin/python" -m pip install --quiet --no-deps -r tests/interop/requirements.txt; then
    # A second run may have been quicker; its packages are the same.
    mv -T "$fresh" "$interop" 2>/dev/null || rm -rf "$fresh"
  else
    rm -rf "$fresh"
  fi
fi
if [ -d "$interop" ]; then
  [ -x "$buf" ] || { buf="" && not_run "calls by buf curl: buf is not here"; }
  CARGO_TARGET_DIR=$target INTEROP_BUF=$buf "$interop/bin/python" -B tests/interop 2>&1 |
    tee -a "$log" || status=$?
else
  not_run "TESTS/INTEROP: no Python 3.11 with venv here, or pip can not reach the package index"
fi

say "the systemd unit, and what its lines do"
for needed in systemd-analyze strace; do
  command -v "$needed" >/dev/null || not_run "part of tests/deploy: $needed is not here"
done
[ "$(id -u)" = 0 ] || not_run "most of tests/deploy, and files of another user: both take root"
CARGO_TARGET_DIR=$target python3 -B tests/deploy 2>&1 | tee -a "$log" || status=$?

say "self-tests that are made to fail, in a build for that alone"
# The last to run: its programs take the place of the others.
cargo test --locked --no-fail-fast --features fault-points --test fault_points 2>&1 |
  tee -a "$log" || status=$?

printf '\n%s' "$missed"
# The runners' own counts, added up over their test programs.
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
exit "$status"
