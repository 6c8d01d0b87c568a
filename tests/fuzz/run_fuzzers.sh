#!/bin/sh
# Builds the fuzz targets, runs each for SECONDS (0: none) and prints the coverage of the parsers by the
# committed corpus together with what the runs have found.
# Usage: tests/fuzz/run_fuzzers.sh [SECONDS] [TARGET...]; needs clang++, llvm-profdata and llvm-cov.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/tests/fuzz
build=$root/build/fuzz
coverage=$root/build/fuzz-coverage
found=$root/build/fuzz-corpus
seconds=${1:-60}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- $(cd "$here" && ls ./*_fuzz.cpp | sed 's|^\./||; s|_fuzz\.cpp$||')

cd "$root"
for target; do mkdir -p "$found/$target"; done

if [ "$seconds" -gt 0 ]; then
  cmake --preset fuzz > /dev/null
  cmake --build "$build" --parallel 2 --target $(printf 'fuzz_%s ' "$@")
  for target; do
    echo "== fuzz_$target for $seconds s"
    # On a crash the input stays in build/fuzz-corpus as crash-*: mend the parser, then commit it to corpus/.
    "$build/bin/fuzz_$target" -max_total_time="$seconds" -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
      -artifact_prefix="$found/crash-$target-" "$found/$target" "$here/corpus/$target"
  done
fi

cmake -S . -B "$coverage" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=clang++ \
  -DCMAKE_CXX_FLAGS_RELEASE="-O1 -fprofile-instr-generate -fcoverage-mapping" \
  -DVOLLEY_BUILD_APPS=OFF -DVOLLEY_ONEDNN=OFF > /dev/null
cmake --build "$coverage" --parallel 2 --target $(printf 'fuzz_replay_%s ' "$@")
for target; do
  LLVM_PROFILE_FILE="$coverage/$target.profraw" \
    "$coverage/bin/fuzz_replay_$target" "$here/corpus/$target" "$found/$target" 2> /dev/null
done
llvm-profdata merge -o "$coverage/all.profdata" $(printf "$coverage/%s.profraw " "$@")
first=$1
shift
llvm-cov report "$coverage/bin/fuzz_replay_$first" $(for target; do echo "-object $coverage/bin/fuzz_replay_$target"; done) \
  -instr-profile="$coverage/all.profdata" -ignore-filename-regex='(^/usr/|/tests/)'
