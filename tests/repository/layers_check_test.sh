#!/usr/bin/env bash
# tools/check_layers.sh must find each fault planted in a small tree, and nothing else.
# usage: layers_check_test.sh PATH_OF_check_layers.sh
set -euo pipefail
checker=$1
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

# plant FILE LINE...
plant() {
  mkdir -p "$tree/$(dirname "$1")"
  printf '%s\n' "${@:2}" >"$tree/$1"
}

# What is allowed.
plant core/base/error.h 'std::abort();  // only here'
plant core/nn/layers.h '#include <vector>' '#include "core/backend/backend.h"' '// Ref: LlamaGen, the image model' \
  '/* Whisper' 'mel */ int x; // argv' "int64_t y = 1'000;" 'const char* url = "http://x"; int camel = 0, snprintf_size;'
plant core/backend/cpu/own.cpp '#include <hwy/highway.h>' '#include "core/backend/cpu/own.h"' '#include "core/io/convert.h"'
plant core/decode/decoder.cpp '{.needs = "random-order model (ARPG)",' ' .paper = "LlamaGen"}'
plant image/job.cpp '#include "core/decode/session.h"' 'LlamaGen pixels; auto s = "printf(argv)";'
plant apps/main.cpp '#include "image/job.h"' '#include "speech/job.h"' 'int main(int argc, char** argv) { printf(getenv("X")); }'
"$checker" "$tree" >"$tree/log" || {
  echo "faults found in a tree without any:"
  cat "$tree/log"
  exit 1
}

# One fault a line.
plant core/base/up.h '#include "core/io/json.h"'
plant core/io/up.h '#include "core/backend/backend.h"'
plant core/nn/up.h '#include "core/decode/session.h"' '#include "core/backend/cpu/own.h"' '#include <immintrin.h>'
plant core/backend/backend.h '#include <dnnl.hpp>'
plant core/decode/words.cpp 'int kMelBands;' 'struct WhisperCache {};' 'load("vq_decoder"); /* end' 'still */ image_size();'
plant core/decode/process.cpp 'std::cout << 1;' 'std::exit(1);' 'auto e = std::getenv("HOME");'
plant text/sideways.cpp '#include "image/job.h"' '#include "apps/flags.h"' 'std::signal(2, nullptr);'
cat >"$tree/expected" <<'TEXT'
core/backend/backend.h:1
core/base/up.h:1
core/decode/process.cpp:1
core/decode/process.cpp:2
core/decode/process.cpp:3
core/decode/words.cpp:1
core/decode/words.cpp:2
core/decode/words.cpp:3
core/decode/words.cpp:4
core/io/up.h:1
core/nn/up.h:1
core/nn/up.h:2
core/nn/up.h:3
text/sideways.cpp:1
text/sideways.cpp:2
text/sideways.cpp:3
TEXT
if "$checker" "$tree" >"$tree/log"; then
  echo "a tree full of faults passed"
  exit 1
fi
cut -d: -f1,2 "$tree/log" | sort -u | diff "$tree/expected" - || {
  echo "the faults found (right) are not those planted (left)"
  exit 1
}
echo "16 planted faults found, no other"
