"""Batched sampling with the torch network; what make_conversations.py uses on a GPU."""

import torch

import network
from vocabulary import Vocabulary

BATCH = 2048  # prompts at a time: a step then costs more than launching it
TURN_LIMIT = 128  # tokens of a user turn


class Generator:
    """Each method returns (token ids, text, ended) a prompt."""

    def __init__(self, folder, device):
        network.check_device(device)
        dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
        self.model, self.vocabulary, self.device = network.load(folder, device, dtype), Vocabulary(folder), device

    def turns(self, count, seed, head):
        return self.run([self.vocabulary.encode(head)] * count, seed, 1.0, TURN_LIMIT)

    def answers(self, prompts, seed, temperature, limit):
        return self.run([self.vocabulary.ask(text) for text in prompts], seed, temperature, limit)

    def run(self, prompts, seed, temperature, limit):
        made = []
        for begin in range(0, len(prompts), BATCH):
            generator = torch.Generator(self.device).manual_seed(seed + begin)
            made += self.batch(prompts[begin : begin + BATCH], generator, temperature, limit)
        return [(ids, self.vocabulary.decode(ids), ids[-1:] == [self.vocabulary.end]) for ids in made]

    @torch.no_grad()
    def batch(self, prompts, generator, temperature, limit):
        """Prompts are padded behind their ends; padding is overwritten in the cache before anything sees it."""
        model, end = self.model, self.vocabulary.end
        lengths = torch.tensor([len(p) for p in prompts], device=self.device)
        longest = int(lengths.max())
        places = longest + limit
        if places > model.config.max_position_embeddings:
            raise SystemExit(f"a prompt of {longest} tokens and {limit} more are too long for the model")
        tokens = torch.tensor([p + [end] * (longest - len(p)) for p in prompts], device=self.device)
        like = model.model.norm.weight
        caches = [network.Cache(len(prompts), model.config, places, like) for _ in model.model.layers]
        slot = torch.arange(places, device=self.device)
        at = torch.arange(longest, device=self.device).expand_as(tokens)
        hidden = model.hidden(tokens, at, slot <= at[:, None, :, None], caches)
        hidden = hidden[torch.arange(len(prompts), device=self.device), lengths - 1]
        rows, done = [], torch.zeros_like(lengths, dtype=torch.bool)
        for step in range(limit):
            token = choose(model.logits(hidden).float(), temperature, generator)
            rows.append(token.masked_fill(done, -1))
            done |= token == end
            if step % 16 == 15 and bool(done.all()):
                break
            at = (lengths + step)[:, None]
            hidden = model.hidden(token[:, None], at, slot <= at[:, None, :, None], caches)[:, 0]
        return [[t for t in row if t >= 0] for row in torch.stack(rows, 1).tolist()]


def choose(logits, temperature, generator):
    """[B, V] -> [B]; temperature 0 is greedy."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
