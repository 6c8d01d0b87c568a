"""PyPI's `tokenizers` and `sentencepiece` beside tokenizer_bench: the same ids over many odd texts, and their speed.

usage: python tools/bench/tokenizers_peer.py BENCH VOCABULARY [--texts FILE...] [--odd MB] [--seed N] [--speed FILE]
BENCH is build/release/bin/tokenizer_bench. VOCABULARY is a tokenizer.json, a GGUF file (a byte-level one; needs PyPI's
`gguf`) or a SentencePiece .model. Prints the first texts whose ids differ; exit 1 if any do.
"""

import argparse
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from odd_texts import random_text  # noqa: E402


class TokenizersPeer:
    name = "tokenizers"

    def __init__(self, path):
        from tokenizers import Tokenizer

        self.tokenizer = gguf_tokenizer(path) if path.endswith(".gguf") else Tokenizer.from_file(path)

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_all(self, texts):
        return [e.ids for e in self.tokenizer.encode_batch(texts, add_special_tokens=False)]

    def piece(self, index):
        return self.tokenizer.id_to_token(index)


class SentencePiecePeer:
    name = "sentencepiece"

    def __init__(self, path):
        import sentencepiece

        self.processor = sentencepiece.SentencePieceProcessor(model_file=path)

    def encode(self, text):
        return self.processor.encode(text)

    def encode_all(self, texts):
        return self.processor.encode(texts)

    def piece(self, index):
        return self.processor.id_to_piece(index)


def gguf_tokenizer(path):
    """The vocabulary of a GGUF file with the split that its metadata names, as the published tokenizer.json has it."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    fields = GGUFReader(path).fields
    keys = ("model", "pre", "tokens", "token_type", "merges")
    kind, pre, tokens, types, merges = (fields["tokenizer.ggml." + key].contents() for key in keys)
    if kind != "gpt2" or pre not in ("smollm", "gpt-2"):
        sys.exit(f"{path}: {kind} with the split {pre} is not written down here")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in merges]))
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, plain]) if pre == "smollm" else plain
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == control])
    return tokenizer


def ids_of_bench(arguments, texts):
    with tempfile.TemporaryDirectory() as folder:
        cases, out = os.path.join(folder, "cases"), os.path.join(folder, "ids")
        with open(cases, "wb") as file:
            for text in texts:
                data = text.encode()
                file.write(struct.pack("<I", len(data)) + data)
        command = [arguments.bench, "--tokenizer", arguments.vocabulary, "--cases", cases, "--out", out]
        subprocess.run(command, check=True)
        data = pathlib.Path(out).read_bytes()
    at = 0
    while at < len(data):
        (count,) = struct.unpack_from("<I", data, at)
        yield list(struct.unpack_from(f"<{count}i", data, at + 4))
        at += 4 + 4 * count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench")
    parser.add_argument("vocabulary")
    parser.add_argument("--texts", nargs="*", default=[])
    parser.add_argument("--odd", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed")
    arguments = parser.parse_args()
    peer = (SentencePiecePeer if arguments.vocabulary.endswith(".model") else TokenizersPeer)(arguments.vocabulary)

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
    expected = peer.encode_all(texts)

    different = 0
    for text, ids, found in zip(texts, expected, ids_of_bench(arguments, texts), strict=True):
        if found == ids:
            continue
        different += 1
        if different <= 3:
            place = next((i for i, (a, b) in enumerate(zip(found, ids)) if a != b), min(len(found), len(ids)))
            ours, theirs = ([peer.piece(i) for i in part[place:place + 6]] for part in (found, ids))
            print(f"text {text[:200]!r}: token {place}: {ours} for {theirs}")
    print(f"{len(texts)} texts, {total / 1e6:.1f} MB, {sum(map(len, expected))} tokens: {different} texts differ")

    if arguments.speed:
        text = pathlib.Path(arguments.speed).read_text()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            peer.encode(text)
            times.append(time.perf_counter() - start)
        print(f"{peer.name}: {len(text.encode()) / 1e6 / sorted(times)[2]:.1f} MB/s, median of 5, one text")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
