"""What can be measured of samples: whose pictures they look like, and whether they are copies."""

import torch
import torch.nn.functional as F

from emoji_dataset import CELL, CHANGES, SIZE, SPARE
from train_classifier import predictions

SLACK = 1.01  # of a copy's distance, for the rounding of networks that run in other batches


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


def named_pictures(data, count, seed):
    """Indices [count] of emoji trained on, to ask for by name, every base equally often."""
    weight = (data.weight * data.is_emoji * ~data.held_out).cpu()
    return torch.multinomial(weight, count, replacement=True, generator=torch.Generator().manual_seed(seed))


def moved(pictures, down, right):
    """Pictures [B, C, H, W] shifted by whole pixels, with zeros where nothing comes in."""
    height, width = pictures.shape[2:]
    padded = F.pad(pictures, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    return padded[..., max(-down, 0):max(-down, 0) + height, max(-right, 0):max(-right, 0) + width]


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
        return (self.distances(pictures) <= SLACK * self.limits).flatten(1).any(1).cpu()

    @torch.no_grad()
    def copies_anywhere(self, pictures, changes, keep=8):
        """The same, with the training pictures in every size and place that training shows (CHANGES[changes]) too.

        Of these the `keep` nearest at a quarter of the resolution are compared in full.
        """
        device = self.data.images.device
        pictures = pictures.to(device)
        small = lambda x: F.avg_pool2d(1 - x, 4)  # white is 0
        asked = small(pictures).flatten(1)
        best = torch.full((len(asked), keep), torch.inf, device=device)
        found = torch.zeros(len(asked), keep, 5, device=device)  # picture, size, mirrored, cells down, cells right
        for size in (1.0, *CHANGES[changes]):
            reach = round((1 - size) * SIZE / 2 / CELL + SPARE)
            places = torch.cartesian_prod(*[torch.arange(-reach, reach + 1)] * 2).tolist()
            for is_mirrored in (0.0, 1.0):
                for part in self.index.split(512):
                    row = torch.tensor([0, size, is_mirrored, 0, 0], device=device).repeat(len(part), 1)
                    row[:, 0] = part
                    centred = small(self.shown(row))
                    for place in places:
                        row[:, 3:] = torch.tensor(place, device=device)
                        distance = torch.cdist(asked, moved(centred, *(CELL // 4 * n for n in place)).flatten(1))
                        best, order = torch.cat([best, distance], 1).topk(keep, largest=False)
                        rows = torch.cat([found, row.expand(len(asked), -1, -1)], 1)
                        found = rows.gather(1, order[..., None].expand(-1, -1, 5))
        copied = []
        for few, rows in zip(pictures.split(16), found.split(16)):
            shown = self.shown(rows.flatten(0, 1))
            errors = [(x - shown).pow(2).mean((1, 2, 3)).view(-1, keep)
                      for x in (few.repeat_interleave(keep, 0), self.vq.decode(self.vq.encode(shown)))]
            copied.append((errors[0] <= SLACK**2 * errors[1]).any(1))
        return torch.cat(copied).cpu()

    def shown(self, rows):
        index, size, is_mirrored, cells = rows[:, 0].long(), rows[:, 1], rows[:, 2] > 0, rows[:, 3:]
        return self.data.in_cells(index, size, is_mirrored, cells)

    def nearest(self, pictures):
        """The nearest training picture of each, [B, 3, H, W]."""
        flat = self.distances(pictures).flatten(1).argmin(1)
        count = len(self.index)
        return torch.cat([self.pixels(self.index[i % count][None], bool(i >= count)) for i in flat.tolist()]).cpu()
