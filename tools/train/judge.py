"""What can be measured of samples: whose pictures they look like, and whether they are copies."""

import json
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
import torch.nn.functional as F

from emoji_dataset import CELL, CHANGES, SIZE, SPARE
from text_encoder import encode_prompts
from train_classifier import predictions

SLACK = 1.01  # of a copy's distance, for the rounding of networks that run in other batches
NEAR = 0.3  # root mean square in [-1, 1]: no round trip that is farther (16.5 dB) counts


def draw_samples(model, vq, condition, seed, batch=250, **settings):
    """Pictures [B, 3, 128, 128] in [-1, 1] of the conditions, on the CPU; fixed by the seed on one machine."""
    generator = torch.Generator(condition.device).manual_seed(seed)
    pictures = []
    for part in condition.split(batch):
        tokens = model.generate(part, generator=generator, **settings)
        pictures += [vq.decode(few).cpu() for few in tokens.split(64)]
    return torch.cat(pictures)


DECODERS = {"llamagen": "sequential", "arpg": "parallel"}
FLAGS = {"cfg": "--cfg", "temperature": "--temperature", "top_k": "--top-k", "steps": "--steps", "schedule": "--schedule"}


def draw_with_volley(program, card, kind, asked, classes, seed, **settings):
    """Pictures [B, 3, 128, 128] in [-1, 1] of (class id or None, text), as the command `volley` draws them with the model
    folder `card`; picture i has the seed `seed` + i. Far quicker than draw_samples without a card."""
    from PIL import Image

    settings.pop("guidance_schedule", None)  # the model folder's
    lines = [{"class": classes[c]} if c is not None else {"prompt": text} for c, text in asked]
    with tempfile.TemporaryDirectory() as folder:
        prompts = pathlib.Path(folder) / "prompts"
        prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
        flags = [word for name, value in settings.items() for word in (FLAGS[name], str(value))]
        subprocess.run([program, "image", "-f", prompts, "-m", card, "--decoder", DECODERS[kind], "-s", str(seed), *flags,
                        "-o", f"{folder}/%06d.png", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        read = lambda i: np.asarray(Image.open(f"{folder}/{i:06d}.png").convert("RGB"))
        pixels = torch.from_numpy(np.stack([read(i) for i in range(len(lines))]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def add_drawing_options(parser):
    parser.add_argument("--volley", help="the command that draws the samples, from the model folder --card, instead of PyTorch")
    parser.add_argument("--card", type=pathlib.Path)


def draw_asked(args, kind, networks, asked, classes, seed, **settings):
    """Pictures of (class id or None, text) by volley or PyTorch, as add_drawing_options' options say; networks: the
    transformer, the VQ and the text encoder."""
    if args.volley:
        return draw_with_volley(args.volley, args.card, kind, asked, classes, seed, **settings)
    model, vq, encoder = networks
    return draw_samples(model, vq, encode_prompts(encoder, asked), seed, **settings)


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
    def round_trips(self, pixels):
        """Root mean square differences [B] of pictures and what the tokenizer makes of them."""
        return torch.cat([(self.vq.decode(self.vq.encode(p)) - p).pow(2).mean((1, 2, 3)).sqrt() for p in pixels.split(128)])

    def copies(self, pictures):
        """For each picture, whether a training picture lies as near to it as to its own round trip."""
        distances = self.distances(pictures)
        limits = torch.zeros_like(distances[0])
        for side, limit in enumerate(limits):
            for few in (distances[:, side] <= NEAR).any(0).nonzero().flatten().split(128):
                limit[few] = self.round_trips(self.pixels(self.index[few], bool(side)))
        return (distances <= SLACK * limits).flatten(1).any(1).cpu()

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
            places = torch.cartesian_prod(*[torch.arange(-reach, reach + 1)] * 2).to(device)
            for is_mirrored in (0.0, 1.0):
                for part in self.index.split(512):
                    row = torch.tensor([0, size, is_mirrored, 0, 0], device=device).repeat(len(part), 1)
                    row[:, 0] = part
                    centred = small(self.shown(row))
                    distances = [torch.cdist(asked, moved(centred, *(CELL // 4 * n for n in place)).flatten(1))
                                 for place in places.tolist()]
                    distance, choice = torch.cat(distances, 1).topk(keep, largest=False)
                    rows = row[choice % len(part)]
                    rows[..., 3:] = places[choice // len(part)].float()
                    best, order = torch.cat([best, distance], 1).topk(keep, largest=False)
                    found = torch.cat([found, rows], 1).gather(1, order[..., None].expand(-1, -1, 5))
        copied = []
        for few, rows in zip(pictures.split(16), found.split(16)):
            rows = rows.flatten(0, 1)
            shown = self.shown(rows)
            errors = (few.repeat_interleave(keep, 0) - shown).pow(2).mean((1, 2, 3)).sqrt()
            is_copy = errors <= NEAR
            if is_copy.any():
                is_copy[is_copy.clone()] = errors[is_copy] <= SLACK * self.round_trips(shown[is_copy])
            copied.append(is_copy.view(-1, keep).any(1))
        return torch.cat(copied).cpu()

    def shown(self, rows):
        index, size, is_mirrored, cells = rows[:, 0].long(), rows[:, 1], rows[:, 2] > 0, rows[:, 3:]
        return self.data.in_cells(index, size, is_mirrored, cells)

    def nearest(self, pictures):
        """The nearest training picture of each, [B, 3, H, W]."""
        flat = self.distances(pictures).flatten(1).argmin(1)
        count = len(self.index)
        return torch.cat([self.pixels(self.index[i % count][None], bool(i >= count)) for i in flat.tolist()]).cpu()
