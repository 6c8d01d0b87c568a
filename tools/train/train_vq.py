"""Trains the VQ autoencoder: `python3 train_vq.py --data emoji.npz --out DIR --seconds 280`. With --resume CHECKPOINT the
weights go on from there under a fresh schedule.

Loss: squared and absolute error of pixels, absolute error of their gradients at three scales, and the codebook and
commitment terms. Codes that stay unused are moved onto latents of the current batch.
Ref: LlamaGen (see vq_model.py); code restarts follow Dhariwal et al. 2020 (Jukebox).
"""

import argparse
import pathlib

import torch
import torch.nn.functional as F

from emoji_dataset import EmojiSet
from training import Trainer, compiled_on, count_parameters, save_checkpoint, save_grid
from vq_model import VQConfig, VQModel

BATCH = 64
COMMITMENT = 0.25
RESTART_AFTER = 150  # steps without use
RESTART_UNTIL = 0.7  # of the run


def gradient_error(a, b):
    """Mean absolute difference of horizontal and vertical pixel differences, at full, half and quarter size."""
    total = 0.0
    for _ in range(3):
        difference = a - b
        total = total + difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total


def picture_loss(out, pixels):
    return 2 * F.mse_loss(out, pixels) + 0.3 * F.l1_loss(out, pixels) + 0.3 * gradient_error(out, pixels)


@torch.no_grad()
def psnr(model, data, index):
    """Mean over base emoji of the mean PSNR in dB of their pictures, and the reconstructions' codes."""
    values, codes = [], []
    for part in index.split(128):
        pixels = data.pixels(part)
        code = model.encode(pixels)
        error = ((model.decode(code) - pixels) / 2).pow(2).mean((1, 2, 3))
        values.append(-10 * error.clamp_min(1e-10).log10())
        codes.append(code)
    weight = data.weight[index]
    return float((torch.cat(values) * weight).sum() / weight.sum()), torch.cat(codes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=280)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clip-art", type=float, default=0.25, help="share of pictures that are clip art")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--resume", type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = args.device
    data = EmojiSet(args.data, device, args.clip_art)
    memory_format = torch.channels_last if args.channels_last else torch.contiguous_format
    if not args.channels_last:
        import torch._inductor.config as inductor
        inductor.layout_optimization = False
    model = VQModel(VQConfig()).to(device, memory_format=memory_format)
    if args.resume:
        model.load_state_dict({k: v.float() for k, v in torch.load(args.resume, map_location=device)["model"].items()})
    trainer = Trainer(model, args.lr, weight_decay=1e-4, seconds=args.seconds)
    compiled = compiled_on(device, model)
    print(f"{count_parameters(model)} parameters", flush=True)

    held_out = data.held_out.nonzero().flatten()
    train = (data.is_emoji & ~data.held_out).nonzero().flatten()
    if args.resume:
        print(f"before: held-out {psnr(model, data, held_out)[0]:.2f} dB", flush=True)
    idle = torch.zeros(model.config.codebook_size, device=device)
    report = 0.1
    while trainer.running():
        pixels = data.augmented(data.draw(BATCH), share=0.7).contiguous(memory_format=memory_format)
        with torch.autocast(device, torch.bfloat16):
            out, z, code, index = compiled(pixels)
        loss = picture_loss(out.float(), pixels) + F.mse_loss(code, z.detach()) + COMMITMENT * F.mse_loss(z, code.detach())
        trainer.step(loss)

        idle += 1
        idle[index.flatten()] = 0
        if trainer.steps % 50 == 0 and trainer.share < RESTART_UNTIL:
            stale = (idle > RESTART_AFTER).nonzero().flatten()
            latents = z.detach().flatten(0, 2)
            fresh = latents[torch.randint(len(latents), (len(stale),), device=device)]
            for weight in (model.quantize.embedding.weight, trainer.averaged.quantize.embedding.weight):
                weight.data[stale] = fresh
            idle[stale] = 0
        if trainer.share >= report:
            report += 0.1
            value, codes = psnr(trainer.averaged, data, held_out)
            print(f"{trainer.line()}  held-out {value:.2f} dB, {len(codes.unique())} codes, {int((idle > 50).sum())} idle", flush=True)

    args.out.mkdir(parents=True, exist_ok=True)
    save_checkpoint(args.out / "vq.pt", trainer.averaged, held_out_psnr=psnr(trainer.averaged, data, held_out)[0])
    value, codes = psnr(trainer.averaged, data, train)
    print(f"{trainer.line()}  training pictures {value:.2f} dB, {len(codes.unique())} codes used", flush=True)
    shown = held_out[torch.linspace(0, len(held_out) - 1, 24, device=device).long()]
    pixels = data.pixels(shown)
    save_grid(args.out / "vq.png", torch.stack([pixels, trainer.averaged.decode(trainer.averaged.encode(pixels))], 1).flatten(0, 1), 8)


if __name__ == "__main__":
    main()
