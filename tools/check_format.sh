#!/usr/bin/env bash
# Checks the layout of every tracked C++ file against .clang-format; with --fix, mends it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

formatter=$(command -v clang-format-14 || command -v clang-format) || {
  echo "check_format: no clang-format-14; ./run setup check installs it" >&2
  exit 1
}
[[ $("$formatter" --version) =~ version\ 14\. ]] || {
  echo "check_format: $formatter is not version 14, whose layout the project keeps" >&2
  exit 1
}
case ${1:-} in
  --fix) mode=(-i) ;;
  "") mode=(--dry-run -Werror --ferror-limit=3) ;;
  *)
    echo "usage: tools/check_format.sh [--fix]" >&2
    exit 2
    ;;
esac
mapfile -t files < <(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' '*.cl')
((${#files[@]})) || {
  echo "check_format: git lists no C++ file here" >&2
  exit 1
}
"$formatter" "${mode[@]}" "${files[@]}" && echo "${#files[@]} files are laid out as .clang-format says"
