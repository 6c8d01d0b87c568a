"""Runs the authors' own code on the golden cases fast_dllm_v2 and sdlm and compares tokens and forwards with what
tools/block_diffusion_cases.py wrote.

usage: python tools/block_diffusion_authors.py sdlm CASE CHECKOUT
       python tools/block_diffusion_authors.py fast_dllm_v2 CASE FOLDER
CHECKOUT is OpenGVLab/SDLM (run with its transformers 4.37.2 and pandas, of 7e8a26e). FOLDER holds modeling.py and
configuration.py of Efficient-Large-Model/Fast_dLLM_v2_7B (run with its transformers 4.53.1 and einops).
"""

import importlib
import json
import pathlib
import sys
import types

import torch
from safetensors.torch import load_file


class Counted:
    """Counts the forwards of a network."""

    def __init__(self, network):
        self.count = 0
        network.register_forward_pre_hook(lambda *_: setattr(self, "count", self.count + 1))


class Spelling:
    """A tokenizer whose texts are lists of ids."""

    model_max_length = 1 << 20

    @staticmethod
    def batch_decode(ids, **_):
        return ids.tolist()


def network_of(kind, config_kind, case):
    config = json.loads((case / "config.json").read_text())
    network = kind(config_kind(**{k: v for k, v in config.items() if k != "model_type"}, attn_implementation="eager"))
    weights = load_file(case / "model.safetensors")
    if config["tie_word_embeddings"]:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    network.load_state_dict(weights)
    network.tie_weights()
    return network.float().eval(), config


def ended(tokens, stop):
    return tokens[: tokens.index(stop) + 1] if stop in tokens else tokens


def sdlm_runs(case, checkout, io):
    sys.path.insert(0, checkout)
    package = importlib.import_module("sdlm.model.sdlm_qwen2_5.modeling_qwen2")
    configuration = importlib.import_module("sdlm.model.sdlm_qwen2_5.configuration_qwen2")
    code = importlib.import_module("sdlm.model.sdlm_qwen2_5.generate_utils")
    network, config = network_of(package.Qwen2ForCausalLM, configuration.Qwen2Config, case)
    code.EOS_TOKEN_IDS = [config["eos_token_id"]]
    forwards = Counted(network)
    for run in runs_of(io):
        prompt, by, threshold = run.split(".", 2)
        expected = io[f"{run}.tokens"].tolist()
        forwards.count = 0
        made = code.SDLM_generate(
            network,
            Spelling(),
            types.SimpleNamespace(input_ids=io[f"{prompt}.prompt"][None].long()),
            max_gen_len=48,
            threshold=float(threshold.removeprefix("thr")),
            n_future_tokens=config["block_size"],
            alg={"by_probability": "prob_conf", "by_entropy": "entropy_conf"}[by],
        )[0]
        if len(made) < 48:
            made.append(config["eos_token_id"])  # their answers are cut before it
        yield run, ended(made[:48], config["eos_token_id"]), forwards.count, expected


def fast_dllm_v2_runs(case, folder, io):
    folder = pathlib.Path(folder)
    sys.path.insert(0, str(folder.parent))
    modeling = importlib.import_module(folder.name + ".modeling")
    network, config = network_of(modeling.Fast_dLLM_QwenForCausalLM, modeling.Fast_dLLM_QwenConfig, case)
    forwards = Counted(network.model)
    for run in runs_of(io):
        prompt, rest = run.split(".thr")
        threshold, cache, small = rest.rsplit(".", 2)
        ids = io[f"{prompt}.prompt"][None].long()
        forwards.count = 0
        made = network.generate(
            ids,
            max_new_tokens=3 * config["bd_size"],
            mask_id=config["mask_token_id"],
            threshold=float(threshold),
            small_block_size=int(small.removeprefix("small")),
            block_size=config["bd_size"],
            stop_token=config["eos_token_id"],
            use_block_cache=cache == "cache_dual",
        )
        made = (made[0] if isinstance(made, tuple) else made)[0, ids.shape[1] :].tolist()
        counted = forwards.count - (ids.shape[1] > config["bd_size"])  # without the prompt's
        yield run, ended(made, config["eos_token_id"]), counted, io[f"{run}.tokens"].tolist()


def runs_of(io):
    return sorted(name.removesuffix(".tokens") for name in io if name.endswith(".tokens"))


def main():
    kind, case, source = sys.argv[1:]
    case = pathlib.Path(case)
    io = load_file(case / "io.safetensors")
    failed = 0
    for run, tokens, forwards, expected in {"sdlm": sdlm_runs, "fast_dllm_v2": fast_dllm_v2_runs}[kind](case, source, io):
        same = tokens == expected and forwards == int(io[f"{run}.nfe"])
        failed += not same
        print(f"{run}: {len(tokens)} tokens, {forwards} forwards: {'equal' if same else 'DIFFER'}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
