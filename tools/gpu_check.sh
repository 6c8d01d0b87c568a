#!/usr/bin/env bash
# Checks and times the CUDA backend in one go: operations against the reference, golden cases, bit tests, tokens of the
# model in the box against the CPU's, the sanitizers on a small golden case, then timings. A short table comes last.
#
# usage: tools/gpu_check.sh BIN OUT [PART...]     parts: operations goldens methods tokens sanitizers times; pytorch, kernels, layers, speech, if named
#   BIN  folder with backend_test, golden_check, nn_test, property_test, volley and image_bench; layer_bench, speech_bench
#   OUT  folder for logs, and for random weights unless VOLLEY_WEIGHTS names another
# VOLLEY_GPU picks the device (cuda:0), VOLLEY_GOLDENS further folders of golden cases, VOLLEY_GPU_CASES the timed cases:
# MODEL:STORAGE:BATCH, of ARPG also BATCH-sSTEPS.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
mkdir -p "$2"
bin=$(realpath "$1") out=$(realpath "$2")
weights=${VOLLEY_WEIGHTS:-$out}
shift 2
parts=("$@")
((${#parts[@]})) || parts=(operations goldens methods tokens sanitizers times)
device=${VOLLEY_GPU:-cuda:0}
read -ra goldens <<<"tests/goldens ${VOLLEY_GOLDENS:-}"
read -ra cases <<<"${VOLLEY_GPU_CASES:-arpg-l:bf16:1 arpg-l:bf16:64 llamagen-l:bf16:1 vq-16:bf16:1}"
summary=$out/summary
: >"$summary"
failed=0

# part NAME LOG PATTERN command...: the log's last line that fits the pattern goes into the table.
part() {
  local name=$1 log=$out/$2 pattern=$3 start=$SECONDS status=0
  shift 3
  "$@" >"$log" 2>&1 || status=$?
  ((status == 0)) || failed=1
  printf '%-28s %-8s %4d s  %s\n' "$name" "$([[ $status == 0 ]] && echo ok || echo "FAILED")" $((SECONDS - start)) \
    "$(grep -E "$pattern" "$log" | tail -n 1)" | tee -a "$summary"
}

# Case names of image_bench and torch_image.py: "arpg-l" and "1-s32" are arpg-b1-s32; PyTorch's tell sizes apart.
bench_case() { echo "${1%%-*}-b$2"; }
torch_case() {
  case $1 in
    arpg-xl | arpg-xxl) echo "$1-b$2" ;;
    *) bench_case "$1" "$2" ;;
  esac
}

# Times of PyTorch, eager and compiled with CUDA graphs, of the same cases.
pytorch() {
  local model=$1 batch=$2
  python3 tools/bench/torch_image.py --device cuda --case "$(torch_case "$model" "$batch")" --dtype bf16 --mode "$3" --repeats 3 --timeout "${VOLLEY_TORCH_S:-200}"
}

# Ten seeds of the model in the box in f32: the tokens of the GPU are those of the CPU.
same_tokens() {
  local count=0 folder
  folder=$(mktemp -d)
  for where in cpu "$device"; do
    "$bin/volley" image fruit --count 10 --dtype f32 -d "$where" --decoder "$1" --json --no-progress -o "$folder/%03d.png" \
      --overwrite >"$folder/${where/:/_}.json" || return 1
  done
  count=$(diff <(grep -oE '"token_hash":"[0-9a-f]+"' "$folder/cpu.json") \
    <(grep -oE '"token_hash":"[0-9a-f]+"' "$folder/${device/:/_}.json") | grep -c '^<')
  (($(grep -oE '"token_hash":"[0-9a-f]+"' "$folder/cpu.json" | wc -l) == 10)) || return 1
  echo "$1: $((10 - count)) of 10 pictures have the CPU's tokens"
  rm -rf "$folder"
  ((count == 0))
}

# One row of timings: MODEL:DTYPE:BATCH with random weights.
timing() {
  local model=$1 dtype=$2 batch=$3 file=$weights/weights-$1.safetensors
  [[ -e $file ]] || "$bin/image_bench" --make-weights "$model" --dtype bf16 --out "$file" || return 1
  "$bin/image_bench" --one --weights "$file" --case "$(bench_case "$model" "$batch")" --dtype "$dtype" --device "$device" --repeats 5 \
    >"$out/$model-$dtype-$batch.json" || return 1
  python3 - "$out/$model-$dtype-$batch.json" "$batch" <<'PY'
import json, statistics, sys
report = json.load(open(sys.argv[1]))
seconds = statistics.median(report["seconds"])
print(f"{seconds * 1e3:9.2f} ms  {int(sys.argv[2].split('-')[0]) / seconds:8.1f} pictures/s  forwards {report['forwards'] // 1}"
      f"  allocated {report['backend_peak_bytes'] / 2**20:7.0f} MiB  weights {report['weight_bytes'] / 2**20:6.0f} MiB"
      f"  {['%.1f' % (s * 1e3) for s in report['seconds']]}")
PY
}

# Operations of a layer by row count, beside PyTorch's free choice of kernels, both replayed.
layers() {
  "$bin/layer_bench" --device "$device" --rows 2 --rows 8 --rows 32 --rows 128 --rows 512 &&
    python3 tools/bench/torch_layer.py --rows 2 8 32 128 512
}

# Time of each kernel of a case, one by one (ncu), summed by name: the first run only, of which nothing is recorded.
kernels() {
  local model=$1 dtype=$2 batch=$3 log=$out/kernels-$1-$2-$3.csv
  ncu --csv --metrics gpu__time_duration.sum --launch-skip "${VOLLEY_GPU_SKIP:-0}" --launch-count "${VOLLEY_GPU_COUNT:-3000}" \
    "$bin/image_bench" --one --weights "$weights/weights-$model.safetensors" --case "$(bench_case "$model" "$batch")" --dtype "$dtype" \
    --device "$device" --repeats 1 >"$log" || return 1
  python3 - "$log" <<'PY'
import collections, csv, re, sys
lines = [line for line in open(sys.argv[1]) if line.startswith('"')]
times, counts = collections.Counter(), collections.Counter()
for row in csv.DictReader(lines):
    name = re.sub(r"\(.*", "", row["Kernel Name"]) + " " + row["Grid Size"]
    times[name] += float(row["Metric Value"].replace(",", "")) * {"ns": 1e-3, "us": 1, "ms": 1e3}[row["Metric Unit"]]
    counts[name] += 1
for name, time in times.most_common(40):
    print(f"{time:10.1f} us {counts[name]:6d} x {time / counts[name]:8.2f} us  {name}")
print(f"{sum(times.values()):10.1f} us in all")
PY
}

for name in "${parts[@]}"; do
  case $name in
    operations) part "operations" operations.log '^\[  (PASSED|FAILED)' "$bin/backend_test" "--device=$device" ;;
    goldens) part "golden cases" goldens.log 'passed, ' "$bin/golden_check" --backend "$device" "${goldens[@]}" ;;
    methods)
      part "steps and caches" steps.log '^\[  (PASSED|FAILED)' "$bin/nn_test" --gtest_filter='*Cuda*'
      part "methods" methods.log '^\[  (PASSED|FAILED)' "$bin/property_test" --gtest_filter='*Cuda*'
      ;;
    tokens)
      part "tokens, jacobi" tokens-jacobi.log 'of 10' same_tokens jacobi
      part "tokens, parallel" tokens-parallel.log 'of 10' same_tokens parallel
      ;;
    sanitizers)
      for tool in memcheck racecheck initcheck; do
        part "compute-sanitizer $tool" "$tool.log" 'ERROR SUMMARY|RACECHECK SUMMARY' compute-sanitizer --tool "$tool" \
          --error-exitcode 9 "$bin/golden_check" --backend "$device" tests/goldens/arpg
      done
      # The other storages' kernels.
      for tool in memcheck racecheck initcheck; do
        for dtype in bf16 q8_0; do
          part "$tool, a picture in $dtype" "$tool-$dtype.log" 'ERROR SUMMARY|RACECHECK SUMMARY' compute-sanitizer --tool "$tool" \
            --error-exitcode 9 "$bin/volley" image fruit --dtype "$dtype" -d "$device" --decoder parallel --steps 1 \
            --no-progress --overwrite -o "$out/$tool-$dtype.png"
        done
      done
      ;;
    times)
      for timed in "${cases[@]}"; do
        IFS=: read -r model dtype batch <<<"$timed"
        part "$model $dtype, batch $batch" "$model-$dtype-$batch.log" ' ms ' timing "$model" "$dtype" "$batch"
      done
      ;;
    pytorch)
      for timed in "${cases[@]}"; do
        IFS=: read -r model dtype batch <<<"$timed"
        for mode in eager graphs; do
          part "PyTorch $mode, $model $batch" "torch-$model-$batch-$mode.log" '^\| [a-z-]+-b' pytorch "$model" "$batch" "$mode"
        done
      done
      ;;
    layers) part "layers" layers.log '^\| 512' layers ;;
    speech) part "whisper-small" speech.log 'tokens/s' "$bin/speech_bench" --device "$device" --out "$weights/whisper-small.safetensors" ;;
    kernels)
      for timed in "${cases[@]}"; do
        IFS=: read -r model dtype batch <<<"$timed"
        part "kernels of $model $dtype $batch" "kernels-$model-$dtype-$batch.log" 'in all' kernels "$model" "$dtype" "$batch"
      done
      ;;
    *)
      echo "gpu_check: unknown part $name" >&2
      exit 2
      ;;
  esac
done
echo
cat "$summary"
exit $failed
