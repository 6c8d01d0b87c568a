"""Draft heads on a frozen model's last hidden row, as Medusa and Hydra publish them, over a reduced list of candidates.

The model's own head predicts the next token; head i, from 0, predicts the one i + 1 places behind that.
Ref: Cai et al. 2024, "Medusa" (FasterDecoding/Medusa, medusa_model.py); Ankner et al. 2024, "Hydra" (zankner/Hydra,
hydra_heads/mlp_head.py, grounded heads). Where K > 1 the published code uses one block several times; here each is its own.

Shapes: B rows, C hidden size, V candidates, K blocks a head.
"""

import json

import torch
import torch.nn.functional as F
from torch import nn

from safetensors_file import read_safetensors, write_safetensors


def four_bits(weight):
    """`weight` [out, in] as q4_1 keeps it: blocks of 32 of a row, 16 steps from the least value to the greatest. The gradient
    is that of `weight`."""
    blocks = weight.detach().float().unflatten(1, (-1, 32))
    least, greatest = blocks.amin(2, keepdim=True), blocks.amax(2, keepdim=True)
    base, step = least.half().float(), ((greatest - least) / 15).half().float()
    steps = ((blocks - base) / step.clamp_min(1e-12)).round().clamp(0, 15)
    return weight + ((steps * step + base).flatten(1).to(weight.dtype) - weight).detach()


class Linear(nn.Linear):
    """Its weight is rounded on the way if `rounding` is given."""

    rounding = None

    def rounded(self):
        return self.weight if self.rounding is None else self.rounding(self.weight)

    def forward(self, x):
        return F.linear(x, self.rounded(), self.bias)


def round_weights(heads, rounding):
    for module in heads.modules():
        if isinstance(module, Linear):
            module.rounding = rounding


class Block(nn.Module):
    """x + SiLU(W x + b), or with more inputs than outputs R x + r + SiLU(W x + b)."""

    def __init__(self, dim, inputs=1):
        super().__init__()
        self.linear = Linear(inputs * dim, dim)
        self.res_connection = Linear(inputs * dim, dim) if inputs > 1 else nn.Identity()
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        if inputs > 1:  # passes the hidden row on, so that a new head is the model's own
            nn.init.eye_(self.res_connection.weight)
            nn.init.zeros_(self.res_connection.bias)

    def forward(self, x):
        return self.res_connection(x) + F.silu(self.linear(x))


class Medusa(nn.Module):
    """Keys: {i}.{j}.linear.weight and .bias of block j of head i, {i}.{K}.weight of its output layer."""

    is_chained = False

    def __init__(self, heads, layers, dim, output):
        super().__init__()
        for i in range(heads):
            head = nn.Sequential(*(Block(dim) for _ in range(layers)), Linear(dim, len(output), bias=False))
            head[-1].weight.data.copy_(output)
            self.add_module(str(i), head)

    def features(self, i, hidden, embedded):
        """hidden [B, C] -> [B, C], what head i's output layer reads."""
        return getattr(self, str(i))[:-1](hidden)

    def output(self, i):
        layer = getattr(self, str(i))[-1]
        return layer.rounded(), None


class Hydra(nn.Module):
    """Keys: hydra_mlp.{i}.{j}.linear.*, hydra_mlp.{i}.0.res_connection.*, hydra_lm_head.{i}.weight and .bias."""

    is_chained = True

    def __init__(self, heads, layers, dim, output):
        super().__init__()
        self.hydra_mlp = nn.ModuleList(
            nn.Sequential(Block(dim, i + 2), *(Block(dim) for _ in range(layers - 1))) for i in range(heads))
        self.hydra_lm_head = nn.ModuleList(Linear(dim, len(output)) for _ in range(heads))
        for layer in self.hydra_lm_head:
            layer.weight.data.copy_(output)
            nn.init.zeros_(layer.bias)

    def features(self, i, hidden, embedded):
        """hidden [B, C], embedded: a list of [B, C], the model's input rows of the i + 1 tokens before the guess."""
        return self.hydra_mlp[i](torch.cat([hidden, *embedded[: i + 1]], -1))

    def output(self, i):
        layer = self.hydra_lm_head[i]
        return layer.rounded(), layer.bias


KINDS = {"medusa": Medusa, "hydra": Hydra}


def logits(heads, i, hidden, embedded, subset=None):
    """[B, V] of head i, or [B, len(subset)]."""
    weight, bias = heads.output(i)
    if subset is not None:
        weight, bias = weight[subset], None if bias is None else bias[subset]
    return F.linear(heads.features(i, hidden, embedded), weight, bias)


def published_config(kind, heads, layers, base_model):
    """The keys of the published configurations."""
    common = {f"{kind}_num_heads": heads, f"{kind}_num_layers": layers, "base_model_name_or_path": base_model}
    return common | ({"hydra_head_arch": "mlp", "grounded_heads": True, "hidden_state_offset": 0} if kind == "hydra" else {})


def save(folder, heads, target_ids, config, card):
    """model.safetensors (bf16, and d2t as EAGLE-3 has it: candidate c is token c + d2t[c]), config.json, card.json."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().bfloat16().cpu().contiguous() for name, value in heads.state_dict().items()}
    state["d2t"] = (target_ids - torch.arange(len(target_ids), device=target_ids.device)).cpu()
    write_safetensors(folder / "model.safetensors", state)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")


def load(folder):
    """Weights in f32, and as `d2t` the ids of the candidates."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file")
    state = {name: value if name == "d2t" else value.float() for name, value in read_safetensors(path).items()}
    if "d2t" not in state:
        raise SystemExit(f"{path}: no d2t")
    state["d2t"] = state["d2t"] + torch.arange(len(state["d2t"]))
    return state
