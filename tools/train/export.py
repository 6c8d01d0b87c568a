"""Writes the model folder from the four checkpoints and the settings that compare_settings.py chose (DIR/MODEL.json):
`python3 export.py --run DIR --data emoji.npz --card assets/models/emoji-128`. heldout.txt comes from emoji_dataset.py,
the text is CARD.md.

vq.safetensors holds bf16; the others hold q8_0 planes (see quant.py).
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

from blocks import Cache
from quant import quantize_state
from text_encoder import encode_prompts
from train_tokens import load_model
from vq_model import load_vq

FIELDS = {
    "text_encoder": ["dim", "n_layer", "n_head", "ffn_dim", "num_classes", "buckets", "max_words"],
    "llamagen": ["caption_dim", "dim", "n_layer", "n_head", "vocab_size", "block_size", "ffn_dim"],
    "arpg": ["caption_dim", "dim", "n_layer", "n_head", "vocab_size", "block_size", "ffn_dim"],
}
LIMIT = 14 * 2**20


def network_entry(kind, run, card):
    """Writes the planes and returns the configuration's entry."""
    saved = torch.load(run / f"{kind}.pt", map_location="cpu")
    save_file(quantize_state(saved["model"]), card / f"{kind}.safetensors")
    entry = {"file": f"{kind}.safetensors"} | {field: saved["config"][field] for field in FIELDS[kind]}
    if kind == "text_encoder":
        return entry
    # A transformer's condition is one row, the encoder's.
    return entry | {"model_type": "t2i", "cls_token_num": 1, "defaults": json.loads((run / f"{kind}.json").read_text())[kind]}


def vq_entry(run, card):
    saved = torch.load(run / "vq.pt", map_location="cpu")
    save_file({k: v.bfloat16().contiguous() for k, v in saved["model"].items()}, card / "vq.safetensors")
    return {"file": "vq.safetensors"} | {k: list(v) if isinstance(v, tuple) else v for k, v in saved["config"].items()}


# What the reference outputs are of: a class or None, and words.
REFERENCE_PROMPTS = [("face-smiling", ""), (None, "a red apple"), ("animal-bird", "Owl\u2019s nest, 2 eggs!")]


@torch.no_grad()
def write_reference(path, run, classes):
    """Inputs and outputs of the exported weights, for checking another implementation: calculated in f64 on the CPU (pixels in f32), so that
    they hold no rounding of their own, and kept as f32.

    class_id [3], -1 for none, and prompts, their words as UTF-8 with a line feed after each; condition [3, 128], the text
    encoder's; tokens [3, 256]: pictures drawn from LlamaGen; pixels [3, 16, 16]: the decoded red channel, every eighth
    value in both directions; pixels_u8 [128, 128]: all of the first picture's after the 8-bit rule;
    llamagen.row and arpg.row [3, C]: the projected condition; null.llamagen and null.arpg [C]: no condition;
    llamagen.logits [3, 3, V / 8]: conditional logits of tokens 0, 100 and 255 after the tokens before them;
    arpg.order [256]: 0-based cells; arpg.logits [3, 3, V / 8]: conditional logits of cells order[0] (after the condition
    alone), order[40] and order[41], both asked at once after one block [condition, first 40 codes of the order].
    Of the logits every eighth is kept: vocabulary entries 0, 8, 16 and so on.
    """
    encoder, llamagen, arpg = (load_model(kind, run, "cpu").double() for kind in ("text_encoder", "llamagen", "arpg"))
    vq = load_vq(run / "vq.pt", "cpu")
    class_id = [None if c is None else classes.index(c) for c, _ in REFERENCE_PROMPTS]
    condition = encode_prompts(encoder, [(c, text) for c, (_, text) in zip(class_id, REFERENCE_PROMPTS)])
    generator = torch.Generator().manual_seed(1)
    tokens = llamagen.generate(condition, cfg=2.0, top_k=100, generator=generator)
    order = torch.randperm(256, generator=generator)
    red = vq.decode(tokens)[:, 0]
    first_row = arpg.cls_embedding(condition)
    known = torch.cat([first_row, arpg.embeddings(tokens[:, order[:40]])], 1)
    content = torch.cat([torch.zeros(1, dtype=torch.long), order[:40] + 1])
    caches = lambda: [Cache() for _ in range(len(arpg.layers.self_dec) + 1)]
    first = arpg(first_row, content[:1], order[:1] + 1, caches())
    later = arpg(known, content, order[40:42] + 1, caches())
    text = "".join(f"{words}\n" for _, words in REFERENCE_PROMPTS).encode()
    row = lambda model, x: model.cls_embedding(x)[:, 0].contiguous()
    tensors = {
        "class_id": torch.tensor([-1 if c is None else c for c in class_id], dtype=torch.int32),
        "prompts": torch.tensor(list(text), dtype=torch.uint8), "condition": condition.contiguous(),
        "tokens": tokens.short(),
        "pixels": red[:, ::8, ::8].contiguous(), "pixels_u8": red[0].mul(127.5).add(128).clamp(0, 255).byte(),
        "llamagen.row": row(llamagen, condition), "arpg.row": row(arpg, condition),
        "null.llamagen": row(llamagen, llamagen.cls_embedding.uncond_embedding)[0],
        "null.arpg": row(arpg, arpg.cls_embedding.uncond_embedding)[0],
        "llamagen.logits": llamagen(condition, tokens[:, :-1])[:, [0, 100, 255], ::8].contiguous(),
        "arpg.order": order.short(), "arpg.logits": torch.cat([first, later], 1)[..., ::8].contiguous(),
    }
    save_file({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder with the checkpoints")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--card", type=pathlib.Path, required=True)
    args = parser.parse_args()

    classes = np.load(args.data)["classes"].tolist()
    args.card.mkdir(parents=True, exist_ok=True)
    config = {
        "format": "volley.image_model/1", "name": "emoji-128", "image_size": 128, "grid": 16, "classes": classes,
        "vq": vq_entry(args.run, args.card),
    } | {kind: network_entry(kind, args.run, args.card) for kind in FIELDS}
    (args.card / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    write_reference(args.card / "reference.safetensors", args.run, classes)
    total = sum(f.stat().st_size for f in args.card.iterdir())
    print(f"{total} bytes of {LIMIT}")
    if total > LIMIT:
        raise SystemExit("the folder is larger than 14 MiB")


if __name__ == "__main__":
    main()
