"""Writes an adapted model as a folder in LLaDA's layout: config.json, model.safetensors (bf16), tokenizer.json.

Ref: GSAI-ML/LLaDA-8B-Base, configuration_llada.py and modeling_llada.py (names); huggingface/tokenizers (tokenizer.json)
"""

import json

import torch

from safetensors_file import write_safetensors

LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "q_proj", "self_attn.k_proj": "k_proj",
         "self_attn.v_proj": "v_proj", "self_attn.o_proj": "attn_out", "post_attention_layernorm": "ff_norm",
         "mlp.gate_proj": "ff_proj", "mlp.up_proj": "up_proj", "mlp.down_proj": "ff_out"}


def llada_name(name):
    if name == "model.embed_tokens.weight":
        return "model.transformer.wte.weight"
    if name == "model.norm.weight":
        return "model.transformer.ln_f.weight"
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"model.transformer.blocks.{layer}.{LAYER[part]}.weight"


def llada_config(c, mask_id, end, shift):
    # Shifted logits are not LLaDA's: another word keeps readers of LLaDA away.
    return {"model_type": "llada_shifted" if shift else "llada", "block_type": "llama", "activation_type": "silu",
            "layer_norm_type": "rms", "rope": True, "rope_theta": c.rope_theta, "d_model": c.hidden_size,
            "n_heads": c.num_attention_heads, "n_kv_heads": c.num_key_value_heads, "n_layers": c.num_hidden_layers,
            "mlp_hidden_size": c.intermediate_size, "vocab_size": c.vocab_size, "embedding_size": c.vocab_size,
            "max_sequence_length": c.max_position_embeddings, "rms_norm_eps": c.rms_norm_eps, "weight_tying": True,
            "mask_token_id": mask_id, "eos_token_id": end}


def tokenizer_json(vocabulary):
    added = [{"id": vocabulary.ids[t], "content": t, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for t in sorted(vocabulary.special, key=vocabulary.ids.get)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence",
                              "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
            "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary.ids,
                      "merges": [" ".join(pair) for pair in vocabulary.ranks]}}


def export(folder, model, vocabulary, mask_id, shift, card):
    folder.mkdir(parents=True, exist_ok=True)
    state = {llada_name(name): value.detach().to("cpu", torch.bfloat16) for name, value in model.state_dict().items()}
    write_safetensors(folder / "model.safetensors", state)
    config = llada_config(model.config, mask_id, vocabulary.end, shift)
    about_tokenizer = {"chat_template": vocabulary.chat_template, "eos_token": vocabulary.tokens[vocabulary.end]}
    files = {"config": config, "tokenizer": tokenizer_json(vocabulary), "tokenizer_config": about_tokenizer, "card": card}
    for name, content in files.items():
        text = json.dumps(content, indent=None if name == "tokenizer" else 1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n")
