"""Parts shared by the transformers: RMSNorm, SwiGLU, the condition row, 2-D rotary positions, initialisation, logit
filtering.

Ref: Touvron et al. 2023 (Llama); Su et al. 2021 (RoPE); the 2-D tables follow FoundationVision/LlamaGen and hp-l33/ARPG.
"""

import torch
import torch.nn.functional as F
from torch import nn

NORM_EPS = 1e-5
ROPE_BASE = 10000.0


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + NORM_EPS)).type_as(x) * self.weight


class FeedForward(nn.Module):
    def __init__(self, dim, hidden, dropout):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.w1, self.w3, self.w2 = linear(dim, hidden), linear(dim, hidden), linear(hidden, dim)

    def forward(self, x):
        return self.dropout(self.w2(F.silu(self.w1(x)) * self.w3(x)))


class CaptionProjection(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1, self.fc2 = linear(c.caption_dim, c.dim), linear(c.dim, c.dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class CaptionEmbedding(nn.Module):
    """The row that a transformer starts from: a projected condition vector. Ref: LlamaGen's t2i models."""

    def __init__(self, c):
        super().__init__()
        self.cap_proj = CaptionProjection(c)
        self.uncond_embedding = nn.Parameter(torch.randn(1, c.caption_dim) / c.caption_dim**0.5)

    def forward(self, condition):
        """[B, caption_dim] to [B, 1, C]."""
        return self.cap_proj(condition)[:, None]

    def with_partner(self, condition):
        """Conditions followed by as many of no condition: the batch that guidance needs."""
        return torch.cat([condition, self.uncond_embedding.expand_as(condition)])

    def dropped(self, condition, share):
        """Conditions of which some, at random, are no condition."""
        chosen = torch.rand(len(condition), 1, device=condition.device) < share
        return torch.where(chosen, self.uncond_embedding, condition)


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


def rope_table(grid, head_dim):
    """[1 + grid^2, head_dim / 2, 2] cosines and sines; row 0 is the condition's and is all zeros, as published."""
    half = head_dim // 2
    freqs = ROPE_BASE ** (-torch.arange(0, half, 2).float() / half)  # [half / 2]
    angles = torch.outer(torch.arange(grid).float(), freqs)
    angles = torch.cat([angles[:, None].expand(-1, grid, -1), angles[None].expand(grid, -1, -1)], -1).flatten(0, 1)
    cells = torch.stack([angles.cos(), angles.sin()], -1)
    return torch.cat([torch.zeros_like(cells[:1]), cells])


def rotate(x, table):
    """x: [B, T, H, D]; table: [T, D / 2, 2] or [B, T, D / 2, 2]. Pairs are adjacent elements."""
    pairs = x.float().unflatten(-1, (-1, 2))
    cos, sin = table.unsqueeze(-3).unbind(-1)
    a, b = pairs.unbind(-1)
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2).type_as(x)


def attend(q, k, v, causal):
    """[B, T, H, D] each; returns [B, T, H * D]."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=causal)
    return out.transpose(1, 2).flatten(2)


class Cache:
    """Keys and values so far, [B, T, H, D]."""

    def __init__(self):
        self.k = self.v = None

    def extend(self, k, v):
        self.k = k if self.k is None else torch.cat([self.k, k], 1)
        self.v = v if self.v is None else torch.cat([self.v, v], 1)
        return self.k, self.v


def init_weights(model, head):
    """Normal of 0.02 everywhere, zero for the output layer."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
    nn.init.zeros_(head.weight)


def guided_sample(cond, uncond, scale, temperature, top_k, generator=None):
    """Draws tokens from guided logits [..., V]: guidance, temperature, top-k (ties kept), softmax."""
    logits = (uncond + scale * (cond - uncond)).float() / max(temperature, 1e-5)
    if top_k:
        kth = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    probs = logits.softmax(-1)
    return torch.multinomial(probs.flatten(0, -2), 1, generator=generator).view(logits.shape[:-1])
