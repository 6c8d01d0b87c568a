"""What trained heads are worth on held-out answers: accuracy by head, and tokens a forward of chains and trees.

All of it follows from the rank of the true token among each head's guesses given the true tokens before it: guesses behind
a wrong one are never used.
"""

import torch

import draft_heads

CUTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # a chain ends before its product of probabilities falls below
# Guesses of each guess, level by level.
TREES = ((2,), (3,), (2, 1), (3, 2), (2, 1, 1), (3, 2, 1), (4, 2, 1, 1), (4, 3, 2, 1))
BATCH = 1024


@torch.no_grad()
def ranks(heads, count, rows, embed, candidate_of):
    """rank [N, heads] of the true token, large where there is none, and probability [N, heads] of the first guess."""
    rank = torch.full((len(rows), count), 1 << 30, device=rows.tokens.device)
    sure = torch.zeros(len(rows), count, device=rows.tokens.device)
    for begin in range(0, len(rows), BATCH):
        at = torch.arange(begin, min(begin + BATCH, len(rows)), device=rows.tokens.device)
        embedded = [embed(rows.tokens[(at + k).clamp_max(len(rows) - 1)]) for k in range(count)]
        for i in range(count):
            scores = draft_heads.logits(heads, i, rows.hidden[at].float(), embedded).float()
            sure[at, i] = scores.softmax(-1).amax(-1)
            target = candidate_of[rows.tokens[(at + i + 1).clamp_max(len(rows) - 1)]]
            known = (target >= 0) & (rows.left[at] > i)
            own = scores.gather(1, target.clamp_min(0)[:, None])
            rank[at, i] = torch.where(known, (scores > own).sum(1), rank[at, i])
    return rank, sure


def walk(rows, accepted):
    """Tokens a forward when row n's forward yields 1 + accepted[n] tokens, up to the answer's end."""
    left, accepted = rows.left.tolist(), accepted.tolist()
    forwards = tokens = at = 0
    visited = []
    while at < len(left):
        step = min(1 + accepted[at], 1 + left[at])
        visited.append(at)
        forwards, tokens, at = forwards + 1, tokens + step, at + step
    return tokens / max(forwards, 1), visited


def report(heads, count, rows, embed, candidate_of):
    """Figures of one set of rows, as a dictionary for the card."""
    rank, sure = ranks(heads, count, rows, embed, candidate_of)
    figures = {"tokens": len(rows), "heads": [], "chains": [], "trees": []}
    for i in range(count):
        open_ = (rank[:, :i] == 0).all(1) & (rows.left > i)  # all earlier heads were right, and a token follows
        places = int(open_.sum())
        share = lambda k: round(float((rank[open_, i] < k).float().mean()), 4) if places else 0.0
        every = rows.left > i
        figures["heads"].append({"top1": share(1), "top5": share(5), "places": places,
                                 "top1_anywhere": round(float((rank[every, i] == 0).float().mean()), 4)})
    right = (rank == 0).int().cumprod(1)
    for cut in CUTS:
        drafted = (sure.cumprod(1) >= cut).int().cumprod(1)
        tokens, visited = walk(rows, (right * drafted).sum(1))
        sent = float(drafted.sum(1)[visited].float().mean())
        figures["chains"].append(
            {"cut": cut, "tokens_per_forward": round(tokens, 3), "rows_per_forward": round(1 + sent, 2)})
    for widths in TREES:
        if len(widths) > count:
            continue
        inside = torch.stack([rank[:, i] < w for i, w in enumerate(widths)], 1).int().cumprod(1).sum(1)
        nodes = 1 + sum(torch.tensor(widths[: i + 1]).prod().item() for i in range(len(widths)))
        figures["trees"].append(
            {"widths": widths, "tokens_per_forward": round(walk(rows, inside)[0], 3), "rows_per_forward": nodes})
    return figures


def lines(figures):
    """The figures as text; of chains and trees, tokens and rows a forward."""
    head = "head {}: top-1 {top1:.1%} top-5 {top5:.1%} of {places}"
    yield "  ".join(head.format(i, **h) for i, h in enumerate(figures["heads"]))
    chain = "{cut}: {tokens_per_forward:.2f}/{rows_per_forward:.1f}"
    yield "chain " + "  ".join(chain.format(**c) for c in figures["chains"])
    yield "tree  " + "  ".join(
        f"{'x'.join(map(str, t['widths']))}: {t['tokens_per_forward']:.2f}/{t['rows_per_forward']}" for t in figures["trees"])
