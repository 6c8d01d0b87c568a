"""Draws the same subgroups under several sampling settings, to choose defaults by eye: `python3 compare_settings.py
--checkpoint arpg.pt --vq vq.pt --data emoji.npz --out arpg_settings.png '{"cfg": 3, "steps": 64}' '{"cfg": 2}'`.

Every setting is a block of columns; weights are used as they ship, rounded to q8_0.
"""

import argparse
import json
import pathlib

import torch

from emoji_dataset import EmojiSet
from quant import dequantize_state, quantize_state
from training import SHOWN, save_grid
from train_tokens import build_model
from vq_model import load_vq

COLUMNS = 5


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--vq", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("settings", type=json.loads, nargs="+")
    args = parser.parse_args()

    classes = EmojiSet(args.data, "cpu").classes
    saved = torch.load(args.checkpoint, map_location=args.device)
    state = dequantize_state(quantize_state(saved["model"]))
    model = build_model(args.checkpoint.stem.split("_")[0], saved["config"], state).to(args.device).eval()
    vq = load_vq(args.vq, args.device)
    class_id = torch.tensor([classes.index(s) for s in SHOWN], device=args.device).repeat_interleave(COLUMNS)
    blocks = []
    for setting in args.settings:
        generator = torch.Generator(args.device).manual_seed(args.seed)
        tokens = model.generate(class_id, generator=generator, **setting)
        pixels = torch.cat([vq.decode(part).cpu() for part in tokens.split(40)])
        blocks.append(pixels.unflatten(0, (len(SHOWN), COLUMNS)))
    save_grid(args.out, torch.cat(blocks, 1).flatten(0, 1), COLUMNS * len(blocks), shrink_to=80)


if __name__ == "__main__":
    main()
