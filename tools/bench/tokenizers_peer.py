"""The PyPI package `tokenizers` beside tokenizer_bench: the same ids over many odd texts, and its speed.

usage: python tools/bench/tokenizers_peer.py BENCH TOKENIZER_JSON [--texts FILE...] [--odd MB] [--seed N] [--speed FILE]
BENCH is build/release/bin/tokenizer_bench. Prints the first texts whose ids differ; exit 1 if any do.
"""

import argparse
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from odd_texts import random_text  # noqa: E402
import random  # noqa: E402

from tokenizers import Tokenizer  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench")
    parser.add_argument("tokenizer")
    parser.add_argument("--texts", nargs="*", default=[])
    parser.add_argument("--odd", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed")
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(arguments.tokenizer)

    texts = []
    for path in arguments.texts:
        text = pathlib.Path(path).read_text()
        texts += [text] + text.splitlines()
    rng = random.Random(arguments.seed)
    size = 0
    while size < arguments.odd * 1e6:
        # Some long ones, so that seams and caches are met.
        text = "".join(random_text(rng) for _ in range(rng.choice([1, 1, 2, 5, 50])))
        texts.append(text)
        size += len(text.encode())
    total = sum(len(t.encode()) for t in texts)
    expected = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]

    with tempfile.TemporaryDirectory() as folder:
        cases, out = os.path.join(folder, "cases"), os.path.join(folder, "ids")
        with open(cases, "wb") as file:
            for text in texts:
                data = text.encode()
                file.write(struct.pack("<I", len(data)) + data)
        subprocess.run([arguments.bench, "--tokenizer", arguments.tokenizer, "--cases", cases, "--out", out], check=True)
        data = pathlib.Path(out).read_bytes()
    at = different = 0
    for text, ids in zip(texts, expected):
        (count,) = struct.unpack_from("<I", data, at)
        found = list(struct.unpack_from(f"<{count}i", data, at + 4))
        at += 4 + 4 * count
        if found != ids:
            different += 1
            if different <= 3:
                place = next((i for i, (a, b) in enumerate(zip(found, ids)) if a != b), min(len(found), len(ids)))
                print(f"text {text[:200]!r}: token {place}: {[tokenizer.id_to_token(i) for i in found[place:place + 6]]} for "
                      f"{[tokenizer.id_to_token(i) for i in ids[place:place + 6]]}")
    print(f"{len(texts)} texts, {total / 1e6:.1f} MB, {sum(map(len, expected))} tokens: {different} texts differ")

    if arguments.speed:
        text = pathlib.Path(arguments.speed).read_text()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            tokenizer.encode(text, add_special_tokens=False)
            times.append(time.perf_counter() - start)
        print(f"tokenizers: {len(text.encode()) / 1e6 / sorted(times)[2]:.1f} MB/s, median of 5, one text")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
