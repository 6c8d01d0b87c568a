"""LlamaGen, text-conditional: a Llama-style decoder that predicts image codes in raster order.

Parameter names are the published ones. The condition is one row; image token t is fed at position 1 + t.
Ref: Sun et al. 2024 (FoundationVision/LlamaGen, autoregressive/models/gpt.py).
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from blocks import (Cache, CaptionEmbedding, FeedForward, RMSNorm, attend, guided_sample, init_weights, linear,
                    rope_table, rotate)


@dataclasses.dataclass
class LlamaGenConfig:
    caption_dim: int = 128
    dim: int = 256
    n_layer: int = 6
    n_head: int = 8
    ffn_dim: int = 352
    vocab_size: int = 2048
    block_size: int = 256
    dropout: float = 0.1  # of embeddings and of both residual branches, while training


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.n_head, self.dropout = c.n_head, nn.Dropout(c.dropout)
        self.wqkv, self.wo = linear(c.dim, 3 * c.dim), linear(c.dim, c.dim)

    def forward(self, x, rope, cache):
        """With a cache, x is one token that continues the sequence."""
        q, k, v = (t.unflatten(-1, (self.n_head, -1)) for t in self.wqkv(x).chunk(3, -1))
        q, k = rotate(q, rope), rotate(k, rope)
        if cache is not None:
            k, v = cache.extend(k, v)
        return self.dropout(self.wo(attend(q, k, v, causal=cache is None)))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attention, self.feed_forward = Attention(c), FeedForward(c.dim, c.ffn_dim, c.dropout)
        self.attention_norm, self.ffn_norm = RMSNorm(c.dim), RMSNorm(c.dim)

    def forward(self, x, rope, cache=None):
        x = x + self.attention(self.attention_norm(x), rope, cache)
        return x + self.feed_forward(self.ffn_norm(x))


class LlamaGen(nn.Module):
    kind = "llamagen"

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.cls_embedding = CaptionEmbedding(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layer))
        self.dropout = nn.Dropout(config.dropout)
        self.norm, self.output = RMSNorm(config.dim), linear(config.dim, config.vocab_size)
        table = rope_table(int(config.block_size**0.5), config.dim // config.n_head)
        self.register_buffer("rope", table, persistent=False)
        init_weights(self, self.output)

    def forward(self, condition, tokens):
        """condition: [B, caption_dim]; tokens: [B, T]; logits [B, 1 + T, V] of tokens 0..T."""
        x = torch.cat([self.cls_embedding(condition), self.tok_embeddings(tokens)], 1)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, self.rope[:x.shape[1]])
        return self.output(self.norm(x)).float()

    def logits(self, condition, seen, order=None):
        """Logits [B, N, V] of every code, given the codes `seen` [B, N] before it in raster order."""
        return self(condition, seen[:, :-1])

    def losses(self, condition, tokens, order=None, seen=None):
        """Negative log-likelihood [B, N] in nats, given the codes `seen` (the tokens themselves unless said).

        The order is raster here, whatever `order` says.
        """
        logits = self.logits(condition, tokens if seen is None else seen)
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)

    @torch.no_grad()
    def generate(self, condition, cfg, temperature=1.0, top_k=0, generator=None):
        """One picture's tokens [B, N] for every condition."""
        batch = len(condition)
        x = self.cls_embedding(self.cls_embedding.with_partner(condition))
        caches, tokens = [Cache() for _ in self.layers], []
        for position in range(self.config.block_size):
            for layer, cache in zip(self.layers, caches):
                x = layer(x, self.rope[position:position + 1], cache)
            cond, uncond = self.output(self.norm(x))[:, 0].split(batch)
            tokens.append(guided_sample(cond, uncond, cfg, temperature, top_k, generator))
            x = self.tok_embeddings(tokens[-1].repeat(2))[:, None]
        return torch.stack(tokens, 1)
