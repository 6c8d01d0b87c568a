"""Prints the card's numbers: VQ PSNR, and nats per token before and after q8_0: `python3 evaluate.py --run DIR --data
emoji.npz --device cpu`. One picture per base emoji; training pictures are every fifth of them."""

import argparse
import pathlib

import torch

from emoji_dataset import EmojiSet
from quant import dequantize_state, quantize_state
from train_tokens import KINDS, build_model, nats, one_per_base
from train_vq import psnr
from vq_model import load_vq


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--stride", type=int, default=5, help="of the training pictures")
    args = parser.parse_args()

    data = EmojiSet(args.data, args.device)
    parts = {
        "training": one_per_base(data, (~data.held_out).nonzero().flatten())[::args.stride],
        "held out": one_per_base(data, data.held_out.nonzero().flatten()),
    }
    vq = load_vq(args.run / "vq.pt", args.device)
    tokens = torch.zeros(len(data.images), 256, dtype=torch.long, device=args.device)
    for name, index in parts.items():
        value, codes = psnr(vq, data, index)
        tokens[index] = codes
        print(f"vq {name}: {value:.2f} dB over {len(index)} pictures, {len(codes.unique())} codes", flush=True)
    for kind in KINDS:
        saved = torch.load(args.run / f"{kind}.pt", map_location=args.device)
        for label, state in (("f16", saved["model"]), ("q8_0", dequantize_state(quantize_state(saved["model"])))):
            model = build_model(kind, saved["config"], state).to(args.device).eval()
            scores = {name: nats(model, data, tokens, index, orders=2) for name, index in parts.items()}
            print(f"{kind} {label}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()), flush=True)


if __name__ == "__main__":
    main()
