#!/usr/bin/env python3
"""The operations of tests/bench/layer_bench.cpp in PyTorch on a CUDA card, where cuBLAS chooses kernels by the row count:
what a layer costs that need not give the same bits in every company. Chains over the weights of 24 layers, bf16, recorded
as a CUDA graph and replayed; microseconds of one operation.
"""

import argparse
import time

import torch
import torch.nn.functional as F

DIM, FEED_FORWARD, LAYERS, REPLAYS = 1024, 2816, 24, 20


def make_layers():
    weight = lambda out, width: torch.randn(out, width, device="cuda", dtype=torch.bfloat16) * 0.02
    return [{"qkv": weight(3 * DIM, DIM), "out": weight(DIM, DIM), "gate_up": weight(2 * FEED_FORWARD, DIM),
             "down": weight(DIM, FEED_FORWARD)} for _ in range(LAYERS)]


def project(layer, x, ones):
    F.linear(F.rms_norm(x, (DIM,), ones, 1e-5), layer["qkv"])
    return x


def join(layer, x, ones):
    return torch.addmm(x, x, layer["out"].T)


def feed_forward(layer, x, ones):
    gate, up = F.linear(F.rms_norm(x, (DIM,), ones, 1e-5), layer["gate_up"]).chunk(2, -1)
    return torch.addmm(x, F.silu(gate) * up, layer["down"].T)


def everything(layer, x, ones):
    return feed_forward(layer, join(layer, project(layer, x, ones), ones), ones)


@torch.inference_mode()
def measure(layers, rows, operation):
    ones = torch.ones(DIM, device="cuda", dtype=torch.bfloat16)
    start = torch.full((rows, DIM), 0.5, device="cuda", dtype=torch.bfloat16)

    def chain():
        x = start
        for layer in layers:
            x = operation(layer, x, ones)
        return x

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            chain()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        chain()
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(REPLAYS):
        graph.replay()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e6 / (REPLAYS * LAYERS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 8, 16, 32, 128, 512])
    args = parser.parse_args()
    operations = {"norm, q k v": project, "attention's output": join, "norm, feed-forward": feed_forward,
                  "all of these": everything}
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, bf16; microseconds of one operation\n")
    print("| rows | " + " | ".join(operations) + " |\n" + "|---" * (len(operations) + 1) + "|")
    layers = make_layers()
    for rows in args.rows:
        print(f"| {rows} | " + " | ".join(f"{measure(layers, rows, op):.2f}" for op in operations.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
