#!/usr/bin/env python3
"""The work of tests/bench/speech_bench.cpp and of `volley bench text` in PyTorch: same sizes, random weights.

  whisper-encoder-bN  whisper-small's encoder: log-mel [N, 80, 3000] to rows [N, 1500, 768] in f32, both on the device;
                      without and with copying the rows to the host, into pinned memory
  whisper-decoder     its decoder: 200 greedy tokens one by one, a cache of 448 entries, cross-attention to 1500 rows
                      whose keys and values are made before the timing
  smollm2             SmolLM2-135M's shape, a Llama: 256 greedy tokens one by one, a cache of 512 entries

The likeliest token is found on the device and goes into the next step there; the host reads it in every step (8 bytes,
and it waits for them), as a loop that stops at an end token does. Modes:
  eager   as it is written; a step attends the filled part of the cache
  graphs  torch.compile with CUDA graphs (mode reduce-overhead) of one step, or of the encoder; a step attends the whole
          cache under a mask. On a processor, where there are no such graphs, this is torch.compile's default mode
f32 is PyTorch's default, with TF32 in convolutions. Every case has a process of its own. Needs torch; graphs need g++.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from memory_watch import MemoryWatch
from torch_image import names

WHISPER = {"width": 768, "kv_width": 768, "inner": 3072, "layers": 12, "vocabulary": 51865, "entries": 448,
           "rows": 1500, "norm": nn.LayerNorm, "first": 50258, "tokens": 200}
SMOLLM2 = {"width": 576, "kv_width": 192, "inner": 1536, "layers": 30, "vocabulary": 49152, "entries": 512,
           "rows": 0, "norm": nn.RMSNorm, "first": 1, "tokens": 256}
CASES = ["whisper-encoder-b1", "whisper-encoder-b16", "whisper-decoder", "smollm2"]
HEAD = 64  # width of a head, everywhere
split = lambda x: x.unflatten(-1, (-1, HEAD)).transpose(1, 2)  # [B, T, H D] to heads [B, H, T, D]


class Attention(nn.Module):
    """Its buffers are a cache, a memory, or empty. A step writes to buffers only: of one that writes to other tensors,
    whose addresses might change, no CUDA graph is made."""

    def __init__(self, size, entries, is_memory=False):
        super().__init__()
        width, kv_width, bias, self.is_memory = size["width"], size["kv_width"], size is WHISPER, is_memory
        self.norm = size["norm"](width, 1e-5)
        self.q, self.k = nn.Linear(width, width, bias=bias), nn.Linear(width, kv_width, bias=False)
        self.v, self.out = nn.Linear(width, kv_width, bias=bias), nn.Linear(width, width, bias=bias)
        self.keys, self.values = (nn.Buffer(torch.zeros(1, kv_width // HEAD, entries, HEAD)) for _ in range(2))

    def forward(self, x, position=None, length=None, mask=None, rotate=lambda heads: heads):
        """To the memory, or among x's rows, or to `length` entries of the cache, or all, with x put at `position`."""
        y = self.norm(x)
        q, keys, values = rotate(split(self.q(y))), self.keys, self.values
        if not self.is_memory:
            keys, values = rotate(split(self.k(y))), split(self.v(y))
        if position is not None:
            keys = self.keys.index_copy_(2, position, keys)[:, :, :length]
            values = self.values.index_copy_(2, position, values)[:, :, :length]
        # The queries of a key head become its rows: grouped attention by every kernel, also by those with a mask.
        o = F.scaled_dot_product_attention(q.reshape(len(q), keys.shape[1], -1, HEAD), keys, values, attn_mask=mask)
        return x + self.out(o.reshape(q.shape).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Of Whisper or of a Llama; with `rows`, it also attends a memory of so many."""

    def __init__(self, size, entries=0, rows=0):
        super().__init__()
        width, inner, bias = size["width"], size["inner"], size is WHISPER
        self.attention, self.cross = Attention(size, entries), Attention(size, rows, is_memory=True) if rows else None
        self.norm, self.gate = size["norm"](width, 1e-5), None if bias else nn.Linear(width, inner, bias=False)
        self.up, self.down = nn.Linear(width, inner, bias=bias), nn.Linear(inner, width, bias=bias)

    def forward(self, x, *place):
        x = self.attention(x, *place)
        x = x if self.cross is None else self.cross(x)
        y = self.norm(x)
        return x + self.down(F.gelu(self.up(y)) if self.gate is None else F.silu(self.gate(y)) * self.up(y))


class Encoder(nn.Module):
    def __init__(self, size, batch):
        super().__init__()
        width, bands = size["width"], 80
        self.convolutions = nn.Sequential(nn.Conv1d(bands, width, 3, padding=1), nn.GELU(),
                                          nn.Conv1d(width, width, 3, stride=2, padding=1), nn.GELU())
        self.positions = nn.Parameter(torch.randn(size["rows"], width) * 0.02)
        self.layers = nn.Sequential(*(Layer(size) for _ in range(size["layers"])), size["norm"](width, 1e-5))
        self.mel = nn.Buffer(torch.rand(batch, bands, 2 * size["rows"]) * 2 - 1)

    def forward(self):
        return self.layers(self.convolutions(self.mel).transpose(1, 2) + self.positions).float()


class Decoder(nn.Module):
    """Makes a token out of `token` at `position`, which are set from outside."""

    def __init__(self, size):
        super().__init__()
        width, entries = size["width"], size["entries"]
        self.embedding = nn.Parameter(torch.randn(size["vocabulary"], width) * 0.02)
        self.positions = nn.Parameter(torch.randn(entries, width) * 0.02) if size is WHISPER else None
        self.layers = nn.ModuleList(Layer(size, entries, size["rows"]) for _ in range(size["layers"]))
        self.norm = size["norm"](width, 1e-5)
        angles = torch.outer(torch.arange(entries), 1e5 ** (-torch.arange(0, HEAD, 2) / HEAD))
        self.cosine = nn.Buffer(angles.cos().repeat(1, 2))
        self.sine = nn.Buffer(torch.cat((-angles.sin(), angles.sin()), -1))
        self.places, self.token, self.position = (nn.Buffer(torch.arange(n)) for n in (entries, 1, 1))

    def forward(self, length=None):
        """`length` entries are filled with this step's; without it all are attended under a mask."""
        mask = (self.places <= self.position)[None, None, None] if length is None else None
        x, place = F.embedding(self.token, self.embedding)[None], (self.position, length, mask)
        if self.positions is not None:
            x = x + self.positions[self.position]
        else:
            cosine, sine = self.cosine[self.position], self.sine[self.position]
            place += (lambda heads: heads * cosine + heads.roll(HEAD // 2, -1) * sine,)  # roll exchanges the halves
        for layer in self.layers:
            x = layer(x, *place)
        return F.linear(self.norm(x)[:, 0], self.embedding).argmax(-1)


@torch.no_grad()
def build(case, dtype, device):
    """A case's model and its sizes."""
    size, dtype = SMOLLM2 if case == "smollm2" else WHISPER, {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    torch.manual_seed(0)
    with torch.device(device):
        model = Encoder(size, int(case.split("-b")[1])) if "encoder" in case else Decoder(size)
        model = model.to(dtype).eval().requires_grad_(False)
        if case == "whisper-decoder":
            rows = torch.randn(1, size["rows"], size["width"], dtype=dtype)
            for cross in (layer.cross for layer in model.layers):
                cross.keys, cross.values = split(cross.k(rows)).contiguous(), split(cross.v(rows)).contiguous()
    return model, size


def generate(model, step, size):
    """Greedy tokens. What a graph returned is copied before the graph runs again."""
    model.token.fill_(size["first"])
    model.position.zero_()
    tokens = []
    for position in range(size["tokens"]):
        model.token.copy_(step(position + 1))
        model.position.add_(1)
        tokens.append(model.token.item())
    return tokens


def run_one(args):
    """One case in this process."""
    torch.set_num_threads(args.threads)
    on_card, case, mode = args.device == "cuda", args.case[0], args.mode[0]
    watch = None if on_card else MemoryWatch()
    model, size = build(case, args.dtype[0], args.device)
    torch.cuda.reset_peak_memory_stats() if on_card else watch.take_peak()  # building is not part of the comparison
    compiled = torch.compile(model, mode="reduce-overhead", dynamic=False) if mode == "graphs" else None

    def step(*length):
        if mode == "eager":
            return model(*length)
        torch.compiler.cudagraph_mark_step_begin()
        return compiled()

    def seconds(function):
        start = time.perf_counter()
        function()
        if on_card:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    run = step if "encoder" in case else lambda: generate(model, step, size)
    report = {"case": case, "dtype": args.dtype[0], "mode": mode, "torch": torch.__version__, "threads": args.threads,
              "load_average": Path("/proc/loadavg").read_text().split()[:3], "read_seconds": [],
              "weight_bytes": sum(p.nbytes for p in model.parameters()), "tokens": size["tokens"]}
    with torch.inference_mode() if mode == "eager" else torch.no_grad():
        report["first_run_seconds"] = seconds(run)
        for _ in range(2 if on_card else 0):  # a graph is recorded in the second run
            run()
        report["seconds"] = [seconds(run) for _ in range(args.repeats)]
        if "encoder" in case:
            host = torch.empty(len(model.mel), size["rows"], size["width"], pin_memory=on_card)
            read = lambda: host.copy_(run(), non_blocking=True)
            report |= {"tokens": 0, "read_seconds": [seconds(read) for _ in range(args.repeats)]}
    report["graphs_skipped"] = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] if mode == "graphs" else 0
    report["peak_bytes"] = torch.cuda.max_memory_allocated() if on_card else watch.take_peak()
    print(json.dumps(report))


def spawn(args, case, dtype, mode):
    """The report of one case, or why there is none."""
    command = [sys.executable, __file__, "--one", "--case", case, "--dtype", dtype, "--mode", mode, "--threads",
               str(args.threads), "--repeats", str(args.repeats), "--device", args.device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout)
        if done.returncode == 0:
            return json.loads(done.stdout.strip().splitlines()[-1])
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        failure = next((line for line in reversed(lines) if "Error" in line), lines[-1])
    except subprocess.TimeoutExpired:
        failure = f"no end after {args.timeout} s"
    return {"case": case, "dtype": dtype, "mode": mode, "failure": failure}


def table(reports):
    times = lambda seconds: f"{statistics.median(seconds) * 1e3:.2f} | {min(seconds) * 1e3:.2f}" if seconds else "- | -"
    lines = ["| case (R) | weights | PyTorch | median ms | fastest ms | read by the host: median ms | fastest ms | "
             "tokens/s | first run s |", "|---|---|---|---|---|---|---|---|---|"]
    for r in reports:
        skipped = " (graphs skipped)" if r.get("graphs_skipped") else ""
        name = f"| {r['case']} | {r['dtype']} | {r['mode']}{skipped}"
        if "failure" in r:
            lines.append(f"{name} | failed: {r['failure'].replace('|', '/')} ||||||")
            continue
        rate = f"{r['tokens'] / statistics.median(r['seconds']):.0f}" if r["tokens"] else "-"
        lines.append(f"{name} | {times(r['seconds'])} | {times(r['read_seconds'])} | {rate} | "
                     f"{r['first_run_seconds']:.1f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=names(CASES), default=CASES)
    parser.add_argument("--dtype", type=names(["f32", "bf16"]), default=["bf16"])
    parser.add_argument("--mode", type=names(["eager", "graphs"]), default=["eager", "graphs"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds a case may take")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return run_one(args)
    cases = []
    for case, dtype, mode in itertools.product(args.case, args.dtype, args.mode):
        cases.append(spawn(args, case, dtype, mode))
        print(f"{case} {dtype} {mode} done", file=sys.stderr)
    print(json.dumps({"schema": "volley.torch_sequences/1", "cases": cases}, indent=1) if args.json else table(cases))


if __name__ == "__main__":
    main()
