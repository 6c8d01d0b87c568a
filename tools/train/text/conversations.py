"""Conversations as rows of one long text, split into training and held-out ones, with the model's hidden rows."""

import dataclasses
import json
import pathlib
import platform
import random
import time

import torch

BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}


def device_words(device):
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} processor, {torch.get_num_threads()} threads"


@dataclasses.dataclass
class Conversation:
    ids: list
    turn: int  # where what the user says begins
    answer: int  # where the answer begins
    temperature: float


def read(path, vocabulary, held_out):
    """Lines of make_conversations.py -> conversations, training and held out.

    Which are held out depends on the prompt alone, so that equal prompts fall on one side, whatever file they are in.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise SystemExit(f"{path}: no such file")
    sides, turn = ([], []), len(vocabulary.encode(vocabulary.chat["user"]))
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            ask, answer = vocabulary.ask(entry["prompt"]), entry["answer"]
            if not all(isinstance(t, int) and 0 <= t < len(vocabulary.tokens) for t in answer):
                raise ValueError
            item = Conversation(ask + answer, turn, len(ask), float(entry["temperature"]))
        except (ValueError, KeyError, TypeError):
            raise SystemExit(f"{path}:{number}: not a line of make_conversations.py") from None
        sides[random.Random(entry["prompt"]).random() < held_out].append(item)
    if held_out < 1 and not (sides[0] and sides[1]):
        raise SystemExit(f"{path}: {len(sides[0])} conversations to train on and {len(sides[1])} held out; more are needed")
    return {"train": sides[0], "held_out": sides[1]}


class Rows:
    """Conversations one behind the other; N rows, one for each token that stands before a token of interest.

    hidden [N, C]: behind the model's last norm; tokens [N]: the token that follows this row's, which the model's own head
    predicts; left [N]: how many tokens of the conversation follow that one; greedy [N]: it was made at temperature 0.
    """

    def __init__(self, hidden, tokens, left, greedy):
        self.hidden, self.tokens, self.left, self.greedy = hidden, tokens, left, greedy

    def __len__(self):
        return len(self.tokens)

    def map(self, change):
        return Rows(*map(change, (self.hidden, self.tokens, self.left, self.greedy)))


@torch.no_grad()
def compute_rows(model, conversations, whole, device, say):
    """Runs the model over all conversations, alike lengths together; hidden rows are kept in f16 on the host.

    whole: rows of the user's turns, too; else of answers alone.
    """
    order = sorted(conversations, key=lambda c: len(c.ids))
    budget = BATCH_TOKENS.get(torch.device(device).type, 2048)
    made, begin, started, told = [], 0, time.monotonic(), time.monotonic()
    while begin < len(order):
        end = begin + 1
        while end < len(order) and (end + 1 - begin) * len(order[end].ids) <= budget:
            end += 1
        batch = order[begin:end]
        longest = max(len(c.ids) for c in batch)
        padded = torch.tensor([c.ids + [0] * (longest - len(c.ids)) for c in batch], device=device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device != "cpu"):
            hidden = model.hidden(padded).half().cpu()
        for states, c in zip(hidden, batch):
            first = c.turn if whole else c.answer
            count = len(c.ids) - first
            made.append((states[first - 1 : len(c.ids) - 1].clone(), torch.tensor(c.ids[first:]),
                         torch.arange(count - 1, -1, -1), torch.full((count,), c.temperature == 0)))
        begin = end
        if time.monotonic() - told > 20 or begin == len(order):
            told = time.monotonic()
            say(f"{told - started:6.1f} s  hidden rows of {begin} of {len(order)} conversations")
    return Rows(*map(torch.cat, zip(*made)))


def cached_rows(path, sides, make):
    """Rows of both sides from the file `path`, or made by make(conversations, whole) and kept there."""
    whole = {"train": True, "held_out": False}
    if path and path.is_file():
        saved = torch.load(path, map_location="cpu")
        rows = {side: Rows(*saved[side]) for side in saved}
        for side, made in sides.items():
            if len(rows[side]) != sum(len(c.ids) - (c.turn if whole[side] else c.answer) for c in made):
                raise SystemExit(f"{path}: made from other conversations; remove it")
        return rows
    rows = {side: make(made, whole[side]) for side, made in sides.items()}
    if path:
        torch.save({side: (r.hidden, r.tokens, r.left, r.greedy) for side, r in rows.items()}, path)
    return rows
