"""Makes the golden cases fast_dllm_v2 and sdlm of tests/goldens: small random weights under the keys of Qwen 2, and what
two published methods of block diffusion make of them. The network is transformers' Qwen2ForCausalLM under masks of four
dimensions; the methods' loops are written here from the papers and the authors' code (tools/block_diffusion_authors.py
runs that code itself on these cases and compares). Where a method's cache changes nothing but the work, there is none
here: every forward runs the whole sequence.

usage: python tools/block_diffusion_cases.py OUT
needs torch, transformers (made with 5.24) and safetensors.

Ref: Wu et al., "Fast-dLLM v2: Efficient Block-Diffusion LLM" (NVlabs/Fast-dLLM; generate() of
Efficient-Large-Model/Fast_dLLM_v2_7B); Liu et al., "Sequential Diffusion Language Models" (OpenGVLab/SDLM,
SDLM_generate with use_cache).
"""

import json
import math
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

VOCAB, MASK = 96, 95
NO_STOP = -1
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "use_sliding_window": False,
}
# No decision may hang on rounding: least differences of logits and of confidences.
LEAST_LOGITS_GAP = 2e-4
LEAST_GAP = 2e-5


def random_network(seed, tied):
    torch.manual_seed(seed)
    network = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied, attn_implementation="eager")).float().eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("norm.weight"):
                weight.uniform_(0.7, 1.3)
            elif name.endswith(".bias"):
                weight.normal_(0.0, 0.5)
            else:
                gain = 6.0 if "lm_head" in name or "embed" in name else 2.0
                weight.normal_(0.0, gain / math.sqrt(weight.shape[1]))
            if "lm_head" in name:
                weight[MASK] *= 0.1
    return network


class Network:
    def __init__(self, seed, tied):
        self.qwen = random_network(seed, tied)

    def logits(self, ids, positions, visible, past=()):
        """Logits [rows, vocab] and each layer's keys and values of rows `ids`; visible[i][j]: row i sees entry j of
        `past`, or row j behind them."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(past):
            cache.update(keys, values, layer)
        mask = torch.where(torch.as_tensor(visible), 0.0, torch.finfo(torch.float32).min)[None, None]
        with torch.no_grad():
            out = self.qwen(
                input_ids=torch.tensor([ids]),
                position_ids=torch.tensor([positions]),
                attention_mask=mask,
                cache=cache,
                use_cache=True,
            )
        rows = [(layer.keys[:, :, -len(ids) :], layer.values[:, :, -len(ids) :]) for layer in out.cache.layers]
        return out.logits[0], rows


def block_causal(count, block):
    index = torch.arange(count) // block
    return index[:, None] >= index[None, :]


def checked_top(row):
    top = torch.topk(row, 2).values
    assert top[0] - top[1] > LEAST_LOGITS_GAP, "two tokens are all but equally likely"
    return int(row.argmax())


def checked_above(value, threshold):
    assert abs(float(value) - threshold) > LEAST_GAP or threshold == 1.0, "a confidence lies at the threshold"
    return bool(value > threshold)


def fast_dllm_v2(network, prompt, stop, blocks, threshold, cache, block=32, small=8):
    """As generate(): `blocks` is its max_new_tokens over the block size. Returns tokens, forwards behind the prompt's, and
    of each forward that filled places the logits of the row that predicts the first of them."""
    tokens = list(prompt)
    forwards, chosen_rows = 0, []

    def whole():
        return network.logits(tokens, list(range(len(tokens))), block_causal(len(tokens), block))

    if len(tokens) % block == 0:
        tokens.append(checked_top(whole()[0][-1]))
    is_over = lambda: stop in tokens[len(prompt) :] and MASK not in tokens[: tokens.index(stop, len(prompt))]
    for _ in range(blocks):
        if is_over():
            break
        begin = len(tokens) // block * block
        tokens += [MASK] * (begin + block - len(tokens))
        entries = None  # of all rows when the whole block last ran
        for at in range(begin, begin + block, small):
            while MASK in tokens[at : at + small] and not is_over():
                hidden = [i for i in range(at, at + small) if tokens[i] == MASK]
                if cache == "off" or entries is None or tokens[at] == MASK:
                    logits, entries = whole()
                    predicting = {i: logits[i - 1] for i in hidden}
                else:
                    others = [i for i in range(len(tokens)) if not at <= i < at + small]
                    past = [(k[:, :, others], v[:, :, others]) for k, v in entries]
                    own = list(range(at, at + small))
                    rows, new = network.logits([tokens[i] for i in own], own, torch.ones(small, len(tokens), dtype=bool), past)
                    for (k, v), (new_k, new_v) in zip(entries, new):
                        k[:, :, own], v[:, :, own] = new_k, new_v
                    predicting = {i: rows[i - 1 - at] for i in hidden}
                forwards += 1
                guess = {i: int(row.argmax()) for i, row in predicting.items()}
                sure = {i: float(row.softmax(-1)[guess[i]]) for i, row in predicting.items()}
                ranked = sorted(hidden, key=lambda i: -sure[i])
                assert len(ranked) < 2 or sure[ranked[0]] - sure[ranked[1]] > LEAST_GAP, "two places are as sure"
                filled = [i for i in hidden if i == ranked[0] or checked_above(sure[i], threshold)]
                chosen_rows.append(predicting[filled[0]])
                for i in filled:
                    tokens[i] = checked_top(predicting[i])
                    assert tokens[i] != MASK, "a guess is the mask"
        if is_over():
            break
        forwards += 1
        tokens.append(checked_top(whole()[0][-1]))
    answer = tokens[len(prompt) :]
    if stop in answer:
        answer = answer[: answer.index(stop) + 1]
    return answer, forwards, torch.stack(chosen_rows)


def sdlm(network, prompt, stop, count, threshold, by, window):
    """As SDLM_generate with use_cache: a window of the last token and hidden places stands in place of the last token and
    sees what stands before that. Answers are cut at `count` tokens and keep their end token."""
    answer, forwards, chosen_rows = [], 0, []
    while len(answer) < count and stop not in answer:
        known = prompt + answer
        prefix = len(known) - 1
        ids = known + [known[-1]] + [MASK] * (window - 1)
        positions = list(range(len(known))) + list(range(prefix, prefix + window))
        visible = torch.ones(len(ids), len(ids)).tril().bool()
        visible[len(known) :, len(known) :] = True
        visible[len(known) :, prefix] = False
        logits = network.logits(ids, positions, visible)[0][-window:]
        forwards += 1
        probabilities = logits.softmax(-1)
        if by == "entropy":
            entropy = -(probabilities * torch.log(probabilities + 1e-9)).sum(-1)
            sure = 1.0 - entropy / math.log(VOCAB)
        else:
            sure = probabilities.max(-1).values
        taken = 1
        if checked_above(sure[0], threshold):
            while taken < window and checked_above(sure[taken], threshold):
                taken += 1
        chosen_rows.append(logits[0])
        answer += [checked_top(row) for row in logits[:taken]]
        assert MASK not in answer, "a guess is the mask"
    answer = answer[:count]
    if stop in answer:
        answer = answer[: answer.index(stop) + 1]
    return answer, forwards, torch.stack(chosen_rows)


def prompts(seed, lengths):
    generator = torch.Generator().manual_seed(seed)
    return {f"p{n}": torch.randint(0, MASK, (n,), generator=generator).tolist() for n in lengths}


def fast_dllm_v2_case(seed):
    network = Network(seed, tied=False)
    runs = {
        "p21": [("1.0", "off", 8), ("0.9", "off", 8), ("0.9", "dual", 8), ("0.6", "dual", 16), ("0.6", "off", 32)],
        "p64": [("0.6", "off", 8), ("0.6", "dual", 8)],
        "p77": [("0.9", "off", 8), ("0.9", "dual", 8)],
    }
    inputs = prompts(seed, [21, 64, 77])

    def answers(stop):
        return {
            f"{name}.thr{threshold}.cache_{cache}.small{small}":
                fast_dllm_v2(network, inputs[name], stop, 3, float(threshold), cache, small=small)
            for name, settings in runs.items() for threshold, cache, small in settings
        }

    stop = a_stop(answers(NO_STOP), least=20)
    made = answers(stop)
    check_variety(made)
    assert made["p64.thr0.6.cache_off.small8"][0] != made["p64.thr0.6.cache_dual.small8"][0], "the cache changes nothing"
    probe = prompts(seed + 1, [75])["p75"]
    probe[70:74] = [MASK] * 4
    logits = network.logits(probe, list(range(75)), block_causal(75, 32))[0]
    config = {**SIZES, "model_type": "Fast_dLLM_Qwen", "architectures": ["Fast_dLLM_QwenForCausalLM"], "bd_size": 32,
              "mask_token_id": MASK, "eos_token_id": stop, "tie_word_embeddings": False}
    return network, config, collected(probe, logits, inputs, made, "p64")


def sdlm_case(seed, window=4):
    network = Network(seed, tied=True)
    inputs = prompts(seed, [1, 23, 70])

    def answers(stop):
        return {
            f"{name}.by_{by}.thr{threshold}": sdlm(network, prompt, stop, 48, float(threshold), by, window)
            for name, prompt in inputs.items()
            for by, threshold in [("probability", "0.9"), ("probability", "0.5"), ("entropy", "0.8"), ("entropy", "0.6")]
        }

    stop = a_stop(answers(NO_STOP), least=10)
    made = answers(stop)
    check_variety(made)
    probe = prompts(seed + 1, [40])["p40"]
    logits = network.logits(probe, list(range(40)), torch.ones(40, 40).tril().bool())[0]
    config = {**SIZES, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "block_size": window,
              "causal_attn": False, "text_mask_token_id": MASK, "eos_token_id": stop, "tie_word_embeddings": True}
    return network, config, collected(probe, logits, inputs, made, "p23")


def a_stop(made, least):
    """A token that ends some answers, behind `least` tokens, and not others."""
    answers = [tokens for tokens, _, _ in made.values()]
    for tokens in answers:
        for token in tokens[least:]:
            firsts = [other.index(token) for other in answers if token in other]
            if min(firsts) >= least and len(firsts) < len(answers):
                return token
    raise AssertionError("no token would end some answers")


def check_variety(made):
    rates = [forwards / len(tokens) for tokens, forwards, _ in made.values()]
    assert all(len(set(tokens)) > 5 for tokens, _, _ in made.values()), "an answer repeats itself"
    assert min(rates) < 0.6 and max(rates) > 0.8, "the thresholds change little"


def collected(probe, logits, inputs, made, detailed):
    io = {"probe_ids": torch.tensor(probe), "probe_logits": logits}
    io |= {f"{name}.prompt": torch.tensor(prompt) for name, prompt in inputs.items()}
    for run, (tokens, forwards, rows) in made.items():
        print(f"  {run}: {len(tokens)} tokens, {len(set(tokens))} different ones, {forwards} forwards")
        io[f"{run}.tokens"] = torch.tensor(tokens)
        io[f"{run}.nfe"] = torch.tensor([forwards])
        if run.startswith(detailed + "."):
            io[f"{run}.logits"] = rows
    return io


def write(folder, network, config, io):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    weights = {name: weight.clone() for name, weight in network.qwen.state_dict().items()}
    if config["tie_word_embeddings"]:
        del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors")
    save_file({name: t.to(torch.int32 if t.dtype == torch.int64 else t.dtype).contiguous() for name, t in io.items()},
              folder / "io.safetensors")


def first_that_works(make, seeds):
    for seed in seeds:
        try:
            print(f"seed {seed}")
            return make(seed)
        except AssertionError as fault:
            print(f"  no: {fault}")
    sys.exit("no seed gives runs without close decisions")


def main():
    torch.set_num_threads(1)
    out = pathlib.Path(sys.argv[1])
    write(out / "fast_dllm_v2", *first_that_works(fast_dllm_v2_case, range(1, 400)))
    write(out / "sdlm", *first_that_works(sdlm_case, range(1, 400)))


if __name__ == "__main__":
    main()
