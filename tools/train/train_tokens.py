"""Trains text encoder and transformers on the codes of the VQ model: `python3 train_tokens.py --models llamagen arpg
--data emoji.npz --vq vq.pt --out DIR --seconds 240` trains all three together. With --resume DIR the weights go on from
there under a fresh schedule; with --frozen-encoder the encoder stays as it is, so that each transformer may go its own
way and both still read the same condition.

Some pictures are drawn as they are in the font; the others come from a bank of mirrored, resized, turned and shifted
copies that is encoded anew all the time. Some of the codes that a model sees (never those it is to predict) are wrong, so
that it learns to recover from its own mistakes; with --own-guesses, some are drawn from its own predictions (scheduled
sampling in parallel; Bengio et al. 2015, Mihaylova and Martins 2019), of more pictures and in more passes as the run goes
on.
"""

import argparse
import contextlib
import pathlib

import torch
from torch import nn

from arpg import ARPG, ARPGConfig
from emoji_dataset import CHANGES, EmojiSet
from llamagen import LlamaGen, LlamaGenConfig
from prompt_bank import PromptBank
from quant import dequantize_state, quantize_state
from text_encoder import TextEncoder, TextEncoderConfig, encode_ids
from training import Trainer, compiled_on, count_parameters, save_checkpoint
from vq_model import load_vq

WRONG_CODES = 0.15  # largest share of wrong codes in a picture; half of the pictures have none
NO_CONDITION = 0.1  # share of pictures learned without a condition, for guidance
KINDS = {"llamagen": (LlamaGen, LlamaGenConfig), "arpg": (ARPG, ARPGConfig), "text_encoder": (TextEncoder, TextEncoderConfig)}


class TokenBank:
    """Codes of pictures as drawn, and of `planes` changed copies of each, some of which are made anew now and then."""

    def __init__(self, vq, data, planes, changes):
        self.vq, self.data, self.device, self.changes = vq, data, data.images.device, changes
        self.encode = compiled_on(self.device.type, vq.encode)
        everything = torch.arange(len(data.images), device=self.device)
        self.drawn = torch.cat([vq.encode(data.pixels(part)).short() for part in everything.split(256)])  # [M, N]
        self.changed = self.drawn.repeat(planes, 1, 1)  # [planes, M, N]
        for plane in range(planes):
            for begin in range(0, len(everything), REFRESH):
                self.refresh(plane, everything[torch.arange(begin, begin + REFRESH, device=self.device) % len(everything)])

    @torch.no_grad()
    def refresh(self, plane, index):
        with torch.autocast(self.device.type, torch.bfloat16):
            self.changed[plane, index] = self.encode(self.data.augmented(index, changes=self.changes)).short()

    def refresh_some(self):
        plane = int(torch.randint(len(self.changed), ()))
        self.refresh(plane, self.data.draw(REFRESH))

    def draw(self, index, as_drawn):
        plane = torch.randint(len(self.changed), index.shape, device=self.device)
        keep = torch.rand(len(index), 1, device=self.device) < as_drawn
        return torch.where(keep, self.drawn[index], self.changed[plane, index]).long()


REFRESH = 256  # pictures encoded at a time
REFRESH_EVERY = 32  # steps


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


class OwnGuesses:
    """Codes of a share of the pictures replaced, up to all of them, by what a model draws where they stand.

    Each pass draws them anew, given what the last one drew, so that more passes are nearer to free sampling. Share and
    passes grow from none and one while the run passes the stretch `ramp` of its time.
    """

    def __init__(self, model, device, pictures, passes, ramp):
        self.pictures, self.passes, self.ramp = pictures, passes, ramp

        def draw(condition, shown, order):
            noise = torch.rand(*shown.shape, model.config.vocab_size, device=shown.device)
            return (model.logits(condition, shown, order) - (-noise.clamp_min(1e-20).log()).log()).argmax(-1)

        self.draw = compiled_on(device, draw, is_replayed=True)

    @torch.no_grad()
    def __call__(self, condition, seen, order, progress):
        """progress: share of the run's time that has passed."""
        begin, end = self.ramp
        grown = min(max((progress - begin) / (end - begin), 0.0), 1.0)
        if grown * self.pictures == 0:
            return seen
        chance = lambda *shape: torch.rand(*shape, device=seen.device)
        share = chance(len(seen), 1) * (chance(len(seen), 1) < grown * self.pictures)
        replaced, shown = chance(*seen.shape) < share, seen
        for _ in range(1 + int(grown * (self.passes - 1))):
            shown = torch.where(replaced, self.draw(condition, shown, order), seen)
        return shown


def build_model(kind, config, state=None):
    """A network from its configuration and, if given, its weights."""
    model_type, config_type = KINDS[kind]
    model = model_type(config_type(**config))
    if state is not None:
        model.load_state_dict({k: v.float() for k, v in state.items()})
    return model


def load_model(kind, folder, device, quantized=True):
    """A trained network from DIR/KIND.pt, by default with the q8_0 rounding that it is shipped with."""
    saved = torch.load(folder / f"{kind}.pt", map_location="cpu")
    state = dequantize_state(quantize_state(saved["model"])) if quantized else saved["model"]
    return build_model(kind, saved["config"], state).to(device).eval()


class Networks(nn.Module):
    """The encoder and the transformers trained with it."""

    def __init__(self, encoder, transformers, is_frozen):
        super().__init__()
        self.encoder, self.transformers, self.is_frozen = encoder, nn.ModuleDict(transformers), is_frozen


class Losses:
    """Mean nats per token of each transformer over a batch; what runs often is compiled, each part for itself."""

    def __init__(self, networks, device, guesses):
        """guesses: one OwnGuesses per transformer."""
        self.networks, self.guesses = networks, guesses
        self.encode = compiled_on(device, lambda *prompts: encode_ids(networks.encoder, *prompts))
        self.of = [compiled_on(device, model.losses, is_replayed=True) for model in networks.transformers.values()]

    def __call__(self, means, class_id, word_ids, tokens, seen, progress):
        """[K]; seen: the codes shown, before guesses; progress: share of the run's time that has passed."""
        with torch.no_grad() if self.networks.is_frozen else contextlib.nullcontext():
            condition = self.encode(means, class_id, word_ids)
        each = []
        for model, losses, guesses in zip(self.networks.transformers.values(), self.of, self.guesses):
            dropped = model.cls_embedding.dropped(condition, NO_CONDITION)
            order = torch.rand(tokens.shape, device=tokens.device).argsort(1)
            each.append(losses(dropped, tokens, order, guesses(dropped, seen, order, progress)).mean())
        return torch.stack(each)


@torch.no_grad()
def nats(encoder, model, prompts, kind, tokens, index, orders=4):
    """Mean nats per token of the pictures in index, asked for by prompts of that kind; for ARPG over fixed orders."""
    generator = torch.Generator(tokens.device).manual_seed(7)
    losses = []
    for _ in range(orders if model.kind == "arpg" else 1):
        for part in index.split(128):
            order = torch.rand(len(part), tokens.shape[1], device=tokens.device, generator=generator).argsort(1)
            condition = encode_ids(encoder, prompts.means, *prompts.of_kind(kind, part))
            losses.append(model.losses(condition, tokens[part].long(), order).mean(1))
    return torch.cat(losses).mean().item()


def one_per_base(data, index):
    """The first picture of every base emoji in index, so that evaluation is quick."""
    seen = {}
    for i in index.tolist():
        seen.setdefault(int(data.base_id[i]), i)
    return torch.tensor(list(seen.values()), device=index.device)


def measured_pictures(data, stride):
    """Pictures that losses are measured on: every `stride`-th base emoji trained on, and all held out."""
    return {
        "training": one_per_base(data, (data.is_emoji & ~data.held_out).nonzero().flatten())[::stride],
        "held out": one_per_base(data, data.held_out.nonzero().flatten()),
    }


def report(networks, prompts, tokens, parts, orders):
    """One line of losses: per transformer and prompt kind, training / held out."""
    out = []
    for kind, model in networks.transformers.items():
        for asked in ("name", "class"):
            scores = [nats(networks.encoder, model, prompts, asked, tokens, part, orders) for part in parts.values()]
            out.append(f"{kind} by {asked} {scores[0]:.3f} / {scores[1]:.3f}")
    return ", ".join(out)


def save_all(networks, out, steps):
    out.mkdir(parents=True, exist_ok=True)
    for kind, model in networks.transformers.items():
        save_checkpoint(out / f"{kind}.pt", model, steps=steps)
    if not networks.is_frozen:
        save_checkpoint(out / "text_encoder.pt", networks.encoder, steps=steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", choices=["llamagen", "arpg"], nargs="+", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--vq", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--muon", type=float, default=0.0, help="learning rate of Muon, see training.py")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--encoder-dropout", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--as-drawn", type=float, default=0.3, help="share of pictures not changed")
    parser.add_argument("--clip-art", type=float, default=0.3, help="share of pictures that are clip art")
    parser.add_argument("--changes", choices=CHANGES, default="any", help="how the others are changed, see emoji_dataset.py")
    parser.add_argument("--own-guesses", type=float, nargs="+", default=[0.0],
                        help="share of pictures that show a model its own guesses; one number, or one for each model")
    parser.add_argument("--passes", type=int, nargs="+", default=[1],
                        help="how often these are drawn, each time given the last ones; likewise")
    parser.add_argument("--ramp", type=float, nargs=2, default=(-1.0, 0.0), metavar=("FROM", "TO"),
                        help="shares of the time between which both grow from none and one [full from the start]")
    parser.add_argument("--planes", type=int, default=12, help="changed copies kept of every picture")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--part", type=float, nargs=2, default=(0.0, 1.0), help="stretch of the learning rate's schedule")
    parser.add_argument("--resume", type=pathlib.Path)
    parser.add_argument("--frozen-encoder", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = args.device
    data = EmojiSet(args.data, device, args.clip_art)
    vq = load_vq(args.vq, device)

    def network(kind, config, dropout):
        saved = torch.load(args.resume / f"{kind}.pt", map_location="cpu") if args.resume else None
        config = (saved["config"] if saved else config) | {"dropout": dropout}
        return build_model(kind, config, saved and saved["model"])

    def one_each(values, option):
        if len(values) not in (1, len(args.models)):
            parser.error(f"{option} takes one number, or one for each of the models")
        return values * (len(args.models) // len(values))

    encoder = network("text_encoder", {"num_classes": len(data.classes)}, args.encoder_dropout)
    if args.frozen_encoder:  # as it is shipped
        encoder.load_state_dict(dequantize_state(quantize_state(encoder.state_dict())))
        encoder = encoder.eval().requires_grad_(False)
    transformers = {kind: network(kind, {}, args.dropout) for kind in args.models}
    networks = Networks(encoder, transformers, args.frozen_encoder).to(device)
    guesses = [OwnGuesses(model, device, share, passes, args.ramp) for model, share, passes
               in zip(transformers.values(), one_each(args.own_guesses, "--own-guesses"), one_each(args.passes, "--passes"))]
    for name, model in [("text_encoder", encoder), *networks.transformers.items()]:
        print(f"{name}: {count_parameters(model)} parameters", flush=True)
    trainer = Trainer(networks, args.lr, args.weight_decay, args.seconds, part=args.part, muon=args.muon)
    prompts = PromptBank(data, encoder.config.buckets, device)
    means = prompts.means.to(torch.bfloat16 if device == "cuda" else torch.float32)
    bank = TokenBank(vq, data, args.planes, args.changes)
    print(f"{len(prompts.vocabulary.words)} words, codes of {1 + args.planes} x {len(data.images)} pictures after "
          f"{trainer.clock.elapsed():.0f} s", flush=True)

    parts = measured_pictures(data, stride=5)
    losses_of = Losses(networks, device, guesses)
    near = nearest_codes(vq)
    next_report, recent = 0.1, torch.zeros(len(args.models), device=device)
    while trainer.running():
        torch.compiler.cudagraph_mark_step_begin()
        index = data.draw(args.batch)
        tokens = bank.draw(index, args.as_drawn)
        class_id, word_ids = prompts.draw(index)
        with torch.autocast(device, torch.bfloat16):
            losses = losses_of(means, class_id, word_ids, tokens, with_wrong_codes(tokens, near), trainer.share)
        trainer.step(losses.sum())
        recent = torch.lerp(recent, losses.detach(), 0.01)
        if trainer.steps % REFRESH_EVERY == 0:
            bank.refresh_some()
        if trainer.share >= next_report:
            next_report += 0.1
            while_training = ", ".join(f"{kind} {loss:.3f}" for kind, loss in zip(args.models, recent.tolist()))
            print(f"{trainer.line()} ({while_training})  {report(trainer.averaged, prompts, bank.drawn, parts, 1)}", flush=True)
            save_all(trainer.averaged, args.out, trainer.steps)

    save_all(trainer.averaged, args.out, trainer.steps)
    for model in (trainer.averaged.encoder, *trainer.averaged.transformers.values()):
        model.load_state_dict(dequantize_state(quantize_state(model.state_dict())))
    print(f"{trainer.line()}  as q8_0: {report(trainer.averaged, prompts, bank.drawn, parts, 2)}", flush=True)


if __name__ == "__main__":
    main()
