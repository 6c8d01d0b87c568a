#!/usr/bin/env bash
# Checks what may stand in which layer (docs/design.md, "Layers"): includes point downwards, core/ holds no word of a
# modality or a model, accelerator headers stay in core/backend/<implementation>/, and nothing below apps/ touches the
# process. Prints file:line of each fault; exit 1 if there is any.
#
# usage: tools/check_layers.sh [FOLDER]   (the project's root by default)
set -euo pipefail
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/..}"

folders=()
for folder in core text image speech video apps; do
  if [[ -d $folder ]]; then folders+=("$folder"); fi
done
((${#folders[@]})) || {
  echo "check_layers: no source folders in $PWD" >&2
  exit 1
}
mapfile -t files < <(find "${folders[@]}" -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cl' \) | LC_ALL=C sort)
((${#files[@]})) || {
  echo "check_layers: no source files in $PWD" >&2
  exit 1
}

LC_ALL=C awk '
function fault(text) {
  printf "%s:%d: %s\n", FILENAME, FNR, text
  faults++
}

# The height of a path in the order of layers; modalities share one.
function height(path) {
  if (path ~ /^core\/base\//) return 0
  if (path ~ /^core\/(tensor|io)\//) return 1
  if (path ~ /^core\/backend\//) return 2
  if (path ~ /^core\/nn\//) return 3
  if (path ~ /^core\/decode\//) return 4
  if (path ~ /^(text|image|speech|video)\//) return 5
  if (path ~ /^apps\//) return 6
  return -1
}

function top(path) { return substr(path, 1, index(path, "/") - 1) }

# Code without comments. String literals stay: a model named in one is known to the code. R"(...)" is not handled.
function strip_comments(line,    out, i, c, two, quote) {
  out = ""
  quote = ""
  for (i = 1; i <= length(line); i++) {
    c = substr(line, i, 1)
    two = substr(line, i, 2)
    if (in_comment) {
      if (two == "*/") { in_comment = 0; i++ }
      continue
    }
    if (quote != "") {
      out = out c
      if (c == "\\") { i++; out = out substr(line, i, 1) }
      else if (c == quote) quote = ""
      continue
    }
    if (two == "//") break
    if (two == "/*") { in_comment = 1; i++; out = out " "; continue }
    # A quote between digits separates thousands.
    if (c == "\"" || (c == "\x27" && out !~ /[0-9a-fA-F]$/)) quote = c
    out = out c
  }
  return out
}

function strip_strings(code) {
  gsub(/"([^"\\]|\\.)*"/, "\"\"", code)
  return code
}

# "LlamaConfig kMelBands" -> " llama config k mel bands "
function words_of(code,    out, i, c, previous) {
  out = " "
  previous = ""
  for (i = 1; i <= length(code); i++) {
    c = substr(code, i, 1)
    if (c ~ /[A-Z]/ && previous ~ /[a-z0-9]/) out = out " "
    out = out ((c ~ /[A-Za-z0-9]/) ? tolower(c) : " ")
    previous = c
  }
  return out " "
}

BEGIN {
  # Words of a modality or of a model. Comments may name papers and models as the reason of a rule.
  split("image images picture pictures pixel pixels rgb png jpeg webp emoji caption captions " \
        "audio speech voice transcript mel mels spectrogram phoneme wav video videos " \
        "tokenizer codebook codebooks vq vae " \
        "llama llamagen arpg qwen qwen2 qwen3 whisper whisfusion smdm llada chameleon lumina gpt2 mistral gemma", list, " ")
  for (i in list) forbidden_word[list[i]] = 1
  split("argc argv stdout stderr stdin cout cerr clog printf fprintf vprintf vfprintf puts fputs putchar perror " \
        "getenv setenv unsetenv putenv secure_getenv environ signal sigaction raise kill exit _exit _Exit quick_exit " \
        "atexit abort terminate isatty", list2, " ")
  for (i in list2) forbidden_call[list2[i]] = 1
  accelerator = "^(dnnl|oneapi/|hwy/|omp\\.h|cuda|cublas|cudnn|curand|cutlass|cooperative_groups|nccl|CL/|[a-z0-9]*intrin\\.h|arm_neon|arm_sve)"
}

FNR == 1 { in_comment = 0 }

{
  here = height(FILENAME)
  if (here < 0) { fault("lies in no layer"); nextfile }
  code = strip_comments($0)

  if (code ~ /^[ \t]*#[ \t]*include/) {
    target = code
    sub(/^[ \t]*#[ \t]*include[ \t]*[<"]/, "", target)
    sub(/[>"].*$/, "", target)
    there = height(target)
    if (there >= 0) {
      if (there > here) fault("includes " target ", a higher layer")
      else if (here == 5 && there == 5 && top(target) != top(FILENAME)) fault("includes " target ", another modality")
      if (target ~ /^core\/backend\/[^\/]+\// && FILENAME !~ /^core\/backend\//)
        fault("includes " target ", one implementation of the backend")
    }
    if (target ~ accelerator && FILENAME !~ /^core\/backend\/[^\/]+\//)
      fault("includes " target ", which only core/backend/<implementation>/ may")
    next
  }

  if (FILENAME ~ /^core\//) {
    # The registry tells papers and kinds of model to people.
    spoken = code
    if (FILENAME == "core/decode/decoder.cpp" && spoken ~ /\.(paper|needs|summary|kind_note) *=/) spoken = strip_strings(spoken)
    count = split(words_of(spoken), words, " ")
    for (i = 1; i <= count; i++) if (words[i] in forbidden_word) fault("\x27" words[i] "\x27 is a word of a modality or model")
  }

  # core/base/error.h ends the process on a broken invariant.
  if (here < 6 && FILENAME != "core/base/error.h") {
    bare = strip_strings(code)
    gsub(/[^A-Za-z0-9_]+/, " ", bare)
    count = split(bare, names, " ")
    for (i = 1; i <= count; i++) if (names[i] in forbidden_call) fault("\x27" names[i] "\x27 belongs to apps/")
  }
}

END {
  if (faults) exit 1
}
' "${files[@]}"

echo "${#files[@]} files keep their layers"
