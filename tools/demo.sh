#!/usr/bin/env bash
# Makes a few pictures with the volley command, prints each command before it runs, and leaves a page of the pictures,
# the commands and the run records. ./run demo builds the command first.
#
# usage: tools/demo.sh VOLLEY OUT_FOLDER
set -euo pipefail
(($# == 2)) || {
  echo "usage: tools/demo.sh VOLLEY OUT_FOLDER" >&2
  exit 2
}
volley=$1
out=$2
class=transport-ground
seed=1

fail() {
  printf 'demo: %s\n' "$*" >&2
  exit 1
}
[[ -x $volley ]] || fail "there is no program $volley"
mkdir -p "$out" 2>/dev/null && [[ -w $out ]] || fail "cannot write to $out"
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT

# make NAME FLAGS...: one run of `volley image`, kept as out/NAME.png and, for the page, its JSON and its record.
make() {
  local name=$1
  shift
  local words=(image --class "$class" --seed "$seed" "$@" -o "$out/$name.png" --overwrite)
  printf '\n$ volley %s\n' "${words[*]}"
  printf 'volley %s\n' "${words[*]}" >"$data/$name.command"
  "$volley" "${words[@]}" --json >"$data/$name.json" || fail "volley image stopped with status $?"
  "$volley" info "$out/$name.png" >"$data/$name.record" || fail "volley info $out/$name.png stopped with status $?"
  printf '  -> %s\n' "$out/$name.png"
}

# field NAME KEY: the first number or text of that key in a run's JSON, which is one line without spaces.
field() {
  local value
  value=$(grep -o "\"$2\":[^,}]*" "$data/$1.json" | head -n 1) || fail "the JSON of $1 has no $2"
  value=${value#*:}
  value=${value%\"}
  printf '%s' "${value#\"}"
}

# seconds NAME PHASE: of the run's statistics, where alone every value is a number ("check" is also a flag of the request).
seconds() {
  local value
  value=$(grep -o '"seconds":{[^}]*}' "$data/$1.json" | grep -o "\"$2\":[^,}]*") || fail "the JSON of $1 has no seconds of $2"
  printf '%s' "${value#*:}"
}

# calculate DECIMALS EXPRESSION
calculate() { LC_ALL=C awk "BEGIN { printf \"%.$1f\", $2 }"; }

make grid --count 16 --grid
make sequential --decoder sequential
make jacobi --decoder jacobi --check
make parallel --count 16 --grid --decoder parallel --steps 32
make filling --decoder parallel --steps 32 --animate "$out/filling.webp" --step-map "$out/filling-steps.png"

# A mask of two pixels, black above white: it is stretched to the picture, whose lower half is made anew.
base64 -d >"$out/mask.png" <<<"iVBORw0KGgoAAAANSUhEUgAAAAEAAAACCAAAAAC86un7AAAADElEQVR42mNgYPgPAAEDAQA2dBFAAAAAAElFTkSuQmCC"
class=transport-air make repaint --init "$out/filling.png" --mask "$out/mask.png"
printf '\n$ volley verify %s\n' "$out/repaint.png"
"$volley" verify "$out/repaint.png" || fail "volley verify stopped with status $?"

printf '\n$ volley verify %s\n' "$out/jacobi.png"
"$volley" verify "$out/jacobi.png" || fail "volley verify stopped with status $?"

checked="$(field jacobi equal) of $(field jacobi tokens) tokens equal"
fewer="$(field jacobi forwards) forwards instead of $(field jacobi sequential_forwards)"
[[ $(field sequential token_hash) == "$(field jacobi token_hash)" ]] ||
  fail "jacobi's tokens are not those that sequential decoding gave for the same seed"

# row NAME TEXT [CHECK]: forwards and the like of one picture, on average; seconds without the check.
row() {
  local name=$1 decoder decimals=1
  if (($(field "$name" count) == 1)); then decimals=0; fi
  decoder=$(sed -n 's/^decoder *//p' "$data/$name.record")
  printf '%s|%s|%s|%s|%s|%s|%s|%s\n' "$2" "$decoder" "$(field "$name" count)" \
    "$(calculate $decimals "$(field "$name" tokens) / $(field "$name" tokens_per_forward)")" \
    "$(calculate 2 "$(field "$name" tokens_per_forward)")" "$(calculate 2 "$(field "$name" rows_per_forward)")" \
    "$(calculate 2 "$(seconds "$name" total) - $(seconds "$name" check) - $(seconds "$name" render)")" "${3:-}"
}
{
  row grid "a grid"
  row sequential "one, sequentially"
  row jacobi "the same by Jacobi iteration" "$(field jacobi equal)/$(field jacobi tokens) equal"
  row parallel "a grid in 32 forwards"
  row filling "one, animated"
  row repaint "its lower half anew"
} >"$data/rows"

printf '\n%-34s %-10s %8s %9s %12s %9s\n' run decoder pictures forwards tokens/fwd seconds
while IFS='|' read -r text decoder count forwards tokens _ seconds check; do
  printf '%-34s %-10s %8s %9s %12s %9s  %s\n' "$text" "${decoder%%:*}" "$count" "$forwards" "$tokens" "$seconds" "$check"
done <"$data/rows"

# ---- The page

escape() { sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g'; }

# image FILE TITLE CLASS: a picture in the page itself.
image() { printf '<img class="%s" alt="%s" src="data:image/%s;base64,%s">\n' "$3" "$2" "${1##*.}" "$(base64 -w 0 "$1")"; }

# figure NAME TITLE NOTE [FILE...]: a run, with further pictures beside its own.
figure() {
  local name=$1 title=$2 note=$3 size=grid file
  shift 3
  if (($(field "$name" count) == 1)); then size=one; fi
  cat <<HTML
<section>
<h2>$title</h2>
<p>$note</p>
<div class="run">
$(for file in "$@" "$out/$name.png"; do image "$file" "$title" "$size"; done)
<div>
<pre class="command">$(escape <"$data/$name.command")</pre>
<details><summary>run record, from <code>volley info $out/$name.png</code></summary>
<pre>$(escape <"$data/$name.record")</pre></details>
</div>
</div>
</section>
HTML
}

{
  cat <<HTML
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>volley: a first picture</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; }
h2 { margin: 2.5rem 0 0; font-size: 1.2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .5rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2), td:last-child, th:last-child { text-align: left; }
td { white-space: nowrap; }
.run { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
.run > div { flex: 1 1 24rem; min-width: 0; }
img { max-width: 100%; border: 1px solid var(--line); border-radius: 6px; }
img.grid { width: 32rem; }
img.one { width: 12rem; image-rendering: pixelated; align-self: flex-start; }
pre { background: var(--soft); padding: .7rem; border-radius: 6px; overflow-x: auto; font-size: .82rem; }
pre.command { margin-top: 0; white-space: pre-wrap; }
.scroll { overflow-x: auto; }
</style>
<h1>volley: a first picture</h1>
<p>Class $class, seed $seed, made on this machine by a model in the repository. One core decodes all of it: token by
token, or several at a time. Jacobi iteration is exact: with the same seed as sequential decoding, $checked, in $fewer.
Parallel decoding is another model of the picture, with its own tokens.</p>
<div class="scroll"><table>
<tr><th>run<th>decoder<th>pictures<th>forwards<th>tokens/forward<th>rows/forward<th>seconds<th>check
HTML
  while IFS='|' read -r text decoder count forwards tokens rows seconds check; do
    printf '<tr><td>%s<td><code>%s</code><td>%s<td>%s<td>%s<td>%s<td>%s<td>%s\n' \
      "$text" "${decoder%%:*}" "$count" "$forwards" "$tokens" "$rows" "$seconds" "$check"
  done <"$data/rows"
  cat <<HTML
</table></div>
<p>Forwards, tokens and rows are of one picture, on average, rows with those of its guidance partner; a grid is decoded as
one batch. The model knows little but emoji (see <code>assets/models/emoji-128/CARD.md</code>), so its next tokens are
unusually certain, and Jacobi iteration's tokens per forward owe much to that. Seconds are of the whole run, with
$(field grid threads) threads on the device <code>$(field grid device)</code> in $(field grid dtype), without reading the model and without the
check.</p>
HTML
  figure grid "A grid of sixteen" "Sixteen seeds, decoded as one batch."
  figure sequential "One picture, token by token" "What the exact methods must equal."
  figure jacobi "The same picture by Jacobi iteration" "A window of guesses is verified in each forward: $checked, $fewer."
  figure parallel "Sixteen in 32 forwards" "A random-order model decides several grid cells in each forward."
  figure filling "How one filled in" "Cells in the order in which they were decided, and a map of the steps." \
    "$out/filling.webp" "$out/filling-steps.png"
  figure repaint "Its lower half anew" "The upper half is kept to the bit outside a seam of a few pixels; the lower half is of class
transport-air." "$out/filling.png" "$out/mask.png"
  echo "</html>"
} >"$data/index.html"
mv "$data/index.html" "$out/index.html"
printf '\nall of it on one page: %s/index.html\n' "$out"
