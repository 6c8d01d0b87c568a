"""A Llama in plain torch: hidden states behind the last norm, a cache for generation, and attention without a causal mask.

Shapes: B sequences, T tokens, H heads, D a head's width, C hidden size, V vocabulary, S cached places.
Ref: Touvron et al. 2023, "Llama"; names as in Hugging Face's LlamaForCausalLM
"""

import dataclasses
import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Config:
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    vocab_size: int


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return F.rms_norm(x.float(), x.shape[-1:], self.weight.float(), self.eps).type_as(x)


class Cache:
    """Keys and values of one layer in place: [B, H, S, D]."""

    def __init__(self, batch, config, places, like):
        shape = (batch, config.num_key_value_heads, places, config.hidden_size // config.num_attention_heads)
        self.keys, self.values = (torch.zeros(shape, device=like.device, dtype=like.dtype) for _ in range(2))

    def put(self, at, keys, values):
        """at [B, T]: where each row's keys go; gives all places."""
        index = at[:, None, :, None].expand_as(keys)
        self.keys.scatter_(2, index, keys)
        self.values.scatter_(2, index, values)
        return self.keys, self.values


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads = c.num_attention_heads, c.num_key_value_heads
        width = c.hidden_size // self.heads
        self.q_proj = nn.Linear(c.hidden_size, self.heads * width, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, self.kv_heads * width, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, self.kv_heads * width, bias=False)
        self.o_proj = nn.Linear(self.heads * width, c.hidden_size, bias=False)

    def forward(self, x, turn, mask, at, cache):
        split = lambda y, heads: y.unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, H, T, D]
        q, k = rotate(split(self.q_proj(x), self.heads), turn), rotate(split(self.k_proj(x), self.kv_heads), turn)
        v = split(self.v_proj(x), self.kv_heads)
        if cache is not None:
            k, v = cache.put(at, k, v)
        group = self.heads // self.kv_heads
        if cache is not None and x.shape[1] == 1:  # queries of one key side by side: nothing of the cache is copied
            y = F.scaled_dot_product_attention(q.reshape(len(q), self.kv_heads, group, -1), k, v, attn_mask=mask)
            return self.o_proj(y.reshape(len(x), 1, -1))
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        causal = isinstance(mask, str)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if causal else mask, is_causal=causal)
        return self.o_proj(y.transpose(1, 2).flatten(2))


def rotate(x, turn):
    """Rotary embedding of halves. x: [B, H, T, D]; turn: cosines and sines [B, 1, T, D / 2], f32."""
    a, b = x.chunk(2, -1)
    cos, sin = turn
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).type_as(x)


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(c.hidden_size, c.intermediate_size, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = (RMSNorm(c.hidden_size, c.rms_norm_eps) for _ in range(2))
        self.self_attn, self.mlp = Attention(c), MLP(c)

    def forward(self, x, *attention):
        x = x + self.self_attn(self.input_layernorm(x), *attention)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class Llama(nn.Module):
    """The output layer is the table of embeddings (tied)."""

    def __init__(self, config):
        super().__init__()
        self.config, self.model = config, Body(config)

    def hidden(self, tokens, at=None, mask="causal", caches=None):
        """[B, T] -> [B, T, C] behind the last norm.

        at [B, T]: places in the text, 0 .. T - 1 unless given. mask: "causal"; None: all see all; bool [B, 1, T, S] of what
        is seen. caches: one a layer; keys go to the places `at`, and the mask says which of them are seen.
        """
        c = self.config
        if at is None:
            at = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        half = c.hidden_size // c.num_attention_heads // 2
        frequency = c.rope_theta ** -(torch.arange(half, device=tokens.device) / half)
        angle = at[:, None, :, None].float() * frequency  # [B, 1, T, D / 2]
        x = self.model.embed_tokens(tokens)
        turn = angle.cos(), angle.sin()
        for i, layer in enumerate(self.model.layers):
            x = layer(x, turn, mask, at, caches[i] if caches else None)
        return self.model.norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.model.embed_tokens.weight)


def dequantize(rows, kind, shape):
    """Blocks as bytes [rows, bytes] -> f32 of `shape`. Ref: ggml-quants.c, the scalar functions."""
    if kind in ("f32", "f16"):
        return rows.view(np.float32 if kind == "f32" else np.float16).astype(np.float32).reshape(shape)
    size = {"q4_0": 18, "q4_1": 20, "q8_0": 34}[kind]
    blocks = rows.reshape(-1, size)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if kind == "q8_0":
        values = scale * blocks[:, 2:].view(np.int8)
    else:
        packed = blocks[:, size - 16 :]
        quants = np.concatenate([packed & 15, packed >> 4], 1).astype(np.float32)
        offset = scale * -8 if kind == "q4_0" else blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
        values = scale * quants + offset
    return values.reshape(shape)


def check_device(device):
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no CUDA device; --device cpu uses the processor")


def load(folder, device="cpu", dtype=torch.float32):
    """The model of a folder that convert.py wrote, frozen."""
    folder = pathlib.Path(folder)
    if not (folder / "config.json").is_file():
        raise SystemExit(f"{folder}: no config.json; convert.py makes such a folder")
    saved = json.loads((folder / "config.json").read_text())
    if not saved["tie_word_embeddings"]:
        raise SystemExit(f"{folder}: an output layer of its own is not supported")
    config = Config(**{field.name: saved[field.name] for field in dataclasses.fields(Config)})
    with torch.device("meta"):
        model = Llama(config)
    state = {}
    for i in range(saved["parts"]):
        path = folder / f"weights-{i}.npz"
        if not path.is_file():
            raise SystemExit(f"{path}: no such file")
        with np.load(path) as part:
            for name in part.files:
                entry = saved["tensors"][name]
                values = dequantize(part[name], entry["type"], entry["shape"])
                state[name] = torch.from_numpy(values).to(device, dtype)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)
