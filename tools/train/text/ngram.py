"""An interpolated Kneser-Ney n-gram model of token ids: the floor that a network has to beat.

Ref: Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", interpolated Kneser-Ney with
one discount for all orders.
"""

import collections
import math

DISCOUNT = 0.75


class NGram:
    """texts: lists of ids. The highest order counts occurrences, the lower ones the different tokens before them."""

    def __init__(self, texts, order, vocab):
        self.order, self.vocab = order, vocab
        self.counts = [collections.defaultdict(int) for _ in range(order)]  # by length - 1: n-gram -> count
        for ids in texts:
            for n in range(1, order + 1):
                counts = self.counts[n - 1]
                for i in range(len(ids) - n + 1):
                    # Below the highest order only what begins a text is counted here; the rest by what stands before it.
                    if n == order or i == 0:
                        counts[tuple(ids[i : i + n])] += 1
        for n in range(order, 1, -1):
            for gram in self.counts[n - 1]:
                self.counts[n - 2][gram[1:]] += 1
        self.totals = [collections.defaultdict(int) for _ in range(order)]  # context -> sum of counts
        self.kinds = [collections.defaultdict(int) for _ in range(order)]  # context -> different tokens behind it
        for n, counts in enumerate(self.counts):
            for gram, count in counts.items():
                self.totals[n][gram[:-1]] += count
                self.kinds[n][gram[:-1]] += 1

    def probability(self, context, token):
        p = 1 / self.vocab
        for n in range(min(self.order, len(context) + 1)):
            before = tuple(context[len(context) - n :])
            total = self.totals[n].get(before, 0)
            if total:
                count = self.counts[n].get((*before, token), 0)
                p = (max(count - DISCOUNT, 0) + DISCOUNT * self.kinds[n][before] * p) / total
        return p

    def loss(self, conversations):
        """Nats a token of the answers, given all before them."""
        total = count = 0
        for c in conversations:
            for i in range(c.answer, len(c.ids)):
                total -= math.log(self.probability(c.ids[max(0, i - self.order + 1) : i], c.ids[i]))
                count += 1
        return total / count
