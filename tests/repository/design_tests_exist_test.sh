#!/usr/bin/env bash
# Every test that docs/design.md names must exist: `file` Suite.Case, or `name` in ctest.
# usage: design_tests_exist_test.sh PROJECT_ROOT CTEST BUILD_FOLDER
set -euo pipefail
root=$1
ctest=$2
build=$3
page=$root/docs/design.md
status=0

mapfile -t cases < <(grep -oE '`tests/[A-Za-z0-9_/.]+` [A-Za-z0-9_]+\.[A-Za-z0-9_]+' "$page" | tr -d '`' | sort -u)
for entry in "${cases[@]}"; do
  file=${entry% *}
  name=${entry#* }
  grep -qE "^TEST(_F|_P)?\(${name%.*}, ${name#*.}\)" "$root/$file" 2>/dev/null || {
    echo "docs/design.md names ${name} of ${file}, which is not there"
    status=1
  }
done

mapfile -t registered < <("$ctest" --test-dir "$build" -N | sed -n 's/^ *Test *#[0-9]*: //p')
mapfile -t names < <(grep -E '` in ctest' "$page" | grep -oE '`[a-z][a-z0-9_.-]*`' | tr -d '`' | sort -u)
for name in "${names[@]}"; do
  # No pipe: grep ends at the first line that fits, and the writer's broken pipe would be the pipeline's status.
  grep -qxF -- "$name" <<<"$(printf '%s\n' "${registered[@]}")" || {
    echo "docs/design.md names the ctest test ${name}, which is not registered"
    status=1
  }
done

mapfile -t empty < <(grep -nE '^\| .*\|[^|]*NO TEST YET' "$page" || true)
if ((${#empty[@]})); then printf 'without a test yet: %s\n' "${empty[@]}"; fi
((${#cases[@]} >= 50 && ${#names[@]} >= 5)) || {
  echo "only ${#cases[@]} cases and ${#names[@]} tests were found in docs/design.md: has its form changed?"
  status=1
}
((status)) || echo "all ${#cases[@]} cases and ${#names[@]} tests named in docs/design.md exist"
exit "$status"
