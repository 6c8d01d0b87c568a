"""Writes the model folder from the three checkpoints: `python3 export.py --run DIR --data emoji.npz --card
assets/models/emoji-128`. The lists (names.json, heldout.txt) come from emoji_dataset.py, the text from CARD.md.

vq.safetensors holds bf16; the transformers hold q8_0 planes (see quant.py).
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

from blocks import Cache
from quant import dequantize_state, quantize_state
from train_tokens import build_model
from vq_model import load_vq

# Chosen by eye with compare_settings.py.
DEFAULTS = {
    "llamagen": {"cfg": 1.5, "temperature": 0.9, "top_k": 50, "top_p": 1.0},
    "arpg": {"cfg": 1.5, "steps": 64, "schedule": "cosine", "guidance_schedule": "constant", "temperature": 0.9, "top_k": 50},
}
FIELDS = ["dim", "n_layer", "n_head", "vocab_size", "num_classes", "block_size", "ffn_dim"]
LIMIT = 14 * 2**20


def transformer_entry(kind, run, card):
    """Writes the planes and returns the configuration's entry."""
    saved = torch.load(run / f"{kind}.pt", map_location="cpu")
    save_file(quantize_state(saved["model"]), card / f"{kind}.safetensors")
    config = build_model(kind, saved["config"]).config
    entry = {"file": f"{kind}.safetensors"} | {field: getattr(config, field) for field in FIELDS}
    if kind == "llamagen":
        entry["cls_token_num"] = 1
    return entry | {"defaults": DEFAULTS[kind]}


def vq_entry(run, card):
    saved = torch.load(run / "vq.pt", map_location="cpu")
    save_file({k: v.bfloat16().contiguous() for k, v in saved["model"].items()}, card / "vq.safetensors")
    return {"file": "vq.safetensors"} | {k: list(v) if isinstance(v, tuple) else v for k, v in saved["config"].items()}


@torch.no_grad()
def write_reference(path, run, classes):
    """Inputs and outputs of the exported weights in f32 on the CPU, for checking another implementation.

    class_id [3]; tokens [3, 256]: pictures drawn from LlamaGen; pixels [3, 16, 16]: the decoded red channel, every eighth
    value in both directions; pixels_u8 [128, 128]: all of the first picture's after the 8-bit rule;
    llamagen.logits [3, 3, V / 8]: conditional logits of tokens 0, 100 and 255 after the tokens before them;
    arpg.order [256]: 0-based cells; arpg.logits [3, 3, V / 8]: conditional logits of cells order[0] (after the class
    alone), order[40] and order[41], both asked at once after one block [class, first 40 codes of the order].
    Of the logits every eighth is kept: vocabulary entries 0, 8, 16 and so on.
    """
    state = lambda kind: torch.load(run / f"{kind}.pt", map_location="cpu")
    build = lambda kind: build_model(kind, state(kind)["config"],
                                     dequantize_state(quantize_state(state(kind)["model"]))).eval()
    llamagen, arpg, vq = build("llamagen"), build("arpg"), load_vq(run / "vq.pt", "cpu")
    class_id = torch.tensor([classes.index(c) for c in ("face-smiling", "animal-bird", "food-fruit")])
    generator = torch.Generator().manual_seed(1)
    tokens = llamagen.generate(class_id, cfg=2.0, top_k=100, generator=generator)
    order = torch.randperm(256, generator=generator)
    red = vq.decode(tokens)[:, 0]
    known = torch.cat([class_id[:, None] + arpg.first_class_id, tokens[:, order[:40]]], 1)
    content = torch.cat([torch.zeros(1, dtype=torch.long), order[:40] + 1])
    caches = lambda: [Cache() for _ in range(len(arpg.layers.self_dec) + 1)]
    first = arpg(known[:, :1], content[:1], order[:1] + 1, caches())
    later = arpg(known, content, order[40:42] + 1, caches())
    save_file({
        "class_id": class_id.int(), "tokens": tokens.short(),
        "pixels": red[:, ::8, ::8].contiguous(), "pixels_u8": red[0].mul(127.5).add(128).clamp(0, 255).byte(),
        "llamagen.logits": llamagen(class_id, tokens[:, :-1])[:, [0, 100, 255], ::8].contiguous(),
        "arpg.order": order.short(), "arpg.logits": torch.cat([first, later], 1)[..., ::8].contiguous(),
    }, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder with vq.pt, llamagen.pt and arpg.pt")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--card", type=pathlib.Path, required=True)
    args = parser.parse_args()

    classes = np.load(args.data)["classes"].tolist()
    args.card.mkdir(parents=True, exist_ok=True)
    config = {
        "format": "volley.image_model/1", "name": "emoji-128", "image_size": 128, "grid": 16, "classes": classes,
        "vq": vq_entry(args.run, args.card),
        "llamagen": transformer_entry("llamagen", args.run, args.card),
        "arpg": transformer_entry("arpg", args.run, args.card),
    }
    (args.card / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    write_reference(args.card / "reference.safetensors", args.run, classes)
    total = sum(f.stat().st_size for f in args.card.iterdir())
    print(f"{total} bytes of {LIMIT}")
    if total > LIMIT:
        raise SystemExit("the folder is larger than 14 MiB")


if __name__ == "__main__":
    main()
