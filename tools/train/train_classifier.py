"""Trains the judge of the samples: a small residual network that tells the subgroup of an emoji bitmap.

`python3 train_classifier.py --data emoji.npz --out DIR --seconds 90`. It sees training bitmaps only, changed by code of its
own (mirrored, resized, turned, shifted, blurred, noised), never a code or a picture of the models it is to judge, and is
frozen afterwards. Its own accuracy on the held-out bitmaps is printed and stored.
"""

import argparse
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from emoji_dataset import unpack
from training import Trainer, compiled_on, count_parameters

BATCH = 256


def conv_norm(inputs, outputs, stride=1, size=3):
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.GroupNorm(8, outputs))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first, self.second = conv_norm(inputs, outputs, stride), conv_norm(outputs, outputs)
        self.shortcut = conv_norm(inputs, outputs, stride, 1) if stride != 1 or inputs != outputs else nn.Identity()

    def forward(self, x):
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


class Classifier(nn.Module):
    """Pictures [B, 3, 128, 128] in [-1, 1] to logits [B, classes]; looks at them at half size."""

    def __init__(self, num_classes, width=48):
        super().__init__()
        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width, 6 * width]
        self.stem = nn.Sequential(conv_norm(3, width, 1, 5), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(a, b, 1 if a == b else 2) for a, b in zip(widths, widths[1:])))
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(2 * widths[-1], num_classes)

    def forward(self, pixels):
        x = self.blocks(self.stem(F.avg_pool2d(pixels, 2)))
        return self.head(self.dropout(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)))


def changed(pixels, may_flip):
    """Pictures at another size, angle and place, blurred and noised."""
    count, device = len(pixels), pixels.device
    rand = lambda *shape: torch.rand(*shape, device=device)
    flip = torch.where(may_flip & (rand(count) < 0.5), -1.0, 1.0)
    zoom, angle = 0.85 + 0.5 * rand(count), 0.5 * (rand(count) - 0.5)
    theta = torch.stack([zoom * flip * angle.cos(), -zoom * flip * angle.sin(), 0.3 * (rand(count) - 0.5),
                         zoom * angle.sin(), zoom * angle.cos(), 0.3 * (rand(count) - 0.5)], 1).view(count, 2, 3)
    grid = F.affine_grid(theta, pixels.shape, align_corners=False)
    pixels = 1 - F.grid_sample(1 - pixels, grid, align_corners=False)
    blurred = F.interpolate(F.avg_pool2d(pixels, 2), scale_factor=2.0, mode="bilinear")
    amount = rand(count, 1, 1, 1)
    pixels = pixels + amount * (blurred - pixels)
    contrast, light = 0.85 + 0.3 * rand(count, 1, 1, 1), 0.15 * (rand(count, 1, 1, 1) - 0.5)
    noise = torch.randn_like(pixels) * 0.1 * rand(count, 1, 1, 1)
    return pixels * contrast + light + noise


def load_classifier(path, device):
    saved = torch.load(path, map_location=device)
    model = Classifier(saved["num_classes"]).to(device).eval()
    model.load_state_dict({k: v.float() for k, v in saved["model"].items()})
    return model


@torch.no_grad()
def predictions(model, pixels):
    return torch.cat([model(part).argmax(1) for part in pixels.split(128)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()

    torch.manual_seed(3)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = args.device
    file = np.load(args.data)
    count = int(file["emoji_count"])
    on_device = lambda values: torch.from_numpy(values).to(device)
    images = on_device(unpack(file["blob"], file["ends"][:count + 1])).permute(0, 3, 1, 2).float() / 127.5 - 1
    labels, bases = on_device(file["class_id"][:count]), on_device(file["base_id"][:count])
    held_out, may_flip = on_device(file["held_out"][:count]), on_device(file["may_flip"][:count])
    group_of_class = on_device(file["group_of_class"])
    num_classes = int(labels.max()) + 1
    weight = 1.0 / torch.bincount(bases)[bases]

    model = Classifier(num_classes).to(device)
    trainer = Trainer(model, 1.5e-3, weight_decay=0.05, seconds=args.seconds)
    print(f"{count_parameters(model)} parameters", flush=True)
    forward = compiled_on(device, model)
    while trainer.running():
        index = torch.multinomial(weight * ~held_out, BATCH, replacement=True)
        with torch.autocast(device, torch.bfloat16):
            logits = forward(changed(images[index], may_flip[index]))
        trainer.step(F.cross_entropy(logits.float(), labels[index], label_smoothing=0.1))

    scores = {}
    for name, part in (("training", ~held_out), ("held out", held_out)):
        found = predictions(trainer.averaged, images[part])
        share = lambda right: float((right * weight[part]).sum() / weight[part].sum())
        scores[name] = {"subgroup": share(found == labels[part]), "group": share(group_of_class[found] == group_of_class[labels[part]])}
        print(f"{trainer.line()}  {name}: {scores[name]}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().cpu() for k, v in trainer.averaged.state_dict().items()}
    torch.save({"num_classes": num_classes, "model": state, "accuracy": scores}, args.out / "classifier.pt")


if __name__ == "__main__":
    main()
