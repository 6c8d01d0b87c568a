#!/usr/bin/env python3
"""The image models of tests/bench/image_bench.cpp in PyTorch: same sizes, steps, guidance and report.

The networks are those of tools/train (published architectures, written from the papers); here they get caches of fixed
size. Weights are random. Modes:
  eager         each step attends the filled part of the caches
  compile       torch.compile with its default mode; shapes are padded so that there are few of them
  freeze        the same with inductor's freezing, which packs the weights once
  max-autotune  freezing and mode max-autotune, which also tries inductor's own matrix kernels
  graphs        torch.compile with CUDA graphs (mode reduce-overhead), for --device cuda
Every case runs in a process of its own. Needs torch, and g++ for the compiled modes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from memory_watch import MemoryWatch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "train"))

CASES = ["arpg-b1", "arpg-b4", "llamagen-b1", "llamagen-b4", "vq-b1", "vq-b4"]  # by default; any batch can be named
CASE = r"(arpg|arpg-xl|arpg-xxl|llamagen|vq)-b([1-9][0-9]*)(?:-s([1-9][0-9]*))?"
MODES = ["eager", "compile", "freeze", "max-autotune", "graphs"]
CELLS, CLASSES, CLASS_ID, STEPS = 256, 1000, 207, 64
SIZES = {"arpg": (1024, 24), "arpg-xl": (1280, 36), "arpg-xxl": (1536, 48), "llamagen": (1024, 24)}  # width, layers


def build(torch, family, dtype):
    """A model of published size with random weights."""
    from arpg import ARPG, ARPGConfig
    from llamagen import LlamaGen, LlamaGenConfig
    from vq_model import VQConfig, VQModel
    dim, layers = SIZES.get(family, (0, 0))
    sizes = {"dim": dim, "n_layer": layers, "n_head": dim // 64, "ffn_dim": (8 * dim // 3 + 255) // 256 * 256,
             "vocab_size": 16384, "block_size": CELLS}
    torch.manual_seed(0)
    if family.startswith("arpg"):
        model = ARPG(ARPGConfig(dropout=0.0, **sizes))
        torch.nn.init.normal_(model.head.weight, std=0.02)
    elif family == "llamagen":
        model = LlamaGen(LlamaGenConfig(dropout=0.0, **sizes))
        torch.nn.init.normal_(model.output.weight, std=0.02)
    else:
        model = VQModel(VQConfig(128, (1, 1, 2, 2, 4), 256, 16384, 8, 2))
    if family != "vq":  # the published models are conditioned on classes, and on nothing for the guidance partner
        model.cls_embedding = torch.nn.Embedding(CLASSES + 1, dim)
    model = model.eval().requires_grad_(False)
    rope = getattr(model, "rope", None)
    model = model.to(dtype)
    if rope is not None:
        model.rope = rope  # angles stay f32, as the authors have them
    return model


def caches(torch, count, rows, entries, heads, dtype):
    """Keys and values of `count` layers, [B, entries, H, D] each. Their addresses stay: of a step that updates others no
    CUDA graph is made."""
    made = [tuple(torch.zeros(rows, entries, heads, 64, dtype=dtype) for _ in range(2)) for _ in range(count)]
    for tensor in (tensor for pair in made for tensor in pair):
        torch._dynamo.mark_static_address(tensor)
    return made


def make_attend(torch):
    import torch.nn.functional as F

    def attend(q, k, v, mask):
        """[B, T, H, D] each; mask [S] of the visible entries, or None for all."""
        mask = None if mask is None else mask[None, None, None]
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
        return out.transpose(1, 2).flatten(2)

    return attend


class LlamaGenRun:
    """256 tokens one after the other, with guidance."""

    def __init__(self, torch, model, batch, dtype, wrap):
        self.torch, self.model, self.batch = torch, model, batch
        self.static = wrap is not None
        self.caches = caches(torch, len(model.layers), 2 * batch, CELLS, 16, dtype)
        attend = make_attend(torch)
        from blocks import rotate

        def step(x, position, length, mask):
            """x: [B, 1, C] at `position` [1]; attends the first `length` entries under `mask`."""
            rope = model.rope[position]
            for layer, (keys, values) in zip(model.layers, self.caches):
                a = layer.attention
                q, k, v = (t.unflatten(-1, (a.n_head, -1)) for t in a.wqkv(layer.attention_norm(x)).chunk(3, -1))
                q, k = rotate(q, rope), rotate(k, rope)
                keys.index_copy_(1, position, k)
                values.index_copy_(1, position, v)
                x = x + a.wo(attend(q, keys[:, :length], values[:, :length], mask))
                x = x + layer.feed_forward(layer.ffn_norm(x))
            return model.output(model.norm(x))[:, 0].float()

        self.step = wrap(step) if wrap else step

    def __call__(self):
        from blocks import guided_sample
        torch, model, batch = self.torch, self.model, self.batch
        classes = torch.tensor([CLASS_ID] * batch + [CLASSES] * batch)
        x, tokens = model.cls_embedding(classes)[:, None], []
        for position in range(CELLS):
            place = torch.tensor([position])
            mask = torch.arange(CELLS) <= position if self.static else None
            logits = self.step(x, place, CELLS if self.static else position + 1, mask)
            cond, uncond = logits.split(batch)
            tokens.append(guided_sample(cond, uncond, 4.0, 1.0, 2000))
            x = model.tok_embeddings(tokens[-1].repeat(2))[:, None]
        return {"forwards": CELLS, "rows": 2 * batch * CELLS, "tokens": batch * CELLS}


class ArpgRun:
    """Some steps in a random order, with guidance. Compiled, rows are padded to a power of two from 8 on; padded content
    goes to the caches' last entry, which nobody sees."""

    def __init__(self, torch, model, batch, dtype, wrap, steps=STEPS):
        self.torch, self.model, self.batch, self.steps = torch, model, batch, steps
        self.static = wrap is not None
        layers = model.layers
        self.caches = caches(torch, len(layers.self_dec) + 1, 2 * batch, CELLS + 2, layers.n_head,
                             dtype)
        attend = make_attend(torch)
        from blocks import rotate

        def heads(x):
            return x.unflatten(-1, (layers.n_head, -1))

        def step(x, content, slots, target, length, mask):
            """x [B, T, C] at positions `content` [T] goes to entries `slots` [T]; logits [B, Q, V] at `target` [Q]."""
            content_rope, target_rope = model.rope[content], model.rope[target]
            for layer, (keys, values) in zip(layers.self_dec, self.caches):
                a, y = layer.attn, layer.attn_norm(x)
                keys.index_copy_(1, slots, rotate(heads(a.to_k(y)), content_rope))
                values.index_copy_(1, slots, heads(a.to_v(y)))
                q = rotate(heads(a.to_q(y)), content_rope)
                x = x + a.proj(attend(q, keys[:, :length], values[:, :length], mask))
                x = x + layer.ffn(layer.ffn_norm(x))
            x = layers.norm(x)
            keys, values = self.caches[-1]
            keys.index_copy_(1, slots, rotate(heads(layers.to_k(x)), content_rope))
            values.index_copy_(1, slots, heads(layers.to_v(x)))
            o = model.embeddings.weight[model.mask_id].expand(len(x), target.shape[0], -1)
            for layer in layers.cross_dec:
                a = layer.attn
                q = rotate(heads(a.to_q(layer.attn_norm(o))), target_rope)
                o = o + a.proj(attend(q, keys[:, :length], values[:, :length], mask))
                o = o + layer.ffn(layer.ffn_norm(o))
            return model.head(model.norm(o)).float()

        self.step = wrap(step) if wrap else step

    def missing(self, count):
        """Rows that pad `count` of them."""
        size = 8
        while size < count:
            size *= 2
        return size - count if self.static else 0

    def pad(self, values, filler):
        return self.torch.nn.functional.pad(values, (0, self.missing(values.shape[-1])), value=filler)

    def __call__(self):
        from arpg import step_sizes
        from blocks import guided_sample
        torch, model, batch = self.torch, self.model, self.batch
        order = torch.randperm(CELLS)
        x = model.cls_embedding(torch.tensor([CLASS_ID] * batch + [CLASSES] * batch))[:, None]
        content, filled, done, rows, forwards = torch.zeros(1, dtype=torch.long), 0, 0, 0, 0
        for size in step_sizes(CELLS, self.steps, "arccos"):
            cells = order[done:done + size]
            slots = torch.arange(filled, filled + content.shape[0])
            filled += content.shape[0]
            done += size
            length = CELLS + 2 if self.static else filled
            mask = torch.arange(length) < filled if self.static else None
            x = torch.nn.functional.pad(x, (0, 0, 0, self.missing(x.shape[1])))
            logits = self.step(x, self.pad(content, 0), self.pad(slots, CELLS + 1),
                               self.pad(cells + 1, 1), length, mask)[:, :size]
            cond, uncond = logits.split(batch)
            tokens = guided_sample(cond, uncond, 1 + 4 * done / CELLS, 1.0, 0)
            rows += 2 * batch * (content.shape[0] + size)
            forwards += 1
            x, content = model.embeddings(tokens.repeat(2, 1)), cells + 1
        return {"forwards": forwards, "rows": rows, "tokens": batch * CELLS}


class VqRun:
    """Codes to 256 x 256 pixels."""

    def __init__(self, torch, model, batch, dtype, wrap):
        codes = model.quantize.codes()[torch.arange(CELLS) * 7919 % 16384]
        self.codes = codes.to(dtype).view(1, 16, 16, -1).permute(0, 3, 1, 2).repeat(batch, 1, 1, 1)

        def decode(z):
            return model.decoder(model.post_quant_conv(z)).clamp(-1, 1)

        self.decode = wrap(decode) if wrap else decode

    def __call__(self):
        pixels = self.decode(self.codes)
        (pixels.float() * 127.5 + 128).clamp(0, 255).byte()
        return {"forwards": 0, "rows": 0, "tokens": 0}


def run_one(args):
    """One case in this process."""
    import torch
    watch = MemoryWatch()
    torch.set_num_threads(args.threads)
    torch.set_default_device(args.device)
    finish = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype[0]]
    case, mode = args.case[0], args.mode[0]
    family, batch, steps = re.fullmatch(CASE, case).groups()
    wrap = None
    if mode != "eager":
        import torch._inductor.config as inductor
        inductor.freezing = mode not in ("compile", "graphs")

        def wrap(function):
            inductor_mode = {"max-autotune": "max-autotune", "graphs": "reduce-overhead"}.get(mode, "default")
            return torch.compile(function, mode=inductor_mode, dynamic=False)

    model = build(torch, family, dtype)
    # What the constructor needed before the weights got their type is not part of the comparison.
    watch.take_peak()
    options = {"steps": int(steps)} if steps else {}
    made = {"arpg": ArpgRun, "llamagen": LlamaGenRun, "vq": VqRun}[family.split("-")[0]]
    run = made(torch, model, int(batch), dtype, wrap, **options)
    report = {"case": case, "dtype": args.dtype[0], "mode": mode, "torch": torch.__version__, "threads": args.threads,
              "load_average": Path("/proc/loadavg").read_text().split()[:3],
              "weight_bytes": sum(p.numel() * p.element_size() for p in model.parameters())}
    with torch.inference_mode() if mode == "eager" else torch.no_grad():
        start = time.perf_counter()
        report |= run()
        finish()
        report["first_run_seconds"] = time.perf_counter() - start
        report["first_run_peak_bytes"] = watch.take_peak()
        report["seconds"] = []
        for _ in range(args.repeats):
            start = time.perf_counter()
            run()
            finish()
            report["seconds"].append(time.perf_counter() - start)
    report["peak_bytes"] = torch.cuda.max_memory_allocated() if args.device == "cuda" else watch.take_peak()
    print(json.dumps(report))


def spawn(args, case, dtype, mode):
    """The report of one case, or why there is none."""
    command = [sys.executable, __file__, "--one", "--case", case, "--dtype", dtype, "--mode", mode, "--threads",
               str(args.threads), "--repeats", str(args.repeats), "--device", args.device]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout, env=environment)
    except subprocess.TimeoutExpired:
        return {"case": case, "dtype": dtype, "mode": mode, "failure": f"no end after {args.timeout} s"}
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        return {"case": case, "dtype": dtype, "mode": mode, "failure": last}
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(reports):
    mib = 1024.0 * 1024.0
    lines = ["| case (R) | weights | PyTorch | median s | fastest s | forwards | rows/forward | tokens/forward | "
             "first run s | weights MiB | peak run MiB |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for r in reports:
        if "failure" in r:
            lines.append(f"| {r['case']} | {r['dtype']} | {r['mode']} | failed: {r['failure']} |||||||||")
            continue
        seconds = sorted(r["seconds"])
        middle = (seconds[(len(seconds) - 1) // 2] + seconds[len(seconds) // 2]) / 2
        per = lambda x: f"{x / r['forwards']:.1f}" if r["forwards"] else "-"
        lines.append(f"| {r['case']} | {r['dtype']} | {r['mode']} | {middle:.3f} | {seconds[0]:.3f} | {r['forwards']} | "
                     f"{per(r['rows'])} | {per(r['tokens'])} | {r['first_run_seconds']:.1f} | "
                     f"{r['weight_bytes'] / mib:.0f} | {r['peak_bytes'] / mib:.0f} |")
    return "\n".join(lines)


def case_names(text):
    chosen = text.split(",")
    for name in chosen:
        match = re.fullmatch(CASE, name)
        if not match or match[3] and not match[1].startswith("arpg"):
            raise argparse.ArgumentTypeError(f"{name}: expected arpg[-xl|-xxl]-bN[-sSTEPS], llamagen-bN or vq-bN")
    return chosen


def names(choices):
    def parse(text):
        chosen = text.split(",")
        for name in chosen:
            if name not in choices:
                raise argparse.ArgumentTypeError(f"{name}: expected some of {', '.join(choices)}")
        return chosen
    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=case_names, default=CASES)
    parser.add_argument("--dtype", type=names(["f32", "bf16"]), help="default: bf16, and f32 too for vq")
    parser.add_argument("--mode", type=names(MODES), default=["eager", "freeze"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds a case may take")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return run_one(args)
    reports = []
    for case in args.case:
        for dtype in args.dtype or (["f32", "bf16"] if case.startswith("vq") else ["bf16"]):
            for mode in args.mode:
                reports.append(spawn(args, case, dtype, mode))
                print(f"{case} {dtype} {mode} done", file=sys.stderr)
    print(json.dumps({"schema": "volley.torch_image/1", "cases": reports}, indent=1) if args.json else table(reports))


if __name__ == "__main__":
    main()
