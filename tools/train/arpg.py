"""ARPG: image codes in any order, several at a time.

Pass 1 is a causal transformer over the codes known so far, each at its own position. Pass 2 holds one query per code to
predict, placed at the target's position, that attends the keys and values of pass 1; all its layers share one K and V.
Parameter names are the published ones, and LlamaGen's for the condition: its row comes from a text encoder, not from the
table of codes.
Ref: Li et al. 2025, "Autoregressive Image Generation with Randomized Parallel Decoding" (hp-l33/ARPG, models/arpg.py).
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn

from blocks import (Cache, CaptionEmbedding, FeedForward, RMSNorm, attend, guided_sample, init_weights, linear,
                    rope_table, rotate)


@dataclasses.dataclass
class ARPGConfig:
    caption_dim: int = 128
    dim: int = 256
    n_layer: int = 8
    n_head: int = 8
    ffn_dim: int = 320
    vocab_size: int = 2048
    block_size: int = 256
    dropout: float = 0.1  # of embeddings and of both residual branches, while training


class SelfAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.n_head, self.dropout = c.n_head, nn.Dropout(c.dropout)
        self.to_q, self.to_k, self.to_v, self.proj = (linear(c.dim, c.dim) for _ in range(4))

    def forward(self, x, rope, cache):
        q, k, v = (f(x).unflatten(-1, (self.n_head, -1)) for f in (self.to_q, self.to_k, self.to_v))
        q, k = rotate(q, rope), rotate(k, rope)
        if cache is not None:
            k, v = cache.extend(k, v)
        # With a cache the new codes form one block: they see the past and each other.
        return self.dropout(self.proj(attend(q, k, v, causal=cache is None)))


class CrossAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.n_head, self.dropout = c.n_head, nn.Dropout(c.dropout)
        self.to_q, self.proj = linear(c.dim, c.dim), linear(c.dim, c.dim)

    def forward(self, x, k, v, rope, causal):
        q = rotate(self.to_q(x).unflatten(-1, (self.n_head, -1)), rope)
        return self.dropout(self.proj(attend(q, k, v, causal)))


class Layer(nn.Module):
    def __init__(self, c, attention):
        super().__init__()
        self.attn, self.ffn = attention(c), FeedForward(c.dim, c.ffn_dim, c.dropout)
        self.attn_norm, self.ffn_norm = RMSNorm(c.dim), RMSNorm(c.dim)

    def forward(self, x, *args):
        x = x + self.attn(self.attn_norm(x), *args)
        return x + self.ffn(self.ffn_norm(x))


class Layers(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.n_head = c.n_head
        self.self_dec = nn.ModuleList(Layer(c, SelfAttention) for _ in range(c.n_layer // 2))
        self.cross_dec = nn.ModuleList(Layer(c, CrossAttention) for _ in range(c.n_layer // 2))
        self.norm, self.to_k, self.to_v = RMSNorm(c.dim), linear(c.dim, c.dim), linear(c.dim, c.dim)

    def forward(self, x, queries, content_rope, target_rope, caches=None):
        """x: known codes [B, T, C]; queries: [B, Q, C]; caches: one per pass-1 layer and one for the shared K and V."""
        for i, layer in enumerate(self.self_dec):
            x = layer(x, content_rope, caches[i] if caches else None)
        x = self.norm(x)
        k, v = (f(x).unflatten(-1, (self.n_head, -1)) for f in (self.to_k, self.to_v))
        k = rotate(k, content_rope)
        if caches:
            k, v = caches[-1].extend(k, v)
        for layer in self.cross_dec:
            queries = layer(queries, k, v, target_rope, caches is None)
        return queries


class ARPG(nn.Module):
    kind = "arpg"

    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.embeddings = nn.Embedding(c.vocab_size + 1, c.dim)  # codes, then the mask
        self.cls_embedding = CaptionEmbedding(c)
        self.mask_id = c.vocab_size
        self.layers = Layers(c)
        self.dropout = nn.Dropout(c.dropout)
        self.norm, self.head = RMSNorm(c.dim), linear(c.dim, c.vocab_size)
        self.register_buffer("rope", rope_table(int(c.block_size**0.5), c.dim // c.n_head), persistent=False)
        init_weights(self, self.head)

    def forward(self, rows, content, target, caches=None):
        """rows: [B, T, C], of the condition or embedded codes, at positions `content`; logits [B, Q, V] for positions
        `target`.

        Positions count from 0 for the condition, so a cell is 1 + its raster index; [T] or [B, T].
        """
        x = self.dropout(rows)
        queries = self.embeddings.weight[self.mask_id].expand(len(rows), target.shape[-1], -1)
        x = self.layers(x, queries, self.rope[content], self.rope[target], caches)
        return self.head(self.norm(x)).float()

    def shuffled_logits(self, condition, seen, order):
        """Logits [B, N, V] of cells order[:, 0], order[:, 1] and so on, each given the codes `seen` of the cells before."""
        target = order + 1
        content = torch.cat([torch.zeros_like(target[:, :1]), target[:, :-1]], 1)
        known = self.embeddings(seen.gather(1, order)[:, :-1])
        return self(torch.cat([self.cls_embedding(condition), known], 1), content, target)

    def logits(self, condition, seen, order):
        """The same in raster order."""
        logits = self.shuffled_logits(condition, seen, order)
        return logits.gather(1, order.argsort(1)[..., None].expand_as(logits))

    def losses(self, condition, tokens, order=None, seen=None):
        """Negative log-likelihood [B, N] in nats, given the codes `seen` (the tokens themselves unless said).

        order: [B, N], a random one per picture unless given.
        """
        if order is None:
            order = torch.rand(tokens.shape, device=tokens.device).argsort(1)
        logits = self.shuffled_logits(condition, tokens if seen is None else seen, order)
        shuffled = tokens.gather(1, order)
        return F.cross_entropy(logits.flatten(0, 1), shuffled.flatten(), reduction="none").view(tokens.shape)

    @torch.no_grad()
    def generate(self, condition, cfg, steps=32, schedule="arccos", guidance_schedule="linear", temperature=1.0,
                 top_k=0, generator=None, order=None):
        """One picture's tokens [B, N] for every condition, in one order shared by the batch."""
        batch, count, device = len(condition), self.config.block_size, condition.device
        if order is None:
            order = torch.rand(count, device=device, generator=generator).argsort()
        rows = self.cls_embedding(self.cls_embedding.with_partner(condition))
        content = torch.zeros(1, dtype=torch.long, device=device)
        caches = [Cache() for _ in range(len(self.layers.self_dec) + 1)]
        out = torch.zeros(batch, count, dtype=torch.long, device=device)
        done = 0
        for size in step_sizes(count, steps, schedule):
            cells = order[done:done + size]
            done += size
            scale = 1 + (cfg - 1) * done / count if guidance_schedule == "linear" else cfg
            cond, uncond = self(rows, content, cells + 1, caches).split(batch)
            out[:, cells] = guided_sample(cond, uncond, scale, temperature, top_k, generator)
            rows, content = self.embeddings(out[:, cells].repeat(2, 1)), cells + 1
        return out


def step_sizes(count, steps, schedule):
    """How many codes each step predicts; steps that would predict none are left out."""
    sizes, done = [], 0
    for step in range(steps):
        x = (step + 1) / steps
        ratio = math.acos(x) / (math.pi / 2) if schedule == "arccos" else math.cos(math.pi / 2 * x)
        left = max(1, min(count - done - 1, int(count * ratio)))
        size = count - done if step == steps - 1 else count - done - left
        if size > 0:
            sizes.append(size)
            done += size
    return sizes
