"""Writes a folder of convert.py as Hugging Face's Llama in bf16, with its tokenizer: `python3 unpack.py smollm2 smollm2-bf16`.
For devices and programs that do not multiply by blocks of 4 bits.
"""

import argparse
import json
import pathlib

import torch

import network
from llada_export import tokenizer_json
from safetensors_file import write_safetensors
from vocabulary import Vocabulary


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="folder of convert.py")
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    model, vocabulary = network.load(args.model), Vocabulary(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    write_safetensors(args.out / "model.safetensors", {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()})
    end = vocabulary.end
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": False,
              "mlp_bias": False, "tie_word_embeddings": True, "eos_token_id": end, "torch_dtype": "bfloat16",
              **vars(model.config)}
    about_tokenizer = {"chat_template": vocabulary.chat_template, "eos_token": vocabulary.tokens[end]}
    files = {"config": config, "tokenizer": tokenizer_json(vocabulary), "tokenizer_config": about_tokenizer}
    for name, content in files.items():
        (args.out / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
