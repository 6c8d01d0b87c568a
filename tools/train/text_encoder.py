"""A small bidirectional transformer that turns a class and the words of a prompt into one condition vector.

Row 0 is the class asked for, or "no class"; up to fifteen word rows follow, each the mean of hashed embeddings of the
word and its parts (see prompts.py). Two pre-norm blocks, a final norm, and row 0 is the result.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from blocks import FeedForward, RMSNorm, linear
from prompts import MAX_WORDS, prompt_words, word_rows


@dataclasses.dataclass
class TextEncoderConfig:
    num_classes: int
    dim: int = 128
    n_layer: int = 2
    n_head: int = 4
    ffn_dim: int = 256
    buckets: int = 4096
    max_words: int = MAX_WORDS
    dropout: float = 0.1  # of input rows and of both residual branches, while training


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.n_head, self.dropout = c.n_head, nn.Dropout(c.dropout)
        self.wqkv, self.wo = linear(c.dim, 3 * c.dim), linear(c.dim, c.dim)

    def forward(self, x, mask):
        q, k, v = (t.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for t in self.wqkv(x).chunk(3, -1))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.dropout(self.wo(out.transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attention, self.feed_forward = Attention(c), FeedForward(c.dim, c.ffn_dim, c.dropout)
        self.attention_norm, self.ffn_norm = RMSNorm(c.dim), RMSNorm(c.dim)

    def forward(self, x, mask):
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.feed_forward(self.ffn_norm(x))


class TextEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.class_embedding = nn.Embedding(c.num_classes + 1, c.dim)  # last row: no class
        self.word_embedding = nn.Embedding(c.buckets, c.dim)
        self.position_embedding = nn.Embedding(1 + c.max_words, c.dim)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.n_layer))
        self.norm, self.dropout = RMSNorm(c.dim), nn.Dropout(c.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.05)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)
        # A word is the mean of about a dozen rows, so that its own rows are larger.
        nn.init.normal_(self.word_embedding.weight, std=0.3)

    def forward(self, class_id, words, present):
        """class_id: [B]; words: word vectors [B, N, D], only read where present [B, N]; result [B, D]."""
        x = torch.cat([self.class_embedding(class_id)[:, None], words * present[..., None]], 1)
        x = self.dropout(x + self.position_embedding.weight[:x.shape[1]])
        mask = torch.cat([torch.ones_like(present[:, :1]), present], 1)[:, None, None]  # [B, 1, 1, 1 + N]
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)[:, 0]


class Vocabulary:
    """Words seen so far; their vectors come from one product with a sparse-in-content matrix of means."""

    def __init__(self, buckets):
        self.buckets, self.words = buckets, {}

    def ids(self, text):
        """Ids of a prompt's words, [MAX_WORDS], -1 where there is none."""
        found = [self.words.setdefault(w, len(self.words)) for w in prompt_words(text)]
        return found + [-1] * (MAX_WORDS - len(found))

    def means(self, device):
        """[W, buckets]: row w times the table is the vector of word w."""
        out = torch.zeros(max(len(self.words), 1), self.buckets)
        for word, i in self.words.items():
            rows = word_rows(word, self.buckets)
            for row in rows:
                out[i, row] += 1 / len(rows)
        return out.to(device)


def encode_ids(encoder, means, class_id, word_ids):
    """Condition vectors [B, D] of prompts given as word ids [B, MAX_WORDS]."""
    vectors = means @ encoder.word_embedding.weight.to(means.dtype)  # [W, D]
    present = word_ids >= 0
    return encoder(class_id, vectors[word_ids.clamp_min(0)], present)


@torch.no_grad()
def encode_prompts(encoder, prompts):
    """Condition vectors [B, D] of (class id or None, text) pairs, in f32."""
    vocabulary, device = Vocabulary(encoder.config.buckets), encoder.norm.weight.device
    word_ids = torch.tensor([vocabulary.ids(text) for _, text in prompts], device=device)
    none = encoder.config.num_classes
    class_id = torch.tensor([none if c is None else c for c, _ in prompts], device=device)
    return encode_ids(encoder, vocabulary.means(device), class_id, word_ids)
