"""Trains a transformer on the codes of the VQ model: `python3 train_tokens.py --model arpg --data emoji.npz --vq vq.pt
--out DIR --seconds 560`. With --resume CHECKPOINT the weights go on from there, under a fresh schedule.

Most pictures are drawn as they are in the font; the others come from a bank of mirrored, shrunk and shifted copies,
encoded once at the start. Some of the codes that the model sees (never those it is to predict) are wrong, so that it
learns to recover from its own mistakes.
"""

import argparse
import pathlib

import torch

from arpg import ARPG, ARPGConfig
from emoji_dataset import EmojiSet
from llamagen import LlamaGen, LlamaGenConfig
from quant import dequantize_state, quantize_state
from training import SHOWN, Trainer, compiled_on, count_parameters, save_checkpoint, save_grid
from vq_model import load_vq

WRONG_CODES = 0.15  # largest share of wrong codes in a picture; half of the pictures have none
KINDS = {"llamagen": (LlamaGen, LlamaGenConfig), "arpg": (ARPG, ARPGConfig)}


@torch.no_grad()
def token_bank(vq, data, copies):
    """Codes of all pictures, [1 + copies, M, N] int16; plane 0 holds the pictures as they are."""
    everything = torch.arange(len(data.images), device=data.images.device)
    planes = []
    for plane in range(1 + copies):
        pictures = (data.augmented(part) if plane else data.pixels(part) for part in everything.split(256))
        planes.append(torch.cat([vq.encode(p).short() for p in pictures]))
    return torch.stack(planes)


@torch.no_grad()
def nearest_codes(vq, count=16):
    """[V, count]: the codes closest in angle to each, itself excepted."""
    codes = vq.quantize.codes()
    return (codes @ codes.T).topk(count + 1).indices[:, 1:]


def with_wrong_codes(tokens, near):
    """Some codes replaced: two in three by a near code, the others by the code that another picture has there."""
    batch, cells = tokens.shape
    chance = lambda *shape: torch.rand(*shape, device=tokens.device)
    share = WRONG_CODES * chance(batch, 1) * (chance(batch, 1) < 0.5)
    close = near[tokens, torch.randint(near.shape[1], (batch, cells), device=tokens.device)]
    wrong = torch.where(chance(batch, cells) < 2 / 3, close, tokens.roll(1, 0))
    return torch.where(chance(batch, cells) < share, wrong, tokens)


def build_model(kind, config, state=None):
    """A transformer from its configuration and, if given, its weights."""
    model_type, config_type = KINDS[kind]
    model = model_type(config_type(**config))
    if state is not None:
        model.load_state_dict({k: v.float() for k, v in state.items()})
    return model


@torch.no_grad()
def nats(model, data, tokens, index, orders=4):
    """Mean nats per token of the pictures in index; for ARPG over `orders` fixed random orders."""
    generator = torch.Generator(tokens.device).manual_seed(7)
    losses = []
    for _ in range(orders if model.kind == "arpg" else 1):
        for part in index.split(128):
            order = torch.rand(len(part), tokens.shape[1], device=tokens.device, generator=generator).argsort(1)
            losses.append(model.losses(data.class_id[part], tokens[part].long(), order).mean(1))
    return torch.cat(losses).mean().item()


def one_per_base(data, index):
    """The first picture of every base emoji in index, so that evaluation is quick."""
    seen = {}
    for i in index.tolist():
        seen.setdefault(int(data.base_id[i]), i)
    return torch.tensor(list(seen.values()), device=index.device)


@torch.no_grad()
def sample_grid(path, model, vq, classes, columns=10, seed=0, **settings):
    """A PNG with a row of samples for every subgroup in SHOWN."""
    device = model.rope.device
    class_id = torch.tensor([classes.index(s) for s in SHOWN], device=device).repeat_interleave(columns)
    generator = torch.Generator(device).manual_seed(seed)
    tokens = model.generate(class_id, generator=generator, **settings)
    save_grid(path, torch.cat([vq.decode(part) for part in tokens.split(32)]), columns, shrink_to=96)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=KINDS, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--vq", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--as-drawn", type=float, default=0.75, help="share of pictures not mirrored, shrunk or shifted")
    parser.add_argument("--copies", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--resume", type=pathlib.Path)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = args.device
    data = EmojiSet(args.data, device)
    vq = load_vq(args.vq, device)
    saved = torch.load(args.resume, map_location=device) if args.resume else None
    config = saved["config"] if saved else {"num_classes": len(data.classes)}
    model = build_model(args.model, config, saved and saved["model"]).to(device)
    trainer = Trainer(model, args.lr, weight_decay=0.03, seconds=args.seconds)
    print(f"{args.model}: {count_parameters(model)} parameters", flush=True)
    bank = token_bank(vq, data, args.copies)
    print(f"codes of {bank.shape[0]} x {bank.shape[1]} pictures after {trainer.clock.elapsed():.0f} s", flush=True)

    train = one_per_base(data, (~data.held_out).nonzero().flatten())[::5]
    held_out = one_per_base(data, data.held_out.nonzero().flatten())
    losses_of = compiled_on(device, model.losses)
    near = nearest_codes(vq)
    report = 0.125
    while trainer.running():
        index = data.draw(args.batch)
        plane = torch.randint(1, bank.shape[0], (args.batch,), device=device)
        plane = torch.where(torch.rand(args.batch, device=device) < args.as_drawn, 0, plane)
        tokens = bank[plane, index].long()
        with torch.autocast(device, torch.bfloat16):
            loss = losses_of(data.class_id[index], tokens, seen=with_wrong_codes(tokens, near))
        trainer.step(loss.mean())
        if trainer.share >= report:
            report += 0.125
            scores = [nats(trainer.averaged, data, bank[0], part) for part in (train, held_out)]
            print(f"{trainer.line()}  nats: training {scores[0]:.3f}, held out {scores[1]:.3f}", flush=True)

    args.out.mkdir(parents=True, exist_ok=True)
    best = trainer.averaged
    save_checkpoint(args.out / f"{args.model}.pt", best, steps=trainer.steps)
    best.load_state_dict(dequantize_state(quantize_state(best.state_dict())))
    scores = [nats(best, data, bank[0], part) for part in (train, held_out)]
    print(f"{trainer.line()}  as q8_0: training {scores[0]:.3f}, held out {scores[1]:.3f}", flush=True)
    sample_grid(args.out / f"{args.model}.png", best, vq, data.classes, cfg=2.0, top_k=300)


if __name__ == "__main__":
    main()
