"""From a prompt to the numbers a text encoder reads: words, and for every word the rows of a hashed table.

Rules, the same in image/prompt_words.cpp (test vectors, which this script prints: tests/unit/image/prompt_words.json):
1. Typographic quotes become plain ones.
2. ASCII letters become lower case. Every run of bytes other than ASCII letters, digits and bytes from 0x80 up
   ends a word; other characters belong to words as they are. Words beyond the fifteenth are not read.
3. A word w is written <w>. Its rows are the FNV-1a hash (32 bits) of <w> and of every part of <w> that is 3, 4 or 5
   bytes long and shorter than <w>, in order of length and place, each modulo the table's size.
Ref: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information".
"""

import json

MAX_WORDS = 15
PARTS = (3, 4, 5)
QUOTES = str.maketrans({**dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032", "'"), **dict.fromkeys("\u201c\u201d\u201e\u201f", '"')})


def prompt_words(text):
    """The words of a prompt as bytes."""
    words, word = [], bytearray()
    for byte in text.translate(QUOTES).encode() + b" ":
        if 0x41 <= byte <= 0x5A:
            byte += 0x20
        if 0x61 <= byte <= 0x7A or 0x30 <= byte <= 0x39 or byte >= 0x80:
            word.append(byte)
        elif word:
            words.append(bytes(word))
            word = bytearray()
    return words[:MAX_WORDS]


def fnv1a(data):
    value = 2166136261
    for byte in data:
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value


def word_rows(word, buckets):
    """Rows of the table whose mean stands for the word."""
    marked = b"<" + word + b">"
    parts = [marked[i:i + n] for n in PARTS if n < len(marked) for i in range(len(marked) - n + 1)]
    return [fnv1a(part) % buckets for part in [marked] + parts]


if __name__ == "__main__":
    examples = ["red apple", "  A Red, RED apple! ", "man\u2019s shoe", "\u201cgrinning\u201d face", "o'clock 12:30", "\u00c4pfel na\u00efve", "a", "",
                "?!", "\U0001f34e", "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"]
    lines = [json.dumps({"prompt": text, "words": [w.decode() for w in prompt_words(text)],
                         "rows": [word_rows(w, 4096) for w in prompt_words(text)]}) for text in examples]
    print("[\n " + ",\n ".join(lines) + "\n]")
