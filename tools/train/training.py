"""What every training script needs: a clock that sets the learning rate, averaged weights, checkpoints, picture grids.

A run is given seconds instead of steps. The learning rate follows the share of that time which has passed, so a run on a
slower card ends with the same schedule and fewer steps.
"""

import copy
import dataclasses
import math
import time

import torch

# Subgroups shown in the sample grids, one row each.
SHOWN = ["face-smiling", "cat-face", "heart", "hand-fingers-open", "person-role", "animal-mammal", "animal-bird", "plant-flower",
         "food-fruit", "food-prepared", "transport-ground", "time", "sky & weather", "clothing", "musical-instrument", "geometric"]


class Clock:
    """Ends `seconds` after its construction; progress is counted from start(), after compilation."""

    def __init__(self, seconds):
        self.begin = self.first = time.monotonic()
        self.end = self.begin + seconds

    def start(self):
        self.first = time.monotonic()

    def progress(self):
        """0 at start(), 1 and more at the end."""
        return (time.monotonic() - self.first) / max(self.end - self.first, 1e-3)

    def elapsed(self):
        return time.monotonic() - self.begin


def orthogonalized(x):
    """Matrices [K, N, M] with their singular values brought near one, by five Newton-Schulz steps in bf16."""
    x = x.bfloat16()
    if x.shape[1] > x.shape[2]:
        return orthogonalized(x.mT).mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return x


class Muon:
    """Momentum whose steps are orthogonalised, for the weights of linear layers; matrices of one shape go together.

    Ref: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """

    def __init__(self, weights, lr, momentum=0.95):
        self.lr, self.momentum, self.groups = lr, momentum, {}
        for weight in weights:
            # A weight that stacks queries, keys and values is as many matrices.
            parts = weight.shape[0] // weight.shape[1] if weight.shape[0] % weight.shape[1] == 0 else 1
            shape = (weight.shape[0] // parts, weight.shape[1])
            self.groups.setdefault(shape, []).append((weight, parts))
        device, count = weights[0].device, lambda group: sum(parts for _, parts in group)
        self.moments = {shape: torch.zeros(count(group), *shape, device=device) for shape, group in self.groups.items()}
        self.direction = compiled_on(device.type, orthogonalized)

    @torch.no_grad()
    def step(self, share):
        """Moves the weights by `share` of the learning rate."""
        for shape, group in self.groups.items():
            moment = self.moments[shape]
            slope = torch.cat([weight.grad.view(parts, *shape) for weight, parts in group])
            moment.lerp_(slope, 1 - self.momentum)
            step = self.direction(slope.lerp(moment, self.momentum)).float() * max(1, shape[0] / shape[1]) ** 0.5
            steps = step.split([parts for _, parts in group])
            weights = [weight for weight, _ in group]
            torch._foreach_add_(weights, [s.reshape(w.shape) for s, w in zip(steps, weights)], alpha=-self.lr * share)
            for weight in weights:
                weight.grad = None


class Trainer:
    """AdamW with warm-up, cosine decay and clipping, plus an exponential average of the weights.

    part: which stretch of the cosine this run covers, so that one schedule can span several runs.
    muon: learning rate of Muon for the linear layers but the output's; 0: they go by AdamW too.
    """

    def __init__(self, model, lr, weight_decay, seconds, warmup_steps=300, ema=0.999, part=(0.0, 1.0), muon=0.0):
        self.part = part
        self.model, self.lr, self.warmup_steps, self.decay = model, lr, warmup_steps, ema
        linear = [m.weight for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m.weight.requires_grad
                  and name.rpartition(".")[2] not in ("output", "head")] if muon else []
        self.muon, chosen = Muon(linear, muon) if muon else None, {id(weight) for weight in linear}
        matrices = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in chosen]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)
        self.averaged = copy.deepcopy(model).eval().requires_grad_(False)
        self.clock, self.steps, self.share = Clock(seconds), 0, 0.0
        self.total, self.count = torch.zeros((), device=next(model.parameters()).device), 0

    def running(self):
        """Refreshes the progress now and then; False when time is up. The clock starts after three steps."""
        if self.steps == 3:
            self.total.item()  # waits for the device
            self.clock.start()
        if self.steps % 20 == 0:
            self.total.item()
            self.share = self.clock.progress() if self.steps > 3 else 0.0
        return self.share < 1

    def step(self, loss):
        place = self.part[0] + (self.part[1] - self.part[0]) * min(self.share, 1.0)
        share = min(1.0, (self.steps + 1) / self.warmup_steps) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * place)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * share
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if self.muon:
            self.muon.step(share)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.averaged.parameters()), [p.detach() for p in self.model.parameters()], 1 - keep)
        self.steps += 1
        self.total, self.count = self.total + loss.detach(), self.count + 1

    def mean_loss(self):
        """Mean training loss since the last call."""
        mean = self.total.item() / max(self.count, 1)
        self.total, self.count = torch.zeros_like(self.total), 0
        return mean

    def line(self):
        return f"{self.clock.elapsed():6.1f} s  step {self.steps:6d}  {100 * self.share:5.1f} %  loss {self.mean_loss():.4f}"


def save_checkpoint(path, model, **extra):
    """Weights in f16 with the model's configuration."""
    state = {k: v.detach().half().cpu() for k, v in model.state_dict().items()}
    torch.save({"config": dataclasses.asdict(model.config), "model": state, **extra}, path)


def compiled_on(device, function, is_replayed=False):
    """torch.compile where it pays; is_replayed: as CUDA graphs, for functions of many small kernels."""
    if device != "cuda":
        return function
    return torch.compile(function, mode="reduce-overhead" if is_replayed else None)


def count_parameters(model):
    return sum(p.numel() for p in model.parameters())


def save_grid(path, pixels, columns, shrink_to=None):
    """Pictures [B, 3, H, W] in [-1, 1] as one PNG, row by row."""
    from PIL import Image

    rows = pixels.float().cpu().mul(127.5).add(128).clamp(0, 255).byte()  # as LlamaGen's 8-bit rule
    rows = rows.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    image = Image.fromarray(rows.numpy())
    if shrink_to:
        image = image.resize((columns * shrink_to, image.height * columns * shrink_to // image.width), Image.LANCZOS)
    image.save(path)
