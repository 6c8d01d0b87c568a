#!/usr/bin/env python3
"""Prefill and sequential decoding by llama-cpp-python, for comparison with `volley bench text`.

    python3 tools/bench/llama_cpp_peer.py model.gguf [--prompt-tokens 512] [--tokens 128] [--repeat 6]
                                          [--threads 2] [--flash-attention]

Prefill runs a prompt of that many tokens in one batch; decoding calls llama_decode with one token at a time and chooses
the next without looking at the logits, so that no sampler of Python's counts. One repetition to warm up is left out.
Needs PyPI llama-cpp-python; build it on the machine it runs on (GGML_NATIVE=ON, its default).
"""
import argparse
import statistics
import time

import llama_cpp

WORDS = "The quick brown fox jumps over the lazy dog while seven boxing wizards watch from the old stone bridge. "


def memory_clear(context):
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)


def decode_seconds(context, first, tokens):
    memory_clear(context)
    one = (llama_cpp.llama_token * 1)()
    token = first
    start = time.perf_counter()
    for _ in range(tokens):
        one[0] = token
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(one, 1)) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_get_logits_ith(context, -1)
        token = (token * 7 + 13) % 40000
    return time.perf_counter() - start


def summary(values):
    return f"{statistics.median(values):.1f} [{min(values):.1f}..{max(values):.1f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flash-attention", action="store_true")
    flags = parser.parse_args()

    start = time.perf_counter()
    model = llama_cpp.Llama(flags.model, n_ctx=max(1024, flags.prompt_tokens + flags.tokens), n_threads=flags.threads,
                            n_threads_batch=flags.threads, n_batch=flags.prompt_tokens, n_ubatch=flags.prompt_tokens,
                            flash_attn=flags.flash_attention, verbose=False)
    load = time.perf_counter() - start
    text = (WORDS * flags.prompt_tokens).encode()
    ids = model.tokenize(text[: 16 * flags.prompt_tokens], add_bos=False)[: flags.prompt_tokens]
    context = model.ctx if hasattr(model, "ctx") else model._ctx.ctx

    prefill, decode = [], []
    for repetition in range(flags.repeat + 1):
        memory_clear(context)
        model.reset()
        start = time.perf_counter()
        model.eval(ids)
        seconds = time.perf_counter() - start
        tokens = flags.tokens / decode_seconds(context, ids[0], flags.tokens)
        if repetition > 0:
            prefill.append(len(ids) / seconds)
            decode.append(tokens)
    print(f"llama-cpp-python {llama_cpp.__version__}, {flags.threads} threads, load {load:.2f} s")
    print(f"prefill of {len(ids)} tokens: {summary(prefill)} tokens/s")
    print(f"decoding of {flags.tokens} tokens: {summary(decode)} tokens/s")


if __name__ == "__main__":
    main()
