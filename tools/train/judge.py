"""What can be measured of samples: whose pictures they look like, and whether they are copies."""

import torch

from train_classifier import predictions


def draw_samples(model, vq, condition, seed, batch=250, **settings):
    """Pictures [B, 3, 128, 128] in [-1, 1] of the conditions, on the CPU; fixed by the seed on one machine."""
    generator = torch.Generator(condition.device).manual_seed(seed)
    pictures = []
    for part in condition.split(batch):
        tokens = model.generate(part, generator=generator, **settings)
        pictures += [vq.decode(few).cpu() for few in tokens.split(64)]
    return torch.cat(pictures)


def agreement(classifier, pictures, class_id, group_of_class, device):
    """Shares of the pictures that the classifier takes for the class asked for, and for its group."""
    found = predictions(classifier, pictures.to(device)).cpu()
    group = torch.tensor(group_of_class)
    right = lambda a, b: (a == b).float().mean().item()
    return {"subgroup": right(found, class_id), "group": right(group[found], group[class_id])}


def asked_classes(data, count, seed):
    """Class ids [count] of emoji to ask for, as often as the class has base emoji that were trained on."""
    generator = torch.Generator().manual_seed(seed)
    weight = (data.weight * data.is_emoji * ~data.held_out).cpu()
    return data.class_id.cpu()[torch.multinomial(weight, count, replacement=True, generator=generator)]


class TrainingPictures:
    """All pictures trained on, as drawn and mirrored, for nearest-neighbour search in pixels."""

    def __init__(self, data, vq):
        self.data, self.vq = data, vq
        self.index = (~data.held_out).nonzero().flatten()  # [M]
        self.limits = None

    def pixels(self, index, is_mirrored):
        pixels = self.data.pixels(index)
        return pixels.flip(-1) if is_mirrored else pixels

    @torch.no_grad()
    def distances(self, pictures):
        """Root mean square differences [B, 2, M] to the pictures as drawn and mirrored."""
        a = pictures.to(self.data.images.device).flatten(1)
        sides = []
        for is_mirrored in (False, True):
            parts = []
            for part in self.index.split(512):
                b = self.pixels(part, is_mirrored).flatten(1)
                square = a.pow(2).sum(1)[:, None] + b.pow(2).sum(1) - 2 * a @ b.T
                parts.append((square.clamp_min(0) / a.shape[1]).sqrt())
            sides.append(torch.cat(parts, 1))
        return torch.stack(sides, 1)

    @torch.no_grad()
    def round_trip(self):
        """Root mean square differences [2, M] of the training pictures and what the tokenizer makes of them."""
        sides = []
        for is_mirrored in (False, True):
            pixels = (self.pixels(part, is_mirrored) for part in self.index.split(128))
            sides.append(torch.cat([(self.vq.decode(self.vq.encode(p)) - p).pow(2).mean((1, 2, 3)).sqrt() for p in pixels]))
        return torch.stack(sides)

    def copies(self, pictures):
        """For each picture, whether a training picture lies as near to it as to its own round trip."""
        if self.limits is None:
            self.limits = self.round_trip()
        return (self.distances(pictures) <= self.limits).flatten(1).any(1).cpu()

    def nearest(self, pictures):
        """The nearest training picture of each, [B, 3, H, W]."""
        flat = self.distances(pictures).flatten(1).argmin(1)
        count = len(self.index)
        return torch.cat([self.pixels(self.index[i % count][None], bool(i >= count)) for i in flat.tolist()]).cpu()
