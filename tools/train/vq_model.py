"""The VQ autoencoder of LlamaGen at any width: pictures to a grid of codes and back.

Parameter names are the published ones, so that one loader reads both.
Ref: Sun et al. 2024, "Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation"
(FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_model.py); Esser et al. 2021 (VQGAN).
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class VQConfig:
    ch: int = 32
    ch_mult: tuple = (1, 2, 2, 2)
    z_channels: int = 64
    codebook_size: int = 2048
    codebook_embed_dim: int = 8
    num_res_blocks: int = 2


def group_norm(channels):
    return nn.GroupNorm(32, channels, eps=1e-6)


def conv3(inputs, outputs, **kwargs):
    return nn.Conv2d(inputs, outputs, 3, **({"padding": 1} | kwargs))


class ResBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1, self.conv1 = group_norm(inputs), conv3(inputs, outputs)
        self.norm2, self.conv2 = group_norm(outputs), conv3(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """Single-head attention over all cells, scaled by C^-0.5."""

    def __init__(self, channels):
        super().__init__()
        self.norm = group_norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        cells = lambda conv: conv(h).flatten(2).transpose(1, 2)  # [B, HW, C]
        h = F.scaled_dot_product_attention(cells(self.q), cells(self.k), cells(self.v))
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = conv3(channels, channels, stride=2, padding=0)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def middle(channels):
    return nn.ModuleList([ResBlock(channels, channels), AttnBlock(channels), ResBlock(channels, channels)])


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention at the deepest one."""

    def __init__(self, inputs, outputs, count, attend):
        super().__init__()
        self.res = nn.ModuleList(ResBlock(inputs if i == 0 else outputs, outputs) for i in range(count))
        self.attn = nn.ModuleList(AttnBlock(outputs) for _ in range(count if attend else 0))

    def forward(self, x):
        for i, res in enumerate(self.res):
            x = res(x)
            if len(self.attn):
                x = self.attn[i](x)
        return x


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        widths = [c.ch * m for m in c.ch_mult]
        self.conv_in = conv3(3, c.ch)
        self.conv_blocks = nn.ModuleList()
        last = len(widths) - 1
        for i, width in enumerate(widths):
            level = Level(widths[i - 1] if i else c.ch, width, c.num_res_blocks, attend=i == last)
            if i != last:
                level.downsample = Downsample(width)
            self.conv_blocks.append(level)
        self.mid = middle(widths[-1])
        self.norm_out, self.conv_out = group_norm(widths[-1]), conv3(widths[-1], c.z_channels)

    def forward(self, x):
        h = self.conv_in(x)
        for level in self.conv_blocks:
            h = level(h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
        for block in self.mid:
            h = block(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Decoder(nn.Module):
    """Levels are numbered from the deepest, as in the published checkpoints."""

    def __init__(self, c):
        super().__init__()
        widths = [c.ch * m for m in reversed(c.ch_mult)]
        self.conv_in = conv3(c.z_channels, widths[0])
        self.mid = middle(widths[0])
        self.conv_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            level = Level(widths[max(i - 1, 0)], width, c.num_res_blocks + 1, attend=i == 0)
            if i != len(widths) - 1:
                level.upsample = Upsample(width)
            self.conv_blocks.append(level)
        self.norm_out, self.conv_out = group_norm(widths[-1]), conv3(widths[-1], 3)

    def forward(self, z):
        h = self.conv_in(z)
        for block in self.mid:
            h = block(h)
        for level in self.conv_blocks:
            h = level(h)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Quantizer(nn.Module):
    """Nearest code by angle: codes and latents are compared at unit length."""

    def __init__(self, c):
        super().__init__()
        self.embedding = nn.Embedding(c.codebook_size, c.codebook_embed_dim)
        nn.init.normal_(self.embedding.weight)

    def codes(self):
        return F.normalize(self.embedding.weight.float(), dim=-1)  # [V, D]

    def forward(self, z):
        """z: [B, D, H, W]; returns unit latents and unit codes, both [B, H, W, D], and indices [B, H, W]."""
        with torch.autocast(z.device.type, enabled=False):
            z = F.normalize(z.float().permute(0, 2, 3, 1), dim=-1)
            index = (z @ self.codes().T).argmax(-1)
            return z, self.codes()[index], index


class VQModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.encoder, self.decoder, self.quantize = Encoder(config), Decoder(config), Quantizer(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.codebook_embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.codebook_embed_dim, config.z_channels, 1)

    def forward(self, pixels):
        """Straight-through reconstruction, unit latents, unit codes, indices."""
        z, code, index = self.quantize(self.quant_conv(self.encoder(pixels)))
        through = z + (code - z).detach()
        return self.decoder(self.post_quant_conv(through.permute(0, 3, 1, 2))), z, code, index

    @torch.no_grad()
    def encode(self, pixels):
        """[B, 3, H, W] in [-1, 1] to indices [B, (H/8) * (W/8)]."""
        return self.quantize(self.quant_conv(self.encoder(pixels)))[2].flatten(1)

    @torch.no_grad()
    def decode(self, index):
        """Indices [B, N] of a square grid to [B, 3, H, W], clamped to [-1, 1]."""
        side = int(index.shape[1] ** 0.5)
        code = self.quantize.codes()[index].view(len(index), side, side, -1).permute(0, 3, 1, 2)
        return self.decoder(self.post_quant_conv(code)).clamp(-1, 1)


def load_vq(path, device):
    """A trained model from a checkpoint of train_vq.py, with the bf16 rounding that it is shipped with."""
    saved = torch.load(path, map_location=device)
    model = VQModel(VQConfig(**saved["config"])).to(device).eval()
    model.load_state_dict({k: v.bfloat16().float() for k, v in saved["model"].items()})
    return model
