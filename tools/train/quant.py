"""q8_0 planes: every matrix as signed bytes in blocks of 32 along its inputs, with one f16 scale per block."""

import torch

BLOCK = 32


def quantize(weight):
    """[N, K] to quants [N, K] int8 and scales [N, K / 32] f16; quants are taken against the rounded scale."""
    blocks = weight.float().unflatten(1, (-1, BLOCK))
    scales = (blocks.abs().amax(-1) / 127).half()
    step = scales.float()[..., None]
    quants = torch.where(step > 0, blocks / step.clamp_min(1e-30), 0.0).round().clamp(-127, 127)
    return quants.to(torch.int8).flatten(1), scales


def dequantize(quants, scales):
    return (quants.float().unflatten(1, (-1, BLOCK)) * scales.float()[..., None]).flatten(1)


def quantize_state(state):
    """A state dict with NAME.quants and NAME.scales for every matrix, and f32 vectors under their own names."""
    out = {}
    for name, tensor in state.items():
        if tensor.ndim == 2:
            out[f"{name}.quants"], out[f"{name}.scales"] = quantize(tensor)
        else:
            out[name] = tensor.float()
    return out


def dequantize_state(planes):
    """The f32 state dict that quantised planes stand for."""
    out = {name: tensor for name, tensor in planes.items() if not name.endswith((".quants", ".scales"))}
    for name in planes:
        if name.endswith(".quants"):
            stem = name.removesuffix(".quants")
            out[stem] = dequantize(planes[name], planes[f"{stem}.scales"])
    return out
