#!/usr/bin/env python3
"""The forwards of tests/bench/diffusion_bench.cpp in PyTorch: the same weights, prompt, shapes and rows.

The network is written from the paper (Nie et al., "Large Language Diffusion Models": a Llama without the causal mask), the
caches from Wu et al., "Fast-dLLM". A forward makes the logits of the block's rows only, and takes the likeliest token and
its probability of each. Weights are those of diffusion_bench's folder, mapped. Modes:
  eager         as it is written
  compile       torch.compile of each layer and of the head
  freeze        the same with inductor's freezing, which makes packed copies of the weights
  max-autotune  freezing, and inductor's own matrix kernels to choose from
Frozen modes compile every layer anew and, like --dtype f32, hold more than the weights' own memory: --layers runs the
first of the layers only.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from memory_watch import MemoryWatch

KINDS = ["full", "prefix", "dual"]


def open_weights(folder):
    """name -> tensor, views of the mapped shards."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(header_size))
        storage = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=path.stat().st_size)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            dtype = {"BF16": torch.bfloat16, "F32": torch.float32}[entry["dtype"]]
            begin, end = (8 + header_size + offset for offset in entry["data_offsets"])
            tensors[name] = torch.tensor([], dtype=dtype).set_(
                storage, begin // dtype.itemsize, entry["shape"])
            assert tensors[name].nbytes == end - begin and begin % dtype.itemsize == 0
    return tensors


def rms_norm(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-5)


def rotate(x, cosine, sine):
    """x: [T, H, D]; halves are rotated against each other in f32."""
    first, second = x.float().chunk(2, -1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1).to(x.dtype)


class Layer(torch.nn.Module):
    def __init__(self, weights, prefix, heads, dtype):
        super().__init__()
        self.heads = heads
        for name in ("attn_norm", "q_proj", "k_proj", "v_proj", "attn_out", "ff_norm", "ff_proj", "up_proj", "ff_out"):
            weight = weights[f"{prefix}{name}.weight"].to(dtype)
            self.register_parameter(name, torch.nn.Parameter(weight, requires_grad=False))

    def forward(self, x, cosine, sine, keys, values, begin: int):
        """x: [T, C] at entries `begin` on; keys, values: [S, H, D] of all entries, of which x's are replaced."""
        end = begin + x.shape[0]
        y = rms_norm(x, self.attn_norm)
        q, k, v = (F.linear(y, w).unflatten(-1, (self.heads, -1)) for w in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        keys[begin:end] = k
        values[begin:end] = v
        o = F.scaled_dot_product_attention(*(t.transpose(0, 1)[None] for t in (q, keys, values)))[0]
        x = x + F.linear(o.transpose(0, 1).flatten(1), self.attn_out)
        y = rms_norm(x, self.ff_norm)
        return x + F.linear(F.silu(F.linear(y, self.ff_proj)) * F.linear(y, self.up_proj), self.ff_out)


class Head(torch.nn.Module):
    def __init__(self, weights, dtype):
        super().__init__()
        for name in ("ln_f", "ff_out"):
            weight = weights[f"model.transformer.{name}.weight"].to(dtype)
            self.register_parameter(name, torch.nn.Parameter(weight, requires_grad=False))

    def forward(self, x):
        """The likeliest tokens of rows [n, C] and their probabilities."""
        probability, token = F.linear(rms_norm(x, self.ln_f), self.ff_out).float().softmax(-1).max(-1)
        return token, probability


class Llada:
    def __init__(self, folder, layers, dtype, wrap, entries):
        config = json.loads((folder / "config.json").read_text())
        weights = open_weights(folder)
        self.config, self.dtype = config, dtype
        heads, width = config["n_heads"], config["d_model"] // config["n_heads"]
        prefix = "model.transformer."
        self.count = layers or config["n_layers"]
        self.layers = [wrap(Layer(weights, f"{prefix}blocks.{i}.", heads, dtype).eval()) for i in range(self.count)]
        self.head = wrap(Head(weights, dtype).eval())
        self.wte = weights[prefix + "wte.weight"]
        frequencies = config["rope_theta"] ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angles = torch.outer(torch.arange(entries, dtype=torch.float64), frequencies)[:, None]  # [S, 1, D / 2]
        self.cosine, self.sine = angles.cos().float(), angles.sin().float()
        self.caches = [tuple(torch.zeros(entries, heads, width, dtype=dtype) for _ in range(2)) for _ in range(self.count)]

    def forward(self, tokens, begin, wanted):
        """tokens: [T] at entries `begin` on; entries there are replaced, the others read. Returns the likeliest tokens of
        the rows `wanted` (a slice) and their probabilities."""
        end = begin + tokens.shape[0]
        x = F.embedding(tokens, self.wte).to(self.dtype)
        for layer, (keys, values) in zip(self.layers, self.caches):
            x = layer(x, self.cosine[begin:end], self.sine[begin:end], keys, values, begin)
        return self.head(x[wanted])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="folder that diffusion_bench made")
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--mode", choices=["eager", "compile", "freeze", "max-autotune"], default="eager")
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--layers", type=int, default=0, help="of the model's first [all]")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[args.dtype]

    def wrap(layer):
        if args.mode == "eager":
            return layer
        import torch._dynamo.config as dynamo
        import torch._inductor.config as inductor
        inductor.freezing = args.mode != "compile"
        dynamo.cache_size_limit = 1024  # a layer is compiled for each kind of forward, a frozen one for itself
        return torch.compile(layer, mode="max-autotune" if args.mode == "max-autotune" else "default", dynamic=False)

    watch = MemoryWatch()
    model = Llada(args.weights, args.layers, dtype, wrap, args.prompt + args.tokens)
    words = model.config["vocab_size"] - 2
    prompt = torch.arange(args.prompt) * 7919 % words
    canvas = torch.cat((prompt, torch.full((args.tokens,), model.config["mask_token_id"])))
    block = args.prompt + args.block
    # What runs, from which entry on, and the block's rows in it.
    steps = {"full": (canvas, 0, slice(args.prompt, block)),
             "prefix": (canvas[args.prompt:], args.prompt, slice(0, args.block)),
             "dual": (canvas[args.prompt:block], args.prompt, slice(0, args.block))}
    load = Path("/proc/loadavg").read_text().split()[:3]
    print(f"PyTorch {torch.__version__}, {args.mode}, {model.count} layers, {args.threads} threads, {torch.backends.cpu.get_cpu_capability()}; "
          f"load average {' '.join(load)}\n\n| forward (R) | weights | PyTorch | rows | median s | fastest s | first s |\n|---|---|---|---|---|---|---|")
    with torch.inference_mode() if args.mode == "eager" else torch.no_grad():
        for kind in KINDS:
            if kind not in args.kind:
                continue
            seconds = []
            for _ in range(args.repeats + 1):
                faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
                start = time.perf_counter()
                token, probability = model.forward(*steps[kind])
                seconds.append(time.perf_counter() - start)
                faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults
            timed = sorted(seconds[1:])
            middle = (timed[(len(timed) - 1) // 2] + timed[len(timed) // 2]) / 2
            print(f"| {kind} | {args.dtype} | {args.mode} | {len(steps[kind][0])} | {middle:.3f} | {timed[0]:.3f} | {seconds[0]:.1f} |",
                  flush=True)
            if kind == "full":
                guesses = token.tolist()
            if faults:
                print(f"(the last of these waited for the disk {faults} times)")
    if "full" in args.kind:
        print("\nlikeliest tokens of the first block:", *guesses)
    print(f"anonymous memory at most {watch.take_peak() / 2**20:.0f} MiB; load average {' '.join(Path('/proc/loadavg').read_text().split()[:3])}")


if __name__ == "__main__":
    main()
