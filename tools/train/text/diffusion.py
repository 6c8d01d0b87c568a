"""Masked diffusion on answers: some places are hidden, the network sees all others and guesses them.

Ref: Nie et al. 2025, "Large Language Diffusion Models" (LLaDA: loss over t, equation 3; the estimate with exactly l hidden
places, equation 6); Gong et al. 2025, "Scaling Diffusion Language Models via Adaptation from Autoregressive Models"
(DiffuLLaMA: annealed attention, shifted logits).

Shapes: B conversations, T tokens.
"""

import torch
import torch.nn.functional as F

LEAST = 1e-3  # smallest t


class Batch:
    """Conversations padded behind their ends with the end token. tokens [B, T]; answer [B, T]: places that may be hidden,
    padding included where `padding` says so (a model learns to end so); real [B, T]: places that exist."""

    def __init__(self, conversations, end, device, padding):
        longest = max(len(c.ids) for c in conversations)
        self.tokens = torch.tensor([c.ids + [end] * (longest - len(c.ids)) for c in conversations], device=device)
        place = torch.arange(longest, device=device)
        first = torch.tensor([c.answer for c in conversations], device=device)[:, None]
        length = torch.tensor([len(c.ids) for c in conversations], device=device)[:, None]
        self.real = (place < length) | padding
        self.answer = (place >= first) & self.real


def attention_mask(real, opened):
    """bool [B, 1, T, T]: all real places, of later ones only a share `opened`, drawn anew each time."""
    batch, places = real.shape
    seen = real[:, None, None, :].expand(batch, 1, places, places)
    if opened >= 1:
        return seen
    earlier = torch.ones(places, places, dtype=torch.bool, device=real.device).tril()
    return seen & (earlier | (torch.rand(batch, 1, places, places, device=real.device) < opened))


def guess_losses(model, batch, hidden_places, mask_id, shift, opened=1.0):
    """Cross-entropy of each hidden place, [count], and the conversation that it belongs to, [count]."""
    seen = batch.tokens.masked_fill(hidden_places, mask_id)
    states = model.hidden(seen, mask=attention_mask(batch.real, opened))
    row, place = hidden_places.nonzero(as_tuple=True)
    states = states[row, place - 1 if shift else place]
    return F.cross_entropy(model.logits(states).float(), batch.tokens[row, place], reduction="none"), row


def training_loss(model, batch, mask_id, shift, opened):
    """1/t over hidden places, by answer length. One t a conversation, spread evenly over the batch."""
    count = len(batch.tokens)
    spread = (torch.arange(count, device=batch.tokens.device) + torch.rand((), device=batch.tokens.device)) / count
    t = (LEAST + (1 - LEAST) * spread)[torch.randperm(count, device=batch.tokens.device), None]
    hidden_places = batch.answer & (torch.rand(batch.tokens.shape, device=batch.tokens.device) < t)
    losses, row = guess_losses(model, batch, hidden_places, mask_id, shift, opened)
    weight = 1 / (t[:, 0] * batch.answer.sum(1))
    return (losses * weight[row]).sum() / count


@torch.no_grad()
def held_out_bound(model, conversations, end, mask_id, shift, device, samples, batch_size):
    """Upper bound of the loss in nats a token: l of an answer's L places are hidden, l spread evenly over 1 .. L."""
    generator = torch.Generator().manual_seed(0)
    total = count = 0.0
    for begin in range(0, len(conversations), batch_size):
        batch = Batch(conversations[begin : begin + batch_size], end, device, padding=False)
        length = batch.answer.sum(1)
        for sample in range(samples):
            share = (sample + torch.rand(len(length), generator=generator)) / samples
            hide = (share.to(device) * length).long().clamp_max(length - 1) + 1
            chance = torch.rand(batch.tokens.shape, generator=generator).to(device).masked_fill(~batch.answer, 2.0)
            hidden_places = batch.answer & (chance.argsort(1).argsort(1) < hide[:, None])
            losses, row = guess_losses(model, batch, hidden_places, mask_id, shift)
            total += float((losses * (length / hide)[row]).sum()) / samples
        count += float(length.sum())
    return total / count


@torch.no_grad()
def sequential_loss(model, conversations, end, device, batch_size):
    """Nats a token of the same answers by the causal model."""
    total = count = 0.0
    for begin in range(0, len(conversations), batch_size):
        batch = Batch(conversations[begin : begin + batch_size], end, device, padding=False)
        row, place = batch.answer.nonzero(as_tuple=True)
        states = model.hidden(batch.tokens)[row, place - 1]
        total += float(F.cross_entropy(model.logits(states).float(), batch.tokens[row, place], reduction="sum"))
        count += len(row)
    return total / count
