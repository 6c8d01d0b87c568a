"""Makes a masked-diffusion model of a causal one: `python3 adapt_diffusion.py --model DIR --data conversations.jsonl --out
folder --seconds 400`. All places see each other, an unused token stands for a hidden place, and answers are learned by
LLaDA's loss. Over the first --anneal of the run later places come into sight little by little. The folder is in LLaDA's
layout, which `volley text -m folder` reads.

Reported on held-out answers, in nats a token: the diffusion model's bound, the causal model's loss, and an interpolated
Kneser-Ney n-gram model of the training conversations. With --shift a place is predicted by the row before it, as the causal
model did (Dream, DiffuLLaMA); such a folder is not LLaDA's, and says so.
"""

import argparse
import pathlib
import sys
import time

import torch

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

import conversations
import diffusion
import llada_export
import network
from ngram import NGram
from training import Trainer, count_parameters
from vocabulary import Vocabulary


def batches(items, tokens, generator):
    """Endless batches of about `tokens` places, alike lengths together."""
    while True:
        order = torch.randperm(len(items), generator=generator).tolist()
        for begin in range(0, len(order), 512):  # sorted within a stretch, so that batches differ between passes
            stretch = sorted(order[begin : begin + 512], key=lambda i: len(items[i].ids))
            parts, at = [], 0
            while at < len(stretch):
                end = at + 1
                while end < len(stretch) and (end + 1 - at) * len(items[stretch[end]].ids) <= tokens:
                    end += 1
                parts.append([items[i] for i in stretch[at:end]])
                at = end
            for i in torch.randperm(len(parts), generator=generator).tolist():
                yield parts[i]


def some(texts, tokens):
    """The first texts, up to so many tokens."""
    end = 0
    while end < len(texts) and tokens > 0:
        tokens -= len(texts[end])
        end += 1
    return texts[:end]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of convert.py")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="conversations.jsonl")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--mask-token", default="<reponame>", help="a token that no text has")
    parser.add_argument("--shift", action="store_true", help="row i - 1 predicts place i")
    parser.add_argument("--anneal", type=float, default=0.2, help="share of the run until all places are seen")
    parser.add_argument("--layers", type=int, default=0, help="keep the first layers alone, for a try; 0: all")
    parser.add_argument("--ngram", type=int, default=5, help="order of the floor")
    parser.add_argument("--ngram-tokens", type=int, default=4_000_000, help="of training text that the floor is fitted on")
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--batch", type=int, default=16384, help="places")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--held-out", type=float, default=0.04, help="share of conversations")
    parser.add_argument("--samples", type=int, default=8, help="of each held-out answer for the bound")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    network.check_device(args.device)

    begin = time.monotonic()
    say = lambda text: print(text, flush=True)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    device, vocabulary = args.device, Vocabulary(args.model)
    mask_id, end = vocabulary.ids.get(args.mask_token), vocabulary.end
    if mask_id is None:
        raise SystemExit(f"--mask-token {args.mask_token}: no such token")
    sides = conversations.read(args.data, vocabulary, args.held_out)
    train, held_out = sides["train"], sorted(sides["held_out"], key=lambda c: len(c.ids))
    if any(mask_id in c.ids for c in train):
        raise SystemExit(f"--mask-token {args.mask_token}: the text has it")

    model = network.load(args.model, device)
    per_batch = max(1, args.batch // 2 // max(len(c.ids) for c in held_out))
    floor_text = some([c.ids[c.turn :] for c in train], args.ngram_tokens)
    figures = {
        "sequential": diffusion.sequential_loss(model, held_out, end, device, per_batch),
        f"{args.ngram}-gram": NGram(floor_text, args.ngram, model.config.vocab_size).loss(held_out),
    }
    answers = sum(len(c.ids) - c.answer for c in held_out)
    say(f"{len(train)} conversations, {len(held_out)} held out with {answers} answer tokens")
    say("  ".join(f"{name} {value:.4f}" for name, value in figures.items()))

    if args.layers:
        del model.model.layers[args.layers :]
        model.config.num_hidden_layers = len(model.model.layers)
    model.requires_grad_(True)
    with torch.no_grad():
        table = model.model.embed_tokens.weight
        table[mask_id] = table.mean(0)
    bound = lambda network, samples: diffusion.held_out_bound(
        network, held_out, end, mask_id, args.shift, device, samples, per_batch)
    trainer = Trainer(model, args.lr, weight_decay=0.01, seconds=args.seconds, warmup_steps=args.warmup, ema=0.995)
    say(f"{count_parameters(model)} parameters; before: bound {bound(model, args.samples):.4f}")
    source = batches(train, args.batch, torch.Generator().manual_seed(args.seed))
    report = 0.1
    while trainer.running():
        batch = diffusion.Batch(next(source), end, device, padding=True)
        opened = min(1.0, trainer.share / args.anneal) if args.anneal > 0 else 1.0
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device != "cpu"):
            loss = diffusion.training_loss(model, batch, mask_id, args.shift, opened)
        trainer.step(loss)
        if trainer.share >= report:
            report = trainer.share + 0.1
            say(f"{trainer.line()}  held-out bound {bound(trainer.averaged, 2):.4f}")
    figures["diffusion, bound"] = bound(trainer.averaged, args.samples)
    say("  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    card = {"arguments": {k: str(v) if isinstance(v, pathlib.Path) else v for k, v in vars(args).items()},
            "device": conversations.device_words(device), "torch": torch.__version__,
            "seconds": round(time.monotonic() - begin, 1), "steps": trainer.steps,
            "conversations": {side: len(made) for side, made in sides.items()}, "held_out_nats_per_token": figures}
    llada_export.export(args.out, trainer.averaged, vocabulary, mask_id, args.shift, card)


if __name__ == "__main__":
    main()
