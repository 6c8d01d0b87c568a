"""Prompts of the training pictures: for each picture many ways to ask for it, drawn once.

Emoji are asked for by class alone, by name, by both, by some of their keywords, or by keywords and name. Clip art is
always asked for with its class, so that a prompt without a class means the style of emoji.
"""

import random

import torch

from text_encoder import Vocabulary

# kind -> share of the prompts
EMOJI_KINDS = {"class": 0.2, "name": 0.42, "name and class": 0.1, "keywords": 0.2, "keywords and name": 0.08}
CLIP_ART_KINDS = {"class": 0.2, "name and class": 0.5, "keywords and class": 0.3}
OPENINGS = ("a", "an", "the", "one", "picture of a", "emoji of a", "drawing of the", "a small")


def prompt_text(kind, name, keywords, source):
    """The words of a prompt of that kind."""
    if kind == "class":
        return ""
    words = name
    if kind.startswith("keywords"):
        pool = keywords or [name]
        chosen = source.sample(pool, min(len(pool), source.randint(1, 4)))
        if kind == "keywords and name":
            chosen.insert(source.randint(0, len(chosen)), name)
        words = " ".join(chosen)
    if source.random() < 0.12:
        words = source.choice(OPENINGS) + " " + words
    return words


class PromptBank:
    def __init__(self, data, buckets, device, variants=24, seed=5):
        source, self.vocabulary = random.Random(seed), Vocabulary(buckets)
        none = len(data.classes)
        class_ids, word_ids, named = [], [], []
        for i, name in enumerate(data.names):
            kinds = EMOJI_KINDS if i < data.emoji_count else CLIP_ART_KINDS
            own = int(data.class_id[i])
            for kind in source.choices(list(kinds), list(kinds.values()), k=variants):
                class_ids.append(own if "class" in kind else none)
                word_ids.append(self.vocabulary.ids(prompt_text(kind, name, data.keywords[i], source)))
            named.append(self.vocabulary.ids(name))
        self.class_ids = torch.tensor(class_ids, device=device).view(-1, variants)
        self.word_ids = torch.tensor(word_ids, dtype=torch.int32, device=device).view(len(data.names), variants, -1)
        self.names = torch.tensor(named, dtype=torch.int32, device=device)
        self.means = self.vocabulary.means(device)
        self.none, self.class_of = none, data.class_id

    def draw(self, index):
        """A prompt of every picture in index: class ids [B], word ids [B, N]."""
        variant = torch.randint(self.class_ids.shape[1], index.shape, device=index.device)
        return self.class_ids[index, variant], self.word_ids[index, variant].long()

    def of_kind(self, kind, index):
        """The same for measuring: kind is "class" (class alone) or "name" (name alone)."""
        if kind == "class":
            return self.class_of[index], torch.full_like(self.names[index], -1).long()
        return torch.full_like(index, self.none), self.names[index].long()
