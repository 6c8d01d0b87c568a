"""Byte-level BPE of a converted model, for training text: encode, decode, and the chat template around a user turn.

The words that merges stay inside of are those of SmolLM: numerals alone, then GPT-2's expression.
"""

import functools
import json
import pathlib
import re
import unicodedata

NUMERAL = re.compile("([" + "".join(c for c in map(chr, range(0x110000)) if unicodedata.category(c)[0] == "N") + "])")
WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+")


def byte_alphabet():
    """GPT-2's character of each byte."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printed]
    return {b: chr(b) for b in printed} | {b: chr(256 + i) for i, b in enumerate(others)}


class Vocabulary:
    def __init__(self, folder):
        folder = pathlib.Path(folder)
        if not (folder / "vocabulary.json").is_file():
            raise SystemExit(f"{folder}: no vocabulary.json; convert.py makes such a folder")
        saved = json.loads((folder / "vocabulary.json").read_text())
        config = json.loads((folder / "config.json").read_text())
        self.tokens, self.end, self.chat = saved["tokens"], config["eos_token_id"], config["chat"]
        self.base_model, self.chat_template = config["base_model"], saved["chat_template"]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.ranks = {tuple(pair.split(" ")): rank for rank, pair in enumerate(saved["merges"])}
        self.special = {self.tokens[i] for i in saved["special"]}
        self.split = re.compile("(" + "|".join(re.escape(t) for t in sorted(self.special, key=len, reverse=True)) + ")")
        self.characters = byte_alphabet()
        self.bytes = {c: b for b, c in self.characters.items()}
        self.word = functools.lru_cache(100_000)(self.merge)

    def merge(self, word):
        parts = [self.characters[b] for b in word.encode("utf-8", "replace")]
        while len(parts) > 1:
            rank, at = min((self.ranks.get(pair, 1 << 30), i) for i, pair in enumerate(zip(parts, parts[1:])))
            if rank == 1 << 30:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.ids[part] for part in parts]

    def encode(self, text):
        """Token ids; a special token's spelling means that token."""
        ids = []
        for piece in self.split.split(text):
            if piece in self.special:
                ids.append(self.ids[piece])
                continue
            for stretch in NUMERAL.split(piece):
                for word in [stretch] if NUMERAL.match(stretch) else WORDS.findall(stretch):
                    ids.extend(self.word(word))
        return ids

    def decode(self, ids):
        text = "".join(self.tokens[i] for i in ids if self.tokens[i] not in self.special)
        return bytes(self.bytes[c] for c in text).decode("utf-8", "replace")

    def ask(self, prompt):
        """Ids of a conversation up to where the answer begins."""
        return self.encode(self.chat["user"] + prompt + self.chat["assistant"])
