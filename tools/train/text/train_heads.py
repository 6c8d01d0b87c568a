"""Trains draft heads on text that the model made: `python3 train_heads.py --model DIR --data conversations.jsonl --kind hydra
--out heads --seconds 240`. The model is frozen and runs once over the text; --rows FILE keeps what it gave for the next run.

A head learns the model's own distribution (--loss kl) or the text's tokens (--loss ce) at its distance, of user turns, too;
its share of the loss is 0.8^i. With --four-bits weights are rounded to q4_1 in every step, for heads that will be kept so. It
guesses among the --vocab most frequent tokens of the training text. With --sampled N each
step looks at N or so candidates: those of the batch, the most frequent ones, and some at random; that is for a CPU. Held out
are answers to prompts that training does not see. The weights are averages over the run.
"""

import argparse
import pathlib
import sys
import time

import torch
import torch.nn.functional as F

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

import conversations
import draft_heads
import head_report
import network
from training import Trainer, compiled_on, count_parameters
from vocabulary import Vocabulary

DECAY = 0.8  # weight of a head's loss beside the one before it


def candidates(text, size, vocab, ids=None):
    """Ids of the most frequent tokens, increasing, and those tokens' candidate numbers from the most frequent on.

    A short text has fewer different tokens; the vocabulary's first ones follow, which merges made the common ones.
    ids: chosen before, by the heads that a run goes on from.
    """
    count = torch.bincount(torch.tensor(text), minlength=vocab)
    if ids is not None:
        return ids, count[ids].argsort(descending=True, stable=True)
    chosen = count.argsort(descending=True, stable=True)[:size]
    ids = chosen.sort().values
    return ids, torch.searchsorted(ids, chosen)


class Loss:
    """Weighted cross-entropy of all heads for one batch of row numbers."""

    def __init__(self, heads, count, rows, embed, target_ids, by_frequency, args):
        self.heads, self.count, self.rows, self.embed = heads, count, rows, embed
        self.target_ids, self.by_frequency = target_ids, by_frequency
        self.sampled, self.kind = args.sampled, args.loss
        self.candidate_of = torch.full((embed.num_embeddings,), -1, device=target_ids.device)
        self.candidate_of[target_ids] = torch.arange(len(target_ids), device=target_ids.device)

    def subset(self, targets):
        if not self.sampled:
            return None
        half = self.sampled // 2
        some = torch.randint(len(self.target_ids), (half,), device=targets.device)
        return torch.cat([targets[targets >= 0], self.by_frequency[:half], some]).unique()

    def __call__(self, at):
        rows = self.rows
        place = [(at + k).clamp_max(len(rows) - 1) for k in range(self.count + 1)]
        embedded = [self.embed(rows.tokens[p]) for p in place[: self.count]]
        targets = torch.stack([self.candidate_of[rows.tokens[p]] for p in place[1:]])  # [heads, B]
        subset = self.subset(targets)
        ids = self.target_ids if subset is None else self.target_ids[subset]
        if subset is not None:
            targets = torch.where(targets >= 0, torch.searchsorted(subset, targets), targets)
        hidden, total = rows.hidden[at].float(), 0.0
        for i in range(self.count):
            scores = draft_heads.logits(self.heads, i, hidden, embedded, subset).float()
            inside = rows.left[at] > i
            if self.kind == "ce":
                loss = F.cross_entropy(scores, targets[i].clamp_min(0), reduction="none")
                inside = inside & (targets[i] >= 0)
            else:
                with torch.no_grad():  # what the model itself says at the place of the guess
                    teacher = F.linear(rows.hidden[place[i + 1]].to(self.embed.weight.dtype), self.embed.weight[ids]).float()
                loss = -(teacher.softmax(-1) * scores.log_softmax(-1)).sum(-1)
            total = total + DECAY**i * (loss * inside).sum() / inside.sum().clamp_min(1)
        return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of convert.py")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="conversations.jsonl")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--rows", type=pathlib.Path, help="file for the model's hidden rows")
    parser.add_argument("--resume", type=pathlib.Path, help="folder of heads to go on from, under a fresh schedule")
    parser.add_argument("--kind", choices=draft_heads.KINDS, default="hydra")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--layers", type=int, default=1, help="blocks of a head")
    parser.add_argument("--vocab", type=int, default=8192, help="candidates")
    parser.add_argument("--loss", choices=["kl", "ce"], default="kl")
    parser.add_argument("--sampled", type=int, default=0, help="candidates of a step; 0: all")
    parser.add_argument("--four-bits", action="store_true", help="train and report what is left of the weights as q4_1")
    parser.add_argument("--freeze-output", action="store_true", help="output layers stay the model's rows")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--held-out", type=float, default=0.08, help="share of conversations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    if args.heads < 1 or args.layers < 1 or args.batch < 1:
        raise SystemExit("--heads, --layers and --batch must be at least 1")
    network.check_device(args.device)

    begin = time.monotonic()
    say = lambda text: print(text, flush=True)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    device = args.device
    vocabulary = Vocabulary(args.model)
    if not 1 <= args.vocab <= len(vocabulary.tokens):
        raise SystemExit(f"--vocab {args.vocab}: the model has {len(vocabulary.tokens)} tokens")
    sides = conversations.read(args.data, vocabulary, args.held_out)
    model = network.load(args.model, device)
    dim = model.config.hidden_size
    compute = lambda made, whole: conversations.compute_rows(model, made, whole, device, say)
    rows = conversations.cached_rows(args.rows, sides, compute)
    rows = {side: r.map(lambda t: t.to(device)) for side, r in rows.items()}
    model_seconds = time.monotonic() - begin

    embed = model.model.embed_tokens
    text = [t for c in sides["train"] for t in c.ids[c.turn :]]
    resumed = draft_heads.load(args.resume) if args.resume else None
    chosen = resumed.pop("d2t") if resumed else None
    target_ids, by_frequency = (t.to(device) for t in candidates(text, args.vocab, embed.num_embeddings, chosen))
    heads = draft_heads.KINDS[args.kind](args.heads, args.layers, dim, embed.weight[target_ids].float()).to(device)
    if resumed:
        try:
            heads.load_state_dict(resumed)
        except RuntimeError:
            raise SystemExit(f"{args.resume}: other heads than --kind, --heads and --layers say") from None
    if args.freeze_output:
        for i in range(args.heads):
            heads.output(i)[0].requires_grad_(False)
    if args.four_bits:
        torch._dynamo.config.recompile_limit = 64  # weights have many shapes
        draft_heads.round_weights(heads, compiled_on(device, draft_heads.four_bits))
    trainer = Trainer(heads, args.lr, weight_decay=0.01, seconds=args.seconds, warmup_steps=args.warmup, ema=0.995)
    loss = Loss(heads, args.heads, rows["train"], embed, target_ids, by_frequency, args)
    covered = float((loss.candidate_of[rows["held_out"].tokens] >= 0).float().mean())
    say(f"{len(rows['train'])} rows to train on, {len(rows['held_out'])} held out; {covered:.2%} of held-out tokens are "
        f"candidates; {count_parameters(heads)} parameters")

    usable = (rows["train"].left > 0).nonzero().flatten()
    order, at, share = usable[:0], 0, 0.2
    while trainer.running():
        if at + args.batch > len(order):
            order, at = usable[torch.randperm(len(usable), device=device)], 0
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device != "cpu"):
            value = loss(order[at : at + args.batch])
        trainer.step(value)
        at += args.batch
        if trainer.share >= share:
            share = trainer.share + 0.2
            figures = head_report.report(trainer.averaged, args.heads, rows["held_out"], embed, loss.candidate_of)
            say(trainer.line() + "\n  " + "\n  ".join(head_report.lines(figures)))

    held_out = rows["held_out"]
    figures = {}
    for name, keep in (("greedy", held_out.greedy), ("temperature 0.8", ~held_out.greedy)):
        part = held_out.map(lambda t: t[keep])
        figures[name] = head_report.report(trainer.averaged, args.heads, part, embed, loss.candidate_of)
        say(f"{name}\n  " + "\n  ".join(head_report.lines(figures[name])))
    config = {"kind": args.kind, "heads": args.heads, "layers": args.layers, "dim": dim, "vocab": args.vocab,
              "target_vocab": embed.num_embeddings, "base_model": vocabulary.base_model}
    config |= draft_heads.published_config(args.kind, args.heads, args.layers, vocabulary.base_model)
    card = {"arguments": {k: str(v) if isinstance(v, pathlib.Path) else v for k, v in vars(args).items()},
            "device": conversations.device_words(device), "torch": torch.__version__,
            "seconds": {"model": round(model_seconds, 1), "all": round(time.monotonic() - begin, 1)},
            "steps": trainer.steps, "conversations": {side: len(made) for side, made in sides.items()},
            "rows": {side: len(r) for side, r in rows.items()}, "held_out_tokens_covered": round(covered, 4),
            "held_out": figures}
    draft_heads.save(args.out, trainer.averaged, target_ids, config, card)


if __name__ == "__main__":
    main()
