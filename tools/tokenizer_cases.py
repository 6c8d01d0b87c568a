"""Makes tests/unit/text/tokenizers: small tokenizers in the exact configuration of each family, and the ids that the
PyPI packages `tokenizers` and `sentencepiece` give for odd texts. Vocabularies are trained on a text file.

usage: python tools/tokenizer_cases.py TRAINING_TEXT [OUT]
Made with tokenizers 0.23.3, sentencepiece 0.2.3.
"""

import base64
import io
import json
import pathlib
import sys

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from odd_texts import CODE, WORDS, odd_texts

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
# Of GPT-4o: not one of those with a scanner of its own.
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
# A few rules of NFKC; the whole table would be larger than all fixtures.
RULES = {"ﬁ": "fi", "ﬀ": "ff", "①": "1", "½": "1⁄2", "２": "2", "Ａ": "A", "ｶ": "カ", "ﾀ": "タ", "㎏": "kg", "\u212b": "\u00c5", "…": "...",
         "\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "\u200b": "", "e\u0301": "\u00e9", "a\u0308": "\u00e4", "Ⅷ": "VIII", "™": "TM"}


def special(content, **flags):
    return AddedToken(content, special=True, normalized=False, **flags)


def byte_level(training, pattern, size=700, normalizer=None, digits=False, specials=(), ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pattern is None:
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain]) if digits else plain
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                                  special_tokens=[special(s) for s in specials])
    tokenizer.train_from_iterator(training, trainer)
    return tokenizer


def train_sentencepiece(training, kind, **options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(training), model_writer=out, model_type=kind, num_threads=1,
                                             minloglevel=2, **options)
    return out.getvalue()


def parse_model(data):
    model = model_pb2.ModelProto()
    model.ParseFromString(data)
    return model


def llama2_merges(model):
    """The merges of a vocabulary with scores, as published conversions make them."""
    ids = {p.piece: i for i, p in enumerate(model.pieces) if p.type == 1}
    merges = []
    for piece, index in ids.items():
        local = [(piece[:i], piece[i:], index) for i in range(1, len(piece)) if piece[:i] in ids and piece[i:] in ids]
        merges += sorted(local, key=lambda m: (ids[m[0]], ids[m[1]]))
    merges.sort(key=lambda m: -model.pieces[m[2]].score)
    return [(left, right) for left, right, _ in merges]


def llama2(data, metaspace):
    model = parse_model(data)
    vocab = {p.piece: i for i, p in enumerate(model.pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=llama2_merges(model), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens([special("<unk>"), special("<s>"), special("</s>")])
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tokenizer


def unigram(data, albert):
    model = parse_model(data)
    tokenizer = Tokenizer(models.Unigram([(p.piece, p.score) for p in model.pieces], unk_id=model.trainer_spec.unk_id, byte_fallback=False))
    charsmap = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
    if albert:
        tokenizer.normalizer = normalizers.Sequence([
            normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
            normalizers.Lowercase(), charsmap, normalizers.Replace(Regex(" {2,}"), " ")])
    else:
        tokenizer.normalizer = charsmap
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")])
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([special("<pad>"), special("</s>"), special("<unk>"), special("<extra_id_0>", rstrip=True, lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def odd_added(training):
    tokenizer = byte_level(training, None, 400, normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), specials=["<|end|>"])
    tokenizer.add_tokens([AddedToken("HELLO", normalized=True), AddedToken("Wor", normalized=False, single_word=True),
                          AddedToken("  ", normalized=False), AddedToken("    ", normalized=False), AddedToken("ﬁx", normalized=True, single_word=True),
                          AddedToken("é", normalized=False), AddedToken("a b", normalized=False)])
    tokenizer.add_special_tokens([special("<L>", lstrip=True), special("<R>", rstrip=True), special("<LR>", lstrip=True, rstrip=True),
                                  special("<L><R>"), special("<W>", single_word=True, lstrip=True)])
    return tokenizer


SPLICES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<s>", "</s>", "<unk>", "<0x41>", "<|0.02|>", "<extra_id_0>", "▁", "▁▁a",
           "<L>", "<R>", "<LR>", "<L><R>", "<W>", "hello", "HELLO", "Wor", "Wor ld", "World", "a b", "fix", "ﬁx", "<|end|>", "``x''"]


def texts():
    plain = odd_texts(6, 150)
    import random
    rng = random.Random(7)
    spliced = []
    for text in odd_texts(8, 60)[10:]:
        for _ in range(rng.randint(1, 3)):
            at = rng.randint(0, len(text))
            text = text[:at] + rng.choice(["", " ", "  "]) + rng.choice(SPLICES) + rng.choice(["", " ", "\n", "x"]) + text[at:]
        spliced.append(text)
    return plain + spliced


def expected_of(tokenizer, cases):
    """Per text: ids without what is put around it, of special spellings as text, and the decoded text."""
    out = []
    for text in cases:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        item = {"ids": ids}
        framed = tokenizer.encode(text).ids
        if framed != ids:
            start = framed.index(ids[0]) if ids else len(framed)
            item["prefix"], item["suffix"] = next((framed[:i], framed[i + len(ids):]) for i in range(len(framed) + 1) if framed[i:i + len(ids)] == ids)
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        if plain != ids:
            item["plain"] = plain
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        if decoded != text:
            item["decoded"] = decoded
        skipped = tokenizer.decode(ids, skip_special_tokens=True)
        if skipped != decoded:
            item["skipped"] = skipped
        out.append(item)
    return out


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def main():
    training = pathlib.Path(sys.argv[1]).read_text().splitlines()[:6000] + WORDS + CODE
    out = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parent.parent / "tests/unit/text/tokenizers")
    out.mkdir(parents=True, exist_ok=True)
    cases = texts()
    write_json(out / "texts.json", cases)

    im = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = {"gpt2": byte_level(training, None, specials=["<|endoftext|>"]),
            "smollm2": byte_level(training, None, digits=True, specials=im),
            "qwen2": byte_level(training, QWEN2, normalizer=normalizers.NFC(), specials=im),
            "llama3": byte_level(training, LLAMA3, specials=["<|begin_of_text|>", "<|end_of_text|>"], ignore_merges=True),
            "whisper": byte_level(training, None, 500, specials=["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]),
            "o200k": byte_level(training, O200K, 400),
            "added": odd_added(training)}
    made["llama3"].post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)])])
    made["whisper"].add_tokens([AddedToken("<|%.2f|>" % (i / 50), normalized=True) for i in range(20)])
    made["whisper"].post_processor = processors.TemplateProcessing(
        single="<|startoftranscript|> <|notimestamps|> $A <|endoftext|>",
        special_tokens=[("<|startoftranscript|>", 1), ("<|notimestamps|>", 2), ("<|endoftext|>", 0)])

    rules = out / "rules.tsv"
    rules.write_text("".join(" ".join("%X" % ord(c) for c in k) + "\t" + " ".join("%X" % ord(c) for c in v) + "\n" for k, v in RULES.items()))
    plain = [line for line in training if line.strip()]
    bpe = train_sentencepiece(plain, "bpe", vocab_size=900, byte_fallback=True, normalization_rule_name="identity",
                              remove_extra_whitespaces=False, character_coverage=0.98)
    t5 = train_sentencepiece(plain, "unigram", vocab_size=600, normalization_rule_tsv=str(rules), pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
                             character_coverage=0.98)
    rules.unlink()
    made["llama2"], made["mistral"] = llama2(bpe, False), llama2(bpe, True)
    made["t5"], made["albert"] = unigram(t5, False), unigram(t5, True)
    for name, tokenizer in made.items():
        (out / (name + ".json")).write_text(tokenizer.to_str(pretty=False))
        write_json(out / (name + ".expected.json"), expected_of(tokenizer, cases))
    for name, data in {"bpe": bpe, "unigram": t5}.items():
        (out / (name + ".model")).write_bytes(data)
        processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        write_json(out / (name + ".model.expected.json"),
                   [{"plain": processor.encode(t), "decoded": processor.decode(processor.encode(t))} for t in cases])
    print(sum(p.stat().st_size for p in out.iterdir()), "bytes")


if __name__ == "__main__":
    main()
