"""GGUF file -> folder that the other scripts read: `python3 convert.py model.gguf DIR`. Needs numpy alone, and so do its
readers, besides torch.

config.json: sizes, the chat template's text, token ids. vocabulary.json: tokens, merges. weights-N.npz: the file's own
blocks as bytes [rows, bytes a row], in parts of at most --part bytes, under Hugging Face's names and in its row order: rows
of q and k are taken back from the interleaved order that GGUF files of Llama have.
Ref: ggml-org/ggml, docs/gguf.md; llama.cpp, convert_hf_to_gguf.py (permute)
"""

import argparse
import json
import pathlib
import struct

import numpy as np

# Type number of a tensor: name, values a block, bytes a block.
TYPES = {0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 8: ("q8_0", 32, 34)}
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


class Reader:
    """Little-endian values from bytes; a file that ends early is an error."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def scalar(self, code):
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self):
        size = self.scalar("Q")
        if size > len(self.data) - self.at:
            raise struct.error("text beyond the end")
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8", "replace")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            kind, count = self.scalar("I"), self.scalar("Q")
            return [self.value(kind) for _ in range(count)]
        return self.scalar(SCALARS[kind])


def read_gguf(path):
    """Metadata, and of each tensor its type, shape (rows first) and bytes [rows, bytes a row]."""
    data = path.read_bytes()
    if data[:4] != b"GGUF":
        raise SystemExit(f"{path}: not a GGUF file")
    try:
        reader = Reader(data)
        reader.at = 8
        tensor_count, pair_count = reader.scalar("Q"), reader.scalar("Q")
        metadata = {}
        for _ in range(pair_count):
            key = reader.text()
            metadata[key] = reader.value(reader.scalar("I"))
        entries = []
        for _ in range(tensor_count):
            name = reader.text()
            shape = [reader.scalar("Q") for _ in range(reader.scalar("I"))][::-1]
            entries.append((name, shape, reader.scalar("I"), reader.scalar("Q")))
    except (struct.error, KeyError):
        raise SystemExit(f"{path}: broken or cut off") from None
    alignment = metadata.get("general.alignment", 32)
    start = -(-reader.at // alignment) * alignment
    tensors = {}
    for name, shape, kind, offset in entries:
        if kind not in TYPES:
            known = ", ".join(t[0] for t in TYPES.values())
            raise SystemExit(f"{path}: {name}: blocks of type {kind} are not read, only {known}")
        word, values, size = TYPES[kind]
        rows = shape[0] if len(shape) == 2 else 1
        row = shape[-1] // values * size
        end = start + offset + rows * row
        if len(shape) > 2 or end > len(data):
            raise SystemExit(f"{path}: {name}: broken or cut off")
        tensors[name] = (word, shape, np.frombuffer(data, np.uint8, rows * row, start + offset).reshape(rows, row))
    return metadata, tensors


def hugging_face_name(name):
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "blk" and parts[-1] in LAYER:
        return f"model.layers.{parts[1]}.{LAYER[parts[-1]]}.weight"
    return f"{OUTER[parts[0]]}.weight" if parts[0] in OUTER else None


def half_split(rows, heads):
    """Rows of q or k from interleaved rotary pairs to Hugging Face's halves."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--part", type=int, default=32 * 2**20, help="largest bytes of a part")
    parser.add_argument("--system", default=SYSTEM, help="what conversations begin with")
    args = parser.parse_args()

    if not args.gguf.is_file():
        raise SystemExit(f"{args.gguf}: no such file")
    metadata, tensors = read_gguf(args.gguf)
    if metadata.get("general.architecture") != "llama" or metadata.get("tokenizer.ggml.model") != "gpt2":
        raise SystemExit(f"{args.gguf}: not a Llama with a byte-level vocabulary")
    of = lambda key: metadata[f"llama.{key}"]
    heads, kv_heads = of("attention.head_count"), of("attention.head_count_kv")
    config = {
        "hidden_size": of("embedding_length"), "intermediate_size": of("feed_forward_length"),
        "num_hidden_layers": of("block_count"), "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": of("context_length"), "rms_norm_eps": of("attention.layer_norm_rms_epsilon"),
        "rope_theta": of("rope.freq_base"), "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": "output.weight" not in tensors, "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "base_model": args.gguf.name,
        "chat": {"user": f"<|im_start|>system\n{args.system}<|im_end|>\n<|im_start|>user\n",
                 "assistant": "<|im_end|>\n<|im_start|>assistant\n"},
    }
    parts, size, config["tensors"] = [{}], 0, {}
    for name, (word, shape, rows) in tensors.items():
        target = hugging_face_name(name)
        if target is None:
            raise SystemExit(f"{args.gguf}: {name}: no place for it")
        if "attn_q" in name or "attn_k" in name:
            rows = half_split(rows, heads if "attn_q" in name else kv_heads)
        if size + rows.nbytes > args.part and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][target] = rows
        size += rows.nbytes
        config["tensors"][target] = {"type": word, "shape": shape}
    config["parts"] = len(parts)

    args.out.mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(parts):
        np.savez(args.out / f"weights-{i}.npz", **part)
    kinds = metadata["tokenizer.ggml.token_type"]
    vocabulary = {"tokens": metadata["tokenizer.ggml.tokens"], "merges": metadata["tokenizer.ggml.merges"],
                  "special": [i for i, kind in enumerate(kinds) if kind in (3, 4)],
                  "chat_template": metadata.get("tokenizer.chat_template", "")}
    (args.out / "vocabulary.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (args.out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    print(f"{len(tensors)} tensors in {len(parts)} parts")


if __name__ == "__main__":
    main()
